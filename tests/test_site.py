"""The site without a browser: what its pages hold, that links resolve, that nothing is asked of the network."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from made import NOTHING, measured, record
from slimbench import discover
from slimbench.cli import main
from slimbench.core import Scores, UserError
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.reports import formulas, rows
from slimbench.reports.figures import lines
from slimbench.reports.site import build, collection, compare, curves, speeds, words
from slimbench.statistics import paired
from slimbench.store import Store
from slimbench.tasks.photos import Photos

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert(1)</script> & \"quoted\" 'text' {{ 7 * 7 }}"
VOID = {"meta", "link", "img", "input", "br", "hr", "rect"}
CARDS = {"dcss": DCSS.card, "dense": Dense.card, "l1_channels": L1Channels.card}


def records(seeds=(0, 1)):
    """Two methods and the dense network over seeds, and a cell that failed in hostile words."""
    return [
        *(record(Dense(), seed=s, top1=92.0 + s) for s in seeds),
        *(record(DCSS(), 0.5, s, 91.0 + 0.5 * s, 500) for s in seeds),
        *(record(L1Channels(), 0.5, s, 90.0 + s, 510, notes={"widths": {"stem": [16, 8]}}) for s in seeds),
        record(L1Channels(), 0.25, status="failed", reason=HOSTILE, **NOTHING),
    ]


@pytest.fixture
def store(tmp_path):
    """The records and two timings in a store, with a log."""
    made = Store(tmp_path / "store")
    for one in (found := records()):
        made.put(one)
    made.put(measured(found[2]))
    made.log(found[-1].id).write_text(f"\x1b[31mstarted\x1b[0m\n{HOSTILE}\n")
    return made


def built(folder: Path, *stores: Store) -> Path:
    build(collection.gather([one.root for one in stores]), CARDS, folder)
    return folder


class Reader(HTMLParser):
    """Tags that close in order; what is linked, loaded and named."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.heads: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.links += [values["href"]] if tag == "a" else []
        self.loaded += [values[key] for key in ("src", "srcset", "data") if values.get(key)]
        self.loaded += [values["href"]] if tag == "link" else []
        self.ids += [values["id"]] if "id" in values else []
        self.heads += [values] if tag == "th" else []

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def pages(folder: Path) -> dict[Path, Reader]:
    return {path: Reader(path.read_text()) for path in sorted(folder.rglob("*.html"))}


def test_every_page_parses_and_every_link_resolves(store, tmp_path):
    """Files exist, anchors too, ids are used once, heads have their scope."""
    found = pages(built(tmp_path / "site", store))
    assert len(found) == 3 + 1 + 3 + 7  # index, claims, compare; a task, three methods, seven cells
    for path, page in found.items():
        assert page.open == []
        assert len(set(page.ids)) == len(page.ids)
        assert all(head.get("scope") in {"col", "row"} for head in page.heads)
        for link in page.links:
            if not link.startswith("https://"):
                file, _, anchor = link.partition("#")
                target = (path.parent / file).resolve() if file else path
                assert target in found, link
                assert not anchor or anchor in found[target].ids, link


def test_nothing_is_loaded_from_elsewhere(store, tmp_path):
    """Scripts, styles and pictures lie in the folder; only cards link outside, for readers to follow."""
    for path, page in pages(built(tmp_path / "site", store)).items():
        for name in page.loaded:
            assert name == "data:," or (path.parent / name).is_file(), name
    for name in ("site.js", "site.css"):
        assert "http" not in (tmp_path / "site" / name).read_text()


def test_words_of_strangers_stay_words(store, tmp_path):
    """In a table's footnote, in a log, in a label: nothing of it becomes a tag or is computed."""
    odd = replace(records()[-1], id="ff00ff00ff00ff00", label=HOSTILE)
    store.put(replace(odd, cell={**odd.cell, "task": {**odd.cell["task"], "label": HOSTILE, "network": HOSTILE}}))
    site = built(tmp_path / "site", store)
    texts = {path: path.read_text() for path in site.rglob("*.html")}
    assert sum("&lt;script&gt;alert(1)" in text for text in texts.values()) > 3
    assert not any("<script>alert" in text or "onerror" in text for text in texts.values())
    assert any("{{ 7 * 7 }}" in text for text in texts.values())
    pages(site)  # and all of it parses
    assert all(path.resolve().is_relative_to(site.resolve()) for path in texts)


def test_the_same_records_the_same_bytes(store, tmp_path):
    """Every file of the folder, when it replaces an older site too."""
    first, again = built(tmp_path / "a", store), built(tmp_path / "b", store)
    built(again, store)
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_without_plotly_matplotlib_draws(store, tmp_path, monkeypatch):
    """A picture with words for it, the same bytes twice, and no script that is not there."""
    monkeypatch.setattr(curves, "script", lambda: None)
    first, again = built(tmp_path / "a", store), built(tmp_path / "b", store)
    (task,) = (first / "tasks").glob("*.html")
    pictures = sorted((first / "pictures").glob("*.svg"))
    assert len(pictures) == 3, "quality, and the speed-up of all tasks and of this one"
    assert all(picture.read_bytes() == (again / "pictures" / picture.name).read_bytes() for picture in pictures)
    assert sum(f"../pictures/{picture.name}" in task.read_text() for picture in pictures) == 2
    assert sum(f'"pictures/{picture.name}' in (first / "index.html").read_text() for picture in pictures) == 1
    assert not (first / "plotly.min.js").exists()
    pages(first)


def test_a_page_of_a_cell(store, tmp_path):
    """Why it failed, its settings, its log without colours, where it is from; of another: widths and counts."""
    site = built(tmp_path / "site", store)
    failed, cut = records()[-1], records()[4]
    text = (site / "cells" / f"{failed.id}.html").read_text()
    assert "failed" in text
    assert "started\n" in text
    assert "\x1b" not in text
    assert "<dt>from</dt><dd>store</dd>" in text
    text = (site / "cells" / f"{cut.id}.html").read_text()
    assert "stem: 8 of 16 channels" in text
    assert "<td>510</td><td>1,000</td><td>0.5100</td>" in text


def test_a_method_page_without_its_card(store, tmp_path):
    """Somebody's own method is shown by its records."""
    site = tmp_path / "site"
    build(collection.gather([store.root]), {}, site)
    text = (site / "methods" / "dcss.html").read_text()
    assert "not installed here" in text
    assert "91.25" in text


def test_merged_stores(store, tmp_path):
    """Each record once; the first source counts where two differ, and the index says so."""
    other = Store(tmp_path / "other")
    extra = record(DCSS(), 0.25, top1=80.0, macs=250)
    changed = replace(records()[2], seconds=99.0)
    for one in (records()[0], changed, extra):
        other.put(one)
    found = collection.gather([store.root, other.root])
    assert len(found.records) == 8
    assert found.clashes == (changed.id,)
    assert found.origins[extra.id] == "other"
    assert next(one for one in found.records if one.id == changed.id).seconds == 0.0
    index = (built(tmp_path / "site", store, other) / "index.html").read_text()
    assert "stand in two sources" in index


def test_two_methods_compared():
    """First minus second, paired, and nothing decided below six seeds."""
    few, many = (
        paired({0: 2.0, 1: 3.0}, {0: 1.0, 1: 1.5}),
        paired(*({s: v + 0.01 * s for s in range(6)} for v in (2, 1))),
    )
    assert "indicative" in compare.says(few)
    assert compare.says(paired({0: 2.0}, {0: 1.0})) == "one seed decides nothing"
    assert compare.says(many) == "first is better"
    noisy = paired({s: (-1.0) ** s for s in range(6)}, dict.fromkeys(range(6), 0.0))
    assert compare.says(noisy) == "cannot be told apart"


def test_small_p_values_are_not_zero():
    """Below what three digits show it is less than that; of one seed there is none."""
    apart = paired({s: 2.0 + 0.001 * s for s in range(6)}, dict.fromkeys(range(6), 1.0))
    assert compare._p(apart) == "< 0.001"
    assert compare._p(paired({0: 2.0}, {0: 1.0})) == ""
    assert float(compare._p(paired({0: 2.0, 1: 3.0}, {0: 1.0, 1: 1.5}))) > 0.05


def test_the_compared_rows(store, tmp_path):
    """One of each pair of a budget, and each beside its dense network: with the tables' numbers."""
    text = (built(tmp_path / "site", store) / "compare.html").read_text()
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count("<tr>") == 3
    assert "+0.75 [-2.43, +3.93] (2)" in body  # 91.0 - 90.0 and 91.5 - 91.0


def test_one_pair_at_six_seeds_is_not_compared():
    """One network on either side, whatever the seeds, says nothing of the two methods."""
    alike = {"dense": "d", "dcss": "n", "l1_channels": "l"}
    found = [
        replace(r, artifact=alike[r.cell["method"]["is"]], quality={"top1": Scores(90.0, 360.0, 400.0)})
        for r in records(range(6))
        if r.status == "ok"
    ]
    made = compare.table({name: lines(name, group) for name, group in rows.rows(found, []).items()})
    cells = [dict(zip(made.heads, map(made.shown, row), strict=True)) for row in made.body]
    assert len(cells) == 3
    assert {(c["says"], c["first - second"], c["p"], c["detectable"]) for c in cells} == {
        ("one seed decides nothing", "+0.00 (1)", "", "")
    }


def test_one_sentence_for_what_cannot_be(store, tmp_path):
    """An empty store, no store, somebody's own folder, a folder that cannot be made: exit status 2."""
    empty, own = Store(tmp_path / "empty"), tmp_path / "own"
    own.mkdir()
    (own / "thesis.txt").write_text("all of it")
    sealed = tmp_path / "file"
    sealed.write_text("")
    cases = [
        (empty.root, tmp_path / "a", "nothing to show"),
        (tmp_path / "nowhere", tmp_path / "a", "no store"),
        (store.root, own, "other files"),
        (store.root, sealed, "is a file"),
        (store.root, sealed / "below", "cannot be written"),
    ]
    for root, out, said in cases:
        done = CliRunner().invoke(main, ["report", "site", "--store", str(root), "--out", str(out)])
        assert done.exit_code == 2, done.output
        assert said in done.output
        assert len(done.output.strip().splitlines()) == 1
    assert (own / "thesis.txt").read_text() == "all of it"
    assert not (tmp_path / "a").exists()


def test_tables_that_fail_their_audit_are_not_shown(store, tmp_path, monkeypatch):
    """A planted fault, every difference off by one: a sentence, and no folder."""
    right = rows.Row.difference.func
    wrong = property(lambda row: (d := right(row)) and replace(d, mean=d.mean + 1))
    monkeypatch.setattr(rows.Row, "difference", wrong)
    with pytest.raises(UserError, match="fail their audit"):
        built(tmp_path / "site", store)
    assert not (tmp_path / "site").exists()


def test_the_command(store, tmp_path):
    """Writes a folder that others may read, and says where to look."""
    out = tmp_path / "site"
    done = CliRunner().invoke(main, ["report", "site", "--store", str(store.root), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert str(out / "index.html") in done.output
    assert out.stat().st_mode & 0o755 == 0o755
    assert os.listdir(out / "cells")  # noqa: PTH208


def test_the_caption_of_a_curve_tells_its_area(store, tmp_path):
    """Where plotly draws, as the picture's title does; names keep their capitals."""
    pytest.importorskip("plotly")
    for one in (record(DCSS(), keep, 0, 85.0, int(1000 * keep)) for keep in (0.25, 0.125)):
        store.put(one)
    (task,) = (f for f in (built(tmp_path / "site", store) / "tasks").iterdir() if "resnet20" in f.name)
    assert "Area under the curve of dcss, 8 epochs: " in task.read_text()


def test_points_of_disturbed_timings():
    """Why is told of the point, the axis says that there are such, and the front is of the others."""
    found = records()
    timings = [measured(found[2], p50_ms=9.0), measured(found[4], 1.25, disturbed="other work")]
    made = [line for name, group in rows.rows(found, timings).items() for line in lines(name, group)]
    drawn = curves.points(made)
    axis = 2
    assert "faint: disturbed" in drawn["axes"][axis]
    assert "disturbed" not in drawn["axes"][0]
    by_method = {point["method"]: point for point in drawn["points"]}
    assert (by_method["l1_channels"]["costs"][axis], by_method["l1_channels"]["doubts"][axis]) == (0.8, "other work")
    assert by_method["dcss"]["doubts"] == ["", "", ""]
    assert drawn["fronts"][axis] == [(1 / 1.5, 91.25)]
    (speed,) = speeds.timed(made)
    assert {p["curve"].split()[1]: p["disturbed"] for p in speeds.points(*speed)["points"]} == {
        "dcss,": "",
        "l1_channels,": "other work",
    }


def test_latency_is_relative_to_dense():
    """Of the same session: milliseconds of another say nothing, and the dense network stands at 1."""
    found = records()
    timings = [measured(found[0], 1.1, p50_ms=4.0), measured(found[2], p50_ms=5.0, dense_p50_ms=7.5)]
    made = [line for name, group in rows.rows(found, timings).items() for line in lines(name, group)]
    drawn = curves.points(made)
    assert drawn["axes"][2].startswith("latency / dense latency")
    costs = {point["method"]: point["costs"][2] for point in drawn["points"]}
    assert costs == {"dense": 1.0, "dcss": 1 / 1.5, "l1_channels": None}


def test_names_of_files():
    """Plain names stay; others become different, harmless ones."""
    assert words.file_of("cells", "00ff") == "cells/00ff.html"
    odd = {words.file_of("tasks", text) for text in ("../../etc", "..", "a/b", "a b", "")}
    assert len(odd) == 5
    assert all(name.count("/") == 1 and ".." not in name for name in odd)


COURSE = {
    "trials": [{"method": {"is": "etpf"}, "task": {"label": "digits/resnet20"}}],
    "settings": {"population": 2, "generations": 1},
    "generations": [[0, 1], [1, 2]],
    "individuals": [
        {"number": n, "expression": text, "born": int(n == 2), "parents": parents, "changed": [], "fitness": fitness,
         "scores": {"digits/resnet20": fitness}}
        for n, text, parents, fitness in ((0, "sum(P)", [], 60.0), (1, HOSTILE, [], 70.0), (2, "var(Q)", [1], 80.0))
    ],
}  # fmt: skip


def test_an_evolution_has_a_page(store, tmp_path):
    """Both pictures and every function, the best first; linked from the index. What is no course is told."""
    folder = store.root / "evolutions"
    folder.mkdir()
    (folder / "00ff.json").write_text(json.dumps(COURSE))
    (folder / "11ff.json").write_text('{"trials": []}')
    site = built(tmp_path / "site", store)
    text = (site / "evolutions" / "00ff.html").read_text()
    assert HOSTILE not in text
    assert text.index("var(Q)") < text.index("sum(P)")
    assert {f"{stem}.png" for stem in ("fitness", "genealogy")} == {
        f.name for f in site.glob("pictures/evolution-00ff/*")
    }
    index = (site / "index.html").read_text()
    assert "Evolution of etpf on digits/resnet20 (00ff)" in index
    assert "The evolution 11ff.json cannot be read" in index
    pages(site)


def test_formulas(store, tmp_path, monkeypatch):
    """MathML without a script; LaTeX where latex2mathml is not installed, or where there is more than a formula."""
    pytest.importorskip("latex2mathml")
    text = (built(tmp_path / "site", store) / "methods" / "dcss.html").read_text()
    assert text.count("<math ") == len(formulas.FORMULAS["dcss"].lines)
    for latex in (r"\href{javascript:alert(1)}{x}", r"\left( x", r"\class{y}{x}"):
        assert "script" not in formulas.mathml(latex)
        assert "class" not in formulas.mathml(latex)
    assert formulas.mathml(r"\text{<b>}").count("<b>") == 0
    monkeypatch.setitem(sys.modules, "latex2mathml", None)
    text = (built(tmp_path / "plain", store) / "methods" / "dcss.html").read_text()
    assert "<math " not in text
    assert "\\mathrm{softmax}" in text


def test_every_method_has_its_formula():
    """All that ship but the dense network, which leaves out nothing."""
    names = {name for name, cls in discover.found("methods").items() if cls.__module__.startswith("slimbench.")}
    assert names - set(formulas.FORMULAS) == {"dense"}


def test_pictures_of_a_method(store, tmp_path):
    """What its cells' notes hold is drawn on its page as on theirs; why samples are not shown is told."""
    noted = record(L1Channels(), 0.5, notes={"scales": {"a": 0.1, "b": 0.2}})
    super_resolution = record(L1Channels(), 0.5, task=Photos(), quality={"psnr_y photos": Scores(30.0, 60.0, 2.0)})
    store.put(noted)
    store.put(super_resolution)
    site = built(tmp_path / "site", store)
    name = f"../pictures/{noted.id}-scales.png"
    assert name in (site / "methods" / "l1_channels.html").read_text()
    assert name in (site / "cells" / f"{noted.id}.html").read_text()
    text = (site / "cells" / f"{super_resolution.id}.html").read_text()
    assert "No samples: samples are shown only of embedded data" in text, "nothing says which network it is"


def test_files_of_an_artifact(store, tmp_path):
    """Names and sizes where the network is at hand; else that it is not."""
    kept = replace(record(DCSS(), 0.5), artifact="0" * 64)
    store.put(kept)
    folder = store.artifact(kept.id)
    folder.mkdir()
    (folder / "manifest.json").write_text('{"input": [1, 8, 8]}')
    text = (built(tmp_path / "a", store) / "cells" / f"{kept.id}.html").read_text()
    assert "<dt>manifest.json</dt><dd>20 bytes</dd>" in text
    assert "1 x 1 x 8 x 8" in text
    shutil.rmtree(folder)
    assert "not at hand" in (built(tmp_path / "b", store) / "cells" / f"{kept.id}.html").read_text()
