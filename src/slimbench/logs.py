"""A job's log: events of its runner and lines that its worker printed go in, one JSON object a line; text comes out."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from typing import TYPE_CHECKING, Any

from slimbench.core import UserError
from slimbench.store import some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from slimbench.store import Store

ENDS = ("done", "failed", "stop")
_PROGRESS_S = 10.0  # a cell trains for days
_LOOK_S = 0.3
_TAIL_BYTES = 65536
_LONGEST = 65536  # bytes of a line that has no end


class Writer:
    """Appends to a job's file. A log that cannot be written ends no run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rest = b""
        self._told: tuple[Any, float] = (None, 0.0)

    def write(self, event: str, **facts: Any) -> None:
        """One line, with the time."""
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with contextlib.suppress(OSError), self.path.open("a") as file:
            file.write(json.dumps({"at": at, "event": event} | facts, default=str) + "\n")

    def progress(self, message: dict[str, Any]) -> None:
        """How far a job is: each stage, and now and then within one."""
        stage, now = message.get("stage") or message.get("fit"), time.monotonic()
        if stage != self._told[0] or now - self._told[1] >= _PROGRESS_S:
            self._told = stage, now
            self.write("progress", **message)

    def printed(self, chunk: bytes, *, last: bool = False) -> None:
        """What a worker printed, by whole lines as a terminal would show them; the last one may lack its end."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = _shown(rest)
        if (last and self._rest) or len(self._rest) > _LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self.write("printed", text=_shown(line).removesuffix(b"\r").decode(errors="replace"))


def _shown(line: bytes) -> bytes:
    """What carriage returns leave of a line, the last one's own too: progress bars write it over and over."""
    return line[line.rfind(b"\r", 0, len(line) - 1) + 1 :]


def find(store: Store, prefix: str) -> Path:
    """The one log whose id starts with ``prefix``. Raises: UserError where there is none, or several."""
    found = sorted(path for path in (store.root / "logs").glob("*.log") if path.stem.startswith(prefix))
    if not found:
        raise UserError(
            f"No log has an id that starts with {prefix!r}: `bench status` lists what runs, `bench plan SUITE` cells."
        )
    if len(found) > 1:
        labels = some([path.stem for path in found], lambda name: label(store.log(name)))
        raise UserError(f"{len(found)} logs have ids that start with {prefix!r}, {labels}: give more of the id.")
    return found[0]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """What a log holds so far; a line that is no JSON was printed."""
    with path.open(errors="replace") as file:
        for line in file:
            yield parse(line)


def follow(path: Path, *, is_over: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """What a log holds, and what comes, until it has ended or nobody writes any more."""
    with path.open(errors="replace") as file:
        line, ended = "", False
        while True:
            part = file.readline()
            line += part
            if line.endswith("\n"):
                fact, line = parse(line), ""
                ended = fact["event"] in ENDS
                yield fact
            elif not part:
                if ended or is_over():
                    return
                time.sleep(_LOOK_S)


def last(path: Path) -> dict[str, Any]:
    """The last event that is no printed line, from the end of the file; empty where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read().decode(errors="replace").splitlines()
    except OSError:
        return {}
    return next((fact for fact in map(parse, reversed(tail)) if fact["event"] != "printed"), {})


def label(path: Path) -> str:
    """What the first line says that the job is; empty where it does not."""
    try:
        with path.open(errors="replace") as file:
            return str(parse(file.readline()).get("label", ""))
    except OSError:
        return ""


def parse(line: str) -> dict[str, Any]:
    """A line as a fact; anything else than ours (an older log's) as text that was printed."""
    try:
        fact = json.loads(line)
        fact["at"], fact["event"]
    except (ValueError, TypeError, KeyError):
        return {"at": "", "event": "printed", "text": line.rstrip("\n")}
    return dict(fact)


def as_text(fact: dict[str, Any]) -> str:
    """A fact as a line for people."""
    rest = {name: value for name, value in fact.items() if name not in {"at", "event", "text"}}
    said = fact.get("text") or ", ".join(f"{name} {_short(value)}" for name, value in rest.items())
    when = fact["at"][:19].replace("T", " ")
    return f"{when:19}  {fact['event']:8}  {said}".rstrip()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
