"""Spoken words: a folder laid out as Speech Commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pulpsim.errors import nearest
from trainlib.data import spectra
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
from trainlib.data.recordings import Recordings
from trainlib.data.wav import RATE, read_wav, samples_in
from trainlib.errors import DataError

#: the class of all words that are not asked for
UNKNOWN = "unknown"

_WORDS = "accepted is WORD/SPEAKER_nohash_NUMBER.wav"


def speech_commands(
    folder: str | Path, words: Sequence[str] | None = None, progress: Progress = silent
) -> Recordings:
    """MFCC [49, 10] of a folder laid out as Speech Commands: a folder a word, files SPEAKER_nohash_NUMBER.wav.

    Clips last a second at most; each is divided by its largest sample, see `spectra`. words: the classes, in this
    order; all others become "unknown", behind them. Without it every folder is a class. Folders whose names begin
    with "_" or "." (_background_noise_) are no words.

    A file's split is what validation_list.txt and testing_list.txt beside the words say, 'train' if it is in neither;
    without both it is a hash of the speaker, so that nobody is in two. Raises DataError.
    """
    top = top_of(folder, _WORDS)
    found = [place for place in folders_in(top) if not place.name.startswith("_")]
    if not found:
        raise DataError(f"{top}: has no folders of words: {_WORDS}")
    names = [place.name for place in found]
    classes = tuple(names) if words is None else _asked(top, words, names)
    listed = _lists(top)
    clips = []
    for place in found:
        kind = place.name if place.name in classes else UNKNOWN
        for file in files_in(place, ".wav", _WORDS):
            speaker, mark, _ = file.stem.partition("_nohash_")
            if not speaker or not mark:
                raise DataError(f"{file}: its name tells no speaker: {_WORDS}")
            name = file.relative_to(top).as_posix()
            split = split_by_hash(speaker) if listed is None else listed.get(name, "train")
            clips.append(Clip(file, kind, split, speaker))
    hint = "speakers' hashes decide" if listed is None else "the lists decide"
    require(top, clips, f"{hint}; a testing_list.txt beside the words names clips to test with")
    about = f"MFCC of a second at {RATE} Hz: frames 20 ms apart, coefficients; not standardised"
    recipe = Recipe(about, (spectra.FRAMES, spectra.COEFFICIENTS), _one_second, _mfcc)
    return gathered(top, clips, classes, recipe, progress)


def _one_second(file: Path) -> int:
    """Samples that a clip gives: one, unless it is too long."""
    count = samples_in(file)
    if count > spectra.CLIP:
        raise DataError(f"{file}: has {count:,} samples: accepted are {spectra.CLIP:,} at most, a second")
    return 1


def _mfcc(file: Path) -> NDArray[np.float64]:
    return spectra.mfcc(spectra.loudest_is_one(read_wav(file)))


def _asked(top: Path, words: Sequence[str], names: list[str]) -> tuple[str, ...]:
    """Classes: the words asked for, and one of all others if there are some."""
    for word in words:
        if word not in names:
            raise DataError(f"{top}: has no folder {word!r}{nearest(word, names)}; it has {', '.join(names)}")
    if len(set(words)) < len(words):
        raise DataError(f"{top}: the words {', '.join(words)} name one twice")
    others = set(names) - set(words)
    return (*words, UNKNOWN) if others and UNKNOWN not in words else tuple(words)


def _lists(top: Path) -> dict[str, str] | None:
    """The split of every file that a list names; None without lists."""
    files = {"validation": top / "validation_list.txt", "test": top / "testing_list.txt"}
    files = {split: file for split, file in files.items() if file.is_file()}
    if not files:
        return None
    listed: dict[str, str] = {}
    for split, file in files.items():
        for line in filter(None, map(str.strip, _text(file).splitlines())):
            if listed.setdefault(line, split) != split:
                raise DataError(f"{file}: names {line}, which the other list names too: a clip is in one split")
    return listed


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
