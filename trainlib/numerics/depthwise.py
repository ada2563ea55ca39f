"""The depthwise convolution, batch 1: twin of `kernels.depthwise`.

C channels, inputs padded (and, for the input gradient, dilated) beforehand: xp [C, Hp, Wp], w [C, Hk, Wk],
y [C, Ho, Wo] with Ho = (Hp - Hk) // stride_h + 1 and Wo likewise. Sums run over taps or pixels row by row; those of
all channels go side by side, since none waits for another, in arrays with channels last: [pixels or taps, C].
"""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled, fma, heapless, inlined
from trainlib.numerics.layout import transpose


@compiled
def _channels_last(x):
    """x [C, H, W] -> [H W, C]."""
    return transpose(x.reshape(x.shape[0], -1))


@inlined
def _add_products(a, b, sums):
    """sums [C] += a b, channel by channel."""
    for c in range(sums.shape[0]):
        sums[c] = fma(a[c], b[c], sums[c])


@heapless
def _add_windows(x, taps, y, out_w, kernel_w, width, stride_h, stride_w):
    """y [outputs, C] += taps [taps, C] x [pixels, C], tap by tap."""
    for output in range(y.shape[0]):
        first = stride_h * (output // out_w) * width + stride_w * (output % out_w)
        for tap in range(taps.shape[0]):
            _add_products(taps[tap], x[first + tap // kernel_w * width + tap % kernel_w], y[output])


@heapless
def _add_outputs(x, d, sums, out_w, kernel_w, width, stride_h, stride_w):
    """sums [taps, C] += d [outputs, C] x [pixels, C], output by output."""
    for output in range(d.shape[0]):
        first = stride_h * (output // out_w) * width + stride_w * (output % out_w)
        for tap in range(sums.shape[0]):
            _add_products(d[output], x[first + tap // kernel_w * width + tap % kernel_w], sums[tap])


@compiled
def _canonical_channels_first(x):
    """x [N, C] -> [C, N]."""
    turned = transpose(x).reshape(-1)
    for i in range(turned.shape[0]):
        turned[i] = canonical(turned[i])
    return turned


@compiled
def dw_forward(xp, w, stride_h, stride_w):
    """xp [C, Hp, Wp], w [C, Hk, Wk] -> y [C, Ho, Wo]."""
    channels, kernel_h, kernel_w = w.shape
    width = xp.shape[2]
    out_h, out_w = (xp.shape[1] - kernel_h) // stride_h + 1, (width - kernel_w) // stride_w + 1
    x, taps, y = _channels_last(xp), _channels_last(w), np.zeros((out_h * out_w, channels), np.float32)
    _add_windows(x, taps, y, out_w, kernel_w, width, stride_h, stride_w)
    return _canonical_channels_first(y).reshape(channels, out_h, out_w)


@compiled
def dw_weight_gradient_accumulate(xp, dy, dw, stride_h, stride_w):
    """dw [C, Hk, Wk] += the gradient from xp [C, Hp, Wp] and dy [C, Ho, Wo], in place: each sum starts at dw."""
    x, d, sums = _channels_last(xp), _channels_last(dy), _channels_last(dw)
    _add_outputs(x, d, sums, dy.shape[2], dw.shape[2], xp.shape[2], stride_h, stride_w)
    dw[:] = _canonical_channels_first(sums).reshape(dw.shape)


@compiled
def dw_weight_gradient(xp, dy, kernel_h, kernel_w, stride_h, stride_w):
    """xp [C, Hp, Wp], dy [C, Ho, Wo] -> dw [C, kernel_h, kernel_w]."""
    dw = np.zeros((dy.shape[0], kernel_h, kernel_w), np.float32)
    dw_weight_gradient_accumulate(xp, dy, dw, stride_h, stride_w)
    return dw


@compiled
def dw_input_gradient(dyp, w):
    """dyp [C, H + Hk - 1, W + Wk - 1] (dy dilated by the stride and padded), w [C, Hk, Wk] -> dx [C, H, W].

    The taps are walked from the last to the first while the window over dyp is walked from its start.
    """
    return dw_forward(dyp, w[:, ::-1, ::-1].copy(), 1, 1)
