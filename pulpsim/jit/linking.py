"""Machine code of a `native` function and of all that it calls, made by Numba in one piece.

Numba makes LLVM code of each function, optimises it and makes machine code of it, then links it with its callers' and
begins anew there. The parts of a native function are linked first, and only what that gives is optimised.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.np import arrayobj

from pulpsim.jit.functions import Function
from pulpsim.jit.machine_code import target_machine
from pulpsim.jit.parts import Part

WORD = ir.IntType(64)
#: how functions begin that are there only while Numba is, or with Python's interpreter
OF_NUMBA = ("NRT_", "numba_", "Py", "_Py")

_linking = False  # under the compiler's lock


def links() -> bool:
    """Whether what is being compiled are parts."""
    return _linking


# -- linked ----------------------------------------------------------------------------------------
def object_file(function: Function, arguments: tuple[Any, ...]) -> bytes:
    """An object file with the function's code for such arguments, see `native`."""
    with global_compiler_lock, _of_parts():
        signature = tuple(map(_type, arguments))
        function.part.compile(signature)
        compiled = function.part.overloads[signature]
        entry = _entry(function.name, compiled.fndesc)
        module = _linked([entry, *_modules(compiled.library)])
    _optimise(module, function.name)
    needed = [symbol.name for symbol in module.functions if symbol.name.startswith(OF_NUMBA)]
    if needed:
        raise TypeError(f"{function.name} cannot be native: it needs {', '.join(needed)}")
    return target_machine().emit_object(module)


@contextmanager
def _of_parts() -> Iterator[None]:
    """What is compiled here are parts; without Python's search for garbage, of which compilers leave little."""
    global _linking  # noqa: PLW0603
    collects = gc.isenabled()
    gc.disable()
    _linking = True
    try:
        yield
    finally:
        _linking = False
        if collects:
            gc.enable()


def _type(value: Any) -> types.Type:
    if isinstance(value, tuple):
        return types.Tuple([_type(part) for part in value])
    if isinstance(value, np.ndarray):
        return types.Array(numba.from_dtype(value.dtype), value.ndim, "C")
    if isinstance(value, bool):
        return types.boolean
    return types.none if value is None else types.int64


def _modules(library: Any) -> list[str]:
    """The LLVM code of a library and of all that it calls, as text."""
    modules: list[str] = []
    seen, waiting = set(), [library]
    while waiting:
        library = waiting.pop()
        if library in seen:
            continue
        seen.add(library)
        if isinstance(library, Part):
            modules += map(str, library.modules)
            waiting += library.callees
        else:  # a function of Numba's own
            modules.append(str(library._get_module_for_linking()))
    return modules


def _entry(name: str, function: Any) -> str:
    """LLVM code that takes a function's arguments from words and calls it."""
    context = cpu_target.target_context
    module = context.create_module(name)
    entry = ir.Function(module, ir.FunctionType(ir.IntType(32), [WORD.as_pointer()]), name)
    builder = ir.IRBuilder(entry.append_basic_block())
    words = _Words(context, builder, entry.args[0])
    arguments = [words.value(argument) for argument in function.argtypes]
    signature = context.call_conv.get_function_type(function.restype, function.argtypes)
    code = ir.Function(module, signature, function.llvm_func_name)
    status, result = context.call_conv.call_function(builder, code, function.restype, function.argtypes, arguments)
    if function.restype != types.none:
        builder.store(context.cast(builder, result, function.restype, types.int64), words.next())
    builder.ret(status.code)
    return str(module)


class _Words:
    """Reads values from words, one after the other."""

    def __init__(self, context: Any, builder: Any, address: Any):
        self._context, self._builder, self._address, self._count = context, builder, address, 0

    def next(self) -> Any:
        """The address of the next word."""
        self._count += 1
        return self._builder.gep(self._address, [ir.Constant(WORD, self._count - 1)])

    def value(self, kind: types.Type) -> Any:
        if isinstance(kind, types.BaseTuple):
            return self._context.make_tuple(self._builder, kind, [self.value(part) for part in kind])
        if isinstance(kind, types.Array):
            return self._array(kind)
        if kind == types.none:
            return self._context.get_dummy_value()
        word = self._builder.load(self.next())
        return self._builder.trunc(word, ir.IntType(1)) if kind == types.boolean else word

    def _array(self, kind: types.Array) -> Any:
        context, builder = self._context, self._builder
        array = context.make_array(kind)(context, builder)
        address = builder.inttoptr(builder.load(self.next()), array.data.type)
        shape = [builder.load(self.next()) for _ in range(kind.ndim)]
        item = ir.Constant(WORD, kind.dtype.bitwidth // 8)
        strides = [item]
        for size in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], size))
        arrayobj.populate_array(array, address, shape, strides, item, None)
        return array._getvalue()


def _linked(modules: list[str]) -> Any:
    linked, *others = (llvm.parse_assembly(cgutils.normalize_ir_text(module)) for module in modules)
    for module in others:
        linked.link_in(module)
    linked.verify()
    return linked


def _optimise(module: Any, entry: str) -> None:
    """Nothing but the entry is seen from outside. Loops of a simulator are no vectors."""
    for symbol in [*module.functions, *module.global_variables]:
        if not symbol.is_declaration and symbol.name != entry:
            symbol.linkage = "internal"
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_interleaving = False
    builder = llvm.create_pass_builder(target_machine(), tuning)
    first = llvm.create_new_module_pass_manager()  # as Numba does before it optimises
    first.add_loop_rotate_pass()
    first.add_instruction_combine_pass()
    first.add_jump_threading_pass()
    first.run(module, builder)
    builder.getModulePassManager().run(module, builder)
