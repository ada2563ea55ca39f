"""Sounds of machines, healthy and faulty: a folder laid out as DCASE's."""

from __future__ import annotations

from pathlib import Path

from trainlib.data import spectra
from trainlib.data.folders import Clip, Progress, Recipe, files_in, folders_in, gathered, require, silent, top_of
from trainlib.data.recordings import Recordings
from trainlib.data.wav import RATE, read_wav, samples_in
from trainlib.errors import DataError

CONDITIONS = ("normal", "anomaly")

_MACHINES = "accepted is MACHINE/train/normal_id_NN_NUMBER.wav, and test/ with these and anomaly_id_NN_NUMBER.wav"


def machine_sounds(folder: str | Path, every: int = 1, progress: Progress = silent) -> Recordings:
    """Log-mel vectors [640] of a folder laid out as that of DCASE 2020's task 2, or of one of its machines, as ToyCar.

    A machine's folder has train/ and test/ with normal_id_NN_NUMBER.wav and anomaly_id_NN_NUMBER.wav; `machines` are
    "ToyCar/id_01" and so on. every: from how many spectra to the next vector of a recording; the reference's 1 gives
    196 vectors, half a megabyte, of each that lasts 8 s or more. Raises DataError.
    """
    top = top_of(folder, _MACHINES)
    places = [top] if _splits(top) else folders_in(top)
    clips = [_clip(place, split, file) for place in places for split in _splits(place)
             for file in files_in(place / split, ".wav", _MACHINES)]  # fmt: skip
    if not clips:
        raise DataError(f"{top}: has no machines: {_MACHINES}")
    require(top, clips, "a machine's train/ and test/ decide")
    recipe = Recipe(
        f"log-mel power in dB at {RATE} Hz: {spectra.STACK} spectra of {spectra.MACHINE_BANDS} bands; not standardised",
        (spectra.WIDTH,),
        lambda file: _vectors_of(file, every),
        lambda file: spectra.vectors(spectra.log_mel(read_wav(file)), every),
    )
    return gathered(top, clips, CONDITIONS, recipe, progress)


def _splits(place: Path) -> list[str]:
    """The folders of recordings that a machine's has."""
    return [split for split in ("train", "test") if (place / split).is_dir()]


def _clip(place: Path, split: str, file: Path) -> Clip:
    condition, _, rest = file.stem.partition("_id_")
    number, mark, _ = rest.partition("_")
    if condition not in CONDITIONS or not number or not mark:
        raise DataError(f"{file}: its name tells not whether it is normal and of which machine: {_MACHINES}")
    return Clip(file, condition, split, machine=f"{place.resolve().name}/id_{number}")


def _vectors_of(file: Path, every: int) -> int:
    """How many vectors a recording gives, one or more."""
    count = samples_in(file)
    if count < spectra.LEAST_SAMPLES:
        raise DataError(
            f"{file}: has {count:,} samples ({count / RATE:.2f} s): its first {spectra.CENTRAL.start} spectra are not "
            f"used, so accepted are {spectra.LEAST_SAMPLES:,} samples or more"
        )
    return spectra.vectors_in(count, every)
