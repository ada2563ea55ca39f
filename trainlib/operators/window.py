"""Where a kernel slides over an image: sizes, strides and padding, resolved to numbers of elements."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from pulpsim.arguments import whole
from trainlib.errors import ModelError
from trainlib.operators.layer import Layer, Shape

#: one number for both directions, or (vertical, horizontal)
Pair = int | tuple[int, int]
#: a number, (vertical, horizontal), (top, bottom, left, right), or "same": as many outputs as strides begun
Padding = int | tuple[int, int] | tuple[int, int, int, int] | str
#: along rows: a number, (before, after), or "same"
RowPadding = int | tuple[int, int] | str


@dataclass(frozen=True)
class Window:
    """A kernel on an image of height x width, with zeros around it."""

    height: int
    width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    top: int
    bottom: int
    left: int
    right: int
    dilation_h: int = 1
    dilation_w: int = 1

    @cached_property
    def out_h(self) -> int:
        """Output rows; 0 or less if the kernel does not fit."""
        return (self.padded_h - self.extent_h) // self.stride_h + 1

    @cached_property
    def out_w(self) -> int:
        """Output columns; 0 or less if the kernel does not fit."""
        return (self.padded_w - self.extent_w) // self.stride_w + 1

    @cached_property
    def padded_h(self) -> int:
        return self.height + self.top + self.bottom

    @cached_property
    def padded_w(self) -> int:
        return self.width + self.left + self.right

    @property
    def extent_h(self) -> int:
        """Rows from the first tap to the last."""
        return _extent(self.kernel_h, self.dilation_h)

    @property
    def extent_w(self) -> int:
        return _extent(self.kernel_w, self.dilation_w)

    @property
    def padded(self) -> bool:
        """Is there any padding?"""
        return (self.padded_h, self.padded_w) != (self.height, self.width)

    @property
    def framed(self) -> Window:
        """The same kernel on the image with its padding, the frame, as on one that has none."""
        kernel = self.kernel_h, self.kernel_w, self.stride_h, self.stride_w
        return Window(self.padded_h, self.padded_w, *kernel, 0, 0, 0, 0)

    def image_rows(self, rows: tuple[int, int]) -> tuple[int, int]:
        """Of rows of the frame those in the image, by its own numbers; where there are none, the end is the first."""
        first, end = (min(max(row - self.top, 0), self.height) for row in rows)
        return first, end

    @property
    def taps(self) -> int:
        return self.kernel_h * self.kernel_w

    @property
    def strided(self) -> bool:
        return (self.stride_h, self.stride_w) != (1, 1)

    def seen(self, step: str, lines: int) -> tuple[int, int]:
        """Pixels of a channel of x and of y that a tile of so many lines meets at least."""
        if step == "ig":
            return lines * self.width, min(max(lines // self.stride_h, 1), self.out_h) * self.out_w
        return max((lines - 1) * self.stride_h + 1 - self.top, 1) * self.width, lines * self.out_w


def pair(value: Pair) -> tuple[int, int]:
    """(vertical, horizontal)."""
    return (value, value) if isinstance(value, int) else value


def along_row(value: int) -> tuple[int, int]:
    """A size along rows, of windows of one row, as an image's."""
    return 1, value


def sides_of_row(padding: RowPadding) -> Padding:
    """Likewise padding."""
    if isinstance(padding, str):
        return padding
    before, after = padding if isinstance(padding, tuple) else (padding, padding)
    return 0, 0, before, after


def _extent(taps: int, dilation: int) -> int:
    return dilation * (taps - 1) + 1


def check_window(
    name: str, kernel: Pair, stride: Pair, padding: Padding = 0, dilation: Pair = 1
) -> tuple[Pair, Pair, Padding, Pair]:
    """The same in Python's numbers. Raises ModelError, naming the layer, unless these describe a window."""
    sizes: list[Pair] = []
    for what, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        size = _numbers(value, (2,), 1)
        if size is None:
            raise ModelError(
                f"{name}: {what} = {value!r}: must be a whole number, at least 1, or two (vertical, horizontal)"
            )
        sizes.append(size)
    if isinstance(padding, str) and padding == "same":
        return sizes[0], sizes[1], str(padding), sizes[2]
    amounts = _numbers(padding, (2, 4), 0)
    if amounts is None:
        raise ModelError(
            f"{name}: padding = {padding!r}: must be 'same' or whole numbers, at least 0: one, two "
            f"(vertical, horizontal) or four (top, bottom, left, right)"
        )
    top, bottom, left, right = _sides((amounts, amounts) if isinstance(amounts, int) else amounts)
    height, width = map(_extent, pair(sizes[0]), pair(sizes[2]))
    if max(top, bottom) >= height or max(left, right) >= width:
        dilated = "" if sizes[2] in (1, (1, 1)) else "dilated "
        raise ModelError(
            f"{name}: padding = {padding!r}: must be less than the {dilated}kernel, {height} x {width}, on every side: "
            f"outputs would see padding only"
        )
    return sizes[0], sizes[1], amounts, sizes[2]


def settle_window(layer: Layer) -> None:
    """Put what a layer has of kernel, stride, padding and dilation, checked, in the place of what was given.

    Raises ModelError.
    """
    given = [name for name in ("kernel", "stride", "padding", "dilation") if hasattr(layer, name)]
    checked = check_window(layer.name, *(getattr(layer, name) for name in given))
    for field, value in zip(given, checked, strict=False):
        layer.settle(field, value)


def _numbers(value: object, lengths: tuple[int, ...], least: int) -> Any:
    """One whole number, or a tuple of as many as `lengths` says, as Python's; None if it is neither."""
    if isinstance(value, tuple):
        found = tuple(number for part in value if (number := whole(part)) is not None and number >= least)
        return found if len(found) == len(value) and len(found) in lengths else None
    number = whole(value)
    return number if number is not None and number >= least else None


def _sides(amounts: tuple[int, int] | tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right)."""
    return amounts if len(amounts) == 4 else (amounts[0], amounts[0], amounts[1], amounts[1])


def _same(size: int, extent: int, stride: int) -> tuple[int, int]:
    """Zeros (before, after) that give ceil(size / stride) outputs; an odd one comes after, as in TensorFlow."""
    zeros = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return zeros // 2, zeros - zeros // 2


def window_on(
    layer: Layer, channels: int | None, input_shape: Shape, kernel: Pair, stride: Pair, padding: Padding, source: str,
    dilation: Pair = 1,
) -> Window:  # fmt: skip
    """The window of a checked layer on [channels, height, width]; None takes any number of channels.

    Raises ModelError if the input does not fit.
    """
    if len(input_shape) != 3 or channels not in (None, input_shape[0]):
        raise layer.misfit(_taken(channels), input_shape, source)
    window = _window(*input_shape[1:], kernel, stride, padding, dilation)
    if window.out_h < 1 or window.out_w < 1:
        least_h = max(window.extent_h - window.top - window.bottom, 1)
        least_w = max(window.extent_w - window.left - window.right, 1)
        raise layer.misfit(f"{_taken(channels)} of at least {least_h} x {least_w}", input_shape, source)
    return window


def _taken(channels: int | None) -> str:
    return f"[{'channels' if channels is None else channels}, height, width]"


@cache
def _window(height: int, width: int, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair) -> Window:
    """A checked layer's, on an image."""
    (kernel_h, kernel_w), (stride_h, stride_w), apart = pair(kernel), pair(stride), pair(dilation)
    if isinstance(padding, str):
        extent_h, extent_w = _extent(kernel_h, apart[0]), _extent(kernel_w, apart[1])
        sides = (*_same(height, extent_h, stride_h), *_same(width, extent_w, stride_w))
    else:
        sides = _sides((padding, padding) if isinstance(padding, int) else padding)
    return Window(height, width, kernel_h, kernel_w, stride_h, stride_w, *sides, *apart)
