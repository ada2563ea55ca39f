"""Completion by the user's shell: what follows on what was typed. Nothing slow is imported for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

SHELLS = ("bash", "zsh", "fish")


class Named(click.ParamType):
    """A text, completed from the names there are, each with what is said of it, or as a file where none fits.

    names: of what has been typed before.
    """

    name = "text"

    def __init__(self, names: Callable[[click.Context], Iterable[tuple[str, str]]], files: bool = True):
        self._names, self._files = names, files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name, help=said) for name, said in self._names(ctx) if name.startswith(incomplete)]
        return found or ([CompletionItem(incomplete, type="file")] if self._files else [])


#: a file's name
FILE = Named(lambda context: [])


def _platforms(context: click.Context) -> list[tuple[str, str]]:
    from pulpsim.platform import Platform

    return [(name, Platform.preset(name).description) for name in Platform.presets()]


def _settings(context: click.Context) -> list[tuple[str, str]]:
    """KEY=VALUE as the platform has it."""
    from pulpsim.errors import PulpsimError
    from pulpsim.platform import Platform

    try:
        platform = Platform.load(context.params.get("platform_source") or "pulp-2022")
    except (PulpsimError, OSError):
        return []
    return [(f"{key}={_plain(value)}", "") for key, value in _flat(platform.to_dict()) if "." in key]


def _flat(table: dict[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        yield from _flat(value, f"{above}{key}.") if isinstance(value, dict) else [(above + key, value)]


def _plain(value: Any) -> str:
    """As --set takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


PLATFORM = Named(_platforms)
SETTING = Named(_settings, files=False)


def completion_command(program: str) -> click.Command:
    """`PROGRAM completion SHELL`."""
    from pulpsim.console import Command

    @click.command(cls=Command, name="completion", examples=f"{program} completion bash > {program}.bash")
    @click.argument("shell", type=click.Choice(SHELLS))
    @click.pass_context
    def completion(context: click.Context, shell: str) -> None:
        """Print what a SHELL needs to complete commands, options and names.

        \b
        bash: add to ~/.bashrc     eval "$(PROGRAM completion bash)"
        zsh:  add to ~/.zshrc      eval "$(PROGRAM completion zsh)"
        fish: write it to          ~/.config/fish/completions/PROGRAM.fish
        """
        kind = get_completion_class(shell)
        assert kind is not None
        group = context.find_root().command
        # as ShellComplete does it, and not the shells' own: bash's first asks which bash there is
        click.echo(ShellComplete.source(kind(group, {}, program, f"_{program}_COMPLETE".upper())))

    completion.help = (completion.help or "").replace("PROGRAM", program)
    return completion
