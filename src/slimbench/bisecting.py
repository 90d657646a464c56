"""A proxy that got worse and two commits go in; the first commit at which it was worse comes out, by `git bisect`.

Each step makes the proxy's cells with the code of its commit, in a worktree of its own, and judges them with today's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from slimbench import baseline, regression
from slimbench.core import UserError
from slimbench.store import Store

_SKIP = 125  # what `git bisect run` takes for "this commit cannot be tested"
_MAKER = Path(__file__).with_name("cells_of_commit.py")


@dataclass(frozen=True)
class Step:
    """What is made and judged at each commit.

    Attributes:
        file: the baseline.
        proxy: one of its proxies.
        any_change: whether a sample that scores otherwise is bad enough; else a regression must be found.
        plugins: users' files, relative to the repository.
        tasks, methods: that join the suite, as for `bench run`.

    """

    file: str
    proxy: str
    suite: str
    any_change: bool = False
    plugins: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


def first_bad(repository: Path, good: str, bad: str, command: list[str]) -> tuple[str, str]:
    """The first commit after ``good`` at which the command, run in a worktree, exits with 1, and git's own report.

    Raises: UserError where git finds none, since commits do not exist or those that matter could not be tested.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _git(repository, "worktree", "add", "--detach", str(tree), bad)
        try:
            _git(tree, "bisect", "start", bad, good, "--")
            told = _git(tree, "bisect", "run", *command)
            return _git(tree, "rev-parse", "refs/bisect/bad").strip(), told
        finally:
            _git(repository, "worktree", "remove", "--force", str(tree))


def root(inside: Path) -> Path:
    """The repository's top folder. Raises: UserError outside of one."""
    return Path(_git(inside, "rev-parse", "--show-toplevel").strip())


def _git(where: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise UserError(f"`git {words[0]} {words[1]}` found no answer: {last}")
    return done.stdout


def command(step: Step) -> list[str]:
    """What `git bisect run` runs: this SlimBench, whatever lies in the worktree."""
    engine = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {engine!r}); from slimbench import bisecting; bisecting.main()"
    return [sys.executable, "-P", "-c", code, json.dumps(asdict(step))]


def main() -> None:
    """One step, in the worktree that git stands in: exit status 0 good, 1 bad, 125 cannot be tested."""
    given = json.loads(sys.argv[1])
    step = Step(**given)
    with tempfile.TemporaryDirectory() as store:
        made = _made(step, Path.cwd(), Path(store))
        sys.exit(judged(step, Store(store)) if made else _SKIP)


def _made(step: Step, tree: Path, store: Path) -> bool:
    """Whether the commit's own code could make the cells."""
    base = baseline.read(Path(step.file))
    wanted = {cell.label: cell.seed for cell in base.cells if cell.proxy == step.proxy}
    path = [str(tree / "src")] if (tree / "src/slimbench").is_dir() else []
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)}
    asked = {"suite": step.suite, "task": step.tasks, "method": step.methods, "wanted": wanted, "store": str(store)}
    asked["plugins"] = [str(tree / plugin) for plugin in step.plugins]
    return subprocess.run([sys.executable, "-P", str(_MAKER), json.dumps(asked)], env=env, check=False).returncode == 0


def judged(step: Step, store: Store) -> int:
    """0, 1 or 125, from the records of a step."""
    base, records = baseline.read(Path(step.file)), store.records()
    cells = [cell for cell in base.cells if cell.proxy == step.proxy]
    head = [cell for cell in baseline.newest(records) if cell.proxy == step.proxy]
    pairs = regression.pairs_of(cells, head)
    if step.any_change and len(pairs) == len(cells):
        return int(any((ours.status, ours.outputs) != (theirs.status, theirs.outputs) for ours, theirs in pairs))
    is_same = all(baseline.machine_of(record) == base.machine for record in records)
    status = regression.exit_status(regression.compare(cells, head, is_same_machine=is_same))
    return _SKIP if status == 2 else status
