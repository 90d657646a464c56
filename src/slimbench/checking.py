"""The installation, the plug-ins, the data and the store go in; findings come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slimbench import discover, environment, misfits
from slimbench.core import MissingDataError, UserError, first_line
from slimbench.store import Store, holds_records

if TYPE_CHECKING:
    from slimbench.core import Task


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    text: str
    is_good: bool = True


def check(tasks: tuple[Task, ...], store: str) -> list[Finding]:
    """Everything that can be looked at without training. Named tasks must have their data; others may lack them."""
    return [*_installation(), *_plugins(), *_data(tasks), *_store(store)]


def _installation() -> list[Finding]:
    found = environment.versions()
    packages = ", ".join(f"{name} {version}" for name, version in found.items())
    bf16 = "bf16 in hardware" if environment.has_fast_bf16() else "no bf16 in hardware"
    taken = environment.instructions()
    machine = f"{environment.cpu_name()}, {environment.physical_cores()} cores, {bf16}, torch takes {taken}"
    return [
        Finding("packages", packages, "absent" not in found.values()),
        Finding("machine", machine),
    ]


def _plugins() -> list[Finding]:
    findings = []
    for kind in discover.KINDS:
        classes = discover.found(kind)
        bad = [name for name, cls in classes.items() if not is_frozen(cls)]
        text = f"{len(classes)} found" + (f"; not frozen dataclasses with defaults: {', '.join(bad)}" if bad else "")
        findings.append(Finding(kind.replace("_", " "), text, not bad))
    return findings


def is_frozen(cls: type) -> bool:
    """Whether a class is a frozen dataclass that needs no arguments."""
    return misfits.is_frozen(cls) and not discover.without_default(cls)


def _data(tasks: tuple[Task, ...]) -> list[Finding]:
    findings = []
    every = discover.found("tasks").values()
    for task in tasks or tuple(cls() for cls in every if not discover.without_default(cls)):
        try:
            task.check()
        except UserError as error:
            absent = not tasks and isinstance(error, MissingDataError)
            findings.append(Finding(f"data of {task.name}", "not at hand" if absent else str(error), absent))
        except Exception as error:  # noqa: BLE001  a user's task may raise anything
            findings.append(Finding(f"data of {task.name}", f"cannot be loaded ({first_line(error)})", is_good=False))
        else:
            said = task.unusual() if hasattr(task, "unusual") else ""
            findings.append(Finding(f"data of {task.name}", f"verified; {said}" if said else "verified"))
    return findings


def _store(root: str) -> list[Finding]:
    if "://" not in root and not holds_records(Path(root)):
        return [Finding("store", f"none in {root} yet")]
    from slimbench import artifact

    store = Store(root, create=False)
    records = store.records()
    findings = [Finding("store", f"{len(records)} records, {len(store.measurements())} measurements in {root}")]
    findings += [Finding("record", warning, is_good=False) for warning in store.warnings]
    for record in records:
        if record.artifact:
            try:
                artifact.verify(store.artifact(record.id))
                artifact.refuse_other(store.artifact(record.id), record.artifact)
            except UserError as error:
                findings.append(Finding(f"network {record.id}", str(error), is_good=False))
    return findings
