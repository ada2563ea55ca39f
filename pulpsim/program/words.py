"""Rows to machine words and back, by the encodings of the instruction table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.errors import ProgramError
from pulpsim.isa import COLUMNS, Field, Instruction

_UNKNOWN = isa.OP[".word"]
_IMM = COLUMNS.index("imm")


class _Decoder(NamedTuple):
    instruction: Instruction
    match: int
    mask: int
    fields: tuple[tuple[int, Field, bool], ...]  # column, field, whether it names an FP register


def _decoder(instruction: Instruction) -> _Decoder:
    assert instruction.encoding is not None
    floats = {"r" + operand[1:] for operand in instruction.operands if operand[0] == "f"}
    fields = tuple((COLUMNS.index(f.column), f, f.column in floats) for f in instruction.encoding.fields)
    return _Decoder(instruction, instruction.encoding.match, instruction.encoding.mask, fields)


#: of every instruction with an encoding, by operation number
_DECODERS = {row.op: _decoder(row) for row in isa.INSTRUCTIONS if row.encoding}
#: those with the most fixed bits first
_IN_ORDER = sorted(_DECODERS.values(), key=lambda decoder: -decoder.mask.bit_count())[:-1]  # the last takes any word


def encode(rows: NDArray[np.int32], source: str = "<rows>") -> NDArray[np.uint32]:
    """Rows as machine words, uint32. Raises ProgramError if a row has none: it is internal, or does not fit."""
    wide = rows.astype(np.int64)
    words = np.zeros(len(rows), np.int64)
    for op in np.unique(rows[:, 0]).tolist():
        if op not in _DECODERS:
            raise ProgramError(f"{source}: {isa.INSTRUCTIONS[op].mnemonic} has no encoding")
        chosen = wide[:, 0] == op
        words[chosen] = _encode(_DECODERS[op], wide[chosen], source)
    return words.astype(np.uint32)


def _encode(decoder: _Decoder, rows: NDArray[np.int64], source: str) -> NDArray[np.int64]:
    words = np.full(len(rows), decoder.match, np.int64)
    for column, field, _ in decoder.fields:
        values = rows[:, column]
        if field.is_register:
            values = values & 31
        elif decoder.instruction.op == _UNKNOWN:
            values = values & isa.MASK
        low, high = field.limits
        wrong = (values < low) | (values > high)
        if wrong.any():
            first = int(values[np.argmax(wrong)])
            name = decoder.instruction.mnemonic
            raise ProgramError(f"{source}: {field.column} {first} of {name}: {low} to {high}")
        values = values * field.units
        for piece in field.pieces:
            words |= (values >> piece.low & (1 << piece.width) - 1) << piece.at
    return words


def decode(words: NDArray[np.uint32], separate: bool = False) -> NDArray[np.int32]:
    """Machine words as rows, int32 [n, 7]; what is no instruction becomes a `.word`.

    separate: floating-point operands are f registers, not x registers.
    """
    given = words.astype(np.int64)
    rows = np.zeros((len(words), len(COLUMNS)), np.int32)
    rows[:, 0], rows[:, _IMM] = _UNKNOWN, words.view(np.int32)
    left = np.ones(len(words), np.bool_)
    for decoder in _IN_ORDER:
        hits = np.flatnonzero(left & ((given & decoder.mask) == decoder.match))
        if len(hits):
            found, valid = _decode(decoder, given[hits], separate)
            rows[hits[valid]] = found[valid]
            left[hits] = False
    return rows


def _decode(decoder: _Decoder, words: NDArray[np.int64], separate: bool) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Rows of one instruction, and which of them it has."""
    rows = np.zeros((len(words), len(COLUMNS)), np.int32)
    rows[:, 0] = decoder.instruction.op
    valid = np.ones(len(words), np.bool_)
    for column, field, is_float in decoder.fields:
        values = np.zeros(len(words), np.int64)
        for piece in field.pieces:
            values |= (words >> piece.at & (1 << piece.width) - 1) << piece.low
        if field.signed:
            values -= (values >> field.width - 1) << field.width
        valid &= values % field.units == 0
        if is_float and separate:
            values += isa.F0
        rows[:, column] = values // field.units
    if decoder.instruction.rounds:
        modes = rows[:, _IMM]
        valid &= (modes < len(isa.ROUNDING_MODES)) | (modes == isa.DYNAMIC)
    return rows, valid
