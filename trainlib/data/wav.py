"""WAV files: PCM of 16 bits, one channel, 16,000 samples a second. What else there is is refused, not converted."""

from __future__ import annotations

import contextlib
import os
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainlib.errors import DataError

#: samples a second, of Speech Commands and of DCASE's machines
RATE = 16_000
#: least bytes before the samples: RIFF's header, the format and the head of the data
_HEADER_BYTES = 44
_ACCEPTED = f"accepted are WAV files of 16-bit PCM, mono, {RATE:,} Hz"


def samples_in(file: Path) -> int:
    """How many samples a file has, at least one, by its header alone. Raises DataError."""
    with _opened(file) as sound:
        return sound.getnframes()


def read_wav(file: Path) -> NDArray[np.float64]:
    """The samples of a file, [n] in [-1, 1): 16-bit numbers over 32,768. Raises DataError."""
    with _opened(file) as sound:
        count, data = sound.getnframes(), sound.readframes(sound.getnframes())
    if len(data) != 2 * count:
        raise DataError(f"{file}: is cut short: {count:,} samples by its header, {len(data) // 2:,} are there")
    return np.frombuffer(data, "<i2") / 32_768


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[wave.Wave_read]:
    """A WAV of the format that is accepted, with samples, as many as its header says."""
    try:
        with wave.open(str(file), "rb") as sound:
            wrong = _differences(sound)
            if wrong:
                raise DataError(f"{file}: is {', '.join(wrong)}: {_ACCEPTED}")
            count, size = sound.getnframes(), os.stat(file).st_size
            if not count:
                raise DataError(f"{file}: holds no samples: must be one or more")
            if size < _HEADER_BYTES + 2 * count:
                raise DataError(f"{file}: is cut short: {count:,} samples by its header in {size:,} bytes")
            yield sound
    except (wave.Error, EOFError, RuntimeError) as error:  # the latter two without a word
        what = str(error) or ("is cut short or damaged" if os.stat(file).st_size else "is empty")
        raise DataError(f"{file}: no WAV that can be read ({what}): {_ACCEPTED}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None


def _differences(sound: wave.Wave_read) -> list[str]:
    """What of the format is not as accepted."""
    channels, bits, rate = sound.getnchannels(), 8 * sound.getsampwidth(), sound.getframerate()
    found = []
    if bits != 16:
        found.append(f"of {bits} bits")
    if channels != 1:
        found.append("stereo" if channels == 2 else f"of {channels} channels")
    if rate != RATE:
        found.append(f"at {rate:,} Hz")
    return found
