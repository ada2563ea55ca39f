"""The LLVM code of a translated program, row by row; see `translation`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, reduce
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils

from pulpsim.code import ALIGN_ROWS
from pulpsim.counters import Cause
from pulpsim.engine import arithmetic
from pulpsim.engine import layout as at
from pulpsim.engine.operations import FUSED, Alu, Jump, Loop
from pulpsim.engine.traces.touched import MANY, STRETCH, WHO, WRITTEN
from pulpsim.engine.traces.translation import LATE, Region
from pulpsim.engine.traces.values import LONGEST
from pulpsim.memory import L1_BASE, L2_BASE

#: of the state, what does not change while a translation runs
_FIXED = (
    at.STRETCH, at.LINES, at.LOAD_USE, at.MUL_USE, at.TAKEN, at.JUMP, at.L1_WORDS, at.BANK_MASK,
)  # fmt: skip
#: how functions are called that are seldom needed: they leave all registers as they are
CONVENTION = "preserve_allcc"
BIT, I8, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
FLOAT = ir.FloatType()
#: of a core's state, read when the translation is entered and written when it is left
_KEPT = (at.START0, at.END0, at.COUNT0, at.START1, at.END1, at.COUNT1)
#: of what it counts, two numbers in a variable: one is below COUNTED, the other one above
_COUNTS = (
    (at.COUNT + Cause.ISSUE, at.DID_L1_WORDS),
    (at.COUNT + Cause.LOAD_USE, at.DID_FP_OPERATIONS),
    (at.COUNT + Cause.MULDIV, at.COUNT + Cause.BRANCH),
)
COUNTED = 32


def _i64(value: int) -> Any:
    return ir.Constant(I64, value)


class Emitter:
    """Emits `translated(c, origin, s, registers, words, present, traces)` for a region."""

    def __init__(self, region: Region, context: Any, builder: Any, kinds: Sequence[Any], arguments: Sequence[Any]):
        self._region, self._context, self._b = region, context, builder
        self._c, self._origin = arguments[:2]
        self._s, self._registers, self._words, self._present = (
            self._data(kind, value) for kind, value in zip(kinds[2:6], arguments[2:6], strict=True)
        )
        parts = [builder.extract_value(arguments[6], number) for number in range(4)]
        self._entries, self._heads, self._touched, self._log = (
            self._data(kind, value) for kind, value in zip(kinds[6][:4], parts, strict=True)
        )
        log = context.make_array(kinds[6][3])(context, builder, parts[3])
        self._log_end = builder.sub(builder.extract_value(log.shape, 0), _i64(at.MOST_KEPT))
        self._blocks: dict[tuple[int, int], Any] = {}  # (row, how late) -> where its code begins
        self._waiting: list[tuple[int, int]] = []
        self._homes: list[tuple[Any, Any]] = []  # variables, and where their values belong
        self._leave = builder.append_basic_block("leave")

    def _data(self, kind: Any, value: Any) -> Any:
        return self._context.make_array(kind)(self._context, self._b, value).data

    # -- the whole --------------------------------------------------------------------------------
    def emit(self) -> None:
        """The builder is left behind the code."""
        b = self._b
        self._fixed = {place: b.load(self._item(self._s, _i64(0), place)) for place in _FIXED}
        self._core = b.add(_i64(at.CORE), b.mul(self._c, _i64(at.CORE_FIELDS)))
        self._mine = b.or_(b.shl(self._state(at.STRETCH), _i64(STRETCH)), b.shl(self._c, _i64(WHO)))
        self._many = b.or_(self._mine, _i64(MANY << WHO))
        self._enter()
        self._lines = self._present_lines()
        entered = b.sub(b.lshr(b.load(self._place), _i64(4)), self._origin)
        switch = b.switch(entered, self._leave)
        for row in self._region.entries:
            switch.add_case(_i64(row), self._block(row, 0))
        while self._waiting:
            row, late = self._waiting.pop()
            b.position_at_end(self._blocks[row, late])
            self._row(row, late)
        b.position_at_end(self._leave)
        self._exit()

    def _enter(self) -> None:
        """What changes is in variables: registers, the core's state, the trace's end, the log's."""
        b = self._b
        head = b.mul(self._c, _i64(at.HEAD_FIELDS))
        self._end_home = self._item(self._heads, head, at.H_END)
        self._end = cgutils.alloca_once_value(b, b.gep(self._entries, [b.load(self._end_home)]))
        self._gap = self._variable(self._item(self._heads, head, at.H_GAP))
        self._place = self._variable(self._item(self._s, self._core, at.PLACE))
        self._kept = self._variable(self._item(self._s, _i64(0), at.KEPT))
        self._fields = {n: self._variable(self._item(self._s, self._core, n)) for n in _KEPT}
        self._counts = {pair: cgutils.alloca_once_value(b, _i64(0)) for pair in _COUNTS}
        base, floats = b.mul(self._c, _i64(at.REGISTER_STRIDE)), self._floats()
        self._own = {}
        for number in self._used():
            home = self._item(self._registers, base, number)
            self._own[number] = self._variable(b.bitcast(home, FLOAT.as_pointer()) if number in floats else home)
        last = b.sub(b.mul(b.add(self._c, _i64(1)), _i64(at.TRACE)), _i64(len(self._region.rows) + 2))
        self._last = b.gep(self._entries, [last])

    def _present_lines(self) -> dict[int, Any]:
        """Of each line of code whether it is in the core's instruction cache, which does not change here."""
        b, region = self._b, self._region
        first = b.add(b.mul(self._c, self._state(at.LINES)), b.udiv(self._origin, _i64(ALIGN_ROWS)))
        lines = sorted({region.line(row) for row in region.rows}) if region.lines else []
        return {line: b.load(b.gep(self._present, [b.add(first, _i64(line))])) for line in lines}

    def _exit(self) -> None:
        b = self._b
        end, entries = (b.ptrtoint(place, I64) for place in (b.load(self._end), self._entries))
        b.store(b.sdiv(b.sub(end, entries), _i64(8)), self._end_home)
        for variable, home in self._homes:
            b.store(b.load(variable), home)
        for pair, variable in self._counts.items():
            both = b.load(variable)
            numbers = b.and_(both, _i64((1 << COUNTED) - 1)), b.lshr(both, _i64(COUNTED))
            for place, number in zip(pair, numbers, strict=True):
                self._add(self._item(self._s, self._core, place), number)

    def _variable(self, home: Any) -> Any:
        b = self._b
        variable = cgutils.alloca_once(b, home.type.pointee)
        b.store(b.load(home), variable)
        self._homes.append((variable, home))
        return variable

    def _used(self) -> list[int]:
        region, columns = self._region, (at.R_RD, at.R_RS1, at.R_RS2, at.R_RS3, at.R_BASE)
        rows = [row for row in region.rows if region.known(row)]
        found = {region.field(row, column) for row in rows for column in columns}
        return sorted(found - {0, at.SINK})

    def _floats(self) -> set[int]:
        """Registers that some row computes by floating point: their variables are of that kind."""
        region, kinds = self._region, (at.K_FMADD, at.K_SHARED_FMADD, at.K_FPU, at.K_SHARED_FPU)
        return {region.field(row, at.R_RD) for row in region.rows if region.kind(row) in kinds}

    # -- values -----------------------------------------------------------------------------------
    def _item(self, data: Any, first: Any, place: int) -> Any:
        return self._b.gep(data, [self._b.add(first, _i64(place))])

    def _state(self, place: int) -> Any:
        """What does not change here."""
        return self._fixed[place]

    def _add(self, variable: Any, value: Any) -> None:
        value = _i64(value) if isinstance(value, int) else value
        self._b.store(self._b.add(self._b.load(variable), value), variable)

    def _count(self, place: int, value: int | Any) -> None:
        """Add to what is counted at this place of a core's state."""
        pair = next(pair for pair in _COUNTS if place in pair)
        by = COUNTED * pair.index(place)
        self._add(self._counts[pair], value << by if isinstance(value, int) else self._b.shl(value, _i64(by)))

    def _register(self, row: int, column: int) -> Any:
        """As i32."""
        number = self._region.field(row, column)
        if number not in self._own:
            return ir.Constant(I32, 0)
        return self._b.bitcast(self._b.load(self._own[number]), I32)

    def _wide(self, row: int, column: int) -> Any:
        return self._b.sext(self._register(row, column), I64)

    def _set(self, row: int, column: int, value: Any) -> None:
        number = self._region.field(row, column)
        if number in self._own:
            value = self._b.trunc(value, I32) if value.type == I64 else value
            self._b.store(self._b.bitcast(value, self._own[number].type.pointee), self._own[number])

    def _call(self, function: Any, *values: Any) -> Any:
        """What one of the engine's functions gives for these values, as i64."""
        result, kind = self._result(function, *values)
        return self._context.cast(self._b, result, kind, types.int64)

    def _result(self, function: Any, *values: Any) -> tuple[Any, Any]:
        """What it gives, and of which of Numba's types that is."""
        kind = self._context.typing_context.resolve_value_type(function)
        arguments = tuple(types.int64 if value.type == I64 else types.int32 for value in values)
        signature = kind.get_call_type(self._context.typing_context, arguments, {})
        code = self._context.get_function(kind, signature)
        result = code(self._b, values)
        self._context.add_linking_libs(getattr(code, "libs", ()))
        return result, signature.return_type

    # -- control ----------------------------------------------------------------------------------
    def _block(self, row: int, late: int) -> Any:
        if (row, late) not in self._blocks:
            self._blocks[row, late] = self._b.append_basic_block(f"row{row}.{late}")
            self._waiting.append((row, late))
        return self._blocks[row, late]

    def _go(self, row: int, marks: int | Any = 0) -> None:
        """Leave the translation, at this row."""
        b = self._b
        place = b.mul(b.add(self._origin, _i64(row)), _i64(at.ROW))
        b.store(b.or_(place, _i64(marks)), self._place)
        b.branch(self._leave)

    def _unless(self, wrong: Any, row: int, late: int) -> None:
        """Leave it before this row if something is so."""
        b = self._b
        out, on = b.append_basic_block(), b.append_basic_block()
        b.cbranch(wrong, out, on).set_weights([1, 1000])
        b.position_at_end(out)
        self._go(row, LATE[late])
        b.position_at_end(on)

    def _follow(self, row: int, following: int, late: int) -> None:
        """On to another row."""
        b, region = self._b, self._region
        if not region.holds(following):
            self._go(following)
            return
        if region.lines and region.line(row) != region.line(following):
            absent = b.icmp_unsigned("==", self._lines[region.line(following)], ir.Constant(I8, 0))
            out, on = b.append_basic_block(), b.append_basic_block()
            b.cbranch(absent, out, on).set_weights([1, 1000])
            b.position_at_end(out)
            self._go(following, at.FETCH | LATE[late])
            b.position_at_end(on)
        if following <= row:
            full = b.icmp_unsigned(">=", b.load(self._end), self._last)
            long = b.icmp_signed(">=", b.load(self._gap), _i64(LONGEST))
            self._unless(b.or_(full, long), following, late)
        b.branch(self._block(following, late))

    def _next(self, row: int) -> None:
        """To the row behind this one, or back to a loop's start."""
        b, region = self._b, self._region
        for level, start in sorted(region.starts(row)):
            end, count = self._fields[(at.END0, at.END1)[level]], self._fields[(at.COUNT0, at.COUNT1)[level]]
            ends, again, over, on = (b.append_basic_block() for _ in range(4))
            b.cbranch(b.icmp_signed("==", b.load(end), self._home(row)), ends, on)
            b.position_at_end(ends)
            left = b.load(count)
            b.cbranch(b.icmp_signed(">", left, _i64(1)), again, over)
            b.position_at_end(again)
            b.store(b.sub(left, _i64(1)), count)
            self._follow(row, start, region.late(row, start))
            b.position_at_end(over)
            b.store(_i64(0), count)
            b.branch(on)
            b.position_at_end(on)
        self._follow(row, row + 1, region.late(row, row + 1))

    def _home(self, row: int) -> Any:
        """The place of a row."""
        return self._b.mul(self._b.add(self._origin, _i64(row)), _i64(at.ROW))

    def _check_loops(self, row: int, late: int) -> None:
        """Leave it before a loop's end if a loop goes back to where it was not seen to."""
        b, known = self._b, dict(self._region.starts(row))
        for level, (end, start) in enumerate(((at.END0, at.START0), (at.END1, at.START1))):
            ends = b.icmp_signed("==", b.load(self._fields[end]), self._home(row))
            if level in known:
                elsewhere = b.icmp_signed("!=", b.load(self._fields[start]), self._home(known[level]))
                ends = b.and_(ends, elsewhere)
            self._unless(ends, row, late)

    # -- rows -------------------------------------------------------------------------------------
    def _row(self, row: int, late: int) -> None:
        region = self._region
        if not region.known(row):
            self._go(row, LATE[late])
            return
        if region.field(row, at.R_KIND) & at.LOOP_END:
            self._check_loops(row, late)
        kind = region.kind(row)
        if kind in (at.K_LOAD_NEXT, at.K_LOAD_WORD, at.K_STORE_WORD):
            self._access(row, late)
        elif kind == at.K_BRANCH:
            self._branch(row, late)
            return
        elif kind == at.K_JUMP:
            self._issue(row, late)
            self._jumped(at.JUMP)
            self._set(row, at.R_RD, self._b.add(self._b.mul(self._origin, _i64(4)), _i64(L2_BASE + 4 * (row + 1))))
            self._follow(row, region.target(row), 0)
            return
        elif kind in (at.K_LOOP, at.K_SLOW_LOOP):
            self._set_loop(row)
            self._issue(row, late)
            if kind == at.K_SLOW_LOOP:
                self._take(region.field(row, at.R_CYCLES) - 1, Cause.BRANCH)
        else:
            self._compute(row, late)
        self._next(row)

    def _issue(self, row: int, late: int) -> None:
        """An instruction's cycle, and its stall."""
        self._add(self._gap, 1)
        self._count(at.COUNT + Cause.ISSUE, 1)
        if late:
            cause, place = ((Cause.LOAD_USE, at.LOAD_USE), (Cause.MULDIV, at.MUL_USE))[late - 1]
            self._take(self._state(place), cause)

    def _take(self, cycles: int | Any, cause: Cause) -> None:
        self._add(self._gap, cycles)
        self._count(at.COUNT + cause, cycles)

    def _jumped(self, cycles: int) -> None:
        self._take(self._b.sub(self._state(cycles), _i64(1)), Cause.BRANCH)

    def _note(self, claim: Any) -> None:
        """The trace's next entry."""
        b = self._b
        end = b.load(self._end)
        b.store(b.add(b.shl(b.load(self._gap), _i64(at.E_GAP)), claim), end)
        b.store(b.gep(end, [_i64(1)]), self._end)
        b.store(_i64(0), self._gap)

    def _branch(self, row: int, late: int) -> None:
        b, region = self._b, self._region
        second = b.add(self._wide(row, at.R_RS2), _i64(region.field(row, at.R_IMM)))
        sub = _i64(region.field(row, at.R_SUB))
        taken = self._call(arithmetic.branch_taken, sub, self._wide(row, at.R_RS1), second)
        self._issue(row, late)
        goes, stays = b.append_basic_block(), b.append_basic_block()
        b.cbranch(b.icmp_signed("!=", taken, _i64(0)), goes, stays)
        b.position_at_end(goes)
        self._jumped(at.TAKEN)
        self._follow(row, region.target(row), 0)
        b.position_at_end(stays)
        self._next(row)

    def _set_loop(self, row: int) -> None:
        b, region = self._b, self._region
        sub, level = region.field(row, at.R_SUB), region.field(row, at.R_RD)
        start, end, count = ((at.START0, at.END0, at.COUNT0), (at.START1, at.END1, at.COUNT1))[level]
        if sub in (Loop.SETUP, Loop.COUNT):
            number = b.add(self._wide(row, at.R_RS1), _i64(region.field(row, at.R_IMM)))
            b.store(b.and_(number, _i64(0xFFFFFFFF)), self._fields[count])
        if sub == Loop.SETUP:
            b.store(self._home(row + 1), self._fields[start])
        if sub == Loop.START:
            b.store(self._home(region.target(row)), self._fields[start])
        if sub in (Loop.SETUP, Loop.END):
            b.store(self._home(region.target(row)), self._fields[end])

    def _compute(self, row: int, late: int) -> None:
        region = self._region
        kind = region.kind(row)
        if kind in (at.K_SHARED_FPU, at.K_SHARED_FMADD):
            unit = self._b.load(self._item(self._s, self._core, at.FPU_INDEX))
            self._note(self._b.or_(self._b.shl(unit, _i64(at.E_OPERAND)), _i64(at.E_SHARED)))
        if kind in (at.K_FMADD, at.K_FPU, at.K_SHARED_FPU, at.K_SHARED_FMADD):
            self._count(at.DID_FP_OPERATIONS, 1)
        self._set(row, at.R_RD, self._value(row))
        self._issue(row, late)
        if kind == at.K_MUL:
            self._take(region.field(row, at.R_CYCLES) - 1, Cause.MULDIV)

    def _value(self, row: int) -> Any:
        """As `execution.private`."""
        b, region = self._b, self._region
        kind, sub, number = region.kind(row), region.field(row, at.R_SUB), region.field(row, at.R_IMM)
        operands = [self._wide(row, column) for column in (at.R_RS1, at.R_RS2, at.R_RS3)]
        first, second, third = operands
        if kind == at.K_ADD:
            return b.add(b.add(first, second), _i64(number))
        if kind == at.K_ALU and sub == Alu.MHARTID:
            return self._c
        if kind == at.K_ALU:
            return self._call(arithmetic.alu, _i64(sub), first, b.add(second, _i64(number)), third)
        if kind == at.K_WIDE:
            last = _i64(region.field(row, at.R_CYCLES))
            return self._call(arithmetic.wide, _i64(sub), *operands, _i64(number), last)
        if kind == at.K_MUL:
            return self._call(arithmetic.multiply, _i64(sub), first, second)
        if kind in (at.K_FMADD, at.K_SHARED_FMADD) or sub < FUSED:
            return self._canonical(self._result(arithmetic.fused_number, _i64(sub), *operands)[0])
        return self._call(arithmetic.fpu, _i64(sub), first, second, _i64(number))

    def _canonical(self, number: Any) -> Any:
        """A float, or the NaN that stands for all: a branch that is not taken, which no later sum waits for."""
        b = self._b
        before, other, on = b.block, b.append_basic_block(), b.append_basic_block()
        b.cbranch(b.fcmp_unordered("uno", number, number), other, on).set_weights([1, 1000])
        b.position_at_end(other)
        b.branch(on)
        b.position_at_end(on)
        either = b.phi(FLOAT)
        either.add_incoming(number, before)
        either.add_incoming(ir.Constant(I32, arithmetic.CANONICAL_NAN).bitcast(FLOAT), other)
        return either

    # -- words of L1 ------------------------------------------------------------------------------
    def _access(self, row: int, late: int) -> None:
        """As `execution.word_access`."""
        b, region = self._b, self._region
        store = region.kind(row) == at.K_STORE_WORD
        origin, offset = self._register(row, at.R_RS1), ir.Constant(I32, region.field(row, at.R_IMM))
        if region.kind(row) != at.K_LOAD_NEXT:
            offset = b.add(offset, self._register(row, at.R_RS3))
        inside = b.sub(origin, ir.Constant(I32, L1_BASE))
        if region.kind(row) != at.K_LOAD_NEXT and region.field(row, at.R_PRE):
            inside = b.add(inside, offset)
        turned = b.or_(b.lshr(inside, ir.Constant(I32, 2)), b.shl(inside, ir.Constant(I32, 30)))
        word = b.zext(turned, I64)
        self._unless(b.icmp_signed(">=", word, self._state(at.L1_WORDS)), row, late)
        (self._may_write if store else self._may_read)(word, row, late)
        if region.conflicts:
            bank = b.add(b.and_(word, self._state(at.BANK_MASK)), _i64(at.FIRST_BANK))
            self._note(b.or_(b.shl(bank, _i64(at.E_OPERAND)), _i64(at.E_SHARED)))
        place, moved = b.gep(self._words, [word]), b.add(origin, offset)
        if store:
            b.store(self._register(row, at.R_RS2), place)
        self._set(row, at.R_BASE, moved)
        if not store:
            self._set(row, at.R_RD, b.load(place))
        self._count(at.DID_L1_WORDS, 1)
        self._issue(row, late)

    def _may_read(self, word: Any, row: int, late: int) -> None:
        """As `touched.may_touch`, but that words which transfers may move are left to the interpreter."""
        b = self._b
        home = b.gep(self._touched, [word])
        mark = b.zext(b.load(home), I64)
        mine = b.icmp_unsigned("==", b.or_(mark, _i64(WRITTEN)), b.or_(self._mine, _i64(WRITTEN)))
        first, on = b.append_basic_block(), b.append_basic_block()
        b.cbranch(b.or_(mine, b.icmp_unsigned("==", mark, self._many)), on, first)
        b.position_at_end(first)
        may = b.call(self._first_read, (home, word, self._mine, self._s), cconv=CONVENTION)
        self._unless(b.not_(may), row, late)
        b.branch(on)
        b.position_at_end(on)

    def _may_write(self, word: Any, row: int, late: int) -> None:
        b = self._b
        home = b.gep(self._touched, [word])
        mark = b.zext(b.load(home), I64)
        first, on = b.append_basic_block(), b.append_basic_block()
        b.cbranch(b.icmp_unsigned("==", mark, b.or_(self._mine, _i64(WRITTEN))), on, first)
        b.position_at_end(first)
        kept = b.load(self._kept)
        self._unless(b.icmp_signed(">", kept, self._log_end), row, late)
        entry, value = b.gep(self._log, [b.mul(kept, _i64(2))]), b.gep(self._words, [word])
        may = b.call(self._first_write, (home, word, self._mine, self._s, value, entry), cconv=CONVENTION)
        self._unless(b.not_(may), row, late)
        b.store(b.add(kept, _i64(1)), self._kept)
        b.branch(on)
        b.position_at_end(on)

    @cached_property
    def _first_read(self) -> Any:
        """A function: note that a core reads a word it has not read; whether it may."""
        function, b, (home, word, mine, state) = self._function("first_read")
        mark = b.zext(b.load(home), I64)
        fresh = _is_fresh(b, mark, mine)
        written = b.icmp_unsigned("!=", b.and_(mark, _i64(WRITTEN)), _i64(0))
        wrong = b.select(fresh, _is_between(b, word, state, at.MOVED_IN), written)
        with b.if_then(wrong), b.if_then(b.or_(b.not_(fresh), _is_moved(b, word, state, at.MOVED_IN))):
            b.ret(ir.Constant(BIT, 0))
        b.store(b.trunc(b.select(fresh, mine, b.or_(mine, _i64(MANY << WHO))), I32), home)
        b.ret(ir.Constant(BIT, 1))
        return function

    @cached_property
    def _first_write(self) -> Any:
        """A function: note that a core writes a word it has not written, and keep what was there; whether it may."""
        function, b, (home, word, mine, state, value, entry) = self._function(
            "first_write", I32.as_pointer(), I64.as_pointer()
        )
        mark = b.zext(b.load(home), I64)
        others = b.and_(b.not_(_is_fresh(b, mark, mine)), b.icmp_unsigned("!=", mark, mine))
        between = b.or_(_is_between(b, word, state, at.MOVED_IN), _is_between(b, word, state, at.MOVED_OUT))
        with b.if_then(b.or_(others, between)):
            moved = b.or_(_is_moved(b, word, state, at.MOVED_IN), _is_moved(b, word, state, at.MOVED_OUT))
            with b.if_then(b.or_(others, moved)):
                b.ret(ir.Constant(BIT, 0))
        b.store(word, entry)  # IN_L1 is 0
        b.store(b.sext(b.load(value), I64), b.gep(entry, [_i64(1)]))
        b.store(b.trunc(b.or_(mine, _i64(WRITTEN)), I32), home)
        b.ret(ir.Constant(BIT, 1))
        return function

    def _function(self, name: str, *kinds: Any) -> tuple[Any, Any, Sequence[Any]]:
        """A function that is called, not inlined: it, a builder at its begin, its arguments. Those are where a word's
        mark is, the word, the core's own mark, the state, and what `kinds` says."""
        arguments = I32.as_pointer(), I64, I64, I64.as_pointer(), *kinds
        function = ir.Function(self._b.module, ir.FunctionType(BIT, arguments), name)
        function.attributes.add("noinline")
        function.calling_convention = CONVENTION
        return function, ir.IRBuilder(function.append_basic_block()), function.args


def _is_fresh(b: Any, mark: Any, mine: Any) -> Any:
    """A word's mark is of an older stretch."""
    return b.icmp_unsigned("<", b.lshr(mark, _i64(STRETCH)), b.lshr(mine, _i64(STRETCH)))


def _is_moved(b: Any, word: Any, state: Any, place: int) -> Any:
    """Some part of L1 that is noted behind this place holds a word."""
    parts = range(place + 2, place + 2 * (1 + at.MOVED_PARTS), 2)
    return reduce(b.or_, [_is_between(b, word, state, part) for part in parts])


def _is_between(b: Any, word: Any, state: Any, place: int) -> Any:
    """A word lies between those that the state tells at this place."""
    first, count = (b.load(b.gep(state, [_i64(place + n)])) for n in range(2))
    return b.icmp_unsigned("<", b.sub(word, first), count)


assert at.IN_L1 == 0 and Jump.JAL != Jump.JALR and MANY + 1 == 1 << STRETCH - WHO
