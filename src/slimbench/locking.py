"""The source behind every version goes in; ``slimbench.lock`` comes out: nobody changes results and forgets to say so.

One line a source: its file, the version that stands for it, the hash of its parsed source (comments and docstrings
aside) and, where the source changed but results did not, why. A test fails when the source is another than the lock's
with the same version.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench import discover, identity
from slimbench.core import UserError
from slimbench.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "slimbench.lock"
_KINDS = ("methods", "tasks", "hardware_profiles")
_ENGINE = ("src/slimbench/train.py", "src/slimbench/seeding.py", "src/slimbench/cost.py", "src/slimbench/compress.py")


def sources() -> dict[str, dict[str, Any]]:
    """Every source that decides results: its version and its hash. Shared files stand under the engine's version."""
    versions: dict[str, int] = {}
    for kind in _KINDS:
        for cls in discover.found(kind).values():
            file = importlib.import_module(cls.__module__).__file__
            own = Path(str(file)).resolve()
            if own.is_relative_to(ROOT / kind):
                version = cls.card.version if kind == "methods" else cls.version  # type: ignore[attr-defined]
                name = own.relative_to(ROOT).as_posix()
                versions[name] = max(version, versions.get(name, 0))
    shared = [ROOT / name for name in _ENGINE]
    shared += [path for kind in _KINDS for path in sorted((ROOT / kind).rglob("*.py"))]
    for path in shared:
        versions.setdefault(path.relative_to(ROOT).as_posix(), identity.ENGINE_VERSION)
    return {
        name: {"version": version, "source": identity.source_hash((ROOT / name).read_text())}
        for name, version in sorted(versions.items())
    }


def read() -> dict[str, dict[str, Any]]:
    """The lock file's lines; none where there is no file yet."""
    lines = LOCK.read_text().splitlines() if LOCK.exists() else []
    return {entry.pop("file"): entry for line in lines if (entry := json.loads(line))}


def problems() -> list[str]:
    """What changed without a word, one sentence each."""
    locked, present, found = read(), sources(), []
    for name, now in present.items():
        before = locked.get(name)
        if before is None:
            found.append(f"{name} is not in slimbench.lock: run `bench lock`.")
        elif before["source"] != now["source"]:
            spoken = f"`bench lock --unchanged {name} --because WHY`"
            found.append(f"{name} changed: raise its version if results move, else {spoken}.")
        elif before["version"] != now["version"]:
            found.append(f"{name} has version {now['version']}, the lock says {before['version']}: run `bench lock`.")
    return found + [f"{name} is gone: run `bench lock`." for name in locked if name not in present]


def write(unchanged: Sequence[str], because: str) -> list[str]:
    """Write the lock and say what moved. Raises: UserError for a change that nobody spoke for."""
    locked, now = read(), sources()
    if unchanged and not because:
        raise UserError("--unchanged needs --because: why do the results stay the same?")
    for name in unchanged:
        discover.pick(now, name, "source")
    said, entries = [], []
    for name, entry in now.items():
        before = locked.get(name, {})
        changed = before.get("source") not in {None, entry["source"]}
        if changed and entry["version"] == before["version"] and name not in unchanged:
            raise UserError(f"{name} changed: raise its version, or say --unchanged {name} --because WHY.")
        if before.get("source") != entry["source"] or before.get("version") != entry["version"]:
            said.append(f"{name}: version {entry['version']}, {entry['source']}")
        note = because if name in unchanged else ("" if changed else before.get("unchanged", ""))
        entries.append({"file": name, **entry, **({"unchanged": note} if note else {})})
    write_whole(LOCK, "".join(json.dumps(entry) + "\n" for entry in entries))
    return said or ["nothing moved"]
