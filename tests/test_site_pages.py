"""What stands beside what on the site's pages: pictures with their own tables, rows with the table that they are of."""

from __future__ import annotations

import re

import pytest

from made import measured, record
from slimbench.core import Recipe
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.reports.site import build, collection, curves
from slimbench.store import Store
from slimbench.tasks.digits import Digits
from slimbench.tasks.texture_digits import TextureDigits

TASKS = (Digits(), Digits(recipe=Recipe(epochs=40)), TextureDigits())
SHAPES = ((1, 1, 8, 8), (1, 1, 8, 8), (1, 1, 64, 64))


@pytest.fixture(params=["plotly", "matplotlib"])
def site(request, tmp_path, monkeypatch):
    """Two recipes of one task, and another task of another input, timed on one machine by one profile."""
    if request.param == "plotly":
        pytest.importorskip("plotly")
    else:
        monkeypatch.setattr(curves, "script", lambda: None)
    store = Store(tmp_path / "store")
    for task, shape in zip(TASKS, SHAPES, strict=True):
        for one in (
            record(Dense(), task=task),
            *(record(DCSS(), k, macs=int(1000 * k), task=task) for k in (0.5, 0.25)),
        ):
            store.put(one)
            store.put(measured(one, input_shape=shape))
    build(collection.gather([store.root]), {}, tmp_path / "site")
    return tmp_path / "site"


def test_a_table_has_the_picture_of_its_own_timings(site):
    """One each, whose title says which input, and no file twice."""
    parts = (site / "index.html").read_text().partition("<h2>Each device</h2>")[2].split("<h3>Timed on ")[1:]
    shapes = [re.search(r", (\w+)\)", part)[1] for part in parts]
    assert shapes == ["1x64x64", "1x8x8"]
    for part, shape in zip(parts, shapes, strict=True):
        (caption,) = re.findall(r"<figcaption>(.*?): measured", part)
        assert caption.endswith(f", {shape})")
    files = [name for part in parts for name in re.findall(r'src="(pictures/[^"]+)"', part)]
    assert len(set(files)) == len(files) == (0 if (site / "plotly.min.js").is_file() else 2)
    assert len({(site / name).read_bytes() for name in files}) == len(files)


def test_compared_rows_link_the_table_that_they_are_of(site):
    """A recipe's own: its anchor on the task's page."""
    found = re.findall(r'<th scope="row"><a href="([^"]+)">([^<]+)</a>', (site / "compare.html").read_text())
    places = dict(found)
    assert len(places) == len({name for _, name in found}) == 3
    for place, name in places.items():
        file, _, anchor = place.partition("#")
        text = (site / file).read_text().partition(f'id="{anchor}"')[2]
        epochs = re.search(r"\d+ dense epochs", name)
        assert text
        assert not epochs or epochs[0] in text.partition("</h2>")[0]


def test_areas_stand_below_curves(site):
    """Whoever draws them."""
    text = _page(site, "texture-digits")
    assert "Area under the curve of dcss, 8 epochs: " in text.partition("<figcaption>")[2].partition("</figcaption>")[0]


def _page(site, name):
    (file,) = (site / "tasks").glob(f"{name}*.html")
    return file.read_text()
