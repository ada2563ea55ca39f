"""Protects the reading of feature sets: what is taken as it is, what is refused and in which words."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from pulpsim.errors import PulpsimError
from trainlib.data import Features, Labelled, as_samples, load_features, load_labelled
from trainlib.data.samples import Standard
from trainlib.errors import DataError, ModelError, PlanError


def saved(folder: Path, **content: Any) -> Path:
    file = folder / "mine.npz"
    np.savez(file, **content)
    return file


def ramp(rows: int = 10, width: int = 3) -> NDArray[np.float32]:
    return np.arange(rows * width, dtype=np.float32).reshape(rows, width)


def message(file: Path) -> str:
    """The one-line message that refuses a file; it starts with the file's name."""
    with pytest.raises(DataError) as caught:
        load_features(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ") and "\n" not in text
    return text.removeprefix(f"{file}: ")


# The set that is shipped


@pytest.fixture(scope="module")
def engines() -> Features:
    return load_features()


def test_the_shipped_set_has_its_documented_splits(engines: Features) -> None:
    assert engines.name == "engines"
    assert engines.train.shape == (1600, 640)
    assert engines.held_out.shape == (520, 640)
    assert engines.width == 640
    for array in (engines.train, engines.held_out, engines.mean, engines.deviation):
        assert array.dtype == np.float32 and np.isfinite(array).all()
        assert array.flags.c_contiguous and not array.flags.writeable
    assert engines.train.min() == -87.25 and engines.train.max() == 15


def test_the_shipped_set_becomes_standard(engines: Features) -> None:
    z = engines.standardise(engines.train)
    assert np.abs(z.mean(axis=0, dtype=np.float64)).max() < 1e-5
    assert np.abs(z.std(axis=0, dtype=np.float64) - 1).max() < 1e-5


def test_statistics_are_those_of_the_training_split_alone(engines: Features) -> None:
    exact = engines.train.astype(np.float64)
    assert np.array_equal(engines.mean, exact.mean(axis=0).astype(np.float32))
    assert np.array_equal(engines.deviation, exact.std(axis=0).astype(np.float32))


def test_loading_twice_gives_the_same_bits(engines: Features) -> None:
    again = load_features()
    for name in ("train", "held_out", "mean", "deviation"):
        assert getattr(again, name).tobytes() == getattr(engines, name).tobytes()


# A user's own file: what is accepted


@pytest.mark.parametrize(("rows", "expected"), [(2, 1), (4, 1), (5, 1), (9, 1), (10, 2), (11, 2), (100, 20)])
def test_without_split_the_last_fifth_is_held_out(tmp_path: Path, rows: int, expected: int) -> None:
    x = ramp(rows)
    features = load_features(saved(tmp_path, x=x))
    assert np.array_equal(features.train, x[:-expected])
    assert np.array_equal(features.held_out, x[-expected:])
    assert features.name == "mine"


@pytest.mark.parametrize("dtype", "f2 f4 f8 >f4 >f8 i1 u1 i2 u2 i4 u4 i8 u8".split())
def test_floats_and_integers_of_any_byte_order_are_read(tmp_path: Path, dtype: str) -> None:
    x = ramp().astype(dtype)
    features = load_features(saved(tmp_path, x=x))
    assert features.train.dtype == np.float32
    assert np.array_equal(features.train, ramp()[:8])


def test_column_major_arrays_are_read(tmp_path: Path) -> None:
    features = load_features(str(saved(tmp_path, x=np.asfortranarray(ramp()))))
    assert np.array_equal(features.train, ramp()[:8])
    assert features.train.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["U5", "S5", "U20"])
def test_split_decides_in_the_order_of_the_file(tmp_path: Path, dtype: str) -> None:
    split = np.array(["test", "train", "train", "test", "train"], dtype=dtype)
    features = load_features(saved(tmp_path, x=ramp(5), split=split))
    assert np.array_equal(features.train, ramp(5)[[1, 2, 4]])
    assert np.array_equal(features.held_out, ramp(5)[[0, 3]])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_only_normal_rows_are_held_out(tmp_path: Path, dtype: type) -> None:
    split = np.array(["train", "train", "test", "test", "test"])
    y = np.array([0, 1, 0, 1, 0]).astype(dtype)
    features = load_features(saved(tmp_path, x=ramp(5), split=split, y=y))
    assert np.array_equal(features.train, ramp(5)[[0, 1]])
    assert np.array_equal(features.held_out, ramp(5)[[2, 4]])


def test_labels_alone_filter_the_last_fifth(tmp_path: Path) -> None:
    y = np.zeros(10, int)
    y[[0, 8]] = 1
    features = load_features(saved(tmp_path, x=ramp(), y=y))
    assert np.array_equal(features.train, ramp()[:8])
    assert np.array_equal(features.held_out, ramp()[9:])


def test_other_arrays_are_not_looked_at(tmp_path: Path) -> None:
    file = saved(tmp_path, x=ramp(), note=np.array([{"any": "thing"}], dtype=object))
    assert load_features(file).train.shape == (8, 3)


def test_compressed_archives_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "small.npz", x=ramp())
    assert load_features(tmp_path / "small.npz").name == "small"


def test_a_constant_feature_is_divided_by_one(tmp_path: Path) -> None:
    x = ramp()
    x[:, 1] = 7
    features = load_features(saved(tmp_path, x=x))
    assert features.deviation[1] == 1
    assert np.array_equal(features.standardise(x)[:, 1], np.zeros(10, np.float32))


def test_a_deviation_below_float32_is_divided_by_one(tmp_path: Path) -> None:
    x = np.zeros((100, 1), np.float32)
    x[0] = np.float32(1e-45)  # the smallest positive float32: the deviation is a tenth of it
    assert load_features(saved(tmp_path, x=x)).deviation[0] == 1


# A user's own file: what is refused


def test_every_error_is_one_of_the_project() -> None:
    for kind in (DataError, ModelError, PlanError):
        assert issubclass(kind, PulpsimError)


def test_a_missing_file(tmp_path: Path) -> None:
    assert message(tmp_path / "no.npz").startswith("no such file: accepted is an .npz archive")
    assert message(tmp_path / "folder" / "no.npz").startswith("no such file: ")


def test_a_missing_file_names_the_one_beside_it(tmp_path: Path) -> None:
    saved(tmp_path, x=ramp())
    assert "no such file (did you mean 'mine.npz'?)" in message(tmp_path / "mime.npz")


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder: accepted is an .npz archive" in message(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: accepted is an .npz archive"),
        (b"1.0,2.0\n3.0,4.0\n", "is not an .npz archive: accepted is"),
        (b"PK", "is not an .npz archive"),
        (b"PK\x03\x04 and then nothing of the kind", "the archive is damaged or cut short"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "mine.npz"
    file.write_bytes(content)
    assert words in message(file)


def test_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", ramp())
    text = message(tmp_path / "mine.npy")
    assert "is a single array (.npy)" in text and "np.savez('features.npz', x=np.load(file))" in text


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.array([[1, 2], [3, {}]], dtype=object))
    assert "x holds pickled Python objects, which are not loaded" in message(file)
    file = saved(tmp_path, x=ramp(2), split=np.array(["train", "test"], dtype=object))
    assert "split holds pickled Python objects" in message(file)


def test_no_array_x(tmp_path: Path) -> None:
    assert "has no array 'x', only 'features', 'y': accepted is" in message(
        saved(tmp_path, features=ramp(), y=np.zeros(10))
    )
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    assert "has no array 'x', only nothing" in message(tmp_path / "empty.npz")


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.array([["a", "b"], ["c", "d"]]), "x is <U1: must be float16, float32, float64 or integers"),
        (np.ones((3, 2), bool), "x is bool: must be"),
        (np.ones((3, 2), np.complex64), "x is complex64: must be"),
        (np.ones((3, 2), "M8[s]"), "x is datetime64[s]: must be"),
        (np.ones((3, 2), [("a", "f4")]), "x is [('a', '<f4')]: must be"),
        (np.float32(3), "x has the shape []: must have two dimensions, [rows, width]"),
        (np.ones(6), "x has the shape [6]: must have two dimensions"),
        (np.ones((3, 49, 10)), "x has the shape [3, 49, 10]: must have two dimensions"),
        (np.ones((0, 4)), "x has the shape [0, 4]: must have two rows or more"),
        (np.ones((1, 4)), "x has the shape [1, 4]: must have two rows or more"),
        (np.ones((4, 0)), "x has the shape [4, 0]: must have two rows or more, of one number or more"),
    ],
)
def test_an_x_of_another_kind_or_shape(tmp_path: Path, x: Any, words: str) -> None:
    assert words in message(saved(tmp_path, x=x))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_values_that_are_not_finite(tmp_path: Path, dtype: type, value: float, shown: str) -> None:
    x = ramp().astype(dtype)
    x[4, 2] = value
    assert message(saved(tmp_path, x=x)) == (
        f"x has a value that is not finite (NaN or infinity), the first at row 4, column 2 ({shown}): "
        "all must be finite numbers"
    )
    x[4, 1] = x[9, 0] = np.nan
    assert "x has 3 values that are not finite (NaN or infinity), the first at row 4, column 1" in message(
        saved(tmp_path, x=x)
    )


def test_values_beyond_float32(tmp_path: Path) -> None:
    x = ramp().astype(np.float64)
    x[3, 0] = -1e39
    words = "x has a value that is beyond the range of float32, the first at row 3, column 0 (-1e+39): "
    assert message(saved(tmp_path, x=x)).startswith(words)


@pytest.mark.parametrize("name", ["y", "split"])
def test_arrays_that_do_not_go_with_x(tmp_path: Path, name: str) -> None:
    for shape in ((9,), (10, 1), ()):
        text = message(saved(tmp_path, x=ramp(), **{name: np.zeros(shape, int)}))
        assert f"{name} has the shape {list(shape)}: must be [10], one for each row of x" in text


def test_a_split_of_another_kind(tmp_path: Path) -> None:
    assert "split is int64: must be text, 'train' or 'test' for each row" in message(
        saved(tmp_path, x=ramp(2), split=np.array([0, 1]))
    )


@pytest.mark.parametrize("dtype", ["U6", "S6"])
def test_a_split_with_another_word(tmp_path: Path, dtype: str) -> None:
    split = np.array(["train", "test", "tests", "val"], dtype=dtype)
    assert message(saved(tmp_path, x=ramp(4), split=split)) == (
        "split has 'tests' in row 2 (did you mean 'test'?): must be 'train' or 'test'"
    )


def test_a_split_in_bytes_that_are_no_text(tmp_path: Path) -> None:
    split = np.array([b"train", b"\xff\xfe"])
    assert r"in row 1: must be 'train' or 'test'" in message(saved(tmp_path, x=ramp(2), split=split))


@pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
def test_a_split_with_one_side_only(tmp_path: Path, there: str, missing: str) -> None:
    text = message(saved(tmp_path, x=ramp(4), split=np.array([there] * 4)))
    assert f"split has no '{missing}' row" in text


def test_labels_that_are_no_integers(tmp_path: Path) -> None:
    assert "y is float64: must be integers or bool, 0 for normal" in message(
        saved(tmp_path, x=ramp(), y=np.zeros(10))
    )


def test_no_normal_row_is_held_out(tmp_path: Path) -> None:
    y = np.zeros(10, int)
    y[8:] = 1
    assert "no held-out row is normal" in message(saved(tmp_path, x=ramp(), y=y))


def archive() -> bytes:
    stream = io.BytesIO()
    split = np.array(["train", "train", "test", "train", "test"])
    np.savez_compressed(stream, x=ramp(5), split=split, y=np.array([0, 1, 0, 0, 1]))
    return stream.getvalue()


ARCHIVE = archive()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short(tmp_path: Path, part: float) -> None:
    file = tmp_path / "mine.npz"
    file.write_bytes(ARCHIVE[: int(part * len(ARCHIVE))])
    assert "the archive is damaged or cut short" in message(file)


def test_a_changed_member_is_found(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, x=ramp(5))
    content = bytearray(stream.getvalue())
    at = content.index(ramp(5).tobytes())
    content[at + 17] ^= 1  # a finite number still: only the archive's checksum can tell
    file = tmp_path / "mine.npz"
    file.write_bytes(content)
    assert re.search("the 'x' is damaged or cut short .*CRC", message(file))


@given(at=st.integers(0, len(ARCHIVE) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_read_right_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: bool
) -> None:
    """No byte that changes, and no cut, ends in another exception or in other numbers."""
    file = tmp_path_factory.mktemp("damaged") / "mine.npz"
    content = ARCHIVE[:at] if cut else ARCHIVE[:at] + bytes([value]) + ARCHIVE[at + 1 :]
    file.write_bytes(content)
    try:
        features = load_features(file)
    except DataError as error:
        assert str(error).startswith(f"{file}: ")
    else:
        rows = {row.tobytes() for row in ramp(5)}
        assert {row.tobytes() for row in features.train} <= rows
        assert {row.tobytes() for row in features.held_out} <= rows


# Standardising

tables = arrays.arrays(
    np.float32,
    st.tuples(st.integers(2, 20), st.integers(1, 9)),
    elements=st.floats(-1e6, 1e6, width=32),
)


def read(folder: Path, x: NDArray[Any]) -> Features:
    return load_features(saved(folder, x=x))


@given(x=tables)
def test_statistics_agree_with_exact_arithmetic(
    tmp_path_factory: pytest.TempPathFactory, x: NDArray[Any]
) -> None:
    features = read(tmp_path_factory.mktemp("statistics"), x)
    exact = features.train.astype(np.float64)
    mean = exact.sum(axis=0) / len(exact)
    assert np.allclose(features.mean, mean, rtol=1e-6, atol=1e-6)
    deviation = np.sqrt(((exact - mean) ** 2).sum(axis=0) / len(exact))
    assert (features.deviation > 0).all()
    usual = deviation > 1e-30
    assert np.allclose(features.deviation[usual], deviation[usual], rtol=1e-6)


@given(x=tables)
def test_a_row_is_standardised_alike_alone_and_among_others(
    tmp_path_factory: pytest.TempPathFactory, x: NDArray[Any]
) -> None:
    features = read(tmp_path_factory.mktemp("rows"), x)
    with np.errstate(over="ignore"):  # a feature that hardly varies in training
        together = features.standardise(x)
        assert together.dtype == np.float32 and together.shape == x.shape
        for row, alone in zip(together, x, strict=True):
            assert features.standardise(alone).tobytes() == row.tobytes()
        assert features.standardise(np.asfortranarray(x)).tobytes() == together.tobytes()


def test_standardising_changes_nothing_but_its_result(tmp_path: Path) -> None:
    features = load_features(saved(tmp_path, x=ramp()))
    x = ramp()
    features.standardise(x)[:] = 0
    assert np.array_equal(x, ramp())
    assert np.array_equal(features.train, ramp()[:8])


@pytest.mark.parametrize("shape", [(), (2,), (4,), (5, 4), (3, 5), (5, 1), (1,)])
def test_standardising_another_width_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    features = load_features(saved(tmp_path, x=ramp(5)))
    words = f"mine: cannot standardise an array of shape {list(shape)}: the last dimension must be 3"
    with pytest.raises(DataError, match=re.escape(words)):
        features.standardise(np.zeros(shape))


# The labelled set that is shipped


@pytest.fixture(scope="module")
def words() -> Labelled:
    return load_labelled()


def test_the_shipped_words_have_their_documented_splits(words: Labelled) -> None:
    assert words.name == "keywords"
    assert words.train.shape == (1680, 49, 10) and words.held_out.shape == (600, 49, 10)
    assert words.classes == tuple("down go left no off on right stop up yes silence unknown".split())
    assert np.bincount(words.train_labels).tolist() == [140] * 12
    assert np.bincount(words.held_out_labels).tolist() == [50] * 12
    assert len(words.speakers) == 5 and words.width == 10
    for array in (words.train, words.held_out, words.mean, words.deviation):
        assert array.dtype == np.float32 and np.isfinite(array).all()
        assert array.flags.c_contiguous and not array.flags.writeable
    for labels in (words.train_labels, words.held_out_labels):
        assert labels.dtype == np.int64 and not labels.flags.writeable


def test_the_shipped_words_become_standard_coefficient_by_coefficient(words: Labelled) -> None:
    z = words.standardise(words.train)
    assert words.mean.shape == words.deviation.shape == (10,)
    assert np.abs(z.mean(axis=(0, 1), dtype=np.float64)).max() < 1e-5
    assert np.abs(z.std(axis=(0, 1), dtype=np.float64) - 1).max() < 1e-5


@pytest.mark.parametrize(
    ("held_out", "rows", "speakers"), [("val", 336, 28), ("test", 600, 5), ("adapt", 480, 5), ("human", 117, 3)]
)
def test_every_split_of_the_words_can_be_held_out(held_out: str, rows: int, speakers: int) -> None:
    found = load_labelled(held_out=held_out)
    assert (len(found.held_out), len(found.held_out_labels), len(found.speakers)) == (rows, rows, speakers)


def test_a_user_brings_clips_of_their_own_to_known_statistics(words: Labelled) -> None:
    rows = 0
    for speaker in words.speakers:
        user = load_labelled(train="adapt", speaker=speaker)
        assert user.train.shape == (96, 49, 10) and user.held_out.shape == (120, 49, 10)
        assert user.speakers == (speaker,)
        assert np.array_equal(user.mean, words.mean) and np.array_equal(user.deviation, words.deviation)
        rows += len(user.held_out)
    assert rows == len(words.held_out)


# Samples for a network


def test_images_get_a_channel(words: Labelled) -> None:
    x = as_samples(words.train, (1, 49, 10))
    assert x.shape == (1680, 1, 49, 10) and x.flags.c_contiguous
    assert np.array_equal(x[:, 0], words.train)


def test_a_smaller_input_is_the_middle_frames_and_the_first_coefficients(words: Labelled) -> None:
    x = as_samples(words.train, (1, 34, 8))
    assert x.flags.c_contiguous and np.array_equal(x[:, 0], words.train[:, 7:41, :8])


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4)])
def test_samples_that_fit_stay_as_they_are(shape: tuple[int, ...]) -> None:
    x = np.arange(5 * np.prod(shape), dtype=np.float32).reshape(5, *shape)
    assert np.array_equal(as_samples(x, shape), x)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((6, 4), (1, 7, 4)), ((6, 4), (1, 6, 5)), ((6, 4), (2, 6, 4)), ((6,), (1, 6, 1)), ((6,), (5,))],
)
def test_samples_that_do_not_fit_are_refused(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as caught:
        as_samples(np.zeros((2, *shape), np.float32), wanted)
    assert str(caught.value) == f"samples of shape {list(shape)} do not fit a network that takes {list(wanted)}"


# A user's own labelled file


def labelled(folder: Path, **changes: Any) -> Path:
    """Ten rows of 2 x 3 numbers; None leaves an array out."""
    content: dict[str, Any] = {
        "x": ramp(10, 6).reshape(10, 2, 3),
        "y": np.array([0, 1, 2] * 3 + [0]),
        "split": np.array(["train", "test"] * 5),
        "speaker": np.array([0, 0, 1, 1, 0, 0, 2, 0, 0, 0]),
        "speakers": np.array(["ann", "bob", "cem"]),
        "classes": np.array(["a", "b", "c"]),
    }
    return saved(folder, **{name: value for name, value in (content | changes).items() if value is not None})


def refusal(file: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_labelled(file, **options)
    text = str(caught.value)
    assert text.startswith(f"{file}: ") and "\n" not in text
    return text.removeprefix(f"{file}: ")


def test_a_labelled_file_is_read(tmp_path: Path) -> None:
    found = load_labelled(labelled(tmp_path))
    assert found.name == "mine" and found.classes == ("a", "b", "c") and found.speakers == ("ann", "bob")
    assert np.array_equal(found.train, ramp(10, 6).reshape(10, 2, 3)[::2])
    assert found.train_labels.tolist() == [0, 2, 1, 0, 2] and found.held_out_labels.tolist() == [1, 0, 2, 1, 0]
    exact = ramp(10, 6).reshape(10, 2, 3)[::2].astype(np.float64)
    assert np.allclose(found.mean, exact.mean(axis=(0, 1))) and np.allclose(found.deviation, exact.std(axis=(0, 1)))


def test_a_labelled_file_needs_samples_and_labels_only(tmp_path: Path) -> None:
    found = load_labelled(labelled(tmp_path, split=None, speaker=None, speakers=None, classes=None))
    assert len(found.train) == 8 and len(found.held_out) == 2
    assert found.classes == ("0", "1", "2") and found.speakers == ()


def test_statistics_are_those_of_train_whatever_is_trained_on(tmp_path: Path) -> None:
    split = np.array(["train"] * 4 + ["adapt"] * 3 + ["test"] * 3)
    found = load_labelled(labelled(tmp_path, split=split), train="adapt")
    assert np.allclose(found.mean, ramp(10, 6).reshape(10, 2, 3)[:4].mean(axis=(0, 1)))
    split[:4] = "other"
    found = load_labelled(labelled(tmp_path, split=split), train="adapt")
    assert np.allclose(found.mean, ramp(10, 6).reshape(10, 2, 3)[4:7].mean(axis=(0, 1)))


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"y": None}, {}, "has no array 'y': must be [10] integers, the class of each row of x"),
        ({"y": np.zeros(9, int)}, {}, "y has the shape [9]: must be [10], one for each row of x"),
        ({"y": np.zeros(10)}, {}, "y is float64: must be integers, 0 for the first of the classes"),
        ({"y": np.arange(10)}, {}, "y has 3 in row 3: must be 0 to 2, a place among the classes"),
        ({"y": np.arange(-1, 9)}, {}, "y has -1 in row 0: must be 0 to 2, a place among the classes"),
        ({"y": np.full(10, 2**63, np.uint64)}, {}, "y has 9223372036854775808 in row 0: must be 0 to 2, a place"),
        ({"classes": np.arange(3)}, {}, "classes is int64: must be text, the classes' names"),
        ({"classes": np.array([["a"]])}, {}, "classes has the shape [1, 1]: must be a row of the classes' names"),
        ({"classes": np.array([], "U1")}, {}, "classes has the shape [0]: must be a row of the classes' names"),
        ({"speaker": np.arange(10)}, {}, "speaker has 3 in row 3: must be 0 to 2, a place among the speakers"),
        ({"speaker": np.zeros(3, int)}, {}, "speaker has the shape [3]: must be [10], one for each row of x"),
        ({"split": np.zeros(10, int)}, {}, "split is int64: must be text, one word for each row"),
        ({}, {"train": "trian"}, "split has no 'trian' row (did you mean 'train'?); it has test, train"),
        ({"split": None}, {"held_out": "val"}, "has no array 'split', so no row is of 'train' or 'val'"),
        (
            {},
            {"speaker": "anne"},
            "no speaker 'anne' with rows to train on and rows held out (did you mean 'ann'?); speakers with both: "
            "ann, bob",
        ),
        (
            {},
            {"speaker": "cem"},
            "no speaker 'cem' with rows to train on and rows held out; speakers with both: ann, bob",
        ),
        (
            {"speakers": None},
            {"speaker": "ann"},
            "no speaker 'ann' with rows to train on and rows held out; speakers with both: none",
        ),
        ({"x": ramp(10, 6).reshape(10, 1, 1, 2, 3)}, {}, "x has the shape [10, 1, 1, 2, 3]: must have two to four"),
        (
            {"x": np.where(np.arange(60) == 7, np.nan, 0).reshape(10, 2, 3)},
            {},
            "x has a value that is not finite (NaN or infinity), the first at row 1, place [0, 1] (nan)",
        ),
    ],
)
def test_a_labelled_file_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    assert refusal(labelled(tmp_path, **changes), **options).startswith(words)


def test_a_file_without_labels_is_no_labelled_one_and_the_other_way_round(tmp_path: Path) -> None:
    assert "x has the shape [10, 2, 3]: must have two dimensions, [rows, width]" in message(labelled(tmp_path))
    assert "no such file" in refusal(tmp_path / "none.npz")


@given(
    x=arrays.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 3), st.just(2)), elements=st.floats(-9, 9)),
    horizon=st.floats(1, 50), cut=st.integers(1, 6),
)  # fmt: skip
def test_adaptive_standardisation_weighs_the_past_down(x: NDArray[Any], horizon: float, cut: int) -> None:
    """By what a moving average is: the start and every sample with a weight of its own; however the stream is cut."""
    start = Standard(np.array([1, -2], np.float32), np.array([2, 0.5], np.float32), "mine")
    left = 1 - 1 / horizon
    weights = np.array([left ** len(x), *(left ** (len(x) - 1 - place) / horizon for place in range(len(x)))])
    means = np.vstack([start.mean, x.mean(axis=1)])
    squares = np.vstack([start.mean**2 + start.deviation**2, (x**2).mean(axis=1)])
    variance = np.maximum(weights @ squares - (weights @ means) ** 2, 0)
    cut_short = start.follow(x[:cut], horizon)
    for found in (start.follow(x, horizon), cut_short.follow(x[cut:], horizon) if cut < len(x) else cut_short):
        assert np.allclose(found.mean, weights @ means, atol=1e-4)
        usual = variance > 1e-3
        assert np.allclose(found.deviation[usual], np.sqrt(variance[usual]), rtol=1e-3) and (found.deviation > 0).all()
    assert start.mean.tolist() == [1, -2] and start.deviation.tolist() == [2, 0.5]


def test_adaptive_standardisation_says_what_it_takes() -> None:
    start = Standard.over(ramp(), "mine")
    assert start.follow(ramp(4), 10).of == "mine, and 4 samples of a stream"
    for x, horizon, words in (
        (ramp(4), 0.5, "horizon = 0.5: must be a number of samples, at least 1"),
        (ramp(4), np.inf, "horizon = inf: must be"),
        (ramp(4)[0], 9, "a sample of shape [3]: must be several, [n, *shape of one]"),
        (ramp(4, 2), 9, "samples of shape [4, 2]: those of mine have 3 features"),
    ):
        with pytest.raises(DataError, match=re.escape(words)):
            start.follow(x, horizon)
