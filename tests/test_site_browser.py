"""The site in a headless Chromium: no errors, no requests, sorting, filtering and comparing work, axe finds nothing.

Needs a Chromium (``SLIMBENCH_CHROMIUM`` names its program) and the extra ``browser``: playwright, axe-playwright-python
for accessibility, plotly for curves. `make browser` fetches them all.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib import util
from pathlib import Path

import pytest

from slimbench.store import Store
from test_site import CARDS, COURSE, built, measured, records

_NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
PROGRAM = os.environ.get("SLIMBENCH_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
ASKED = "SLIMBENCH_CHROMIUM" in os.environ  # then nothing is skipped: CI must not pass by lacking a package


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skips where a package is absent, unless a Chromium was named."""
    absent = [name for name in packages if util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent) and not ASKED, reason=f"needs {', '.join(absent)}")


pytestmark = [needs("playwright"), pytest.mark.skipif(PROGRAM is None, reason="needs a Chromium")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A small site on disk."""
    assert CARDS
    folder = tmp_path_factory.mktemp("browser")
    store = Store(folder / "store")
    for one in (found := records()):
        store.put(one)
    store.put(measured(found[2]))
    (store.root / "evolutions").mkdir()
    (store.root / "evolutions" / "00ff.json").write_text(json.dumps(COURSE))
    return built(folder / "site", store)


@pytest.fixture(scope="module")
def browser():
    """Chromium, without a network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser, site):
    """Opens a page of the site; whatever it complains of or asks the network for fails the test."""
    contexts, wrong = [], []

    def opened(name, **look):
        context = browser.new_context(offline=True, **look)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
        page.goto((site / name).as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def kinds(site: Path) -> list[str]:
    """One page of each kind."""
    folders = [next(iter(sorted((site / kind).iterdir()))) for kind in ("tasks", "methods", "cells", "evolutions")]
    return ["index.html", "claims.html", "compare.html", *(str(page.relative_to(site)) for page in folders)]


def test_every_kind_of_page_loads(visit, site):
    """On a phone too, where nothing but tables may be wider than the screen."""
    for name in kinds(site):
        page = visit(name, viewport={"width": 390, "height": 800})
        assert page.locator("h1").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_sorting_by_keyboard(visit, site):
    """Enter on a head sorts up, again down; the head says so; numbers sort as numbers."""
    page = visit(kinds(site)[3])
    table = page.locator("table.data").first
    heads = table.locator("thead th").all_inner_texts()
    place = next(i for i, head in enumerate(heads) if head.startswith("top1"))
    head = table.locator("thead th").nth(place)

    def column():
        texts = table.locator(f"tbody tr > :nth-child({place + 1})").all_inner_texts()
        return [float(text.split()[0]) for text in texts if text.strip()]

    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column() == [90.5, 91.25, 92.5]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column() == [92.5, 91.25, 90.5]
    assert page.locator("[aria-sort]").count() == 1


def test_filtering(visit):
    """Rows without the words go, and the count is told."""
    page = visit("index.html")
    page.get_by_label("Filter rows").fill("dcss 0.5")
    rows = page.locator("table.data tbody tr:visible").all_inner_texts()
    assert rows
    assert all("dcss" in row for row in rows)
    assert page.locator("output").inner_text().startswith(f"{len(rows)} of ")


def test_comparing_two_methods(visit):
    """Both chosen, one row is left: theirs."""
    page = visit("compare.html")
    page.get_by_label("One method").select_option("dcss")
    page.get_by_label("Other method").select_option("l1_channels")
    (row,) = page.locator("table.data tbody tr:visible").all_inner_texts()
    assert "dcss" in row
    assert "l1_channels" in row
    assert "+0.75" in row


def test_dark_and_light(visit):
    """By the system, and by the button."""
    page = visit("index.html", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Dark or light").click()
    assert page.evaluate(ground) == "rgb(255, 255, 255)" != dark


@needs("plotly")
def test_curves_are_drawn(visit, site):
    """Points of every method against each cost."""
    page = visit(kinds(site)[3])
    assert page.locator(".curve .plot .points path").count() == 3
    assert page.locator(".speed .plot .points path").count() == 1
    page.locator(".curve select").select_option("2")  # latency: one was timed
    assert page.locator(".curve .plot .points path").count() == 1


@needs("axe_playwright_python")
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing(visit, site, scheme):
    """WCAG 2.1 A and AA on one page of each kind."""
    place = util.find_spec("axe_playwright_python").submodule_search_locations[0]
    script = (Path(place) / "axe.min.js").read_text()
    for name in kinds(site):
        page = visit(name, color_scheme=scheme)
        page.evaluate(script)
        options = "{preload: false, runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}"
        found = page.evaluate(f"axe.run({options}).then(r => r.violations.map(v => [v.id, v.nodes[0].html]))")
        assert found == [], name
