"""Protects certificates: a true one is confirmed, whatever is forged in one is found, and nothing known is trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from autotuner import verify as module
from autotuner.certificate import FILE, Certificate, CertificateError, certificate_of
from autotuner.cli import record
from autotuner.goal import Goal
from autotuner.layer_spec import parse
from autotuner.measure import SKEWS, Meter
from autotuner.points import Points
from autotuner.search import CLOSE, Found, Infeasible, search
from autotuner.space import candidates
from autotuner.tuning import TuningError, jobs_of, tune
from autotuner.verify import Checked, Verified, check_step, verify
from pulpsim import Machine
from pulpsim.console import json_file
from pulpsim.platform import Platform
from trainlib.errors import ModelError, PlanError
from trainlib.layers import FullyConnected, PointWise
from trainlib.lowering.schedule import compile_step
from trainlib.model import Model
from trainlib.plan import LayerStep
from trainlib.timing import Relaxed, cycles_of

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 256 << 10})
LAYERS = PointWise("a", 2, 2), PointWise("b", 2, 2), FullyConnected("fc", 8, 2, relu=False)
SMALL = Model("small", LAYERS, input_shape=(2, 2, 2))
#: enough for every candidate of a step of SMALL
ALL = 1000
#: a step whose space is forged, and where it is
STEP, INDEX = "fc fw", 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the plan and the certificate of a whole search."""
    tuned, folder = tune(SMALL, PLATFORM, 1, None), tmp_path_factory.mktemp("tuned")
    assert tuned.plan is not None
    (folder / "plan.json").write_text(tuned.plan.to_json())
    (folder / FILE).write_bytes(json_file(record(tuned, SMALL, PLATFORM)))
    return folder


@pytest.fixture
def forge(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the certificate with other fields, or of one step alone, which bounds no plan, with others of that."""

    def write(of: str = "", /, **changes: Any) -> Path:
        content = json.loads((folder / FILE).read_text())
        (content["steps"][of] if of else content).update(changes)
        content |= {"steps": {of: content["steps"][of]}, "bound": 0} if of else {}
        path = tmp_path / "forged.json"
        path.write_text(json.dumps(content))
        return path

    return write


def verified(folder: Path, certificate: Path | None = None, **options: Any) -> Verified:
    return verify(folder / "plan.json", certificate, SMALL, PLATFORM, **{"samples": 0} | options)


def claimed(folder: Path) -> Found:
    """Of STEP."""
    outcome = Certificate.load(folder / FILE).steps[STEP]
    assert isinstance(outcome, Found)
    return outcome


def counted(step: LayerStep) -> tuple[tuple[int, ...], int]:
    """The cycles of a step of `fc` with every skew, and what it takes at least."""
    schedule = compile_step(SMALL, INDEX, step, PLATFORM)
    skews = (skew[: PLATFORM.cluster.cores] for skew in SKEWS)
    return tuple(cycles_of(schedule, PLATFORM, skew) for skew in skews), Relaxed(PLATFORM).cycles(schedule)


def claims_of(step: LayerStep) -> dict[str, Any]:
    """What is true of a step, but that nothing is faster."""
    cycles, bound = counted(step)
    return {"step": asdict(step), "cycles": cycles, "least": cycles[0], "bound": bound, "proven": True}


# -- what is true ----------------------------------------------------------------------------------
def test_a_true_certificate_is_confirmed(folder: Path) -> None:
    found = verified(folder, samples=10)
    assert (found.refuted, found.remarks, found.missing) == ((), (), 0)
    assert sum(found.cycles) / len(SKEWS) == found.claimed_cycles
    assert set(found.steps) == {
        f"{SMALL.layers[index].name} {step}" for jobs in jobs_of(SMALL).values() for index, step in jobs
    }
    for name, one in found.steps.items():
        assert isinstance(one.claimed, Found) and one.claimed.proven and one.claimed.step.layer == name.split()[0]
        assert (one.cycles, one.bound, one.space) == (one.claimed.cycles, one.claimed.bound, one.claimed.space)
        assert one.samples == min(10, one.space) and one.unfit == one.faster == 0
        assert one.claimed.least <= one.fastest


def test_samples_of_a_whole_space_find_its_least_count(folder: Path, forge: Callable[..., Path]) -> None:
    for step in ("fw", "ig", "update"):
        (one,) = verified(folder, forge(f"fc {step}"), samples=ALL).steps.values()
        assert one.samples == one.space == sum(1 for _ in candidates(SMALL, INDEX, step))
        assert isinstance(one.claimed, Found) and one.fastest == one.claimed.least and not one.refuted


def test_any_number_of_workers_finds_the_same(folder: Path, forge: Callable[..., Path]) -> None:
    steps = json.loads((folder / FILE).read_text())["steps"]
    forged = forge(steps=steps | {STEP: steps[STEP] | {"least": 1}})
    one = verified(folder, forged, samples=3)
    assert one.refuted and one == verified(folder, forged, samples=3, workers=2)


def test_another_seed_draws_other_samples(folder: Path, forge: Callable[..., Path]) -> None:
    forged = forge("fc ig")
    one, again, other = (verified(folder, forged, samples=4, seed=seed).steps for seed in (1, 1, 2))
    assert one == again != other


def test_nothing_that_is_known_is_used_and_another_engine_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def known(*arguments: object) -> None:
        raise AssertionError("what a search knows was asked for")

    engines = []

    def machine(platform: Platform, engine: Any) -> Machine:
        engines.append(engine)
        return Machine(platform, engine)

    monkeypatch.setattr(Meter, "cycles", known)
    monkeypatch.setattr(Points, "get", known)
    monkeypatch.setattr(Points, "result", known)
    monkeypatch.setattr(module, "Machine", machine)
    assert verified(folder, samples=1).refuted == ()
    assert set(engines) == {"jit"} and len(engines) >= len(SKEWS) + 5 * len(LAYERS)


def test_a_search_that_was_cut_short_is_confirmed_with_what_it_has(folder: Path, forge: Callable[..., Path]) -> None:
    steps = json.loads((folder / FILE).read_text())["steps"]
    found = verified(folder, forge(complete=False, bound=0, steps={STEP: steps[STEP]}))
    assert found.refuted == () and list(found.steps) == [STEP] and found.missing == len(steps) - 1
    assert found.remarks == (
        "the search was interrupted", f"{found.missing} steps of the network are not in the certificate",
    )  # fmt: skip


def test_another_version_is_told_of_and_the_numbers_decide(folder: Path, forge: Callable[..., Path]) -> None:
    found = verified(folder, forge(engine_version="0" * 64))
    (remark,) = found.remarks
    assert found.refuted == () and remark.startswith("made by another version of the engine, 000000000000, now ")


def test_a_plan_for_less_l1_is_checked_within_that(tmp_path: Path) -> None:
    """With all of L1 something is faster than what was found."""
    model = Model("wide", (FullyConnected("fc", 24, 16, relu=False),))
    goal, size = Goal.of(memory=1024), PLATFORM.l1.size_bytes
    tuned = tune(model, PLATFORM, 1, None, goal=goal, parts=("fw",))
    less = goal.within(PLATFORM).l1.size_bytes
    assert tuned.plan is not None and tuned.l1_bytes <= 1024 and less < size
    (tmp_path / "plan.json").write_text(tuned.plan.to_json())
    claims = record(tuned, model, PLATFORM)
    for searched, whole in ((less, False), (size, True)):
        (tmp_path / FILE).write_bytes(json_file(claims | {"searched_l1_bytes": searched}))
        found = verify(tmp_path / "plan.json", None, model, PLATFORM, samples=ALL)
        told = f"steps were searched with {less:,} of {size:,} bytes of L1" in found.remarks
        assert (bool(found.refuted), found.steps["fc fw"].unfit == 0, told) == (whole, whole, not whole)


# -- what is forged --------------------------------------------------------------------------------
def test_a_winner_that_takes_more_is_found(folder: Path, forge: Callable[..., Path]) -> None:
    one = claimed(folder)
    cycles = tuple(count - 1 for count in one.cycles)
    found = verified(folder, forge(STEP, cycles=cycles))
    texts = [" ".join(f"{count:,}" for count in each) for each in (cycles, one.cycles)]
    assert found.refuted == (f"{STEP}: the winner's cycles {texts[0]} are claimed, {texts[1]} are found",)


def test_a_winner_that_cannot_run_is_found(folder: Path, forge: Callable[..., Path]) -> None:
    step = asdict(claimed(folder).step)
    (refuted,) = verified(folder, forge(STEP, step=step | {"unroll": 3})).refuted
    assert refuted.startswith(f"{STEP}: the winner does not run: ")


def test_a_space_of_another_size_is_found(folder: Path, forge: Callable[..., Path]) -> None:
    space = claimed(folder).space
    refuted = verified(folder, forge(STEP, space=space + 1)).refuted
    assert refuted == (f"{STEP}: a space of {space + 1:,} candidates is claimed, {space:,} are found",)


def test_a_bound_above_what_is_found_is_found(folder: Path, forge: Callable[..., Path]) -> None:
    one = claimed(folder)
    refuted = verified(folder, forge(STEP, bound=one.cycles[0] + 1)).refuted
    assert refuted == (f"{STEP}: the winner's bound {one.cycles[0] + 1:,} is claimed, {one.bound:,} is found",)


def test_a_bound_that_is_none_is_found(
    folder: Path, forge: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if a search and a check agree on it."""
    bound = max(claimed(folder).cycles) + 1
    monkeypatch.setattr(Meter, "least", lambda meter, schedule: bound)
    refuted = verified(folder, forge(STEP, bound=bound)).refuted
    assert f"{STEP}: the winner's bound {bound:,} is above its {min(claimed(folder).cycles):,} cycles" in refuted


@pytest.mark.parametrize("more", [1, -1])
def test_a_least_count_that_the_winner_does_not_go_with_is_found(
    folder: Path, forge: Callable[..., Path], more: int
) -> None:
    """It is below it, or no longer close."""
    cycles = claimed(folder).cycles[0]
    least = cycles + 1 if more > 0 else cycles - cycles // (CLOSE // 2)
    (refuted,) = verified(folder, forge(STEP, least=least)).refuted
    assert refuted.startswith(f"{STEP}: the least count {least:,} is claimed, the winner's {cycles:,} is ")


def slowest() -> LayerStep:
    return max(candidates(SMALL, INDEX, "fw"), key=lambda step: counted(step)[0][0])


def test_samples_find_that_something_is_faster(folder: Path, forge: Callable[..., Path]) -> None:
    """All that is claimed of the winner itself is true."""
    claims = claims_of(slowest())
    forged = forge(STEP, **claims)
    assert verified(folder, forged).refuted == ()
    refuted = verified(folder, forged, samples=ALL).refuted
    assert refuted and all(f"cycles, the least count {claims['least']:,} is claimed" in line for line in refuted)
    assert all(line.startswith(f"{STEP}: ") for line in refuted)


def test_where_nothing_is_proven_a_faster_sample_is_told_of_only(folder: Path, forge: Callable[..., Path]) -> None:
    found = verified(folder, forge(STEP, **claims_of(slowest()) | {"proven": False}), samples=ALL)
    one = found.steps[STEP]
    assert found.refuted == () and 0 < one.faster < one.samples
    assert found.remarks[-1] == f"{STEP}: {one.faster} of {one.samples} samples are faster: not proven"


def test_of_those_that_are_close_a_lower_mean_is_found() -> None:
    """Of two updates with the same least count claimed, whose means alone differ."""
    model, job = parse("LINEAR 20 10"), (1, "update")
    with Points(None) as points:
        meter = Meter(PLATFORM, points)
        found = search(model, *job, meter)
        assert isinstance(found, Found) and found.close == 2

        def counted(step: LayerStep) -> tuple[int, ...]:
            return meter.all_cycles(compile_step(model, 1, step, PLATFORM))

        close = [step for step in candidates(model, *job) if counted(step)[0] <= found.least + found.least // CLOSE]
        (other,) = (step for step in close if step != found.step)
        cycles, bound = counted(other), meter.least(compile_step(model, 1, other, PLATFORM))
        claims = msgspec.structs.replace(found, step=other, cycles=cycles, bound=bound)
        for claim, faster in ((found, 0), (claims, 1)):
            one = check_step(meter, model, job, claim, "resident", ALL, 0)
            assert (one.faster, len(one.refuted)) == (faster, faster)
    told = f"takes {found.mean:,.2f} cycles, mean over start skews, the winner {claims.mean:,.2f}"
    assert found.mean < claims.mean and one.refuted[0].endswith(told)


@pytest.mark.parametrize(
    ("bound", "told"),
    [("tile_bounds", "its tile's bound"), ("busy_cycles", "its shape's bound"), ("tile_bytes", "bytes of its tile")],
)
def test_bounds_that_exclude_too_much_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bound: str, told: str
) -> None:
    monkeypatch.setattr(module, bound, lambda *arguments: (10**6, 0) if bound == "tile_bounds" else 10**6)
    found = verified(folder, samples=1)
    for one in found.steps.values():
        assert sum(f": {told}, 1,00" in line for line in one.refuted) == 1


def test_a_plan_that_takes_more_is_found(folder: Path, forge: Callable[..., Path]) -> None:
    cycles = verified(folder).claimed_cycles
    (refuted,) = verified(folder, forge(cycles=cycles - 0.25)).refuted
    assert refuted.startswith(f"whole step: {cycles - 0.25:,.2f} cycles are claimed, {cycles:,.2f} are found (")


@pytest.mark.parametrize(
    ("field", "told"),
    [("bound", "a bound of 1,000,000 cycles is claimed, "), ("l1_bytes", "1,000,000 bytes of L1 are claimed, ")],
)
def test_other_claims_of_a_plan_are_found(folder: Path, forge: Callable[..., Path], field: str, told: str) -> None:
    (refuted,) = verified(folder, forge(**{field: 10**6})).refuted
    assert refuted.startswith(f"whole step: {told}")


def test_a_floor_that_is_none_is_found(folder: Path, forge: Callable[..., Path]) -> None:
    floor = claimed(folder).floor
    refuted = verified(folder, forge(STEP, floor=floor + 1, bound=0)).refuted
    assert f"{STEP}: a floor of {floor + 1:,} cycles is claimed, {floor:,} is found" in refuted


def test_a_step_that_does_run_is_found(folder: Path, forge: Callable[..., Path]) -> None:
    steps = json.loads((folder / FILE).read_text())["steps"]
    steps[STEP] = {"type": "infeasible", "layer": "fc", "step": "fw", "reason": "needs more"}
    found = verified(folder, forge(steps=steps, bound=0), samples=3)
    assert len(found.refuted) == 3
    assert all(line.startswith(f"{STEP}: nothing is claimed to run, ") for line in found.refuted)


# -- candidates that do not run --------------------------------------------------------------------
def checked(l1_bytes: int, outcome: Infeasible | Found, samples: int) -> Checked:
    model, platform = parse("LINEAR 20 2"), PLATFORM.replace({"l1.size_bytes": l1_bytes, "l1.banks": 8})
    with Points(None) as points:
        return check_step(Meter(platform, points), model, (1, "fw"), outcome, "resident", samples, 0)


def test_where_nothing_fits_that_nothing_runs_is_confirmed() -> None:
    one = checked(8224, Infeasible("layer", "fw", "needs 48 bytes"), 20)
    assert (one.samples, one.unfit, one.refuted) == (0, 20, ())


def test_what_does_not_fit_is_drawn_again_and_counted(folder: Path) -> None:
    one = checked(8192 + 128, claimed(folder), 8)
    assert one.samples == 8 and one.unfit > 8


# -- what cannot be checked ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "autotuner-certificate-0"}, "not a certificate of format autotuner-certificate-1: "),
        ({"cycles": "many"}, "damaged: Expected `float`, got `str` - at `$.cycles`"),
        ({"steps": {STEP: {"type": "found"}}}, "damaged: Object missing required field `step`"),
        ({"platform_values": {}}, "certificate of another platform: clock_hz = None there, "),
        ({"plan": None}, "certificate of another plan: 'model' is not as it was certified"),
    ],
)
def test_a_damaged_certificate_is_refused(
    folder: Path, forge: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    path = forge(**changes)
    with pytest.raises(CertificateError) as caught:
        verified(folder, path)
    assert str(caught.value).removeprefix(f"{path}: ").startswith(message)


def test_cycles_of_a_damaged_step_are_refused(folder: Path, forge: Callable[..., Path]) -> None:
    for changes in ({"cycles": [1, 2, 3]}, {"cycles": [1, 2, 3, 0]}, {"least": 0}):
        with pytest.raises(CertificateError, match=f"damaged: {STEP}: must have 4 cycles and a least, above 0"):
            verified(folder, forge(STEP, **changes))


def test_a_step_under_another_name_is_refused(folder: Path, forge: Callable[..., Path]) -> None:
    steps = json.loads((folder / FILE).read_text())["steps"]
    for forged in ({"a fw": steps[STEP]}, {"fc ig+up": steps[STEP]}):
        with pytest.raises(CertificateError, match="says fc fw: no such step in small"):
            verified(folder, forge(steps=forged))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_certificate_is_refused(folder: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(CertificateError):
        verified(folder, path)


def test_a_plan_without_a_certificate_or_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "plan.json"
    alone.write_text((folder / "plan.json").read_text())
    with pytest.raises(CertificateError, match=f"cannot read certificate .*{FILE}: No such file or directory"):
        verify(alone, None, SMALL, PLATFORM)
    with pytest.raises(CertificateError, match=r"certificate of another platform: l1\.banks = 16 there, 32 on pulp"):
        verify(folder / "plan.json", None, SMALL, PLATFORM.replace({"l1.banks": 32}))
    with pytest.raises(PlanError, match="plan for model 'small', not for 'other'"):
        verify(folder / "plan.json", None, replace(SMALL, name="other"), PLATFORM)
    with pytest.raises(ModelError, match="no model 'small'"):
        verify(folder / "plan.json", None, None, PLATFORM)


@pytest.mark.parametrize("options", [{"samples": -1}, {"samples": 1.5}, {"seed": "one"}, {"workers": 0}])
def test_numbers_that_are_none_are_refused(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(TuningError):
        verified(folder, **options)


# -- the file --------------------------------------------------------------------------------------
def test_a_certificate_is_what_was_found_without_runners_up(folder: Path) -> None:
    tuned = tune(SMALL, PLATFORM, 1, None, parts=("fw",), candidates=3)
    certificate = certificate_of(tuned, SMALL, PLATFORM)
    assert any(isinstance(one, Found) and one.runners_up for one in tuned.outcomes.values())
    assert not any(isinstance(one, Found) and one.runners_up for one in certificate.steps.values())
    assert "runners_up" not in (folder / FILE).read_text()
    assert certificate.vectors == tuned.vectors == "resident"
