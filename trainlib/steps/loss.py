"""The loss and its gradient: on the network's output, whole, in L1."""

from __future__ import annotations

from trainlib.errors import unknown_loss
from trainlib.kernels import Call, classification, loss
from trainlib.steps.fully_connected import linear_pairs, whole
from trainlib.tasks import Addresses, Work, matrix


def loss_step(work: Work) -> None:
    """A last layer that is fully connected takes the gradient as pairs in L1, others read it from L2."""
    model, last, n = work.model, len(work.model.layers) - 1, work.model.outputs
    make = {"mse": loss.mse_gradient, "l1": loss.l1, "cross-entropy": classification.cross_entropy}.get(model.loss)
    if make is None:
        raise unknown_loss(model.name, model.loss, "timed")
    work.begin("loss", model.loss, 0, None)
    sums = work.all_cores + 1 + (work.all_cores if model.loss == "cross-entropy" else 0)  # and the largest of each core
    y, partial = work.buffer(f"x{last + 1}", n), work.buffer("partial", sums)
    target = work.buffer("target", 1 if model.loss == "cross-entropy" else n)
    task = work.task()
    pairs = work.stays_in_l1(last)
    if not pairs:
        task.loads.append(whole(work, False, y, f"x{last + 1}", last, output=True))
    rows, columns = matrix(model.input_shape) if model.target_is_input else (1, work.sizes[target] // 4)
    task.load(target, "x0" if model.target_is_input else "target", (0, rows), (0, columns))
    fused = pairs and model.loss == "mse"
    gradient = work.buffer(f"d{last}" if fused else f"g{last}", 2 * n if fused else n)

    def call(at: Addresses) -> Call:
        if fused:
            return loss.mse(at(y), at(target), at(gradient), at(partial), n, work.lr, work.all_cores)
        return make(at(y), at(target), at(gradient), at(partial), n, work.all_cores)

    task.compute(call, (y, target), (gradient, partial))
    if pairs and not fused:
        linear_pairs(work, task, gradient, last)
    elif not pairs:
        task.stores.append(whole(work, True, gradient, f"g{last}", last, output=True))
    task.store(partial, "loss", (0, 1), (0, work.all_cores + 1))
