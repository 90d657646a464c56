"""Commands that keep a benchmark from getting worse unseen: ``check --baseline``, ``baseline``, ``bisect``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from slimbench.cli_options import options, prepare
from slimbench.cli_report import write
from slimbench.cli_run import ends_in_order
from slimbench.core import UserError
from slimbench.files import writable

_BASELINE = "baselines/nightly.json"


def compared(store: str, file: str, summary: str | None, junit: str | None) -> int:
    """Compare a store's records with a baseline, print and write the verdict; the exit status."""
    from slimbench import baseline, environment, latency, regression
    from slimbench.reports import verdict
    from slimbench.store import Store

    base, opened = baseline.read(Path(file)), Store(store, create=False)
    records = opened.records()
    head = baseline.newest(records)
    newest = baseline.behind(head, records)
    is_same_machine = all(baseline.machine_of(record) == base.machine for record in newest)
    findings = [*regression.trained_otherwise(base.settings, map(baseline.settings_of, newest))]
    if not findings:
        findings += regression.compare(
            base.cells, head, is_same_machine=is_same_machine, commit=environment.commit() if base.commit else ""
        )
        findings += latency.compare(base, head, opened, Path(file), say=_aside)
    about = f"Baseline of {base.commit or 'no commit'} ({base.because}), on " + (
        "this machine."
        if is_same_machine
        else "another machine, or with other versions: scores may differ in their bits."
    )
    text = verdict.markdown(findings, about)
    click.echo(text)
    status = regression.exit_status(findings)
    for option, path, body in (("--summary", summary, text), ("--junit", junit, verdict.junit(findings))):
        try:
            if path:
                write(body, path, option)
        except UserError as error:
            _aside(f"bench: {error}")
            status = status or 2  # it hides no regression
    return status


def _aside(text: str) -> None:
    """Progress, which is no part of the verdict."""
    click.echo(text, err=True)


@click.command()
@options("store", "plugin")
@click.option("--out", default=_BASELINE, show_default=True, type=click.Path(dir_okay=False), help="The file to write.")
@click.option("--because", required=True, help="Why the numbers may be these from now on; the file keeps it.")
@click.option("--profile", multiple=True, default=("cpu",), show_default=True, help="Hardware profiles to compare by.")
@click.option(
    "--looks",
    type=click.IntRange(0),
    default=30,
    show_default=True,
    help="Times per profile that a network is timed against itself, to see what chance does. 0: no latencies.",
)
def baseline(*, store: str, plugin: Any, out: str, because: str, profile: tuple[str, ...], looks: int) -> None:
    """Make or roll the baseline that `bench check --baseline` compares with, from the records of a store.

    The records must come from one commit and one machine, and none may have failed. Commit the file; the networks
    beside it, in a folder of the same name, are what latencies are compared with: keep them on the machine.
    """
    from dataclasses import replace

    from slimbench import baseline as baselines
    from slimbench import discover, identity, latency
    from slimbench.store import Store

    prepare(None, plugin)
    opened, file = Store(store, create=False), Path(out).absolute()
    if 0 < looks < latency.ENOUGH_LOOKS:
        raise UserError(f"--looks {looks} cannot tell anything: give at least {latency.ENOUGH_LOOKS}, or 0 for none.")
    with writable(out, "--out"):
        file.parent.mkdir(parents=True, exist_ok=True)
        old = baselines.read(file) if file.exists() else None
    made = baselines.of(opened.records(), because)
    timed = baselines.timed_networks(made.cells, opened) if looks else []
    profiles = [discover.make("hardware_profiles", text) for text in profile] if looks else []
    apart = {identity.label(one): latency.calibrate(one, timed, looks, _aside) for one in profiles}
    made = replace(made, apart=apart)
    with writable(out, "--out"):
        if looks:
            baselines.keep_networks(made.cells, opened, file)
        made.write(file)
    click.echo(_rolled(old, made, file))


def _rolled(old: Any, new: Any, file: Path) -> str:
    """What a new baseline says that the old one did not."""
    from slimbench import regression

    if old is None:
        lines = [f"{file}: {len(new.cells)} cells"]
    else:
        found = regression.compare(old.cells, new.cells, is_same_machine=old.machine == new.machine)
        moved = [f for f in found if f.verdict != "fine"]
        lines = [
            *(f"{f.what}: {f.text}" for f in moved),
            f"{file}: {len(new.cells)} cells, {len(moved)} findings rolled",
        ]
    lines += [
        f"{profile}: a network that is {100 * a.detectable:.1f} % slower will be seen"
        for profile, a in new.apart.items()
    ]
    return "\n".join(lines)


@click.command()
@click.argument("proxy")
@options("data", "plugin")
@click.option("--baseline", "file", default=_BASELINE, show_default=True, help="The baseline to compare with.")
@click.option("--suite", default="nightly", show_default=True, help="The suite that makes the proxy.")
@click.option("--task", multiple=True, help="Your own tasks, where the proxy is on one of them.")
@click.option("--method", multiple=True, help="Your own methods, where the proxy is of one of them.")
@click.option("--good", default=None, metavar="COMMIT", help="Where the proxy was right (else the baseline's commit).")
@click.option("--bad", default="HEAD", show_default=True, metavar="COMMIT", help="Where it is not right.")
@click.option("--any-change", is_flag=True, help="Look for the commit that changed any sample's score.")
def bisect(
    *,
    proxy: str,
    data: str | None,
    plugin: tuple[str, ...],
    file: str,
    suite: str,
    task: tuple[str, ...],
    method: tuple[str, ...],
    good: str | None,
    bad: str,
    any_change: bool,
) -> None:
    """Find the commit at which a proxy got worse, or changed, with `git bisect` in a worktree of its own.

    PROXY is a part of what the summary calls it, such as "digits/resnet14 l1_channels": counts and scores are compared.
    With " by " and a profile after it, such as "digits/resnet14 l1_channels by cpu", latencies are. Packages stay those
    that are installed.
    """
    from slimbench import baseline as baselines
    from slimbench import bisecting

    ends_in_order()
    prepare(data, plugin)
    base = baselines.read(Path(file))
    name, profile = _named(proxy, base, file)
    if profile and any_change:
        raise UserError(f"--any-change is of scores: say it without {f' by {profile}'!r}.")
    start = good or base.commit
    if not start or "-dirty" in start:
        raise UserError(f"The baseline was made at {start or 'no commit'}: name a good one with --good.")
    root = bisecting.root(Path.cwd())
    files = tuple(os.path.relpath(one, root) for one in plugin)
    step = bisecting.Step(
        str(Path(file).absolute()), name, suite, str(root), any_change, profile, files, tuple(task), tuple(method)
    )
    commit, told = bisecting.first_bad(root, start, bad, bisecting.command(step))
    click.echo(told, err=True)
    click.echo(f"{name}{f' by {profile}' if profile else ''}: the first bad commit is {commit}")


def _named(asked: str, base: Any, file: str) -> tuple[str, str]:
    """The one proxy of a baseline that was asked for, and a profile where latencies were. Raises: UserError."""
    profile = next((label for label in base.apart if asked.endswith(f" by {label}")), "")
    part = asked.removesuffix(f" by {profile}") if profile else asked
    names = sorted({cell.proxy for cell in base.cells if part in cell.proxy})
    exact = [name for name in names if name == part] or names
    if len(exact) != 1:
        raise UserError(
            f"PROXY must match one of {file}, and {part!r} matches {len(exact) or 'none'}"
            + "".join(f"; {n}" for n in exact[:5])
            + "."
        )
    return exact[0], profile
