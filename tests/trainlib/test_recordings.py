"""Protects folders as data: features by definition and by other libraries, every file in its place, or a clear message.

All recordings are made here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import sys
import wave
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pulpsim.console import InputError
from trainlib import models
from trainlib.cli import main
from trainlib.data import as_samples, load_features, load_labelled
from trainlib.data.machines import machine_sounds
from trainlib.data.pictures import images
from trainlib.data.recordings import Recordings
from trainlib.data.spectra import LEAST_SAMPLES, log_mel, loudest_is_one, mfcc, vectors, vectors_in
from trainlib.data.spoken import speech_commands
from trainlib.data.wav import read_wav, samples_in
from trainlib.errors import DataError
from trainlib.learning import lessons_for

Sound = NDArray[np.int16]


def noise(samples: int, seed: int = 0) -> Sound:
    """A tone under noise, at any loudness."""
    rng = np.random.default_rng(seed)
    tone = np.sin(2 * np.pi * (200 + 40 * (seed % 50)) / 16_000 * np.arange(samples))
    return (3000 * tone + 1000 * rng.standard_normal(samples)).astype(np.int16)


def write(file: Path, sound: Sound | bytes, rate: int = 16_000, channels: int = 1, width: int = 2) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as to:
        to.setnchannels(channels)
        to.setsampwidth(width)
        to.setframerate(rate)
        to.writeframes(sound if isinstance(sound, bytes) else sound.astype("<i2").tobytes())
    return file


def refused(make: Callable[[], Any]) -> str:
    """The message, a line, that is all there is of it."""
    with pytest.raises(DataError) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- features --------------------------------------------------------------------------------------
def by_definition(wave: NDArray[np.float64], places: range, window: int, fft: int) -> NDArray[np.complex128]:
    """The discrete Fourier transform at each place, as a sum."""
    n = np.arange(window)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(fft // 2 + 1), n) / fft)
    return np.array([turns @ (wave[at : at + window] * np.sin(np.pi * n / window) ** 2) for at in places])


def triangle(at: float, low: float, middle: float, high: float) -> float:
    if at <= low or at >= high:
        return 0.0
    return (at - low) / (middle - low) if at <= middle else (high - at) / (high - middle)


def test_mfcc_is_what_its_definition_says() -> None:
    sound = noise(15_000) / 32_768
    spectrum = abs(by_definition(np.append(sound, np.zeros(1000)), range(0, 15_521, 320), 480, 512))
    assert spectrum.shape == (49, 257)
    mel = [1127.01048 * np.log(1 + f / 700) for f in (20, 4000)]
    edges = [mel[0] + (mel[1] - mel[0]) * band / 41 for band in range(42)]
    bands = np.array([[triangle(1127.01048 * np.log(1 + 31.25 * k / 700), *edges[b : b + 3]) for b in range(40)]
                      for k in range(257)])  # fmt: skip
    logs = np.log(spectrum @ bands + 1e-6)
    expected = [[sum(logs[t, m] * np.cos(np.pi * c * (2 * m + 1) / 80) for m in range(40)) / np.sqrt(20)
                 for c in range(10)] for t in range(49)]  # fmt: skip
    np.testing.assert_allclose(mfcc(sound), expected, rtol=0, atol=1e-5)


def slaney(mel: float) -> float:
    """In Hz."""
    return mel * 200 / 3 if mel < 15 else 1000 * np.exp((mel - 15) * np.log(6.4) / 27)


def test_log_mel_is_what_its_definition_says() -> None:
    sound = noise(9_000) / 32_768
    found = log_mel(sound)
    assert found.shape == (18, 128)
    padded = np.concatenate([np.zeros(512), sound, np.zeros(512)])
    power = abs(by_definition(padded, range(0, 17 * 512 + 1, 512), 1024, 1024)) ** 2
    edges = [slaney((15 + 27 * np.log(8) / np.log(6.4)) * band / 129) for band in range(130)]
    bands = np.array([[triangle(15.625 * k, *edges[b : b + 3]) * 2 / (edges[b + 2] - edges[b]) for b in range(128)]
                      for k in range(513)])  # fmt: skip
    np.testing.assert_allclose(found, 10 * np.log10(power @ bands + 2.0**-52), rtol=0, atol=1e-8)


def test_spectra_agree_with_scipy() -> None:
    signal, fft = pytest.importorskip("scipy.signal"), pytest.importorskip("scipy.fft")
    sound = noise(16_000, 1) / 32_768

    def magnitudes(wave: NDArray[np.float64], window: int, step: int, size: int) -> NDArray[np.float64]:
        _, _, found = signal.stft(wave, window="hann", nperseg=window, noverlap=window - step, nfft=size,
                                  boundary=None, padded=False, scaling="spectrum")  # fmt: skip
        return abs(found.T) * signal.get_window("hann", window).sum()

    mel = 2595 * np.log10(1 + np.linspace(0, 8000, 257) / 700)
    edges = np.linspace(*(2595 * np.log10(1 + np.array([20, 4000]) / 700)), 42)
    bands = np.stack([np.interp(mel, edges[b : b + 3], [0, 1, 0]) for b in range(40)], axis=1)
    logs = np.log(magnitudes(sound, 480, 320, 512) @ bands + 1e-6)
    ortho = fft.dct(logs, type=2, norm="ortho")[:, :10] * np.append(np.sqrt(2), np.ones(9))
    np.testing.assert_allclose(mfcc(sound), ortho, rtol=0, atol=1e-9)
    edges = np.array([slaney((15 + 27 * np.log(8) / np.log(6.4)) * band / 129) for band in range(130)])
    hertz = np.linspace(0, 8000, 513)
    bands = np.stack([np.interp(hertz, edges[b : b + 3], [0, 1, 0]) for b in range(128)], axis=1)
    power = magnitudes(np.pad(sound, 512), 1024, 512, 1024) ** 2
    expected = 10 * np.log10(power @ (bands * 2 / (edges[2:] - edges[:-2])) + np.finfo(float).eps)
    np.testing.assert_allclose(log_mel(sound), expected, rtol=0, atol=1e-9)


def test_log_mel_agrees_with_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    sound = noise(40_000, 2) / 32_768
    power = librosa.feature.melspectrogram(y=sound, sr=16_000, n_fft=1024, hop_length=512, n_mels=128, power=2.0)
    expected = 20.0 / 2.0 * np.log10(power + sys.float_info.epsilon)
    np.testing.assert_allclose(log_mel(sound), expected.T, rtol=0, atol=1e-4)


def test_loudness_moves_the_first_coefficient_alone() -> None:
    sound = noise(16_000) / 32_768
    moved = mfcc(sound) - mfcc(sound / 8)
    np.testing.assert_allclose(moved[:, 0], 40 * np.log(8) / np.sqrt(20), rtol=1e-3)
    assert abs(moved[:, 1:]).max() < 0.01
    assert loudest_is_one(sound).max() == 1 and np.array_equal(loudest_is_one(np.zeros(3)), np.zeros(3))
    assert np.isfinite(mfcc(np.zeros(16_000))).all() and np.isfinite(log_mel(np.zeros(512))).all()


@given(samples=st.integers(0, 140_000), every=st.integers(1, 7))
def test_vectors_are_neighbouring_spectra_and_as_many_as_told(samples: int, every: int) -> None:
    frames = 1 + samples // 512
    spectra = np.arange(128.0 * frames).reshape(frames, 128)
    found = vectors(spectra, every)
    assert len(found) == vectors_in(samples, every) and (len(found) > 0) == (samples >= LEAST_SAMPLES)
    for number, vector in enumerate(found):
        at = 50 + number * every
        assert np.array_equal(vector, spectra[at : at + 5].ravel()) and at + 5 <= 250


# -- WAV files -------------------------------------------------------------------------------------
@given(st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=50))
def test_samples_are_read_as_they_are(tmp_path_factory: pytest.TempPathFactory, samples: list[int]) -> None:
    file = write(tmp_path_factory.mktemp("wav") / "a.wav", np.array(samples, np.int16))
    assert samples_in(file) == len(samples)
    assert (read_wav(file) * 32_768).tolist() == samples


@given(st.integers(0, 143))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    file = write(tmp_path_factory.mktemp("wav") / "a.wav", noise(50))
    file.write_bytes(file.read_bytes()[:cut])
    assert str(file) in refused(lambda: read_wav(file)) and str(file) in refused(lambda: samples_in(file))


@given(st.lists(st.tuples(st.integers(0, 43), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_header_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    file = write(tmp_path_factory.mktemp("wav") / "a.wav", noise(50))
    content = bytearray(file.read_bytes())
    for place, value in damage:
        content[place] = value
    file.write_bytes(content)
    with contextlib.suppress(DataError):
        assert len(read_wav(file)) == samples_in(file)


def test_a_file_cut_behind_a_longer_header_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", noise(50))
    content = file.read_bytes()
    riff = struct.pack("<4sI", b"RIFF", len(content) + 200)
    file.write_bytes(riff + content[8:36] + struct.pack("<4sI", b"LIST", 200) + bytes(200) + content[36:])
    assert len(read_wav(file)) == 50
    file.write_bytes(file.read_bytes()[:-20])
    assert refused(lambda: read_wav(file)) == f"{file}: is cut short: 50 samples by its header, 40 are there"


def float_wav(file: Path) -> None:
    """Samples as floats, which the standard library does not read."""
    data = np.zeros(100, "<f4").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32)
    file.write_bytes(head + struct.pack("<4sI", b"data", len(data)) + data)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda file: write(file, noise(100), rate=8_000), "is at 8,000 Hz"),
        (lambda file: write(file, noise(100), channels=2), "is stereo"),
        (lambda file: write(file, bytes(300), width=3), "is of 24 bits"),
        (lambda file: write(file, bytes(300), 44_100, 4, 1), "is of 8 bits, of 4 channels, at 44,100 Hz"),
        (lambda file: write(file, noise(0)), "holds no samples: must be one or more"),
        (lambda file: file.write_bytes(b""), "no WAV that can be read (is empty)"),
        (lambda file: file.write_bytes(b"ID3" + bytes(100)), "no WAV that can be read (file does not start with RIFF"),
        (float_wav, "no WAV that can be read (unknown format: 3)"),
        (lambda file: None, "cannot be read: No such file or directory"),
        (lambda file: file.mkdir(), "cannot be read: Is a directory"),
    ],
)
def test_what_is_not_accepted_is_named(tmp_path: Path, make: Callable[[Path], object], what: str) -> None:
    make(file := tmp_path / "a.wav")
    message = refused(lambda: samples_in(file))
    assert message.startswith(f"{file}: {what}")
    if "cannot be" not in what and "holds" not in what:
        assert message.endswith("accepted are WAV files of 16-bit PCM, mono, 16,000 Hz")


# -- Speech Commands -------------------------------------------------------------------------------
def spoken(top: Path, speakers: int = 30) -> Path:
    """Two words by `speakers` and a third by one of them; noise and a text beside them."""
    for number in range(speakers):
        for word in ("yes", "no"):
            for take in range(1 + number % 2):
                write(top / word / f"{number:08x}_nohash_{take}.wav", noise(16_000 - 700 * (number % 3), number + take))
    write(top / "bird" / "00000003_nohash_0.wav", noise(16_000, 99))
    write(top / "_background_noise_" / "hum.wav", noise(50_000))
    (top / "README.md").write_text("words")
    return top


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoken(tmp_path_factory.mktemp("words"))


def test_every_clip_is_in_its_place(words: Path) -> None:
    found = speech_commands(words)
    assert found.classes == ("bird", "no", "yes") and found.machines == ()
    assert found.clips == tuple(sorted(file.relative_to(words).as_posix() for file in words.glob("[!_]*/*.wav")))
    assert found.clip.tolist() == list(range(91)) and found.x.shape == (91, 49, 10) and found.x.dtype == np.float32
    for row, name in enumerate(found.clips):
        word, _, speaker = name.removesuffix(".wav").partition("/")
        assert found.classes[found.y[row]] == word
        assert found.speakers[found.speaker[row]] == speaker.partition("_")[0]
        if row % 10 == 0:
            sound = read_wav(words / name)
            assert np.array_equal(found.x[row], mfcc(sound / sound.max()).astype(np.float32))
    assert speech_commands(words).x.tobytes() == found.x.tobytes()


def test_a_speaker_is_in_the_split_that_the_published_hash_gives(words: Path) -> None:
    found = speech_commands(words)
    assert set(found.split) == {"train", "validation", "test"}
    for row, place in enumerate(found.speaker):
        number = int(hashlib.sha1(found.speakers[place].encode()).hexdigest(), 16)
        percent = (number % (2**27 - 1 + 1)) * (100.0 / (2**27 - 1))
        assert found.split[row] == ("validation" if percent < 10 else "test" if percent < 20 else "train")


def test_lists_decide_where_there_are_some(tmp_path: Path) -> None:
    top = spoken(tmp_path, 4)
    (top / "testing_list.txt").write_text("no/00000000_nohash_0.wav\nyes/00000003_nohash_1.wav\ngone/x_nohash_0.wav\n")
    (top / "validation_list.txt").write_text("yes/00000001_nohash_0.wav\n")
    found = speech_commands(top)
    by_split = {split: [name for name, where in zip(found.clips, found.split, strict=True) if where == split]
                for split in ("train", "validation", "test")}  # fmt: skip
    assert by_split["test"] == ["no/00000000_nohash_0.wav", "yes/00000003_nohash_1.wav"]
    assert by_split["validation"] == ["yes/00000001_nohash_0.wav"] and len(by_split["train"]) == 10
    (top / "validation_list.txt").write_text("yes/00000003_nohash_1.wav\n")
    assert "names yes/00000003_nohash_1.wav, which the other list names too" in refused(lambda: speech_commands(top))


def test_words_asked_for_are_the_classes_and_the_rest_is_unknown(words: Path) -> None:
    found = speech_commands(words, ["yes", "bird"])
    assert found.classes == ("yes", "bird", "unknown") and found.count(2, "train") > 0
    assert {found.clips[row].split("/")[0] for row in np.flatnonzero(found.y == 2)} == {"no"}
    assert speech_commands(words, ["yes", "no", "bird"]).classes == ("yes", "no", "bird")
    assert "has no folder 'yess' (did you mean 'yes'?)" in refused(lambda: speech_commands(words, ["yess"]))
    assert "name one twice" in refused(lambda: speech_commands(words, ["yes", "yes"]))


def test_words_become_what_networks_learn_from(words: Path, tmp_path: Path) -> None:
    found = speech_commands(words)
    found.save(file := tmp_path / "words.npz")
    labelled = load_labelled(file)
    for split, x, labels in (
        ("train", labelled.train, labelled.train_labels), ("test", labelled.held_out, labelled.held_out_labels)
    ):  # fmt: skip
        rows = found.split == split
        assert np.array_equal(x, found.x[rows]) and np.array_equal(labels, found.y[rows])
    assert labelled.classes == found.classes
    assert set(labelled.speakers) == {found.speakers[place] for place in found.speaker[found.split == "test"]}
    assert load_labelled(file, held_out="validation").held_out.shape[1:] == (49, 10)
    lessons = lessons_for("ds_cnn", str(file))
    assert np.array_equal(lessons.samples, as_samples(labelled.standardise(labelled.train), (1, 49, 10)))
    with np.load(file) as archive:
        assert "not standardised" in str(archive["about"]) and tuple(archive["clips"]) == found.clips


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda top: write(top / "yes" / "ann_nohash_9.wav", noise(16_001)), "_9.wav: has 16,001 samples: accepted"),
        (lambda top: write(top / "yes" / "ann.wav", noise(9)), "ann.wav: its name tells no speaker: accepted is WORD/"),
        (lambda top: (top / "yes" / "a.flac").touch(), "a.flac: is no .wav file: accepted is WORD/SPEAKER_nohash_NUM"),
        (lambda top: (top / "up").mkdir(), "up: is empty: accepted is WORD/SPEAKER_nohash_NUMBER.wav"),
        (lambda top: (top / "testing_list.txt").touch(), "no file is in 'test': must be one or more in 'train' and in"),
        (lambda top: (top / "testing_list.txt").write_bytes(b"\xff"), "list.txt: cannot be read: not UTF-8 text"),
        (lambda top: write(top / "yes" / "z_nohash_0.wav", noise(9), 8000), "z_nohash_0.wav: is at 8,000 Hz: accepted"),
    ],
)
def test_a_folder_of_words_that_does_not_fit_is_refused_before_the_work(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    change(spoken(tmp_path, 4))
    assert message in refused(lambda: speech_commands(tmp_path, progress=lambda done, of: pytest.fail("worked")))


def test_a_word_said_once_is_kept(tmp_path: Path) -> None:
    found = speech_commands(spoken(tmp_path))
    assert np.count_nonzero(found.y == found.classes.index("bird")) == 1
    assert "bird" in found.without("test") and found.without("train") == []


# -- machines --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of machine, three machines in all."""
    top = tmp_path_factory.mktemp("machines")
    seed = 0
    for kind, number in (("ToyCar", 1), ("ToyCar", 2), ("fan", 0)):
        for name in ("train/normal", "test/normal", "test/anomaly"):
            for take in range(2):
                write(top / kind / f"{name}_id_{number:02d}_{take:08d}.wav", noise(30_000 + 2_000 * seed, seed))
                seed += 1
    return top


def test_vectors_of_every_recording_are_in_their_place(machines: Path) -> None:
    found = machine_sounds(machines)
    assert found.classes == ("normal", "anomaly") and found.speakers == ()
    assert found.machines == ("ToyCar/id_01", "ToyCar/id_02", "fan/id_00")
    assert len(found.clips) == 18 and found.x.shape == (len(found.clip), 640)
    assert list(found.clips) == sorted(found.clips) and (np.diff(found.clip) >= 0).all()
    for number, name in enumerate(found.clips):
        rows = found.clip == number
        assert np.array_equal(found.x[rows], vectors(log_mel(read_wav(machines / name))).astype(np.float32))
        machine, split, file = name.split("/")
        assert set(found.split[rows]) == {split} and set(found.y[rows]) == {int(file.startswith("anomaly"))}
        assert {found.machines[place] for place in found.machine[rows]} == {f"{machine}/{file[-18:-13]}"}
    few = machine_sounds(machines / "fan", every=5)
    assert few.machines == ("fan/id_00",) and 0 < len(few.x) < len(found.x) / 5


def test_machines_become_what_autoencoders_learn_from(machines: Path, tmp_path: Path) -> None:
    found = machine_sounds(machines)
    found.save(file := tmp_path / "machines.npz")
    features, labelled = load_features(file), load_labelled(file)
    assert np.array_equal(features.train, found.x[found.split == "train"])
    assert np.array_equal(features.held_out, found.x[(found.split == "test") & (found.y == 0)])
    assert labelled.classes == ("normal", "anomaly") and labelled.held_out_labels.max() == 1
    assert lessons_for(models.get("autoencoder"), str(file)).samples.shape[1:] == (640,)


@pytest.mark.parametrize(
    ("name", "samples", "message"),
    [
        ("train/normal_id_01_9.wav", LEAST_SAMPLES - 1, "has 27,647 samples (1.73 s): its first 50 spectra"),
        ("test/id_05_00000000.wav", 40_000, "id_05_00000000.wav: its name tells not whether it is normal"),
        ("test/normal_01.wav", 40_000, "normal_01.wav: its name tells not whether it is normal and of which machine"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused(tmp_path: Path, name: str, samples: int, message: str) -> None:
    for split in ("train", "test"):
        write(tmp_path / "car" / split / "normal_id_01_0.wav", noise(30_000))
    write(tmp_path / "car" / name, noise(samples))
    assert message in refused(lambda: machine_sounds(tmp_path))


def test_folders_without_anything_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for make in (speech_commands, machine_sounds, images):
        assert refused(partial(make, tmp_path)).startswith(f"{tmp_path}: has no ")
        assert "no such folder (did you mean" in refused(partial(make, tmp_path.with_name(tmp_path.name + "x")))
        assert "is a file: must be a folder" in refused(partial(make, tmp_path / "file"))
    write(tmp_path / "car" / "train" / "normal_id_01_0.wav", noise(30_000))
    assert "no file is in 'test'" in refused(lambda: machine_sounds(tmp_path))


# -- pictures --------------------------------------------------------------------------------------
def png(file: Path, pixels: NDArray[np.uint8]) -> None:
    """[height, width] grey, or [height, width, 3 or 4] in colours."""
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = pixels.shape[:2]
    colour = {2: 0, 3: {3: 2, 4: 6}.get(pixels.shape[-1])}[pixels.ndim]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)), (b"IDAT", zlib.compress(rows)),
              (b"IEND", b"")]  # fmt: skip
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ))  # fmt: skip


def pixels(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    for number in range(40):
        png(tmp_path / "flat" / "ab"[number % 2] / f"{number}.png", pixels(number, 6, 5, 3))
        png(tmp_path / "split" / ("train", "test")[number % 3 == 0] / "ab"[number % 2] / f"{number}.png",
            pixels(number, 6, 5))  # fmt: skip
    flat, split = images(tmp_path / "flat"), images(tmp_path / "split")
    assert flat.classes == split.classes == ("a", "b") and set(flat.split) == {"train", "validation", "test"}
    for found, shape in ((flat, (6, 5, 3)), (split, (6, 5))):
        for row, name in enumerate(found.clips):
            *where, kind, file = name.split("/")
            assert found.classes[found.y[row]] == kind and (not where or found.split[row] == where[0])
            expected = pixels(int(file.removesuffix(".png")), *shape)
            assert np.array_equal(found.x[row], expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1))
    split.save(tmp_path / "split.npz")
    assert load_labelled(tmp_path / "split.npz").train.shape == (26, 1, 6, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: png(file, pixels(0, 6, 4)), "is [1, 6, 4] (channels, height, width), "),
        (lambda file: png(file, pixels(0, 6, 5, 4)), "is of Pillow's mode RGBA: accepted are 8-bit grey (L)"),
        (lambda file: file.write_bytes(b"GIF89a"), "no PNG that can be read: accepted are PNG files"),
        (lambda file: file.write_bytes(file.with_name("1.png").read_bytes()[:60]), "is damaged or cut short ("),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    pytest.importorskip("PIL")
    for split in ("train", "test"):
        png(tmp_path / split / "a" / "1.png", pixels(1, 6, 5))
    make(file := tmp_path / "test" / "a" / "2.png")
    assert refused(lambda: images(tmp_path)).startswith(f"{file}: {message}")


def test_without_pillow_pictures_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    for split in ("train", "test"):
        png(tmp_path / split / "a" / "1.png", pixels(1, 6, 5))
    assert "pictures are read by Pillow: pip install 'pulpsim[images]'" in refused(lambda: images(tmp_path))


# -- the command, and what it writes ---------------------------------------------------------------
def test_the_command_writes_what_it_says(words: Path, tmp_path: Path) -> None:
    arguments = ["data", str(words), "--out", str(tmp_path / "w.npz"), "--features", "mfcc", "--words", "yes,no"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    for part in ("unknown", "validation", "note: nothing in 'test' of unknown", "w.npz: 91 samples [49, 10]", "MFCC"):
        assert part in shown.stdout
    record = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert record["samples"] == 91 and record["shape"] == [49, 10] and record["speakers"] == 30
    assert [row["class"] for row in record["classes"]] == ["yes", "no", "unknown"]
    assert sum(row[split] for row in record["classes"] for split in ("train", "validation", "test")) == 91
    assert load_labelled(tmp_path / "w.npz").classes == ("yes", "no", "unknown")


PICTURES = "accepted is CLASS/NAME.png, or that in train/, validation/ and test/"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--features", "log-mel", "--words", "yes"], "--words yes: is for --features mfcc"),
        (["--features", "mfcc", "--every", "2"], "--every 2: is for --features log-mel"),
        (["--features", "log-mel", "--every", "0"], "--every 0: must be at least 1"),
        (["--features", "mfcc", "--out", "gone/a.npz"], "--out gone/a.npz: there is no folder gone"),
        (["--features", "mfcc", "--out", "."], "--out .: must be the name of a file"),
        (["--features", "image"], "nowhere: no such folder: must be a folder; " + PICTURES),
    ],
)
def test_the_command_refuses_slips_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["data", "nowhere", "--out", "a.npz", *more])
    assert result.exit_code == 2 and result.stderr == f"trainlib: {message}\n" and not list(tmp_path.iterdir())


def test_an_archive_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    zeros = np.zeros(2, np.int64)
    x, split = np.zeros((2, 3), np.float32), np.array(["train", "test"])
    found = Recordings("few", x, zeros, ("a",), split, zeros, (), zeros, (), zeros, ("a.wav",))
    with pytest.raises(InputError, match="cannot write"):
        found.save(tmp_path / "gone" / "a.npz")
    found.save(tmp_path / "a")
    assert [file.name for file in tmp_path.iterdir()] == ["a"] and load_features(tmp_path / "a").width == 3
