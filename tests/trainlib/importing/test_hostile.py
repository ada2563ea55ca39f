"""Protects users from what files may hold: one message each, nothing run, nothing opened outside the folder."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.trainlib.importing.files import Evil, Made, onnx
from trainlib.cli import main
from trainlib.errors import ModelError
from trainlib.importing.network import imported


def small(**changes: Any) -> Made:
    """A file with one layer. changes: of `Made`."""
    made = Made(**{"shape": (1, 4), **changes})
    made.add("Gemm", "x", made.weights(2, 4, name="w"), made.weights(2, name="b"), transB=1)
    return made


def proto() -> Any:
    return small().proto("n0")


def refused(content: bytes, folder: Path, name: str = "net.onnx") -> str:
    """The message, without the file's name, that a command ends with, status 2. Nothing is left in the folder."""
    file = folder / name
    file.write_bytes(content)
    before = sorted(folder.iterdir())
    result = CliRunner().invoke(main, ["import", str(file)])
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    assert sorted(folder.iterdir()) == before
    _, _, message = result.output.partition(f"trainlib: {file}: ")
    return message


# -- files that are none ---------------------------------------------------------------------------
GOOD = proto().SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (GOOD[: len(GOOD) // 2], "is no ONNX file, or damaged or cut short"),
        (GOOD[:-3], "is no ONNX file, or damaged or cut short"),
        (b"\x7fELF" + bytes(60), "is no ONNX file"),
        (b"some text\n" * 9, "is no ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras has"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "has no nodes"),
    ],
)
def test_what_is_no_file_is_told(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in refused(content, tmp_path)


@pytest.mark.parametrize("name", ["net.onnx", "net.pt", "net.pth"])
def test_pickles_are_not_opened(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "run"
    assert "is a pickle" in refused(pickle.dumps(Evil(marker)), tmp_path, name)
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil(marker)))
    content = (tmp_path / "archive").read_bytes()
    assert "pickle" in refused(content, tmp_path, name)
    assert not marker.exists()


def test_scripts_run_only_where_they_are_trusted(tmp_path: Path) -> None:
    marker = tmp_path / "run"
    script = f"from trainlib.models import lenet5\nopen({str(marker)!r}, 'w').close()\nmodel = lenet5\n"
    assert "--trust" in refused(script.encode(), tmp_path, "net.py")
    assert not marker.exists()
    result = CliRunner().invoke(main, ["describe", str(tmp_path / "net.py"), "--trust"])
    assert result.exit_code == 0 and 'name = "lenet5"' in result.output and marker.exists()


@given(content=st.binary(min_size=1, max_size=200), place=st.integers(0, len(GOOD)))
def test_any_bytes_are_a_network_or_one_error(content: bytes, place: int, tmp_path_factory: Any) -> None:
    """A file with some of it overwritten."""
    file = tmp_path_factory.mktemp("bytes") / "net.onnx"
    file.write_bytes(GOOD[:place] + content + GOOD[place + len(content) :])
    try:
        assert imported(file).layers
    except ModelError as error:
        assert str(error).startswith(f"{file}: ")


# -- what is wrong in a file -----------------------------------------------------------------------
def outside(location: str, shape: tuple[int, ...] = (2, 4), **entries: str) -> bytes:
    """A file whose weights lie beside it."""
    made = proto()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.dims[:] = shape
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (outside("none.bin"), "lies in 'none.bin': cannot be read: No such file"),
        (outside("../net.bin"), "outside of the network's folder"),
        (outside("/etc/passwd"), "outside of the network's folder"),
        (outside("link.bin"), "outside of the network's folder"),
        (outside(""), "of which no name is given"),
        (outside("net.onnx", (99, 99)), "which is cut short"),
        (outside("net.onnx", (30_000, 30_000)), "tensor w claims 3,600,000,000 bytes"),
        (outside("net.onnx", offset="-5"), "32 from -5 on"),
        (outside("net.onnx", offset="five"), "its place makes no sense"),
        (outside("net.onnx", length="31"), "takes 32 bytes: 31"),
    ],
)
def test_weights_beside_a_file_are_read_there_only(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net.bin").write_bytes(bytes(32))
    (tmp_path / "net" / "link.bin").symlink_to(tmp_path / "net.bin")
    assert message in refused(content, tmp_path / "net")


def test_weights_beside_a_file_are_read(tmp_path: Path) -> None:
    weights = np.arange(8, dtype=np.float32)
    (tmp_path / "net.data").write_bytes(bytes(16) + weights.tobytes())
    (tmp_path / "net.onnx").write_bytes(outside("net.data", offset="16", length="32"))
    assert np.array_equal(imported(tmp_path / "net.onnx").initial_parameters()[0].reshape(-1), weights)


def _edited(change: Callable[[Any], None]) -> bytes:
    made = proto()
    change(made)
    return bytes(made.SerializeToString())


def _circle() -> bytes:
    made = Made((1, 4))
    made.add("Add", "x", "n1")
    made.add("Relu", "n0")
    made.add("Gemm", "n1", made.weights(4, 2))
    return bytes(made.proto("n2").SerializeToString())


def _of(shape: tuple[int | str, ...], operator: str, *weights: tuple[int, ...], **attributes: Any) -> bytes:
    made = Made(shape)
    last = made.add(operator, "x", *(made.weights(*size) for size in weights), **attributes)
    return bytes(made.proto(last).SerializeToString())


def _bomb() -> bytes:
    made = Made((1, 4))
    shape = made.tensor(np.array([1 << 20, 1 << 12], np.int64))
    made.add("Gemm", "x", made.add("ConstantOfShape", shape))
    return bytes(made.proto("n1").SerializeToString())


def _nan() -> bytes:
    made = Made((1, 4))
    made.add("Gemm", "x", made.tensor(np.array([[np.nan, 1]] * 4, np.float32), "w"))
    return bytes(made.proto("n0").SerializeToString())


def _twice(which: str) -> Callable[[Any], None]:
    return lambda made: getattr(made.graph, which).append(getattr(made.graph, which)[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_edited(lambda made: made.graph.initializer[0].dims.__setitem__(0, 3 << 26)), "claims 3,221,225,472 bytes"),
        (_edited(lambda made: made.graph.initializer[0].dims.__setitem__(0, 3)), "does not hold that: 32 bytes"),
        (_bomb(), "would compute a constant of 4,294,967,296 numbers"),
        (_circle(), "nodes read each other in a circle: n0 reads n1 reads n0"),
        (_edited(_twice("initializer")), "two initialisers are called 'w'"),
        (_edited(_twice("node")), "two values are called 'n0'"),
        (_edited(_twice("output")), "2 outputs (n0, n0)"),
        (_edited(lambda made: made.graph.output[0].__setattr__("name", "y")), "output 'y' is made by no node"),
        (_edited(lambda made: made.graph.node[0].input.__setitem__(1, "v")), "reads 'v', which nothing makes"),
        (_edited(lambda made: made.opset_import[0].__setattr__("version", 5)), "opset 5: must be 7 or newer"),
        (_edited(lambda made: made.graph.input.pop()), "which nothing makes"),
        (_nan(), "w: 4 of 8 weights are not finite"),
        (_of((1, 4), "Gemm", (4, 2), (3,)), "constants of shape [3]: do not fit [1, 2]"),
        (_of((1, 1, 5, 5), "Conv", (2, 1, 3, 3), (5,)), "bias of shape [5]: must be [2]"),
        (_of((1, 3, 5, 5), "Conv", (2, 1, 3, 3)), "weights [2, 1, 3, 3] in 1 groups do not fit 3 channels"),
        (_of((1, 4), "Relu"), "no layer has parameters to train"),
        (_of(("N", 1, "H", 5), "Conv", (2, 1, 3, 3)), "is [?, 1, ?, 5]: only the batch may be open"),
        (_of((), "Relu"), "is a single number"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in refused(content, tmp_path)


def test_all_that_cannot_be_imported_is_told_at_once(tmp_path: Path) -> None:
    made = Made((1, 1, 8, 8))
    made.add("Elu", "x")
    made.add("MaxPool", "n0", kernel_shape=[2, 2], dilations=[2, 2])
    made.add("Elu", "n1")
    made.add("LSTM", "n2", made.weights(2, 4), made.weights(2, 4))
    assert refused(made.proto("n3").SerializeToString(), tmp_path).splitlines() == [
        "4 of 4 nodes cannot be imported:",
        "  Elu n0, n2: no such operator here; what would do: Relu, LeakyRelu or Gelu",
        "  MaxPool n1: dilations = [2, 2]; what would do: dilations of 1",
        "  LSTM n3: no such operator here; what would do: convolutions along time",
    ]


@pytest.mark.parametrize(
    ("operator", "message"),
    [("RequantShift", "is quantised: RequantShift (2)"), ("DequantizeLinear", "Linear (2)"), ("Round", "Round")],
)
def test_quantised_networks_are_told_once(operator: str, message: str, tmp_path: Path) -> None:
    made = small()
    made.add(operator, made.add(operator, "n0"))
    assert message in refused(made.proto("n2").SerializeToString(), tmp_path)


# -- what is said, and imported all the same -------------------------------------------------------
def notes(made: Any) -> str:
    path = Path("net.onnx")
    from trainlib.importing.network import of_model

    origin = of_model(made, str(path)).origin
    assert origin is not None
    return "; ".join(origin.notes)


def test_what_is_otherwise_here_is_said() -> None:
    assert "batches of any number of samples" in notes(small(shape=("N", 4)).proto("n0"))
    assert "batches of 3 samples" in notes(small(shape=(3, 4)).proto("n0"))
    unused = small()
    unused.weights(5, name="unused")
    assert "no node reads the weights unused" in notes(unused.proto("n0"))
    half = Made((1, 4))
    half.add("Gemm", "x", half.tensor(np.ones((4, 2), np.float16)))
    assert "weights in float16: computed and trained in FP32" in notes(half.proto("n0"))
    norm = Made((1, 4))
    norm.add("BatchNormalization", "x", *(norm.weights(4) for _ in range(3)), norm.tensor(np.ones(4, np.float32)),
             training_mode=1)  # fmt: skip
    norm.add("Gemm", "n0", norm.weights(4, 2))
    assert "training_mode = 1" in notes(norm.proto("n1"))
    tied = Made((1, 4))
    tied.add("Gemm", tied.add("Gemm", "x", tied.weights(4, 4, name="w")), "w")
    assert "w is read by several layers" in notes(tied.proto("n1"))


def test_unsorted_nodes_are_put_in_order() -> None:
    made = small()
    made.add("Relu", "n0")
    made.add("Gemm", "n1", made.weights(2, 2))
    made.nodes.reverse()
    from trainlib.importing.network import of_model

    assert [layer.name for layer in of_model(made.proto("n2"), "net").layers] == ["n0", "n2"]
