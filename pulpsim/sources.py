"""What stands behind a platform's numbers: the comments of its file, and of the preset that it takes the rest from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pulpsim.platform import Platform

#: how the comment behind a value begins, or behind `base` if it is so for all that is taken over
ASSUMED = "assumed"
#: where comments begin in a line of `annotated`
COLUMN = 40


@dataclass(frozen=True)
class Preset:
    """A preset's file as its reader sees it: what stands above its first value, and behind each value."""

    base: str | None
    preface: str
    comments: Mapping[str, str]  # of every key that the file sets

    @property
    def assumes(self) -> bool:
        """What it takes over from its base is an assumption."""
        return self.comments.get("base", "").startswith(ASSUMED)


def read_preset(text: str) -> Preset:
    """Raises ValueError if a line is not understood: one `key = value  # comment` each."""
    preface: list[str] = []
    comments: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        head = re.fullmatch(r"\[(\w+)\]\s*(?:#.*)?", line)
        pair = re.fullmatch(r'(\w+)\s*=\s*(?:"[^"]*"|\[[^\[\]#]*\]|[^"#\s]+)\s*(?:#\s*(.*))?', line)
        if head:
            section = head[1] + "."
        elif pair:
            comments[section + pair[1]] = pair[2] or ""
        elif line.startswith("#") and not comments:
            preface.append(line.lstrip("# "))
        elif line.strip():
            raise ValueError(f"not understood: {line}")
    table = tomllib.loads(text)
    if missed := set(_keys(table)) ^ comments.keys():
        raise ValueError(f"not found by line: {', '.join(sorted(missed))}")
    return Preset(table.get("base"), " ".join(preface), comments)


def _keys(table: Mapping[str, object]) -> Iterable[str]:
    for name, value in table.items():
        yield from (f"{name}.{key}" for key in value) if isinstance(value, dict) else (name,)


def preset(name: str) -> Preset:
    """A shipped preset's file."""
    return read_preset((resources.files("pulpsim") / "platforms" / f"{name}.toml").read_text(encoding="utf-8"))


def comments_of(name_or_file: str) -> dict[str, str]:
    """Dotted key -> comment of a preset or a file, taken over where the value is; {} for a file not a key a line."""
    if name_or_file in Platform.presets():
        found = preset(name_or_file)
    else:
        try:
            found = read_preset(Path(name_or_file).read_text(encoding="utf-8"))
        except ValueError:
            return {}
    base = {} if found.base is None else comments_of(found.base)
    if found.assumes:
        base = {key: f"{ASSUMED}: as {found.base}" + (f" ({text})" if text else "") for key, text in base.items()}
    return {key: text for key, text in (base | dict(found.comments)).items() if key != "base"}


def annotated(platform: Platform, comments: Mapping[str, str]) -> str:
    """The whole description as TOML, with comments behind the values; it loads as a platform's file."""
    out, section = [], ""
    for line in platform.to_toml().splitlines():
        if line.startswith("["):
            section = line.strip("[]") + "."
        comment = comments.get(section + line.partition(" = ")[0], "")
        out.append(f"{line:<{COLUMN - 1}} # {comment}" if comment else line)
    return "\n".join(out) + "\n"
