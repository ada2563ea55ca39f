"""Protects plans written as C: ids and tiles in the published library's terms, a header that compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.export import export
from autotuner.published import candidates, layer_of, primitives_of
from pulpsim.platform import Platform
from tests.trainlib.networks import models as dense_models
from tests.trainlib.networks import plans as dense_plans
from trainlib import models
from trainlib.errors import PlanError
from trainlib.kernels import depthwise, matmul
from trainlib.layers import Conv2D, DepthWise, FullyConnected, GlobalAveragePool, PointWise, ReLU
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Tile
from trainlib.tiling import default_plan

PLATFORM = Platform.preset("pulp-2022")
MODEL = Model(
    "small net",
    (
        Conv2D("conv", 2, 4, (3, 2), stride=(2, 1), padding="same"),
        DepthWise("dw-1", 4, 3, padding=1),
        PointWise("pw.1", 4, 6, relu=False),
        ReLU("act"),
        GlobalAveragePool("pool"),
        FullyConnected("fc", 6, 8, relu=False),
    ),
    input_shape=(2, 9, 5),
)


def step(layer: str, name: str, rows: int, columns: int, lines: int, kernel: str = "", unroll: int = 1) -> LayerStep:
    tile = Tile(rows=rows, columns=columns, lines=lines)
    return LayerStep(layer=layer, step=name, tile=tile, kernel=kernel, unroll=unroll)


PLAN = Plan(
    model="small net",
    platform="pulp-2022",
    steps=(
        step("conv", "fw", 4, 1, 2, "mm_unroll_2x4"),
        step("dw-1", "fw", 2, 1, 0, "dw_1x4_u2"),
        step("pw.1", "fw", 3, 4, 2, "mm_M"),
        step("act", "fw", 1, 100, 0),
        step("pool", "fw", 6, 1, 0),
        step("fc", "fw", 4, 3, 0, unroll=4),
        step("fc", "ig+wg+update", 2, 6, 0, unroll=8),
        step("pool", "ig", 6, 1, 0),
        step("act", "ig", 1, 100, 0),
        step("pw.1", "ig", 6, 2, 3, "mm_M_unroll_4x4"),
        step("pw.1", "wg+update", 6, 2, 0, "mm"),
        step("dw-1", "ig", 2, 1, 3, "dw"),
        step("dw-1", "wg", 4, 1, 1, "dw_u3"),
        step("dw-1", "update", 4, 1, 0),
        step("conv", "wg+update", 4, 2, 0, "mm_u2"),
    ),
)
#: id, then input channels, height, width and output channels of the tile
EXPECTED = {
    "CONV_FW": (10, 1, 5, 6, 4),
    "CONV_WG": (2, 2, 11, 6, 4),
    "DW_1_FW": (6, 2, 7, 7, 2),
    "DW_1_IG": (0, 2, 3, 5, 2),
    "DW_1_WG": (2, 4, 3, 7, 4),
    "PW_1_FW": (1, 4, 2, 5, 3),
    "PW_1_IG": (23, 2, 3, 5, 6),
    "PW_1_WG": (0, 2, 5, 5, 6),
    "FC_FW": (7, 3, 1, 1, 4),
    "FC_IG": (16, 6, 1, 1, 2),
    "FC_WG": (16, 6, 1, 1, 2),
}
SUFFIXES = ("MATMUL_TYPE", "TILE_CI", "TILE_H", "TILE_W", "TILE_CO")


def defines(header: str) -> dict[str, tuple[int, ...]]:
    """Of each primitive, in the order of SUFFIXES; nothing is defined twice."""
    found = re.findall(r"^#define (\w+) (\d+)(?: /\* [\w]+ \*/)?$", header, re.MULTILINE)
    assert len(dict(found)) == len(found)
    prefixes = [name.removesuffix("_MATMUL_TYPE") for name, _ in found if name.endswith("_MATMUL_TYPE")]
    assert len(found) == len(SUFFIXES) * len(prefixes)
    return {prefix: tuple(int(dict(found)[f"{prefix}_{suffix}"]) for suffix in SUFFIXES) for prefix in prefixes}


def without_code(header: str) -> str:
    """All comments, on one line."""
    return " ".join(" ".join(re.findall(r"/\*(.*?)\*/", header, re.DOTALL)).replace("\n *", "").split())


# -- what is said ----------------------------------------------------------------------------------
def test_every_primitive_has_its_id_and_tile() -> None:
    assert defines(export(PLAN, MODEL, PLATFORM)) == EXPECTED


def test_comments_say_what_it_is() -> None:
    text = without_code(export(PLAN, MODEL, PLATFORM))
    assert "a training step of small net for PULP-TrainLib" in text
    assert "pulp-2022: 8 cores, 65,536 bytes of L1" in text
    assert "0=mm, 1=mm_M, 2=mm_u2, 3=mm_unroll_1x2," in text and "23=mm_M_unroll_4x4." in text
    assert "0=dw, 1=dw_u2, 2=dw_u3, 3=dw_1x2," in text
    assert "Fully-connected layers: the plan's kernels are not among these; the nearest are named" in text
    assert "fc ig+wg+update: IG and WG" in text and "conv wg+update: WG" in text
    assert "act fw, pool fw, pool ig, act ig, dw-1 update, loss mse, and the update of the weights." in text


def test_ids_are_said_beside_their_names() -> None:
    for number, name in re.findall(r"_MATMUL_TYPE (\d+) /\* (\w+) \*/", export(PLAN, MODEL, PLATFORM)):
        assert (depthwise if name.startswith("dw") else matmul).PUBLISHED_IDS[name] == int(number)


def test_a_kernel_without_an_id_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matmul.GEOMETRIES, "mm_unroll_3x3", matmul.Geometry("N", 3, 3))
    monkeypatch.setattr(Conv2D, "KERNELS", ("mm_unroll_3x3", *matmul.NAMES))
    monkeypatch.setattr(depthwise, "NAMES", (*depthwise.NAMES, "dw_1x8"))
    monkeypatch.setattr(DepthWise, "KERNELS", depthwise.NAMES)
    header = export(PLAN, MODEL, PLATFORM)
    assert defines(header) == EXPECTED and "3x3" not in header and "1x8" not in header.replace("unroll_1x8", "")
    for place, kernel in ((0, "mm_unroll_3x3"), (1, "dw_1x8")):
        steps = [replace(s, kernel=kernel) if number == place else s for number, s in enumerate(PLAN.steps)]
        with pytest.raises(PlanError, match=rf"^{steps[place].layer} fw: the kernel {kernel} has no id in PULP-Train"):
            export(replace(PLAN, steps=tuple(steps)), MODEL, PLATFORM)


@settings(max_examples=50)
@given(data=st.data())
def test_fully_connected_plans_have_all_primitives(data: st.DataObject) -> None:
    model = data.draw(dense_models())
    plan = data.draw(dense_plans(model))
    found = defines(export(plan, model, PLATFORM))
    for chosen in plan.steps:
        for primitive in primitives_of(chosen.step):
            number, *tile = found.pop(f"{chosen.layer}_{primitive}".upper())
            assert tile == [chosen.tile.columns, 1, 1, chosen.tile.rows]
            along, geometry = "N" if primitive == "fw" else "M", matmul.GEOMETRIES[list(matmul.PUBLISHED_IDS)[number]]
            assert (geometry.split, geometry.along, geometry.across) == (along, chosen.unroll, 1)
    assert not found


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_tiles_of_the_shipped_models_are_parts_of_the_published_layers(name: str) -> None:
    model = models.get(name)
    found = defines(export(default_plan(model, PLATFORM), model, PLATFORM))
    assert found
    for prefix, (_, ci, h, w, co) in found.items():
        index = next(i for i, layer in enumerate(model.layers) if prefix.startswith(f"{layer.name.upper()}_"))
        layer = layer_of(model, index)
        assert layer is not None
        assert ci <= layer.ci and co <= layer.co
        if getattr(model.layers[index], "stride", 1) == 1:  # the published input is that of one without
            assert h <= layer.h and w <= layer.w


def test_a_published_tile_comes_back() -> None:
    model = models.get("ds_cnn_paper")
    layer = layer_of(model, 1)
    assert layer is not None
    rule = default_plan(model, PLATFORM)
    for tile in candidates(layer, 65_536, 8):
        if tile.w == layer.w:
            chosen = Tile(rows=tile.co, columns=1, lines=tile.h - 2)
            steps = tuple(replace(s, tile=chosen) if (s.layer, s.step) == ("dw0", "fw") else s for s in rule.steps)
            found = defines(export(replace(rule, steps=steps), model, PLATFORM))
            assert found["DW0_FW"][1:] == (tile.ci, tile.h, tile.w, tile.co)


# -- names -----------------------------------------------------------------------------------------
def dense(name: str, *layers: str) -> tuple[Plan, Model]:
    """A model of fully-connected layers, 1 in and 1 out, and a plan for it."""
    model = Model(name, tuple(FullyConnected(layer, 1, 1, relu=False) for layer in layers))
    return default_plan(model, PLATFORM), model


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("fc-1", "FC_1"), ("2nd", "LAYER_2ND"), ("_x", "LAYER_X"), ("größe", "GR_SSE"), ("", "LAYER_")],
)
def test_names_become_macros(name: str, prefix: str) -> None:
    assert set(defines(export(*dense("m", name), PLATFORM))) == {f"{prefix}_FW", f"{prefix}_WG"}


def test_names_that_c_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(PlanError, match=r"m: layers 'a-1' and 'A\.1' would both be A_1 in C: rename one"):
        export(*dense("m", "a-1", "A.1"), PLATFORM)


def test_a_plan_for_another_model_is_refused() -> None:
    with pytest.raises(PlanError, match="plan for model 'small net', not for 'm'"):
        export(PLAN, dense("m", "fc")[1], PLATFORM)


# -- the compiler ----------------------------------------------------------------------------------
def compile_c(text: str) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    command = [gcc, "-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-x", "c", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


def test_the_header_compiles_to_its_numbers() -> None:
    header = export(PLAN, MODEL, PLATFORM)
    values = [(f"{prefix}_{s}", v) for prefix, found in EXPECTED.items() for s, v in zip(SUFFIXES, found, strict=True)]
    asserted = "".join(f'_Static_assert({name} == {value}, "{name}");\n' for name, value in values)
    compile_c(header + header + asserted)


@settings(max_examples=25)
@given(st.lists(st.text("aZ_09-*/\\?\" \t\n'#é", max_size=8), min_size=2, max_size=3, unique=True))
def test_no_name_breaks_the_header(names: list[str]) -> None:
    try:
        header = export(*dense(*names), PLATFORM)
    except PlanError:
        return
    compile_c(header + "int x;\n")
