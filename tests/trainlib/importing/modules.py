"""PyTorch's networks that tests export: each has something that exporters write in several ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn, f = torch.nn, torch.nn.functional


class Residual(nn.Module):  # type: ignore[misc]
    """Batch normalisation, a branch, strides, a mean over the image."""

    def __init__(self, norm: bool = True):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) if norm else nn.Identity() for _ in range(2))
        self.short, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.norms[0](self.first(x)))
        return self.fc(torch.relu(self.norms[1](self.second(y)) + self.short(y)).mean((2, 3)))


class Joined(nn.Module):  # type: ignore[misc]
    """Groups, a concatenation, a depthwise convolution, normalisation of groups, a leaky ReLU, an adaptive pool."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped, self.wide = nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Conv2d(2, 4, 5, padding=2)
        self.depthwise, self.fc = nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.Linear(8, 3)
        self.norm = nn.GroupNorm(4, 8)

    def forward(self, x: Any) -> Any:
        y = f.leaky_relu(self.norm(self.depthwise(torch.cat([self.grouped(x), self.wide(x)], 1))), 0.1)
        return self.fc(torch.flatten(f.adaptive_avg_pool2d(y, 1), 1))


class Uneven(nn.Module):  # type: ignore[misc]
    """Asymmetric padding and kernels, a pool that rounds up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, (4, 3), stride=(2, 1)), nn.Linear(96, 4)

    def forward(self, x: Any) -> Any:
        return self.fc(f.max_pool2d(self.conv(f.pad(x, (1, 0, 2, 1))), 2, ceil_mode=True).flatten(1))


class Signal(nn.Module):  # type: ignore[misc]
    """One dimension, dilation, batch normalisation of signals and of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(3, 6, 5, stride=2, padding=2), nn.BatchNorm1d(6)
        self.second, self.fc, self.last = nn.Conv1d(6, 6, 3, dilation=2), nn.Linear(36, 3), nn.BatchNorm1d(3)

    def forward(self, x: Any) -> Any:
        y = torch.tanh(self.second(torch.relu(self.norm(self.first(x)))))
        return self.last(self.fc(f.avg_pool1d(y, 2).flatten(1)))


class Vectors(nn.Module):  # type: ignore[misc]
    """Layer normalisation, GELU, a layer without bias, hard swish."""

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.parts = nn.Sequential(
            nn.Linear(12, 16), nn.LayerNorm(16), nn.GELU(approximate), nn.Linear(16, 16, bias=False), nn.Hardswish(),
            nn.Linear(16, 4),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.parts(x)


class Ended(nn.Module):  # type: ignore[misc]
    """Instance normalisation, ReLU6, a counted mean, arithmetic with numbers, a softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.Linear(54, 7)

    def forward(self, x: Any) -> Any:
        y = f.avg_pool2d(f.relu6(self.norm(self.conv(x * 2 - 1))), 3, 2, padding=1)
        return f.softmax(self.fc(y.reshape(x.shape[0], -1)), 1)


class Tokens(nn.Module):  # type: ignore[misc]
    """Attention: learned positions, queries, keys and values of one product, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Conv2d(2, 8, 3, stride=3), nn.Parameter(0.1 * torch.randn(1, 9, 8))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.qkv, self.out, self.up, self.down = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        y = self.embed(x).flatten(2).transpose(1, 2) + self.place
        samples, count, features = y.shape
        q, k, v = self.qkv(self.norms[0](y)).reshape(samples, count, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        seen = torch.softmax(q @ k.transpose(-1, -2) * 0.5, -1) @ v
        y = y + self.out(seen.transpose(1, 2).reshape(samples, count, features))
        return self.fc((y + self.down(f.gelu(self.up(self.norms[1](y))))).mean(1))


class Again(nn.Module):  # type: ignore[misc]
    """An autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 20))

    def forward(self, x: Any) -> Any:
        return self.parts(x)


class Logs(nn.Module):  # type: ignore[misc]
    """Dropout, a sigmoid, logarithms of a softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(
            nn.Flatten(), nn.Linear(18, 8), nn.Dropout(0.3), nn.Sigmoid(), nn.Linear(8, 3), nn.LogSoftmax(1)
        )

    def forward(self, x: Any) -> Any:
        return self.parts(x)


#: (the module, shape of a sample)
MODULES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "residual": (Residual, (3, 9, 9)),
    "without-norms": (lambda: Residual(norm=False), (3, 9, 9)),
    "joined": (Joined, (2, 7, 7)),
    "uneven": (Uneven, (1, 14, 12)),
    "signal": (Signal, (3, 31)),
    "vectors": (Vectors, (12,)),
    "vectors-tanh": (lambda: Vectors("tanh"), (12,)),
    "ended": (Ended, (2, 8, 8)),
    "tokens": (Tokens, (2, 9, 9)),
    "autoencoder": (Again, (20,)),
    "logs": (Logs, (2, 3, 3)),
}


def made(name: str) -> tuple[Any, Any]:
    """(a module in inference, whose numbers are all its own; a sample)."""
    make, shape = MODULES[name]
    torch.manual_seed(sum(map(ord, name)))
    module = make()
    for part in module.modules():  # no two parameters alike: an exporter would keep one for both
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    return module.eval(), torch.randn(1, *shape)
