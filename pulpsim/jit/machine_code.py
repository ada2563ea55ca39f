"""Functions that Python calls, as machine code: compiled once, kept as an object file, loaded by llvmlite alone.

Such a function's code is called with the address of 64-bit words: its arguments in order - of a number the number, of
an array its address and shape, of a tuple what is in it, of None nothing - and behind them a word for the result.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim.jit.cache import code_directory, read_sealed, writable_directory, write_sealed
from pulpsim.jit.functions import Function

#: of a function's code: words' address -> 0, or else not all is well
CODE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class Native(Function):
    """A heapless function whose arguments are whole numbers, contiguous arrays, tuples of those, True and None.

    There is code for every form of its arguments: what they are but for numbers' values and arrays' shapes.
    """

    def __init__(self, python: Callable[..., Any]):
        super().__init__(python, _nrt=False)
        self._code: dict[str, Any] = {}

    def __call__(self, *arguments: Any) -> int:
        return self.on(*arguments)()

    def on(self, *arguments: Any) -> Call:
        """Calls with these last arguments, which are looked at but once; the numbers before them are given then."""
        numbers = (0,) * (self.python.__code__.co_argcount - len(arguments))
        return Call(self, numbers + arguments)

    def code(self, arguments: tuple[Any, ...]) -> Any:
        """What is called with words' address, for arguments of these forms."""
        form = _form(arguments)
        if form not in self._code:
            self._code[form] = CODE(_loaded(self._object(form, arguments), self.name))
        return self._code[form]

    def _file(self, form: str) -> str:
        """The object file's name. form: a digest of the arguments' form, and of the host."""
        return f"{self.python.__module__}.{self.name}-{form}.o"

    def is_kept(self, arguments: tuple[Any, ...]) -> bool:
        """The code for such arguments need not be made."""
        form = _form(arguments)
        return form in self._code or self._path(form).exists()

    def _path(self, form: str) -> Path:
        return code_directory(self._beside) / self._file(hashlib.sha256(f"{form} {_host()}".encode()).hexdigest()[:16])

    @property
    def _beside(self) -> Path:
        return Path(self.python.__code__.co_filename).parent

    def _object(self, form: str, arguments: tuple[Any, ...]) -> bytes:
        """The object file, from the cache or made."""
        path = self._path(form)
        kept = read_sealed(path)
        if kept is None:
            from pulpsim.jit.linking import object_file

            directory = writable_directory(self._beside)
            kept = object_file(self, arguments)
            if directory is not None:
                write_sealed(path, kept)
        return kept

    def address(self, arguments: tuple[Any, ...]) -> int:
        """Of the code, for compiled code that calls it."""
        return ctypes.cast(self.code(arguments), ctypes.c_void_p).value or 0


def words(arguments: tuple[Any, ...]) -> NDArray[np.int64]:
    """What code is called with; the arrays must be kept."""
    return np.array([*_words(arguments), 0], np.int64)


class Call:
    """A function and what it is called with."""

    def __init__(self, function: Native, arguments: tuple[Any, ...]):
        words = list(_words(arguments))
        self._function, self._arguments = function, arguments  # the arrays are kept as long as their addresses
        self._words = (ctypes.c_int64 * (len(words) + 1))(*words)
        self._address = ctypes.addressof(self._words)

    @cached_property
    def _code(self) -> Any:
        return self._function.code(self._arguments)

    def __call__(self, *numbers: int) -> int:
        words = self._words
        words[: len(numbers)] = list(numbers)
        if self._code(self._address):
            raise RuntimeError("compiled code raised an exception")
        return words[-1]


#: decorator
native = Native


def _form(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_form, value))})"
    if not isinstance(value, np.ndarray):
        return "int" if isinstance(value, np.integer) else type(value).__name__
    if not value.flags.c_contiguous:
        raise ValueError("the array's numbers must lie one behind the other")
    return f"{value.dtype.str}[{value.ndim}]"


def _words(value: Any) -> Iterator[int]:
    if isinstance(value, tuple):
        for part in value:
            yield from _words(part)
    elif isinstance(value, np.ndarray):
        yield value.ctypes.data
        yield from value.shape
    elif value is not None:
        yield int(value)


# -- loading ---------------------------------------------------------------------------------------
@cache
def target_machine() -> Any:
    """This computer, as LLVM knows it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    x86, features = target.name.startswith("x86"), llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features + ",-avx512f" * x86,  # masks of bytes take longer with it
        opt=3, reloc="static" if x86 else "default", codemodel="jitdefault", jit=True,
    )  # fmt: skip


@cache
def _host() -> str:
    """What machine code depends on."""
    import llvmlite.binding as llvm

    return f"{llvm.get_process_triple()} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"


_engines: list[Any] = []  # of what is loaded, for as long as the process lives


def _loaded(content: bytes, name: str) -> int:
    """The address of a function of an object file, each of which has symbols of its own."""
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(content))
    engine.finalize_object()
    _engines.append(engine)
    return engine.get_function_address(name)
