"""Protects layers given as text: what is written is what is built, and every slip gets one clear message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.layer_spec import SYNONYMS, USAGE, parse
from trainlib.errors import ModelError
from trainlib.layers import Conv2D, DepthWise, FullyConnected, Layer, PointWise
from trainlib.model import Model
from trainlib.operators.window import Padding, Pair
from trainlib.plan import backward_choices

TYPES = {PointWise: "PW", DepthWise: "DW", Conv2D: "CONV2D", FullyConnected: "LINEAR"}


@pytest.mark.parametrize(
    ("text", "shape", "layer"),
    [
        ("PW 64x25x5 64 relu", (64, 25, 5), PointWise("layer", 64, 64)),
        ("DW 64x25x5 kernel=3 padding=1", (64, 25, 5), DepthWise("layer", 64, 3, padding=1, relu=False)),
        (
            "CONV2D 1x49x10 64 kernel=10x4 stride=2 padding=same relu",
            (1, 49, 10),
            Conv2D("layer", 1, 64, (10, 4), stride=2, padding="same"),
        ),
        ("LINEAR 640 128 relu", (640,), FullyConnected("layer", 640, 128)),
        (" fc,640 ,128, BIAS\n", (640,), FullyConnected("layer", 640, 128, relu=False, bias=True)),
        ("Pointwise 3x2x1 4", (3, 2, 1), PointWise("layer", 3, 4, relu=False)),
        (
            "depthwise 3X9X9 Padding=1x0x2x1 KERNEL=3x4 stride=1x2",
            (3, 9, 9),
            DepthWise("layer", 3, (3, 4), stride=(1, 2), padding=(1, 0, 2, 1), relu=False),
        ),
    ],
)
def test_examples(text: str, shape: tuple[int, ...], layer: Layer) -> None:
    model = parse(text)
    assert model.layers[1] == layer
    assert model.shapes[1][0] == shape
    assert model.layers[0].name == "below" and not model.layers[0].relu  # type: ignore[attr-defined]
    assert any("ig" in step for steps in backward_choices(model, 1) for step in steps)


def test_a_relu_is_followed_by_a_layer_that_may_feed_the_loss() -> None:
    assert [layer.name for layer in parse("PW 1x1x1 1 relu").layers] == ["below", "layer", "above"]
    assert [layer.name for layer in parse("PW 1x1x1 1").layers] == ["below", "layer"]


# -- round trip ------------------------------------------------------------------------------------
@st.composite
def layers(draw: st.DrawFn) -> tuple[Layer, tuple[int, ...]]:
    """A layer and an input for it."""
    c, h, w, o = (draw(st.integers(1, 40)) for _ in range(4))
    flags = {"relu": draw(st.booleans()), "bias": draw(st.booleans())}
    kind = draw(st.sampled_from(list(TYPES)))
    if kind is FullyConnected:
        return FullyConnected("layer", c, o, **flags), (c,)
    if kind is PointWise:
        return PointWise("layer", c, o, **flags), (c, h, w)
    numbers = st.integers(1, min(h, w))
    kernel: Pair = draw(numbers | st.tuples(st.integers(1, h), st.integers(1, w)))
    least = kernel if isinstance(kernel, int) else min(kernel)
    zeros = st.integers(0, least - 1)
    padding: Padding = draw(zeros | st.tuples(zeros, zeros) | st.tuples(*4 * [zeros]) | st.just("same"))
    stride: Pair = draw(st.integers(1, 4) | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    if kind is DepthWise:
        return DepthWise("layer", c, kernel, stride, padding, **flags), (c, h, w)
    return Conv2D("layer", c, o, kernel, stride, padding, **flags), (c, h, w)


def crossed(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def outputs_of(layer: Layer) -> int:
    """Those that a layer names; 0 for one that does not."""
    return getattr(layer, "out_features", 0) or getattr(layer, "out_channels", 0)


def words_of(layer: Layer, shape: tuple[int, ...]) -> list[str]:
    """TYPE, INPUT, OUTPUTS, then options."""
    words = [TYPES[type(layer)], crossed(shape)]  # type: ignore[index]
    words += [str(outputs)] if (outputs := outputs_of(layer)) else []
    words += [
        f"{name}={crossed(getattr(layer, name))}" for name in ("kernel", "stride", "padding") if hasattr(layer, name)
    ]
    return words + [name for name in ("relu", "bias") if getattr(layer, name)]


@given(layers(), st.randoms(use_true_random=False), st.sampled_from([" ", ",", ", ", "\t "]), st.booleans())
def test_a_layer_written_as_text_is_read_again(
    drawn: tuple[Layer, tuple[int, ...]], random: st.random.Random, separator: str, lower: bool
) -> None:
    layer, shape = drawn
    words = words_of(layer, shape)
    first = 3 if outputs_of(layer) else 2
    options = words[first:]
    random.shuffle(options)
    text = separator.join(words[:first] + options)
    model = parse(text.lower() if lower else text)
    assert (model.layers[1], model.shapes[1][0]) == (layer, shape)


# -- refusals --------------------------------------------------------------------------------------
VOCABULARY = [
    *USAGE, *SYNONYMS, "relu", "bias", "kernel=3", "kernel=0", "stride=2", "padding=same", "padding=1x2", "kernel=",
    "4x5x6", "1x1x1", "7", "0", "-1", "=", "x", "64x25", "relu=1", "9" * 5000, "٣", "kernel=3x3x3",
]  # fmt: skip


@given(st.text() | st.lists(st.sampled_from(VOCABULARY)).map(" ".join))
def test_any_text_is_a_layer_or_a_model_error(text: str) -> None:
    try:
        assert isinstance(parse(text), Model)
    except ModelError as error:
        assert str(error).startswith(f"layer {text!r}: ")
        assert "; accepted: " in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no words; accepted: PW CxHxW OUTPUTS [relu] [bias]; DW "),
        ("CONV 1x2x3 4", "no type 'CONV' (did you mean 'CONV2D'?); accepted: PW CxHxW"),
        ("PW", "INPUT is missing; accepted: PW CxHxW OUTPUTS [relu] [bias]"),
        ("PW 64x25x5", "OUTPUTS is missing; accepted: PW CxHxW OUTPUTS [relu] [bias]"),
        ("PW 64x25 64", "INPUT '64x25': must be CxHxW, whole and from 1 to 999,999,999; accepted: PW"),
        ("LINEAR 64x5x5 12", "INPUT '64x5x5': must be a number"),
        ("LINEAR 64 relu", "OUTPUTS 'relu': must be a number"),
        ("LINEAR 64 0", "OUTPUTS '0': must be a number, whole and from 1"),
        ("PW 4x4x4 4 kernel=3", "no option 'kernel=3' of PW"),
        ("DW 4x4x4 4 kernel=3", "no option '4' of DW; accepted: DW CxHxW kernel=N|HxW"),
        ("DW 4x4x4 kernal=3", "no option 'kernal=3' of DW (did you mean 'kernel'?)"),
        ("DW 4x4x4 kernel", "'kernel': must be N or HxW"),
        ("DW 4x4x4", "kernel= is missing; accepted: DW CxHxW kernel=N|HxW"),
        ("DW 4x4x4 kernel=3 padding=valid", "'padding=valid': must be N, VxH, TxBxLxR or same, whole and from 0"),
        ("DW 4x4x4 kernel=3 padding=3", "layer: padding = 3: must be less than the kernel"),
        ("DW 4x2x2 kernel=3", "layer takes [4, height, width] of at least 3 x 3, the input gives [4, 2, 2]"),
        ("PW 4x4x4 4 relu relu", "'relu': relu is given twice"),
        ("PW 4x4x4 4 relu=yes", "'relu=yes': relu takes no value"),
    ],
)
def test_slips_are_named(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse(text)
    assert message in str(caught.value)
