"""Machine code of a `native` function and of all that it calls, made by Numba in one piece.

Numba makes LLVM code of each function, optimises it and makes machine code of it, then links it with its callers' and
begins anew there. The parts of a native function are linked first, and only what that gives is optimised.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import EnumMeta
from functools import cache
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.core import cgutils, typed_passes, untyped_passes
from numba.core import ir as numba_ir
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.typing import Context
from numba.np import arrayobj

from pulpsim.jit.dispatchers import OPTIONS
from pulpsim.jit.functions import Function
from pulpsim.jit.machine_code import target_machine

WORD = ir.IntType(64)
#: how functions begin that are there only while Numba is, or with Python's interpreter
OF_NUMBA = ("NRT_", "numba_", "Py", "_Py")
#: passes that rewrite array expressions, closures, contexts and other forms that functions without a heap do not have
IDLE = {
    untyped_passes.WithLifting,
    untyped_passes.InlineClosureLikes,
    untyped_passes.RewriteDynamicRaises,
    untyped_passes.MakeFunctionToJitFunction,
    untyped_passes.InlineInlinables,
    untyped_passes.FindLiterallyCalls,
    untyped_passes.LiteralUnroll,
    untyped_passes.LiteralPropagationSubPipelinePass,
    typed_passes.InlineOverloads,
    typed_passes.NopythonRewrites,
    typed_passes.AnnotateTypes,
}


# -- parts -----------------------------------------------------------------------------------------
class _Part(JITCodeLibrary):
    """The LLVM code of a function, and the libraries of those that it calls."""

    def __init__(self, codegen: Any, name: str):
        super().__init__(codegen, name)
        self.modules: list[ir.Module] = []
        self.callees: list[Any] = []

    def add_ir_module(self, ir_module: ir.Module) -> None:
        self.modules.append(ir_module)

    def add_linking_library(self, library: Any) -> None:
        self.callees.append(library)

    def finalize(self) -> None:
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):
    """LLVM code alone, for other parts to call."""

    _name = "part_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _Part(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = True
        super().run_pass(state)
        state.cr = state.cr._replace(cfunc=object())  # by which callers find it
        state.targetctx.insert_user_function(state.cr.cfunc, state.cr.fndesc, [state.library])
        return True


@register_pass(mutates_CFG=False, analysis_only=False)
class _Constants(FunctionPass):
    """Numbers and types of modules and enumerations, `layout.NOW` or `np.int64`, are looked up before all else."""

    _name = "constants"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        for block in state.func_ir.blocks.values():
            owners: dict[str, Any] = {}  # variable -> the step that makes it a module or enumeration; it is used once
            for step in block.find_insts(numba_ir.Assign):
                value = step.value
                if isinstance(value, numba_ir.Global) and isinstance(value.value, ModuleType | EnumMeta):
                    owners[step.target.name] = step
                elif isinstance(value, numba_ir.Expr) and value.op == "getattr" and value.value.name in owners:
                    owner = owners[value.value.name]
                    named = getattr(owner.value.value, value.attr, None)
                    if isinstance(named, int) and not isinstance(named, bool):
                        step.value = numba_ir.Const(int(named), value.loc)
                    elif isinstance(named, type):
                        step.value = numba_ir.Global(value.attr, named, value.loc)
                    else:
                        continue
                    block.remove(owner)
        return True


class _Typing(Context):
    """Numba's knowledge of types, which looks but once for what an operator does with operands of some types."""

    def __init__(self, numba: Context):
        self.__dict__.update(numba.__dict__)
        self._found: dict[Any, Any] = {}

    def resolve_function_type(self, function: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        if named or not isinstance(function, types.Function):
            return super().resolve_function_type(function, arguments, named)
        if all(isinstance(types.unliteral(argument), types.Number | types.Boolean) for argument in arguments):
            arguments = tuple(map(types.unliteral, arguments))
        call = function, arguments
        if call not in self._found:
            self._found[call] = super().resolve_function_type(function, arguments, named)
        return self._found[call]


@cache
def _typing() -> _Typing:
    cpu_target.typing_context.refresh()
    return _Typing(cpu_target.typing_context)


class _Compiler(CompilerBase):
    """Numba's, without what finds nothing to do in functions of numbers and arrays."""

    def __init__(self, typing: Any, *others: Any):
        super().__init__(_typing(), *others)

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.passes = [
            (_Lowering if step is typed_passes.NativeLowering else step, why)
            for step, why in pipeline.passes
            if step not in IDLE
        ]
        pipeline.add_pass_after(_Constants, untyped_passes.TranslateByteCode)
        pipeline.finalize()
        return [pipeline]


class _PartDispatcher(CPUDispatcher):
    """What compiled functions call, and Python cannot."""

    def add_overload(self, compiled: Any) -> None:
        self.overloads[tuple(compiled.signature.args)] = compiled


def part(python: Callable[..., Any], options: Mapping[str, bool]) -> Any:
    return _PartDispatcher(python, {}, {"nopython": True, **OPTIONS, **options}, _Compiler)


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
        if isinstance(library, _Part):
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
