"""Features of sound as MLPerf Tiny has them: MFCC [49, 10] of a spoken word, log-mel vectors [640] of a machine.

The numbers are those of its reference code, as we read it in a copy of its repository (mlcommons/tiny, in
benchmark/training: `keyword_spotting/get_dataset.py` and `kws_util.py`, `anomaly_detection/common.py`), and of what
that calls, `tf.signal` and `librosa.feature.melspectrogram`, by their documentation. Not read: the `baseline.yaml` with
its 128 bands, of which MLPerf Tiny's 640 inputs are five spectra. All is computed in float64.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from trainlib.data.wav import RATE

Array = NDArray[np.float64]

# -- spoken words (kws_util.py, get_dataset.py) --------------------------------------------------
#: samples of a clip, of a window (30 ms), from one window to the next (20 ms), and of the FFT: the next power of 2
CLIP, WINDOW, STEP, FFT = RATE, RATE * 30 // 1000, RATE * 20 // 1000, 512
#: mel bands, from and to which frequency in Hz, what is added before the logarithm; coefficients kept
WORD_BANDS, LOWEST, HIGHEST, LEAST, COEFFICIENTS = 40, 20.0, 4000.0, 1e-6, 10
#: windows of a clip
FRAMES = 1 + (CLIP - WINDOW) // STEP

# -- machines (common.py) -------------------------------------------------------------------------
#: numbers of the FFT and samples from one to the next; mel bands up to half the rate; spectra in a vector
MACHINE_FFT, HOP, MACHINE_BANDS, STACK = 1024, 512, 128, 5
#: spectra of a recording that are used: "central part only"
CENTRAL = slice(50, 250)
#: numbers of a vector
WIDTH = STACK * MACHINE_BANDS


def mfcc(wave: Array) -> Array:
    """[49, 10]: ten coefficients, in natural-log units, of every 20 ms of a second of sound, [n] with n <= 16,000.

    A shorter wave is silent at its end. Windows of 30 ms (periodic Hann), magnitudes, 40 triangles on HTK's mel scale,
    ln(x + 1e-6), and of its cosine transform, scaled by 1 / sqrt(80) as `tf.signal.mfccs_from_log_mel_spectrograms`
    does, the first ten.
    """
    wave = np.pad(wave, (0, CLIP - len(wave)))
    magnitudes = np.abs(np.fft.rfft(_windows(wave, WINDOW, STEP), FFT))
    return np.log(magnitudes @ _word_triangles() + LEAST) @ cosine_transform()


def loudest_is_one(wave: Array) -> Array:
    """Divided by the largest sample, as the reference does before its MFCC; as it is if none is positive."""
    largest = wave.max()
    return wave / largest if largest > 0 else wave


def log_mel(wave: Array) -> Array:
    """[frames, 128] in dB: power of every 512 samples of a wave [n] in 128 bands; frames = 1 + n // 512.

    librosa's spectrum: 1024 samples (periodic Hann) around each place, with silence beyond the ends, squared; triangles
    of equal area on Slaney's mel scale from 0 to 8,000 Hz; 10 log10(x + 2.2e-16) of it.
    """
    wave = np.pad(wave, MACHINE_FFT // 2)
    power = np.abs(np.fft.rfft(_windows(wave, MACHINE_FFT, HOP))) ** 2
    return 10 * np.log10(power @ _machine_triangles() + np.finfo(np.float64).eps)


def vectors(spectra: Array, every: int = 1) -> Array:
    """[m, 640]: five neighbouring spectra of [frames, 128] behind each other, from each of the central ones on.

    Central are places 50 to 249. every: from how many spectra to the next vector; the reference's is 1.
    """
    central = spectra[CENTRAL]
    if len(central) < STACK:
        return np.empty((0, WIDTH))
    stacks = np.lib.stride_tricks.sliding_window_view(central, STACK, axis=0)[::every]
    return stacks.transpose(0, 2, 1).reshape(-1, WIDTH)


def vectors_in(samples: int, every: int = 1) -> int:
    """How many vectors so many samples give."""
    central = min(1 + samples // HOP, CENTRAL.stop) - CENTRAL.start
    return len(range(0, central - STACK + 1, every))


#: the shortest recording that gives a vector
LEAST_SAMPLES = (CENTRAL.start + STACK - 1) * HOP


def _windows(wave: Array, length: int, step: int) -> Array:
    """[windows, length] under a periodic Hann window."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return np.lib.stride_tricks.sliding_window_view(wave, length)[::step] * hann


def _triangles(points: Array, edges: Array) -> Array:
    """[points, bands]: a triangle of height 1 over every three neighbouring edges."""
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (points[:, None] - low) / (middle - low), (high - points[:, None]) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))


def _frequencies(fft: int) -> Array:
    """Of an FFT's results, in Hz."""
    return np.linspace(0, RATE / 2, fft // 2 + 1)


@functools.cache
def _word_triangles() -> Array:
    """[257, 40] on HTK's scale, mel(f) = 2595 log10(1 + f / 700): `tf.signal.linear_to_mel_weight_matrix`."""

    def mel(hertz: Array) -> Array:
        return 2595 * np.log10(1 + hertz / 700)

    low, high = mel(np.array([LOWEST, HIGHEST]))
    return _triangles(mel(_frequencies(FFT)), np.linspace(low, high, WORD_BANDS + 2))


@functools.cache
def cosine_transform() -> Array:
    """[40, 10]: of bands' logarithms the first coefficients (DCT-II)."""
    angles = np.pi / WORD_BANDS * np.outer(np.arange(WORD_BANDS) + 0.5, np.arange(COEFFICIENTS))
    return 2 * np.cos(angles) / np.sqrt(2 * WORD_BANDS)


@functools.cache
def _machine_triangles() -> Array:
    """[513, 128] on Slaney's scale, whose mel is 200 / 3 Hz up to 1000 Hz and 1 / 27 of a factor 6.4 above it.

    Equally far on that scale, triangles in Hz, each of area 1: `librosa.filters.mel`.
    """
    knee = 15.0  # mel of 1000 Hz
    top = knee + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, top, MACHINE_BANDS + 2)
    edges = np.where(mels < knee, mels * 200 / 3, 1000 * 6.4 ** ((mels - knee) / 27))
    return _triangles(_frequencies(MACHINE_FFT), edges) * 2 / (edges[2:] - edges[:-2])
