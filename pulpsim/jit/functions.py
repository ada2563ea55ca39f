"""What decorates functions that are compiled: nothing is compiled, and Numba not imported, before one is needed.

A compiled function calls another one in one of two ways. Called from Python, each is a Numba function of its own, with
its own files in the cache (`dispatchers`). Reached from a `native` one, it is a part of that one's code (`parts`,
`linking`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from importlib import import_module
from typing import Any


class Function:
    """A function that Numba compiles when it is called, or when a function that calls it is compiled.

    options: of `numba.njit`, beside those that all functions have.
    """

    def __init__(self, python: Callable[..., Any], **options: bool):
        self.python, self.options, self.name = python, options, python.__name__
        update_wrapper(self, python)

    def __call__(self, *arguments: Any) -> Any:
        return self.dispatcher(*arguments)

    @cached_property
    def dispatcher(self) -> Any:
        """The Numba function."""
        from pulpsim.jit.dispatchers import cached

        return cached(self.python, self.options)

    @cached_property
    def part(self) -> Any:
        """The Numba function whose code is only to be linked with that of others."""
        from pulpsim.jit.parts import part

        return part(self.python, self.options)

    @property
    def _numba_type_(self) -> Any:
        """What Numba asks for when a function that it compiles calls this one."""
        from pulpsim.jit.linking import links

        return self._part_type if links() else self._type

    @cached_property
    def _type(self) -> Any:
        return _dispatcher_type(self.dispatcher)

    @cached_property
    def _part_type(self) -> Any:
        return _dispatcher_type(self.part)


def _dispatcher_type(dispatcher: Any) -> Any:
    from numba import types

    return types.Dispatcher(dispatcher)


class Intrinsic:
    """A function of one of this package's modules, for compiled functions alone."""

    def __init__(self, name: str, module: str = "intrinsics"):
        self._name, self._module = name, module

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self._name}: only compiled functions can call it")

    @cached_property
    def _numba_type_(self) -> Any:
        from numba.core.registry import cpu_target

        function = getattr(import_module(f"pulpsim.jit.{self._module}"), self._name)
        cpu_target.typing_context.refresh()
        return cpu_target.typing_context.resolve_value_type(function)


def compiled(python: Callable[..., Any]) -> Function:
    """Decorator: the function as a cached, GIL-free Numba function with IEEE division."""
    return Function(python)


def heapless(python: Callable[..., Any]) -> Function:
    """As `compiled`, for functions that make no arrays: those they are given are not reference-counted.

    (Counting is atomic, and costs more than many a function that is called a million times a second.)
    """
    return Function(python, _nrt=False)


def inlined(python: Callable[..., Any]) -> Function:
    """As `heapless`, and always inlined: for small functions in hot loops, whose calls would cost more."""
    return Function(python, _nrt=False, forceinline=True)
