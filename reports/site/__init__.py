"""A collection of records goes in; a folder of pages comes out that opens from disk and asks nothing of the network.

Same collection, same bytes (with the same libraries: plotly draws where it is installed, else matplotlib).
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimbench.core import UserError
from slimbench.files import whole_folder
from slimbench.identity import digest
from slimbench.reports import audit
from slimbench.reports.site import curves
from slimbench.reports.site.pages import Site

if TYPE_CHECKING:
    from collections.abc import Mapping

    from slimbench.core import Card
    from slimbench.reports.site.collection import Collection

MARK = "site.json"  # a folder that has it was written here, and may be replaced
_TEMPLATES = Path(__file__).parent / "templates"


def build(collection: Collection, cards: Mapping[str, Card], out: Path) -> int:
    """Write the site into ``out``, whole or not at all, replacing an older one; the number of its pages.

    ``cards``: of the methods at hand. Raises: UserError where there is nothing to show, or ``out`` is no site's.
    """
    if not collection.records:
        raise UserError(f"There is nothing to show in {collection.names}: `bench run --all` makes records.")
    try:
        _refuse_others(out)
        with whole_folder(out) as part:
            part.chmod(0o755)  # pages are to be served
            return _fill(collection, cards, part)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): name another folder with --out.") from error


def _fill(collection: Collection, cards: Mapping[str, Card], folder: Path) -> int:
    environment = _environment()
    site = Site(collection, cards, folder)
    _refuse_wrong(site)
    pages = list(site.pages())
    for name, template, values in pages:
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        up = "../" * name.count("/")
        text = environment.get_template(template).render(**values, site=site, up=up, page=name)
        file.write_text(text, encoding="utf-8")
    for name in ("site.css", "site.js"):
        (folder / name).write_text((_TEMPLATES / name).read_text(encoding="utf-8"), encoding="utf-8")
    if site.script:
        (folder / "plotly.min.js").write_bytes(site.script.read_bytes())
    ids = sorted([*(r.id for r in collection.records), *(m.id for m in collection.measurements)])
    mark = {"slimbench": metadata.version("slimbench"), "plotly": curves.version(), "records": digest(ids)}
    (folder / MARK).write_text(json.dumps(mark, indent=1) + "\n")
    return len(pages)


def _refuse_wrong(site: Site) -> None:
    """Tables that fail their audit are not shown, as `bench report` prints none. Raises: UserError."""
    found = [grid.table for heading in (*site.tuned, *site.headings) for grid in heading.grids]
    if problems := audit.tables(found, site.collection.records, site.collection.measurements):
        raise UserError(f"The tables fail their audit, and no site is written: {'; '.join(map(str, problems[:5]))}.")


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from slimbench.reports.site import words

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    made.filters |= {"marked": words.marked, "shown": words.shown, "when": words.when}
    made.tests |= {"mapping_or_rows": words.is_nested}
    return made


def _refuse_others(out: Path) -> None:
    """A folder of somebody's own files is not replaced. Raises: UserError."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a folder with --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise UserError(f"{out} holds other files than a site's: name an empty or new folder with --out.")
