"""Numba functions, which Python can call, and their sealed files in the cache."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

from pulpsim.jit.cache import read_sealed, seal, writable_directory

#: of all functions
OPTIONS = {"nogil": True, "error_model": "numpy"}


def cached(python: Callable[..., Any], options: Mapping[str, bool]) -> Any:
    """The function as Numba's. (Left to itself, Numba would write beside the sources.)"""
    directory = writable_directory(Path(python.__code__.co_filename).parent)
    outer = numba.config.CACHE_DIR
    # Numba picks the cache's place while it decorates; other users' functions keep theirs.
    numba.config.CACHE_DIR = str(directory or "")
    try:
        dispatcher = numba.njit(**OPTIONS, **options)(python)
        if directory is not None:
            dispatcher._cache = _SealedCache(python)
        return dispatcher
    finally:
        numba.config.CACHE_DIR = outer


class _SealedCache(FunctionCache):
    """Numba's cache of a function's code, whose files are sealed."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _SealedFile(self._cache_path, self._impl.filename_base, stamp)

    def save_overload(self, signature: Any, data: Any) -> None:
        """What cannot be written is compiled again another time."""
        with suppress(OSError):
            super().save_overload(signature, data)


class _SealedFile(IndexDataCacheFile):
    """An index and its data. Numba reads nothing after the end of what it wrote: there the seal stands."""

    def _load_index(self) -> Any:
        return super()._load_index() if _is_sealed(self._index_path) else {}

    def _load_data(self, name: str) -> Any:
        if not _is_sealed(self._data_path(name)):
            raise OSError(f"{name}: damaged")  # as if it were not there
        return super()._load_data(name)

    @contextmanager
    def _open_for_write(self, path: str) -> Iterator[io.BytesIO]:
        content = io.BytesIO()
        yield content
        with super()._open_for_write(path) as file:
            file.write(content.getvalue() + seal(content.getvalue()))


def _is_sealed(path: str) -> bool:
    return read_sealed(Path(path)) is not None
