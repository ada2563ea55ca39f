"""The page around the sections: one file, that needs nothing but itself."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib import resources

from trainlib.page.markup import Markup, tag

#: a section: what links call it, its heading, what it says first, and what is in it
Part = tuple[str, str, str, Markup]


def document(title: str, subtitle: Markup, parts: Sequence[Part], foot: str) -> str:
    """A whole HTML file."""
    style, script = _file("page.css"), _file("page.js")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = tag(
        "head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"), tag("title", title),
        tag("style", Markup(style)),
    )  # fmt: skip
    links = [tag("a", heading, href=f"#{ident}") for ident, heading, _, _ in parts]
    theme = tag("button", "theme", type="button", id="theme", aria_label="light or dark")
    sections = [
        tag("section", tag("h2", heading), tag("p", about, class_="about") if about else None, body, id=ident)
        for ident, heading, about, body in parts
    ]
    body = tag(
        "body", tag("header", theme, tag("h1", title), tag("p", subtitle, class_="subtitle"), tag("nav", *links)),
        tag("main", *sections), tag("footer", foot),
        tag("div", id="tip", role="status", aria_live="polite", hidden=True),
        tag("script", Markup(script)),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


@cache
def _file(name: str) -> str:
    return (resources.files("trainlib.page") / name).read_text(encoding="utf-8")
