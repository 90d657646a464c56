"""A row's facts go in; the text of one cell comes out. What is bold stands between two marks that renderers know."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    Facts = Mapping[str, Any]

BOLD, PLAIN = "\ue000", "\ue001"  # of Unicode's private use area: in no label and no formula


def bold(text: str) -> str:
    """Text that stands out."""
    return f"{BOLD}{text}{PLAIN}"


def number(value: float | None, how: str, unit: str = "") -> str:
    """A number, or nothing."""
    return "" if value is None else f"{value:{how}}{unit}"


def big(count: float | None) -> str:
    """A count in k, M or G."""
    if count is None:
        return ""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3f} {unit}"
    return f"{count:g}"


def count(facts: Facts, name: str) -> str:
    """A count and, but for the dense network, its share of the dense network's."""
    share = facts[f"{name}_kept"]
    return big(facts[name]) + (f" ({100 * share:.1f} %)" if share is not None and not facts["is_dense"] else "")


def asked(facts: Facts) -> str:
    """The operating point."""
    second = facts["params_keep_asked"]
    more = "" if second is None else f", {second:g} params"
    return "" if facts["is_dense"] else f"{facts['keep_asked']:g} {facts['resource']}{more}"


def epochs(facts: Facts) -> str:
    """How long a row may train."""
    return f"{facts['epochs_asked']:g} epoch{'' if facts['epochs_asked'] == 1 else 's'}"


def quality(facts: Facts) -> str:
    """Mean ± sd (n); bold where it is better than every other row of its budget, beyond the spread."""
    if facts["mean"] is None:
        return ""
    spread = "" if facts["sd"] is None else f" ± {facts['sd']:.2f}"
    text = f"{facts['mean']:.2f}{spread} ({facts['n']})"
    return bold(text) if facts["is_best"] else text


def repair_rate(facts: Facts) -> str:
    """The chosen rate; "either" where validation says the same of all; nothing where nothing was to choose from."""
    if facts["is_dense"] or not facts.get("repair_tries") or facts["mean"] is None:
        return ""
    return "either" if facts["repair_rate"] is None else f"{facts['repair_rate']:g}"


def difference(facts: Facts, name: str) -> str:
    """A mean difference; its interval from six seeds on (below, a caption has it)."""
    if facts[name] is None:
        return ""
    interval = "" if facts[f"{name}_indicative"] else _interval(facts, name)
    against = f" ({facts['control']})" if name == "control_difference" else ""
    return f"{facts[name]:+.2f}{interval}{against}"


def whole_difference(facts: Facts, name: str) -> str:
    """A mean difference with its interval, however few the seeds, and how many pairs it is of."""
    if facts[name] is None:
        return ""
    return f"{facts[name]:+.2f}{_interval(facts, name)} ({facts[f'{name}_n']})"


def _interval(facts: Facts, name: str) -> str:
    low, high = facts[f"{name}_low"], facts[f"{name}_high"]
    return "" if low is None else f" [{low:+.2f}, {high:+.2f}]"


def over(facts: Facts | None) -> str:
    """A mean difference to the dense network and its seeds."""
    return f"{difference(facts, 'difference')} ({facts['difference_n']})" if facts else ""


def area(facts: Facts | None) -> str:
    """Mean quality under the curve with its interval, seeds, and the range of MACs that it is of."""
    if not facts or facts["area"] is None:
        return ""
    interval = "" if facts["area_low"] is None else f" [{facts['area_low']:.2f}, {facts['area_high']:.2f}]"
    ends = f"{facts['area_from']:.3g} to {facts['area_to']:.3g}"
    return f"{facts['area']:.2f}{interval} ({facts['area_n']}) over {ends}"


def dense_epochs(facts: Facts) -> str:
    """Passes over train; of published weights nobody says how many."""
    return "published" if facts["weights"] else number(facts["dense_epochs"], ".1f")


def claimed(facts: Facts) -> str:
    """The number, and of what; of published weights as their publisher rounds it."""
    if facts["claimed"] is None:
        return facts["claimed_note"] or ""
    if facts["is_dense"]:
        return f"{facts['claimed']:.2f} ({facts['claimed_note']})"
    return f"{facts['claimed']:g} {facts['claimed_note']}"


def speed(measured: Facts, *, is_dense: bool) -> str:
    """The ratio with its interval, and what it says."""
    noise = measured["noise"]
    if is_dense:
        return f"1 ({measured['p50_ms']:.3g} ms; A/A ± {100 * noise:.1f} %)"
    low, high, many = measured["measured_low"], measured["measured_high"], measured["measured_seeds"]
    said = ""
    if high < 1 - noise:
        said = f" {bold('slower than dense')}"
    elif low <= 1 + noise:
        said = " no difference"
    seeds = f" ({many} seeds)" if many > 1 else ""
    return f"{measured['measured_speedup']:.2f}x [{low:.2f}, {high:.2f}]{seeds}{said}"


def realised(facts: Facts, measured: Facts) -> str:
    """Measured / theoretical speed-up, of the networks that were timed."""
    counted = measured["timed_theoretical_speedup"]
    return "" if facts["is_dense"] else f"{measured['measured_speedup'] / counted:.2f}"


def run(measured: Facts | None) -> str:
    """Median and 90th percentile, and the peak."""
    if not measured:
        return ""
    peak = measured["peak_bytes"]
    return f"{measured['p50_ms']:.3g} ms (p90 {measured['p90_ms']:.3g})" + (f", {size(peak)}" if peak else "")


def size(count: float | None) -> str:
    """Bytes in MB."""
    return "" if count is None else f"{count / 1e6:.3g} MB"


def letter(i: int) -> str:
    """A to Z, then A1 and so on."""
    turn, place = divmod(i, len(string.ascii_uppercase))
    return string.ascii_uppercase[place] + (str(turn) if turn else "")
