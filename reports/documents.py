"""A document goes in; the same with what is generated between its markers, and what it quotes, comes out.

What a block says is a function of what its marker names: methods' cards, a file, or the stored records of a suite.
Numbers of the prose are quoted from records by footnotes (``quoted``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slimbench import discover
from slimbench.benchmarks.papers.claims import PAPERS
from slimbench.core import UserError
from slimbench.files import write_whole
from slimbench.reports import audit, cards, papers, quoted, render, summary, summary_picture
from slimbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slimbench.reports.summary import Summary

_BLOCK = re.compile(
    r"(<!-- (?P<kind>methods|cards|claims|file|results)(?: of)?(?P<what>[^:]*): written by `bench check --write` -->)"
    r".*?(\n<!-- end of (?P=kind) -->)",
    re.DOTALL,
)


@dataclass(frozen=True)
class _Source:
    """Where a document's numbers come from, how ``--store`` names it, and where pictures of them go."""

    store: Store
    name: str
    pictures: Path


@dataclass(frozen=True)
class Written:
    """A document's text as it should be, and what its pictures, by where they lie, are of."""

    text: str
    pictures: Mapping[Path, Summary]


def written_into(text: str, folder: Path, store: str | None = None) -> Written:
    """``text`` with what belongs between its markers, and its quotes as they are; ``folder`` is the document's.

    ``store``: folder of records; else ``reports`` of the nearest folder above the document that has some.

    Raises: UserError where there is neither, or where they name what does not exist.
    """
    drawn: dict[Path, Summary] = {}

    def block(found: re.Match[str]) -> str:
        kind, what = found["kind"], found["what"]
        if kind == "results":
            names, one = _shown(what, source := _source(folder, store))
            drawn[picture := _picture(names, source)] = one
            new = summary.markdown(names, one, Path(os.path.relpath(picture, folder)).as_posix(), source.name)
        else:
            new = _block(kind, what, folder, store)
        return f"{found[1]}\n{new}{found[4]}"

    new, count = _BLOCK.subn(block, text)
    if quoted.has_quotes(new):
        new = quoted.quoted_into(new, _source(folder, store).store)
    elif not count:
        raise UserError("The document has no markers of what is written into it: see those of README.md.")
    return Written(new, drawn)


def _block(kind: str, what: str, folder: Path, store: str | None) -> str:
    if kind == "methods":
        return cards.methods_table()
    if kind == "cards":
        return cards.methods_cards()
    if kind == "file":
        return _file(folder / what.strip())
    return _claims(_source(folder, store))


def _file(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"The document shows the file {path}, which does not exist.")
    return f"```python\n{path.read_text().rstrip()}\n```"


def _claims(source: _Source) -> str:
    records, measurements = source.store.summaries(), source.store.shared_timings()
    claims, evidence = papers.overview(PAPERS, records, measurements)
    if problems := audit.tables([claims, evidence], records, measurements):
        raise UserError(f"What papers claim fails its audit: {'; '.join(map(str, problems[:5]))}.")
    made = f"{papers.NEEDS}. Criteria and sources: `bench report papers --store {source.name}`."
    folded = summary.folded("What the records say of each claim", render.grid(evidence))
    return f"{render.grid(claims)}\n\n{made}\n\n{folded}"


def _shown(what: str, source: _Source) -> tuple[list[str], Summary]:
    """Of suites in order ("a, else b") the first that has records; its heading of most rows.

    "a on cuda": of those that were trained there. "a + b" is one comparison of two suites: each row at the rate of
    repair that validation chose (``tuned``).

    Raises: UserError where there is none.
    """
    records, measurements = source.store.summaries(), source.store.shared_timings()
    what, _, device = what.strip().partition(" on ")
    if device:
        records = [record for record in records if record.cell["settings"]["device"] == device]
    tries = [[name.strip() for name in text.split(" + ")] for text in what.split(", else ")]
    for names in tries:
        if found := summary.summaries([discover.suite(name) for name in names], records, measurements):
            return names, max(found, key=lambda one: len(one.found))
    said = " or ".join(" + ".join(names) + " at several rates of repair" * (len(names) > 1) for names in tries)
    first = "`, `".join(f"bench run {name}" for name in tries[0])
    where = f", trained on {device}" if device else ""
    raise UserError(f"{source.store.root} has no records of {said}{where}: `{first}` makes them.")


def _source(folder: Path, store: str | None) -> _Source:
    """Pictures of a project's ``reports`` lie in its ``docs/pictures``, of another store beside the document."""
    above = next((above for above in (folder, *folder.parents) if (above / "reports" / "records").is_dir()), None)
    if above and (store is None or Path(store).expanduser().resolve() == (above / "reports").resolve()):
        root = above / "reports"
        return _Source(Store(root, create=False, keeps_corrupt=True), "reports", above / "docs" / "pictures")
    if store is None:
        raise UserError(f"No folder above {folder} has reports/records: name the store of results with --store.")
    return _Source(Store(store, create=False, keeps_corrupt=True), store, folder / "pictures")


def _picture(suites: Sequence[str], source: _Source) -> Path:
    return source.pictures / f"{'-and-'.join(suites)}.svg"


def _read(document: Path) -> str:
    """Raises: UserError where it is no text, or of a kind that would be written anew throughout."""
    try:
        text = document.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{document} is not in UTF-8 ({error}): save it so first.") from error
    if "\r" in text:
        raise UserError(f"{document} has Windows line ends: save it with those of Unix first.")
    return text


def write(document: Path, store: str | None = None) -> bool:
    """Write the blocks, quotes and pictures of a document; whether anything changed. Raises: UserError."""
    folder, old = document.absolute().parent, _read(document)
    new = written_into(old, folder, store)
    files = {path: summary_picture.svg(one) for path, one in new.pictures.items()} | {document: new.text}
    changed = {path: text for path, text in files.items() if not path.is_file() or path.read_bytes() != text.encode()}
    for path, text in changed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return bool(changed)
