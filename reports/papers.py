"""Papers' claims and records go in; for each paper its claims with verdicts, the evidence, and its results come out."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from slimbench.reports import _text, judging
from slimbench.reports.rows import heading, rows, short
from slimbench.reports.table import Entry, Table, of_heading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from slimbench.core import MeasurementRecord, Record
    from slimbench.reports.claim import Claim, Paper
    from slimbench.reports.judging import Finding
    from slimbench.reports.rows import Row

    Groups = Mapping[str, Sequence[Row]]

NEEDS = (
    "A verdict needs the whole interval on one side of the criterion: the 95 % Student-t interval over three seeds or "
    "more. A speed's is that of its full measurement, a count's the range over seeds (one seed is enough for both), "
    "memory's the range over three or more"
)
_UNITS = {
    "macs removed": "%",
    "params removed": "%",
    "speed": "times as fast",
    "memory": "times (theirs / ours)",
    "training memory": "times (theirs / ours)",
}


def tables(
    papers: Sequence[Paper],
    records: Sequence[Record],
    measurements: Sequence[MeasurementRecord],
    fidelity: Callable[[str], str],
) -> list[Table]:
    """Every paper's claims and evidence, then its results on each task. ``fidelity``: of a method that was not run."""
    groups = rows(records, measurements)
    return [table for paper in papers for table in (*claimed(paper, groups, fidelity), *results(paper, groups))]


def results(paper: Paper, groups: Groups) -> list[Table]:
    """The paper's methods, the dense network and the controls, on every task that the methods ran on."""
    found = []
    for name, group in groups.items():
        if any(_is_of(paper, row) for row in group):
            kept = [row for row in group if row.is_dense or row.is_control or _is_of(paper, row)]
            found += of_heading(f"{paper.name} on {name}", kept)
    return found


def _is_of(paper: Paper, row: Row) -> bool:
    return row.first.cell["method"]["is"] in paper.methods


def claimed(paper: Paper, groups: Groups, fidelity: Callable[[str], str]) -> list[Table]:
    """Claimed against reproduced: a verdict for each claim, then what each row says about it."""
    found = [(claim, judging.findings(claim, groups)) for claim in paper.claims]
    return [_verdicts(paper, found, fidelity), *_evidence(found)]


def overview(
    papers: Sequence[Paper], records: Sequence[Record], measurements: Sequence[MeasurementRecord]
) -> tuple[Table, Table]:
    """Every claim on a line, with what decided it; and on a line each finding of all of them, with its records."""
    groups = rows(records, measurements)
    found = [(paper, claim, judging.findings(claim, groups)) for paper in papers for claim in paper.claims]
    claims = [
        (
            paper.name,
            claim.says,
            _claimed(_fact(claim)),
            _decided_by(told),
            judging.in_words(judging.decided(told), told),
        )
        for paper, claim, told in found
    ]
    heads = ("paper", "claim", "claimed", _OURS, "verdict")
    names = [paper.name for paper, _, findings in found for _ in findings]
    every = _facts([finding for _, _, findings in found for finding in findings])
    told = [facts | {"paper": name} for name, facts in zip(names, every, strict=True)]
    kept = ("claim", "where", "ours", "against", "figure", _OURS, "verdict")
    shown = {"paper": itemgetter("paper")} | {head: _SHOWN[head] for head in kept} | {"records": itemgetter("ids")}
    return (
        Table("Claimed against reproduced", heads, tuple(tuple(map(Entry, line)) for line in claims)),
        Table("What the records say", tuple(shown), _body(shown, told), facts=tuple(told)),
    )


def _body(shown: Mapping[str, Callable[[Mapping[str, Any]], str]], told: Sequence[Mapping[str, Any]]) -> Any:
    return tuple(tuple(Entry(text(facts)) for text in shown.values()) for facts in told)


def _decided_by(told: Sequence[Finding]) -> str:
    """The finding that decided, or the range of several."""
    facts = _facts(judging.decisive(told)) if told else []
    units = {f["unit"] for f in facts}
    if len(facts) < 2 or len(units) > 1:
        return "; ".join(f"{_ours(f)}, {_of_version(f)}{f['where']}" for f in facts)
    least, most = (choose(f["ours"] for f in facts) for choose in (min, max))
    versions = "".join(sorted({_of_version(f).rstrip(", ") for f in facts}))
    return f"{least:.2f} to {most:.2f} {units.pop()} in {len(facts)} findings" + (versions and f", {versions}")


def _of_version(f: Mapping[str, Any]) -> str:
    """Of the method, once it has had more than one."""
    return f"v{f['version']}, " if f["version"] > 1 else ""


def _verdicts(paper: Paper, found: Sequence[tuple[Claim, Sequence[Finding]]], fidelity: Callable[[str], str]) -> Table:
    heads = ("claim", "claimed", "passes when", "fidelity", "verdict", "source")
    facts: list[dict[str, Any]] = [
        {
            "paper": paper.name,
            "claim": claim.says,
            **_fact(claim),
            "criterion": claim.criterion,
            "fidelity": _fidelity(told) if told else fidelity((claim.ours and claim.ours.method) or paper.methods[0]),
            "verdict": judging.decided(told),
            "in words": judging.in_words(judging.decided(told), told),
            "source": claim.source,
        }
        for claim, told in found
    ]
    body = [
        tuple(
            map(Entry, (f["claim"], _claimed(f), f["criterion"], str(f["fidelity"]), str(f["in words"]), f["source"]))
        )
        for f in facts
    ]
    captions = (
        f"{NEEDS}; below six: indicative.",
        "A verdict is on our runs: where fidelity says re-derived, a gap says nothing about the authors' numbers.",
    )
    compact = ("claim", "verdict", "claimed", "passes when", "source", "fidelity")
    title = f"{paper.title}: claimed against reproduced"
    return Table(title, heads, tuple(body), captions, tuple(facts), compact=compact)


def _fidelity(told: Sequence[Finding]) -> str:
    return ", ".join(sorted({kind for finding in told for kind in finding.row.fidelity}))


def _fact(claim: Claim) -> dict[str, Any]:
    return {"claimed": claim.claimed, "convention": claim.convention}


def _claimed(facts: Mapping[str, Any]) -> str:
    return "" if facts["claimed"] is None else f"{facts['claimed']:g} ({facts['convention']})"


def _evidence(found: Sequence[tuple[Claim, Sequence[Finding]]]) -> list[Table]:
    """One line a finding."""
    told = [finding for _, of_claim in found for finding in of_claim]
    if not told:
        return []
    facts = _facts(told)
    heads, body = tuple(_SHOWN), _body(_SHOWN, facts)
    compact = ("claim", _OURS, "verdict", "ours", "against", "where", "recipe", *heads[6:8], "figure", "records")
    return [Table("What the records say", heads, body, _captions(told), tuple(facts), level=4, compact=compact)]


def _facts(told: Sequence[Finding]) -> list[dict[str, Any]]:
    """Of each; tasks are told apart as far as these findings need it."""
    headings = [heading(finding.row.first) for finding in told]
    tasks = short(headings)
    return [_fact_of(finding, tasks[name]) for finding, name in zip(told, headings, strict=True)]


def _fact_of(finding: Finding, task: str) -> dict[str, Any]:
    claim, row, estimate = finding.claim, finding.row, finding.estimate
    many = estimate.n > 1 or finding.column is not None
    against = finding.rival.method if finding.rival else "dense" if finding.column else None
    network = finding.rival.first.cell["task"]["label"] if finding.rival else row.first.cell["task"]["label"]
    budget = row.first.cell["budget"]
    return {
        "claim": claim.says,
        "where": task + (f", {c.profile} {c.level}" if (c := finding.column) else ""),
        "profile": f"{c.profile} {c.level}" if c else None,
        "machine": c.machine if c else None,
        "method": row.method,
        "version": row.first.cell["method"]["version"],
        "keep_asked": budget["keep"],
        "params_keep_asked": budget.get("params_keep"),
        "resource": budget["resource"],
        "is_dense": row.is_dense,
        "against": against if network == row.first.cell["task"]["label"] else f"{against} on {network}",
        "figure": claim.figure,
        "unit": _unit(finding),
        "ours": estimate.mean,
        "low": estimate.low if many else None,
        "high": estimate.high if many else None,
        "n": estimate.n,
        "claimed": claim.claimed,
        "gap": finding.gap,
        "errors": finding.errors,
        "recipe": f"reduced: {finding.reduced}" if finding.reduced else claim.recipe,
        "least": claim.least,
        "slack_sd": claim.slack_sd,
        "verdict": finding.verdict,
        "ids": " ".join(finding.ids),
        "rival_ids": " ".join(record.id for record in finding.rival.counted) if finding.rival else "",
    }


def _asked(f: Mapping[str, Any]) -> str:
    return f"{f['method']} {_text.asked(f)}".strip()


def _ours(f: Mapping[str, Any]) -> str:
    interval = "" if f["low"] is None else f" [{f['low']:.2f}, {f['high']:.2f}]"
    return f"{f['ours']:.2f} {f['unit']}{interval} ({f['n']})"


def _unit(finding: Finding) -> str:
    if finding.claim.figure == "quality":
        return "dB" if next(iter(finding.row.first.quality)).startswith("psnr") else "points"
    return _UNITS[finding.claim.figure]


_OURS = "ours, interval (n)"
_SHOWN: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "claim": itemgetter("claim"),
    "where": itemgetter("where"),
    "ours": _asked,
    "against": lambda f: f["against"] or "",
    "figure": itemgetter("figure"),
    _OURS: _ours,
    "gap to claimed": lambda f: _text.number(f["gap"], "+.2f"),
    "gap in standard errors": lambda f: _text.number(f["errors"], "+.1f"),
    "recipe": itemgetter("recipe"),
    "verdict": itemgetter("verdict"),
    "records": lambda f: " ".join(name[:8] for name in f["ids"].split()),
}


def _captions(told: Sequence[Finding]) -> tuple[str, ...]:
    """What the figures are."""
    kinds = {
        "quality": "quality: the headline metric, ours - theirs paired by seed, or ours alone",
        "macs removed": "removed: share of the dense network's that is gone",
        "params removed": "removed: share of the dense network's that is gone",
        "speed": "speed: their latency / ours, each against the dense network of its own session",
        "memory": "memory: their peak / ours, likewise; its interval is widened by how far the dense peaks differ",
        "training memory": "training memory: theirs / ours, of the most that a cell took beyond its loaded data",
    }
    return tuple(dict.fromkeys(f"{kinds[finding.claim.figure]}." for finding in told))
