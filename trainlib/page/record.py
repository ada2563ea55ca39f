"""The record of a run, report.json: every key, its unit and its meaning; and how one is read back.

`docs/reference/report.md` and `report.schema.json` are written from here. Keys that a record may be without are None
here; keys that are not known here are passed over, so that older programs read what newer ones add.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from pulpsim.console import InputError

#: the first key of every record; another number is another meaning of some key
SCHEMA = "trainlib.report/1"
#: what a folder of --out has it in
FILE = "report.json"
#: beyond which floats no longer hold every whole number
MOST = 1 << 53

Count = Annotated[int, Meta(ge=0, le=MOST)]
Positive = Annotated[int, Meta(ge=1, le=MOST)]
Real = Annotated[float, Meta(ge=-1e18, le=1e18)]
Band = tuple[Real, Real]


def said(description: str, unit: str = "") -> Meta:
    """What a key means, and the unit of its numbers."""
    return Meta(description=description, extra={"unit": unit}, extra_json_schema={"x-unit": unit} if unit else None)


class Phase(Struct, kw_only=True):
    """One step of one layer: what it did between its first cycle and its last one."""

    layer: Annotated[str, said("the layer's name")]
    step: Annotated[str, said("fw: forward; ig, wg: gradients of its input and of its weights; update; joined by +")]
    cycles: Annotated[Count, said("of the cluster", "cycles")]
    macs: Annotated[Count, said("multiplications that are added up", "MAC")]
    dma_bytes_in: Annotated[Count, said("moved from L2 to L1", "bytes")]
    dma_bytes_out: Annotated[Count, said("moved from L1 to L2", "bytes")]
    kernel: Annotated[str, said("programs that ran, with commas between")]
    tile: Annotated[dict[str, int], said("what is in L1 at once, by dimension")]
    buffering: Annotated[str, said("double: transfers of other tiles overlap a tile's computation; or single")]
    instructions: Annotated[Count, said("of all cores", "instructions")]
    bound: Annotated[str, said("which resource limits it: the largest of `bounds`")]
    bound_cycles: Annotated[Count, said("what that resource takes at least", "cycles")]
    bounds: Annotated[dict[str, Count], said("what each resource takes at least, were it never to wait", "cycles")]
    causes: Annotated[
        dict[str, Count], said("cycles of all cores by cause; their sum is cycles x cores", "core cycles")
    ]
    microjoules: Annotated[Band | None, said("lowest and highest; null without power figures", "µJ")] = None
    causes_by_core: Annotated[
        dict[str, list[Count]] | None, said("by cause, a number a core; causes without cycles are left out", "cycles")
    ] = None


class Place(Struct, array_like=True):
    """Bytes of a memory that hold something for some cycles; in the record a list of these, in this order."""

    name: Annotated[str, said("of the buffer or tensor")]
    address: Annotated[Count, said("of its first byte")]
    size_bytes: Annotated[Count, said("its size", "bytes")]
    begin: Annotated[Count, said("from which on it holds that", "cycle of the step")]
    end: Annotated[Count, said("in which it no longer does", "cycle of the step")]
    holds: Annotated[str, said("what kind of thing it is: parameters, gradients, buffers, code ...")] = ""
    of: Annotated[str, said("the tensor that it is a part of; empty: of none")] = ""


class Memory(Struct, kw_only=True):
    """L1 or L2, and what lies there when."""

    size_bytes: Annotated[Positive, said("that it has", "bytes")]
    address: Annotated[Count, said("of its first byte")]
    columns: Annotated[list[str], said("what the numbers of a row are")]
    rows: Annotated[list[Place], said("a row a buffer or tensor and life")]


class Activity(Struct, kw_only=True):
    """What moved and how many cores ran, in equal parts of the step."""

    bin_cycles: Annotated[float, Meta(gt=0, le=1e18), said("the length of a part", "cycles")]
    dma_in_bytes: Annotated[list[Count], Meta(min_length=1), said("moved from L2 to L1, by part", "bytes")]
    dma_out_bytes: Annotated[list[Count], said("moved from L1 to L2, by part", "bytes")]
    compute: Annotated[list[Annotated[float, Meta(ge=0, le=1.001)]], said("share of the cores that run, by part")]


class Batch(Struct, kw_only=True):
    """The steps of a batch, where gradients of several samples are added up."""

    samples: Annotated[Positive, said("of a batch", "samples")]
    accumulating_cycles: Annotated[Count, said("of a step that adds up gradients", "cycles")]
    updating_cycles: Annotated[Count, said("of the last one, which updates", "cycles")]
    cycles: Annotated[Count, said("of all steps", "cycles")]
    cycles_per_sample: Annotated[Real, said("their mean", "cycles")]


class Evaluation(Struct, kw_only=True):
    """How good the network is on the validation samples."""

    samples: Annotated[Count, said("evaluated", "samples")]
    loss: Annotated[Real, said("the mean")]
    accuracy: Annotated[Real | None, said("of classifiers: the share that is right")] = None
    per_class: Annotated[dict[str, Real] | None, said("likewise by class")] = None
    confusion: Annotated[list[list[Count]] | None, said("a row a true class: how often each class was said")] = None
    auc: Annotated[Real | None, said("of detectors: area under the curve, mean over machines")] = None
    partial_auc: Annotated[Real | None, said("likewise over the first tenth of false alarms")] = None
    by_machine: Annotated[dict[str, tuple[Real, Real]] | None, said("both of each machine")] = None

    @property
    def score(self) -> tuple[str, float]:
        """What is compared, by name."""
        named = {"right classes": self.accuracy, "AUC": self.auc, "loss": self.loss}
        return next((name, value) for name, value in named.items() if value is not None)


class Epoch(Struct, kw_only=True):
    """All training samples once, or what the run's steps left of that."""

    epoch: Annotated[Count, said("its number, from 0")]
    samples: Annotated[Count, said("learned from", "samples")]
    loss: Annotated[Real, said("mean over its samples, each before its step")]
    rate: Annotated[Real, said("learning rate of its last step")]
    score: Annotated[Real | None, said("of the validation: share of right classes, area, or loss")] = None
    validation: Annotated[Evaluation | None, said("after it; null with --no-validate")] = None


class Run(Struct, kw_only=True):
    """What all steps together take on the device."""

    samples: Annotated[Count, said("learned from, a step each", "samples")]
    cycles: Annotated[Count, said("of all steps, and of what was stored for replay", "cycles")]
    milliseconds: Annotated[Real, said("likewise", "ms")]
    microjoules: Annotated[Band | None, said("lowest and highest; null without power figures", "µJ")]
    parameter_bytes: Annotated[Count, said("of all parameters", "bytes")]
    working_bytes: Annotated[int, said("of values, gradients and programs in L2", "bytes")]
    optimizer_bytes: Annotated[Count, said("of the optimizer's states", "bytes")]
    stored_bytes: Annotated[Count, said("of frozen layers' outputs, stored for replay", "bytes")]
    l2_bytes: Annotated[Count, said("that L2 has", "bytes")]


class Value(Struct, kw_only=True):
    """One number of the platform."""

    key: Annotated[str, said("as `--set` takes it")]
    value: Annotated[Any, said("a number, a text, true or false, or the lowest and the highest figure")]
    source: Annotated[str, said("where it comes from, or that it is assumed; empty where that is not known")] = ""


class PlannedStep(Struct, kw_only=True):
    """A step of a layer as the plan has it; see `trainlib.plan.LayerStep`."""

    layer: Annotated[str, said("the layer's name")]
    step: Annotated[str, said("as in `phases`")]
    tile: Annotated[dict[str, int], said("rows, columns, padding, lines")]
    unroll: Annotated[int, said("rows or columns that a block of a kernel takes")] = 1
    kernel: Annotated[str, said("of layers that have several")] = ""
    buffering: Annotated[str, said("double or single")] = "double"
    resident: Annotated[str, said("which operand's tiles stay while the other's pass by")] = ""
    relu: Annotated[str, said("fused or separate")] = "fused"


class Planned(Struct, kw_only=True):
    """The plan that ran, as in plan.json."""

    steps: Annotated[list[PlannedStep], said("forward in layer order, then backward")]
    stores: Annotated[str, said("overlapped or awaited")] = "overlapped"
    loss_tile: Annotated[int, said("numbers that the loss takes at once; 0: all")] = 0
    vectors: Annotated[str, said("resident or streamed")] = "resident"
    cores: Annotated[int, said("that share the work; 0: all")] = 0
    made_by: Annotated[str, said("the command that found it")] = ""


class Made(Struct, kw_only=True):
    """How to reproduce it."""

    command: Annotated[str, said("as it was typed")]
    versions: Annotated[dict[str, str], said("of pulpsim, Python, NumPy and Numba")]
    seed: Annotated[int, said("of weights, orders and variations")]
    plan_file: Annotated[str | None, said("that --plan gave")] = None
    content: Annotated[
        str, said("a digest of the step: programs, arguments, transfers. Equal ones take equal cycles on a platform")
    ] = ""


class Kernel(Struct, kw_only=True):
    """A program that ran in the step."""

    kernel: Annotated[str, said("its name")]
    where: Annotated[list[str], Meta(min_length=1), said("layers and steps that it ran in")]
    cycles: Annotated[Positive, said("of its instructions", "core cycles")]
    executed: Annotated[Count, said("of all cores", "instructions")]
    causes: Annotated[dict[str, Count], said("cycles by cause; their sum is `cycles`", "core cycles")]


class HotLoop(Struct, kw_only=True):
    """A loop of a program, without the loops inside it."""

    loop: Annotated[str, said("its first instruction, from the nearest label on")]
    program: Annotated[str, said("the kernel that it is in")]
    where: Annotated[str, said("layers and steps that it ran in")] = ""
    cycles: Annotated[Count, said("of all cores", "core cycles")]
    share: Annotated[Real, said("of all cycles of the step")]
    turns: Annotated[Count, said("of all cores", "turns")]
    cycles_per_turn: Annotated[Real, said("the mean", "cycles")]
    instructions_per_turn: Annotated[Real, said("the mean", "instructions")]
    bound: Annotated[str, said("what limits a turn: issue, load-use, banks or FPUs")]
    bound_cycles: Annotated[Real, said("what that takes at least", "cycles")]
    loss: Annotated[str, said("the cause that takes most beyond it; empty: none that matters")]
    remedy: Annotated[str, said("what would make it faster")]


class Listed(Struct, kw_only=True):
    """An instruction."""

    text: Annotated[str, said("as it was written")]
    labels: Annotated[list[str], said("that stand before it")] = []
    issues: Annotated[Count, said("how often all cores executed it", "instructions")]
    cycles: Annotated[Count, said("of all cores", "core cycles")]
    depth: Annotated[int, Meta(ge=0, le=1000), said("loops that it is in")] = 0
    loop: Annotated[str, said("the innermost of them")] = ""


class Listing(Struct, kw_only=True):
    """The instructions of a kernel that ran."""

    kernel: Annotated[str, said("its name")]
    rows: Annotated[list[Listed], said("in order")]


class Profile(Struct, kw_only=True):
    """The step by instruction; `trainlib profile` has all of it."""

    counted: Annotated[Count, said("cycles that belong to an instruction", "core cycles")]
    outside: Annotated[dict[str, Count], said("cycles that belong to none, by cause", "core cycles")]
    kernels: Annotated[list[Kernel], said("the longest first")]
    loops: Annotated[list[HotLoop], said("the hottest ones")]
    listings: Annotated[list[Listing], said("of the longest kernels")]


class Found(Struct, kw_only=True):
    """What the checker found (--check)."""

    kind: Annotated[str, said("of what is wrong")]
    text: Annotated[str, said("where, who, what, and the other party")]
    count: Annotated[Count, said("how often")] = 1


class Record(Struct, kw_only=True):
    """A run: one training step, cycle by cycle, and what was learned in all of them."""

    schema: Annotated[str, said(f"`{SCHEMA}`; records of before there was one are without")] = ""
    model: Annotated[str, said("the network's name")]
    platform: Annotated[str, said("the platform's name")]
    clock_hz: Annotated[Positive, said("of the cluster", "Hz")]
    cores: Annotated[int, Meta(ge=1, le=1024), said("of the cluster")]
    cycles: Annotated[Positive, said("of the step, of the cluster", "cycles")]
    milliseconds: Annotated[Real, said("of the step", "ms")]
    macs: Annotated[Count, said("of the step", "MAC")]
    macs_per_cycle: Annotated[Real, said("of the step", "MAC/cycle")]
    lower_bound_cycles: Annotated[Count, said("that no plan goes below", "cycles")]
    issue_bound_cycles: Annotated[Count, said("that this plan does not go below", "cycles")]
    dma_bytes_in: Annotated[Count, said("moved from L2 to L1", "bytes")]
    dma_bytes_out: Annotated[Count, said("moved from L1 to L2", "bytes")]
    l1_bytes: Annotated[Count, said("of L1 that are in use, stacks not counted", "bytes")]
    l2_bytes: Annotated[Count, said("of L2 that are in use", "bytes")]
    trained: Annotated[list[str] | None, said("layers whose parameters the step changes")] = None
    microjoules: Annotated[Band | None, said("of the step, lowest and highest; null without power figures", "µJ")] = (
        None
    )
    microjoules_by_part: Annotated[dict[str, Band] | None, said("by cores, memories, dma, background", "µJ")] = None
    causes: Annotated[
        dict[str, Count], said("cycles of all cores by cause; their sum is cycles x cores", "core cycles")
    ]
    phases: Annotated[list[Phase], Meta(min_length=1), said("in order; their cycles add up")]
    memory: Annotated[dict[str, Memory] | None, said("l1 and l2: what lies there when")] = None
    activity: Annotated[Activity | None, said("DMA and cores over time")] = None
    data: Annotated[str | None, said("what was learned from")] = None
    steps: Annotated[Count | None, said("of a run in steps", "steps")] = None
    lr: Annotated[Real | None, said("its learning rate")] = None
    loss: Annotated[list[Real] | None, said("of each step's sample, before the step")] = None
    held_out_loss: Annotated[Band | None, said("mean over samples not learned from, before and after")] = None
    held_out_accuracy: Annotated[Band | None, said("share of right classes on them, before and after")] = None
    batch: Annotated[Batch | None, said("of a run with --accumulate")] = None
    standardised_by: Annotated[str | None, said("whose mean and deviation standardise samples")] = None
    epochs: Annotated[list[Epoch] | None, said("of a run in epochs, in order")] = None
    before: Annotated[Evaluation | None, said("of the validation samples, before the first step")] = None
    after: Annotated[Evaluation | None, said("likewise after the last one")] = None
    run: Annotated[Run | None, said("what all steps take on the device")] = None
    plan: Annotated[str | None, said("where the plan comes from")] = None
    plan_values: Annotated[Planned | None, said("the plan that ran")] = None
    platform_values: Annotated[list[Value] | None, said("every number of the platform, and its source")] = None
    made: Annotated[Made | None, said("how to reproduce it")] = None
    profile: Annotated[Profile | None, said("the step by instruction (--profile)")] = None
    findings: Annotated[list[Found] | None, said("what the checker found (--check); null: it did not look")] = None
    notes: Annotated[list[str] | None, said("what the network is otherwise than its file")] = None

    def number(self, key: str) -> float | None:
        """A number of the platform; None where the record has none."""
        found = next((value.value for value in self.platform_values or () if value.key == key), None)
        return found if isinstance(found, int | float) and 0 <= found <= MOST else None


# -- reading -----------------------------------------------------------------------------------
def read(path: str) -> Record:
    """The record of a folder that --out has written, or of its report.json. Raises InputError."""
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        accepted = "must be a folder that `trainlib train --out` has written, or its report.json"
        raise InputError(
            f"{path}: there is no {file.name if file != Path(path) else 'such file'}: {accepted}"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return decode(data, str(file))


class _Version(Struct):
    """What is read first."""

    schema: str = ""


def decode(data: bytes, name: str) -> Record:
    """Raises InputError, which names the file, for what is no record or one of another schema."""
    try:
        version = msgspec.json.decode(data, type=_Version).schema
        if version not in ("", SCHEMA):
            raise InputError(f"{name}: its schema is {version[:40]!r}: this version of trainlib reads {SCHEMA}")
        record = msgspec.json.decode(data, type=Record)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: not the record of a run: {error}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InputError(f"{name}: not a whole record: {error}") from None
    for fault in _faults(record):
        raise InputError(f"{name}: not the record of a run: {fault}")
    return record


def _faults(record: Record) -> Iterator[str]:
    """What the types do not say."""
    for place, phase in enumerate(record.phases):
        for cause, cycles in (phase.causes_by_core or {}).items():
            if len(cycles) != record.cores:
                what = f"has {len(cycles)} numbers, of {record.cores} cores"
                yield f"`$.phases[{place}].causes_by_core`: {cause!r} {what}"
    if (activity := record.activity) is not None:
        lengths = {len(activity.dma_in_bytes), len(activity.dma_out_bytes), len(activity.compute)}
        if len(lengths) > 1:
            yield f"`$.activity`: lists of different lengths, {sorted(lengths)}"
