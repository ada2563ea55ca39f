"""Operations that compiled functions have on vectors of bytes: see `vectors`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import PrimitiveModel
from numba.extending import intrinsic, lower_builtin, register_model, type_callable

from pulpsim.jit.vectors import WINDOW

BYTE, HALF, WORD, PLACE = (ir.IntType(bits) for bits in (8, 16, 32, 64))


class Bytes(types.Type):
    """A vector of so many bytes."""

    def __init__(self, count: int):
        self.count = count
        super().__init__(f"Bytes({count})")


@register_model(Bytes)
class _Model(PrimitiveModel):
    def __init__(self, manager: Any, kind: Bytes):
        super().__init__(manager, kind, ir.VectorType(BYTE, kind.count))


def _zero(kind: Any) -> ir.Constant:
    return ir.Constant(kind, [0] * kind.count)


def _shuffled(builder: Any, first: Any, second: Any, lanes: Iterable[int]) -> Any:
    """Lanes of two vectors, those of the second one counted on."""
    lanes = list(lanes)
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(WORD, len(lanes)), lanes))


# -- operators -------------------------------------------------------------------------------------
def _equal(builder: Any, first: Any, second: Any) -> Any:
    return builder.sext(builder.icmp_unsigned("==", first, second), first.type)


def _below(builder: Any, first: Any, second: Any) -> Any:
    return builder.sext(builder.icmp_signed("<", first, second), first.type)  # of all hosts' vectors


def _operator(function: Any, generate: Callable[[Any, Any, Any], Any]) -> None:
    """Compiled code's, of two vectors of one length."""

    @type_callable(function)
    def typing(context: Any) -> Any:
        def result(first: Any, second: Any) -> Any:
            return first if isinstance(first, Bytes) and first == second else None

        return result

    @lower_builtin(function, Bytes, Bytes)
    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return generate(builder, *args)


_operator(operator.add, lambda builder, first, second: builder.add(first, second))
_operator(operator.sub, lambda builder, first, second: builder.sub(first, second))
_operator(operator.and_, lambda builder, first, second: builder.and_(first, second))
_operator(operator.or_, lambda builder, first, second: builder.or_(first, second))
_operator(operator.eq, _equal)
_operator(operator.lt, _below)


# -- intrinsics ------------------------------------------------------------------------------------
def _zeros(count: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _zero(context.get_value_type(signature.return_type))

    return Bytes(count)(), generate


@intrinsic
def eight_bytes(typing_context: Any) -> Any:
    """A vector of zeros."""
    return _zeros(8)


@intrinsic
def sixteen_bytes(typing_context: Any) -> Any:
    return _zeros(16)


@intrinsic
def spread(typing_context: Any, value: Any, like: Any) -> Any:
    """A vector of one number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        none = _zero(args[1].type)
        one = builder.insert_element(none, builder.trunc(args[0], BYTE), ir.Constant(WORD, 0))
        return _shuffled(builder, one, one, [0] * like.count)

    return like(value, like), generate


@intrinsic
def load_bytes(typing_context: Any, array: Any, place: Any, like: Any) -> Any:
    """What is in an array of bytes from a place on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, array, args[0], args[1])
        return builder.load(builder.bitcast(address, args[2].type.as_pointer()), align=1)

    return like(array, place, like), generate


@intrinsic
def halves(typing_context: Any, array: Any, place: Any, like: Any) -> Any:
    """Of numbers of an int64 array from a place on, pairs: the lower half of each and the upper half of the next one;
    254 of those that are not less."""
    both = Bytes(2 * like.count)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(WORD, both.count)
        first = _address(context, builder, array, args[0], args[1])
        homes = first, builder.gep(first, [ir.Constant(PLACE, 1)])
        these, nexts = (builder.load(builder.bitcast(home, kind.as_pointer()), align=8) for home in homes)
        numbers = _shuffled(builder, these, nexts, [lane + lane % 2 * both.count for lane in range(both.count)])
        most = ir.Constant(kind, [254] * both.count)
        numbers = builder.select(builder.icmp_unsigned("<", numbers, most), numbers, most)
        return builder.trunc(numbers, context.get_value_type(both))

    return both(array, place, like), generate


@intrinsic
def store_bytes(typing_context: Any, value: Any, array: Any, place: Any) -> Any:
    """Into an array of bytes from a place on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, array, args[1], args[2])
        builder.store(args[0], builder.bitcast(address, args[0].type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.none(value, array, place), generate


@intrinsic
def add_bytes(typing_context: Any, value: Any, array: Any, place: Any) -> Any:
    """To numbers of an int32 array from a place on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.VectorType(WORD, value.count)
        address = builder.bitcast(_address(context, builder, array, args[1], args[2]), wide.as_pointer())
        builder.store(builder.add(builder.load(address, align=4), builder.zext(args[0], wide)), address, align=4)
        return context.get_dummy_value()

    return types.none(value, array, place), generate


@intrinsic
def less(typing_context: Any, value: Any, by: Any) -> Any:
    """The difference, 0 where it would be negative."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        name = f"llvm.usub.sat.v{value.count}i8"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, kind]), name)
        return builder.call(function, args)

    return value(value, by), generate


@intrinsic
def without(typing_context: Any, value: Any, mask: Any) -> Any:
    """The value, 0 where the mask says so."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.and_(args[0], builder.not_(args[1]))

    return value(value, mask), generate


@intrinsic
def choose(typing_context: Any, mask: Any, value: Any, other: Any) -> Any:
    """The value's bytes where the mask says so, else the other's."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask, value, other = args
        return builder.or_(builder.and_(mask, value), builder.and_(builder.not_(mask), other))

    return value(mask, value, other), generate


@intrinsic
def highest_bits(typing_context: Any, value: Any) -> Any:
    """The highest bit of each lane, as a number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.icmp_signed("<", args[0], _zero(args[0].type))
        return builder.zext(builder.bitcast(bits, ir.IntType(value.count)), PLACE)

    return types.int64(value), generate


@intrinsic
def matches(typing_context: Any, value: Any, ahead: Any, behind: Any) -> Any:
    """How many other lanes hold this one's value: lanes ahead of it in `ahead`, those behind it in `behind`. What it
    holds itself in `behind` must be something else."""
    count = value.count

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, ahead, behind = args
        at_once = 16 // count  # distances that lanes are compared over in one vector
        value, sources = _shuffled(builder, value, value, [*range(count)] * at_once), (ahead, behind)
        if at_once > 1:  # both in one, made of numbers: else LLVM weaves them anew for every distance
            number = ir.IntType(8 * count)
            both = ir.Constant(ir.VectorType(number, 2), ir.Undefined)
            for place, part in enumerate(sources):
                both = builder.insert_element(both, builder.bitcast(part, number), ir.Constant(WORD, place))
            both = builder.bitcast(both, value.type)
            sources = both, both
        total, apart = _zero(value.type), count // at_once
        for distance in range(apart):
            distances = [distance + apart * part for part in range(at_once) for _ in range(count)]
            others = [
                lane % count - by + count * ((by == 0) + 2 * (by > lane % count)) for lane, by in enumerate(distances)
            ]
            total = builder.add(total, _equal(builder, _shuffled(builder, *sources, others), value))
        for first in range(count, 16, count):
            upper = _shuffled(builder, total, total, range(first, first + count))
            total = builder.add(_shuffled(builder, total, total, range(count)), upper)
        return builder.neg(total)

    return value(value, ahead, behind), generate


# -- halves and fours ------------------------------------------------------------------------------
@intrinsic
def lowers(typing_context: Any, value: Any, like: Any) -> Any:
    """The lowest lanes, as many as there are in `like`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffled(builder, args[0], args[0], range(like.count))

    return like(value, like), generate


@intrinsic
def uppers(typing_context: Any, value: Any) -> Any:
    """The upper half of the lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffled(builder, args[0], args[0], range(value.count // 2, value.count))

    return Bytes(value.count // 2)(value), generate


@intrinsic
def joined(typing_context: Any, lower: Any, upper: Any) -> Any:
    """A vector of two halves."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffled(builder, args[0], args[1], range(2 * lower.count))

    return Bytes(2 * lower.count)(lower, upper), generate


@intrinsic
def running_counts(typing_context: Any, mask: Any) -> Any:
    """Of every four lanes: in how many of them, up to this one, the mask is set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        none = _zero(args[0].type)
        total = builder.sub(none, args[0])
        for distance in (1, 2):
            lanes = [lane - distance if lane % 4 >= distance else mask.count for lane in range(mask.count)]
            total = builder.add(total, _shuffled(builder, total, none, lanes))
        return total

    return mask(mask), generate


@intrinsic
def fours_lasts(typing_context: Any, value: Any) -> Any:
    """The last one of every four lanes, in all of them."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffled(builder, args[0], args[0], [lane | 3 for lane in range(value.count)])

    return value(value), generate


# -- pairs of bytes, one of each lane --------------------------------------------------------------
@intrinsic
def firsts(typing_context: Any, pairs: Any) -> Any:
    return _every_other(pairs, 0)


@intrinsic
def seconds(typing_context: Any, pairs: Any) -> Any:
    return _every_other(pairs, 1)


def _every_other(pairs: Any, first: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffled(builder, args[0], args[0], range(first, pairs.count, 2))

    return Bytes(pairs.count // 2)(pairs), generate


@intrinsic
def doubled(typing_context: Any, value: Any) -> Any:
    """A pair of each byte, twice the same."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffled(builder, args[0], args[0], [lane // 2 for lane in range(2 * value.count)])

    return Bytes(2 * value.count)(value), generate


@intrinsic
def pairs(typing_context: Any, first: Any, second: Any) -> Any:
    """Bytes of two vectors in turns."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _woven(builder, list(args))

    return Bytes(2 * first.count)(first, second), generate


@intrinsic
def window(typing_context: Any, array: Any, places: Any, like: Any) -> Any:
    """Of a uint16 array, whose numbers are pairs, each lane's next ones: the first ones of all, the second ones and so
    on. places: int32, where the lanes are in the array."""
    both = Bytes(2 * like.count)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows = []
        for lane in range(like.count):
            home = _address(context, builder, places, args[1], ir.Constant(PLACE, lane))
            place = builder.load_atomic(home, "monotonic", 4)  # which LLVM does not take out of a vector it has stored
            address = _address(context, builder, array, args[0], builder.zext(place, PLACE))
            rows.append(builder.load(builder.bitcast(address, ir.VectorType(HALF, WINDOW).as_pointer()), align=2))
        woven, columns = _woven(builder, rows), []
        for first in range(0, WINDOW * like.count, like.count):
            column = _shuffled(builder, woven, woven, range(first, first + like.count))
            columns.append(builder.bitcast(column, context.get_value_type(both)))
        return context.make_tuple(builder, signature.return_type, columns)

    return types.UniTuple(both, WINDOW)(array, places, like), generate


def _woven(builder: Any, rows: list[Any]) -> Any:
    """The first number of each row, in their order, then the second ones, and so on."""
    if len(rows) == 1:
        return rows[0]
    first, second = _woven(builder, rows[::2]), _woven(builder, rows[1::2])
    count = first.type.count
    return _shuffled(builder, first, second, [lane // 2 + lane % 2 * count for lane in range(2 * count)])


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [place])
