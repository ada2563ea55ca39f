"""Where compiled code is kept: in the user's cache directory, or in PULPSIM_CACHE_DIR.

Its folder's name holds a digest of the sources of this package and of the modules beside the function, whose constants
and functions end up in compiled code, and of what compiles: a newer release never meets older machine code. Every file
ends in a digest of what is before it, its seal: what was damaged, cut short or cannot be read is compiled anew and
written again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "PULPSIM_CACHE_DIR"
PACKAGE = Path(__file__).parents[1]
COMPILERS = ("numba", "llvmlite")


def cache_directory() -> Path:
    """Where compiled code and other reproducible files may be kept."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("pulpsim"))


@cache
def _digest(beside: Path) -> str:
    """Of this package and, if `beside` is the folder of another one, its modules."""
    digest = hashlib.sha256("".join(f"{name} {version(name)}\n" for name in COMPILERS).encode())
    package = sorted(PACKAGE.rglob("*.py"))
    others = sorted(beside.glob("*.py")) if (beside / "__init__.py").exists() else []
    for path in package + [path for path in others if path not in package]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def code_directory(beside: Path) -> Path:
    """The folder of this version's compiled code, of functions that are in the folder `beside`."""
    return cache_directory() / "jit" / _digest(beside)


@cache
def writable_directory(beside: Path) -> Path | None:
    """As `code_directory`, made; None, with a warning, if nothing can be kept there."""
    directory = code_directory(beside)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError as error:
        warnings.warn(
            f"{directory}: {error.strerror}: code is compiled anew in every run; set {CACHE_VARIABLE} to a folder "
            f"that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def is_compiled() -> bool:
    """Whether an earlier run has left the fast engine's compiled code."""
    return any(code_directory(PACKAGE / "engine").glob("*.o"))


# -- sealed files ----------------------------------------------------------------------------------
def seal(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


SEAL_BYTES = len(seal(b""))


def read_sealed(path: Path) -> bytes | None:
    """What a file holds before its seal; None if it is not there, cannot be read or is not as it was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content[:-SEAL_BYTES] if content[-SEAL_BYTES:] == seal(content[:-SEAL_BYTES]) else None


def write_sealed(path: Path, content: bytes) -> None:
    """At once or not at all; what cannot be written is compiled again another time."""
    with suppress(OSError):
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content + seal(content))
        try:
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
