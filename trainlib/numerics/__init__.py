"""The arithmetic of the kernels on the host: same order, same roundings, same bits, no timing.

A module here is the twin of the module of that name in `kernels`. Arrays are C-contiguous float32. A fused
multiply-add rounds once; sums run over their index in order; reductions over cores add the cores'
partial sums in core order. A NaN that arithmetic gives is 0x7fc00000, as on the cores; what is only moved
keeps its bits.
"""

from trainlib.numerics.elementwise import relu_backward, sgd_update
from trainlib.numerics.fully_connected import fc_forward, fc_fused_update, fc_input_gradient, fc_weight_gradient
from trainlib.numerics.loss import mse

__all__ = [
    "fc_forward",
    "fc_fused_update",
    "fc_input_gradient",
    "fc_weight_gradient",
    "mse",
    "relu_backward",
    "sgd_update",
]
