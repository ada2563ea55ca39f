"""Compilation of hot loops with Numba, and where the compiled code is kept.

The cache lives in the user's cache directory, or in PULPSIM_CACHE_DIR. Its folder's name holds a digest
of the sources of this package and of the modules beside the function, whose constants and functions end up in
compiled code: a newer release never meets older machine code. (Numba itself looks at the decorated
function's own file only.) Every file ends in a digest of what is before it: what was damaged, cut short or cannot be
read is compiled anew and written again.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.ir as ir
import numba
import numpy as np
import platformdirs
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import intrinsic

CACHE_VARIABLE = "PULPSIM_CACHE_DIR"


def cache_directory() -> Path:
    """Where compiled code and other reproducible files may be kept."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("pulpsim"))


@cache
def _digest(beside: Path) -> str:
    """Of this package and, if `beside` is the folder of another one, its modules."""
    digest = hashlib.sha256(numba.__version__.encode())
    package = sorted(Path(__file__).parent.rglob("*.py"))
    others = sorted(beside.glob("*.py")) if (beside / "__init__.py").exists() else []
    for path in package + [path for path in others if path not in package]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def compiled(function: Callable[..., Any]) -> Any:
    """Decorator: the function as a cached, GIL-free Numba function with IEEE division."""
    return _compile(function)


def heapless(function: Callable[..., Any]) -> Any:
    """As `compiled`, for functions that make no arrays: those they are given are not reference-counted.

    (Counting is atomic, and costs more than many a function that is called a million times a second.)
    """
    return _compile(function, _nrt=False)


def inlined(function: Callable[..., Any]) -> Any:
    """As `heapless`, and always inlined: for small functions in hot loops, whose calls would cost more."""
    return _compile(function, _nrt=False, forceinline=True)


def _compile(function: Callable[..., Any], **options: bool) -> Any:
    directory = _writable_cache(Path(function.__code__.co_filename).parent)
    outer = numba.config.CACHE_DIR
    # Numba picks the cache's place while it decorates; other users' functions keep theirs.
    numba.config.CACHE_DIR = str(directory or "")
    try:
        dispatcher = numba.njit(nogil=True, error_model="numpy", **options)(function)
        if directory is not None:
            dispatcher._cache = _SealedCache(function)
        return dispatcher
    finally:
        numba.config.CACHE_DIR = outer


def is_compiled() -> bool:
    """Whether an earlier run has left the fast engine's compiled code."""
    directory = cache_directory() / "jit" / _digest(Path(__file__).with_name("engine"))
    return any(directory.rglob("*.nbi"))


class _SealedCache(FunctionCache):
    """Numba's cache of a function's code, whose files are sealed."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _SealedFile(self._cache_path, self._impl.filename_base, stamp)

    def save_overload(self, signature: Any, data: Any) -> None:
        """What cannot be written is compiled again another time."""
        with suppress(OSError):
            super().save_overload(signature, data)


class _SealedFile(IndexDataCacheFile):
    """An index and its data. Numba reads nothing after the end of what it wrote: there the seal stands."""

    def _load_index(self) -> Any:
        return super()._load_index() if _is_sealed(self._index_path) else {}

    def _load_data(self, name: str) -> Any:
        if not _is_sealed(self._data_path(name)):
            raise OSError(f"{name}: damaged")  # as if it were not there
        return super()._load_data(name)

    @contextmanager
    def _open_for_write(self, path: str) -> Iterator[io.BytesIO]:
        content = io.BytesIO()
        yield content
        with super()._open_for_write(path) as file:
            file.write(content.getvalue() + _seal(content.getvalue()))


def _seal(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _is_sealed(path: str) -> bool:
    """Whether a file is there, can be read and is as it was written."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        return False
    length = len(_seal(b""))
    return content[-length:] == _seal(content[:-length])


@cache
def _writable_cache(beside: Path) -> Path | None:
    """The folder of this version's compiled code; None, with a warning, if nothing can be kept there.

    (Left to itself, Numba would then write beside the sources.)
    """
    directory = cache_directory() / "jit" / _digest(beside)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError as error:
        warnings.warn(
            f"{directory}: {error.strerror}: code is compiled anew in every run; set {CACHE_VARIABLE} to a folder "
            f"that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _cast(result: types.Type, argument: types.Type) -> Callable[..., Any]:
    def typing(typing_context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(result))

        return result(argument), generate

    return typing


#: int32 pattern -> float32, and back
as_float = intrinsic(_cast(types.float32, types.int32))
as_bits = intrinsic(_cast(types.int32, types.float32))


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """float32 a * b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), generate


@inlined
def canonical(value):
    """A float32, or 0x7fc00000 for any NaN, as the cores' arithmetic gives it; a host's hands on signs and payloads."""
    return value if value == value else np.float32(np.nan)


@intrinsic
def leading_zeros(typing_context: Any, value: Any) -> Any:
    """Leading zeros of a 32-bit pattern given as uint32; 32 for zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint32(types.uint32), generate


@intrinsic
def lowest_bit(typing_context: Any, value: Any) -> Any:
    """Position of the lowest set bit of a uint64 that is not zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def unlikely(typing_context: Any, condition: Any) -> Any:
    """The condition, with a hint to the compiler that it is rarely true."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bit = ir.IntType(1)
        expect = builder.module.declare_intrinsic("llvm.expect", [bit], ir.FunctionType(bit, [bit, bit]))
        return builder.call(expect, [args[0], ir.Constant(bit, 0)])

    return types.boolean(types.boolean), generate
