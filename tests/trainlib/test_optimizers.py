"""Protects the optimizers: their formulas, what they refuse, rates that change, batches; timed and functional alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pulpsim import Platform
from tests.trainlib import textbook
from tests.trainlib.arrays import Floats, assert_same_bits
from trainlib import functional
from trainlib.errors import DataError, FixedError, ModelError
from trainlib.layers import Add, Conv2D, DepthWise, FullyConnected, PointWise
from trainlib.lowering import schedule as schedules
from trainlib.model import Model
from trainlib.optimizers import SGD, Adam, AdamW, Batch, Cosine, Optimizer, StepDecay, Warmup
from trainlib.trainer import Trainer

#: every kind of optimizer, and of each what its formula hangs on
KINDS: dict[str, Callable[[], Optimizer]] = {
    "sgd": lambda: SGD(0.05),
    "decay": lambda: SGD(0.05, weight_decay=0.01),
    "momentum": lambda: SGD(0.05, 0.9),
    "nesterov": lambda: SGD(0.05, 0.9, 0.01, nesterov=True),
    "adam": lambda: Adam(0.01),
    "adam and decay": lambda: Adam(0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
    "adamw": lambda: AdamW(0.01, weight_decay=0.1),
    "no first moment": lambda: Adam(0.01, betas=(0.0, 0.9)),
}


def network(**options: Any) -> Model:
    """Every kind of layer with parameters, a branch, biases."""
    layers = (
        Conv2D("conv", 1, 4, kernel=3, padding=1, bias=True),
        DepthWise("dw", 4, kernel=3, padding=1, relu=False, bias=True),
        Add("add", inputs=("dw", "conv"), relu=True),
        PointWise("pw", 4, 6, bias=True),
        FullyConnected("fc1", 6 * 30, 12, bias=True),
        FullyConnected("fc2", 12, 5, relu=False, bias=True),
    )
    return Model("net", layers, input_shape=(1, 6, 5), loss="cross-entropy", **options)


def samples(model: Model, count: int) -> list[tuple[Floats, int]]:
    rng = np.random.default_rng(3)
    return [
        (rng.standard_normal(model.input_shape).astype(np.float32), int(rng.integers(model.outputs)))
        for _ in range(count)
    ]


def assert_same_state(one: Trainer, other: Trainer) -> None:
    for first, second in zip(one.parameters, other.parameters, strict=True):
        assert_same_bits(first, second)
    assert one.optimizer.steps == other.optimizer.steps and one.batch.done == other.batch.done
    assert one.optimizer.state.keys() == other.optimizer.state.keys()
    for slot, states in one.optimizer.state.items():
        for name, array in states.items():
            assert_same_bits(array, other.optimizer.state[slot][name], name)


# -- formulas --------------------------------------------------------------------------------------
def exact_step(optimizer: Any, w: Any, g: Any, state: dict[str, Any], t: int) -> Any:
    """By definition, in float64; w after the step, `state` changed in place."""
    lr = float(optimizer.rate)
    if isinstance(optimizer, SGD):
        numbers = lr, optimizer.momentum, optimizer.weight_decay, optimizer.nesterov
        w, state["velocity"] = textbook.sgd(w, g, state.get("velocity", 0.0), *numbers)
        return w
    if isinstance(optimizer, AdamW):
        w = w - lr * optimizer.weight_decay * w
    else:
        g = g + optimizer.weight_decay * w
    before = state.get("mean", 0.0), state.get("square", 0.0)
    state["mean"], state["square"] = textbook.adam_means(g, *before, optimizer.betas)
    return w - textbook.adam_step(state["mean"], state["square"], lr, optimizer.betas, optimizer.eps, t)


@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
def test_an_optimizers_steps_are_its_formula(make: Callable[[], Optimizer]) -> None:
    rng, optimizer, exact_state = np.random.default_rng(0), make(), dict[str, Any]()
    w = rng.standard_normal((7, 5)).astype(np.float32)
    exact = w.astype(np.float64)
    for t in range(1, 9):
        g = (rng.standard_normal(w.shape) * 10.0 ** rng.integers(-4, 2, w.shape)).astype(np.float32)
        exact = exact_step(optimizer, exact, g.astype(np.float64), exact_state, t)
        optimizer.update(0, w, g)
        optimizer.steps += 1
        np.testing.assert_allclose(w, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
def test_pytorch_takes_the_same_steps(make: Callable[[], Optimizer]) -> None:
    torch = pytest.importorskip("torch")
    ours: Any = make()
    theirs_w = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    w = theirs_w.detach().numpy().copy()
    common = {"lr": ours.lr, "weight_decay": ours.weight_decay}
    if isinstance(ours, SGD):
        theirs = torch.optim.SGD([theirs_w], momentum=ours.momentum, nesterov=ours.nesterov, **common)
    else:
        kind = torch.optim.AdamW if isinstance(ours, AdamW) else torch.optim.Adam
        theirs = kind([theirs_w], betas=ours.betas, eps=ours.eps, **common)
    rng = np.random.default_rng(1)
    for _ in range(6):
        g = rng.standard_normal(w.shape).astype(np.float32)
        theirs_w.grad = torch.from_numpy(g.copy())
        theirs.step()
        ours.update(0, w, g)
        ours.steps += 1
        np.testing.assert_allclose(w, theirs_w.detach().numpy(), rtol=1e-5, atol=1e-6)


# -- on the cluster --------------------------------------------------------------------------------
@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
def test_timed_steps_have_the_bits_of_functional_ones(make: Callable[[], Optimizer], accumulate: int) -> None:
    model = network()
    timed = Trainer(model, optimizer=make(), accumulate=accumulate)
    twin = Trainer(model, plan=timed.plan, optimizer=make(), accumulate=accumulate)
    for x, label in samples(model, 2 * accumulate):
        assert timed.timed_step(x, label).loss == twin.functional_step(x, label)
        assert_same_state(timed, twin)
    assert timed.optimizer.steps == 2


@pytest.mark.parametrize("make", [KINDS["sgd"], KINDS["nesterov"], KINDS["adam"]])
@pytest.mark.parametrize("name", ["vectors from L2", "little L1", "updates apart"])
def test_so_they_have_with_other_plans(make: Callable[[], Optimizer], name: str) -> None:
    model, platform = network(), Platform.preset("pulp-2022")
    plan = Trainer(model, optimizer=make()).plan
    if name == "vectors from L2":
        plan = replace(plan, vectors="streamed")
    elif name == "little L1":
        platform = platform.replace({"l1.size_bytes": 12 << 10})
        plan = Trainer(model, platform, optimizer=make()).plan
    else:
        steps = []
        for step in plan.steps:
            parts = step.step.split("+")
            kernel = {} if "update" not in parts else {"resident": ""}
            steps += [replace(step, step=part, **kernel) for part in parts]
        steps = [replace(s, kernel="", unroll=1, resident="") if s.step == "update" else s for s in steps]
        plan = replace(plan, steps=tuple(steps))
    timed, twin = (Trainer(model, platform, plan, optimizer=make()) for _ in range(2))
    for x, label in samples(model, 2):
        assert timed.timed_step(x, label).loss == twin.functional_step(x, label)
        assert_same_state(timed, twin)


@pytest.mark.parametrize("make", [KINDS["sgd"], KINDS["momentum"], KINDS["adamw"]])
def test_a_rate_that_changes_every_step_compiles_nothing(
    make: Callable[[], Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    timed, twin = Trainer(model, optimizer=make()), Trainer(model, optimizer=make())
    before = [timed.timed_step(x, label).cycles for x, label in samples(model, 1)]
    twin.functional_step(*samples(model, 1)[0])
    monkeypatch.setattr(schedules, "_assemble", lambda *rest: pytest.fail("a schedule is compiled again"))
    for number, (x, label) in enumerate(samples(model, 4)):
        timed.lr = twin.lr = 0.01 / (1 + number)
        report = timed.timed_step(x, label)
        assert report.loss == twin.functional_step(x, label) and report.cycles in before
        assert_same_state(timed, twin)


def test_a_schedule_is_followed_step_by_step() -> None:
    model, rates = network(), Warmup(2, StepDecay(0.1, 0.5, 2))
    scheduled, by_hand = Trainer(model, lr=rates), Trainer(model)
    for number, (x, label) in enumerate(samples(model, 5)):
        by_hand.lr = rates.rate(number)
        assert scheduled.functional_step(x, label) == by_hand.functional_step(x, label)
    for one, other in zip(scheduled.parameters, by_hand.parameters, strict=True):
        assert_same_bits(one, other)


# -- batches ---------------------------------------------------------------------------------------
def test_a_batch_is_a_step_by_the_mean_gradient() -> None:
    model = network()
    parameters, lessons = model.initial_parameters(), samples(model, 3)
    total = [np.zeros(shape) for shape in model.parameter_shapes]
    for x, label in lessons:
        for slot, gradient in functional.gradients(model, parameters, x, label)[1].items():
            total[slot] += gradient / 3
    trainer = Trainer(model, lr=0.1, accumulate=3)
    for number, (x, label) in enumerate(lessons):
        trainer.functional_step(x, label)
        changed = any((w != old).any() for w, old in zip(trainer.parameters, parameters, strict=True))
        assert changed == (number == 2)
    for w, old, gradient in zip(trainer.parameters, parameters, total, strict=True):
        np.testing.assert_allclose(w, old - 0.1 * gradient, rtol=1e-5, atol=1e-6)


def test_a_batchs_report_tells_the_steps_apart() -> None:
    model = network()
    trainer = Trainer(model, accumulate=4)
    lessons = samples(model, 4)
    report = trainer.timed_batch([x for x, _ in lessons], [0] * 4)
    assert len(report.steps) == 4 and report.cycles == sum(step.cycles for step in report.steps)
    assert report.steps[1].cycles == report.steps[2].cycles == report.accumulating.cycles
    assert report.accumulating.cycles < report.updating.cycles
    assert report.cycles_per_sample == report.cycles / 4
    assert trainer.optimizer.steps == 1
    with pytest.raises(DataError, match="3 samples and 3 targets: a batch is of 4"):
        trainer.timed_batch([x for x, _ in lessons[:3]], [0] * 3)


# -- trained parts ---------------------------------------------------------------------------------
@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize("vectors", ["resident", "streamed"])
def test_biases_alone_are_trained_at_less_cost(make: Callable[[], Optimizer], vectors: str) -> None:
    model = network()
    biases = model.biases_only()
    plan = replace(Trainer(biases, optimizer=make()).plan, vectors=vectors)
    timed, twin = (Trainer(biases, plan=plan, optimizer=make()) for _ in range(2))
    before, everything = [w.copy() for w in twin.parameters], Trainer(model, optimizer=make())
    for x, label in samples(model, 2):
        report = timed.timed_step(x, label)
        assert report.loss == twin.functional_step(x, label)
        assert_same_state(timed, twin)
    names = [name for layer in model.layers for name in layer.parameters]
    for name, w, old in zip(names, twin.parameters, before, strict=True):
        assert (w != old).any() == (name == "b")
    whole = everything.timed_step(*samples(model, 1)[0])
    assert report.cycles < whole.cycles and report.l2_bytes <= whole.l2_bytes
    assert report.trained == model.parametric


def test_a_network_without_biases_cannot_train_them() -> None:
    with pytest.raises(ModelError, match="net: no layer has a bias: there would be nothing to train"):
        Model("net", (FullyConnected("fc", 3, 2, relu=False),)).biases_only()


# -- slips -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.1, nesterov=True), "SGD: nesterov = True: needs a momentum"),
        (lambda: Adam(0), "Adam: lr = 0: must be a positive number, one that FP32 holds"),
        (lambda: Adam(betas=0.9), "Adam: betas = 0.9: must be two numbers, as in (0.9, 0.999)"),
        (lambda: AdamW(betas=(0.9, 1.0)), "AdamW: betas = 1.0: must be at least 0 and below 1"),
        (lambda: Adam(eps=1e-20), "Adam: eps = 1e-20: must be at least 1.4e-11 and a number that FP32 holds"),
        (lambda: Adam(weight_decay=-1), "Adam: weight_decay = -1: must be at least 0 and a number that FP32 holds"),
        (lambda: Cosine(0.1, 0, 5), "Cosine: last = 0: must be a positive number"),
        (lambda: StepDecay(0.1, 0.5, 0), "StepDecay: every = 0: must be a whole number, at least 1"),
        (
            lambda: Trainer("tutorial_cnn", accumulate=0),
            "accumulate = 0: must be a whole number of samples, at least 1",
        ),
        (
            lambda: Trainer("tutorial_cnn", lr=0.5, optimizer=SGD(0.1)),
            "lr, momentum and weight_decay are those of SGD: SGD(lr=0.1, momentum=0.0, weight_decay=0.0, "
            "nesterov=False) is given with its own",
        ),
        (
            lambda: Trainer("tutorial_cnn", optimizer="adam"),
            "optimizer = 'adam': must be one of trainlib.optimizers, as SGD(0.03), or None",
        ),
    ],
)
def test_a_slip_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        make()
    assert str(caught.value) == message


def test_only_the_rate_of_an_optimizer_may_be_set() -> None:
    optimizer = SGD(0.1, 0.9)
    optimizer.lr = Cosine(0.1, 0.01, 100)
    with pytest.raises(ModelError, match="SGD: lr = -1: must be a positive number"):
        optimizer.lr = -1
    with pytest.raises(FixedError, match="momentum of SGD is compiled in: make a new one"):
        optimizer.momentum = 0.5


def test_a_batch_of_one_is_no_batch() -> None:
    batch = Batch()
    gradient = np.ones(3, np.float32)
    assert batch.part == "alone" and batch.take(0, gradient) is gradient and batch.advance() and not batch.sums
