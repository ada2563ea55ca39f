"""Pictures: folders of PNG files, read by Pillow, which is needed for nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainlib.data.folders import (
    Clip,
    Progress,
    Recipe,
    files_in,
    folders_in,
    gathered,
    require,
    silent,
    split_by_hash,
    top_of,
)
from trainlib.data.recordings import SPLITS, Recordings
from trainlib.errors import DataError

#: Pillow's names of what is accepted, and their channels
CHANNELS = {"L": 1, "RGB": 3}

_PICTURES = "accepted is CLASS/NAME.png, or that in train/, validation/ and test/"


def images(folder: str | Path, progress: Progress = silent) -> Recordings:
    """PNG files [channels, height, width] as they are, 0 to 255, one channel or three, all of one size.

    A folder a class; or these in train/ and test/, and validation/ if there is one. Without these a file's split is
    a hash of its name. Needs Pillow, the extra "images". Raises DataError.
    """
    top = top_of(folder, _PICTURES)
    names = {place.name for place in folders_in(top)}
    splits = [split for split in SPLITS if split in names] if {"train", "test"} <= names <= set(SPLITS) else [""]
    clips = []
    for split in splits:
        for place in folders_in(top / split):
            for file in files_in(place, ".png", _PICTURES):
                clips.append(Clip(file, place.name, split or split_by_hash(file.relative_to(top).as_posix())))
    if not clips:
        raise DataError(f"{top}: has no folders of pictures: {_PICTURES}")
    require(top, clips, "hashes of names decide; folders train/ and test/ of classes would")
    classes = tuple(sorted({clip.kind for clip in clips}))
    shape = shape_of(clips[0].file)

    def one_of_the_shape(file: Path) -> int:
        if shape_of(file) != shape:
            raise DataError(
                f"{file}: is {list(shape_of(file))} (channels, height, width), {clips[0].file} is "
                f"{list(shape)}: all must have one shape"
            )
        return 1

    about = "picture: channels, height, width, 0 to 255; not standardised"
    return gathered(top, clips, classes, Recipe(about, shape, one_of_the_shape, read_picture), progress)


def shape_of(file: Path) -> tuple[int, int, int]:
    """(channels, height, width), by the header alone. Raises DataError."""
    with _opened(file) as picture:
        return CHANNELS[picture.mode], picture.height, picture.width


def read_picture(file: Path) -> NDArray[np.uint8]:
    """[channels, height, width]. Raises DataError."""
    with _opened(file) as picture:
        try:
            pixels = np.asarray(picture, np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{file}: is damaged or cut short ({error})") from None
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def _opened(file: Path) -> Any:
    """Pillow's picture, in whose `with` the file is open."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError(f"{file}: pictures are read by Pillow: pip install 'pulpsim[images]'") from None
    try:
        picture = Image.open(file, formats=["PNG"])
    except (OSError, ValueError) as error:  # what Pillow does not know is an OSError without a number
        reason = getattr(error, "strerror", None)
        what = f"cannot be read: {reason}" if reason else "no PNG that can be read: accepted are PNG files"
        raise DataError(f"{file}: {what}") from None
    if picture.mode not in CHANNELS:
        picture.close()
        raise DataError(f"{file}: is of Pillow's mode {picture.mode}: accepted are 8-bit grey (L) and colours (RGB)")
    return picture
