"""Values go in; what templates print of them comes out, escaped."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup, escape

from slimbench.identity import digest
from slimbench.reports._text import BOLD, PLAIN

_LONGEST = 300  # characters of a text in a list of settings


def marked(text: str) -> Markup:
    """Text of a table's cell, with what is bold."""
    return Markup(str(escape(text)).replace(BOLD, "<b>").replace(PLAIN, "</b>"))  # noqa: S704  escaped right here


def is_nested(value: Any) -> bool:
    """Whether a value has parts worth a list of their own."""
    return isinstance(value, dict) and bool(value)


def shown(value: Any) -> str:
    """A number, text, or short list in words."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        text = ", ".join(map(shown, value))
    elif isinstance(value, dict):
        text = ", ".join(f"{key}: {shown(inner)}" for key, inner in value.items())
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text)} characters)"


def when(text: str) -> str:
    """A UTC time of ISO 8601 for people."""
    return text.replace("T", " ").replace("+00:00", " UTC")


def slug(text: str) -> str:
    """A file name: readable, and different for different texts."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]
    return f"{plain}-{digest(text)[:6]}"


def file_of(kind: str, name: str) -> str:
    """Where the page of a task, method or cell lies: ids and plain names as they are."""
    return f"{kind}/{name if re.fullmatch(r'[a-z0-9_]{1,60}', name) else slug(name)}.html"


def said_by(stem: str, record_id: str) -> str:
    """What a picture of a note shows, by the name of its file."""
    return stem.removeprefix(f"{record_id}-").replace("-", " ")


def tail(log: str, lines: int = 60) -> str:
    """The last lines of a log, without colours and lines that were written over."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", log)
    return "\n".join(line.rpartition("\r")[2] for line in plain.replace("\r\n", "\n").splitlines()[-lines:])
