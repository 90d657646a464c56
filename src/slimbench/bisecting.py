"""A proxy that got worse and two commits go in; the first commit at which it was worse comes out, by `git bisect`.

Each step makes the proxy's cells with the code of its commit, in a worktree of its own, and judges them with today's:
their counts and scores, or how fast the first seed's network is beside the baseline's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench import baseline, discover, environment, latency, regression
from slimbench.core import UserError
from slimbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slimbench.baseline import Baseline, Kept
    from slimbench.regression import Finding

_SKIP = 125  # what `git bisect run` takes for "this commit cannot be tested"
_STOP = 255  # and for "no commit can be"
_MAKER = Path(__file__).with_name("cells_of_commit.py")


@dataclass(frozen=True)
class Step:
    """What is made and judged at each commit.

    Attributes:
        file: the baseline.
        proxy: one of its proxies.
        root: the repository's top folder.
        any_change: whether a sample that scores otherwise is bad enough; else a regression must be found.
        profile: the one by which latencies are judged; empty: counts and scores are.
        plugins: users' files, relative to the root.
        tasks, methods: that join the suite, as for `bench run`.

    """

    file: str
    proxy: str
    suite: str
    root: str
    any_change: bool = False
    profile: str = ""
    plugins: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


def first_bad(repository: Path, good: str, bad: str, command: list[str]) -> tuple[str, str]:
    """The first commit after ``good`` at which the command, run in a worktree, exits with 1, and git's own report.

    Raises: UserError where it does not exit so at ``bad``, nor with 0 at ``good``, or where git finds none, since
    commits do not exist or those that matter could not be tested.
    """
    first, last = (_git(repository, "rev-parse", "--verify", f"{commit}^{{commit}}").strip() for commit in (good, bad))
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        try:
            _git(repository, "worktree", "add", "--detach", str(tree), last)
            _must_exit(1, tree, bad, command, "is not worse than the baseline: there is no commit to look for")
            _git(tree, "checkout", "--detach", first)
            _must_exit(0, tree, good, command, "does not give the baseline's results here: packages or machine differ")
            _git(tree, "bisect", "start", last, first, "--")
            told = _git(tree, "bisect", "run", *command)
            return _git(tree, "rev-parse", "refs/bisect/bad").strip(), told
        finally:
            _ran(["git", "worktree", "remove", "--force", "--force", str(tree)], repository)  # half made and locked too


def _must_exit(status: int, tree: Path, commit: str, command: list[str], otherwise: str) -> None:
    """Git believes what it is told of both ends: a search for what is not there would blame anyone."""
    done = _ran(command, tree)
    if done.returncode not in {0, 1}:
        last = (done.stderr.strip() or "it says no more").splitlines()[-1]
        raise UserError(f"{commit} cannot be judged: {last}")
    if done.returncode != status:
        raise UserError(f"{commit} {otherwise}.")


def root(inside: Path) -> Path:
    """The repository's top folder. Raises: UserError outside of one."""
    return Path(_git(inside, "rev-parse", "--show-toplevel").strip())


def _git(where: Path, *words: str) -> str:
    done = _ran(["git", *words], where)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise UserError(f"`git {words[0]} {words[1]}` found no answer: {last}")
    return done.stdout


def _ran(words: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    """In a session of its own: an interrupt ends it with all that it started."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, cwd=where, env=environment.without_git(), stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            told, said = process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    return subprocess.CompletedProcess(words, process.returncode, told, said)


def command(step: Step) -> list[str]:
    """What `git bisect run` runs: this SlimBench, whatever lies in the worktree."""
    engine = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {engine!r}); from slimbench import bisecting; bisecting.main()"
    return [sys.executable, "-P", "-c", code, json.dumps(asdict(step))]


def main() -> None:
    """One step, in the worktree that git stands in: exit status 0 good, 1 bad, 125 cannot be tested, 255 none can."""
    step = Step(**json.loads(sys.argv[1]))
    try:
        sys.exit(_stepped(step))
    except Exception as error:  # noqa: BLE001  git would take Python's own status, 1, for a bad commit
        _tell(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        sys.exit(_STOP)


def _stepped(step: Step) -> int:
    for plugin in step.plugins:
        discover.load_plugin(str(Path(step.root) / plugin))
    with tempfile.TemporaryDirectory() as store:
        return judged(step, Store(store)) if _made(step, Path.cwd(), Path(store)) else _SKIP


def _made(step: Step, tree: Path, store: Path) -> bool:
    """Whether the commit's own code could make the cells."""
    base = baseline.read(Path(step.file))
    wanted = {cell.label: cell.seed for cell in _wanted(step, base)}
    path = [str(tree / "src")] if (tree / "src/slimbench").is_dir() else []
    env = environment.without_git() | {
        "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    }
    env |= environment.held_as(_instructions(base.machine))
    asked = {"suite": step.suite, "task": step.tasks, "method": step.methods, "wanted": wanted, "store": str(store)}
    asked["settings"] = dict(base.settings)
    asked["plugins"] = [str(tree / plugin) for plugin in step.plugins]
    done = subprocess.run([sys.executable, "-P", str(_MAKER), json.dumps(asked)], env=env, check=False)
    return done.returncode == 0


def _wanted(step: Step, base: Baseline) -> list[Kept]:
    """The proxy's cells; of latencies, those that are timed."""
    cells = baseline.timed_cells(base.cells) if step.profile else base.cells
    return [cell for cell in cells if cell.proxy == step.proxy]


def judged(step: Step, store: Store) -> int:
    """0, 1 or 125, from the records and networks of a step."""
    base, records = baseline.read(Path(step.file)), store.records()
    cells = _wanted(step, base)
    head = [cell for cell in baseline.newest(records) if cell.proxy == step.proxy]
    if step.profile:
        only = replace(base, cells=tuple(cells), apart={step.profile: base.apart[step.profile]})
        return _status(latency.compare(only, head, store, Path(step.file), say=_tell))
    pairs = regression.pairs_of(cells, head)
    if not pairs:
        _tell("none of its cells was made")
        return _SKIP
    if step.any_change and len(pairs) == len(cells):
        if any(_instructions(record.environment) != _instructions(base.machine) for record in records):
            _tell("the records were made with other vector instructions than the baseline's: any bit may differ")
            return _SKIP
        if failed := next((theirs for _, theirs in pairs if regression.is_the_machines(theirs.reason)), None):
            _tell(f"{failed.label}: {failed.reason}")
            return _SKIP
        return int(any((ours.status, ours.outputs) != (theirs.status, theirs.outputs) for ours, theirs in pairs))
    is_same = all(baseline.machine_of(record) == base.machine for record in records)
    return _status(regression.compare(cells, head, is_same_machine=is_same))


def _instructions(machine: Mapping[str, Any]) -> str:
    return str(machine.get("instructions", ""))


def _tell(text: str) -> None:
    """Whoever reads the log; the last word before a stop is the user's."""
    sys.stderr.write(text + "\n")


def _status(findings: Sequence[Finding]) -> int:
    """Git's; of no findings, nothing can be told."""
    for finding in findings:
        if finding.verdict != "fine":
            _tell(f"{finding.what}: {finding.text}")
    status = regression.exit_status(findings) if findings else 2
    return _SKIP if status == 2 else status
