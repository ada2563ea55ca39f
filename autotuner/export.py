"""A plan as a C header: its kernels and tiles in the terms of the published library, PULP-TrainLib.

Everything is one layer's primitive there: FW, WG or IG. A plan's step that fuses several stands for each of them;
what the library has no choice for (pooling, activations, loss, update) is listed in a comment. A tile is
Tile_Ci x Tile_H x Tile_W of the input and Tile_Co output channels. In FW and WG the input is as much of the image as
the tile's output rows see, zeros around it among them; in IG it is the part of the input gradient that is computed.

Fully-connected layers have kernels of their own in this package, and the header names the nearest published ones:
a forward kernel of U rows is mm_unroll_Ux1, a backward one of V inputs mm_M_unroll_1xV, for inputs are M there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap

from autotuner.published import Step, layer_of, primitives_of
from pulpsim import Platform
from trainlib import models
from trainlib.errors import PlanError
from trainlib.kernels import depthwise, matmul
from trainlib.layers import Conv2D, DepthWise, FullyConnected, Layer
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan

#: characters of a line of comment
WIDTH = 110


def export(plan: Plan | str | Path, model: Model | str, platform: Platform | str | Path) -> str:
    """The header. Plans and platforms may also be files, models and platforms names.

    Raises PlanError if the plan is not one for the model, two layers would have one name in C, or a kernel has no id
    in the published library.
    """
    plan, model, platform = Plan.of(plan), models.of(model), Platform.of(platform)
    plan.check(model)
    names = _macros(model)
    defines: list[str] = []
    missing: list[str] = []
    for step in plan.steps:
        index = [layer.name for layer in model.layers].index(step.layer)
        primitives = primitives_of(step.step) if layer_of(model, index) else ()
        if not primitives:
            missing.append(f"{step.layer} {step.step}")
            continue
        stands_for = " and ".join(primitive.upper() for primitive in primitives)
        defines += ["", *_comment(f"{step.layer} {step.step}: {stands_for}")]
        for primitive in primitives:
            defines += _defines(model, index, step, primitive, f"{names[index]}_{primitive.upper()}")
    guard = f"PLAN_{_macro(model.name)}_H"
    lines = [*_explanation(model, platform), "", f"#ifndef {guard}", f"#define {guard}", *defines, ""]
    without = ", ".join([*missing, f"loss {model.loss}"])
    lines += [*_comment(f"Not chosen by a matmul_type: {without}, and the update of the weights."), "", "#endif"]
    return "\n".join(lines) + "\n"


# -- what is defined -------------------------------------------------------------------------------
def _defines(model: Model, index: int, step: LayerStep, primitive: Step, prefix: str) -> list[str]:
    layer = model.layers[index]
    kernel = _kernel(layer, step, primitive)
    ids = depthwise.PUBLISHED_IDS if isinstance(layer, DepthWise) else matmul.PUBLISHED_IDS
    if kernel not in ids:
        raise PlanError(
            f"{step.layer} {step.step}: the kernel {kernel} has no id in PULP-TrainLib: choose one that has: "
            f"{', '.join(ids)}"
        )
    lines = [f"#define {prefix}_MATMUL_TYPE {ids[kernel]} /* {kernel} */"]
    sizes = zip(("CI", "H", "W", "CO"), _tile(model, index, step, primitive), strict=True)
    return lines + [f"#define {prefix}_TILE_{name} {size}" for name, size in sizes]


def _kernel(layer: Layer, step: LayerStep, primitive: Step) -> str:
    """The published name."""
    if not isinstance(layer, FullyConnected):
        return step.kernel
    name, unroll = ("mm", f"{step.unroll}x1") if primitive == "fw" else ("mm_M", f"1x{step.unroll}")
    return name if step.unroll == 1 else f"{name}_unroll_{unroll}"


def _tile(model: Model, index: int, step: LayerStep, primitive: Step) -> tuple[int, int, int, int]:
    """(input channels, height, width, output channels)."""
    layer, (shape, output), tile = model.layers[index], model.shapes[index], step.tile
    if isinstance(layer, FullyConnected):
        return tile.columns, 1, 1, tile.rows
    ci = tile.rows if isinstance(layer, DepthWise) else tile.columns
    if primitive == "ig":
        return ci, tile.lines or shape[1], shape[2], tile.rows
    h, w = tile.lines or output[1], output[2]
    if isinstance(layer, Conv2D | DepthWise):
        at = layer.window(shape)
        h, w = (h - 1) * at.stride_h + at.kernel_h, (w - 1) * at.stride_w + at.kernel_w
    return ci, h, w, tile.rows


# -- names and comments ----------------------------------------------------------------------------
def _macros(model: Model) -> list[str]:
    """What each layer's macros begin with."""
    names: dict[str, str] = {}
    for layer in model.layers:
        name = _macro(layer.name)
        if name in names:
            raise PlanError(
                f"{model.name}: layers {names[name]!r} and {layer.name!r} would both be {name} in C: rename one"
            )
        names[name] = layer.name
    return list(names)


def _macro(name: str) -> str:
    """Upper case, "_" for what C does not take, a letter first."""
    plain = re.sub("[^A-Z0-9]", "_", name.upper())
    return plain if re.match("[A-Z]", plain) else f"LAYER_{plain.lstrip('_')}"


def _explanation(model: Model, platform: Platform) -> list[str]:
    return _comment(
        f"Kernels and tiles of a training step of {model.name} for PULP-TrainLib, from a plan for {platform.name}: "
        f"{platform.cluster.cores} cores, {platform.l1.size_bytes:,} bytes of L1.",
        "<LAYER>_<FW, WG or IG>_MATMUL_TYPE is the matmul_type of struct mm_manager_args, which layers take as "
        "opt_matmul_type_fw, opt_matmul_type_wg and opt_matmul_type_ig.",
        "_TILE_CI, _TILE_H, _TILE_W: the tile's input: channels, height and width in pixels, zeros around the image "
        "among them; in IG those of the input gradient, without zeros. _TILE_CO: output channels. Tiles at the border "
        "may be smaller.",
        "Fully-connected layers: the plan's kernels are not among these; the nearest are named, which unroll as many "
        "outputs (FW) or inputs (WG, IG).",
        f"matmul_type: {_ids(matmul.PUBLISHED_IDS)}.",
        f"matmul_type of depthwise layers: {_ids(depthwise.PUBLISHED_IDS)}.",
    )


def _ids(ids: Mapping[str, int]) -> str:
    return ", ".join(f"{number}={name}" for name, number in ids.items())


def _comment(*paragraphs: str) -> list[str]:
    """What would begin or end a comment in the text is taken apart."""
    plain = [re.sub(r"(?<=\*)(?=/)|(?<=/)(?=\*)", " ", paragraph) for paragraph in paragraphs]
    lines = [line for paragraph in plain for line in wrap(paragraph, WIDTH)]
    if len(lines) == 1:
        return [f"/* {lines[0]} */"]
    return ["/*", *(f" * {line}" for line in lines), " */"]
