"""Numba's compiler for functions of numbers and arrays that are to be linked with others (`linking`): LLVM code alone.

Most of the first seconds on a new computer are spent here. Numba is made for all of Python; what these functions have
no use for - a heap, closures, contexts, errors explained in many lines - is left out.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from enum import EnumMeta
from functools import cache
from types import ModuleType
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import ir as numba_ir
from numba.core import typed_passes, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.core.compiler_machinery import _pass_registry as passes
from numba.core.cpu import CPUContext
from numba.core.ir_utils import build_definitions, find_const, guard
from numba.core.lowering import Lower
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.ssa import reconstruct_ssa
from numba.core.transforms import canonicalize_cfg
from numba.core.typing import Context

from pulpsim.jit.dispatchers import OPTIONS

#: for these it does not matter to an operator whether a number is known
SIMPLE = types.Number, types.Boolean, types.Array


# -- types and implementations ---------------------------------------------------------------------
class _Typing(Context):
    """Numba's knowledge of types, which looks but once for what a function does with arguments of some types.

    A part is the same for all whole numbers: Numba would make one for each number that is known at a call.
    """

    def __init__(self, numba: Context):
        self.__dict__.update(numba.__dict__)
        self._found: dict[Any, Any] = {}

    def resolve_function_type(self, function: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        function = self._lookup_global(function) or function
        if named or not isinstance(function, types.Function | types.Dispatcher):
            return super().resolve_function_type(function, arguments, named)
        plain = tuple(types.unliteral(kind) if isinstance(kind, types.Integer) else kind for kind in arguments)
        if isinstance(function, types.Dispatcher) or all(isinstance(kind, SIMPLE) for kind in plain):
            arguments = plain
        call = function, arguments
        if call not in self._found:
            self._found[call] = super().resolve_function_type(function, arguments, named)
        return self._found[call]

    def resolve_setitem(self, target: Any, index: Any, value: Any) -> Any:
        return self.resolve_function_type(operator.setitem, (target, index, value), {})


class _Target(CPUContext):
    """Numba's knowledge of how operations are done."""

    def __init__(self, numba: CPUContext, typing: _Typing):
        self.__dict__.update(numba.__dict__)
        self.typing_context = typing


@cache
def _contexts() -> tuple[_Typing, _Target]:
    cpu_target.target_context.refresh()
    typing = _Typing(cpu_target.typing_context)
    return typing, _Target(cpu_target.target_context, typing)


# -- passes ----------------------------------------------------------------------------------------
@register_pass(mutates_CFG=True, analysis_only=False)
class _Constants(FunctionPass):
    """What is looked up before all else: numbers and types of modules and enumerations, `layout.NOW` or `np.int64`, and
    which item of a tuple an item is, as each has a type of its own."""

    _name = "constants"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        function = state.func_ir
        function.blocks = canonicalize_cfg(function.blocks)
        arguments = zip(function.arg_names, state.args, strict=True)
        arrays = {name for name, kind in arguments if isinstance(kind, types.Array)}
        for block in function.blocks.values():
            self._look_up(block)
            self._number_items(function, block, arrays)
        return True

    def _look_up(self, block: Any) -> None:
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

    def _number_items(self, function: Any, block: Any, arrays: set[str]) -> None:
        for step in block.find_insts(numba_ir.Assign):
            item = step.value
            if isinstance(item, numba_ir.Expr) and item.op == "getitem" and item.value.name not in arrays:
                number = guard(find_const, function, item.index)
                if number is not None:
                    step.value = numba_ir.Expr.static_getitem(item.value, number, item.index, item.loc)


@register_pass(mutates_CFG=True, analysis_only=False)
class _Once(FunctionPass):
    """Each variable gets its value at one place (`ReconstructSSA`)."""

    _name = "once"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        state.func_ir = reconstruct_ssa(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Phis(typed_passes.PreLowerStripPhis):
    """Or, where ways meet, at the end of each of them."""

    _name = "phis"

    def run_pass(self, state: Any) -> bool:
        state.func_ir = self._strip_phi_nodes(state.func_ir)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):
    """LLVM code alone, for other parts to call."""

    _name = "part_lowering"

    @property
    def lowering_class(self) -> Any:
        return _Lower

    def run_pass(self, state: Any) -> bool:
        state.library = Part(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = True
        super().run_pass(state)
        state.cr = state.cr._replace(cfunc=object())  # by which callers find it
        state.targetctx.insert_user_function(state.cr.cfunc, state.cr.fndesc, [state.library])
        return True


class _Lower(Lower):
    """Numba's way from steps to LLVM code; what there is most of, numbers of arrays, takes a fifth of the code here."""

    def _find_singly_assigned_variable(self) -> None:
        """What is given but one value has it before all its uses (`_Once`), and needs no place in memory."""
        steps = [step for block in self.blocks.values() for step in block.find_insts(numba_ir.Assign)]
        counts = Counter(step.target.name for step in steps)
        self._singly_assigned_vars = {name for name, count in counts.items() if count == 1}
        self._blk_local_varmap: dict[str, Any] = {}

    def lower_block(self, block: Any) -> None:
        for step in block.body:
            self.loc = step.loc
            if isinstance(step, numba_ir.Assign):
                name = step.target.name
                self.storevar(self.lower_assign(self.typeof(name), step), name)
            else:
                self.lower_inst(step)

    def lower_binop(self, kind: Any, step: Any, operation: Any) -> Any:
        typing, typed = self.context.typing_context, self.fndesc.calltypes[step].args
        function = typing.resolve_value_type(operation)
        signature = typing.resolve_function_type(function, typed, {})
        operands = [self._cast_var(*operand) for operand in zip((step.lhs, step.rhs), typed, strict=True)]
        result = self.context.get_function(function, signature)(self.builder, operands)
        return self.context.cast(self.builder, result, signature.return_type, kind)

    def lower_getitem(self, kind: Any, step: Any, array: Any, index: Any, signature: Any) -> Any:
        if not self._is_number_of(array, index):
            return super().lower_getitem(kind, step, array, index, signature)
        number = self.typeof(array.name).dtype
        value = self.context.unpack_value(self.builder, number, self._address(array, index))
        return self.context.cast(self.builder, value, number, kind)

    def lower_setitem(self, array: Any, index: Any, value: Any, signature: Any) -> Any:
        if not self._is_number_of(array, index):
            return super().lower_setitem(array, index, value, signature)
        number = self.typeof(array.name).dtype
        self.context.pack_value(self.builder, number, self._cast_var(value, number), self._address(array, index))

    def _is_number_of(self, array: Any, index: Any) -> bool:
        kind = self.typeof(array.name)
        return isinstance(kind, types.Array) and kind.ndim == 1 and isinstance(self.typeof(index.name), types.Integer)

    def _address(self, array: Any, index: Any) -> Any:
        """Of a number of an array with one axis; from the array's end on if the index is negative."""
        builder, signed = self.builder, self.typeof(index.name).signed
        values, place = self.loadvar(array.name), self._cast_var(index, types.intp if signed else types.uintp)
        fields = self.context.data_model_manager[self.typeof(array.name)]
        if signed and not (isinstance(place, ir.Constant) and place.constant >= 0):
            count = builder.extract_value(values, [fields.get_field_position("shape"), 0])
            negative = builder.icmp_signed("<", place, place.type(0))
            place = builder.select(negative, builder.add(place, count), place)
        return builder.gep(builder.extract_value(values, fields.get_field_position("data")), [place])


PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    _Constants,
    untyped_passes.RewriteSemanticConstants,
    untyped_passes.DeadBranchPrune,
    _Once,
    untyped_passes.DeadBranchPrune,
    typed_passes.NopythonTypeInference,
    _Phis,
    _Lowering,
    typed_passes.NoPythonBackend,
)


class _Passes(PassManager):
    """Numba's, which would look after each pass for what that might have left behind."""

    def run(self, state: Any) -> None:
        for kind, _ in self.passes:
            step = passes.get(kind).pass_inst
            step.analysis = self._analysis
            step.run_pass(state)


class _Compiler(CompilerBase):
    """Numba's, with the passes that have something to do in functions of numbers and arrays."""

    def __init__(self, typing: Any, target: Any, *others: Any):
        super().__init__(*_contexts(), *others)

    def define_pipelines(self) -> list[Any]:
        pipeline = _Passes("parts")
        for step in PASSES:
            pipeline.add_pass(step, step.__name__)
        pipeline.finalize()
        return [pipeline]


# -- parts -----------------------------------------------------------------------------------------
class Part(JITCodeLibrary):
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


class _PartDispatcher(CPUDispatcher):
    """What compiled functions call, and Python cannot."""

    def add_overload(self, compiled: Any) -> None:
        self.overloads[tuple(compiled.signature.args)] = compiled


def part(python: Callable[..., Any], options: Mapping[str, bool]) -> Any:
    """The Numba function. (Left to itself, it would be inlined wherever one is that calls it.)"""
    return _PartDispatcher(python, {}, {"nopython": True, "forceinline": False, **OPTIONS, **options}, _Compiler)
