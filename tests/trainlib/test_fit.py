"""Protects runs in epochs: the same bits however often a run is cut short, for every optimizer, with batches,
variations, replay and stored outputs; what is counted; and files, whole or refused.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainlib.arrays import assert_same_bits
from trainlib import datasets, schedules
from trainlib.data import load_labelled
from trainlib.data.samples import Samples, Standard
from trainlib.errors import DataError, ModelError
from trainlib.layers import Add, Conv2D, Dropout, FullyConnected, GlobalAveragePool, PointWise
from trainlib.model import Model
from trainlib.optimizers import SGD, Adam, AdamW, Optimizer
from trainlib.trainer import Trainer
from trainlib.training.fit import Progress
from trainlib.training.metrics import area

NETWORK = Model(
    "small",
    (
        Conv2D("conv", 1, 4, 3, padding="same", bias=True), PointWise("pw", 4, 6), GlobalAveragePool("mean"),
        FullyConnected("fc", 6, 5, bias=True), FullyConnected("out", 5, 3, relu=False),
    ),
    input_shape=(1, 6, 4),
    loss="cross-entropy",
)  # fmt: skip


def samples(count: int, seed: int = 0, name: str = "made") -> Samples:
    """Images [6, 4] of three classes."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((count, 6, 4)).astype(np.float32), rng.integers(0, 3, count)
    return Samples(name, x, y.astype(np.int64), ("a", "b", "c"), Standard.over(x, f"{name} samples"))


class StoppedError(Exception):
    """In the place of a killed process."""


def stopping(after: int) -> Callable[[Progress], None]:
    left = [after]

    def tell(progress: Progress) -> None:
        left[0] -= 1
        if not left[0]:
            raise StoppedError

    return tell


def assert_same_training(one: Trainer, other: Trainer) -> None:
    for place, (mine, theirs) in enumerate(zip(one.parameters, other.parameters, strict=True)):
        assert_same_bits(mine, theirs, f"parameter array {place}")
    assert one.optimizer.state.keys() == other.optimizer.state.keys()
    for place, own in one.optimizer.state.items():
        for name, state in own.items():
            assert_same_bits(state, other.optimizer.state[place][name], f"{name} of {place}")
    assert (one.steps, one.optimizer.steps, one.batch.done) == (other.steps, other.optimizer.steps, other.batch.done)


RULES: dict[str, Callable[[], Optimizer]] = {
    "SGD": lambda: SGD(schedules.steps({0: 0.1, 2: 0.01})),
    "momentum": lambda: SGD(0.05, momentum=0.9),
    "Nesterov": lambda: SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda: Adam(schedules.Cosine(0.01, 0.001, 40)),
    "AdamW": lambda: AdamW(0.01, weight_decay=0.1),
}


@dataclass
class Way:
    """How a network is trained."""

    rule: str
    accumulate: int = 1
    augment: tuple[Any, ...] = ()
    replay: bool = False
    latent: bool = False

    def trainer(self) -> Trainer:
        model = NETWORK.trained_as("last:2") if self.latent else NETWORK
        return Trainer(model, "pulp-2022", optimizer=RULES[self.rule](), accumulate=self.accumulate, seed=3)

    def fit(self, trainer: Trainer, **more: Any) -> Any:
        return trainer.fit(
            samples(7), 3, validate=samples(4, 9), augment=self.augment,
            replay=samples(4, 5) if self.replay else None, latent=self.latent, **more,
        )  # fmt: skip


@settings(max_examples=8)
@given(
    rule=st.sampled_from(sorted(RULES)), accumulate=st.sampled_from([1, 3]), replay=st.booleans(),
    how=st.sampled_from(["plain", "varied", "stored"]), after=st.lists(st.integers(1, 25), min_size=1, max_size=3),
)  # fmt: skip
def test_a_run_that_was_cut_short_goes_on_to_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory, rule: str, accumulate: int, replay: bool, how: str, after: list[int]
) -> None:
    varied = (datasets.Shift(2), datasets.Mask(2), datasets.Noise(0.1)) if how == "varied" else ()
    way, file = Way(rule, accumulate, varied, replay, how == "stored"), tmp_path_factory.mktemp("run") / "run.npz"
    whole = way.trainer()
    history = way.fit(whole)
    cut = way.trainer()
    for steps in after:
        try:
            way.fit(cut, tell=stopping(steps))
        except StoppedError:
            cut.save(file)
            cut = Trainer.load(file, model=cut.model)
    assert way.fit(cut).losses == history.losses
    assert_same_training(cut, whole)


def test_a_runs_file_has_the_last_epoch_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was done of the next one, as often as it is written."""
    monkeypatch.setattr("trainlib.training.fit.EVERY", 3)
    way, file = Way("momentum"), tmp_path / "run.npz"
    whole, cut = way.trainer(), way.trainer()
    way.fit(whole)
    with pytest.raises(StoppedError):
        way.fit(cut, file=file, tell=stopping(12))
    again = Trainer.load(file, model=NETWORK)
    assert again.steps == 10 and again.under_way is not None and again.under_way.epoch == 1
    way.fit(again)
    assert_same_training(again, whole)


def test_stored_outputs_give_the_same_weights() -> None:
    one, other = Way("momentum", latent=True).trainer(), Way("momentum", latent=True).trainer()
    Way("momentum", latent=True).fit(one)
    Way("momentum", latent=False).fit(other)
    assert_same_training(one, other)
    assert one.step().cycles < other.step().cycles
    assert one.cost.stored_bytes == 7 * 6 * 4 and other.cost.stored_bytes == 0
    assert one.cost.cycles < other.cost.cycles == 21 * other.step().cycles


def test_the_upper_half_of_an_autoencoder_has_a_cost_alone() -> None:
    """Its target is the sample, which is no longer its input."""
    layers = (FullyConnected("a", 6, 4), FullyConnected("b", 4, 6, relu=False))
    trainer = Trainer(Model("coder", layers, target_is_input=True).last(1), "pulp-2022")
    x = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    given = Samples("made", x, None, (), Standard.over(x, "made"))
    trainer.fit(given, 3, latent=True)
    assert trainer.cost.stored_bytes == 2 * 4 * 4 and trainer.step().cycles * 6 < trainer.cost.cycles


def test_what_is_frozen_must_put_out_the_same() -> None:
    layers = (FullyConnected("a", 4, 4), Dropout("drop", 0.5), FullyConnected("b", 4, 3, relu=False))
    trainer = Trainer(Model("drops", layers, loss="cross-entropy").last(1), "pulp-2022")
    x = np.zeros((2, 4), np.float32)
    with pytest.raises(DataError, match="drops: latent: drop, which is frozen, puts out something else at every step"):
        trainer.latents(x)
    with pytest.raises(DataError, match="small: latent: no layer below the trained ones is frozen"):
        Way("SGD").trainer().latents(x)


def test_a_part_that_reads_several_values_has_no_cost_alone() -> None:
    layers = (
        PointWise("a", 2, 3), PointWise("b", 2, 3, inputs=("sample",)), PointWise("c", 3, 3, inputs=("a",)),
        Add("sum", inputs=("c", "b")), FullyConnected("fc", 12, 2, relu=False),
    )  # fmt: skip
    model = Model("two", layers, input_shape=(2, 2, 2), loss="cross-entropy").trained(("c", "fc"))
    trainer = Trainer(model, "pulp-2022")
    x = np.ones((1, 2, 2, 2), np.float32)
    trainer.functional_step(x[0], 1, trainer.latents(x)[0])
    with pytest.raises(DataError, match="two: latent: the trained part reads a, b and more"):
        _ = trainer.cost


# -- what is counted -------------------------------------------------------------------------------
@given(
    scores=st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=40).filter(
        lambda pairs: len({kind for _, kind in pairs}) == 2
    )
)
def test_an_area_is_the_share_of_pairs_in_the_right_order(scores: list[tuple[int, bool]]) -> None:
    values, kinds = np.array([float(score) for score, _ in scores]), np.array([kind for _, kind in scores])
    bad, good = values[kinds], values[~kinds]
    right = (bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean()
    assert area(values, kinds) == pytest.approx(right, abs=1e-12)


@given(count=st.integers(1, 30), seed=st.integers(0, 1000), most=st.sampled_from([0.05, 0.1, 0.5, 1.0]))
def test_a_partial_area_is_that_of_the_first_false_alarms(count: int, seed: int, most: float) -> None:
    """By thresholds, one after the other, of scores that are all different."""
    rng = np.random.default_rng(seed)
    values, kinds = rng.permutation(2 * count).astype(float), rng.permutation(np.arange(2 * count) < count)
    thin = np.linspace(0, most, 20_001)
    steps = np.array([(values[kinds] > threshold).mean() for threshold in np.sort(values[~kinds])[::-1]])
    curve = steps[np.minimum((thin[:-1] * count).astype(int), count - 1)]  # the share found before the next false alarm
    under, least = float(curve.mean()) * most, most * most / 2
    assert area(values, kinds, most) == pytest.approx(0.5 * (1 + (under - least) / (most - least)), abs=2e-3 / most)


def test_a_detector_is_counted_clip_by_clip_and_machine_by_machine() -> None:
    engines = datasets.load("engines")
    found = Trainer("autoencoder", "pulp-2022").evaluate(engines.test)
    assert found.samples == 1520 and found.accuracy is None and found.auc is not None
    assert len(found.by_machine) == 4
    assert found.auc == pytest.approx(np.mean([auc for auc, _ in found.by_machine.values()]))


def test_a_classifier_is_counted_class_by_class() -> None:
    trainer = Way("SGD").trainer()
    Way("SGD").fit(trainer)
    given = samples(30, 4)
    found = trainer.evaluate(given)
    assert found.confusion is not None and found.confusion.sum() == 30
    assert found.accuracy == np.trace(found.confusion) / 30
    said = [trainer.predict(x)[-1].argmax() for x in trainer.standard_of(given).apply(given.x)[:, None]]
    assert found.accuracy == np.mean(said == given.y)


# -- files -----------------------------------------------------------------------------------------
@pytest.fixture
def file(tmp_path: Path) -> Path:
    trainer = Trainer("tutorial_cnn", "pulp-2022", seed=1)
    trainer.save(tmp_path / "saved.npz")
    return tmp_path / "saved.npz"


def test_a_file_holds_no_pickles_and_names_its_network(file: Path) -> None:
    with np.load(file, allow_pickle=False) as content:
        about = json.loads(str(content["about"]))
    assert (about["model"], about["format"]) == ("tutorial_cnn", 1)
    assert Trainer.load(file).model.name == "tutorial_cnn"


def rewritten(file: Path, **changed: Any) -> Path:
    """With other things in "about"."""
    with np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    arrays["about"] = np.array(json.dumps(json.loads(str(arrays["about"])) | changed))
    np.savez(file, **arrays)
    return file


def hostile(file: Path) -> Path:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.array([object()]), allow_pickle=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("about.npy", content.getvalue())
    return file


def cut(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:2000])
    return file


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: rewritten(file, format=99), "is of format 99, this version reads format 1: save it again"),
        (lambda file: rewritten(file, network="0"), "is of a network 'tutorial_cnn', which is not 'tutorial_cnn'"),
        (lambda file: rewritten(file, model="mine"), "is of the network mine, which is none of the library's"),
        (lambda file: rewritten(file, seed=None), "does not hold what its network needs"),
        (hostile, "is no checkpoint, or damaged or cut short"),
        (cut, "is no checkpoint, or damaged or cut short"),
        (lambda file: file.with_name("nothing.npz"), "cannot be read: No such file"),
        (lambda file: file.parent, "cannot be read: Is a directory"),
    ],
)
def test_a_file_that_is_none_is_refused(file: Path, spoil: Callable[[Path], Path], message: str) -> None:
    spoiled = spoil(file)
    with pytest.raises(DataError) as error:
        Trainer.load(spoiled)
    assert str(error.value).startswith(f"{spoiled}: {message}") and "\n" not in str(error.value)


def test_weights_of_another_network_are_refused(file: Path) -> None:
    with pytest.raises(DataError, match="is of a network 'tutorial_cnn', which is not 'lenet5' as it is here"):
        Trainer.load(file, model="lenet5")


def test_a_file_that_cannot_be_written_leaves_what_was_there(file: Path) -> None:
    with pytest.raises(DataError, match="cannot write"):
        Trainer("tutorial_cnn", "pulp-2022").save(file.parent / "no" / "such.npz")


def test_a_new_training_begins_from_a_files_weights(tmp_path: Path) -> None:
    trainer = Way("Adam").trainer()
    Way("Adam").fit(trainer)
    trainer.save(tmp_path / "a.npz")
    new = Trainer.load(tmp_path / "a.npz", model=NETWORK, trained="last:1", lr=0.01)
    assert (new.steps, new.optimizer.state, new.under_way) == (0, {}, None)
    assert [layer.name for layer in new.model.layers if layer.trained] == ["out"]
    assert new.standard is not None and new.classes == ("a", "b", "c")
    assert_same_bits(new.parameters[0], trainer.parameters[0], "weights")


# -- sets ------------------------------------------------------------------------------------------
def test_keywords_come_in_parts_and_by_speakers() -> None:
    words = datasets.load("keywords")
    assert {name: len(part) for name, part in words.parts.items()} == {
        "train": 1680, "adapt": 480, "test": 600, "validation": 336, "human": 117,
    }  # fmt: skip
    assert [(user.name, len(user.train), len(user.test)) for user in words.speakers("adapt")] == [
        (name, 96, 120)
        for name in ("flite:awb", "flite:rms", "flite:slt", "festival:kal_diphone", "festival:ked_diphone")
    ]
    assert len(words.train[:50]) == 50 and len(words.train.sample(96, seed=0)) == 96
    np.testing.assert_array_equal(words.train.sample(5, seed=2).x, words.train.sample(5, seed=2).x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.load("keyword"), r"no set 'keyword' \(did you mean 'keywords'\?\); sets: engines, keywords"),
        (lambda: datasets.load("keywords").part("human2"), r"no part 'human2' \(did you mean 'human'\?\)"),
        (lambda: datasets.load("engines").speakers("train"), "engines: nothing says the speaker of a sample"),
        (lambda: samples(3).sample(4), "made: 4 samples: must be a whole number, 1 to 3"),
        (lambda: samples(3) + datasets.load("keywords").train, r"made \[6, 4\] of 3 classes and keywords"),
        (lambda: datasets.Shift(-1), "Shift: most = -1: must be a whole number of frames, at least 0"),
        (lambda: Way("SGD").trainer().fit([1, 2]), "samples = list: must be samples"),
        (lambda: Way("SGD").trainer().fit(samples(3), 0), "epochs = 0: must be a whole number, at least 1"),
        (lambda: Trainer("autoencoder", "pulp-2022").fit(samples(3)), "do not fit a network"),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("rates", [{}, {1: 0.1}, {0: 0.0}, {0: 0.1, 1.5: 0.1}])
def test_rates_by_epochs_begin_with_the_first_and_are_positive(rates: dict[Any, float]) -> None:
    with pytest.raises(ModelError, match="Epochs: "):
        schedules.steps(rates)


@given(most=st.integers(0, 9), seed=st.integers(0, 99))
def test_a_shift_moves_frames_and_fills_with_the_mean(most: int, seed: int) -> None:
    x = np.arange(1, 25, dtype=np.float32).reshape(6, 4)
    shifted = datasets.Shift(most).vary(x, np.random.default_rng(seed))
    by = int(np.random.default_rng(seed).integers(-most, most + 1))
    expected = np.zeros_like(x)
    for frame in range(6):
        if 0 <= frame - by < 6:
            expected[frame] = x[frame - by]
    np.testing.assert_array_equal(shifted, expected)


def test_images_are_standardised_by_channel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((9, 3, 4, 5)) * [[[2]], [[30]], [[0]]] + [[[1]], [[100]], [[7]]]).astype(np.float32)
    np.savez(tmp_path / "images.npz", x=x, y=np.arange(9) % 2, split=np.array(["train"] * 6 + ["val"] * 3))
    known = datasets.load(str(tmp_path / "images.npz"))
    standard = known.train.standard
    assert standard.mean.shape == standard.deviation.shape == (3, 1, 1) and standard.deviation[2, 0, 0] == 1
    found = standard.apply(known.train.x).astype(np.float64)
    np.testing.assert_allclose(found.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=(0, 2, 3)), [1, 1, 0], atol=1e-6)
    with pytest.raises(DataError, match="the training samples of images have 3 channels"):
        standard.apply(x[:, :2])
    old = load_labelled(tmp_path / "images.npz", held_out="val")
    np.testing.assert_array_equal(old.standardise(old.held_out), standard.apply(known.validation.x))
