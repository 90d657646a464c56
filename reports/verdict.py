"""Findings of a night go in; a summary in Markdown and a JUnit file come out. Same findings, same bytes."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tabulate import tabulate

from slimbench.regression import exit_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slimbench.regression import Finding

_SAID = {0: "No regression", 1: "Regression", 2: "Could not tell"}
_ORDER = ("regression", "cannot tell", "fine")
_FORBIDDEN = re.compile(r"[^\t\n\r -\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")  # by XML 1.0; files hold no surrogates
_KINDS = {
    "run": "Cells that one side lacks",
    "counts": "Status, id, MACs and params",
    "scores": "Scores",
    "latency": "Latency",
}


def markdown(findings: Sequence[Finding], about: str) -> str:
    """The verdict, what is wrong, and every proxy with its detectable difference. ``about``: what was compared."""
    status = exit_status(findings)
    bad = sorted((f for f in findings if f.verdict != "fine"), key=lambda f: _ORDER.index(f.verdict))
    parts = [f"## {_SAID[status]}\n", f"{_escaped(about)}\n", _counted(findings)]
    if bad:
        parts.append(_table(bad, verdicts=True))
    for kind, title in _KINDS.items():
        told = [f for f in findings if f.kind == kind and f.verdict == "fine" and f.text != "equal"]
        if told:
            parts.append(f"<details><summary>{title}: {len(told)} without a fault</summary>\n")
            parts.append(_table(told, verdicts=False))
            parts.append("</details>\n")
    return "\n".join(parts)


def _counted(findings: Sequence[Finding]) -> str:
    """How many findings of each kind went how."""
    counts: Counter[tuple[str, str]] = Counter((f.kind, f.verdict) for f in findings)
    rows = [[title, *(counts[kind, verdict] for verdict in _ORDER)] for kind, title in _KINDS.items()]
    told = tabulate(rows, ["", *_ORDER], tablefmt="github") + "\n"
    if any(f.kind == "latency" for f in findings):
        return told
    return f"{told}\nLatencies were not compared: the baseline has none.\n"


def _table(findings: Sequence[Finding], *, verdicts: bool) -> str:
    rows = [[*([f.verdict] if verdicts else []), _escaped(f.what), _escaped(f.text)] for f in findings]
    heads = [*(["verdict"] if verdicts else []), "what", "finding"]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True) + "\n"


def _escaped(text: str) -> str:
    """What would divide a table's cells, or start a tag."""
    return _line(text).replace("|", r"\|").replace("<", "&lt;")


def _line(text: str) -> str:
    """One line that every file can hold: a method's last word is anything."""
    return " ".join(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text).splitlines())


def junit(findings: Sequence[Finding]) -> str:
    """A regression is a failure, what could not be told an error."""
    counts = Counter(f.verdict for f in findings)
    suite = ElementTree.Element(
        "testsuite",
        name="slimbench",
        tests=str(len(findings)),
        failures=str(counts["regression"]),
        errors=str(counts["cannot tell"]),
    )
    for f in findings:
        case = ElementTree.SubElement(suite, "testcase", classname=f.kind, name=_line(f.what))
        if f.verdict == "fine":
            ElementTree.SubElement(case, "system-out").text = _line(f.text)
        else:
            ElementTree.SubElement(case, "failure" if f.verdict == "regression" else "error", message=_line(f.text))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
