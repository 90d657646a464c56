"""Many runners, one store: a lease a job goes out, so that no job is done twice and none is lost with its runner.

A runner has a file, ``runners/NAME``, that says who it is. It holds a lock on it, which the system lets go of when the
process dies, and touches it every few seconds. A lease is a symbolic link ``leases/ID`` to such a name: made in one
step, or not at all. The lease of a dead runner is not removed, for two that try would remove each other's: its
successor is the link ``leases/ID.NAME`` with the dead one's name, which again only one of them can make.

A runner is dead where its lock is free, seen from the machine that it ran on; from elsewhere, when its file has not
been touched for ``patience_s`` of the observer's own steady clock. Clocks of two machines are never compared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import secrets
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from slimbench.core import UserError
from slimbench.files import full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BEAT_S, PATIENCE_S = 10.0, 90.0


class Leases:
    """The leases that this process holds in a store, as a context: left, it holds none.

    Attributes:
        name: of this runner, unique.
        facts: what its file says of it to others.
        beat_s: how often the file is touched.

    """

    def __init__(self, root: Path, what: str = "", *, beat_s: float = BEAT_S, patience_s: float = PATIENCE_S) -> None:
        self.name = f"{platform.node().partition('.')[0] or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"
        self.leases, self.runners, self.beat_s = root / "leases", root / "runners", beat_s
        self.facts = {"host": platform.node(), "pid": os.getpid(), "boot": boot(), "what": what}
        self.facts |= {"patience_s": patience_s}
        self.held: set[str] = set()
        self._seen: dict[str, tuple[object, float]] = {}  # runner -> its last touch, and when that was first seen here
        self._over = threading.Event()

    def __enter__(self) -> Leases:
        """Write this runner's file. Raises: StoreFullError."""
        try:
            self._write()
        except OSError as error:
            raise full(error, self.runners / self.name) from error
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()
        return self

    def _write(self) -> None:
        for folder in (self.leases, self.runners):
            folder.mkdir(exist_ok=True)
        part = self.runners / f".{self.name}"  # it takes its name when it is locked: nobody sees it free
        self._file = part.open("w")
        self.facts["boot"] = self.facts["boot"] if _try_lock(self._file, fcntl.LOCK_EX) else ""
        self._file.write(json.dumps(self.facts))
        self._file.flush()
        os.fsync(self._file.fileno())
        part.rename(self.runners / self.name)

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for job in tuple(self.held):
            self.drop(job)
        self._heart.join()  # a last beat would bring this runner back
        self._leave()

    def _leave(self) -> None:
        self._forget(self.name)
        self._file.close()

    def _beat(self) -> None:
        while not self._over.wait(self.beat_s):
            with contextlib.suppress(OSError, UserError):  # a store that is away for a moment
                self._touch()

    def _touch(self) -> None:
        try:
            os.utime(self.runners / self.name)
        except FileNotFoundError:  # still for so long that others took it for dead
            self._file.close()
            self._write()

    def take(self, job: str) -> bool:
        """Lease a job, unless another runner that lives has it (or this one). Raises: UserError."""
        holder, free = self._end(job)
        if holder is not None and not self.is_dead(holder):
            return False
        if not self._make(free):
            return False
        if self._end(job)[0] != self.name:  # its predecessor was let go of meanwhile
            self._remove(free)
            return False
        self.held.add(job)
        return True

    def drop(self, job: str) -> None:
        """Give a lease back; one that was lost stays with its new holder."""
        self.held.discard(job)
        chain = list(self._chain(job))
        if chain and chain[-1][1] == self.name:
            for link, _ in chain:  # the first one first: what lies behind it binds nobody any more
                self._remove(link)

    def lost(self) -> set[str]:
        """Jobs that another runner took over, because this one was still for too long."""
        return {job for job in self.held if self._end(job)[0] != self.name}

    def holder(self, job: str) -> str | None:
        """The living runner that has a job, or None."""
        name = self._end(job)[0]
        return None if name is None or self.is_dead(name) else name

    def owner(self, job: str) -> tuple[str, Path] | None:
        """Who has a job, dead or alive, and the link that says so."""
        chain = list(self._chain(job))
        return (chain[-1][1], self.leases / chain[-1][0]) if chain else None

    def others(self) -> list[str]:
        """Every other runner that lives, or may; the files of those that are dead are removed."""
        living = []
        for name in self._names():
            if name == self.name:
                continue
            if self.is_dead(name):
                self._forget(name)  # absent is dead too
            else:
                living.append(name)
        return sorted(living)

    def _names(self) -> list[str]:
        return [file.name for file in self.runners.glob("[!.]*")]

    def _forget(self, name: str) -> None:
        (self.runners / name).unlink(missing_ok=True)

    def is_dead(self, name: str) -> bool:
        """Whether a runner is known to be dead; one that was never seen before is watched first."""
        try:
            with (self.runners / name).open() as file:
                touched, facts = os.fstat(file.fileno()).st_mtime_ns, _facts(file)
                if facts.get("boot") == boot() != "" and _try_lock(file, fcntl.LOCK_SH):
                    return True
        except FileNotFoundError:
            return True
        return self._is_still(name, touched, facts)

    def _is_still(self, name: str, touched: object, facts: Mapping[str, Any]) -> bool:
        """Whether nothing of a runner has changed for longer than it asks to be waited for, by the clock here."""
        now = time.monotonic()
        last, since = self._seen.get(name, (touched, now))
        self._seen[name] = (touched, since if last == touched else now)
        return now - self._seen[name][1] > facts.get("patience_s", PATIENCE_S)

    def _chain(self, job: str) -> Iterator[tuple[str, str]]:
        """Every link of a job with the runner that it names, the first one first."""
        link = job
        while name := self._target(link):
            yield link, name
            link = f"{job}.{name}"

    def _end(self, job: str) -> tuple[str | None, str]:
        """Who holds a job (dead or alive), and the link that the next one has to make."""
        name, link = None, job
        for _, name in self._chain(job):
            link = f"{job}.{name}"
        return name, link

    # ---------------------------------------------------------------------- links, by name: made in one step, or not

    def _make(self, link: str) -> bool:
        """Make a link to this runner; False where there is one of that name. Raises: UserError."""
        free = self.leases / link
        try:
            free.symlink_to(self.name)
        except FileExistsError:
            return False
        except OSError as error:
            problem = full(error, free)
            if isinstance(problem, UserError):
                raise problem from error
            raise UserError(
                f"No symbolic link can be made in {self.leases} ({error.strerror}): runners need them to share, so put "
                "the store on another file system."
            ) from error
        return True

    def _target(self, link: str) -> str | None:
        """The runner that a link names, or None where there is no such link."""
        try:
            return os.readlink(self.leases / link)  # noqa: PTH115  a name, not a path
        except FileNotFoundError:
            return None

    def _remove(self, link: str) -> None:
        (self.leases / link).unlink(missing_ok=True)


class Claims:
    """The jobs of one run, each of which this runner does, or another one.

    Args:
        read: a job's record in the store, or None.
        before: the records that there were when the run was planned: another one since is another runner's work.

    """

    def __init__(self, leases: Leases, read: Callable[[str], Any], before: Mapping[str, Any]) -> None:
        self.leases, self.read, self.before = leases, read, before

    def ask(self, job: str) -> tuple[Literal["mine", "theirs", "made"], Any]:
        """May this runner do a job? "made" comes with the record that another runner left."""
        if not self.leases.take(job):
            return "theirs", None
        record = self.read(job)
        if record is not None and record != self.before.get(job):
            self.leases.drop(job)
            return "made", record
        return "mine", None


def boot() -> str:
    """What tells this machine, as long as it is up, from all others; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _facts(file: IO[str]) -> dict[str, Any]:
    try:
        return dict(json.load(file))
    except ValueError:
        return {}


def _try_lock(file: IO[str], mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
