"""Images made by rule, for classifiers that no recordings are shipped for: gratings under noise.

A class is an angle, a spacing and a mixture of channels; a sample is a grating of its class at a random place and of a
random strength, with noise as strong as it on top. Networks learn it in a few hundred steps and cannot know it before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: of the noise, where a grating's is 1 on average
NOISE = 0.5


def gratings(
    shape: tuple[int, int, int], classes: int, count: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(samples float32 [count, *shape], their classes), of deviation 1; the same for the same arguments.

    shape: channels, height, width. Classes are those of the shape and their number, whatever the seed.
    """
    channels, height, width = shape
    kinds = np.random.default_rng([channels, height, width, classes])
    angles = np.pi * (np.arange(classes) + kinds.random()) / classes
    spacings = 3.0 + (max(height, width) / 4 - 3.0) * kinds.random(classes) if max(height, width) > 12 else 3.0
    mixtures = kinds.standard_normal((classes, channels))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % classes)
    rows, columns = np.mgrid[:height, :width]
    along = np.cos(angles)[:, None, None] * rows + np.sin(angles)[:, None, None] * columns
    waves = 2 * np.pi * along / np.broadcast_to(spacings, classes)[:, None, None]
    samples = np.empty((count, *shape), np.float32)
    for number, label in enumerate(labels):
        grating = np.sin(waves[label] + 2 * np.pi * rng.random()) * (0.75 + rng.random() / 2)
        image = mixtures[label][:, None, None] * grating + NOISE * rng.standard_normal(shape)
        samples[number] = (image - image.mean()) / image.std()
    return samples, labels
