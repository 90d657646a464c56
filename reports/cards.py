"""Method cards go in; what documents say of methods comes out. A card is the only place for a method's facts."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from slimbench import discover


def methods_table() -> str:
    """Every method that ships: what it is, where it comes from, how faithful it is."""
    rows = [(f"`{name}`", _title(card), _fidelity(card)) for name, card in _cards().items()]
    return tabulate(rows, ["name", "method", "fidelity"], tablefmt="github")


def methods_cards() -> str:
    """Every card in full."""
    return "\n\n".join(
        "\n".join(
            [
                f"### `{name}`\n",
                f"{card.paper or card.title}{f'; {card.section}' if card.section else ''}. Version {card.version}.\n",
                f"- fidelity: {_fidelity(card)}",
                f"- removes: {card.granularity}; starts from: {card.starts_from}",
                *(["- deviations:", *(f"  - {deviation}" for deviation in card.deviations)] if card.deviations else []),
            ]
        )
        for name, card in _cards().items()
    )


def _cards() -> dict[str, Any]:
    found: dict[str, Any] = discover.found("methods")
    return {name: cls.card for name, cls in found.items() if cls.__module__.startswith("slimbench.")}


def _title(card: Any) -> str:
    return f"[{card.title}]({card.link})" if card.link else str(card.title)


def _fidelity(card: Any) -> str:
    return ", ".join(f"{part}: {kind}" for part, kind in card.fidelity.items())
