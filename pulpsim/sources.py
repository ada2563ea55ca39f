"""Where a platform's numbers come from: the comments in its file, and in the preset that it is based on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pulpsim.platform import flattened, names_file

#: presets whose timing was measured: what others take over from them is an assumption
MEASURED = ("pulp-2022", "pulp-open")


@dataclass(frozen=True)
class Preset:
    """A platform's file as its reader sees it: what stands above its first value, and behind each value."""

    base: str | None
    preface: str
    comments: Mapping[str, str]  # of every key that the file sets


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
    if missed := flattened(table).keys() ^ comments.keys():
        raise ValueError(f"not found by line: {', '.join(sorted(missed))}")
    return Preset(table.get("base"), " ".join(preface), comments)


def preset(name: str) -> Preset:
    """A shipped one."""
    return read_preset((resources.files("pulpsim") / "platforms" / f"{name}.toml").read_text(encoding="utf-8"))


def comments(name: str) -> dict[str, str]:
    """Key -> comment of a shipped preset, inherited where the value is."""
    return {key: comment for key, (_, comment) in _origins(name).items()}


def _origins(name: str) -> dict[str, tuple[str, str]]:
    """Key -> the preset whose file sets the value, and the comment there."""
    own = preset(name)
    return (_origins(own.base) if own.base else {}) | {key: (name, text) for key, text in own.comments.items()}


def sources(name_or_file: str, changed: Iterable[str] = ()) -> dict[str, str]:
    """Key -> where its value comes from, of a preset or a file; what is taken over names the preset.

    Nothing of a file whose lines are not one `key = value  # comment` each. changed: keys that --set has given values.
    """
    return _as_filed(name_or_file) | dict.fromkeys(changed, "set on the command line")


def _as_filed(name_or_file: str) -> dict[str, str]:
    is_file = names_file(name_or_file)
    try:
        own = read_preset(Path(name_or_file).read_text(encoding="utf-8")) if is_file else preset(name_or_file)
    except ValueError:
        return {}
    assumed = "" if is_file or name_or_file in MEASURED else "assumed, as in "
    taken_over = _origins(own.base) if own.base else {}
    every = {key: f"{assumed}{origin}: {comment}".removesuffix(": ") for key, (origin, comment) in taken_over.items()}
    return {key: source for key, source in (every | dict(own.comments)).items() if source}
