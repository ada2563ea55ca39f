"""What a matrix product takes of the cores, by kernel: the estimate that chooses one, and the bound."""

from __future__ import annotations

from functools import cache

from trainlib.kernels import matmul


def instructions(name: str, n: int, m: int, cores: int) -> float:
    """Instructions per step of K on the core with the most blocks, the leftovers as single sums.

    U x V sums take U + V loads and U V multiplications.
    """
    geometry = matmul.GEOMETRIES[matmul.resolve(name, n, 1, m, cores)]
    n, m = (n, m) if geometry.split == "N" else (m, n)
    u, v = geometry.along, geometry.across
    blocks = -(-(n // u) // cores)
    left = n % u * -(-m // cores)  # leftover rows are shared out along the other dimension
    per_block = m // v * (u * v + u + v) + m % v * u * 3
    return blocks * per_block + left * 3 + (0.01 if u * v == 1 and geometry.unroll_k == 1 else 0)


@cache
def issue_cycles(kernel: str, n: int, m: int, cores: int) -> tuple[int, int]:
    """Of the core with the most blocks: u + v + u v a block and step of k; its outputs, whose sums are set.

    (That they are stored, `around` counts.)
    """
    geometry = matmul.GEOMETRIES[matmul.resolve(kernel, n, 1, m, cores)]
    along, across = (n, m) if geometry.split == "N" else (m, n)
    u, v = geometry.along, geometry.across
    blocks, rest = -(-(along // u) // cores), across % v
    return blocks * (across // v * (u + v + u * v) + (u + rest + u * rest if rest else 0)), blocks * u * across
