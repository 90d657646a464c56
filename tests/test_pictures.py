"""Pictures from records: what is in them, and the same bytes for the same records."""

from __future__ import annotations

from dataclasses import replace

from made import measured, record
from slimbench.core import Recipe
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.reports import notes, pictures
from slimbench.reports.rows import rows
from slimbench.reports.table import lines
from slimbench.tasks.digits import Digits
from slimbench.tasks.texture_digits import TextureDigits

WIDTHS = {"stem": [16, 8], "conv": [32, 20]}
RECORDS = [
    *(record(Dense(), seed=s, top1=92.0 + s) for s in (0, 1)),
    *(record(DCSS(), 0.5, s, 91.0 + 0.5 * s, 500) for s in (0, 1)),
    record(L1Channels(), 0.5, top1=90.0, macs=500, notes={"widths": WIDTHS}),
]
TAKEN = [measured(RECORDS[0]), measured(RECORDS[2]), measured(RECORDS[4], 0.8, 0.7, 0.9)]


def test_the_pareto_front():
    """What costs more and is no better is left out; of equal cost the better stays."""
    points = [(0.5, 90.0), (0.5, 91.0), (0.3, 88.0), (0.6, 90.5), (1.0, 92.0)]
    assert pictures.front(points) == [(0.3, 88.0), (0.5, 91.0), (1.0, 92.0)]


def test_the_same_records_the_same_pictures(tmp_path):
    """In whatever order they come: quality, speed-up, widths."""
    first = pictures.draw(RECORDS, TAKEN, tmp_path / "a")
    again = pictures.draw(RECORDS[::-1], TAKEN[::-1], tmp_path / "b")
    names = [path.name for path in first]
    assert len(names) == 3
    assert names[0].startswith("digits-resnet20-")
    assert names[0].endswith("-quality.png")
    assert names[1] == f"widths-{RECORDS[4].id}.png"
    assert names[2].startswith("speed-up-cpu-quick-")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in first)


def test_what_is_in_them():
    """Points where the tables have them, intervals of two seeds and none of one, both widths of each layer."""
    drawn = dict(pictures._figures(rows(RECORDS, TAKEN)))
    quality, widths, speed = drawn.values()
    macs, params, latency = quality.axes
    assert (macs.get_xlabel(), params.get_xlabel()) == ("MACs kept", "params kept")
    assert latency.get_xlabel() == "latency / dense latency\ncpu quick"
    spots = {tuple(bars[0].get_xydata()[0]): bars.has_yerr for bars in macs.containers}
    assert spots == {(1.0, 92.5): True, (0.5, 91.25): True, (0.5, 90.0): False}
    assert [bar.get_height() for bar in widths.axes[0].patches] == [16, 32, 8, 20]
    (axes,) = speed.axes
    assert {tuple(bars[0].get_xydata()[0]) for bars in axes.containers} == {(2.0, 0.8), (2.0, 1.5)}
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_nothing_to_draw(tmp_path):
    """No records, no pictures."""
    assert pictures.draw([], [], tmp_path) == []


def test_gates_and_the_way_to_them(tmp_path):
    """A map of layers and candidates, the course of the expected cost; no histogram of sizes of different things."""
    told = {
        "kept for a backward pass": {"plain": 3, "weights": 2, "gates": 1},
        "gates": {"stem": [0.0, 0.25, 0.75], "conv": [1.0, 0.0]},
        "expected over target": [0.5, 0.8, 1.2, 1.1, 1.0, 1.0],
        "expected widths": {"stem": [1.0, 0.8, 0.5], "conv": [1.0, 0.6, 0.4]},
        "eta": [0.9],
    }
    one = record(DCSS(), 0.5, notes=told)
    drawn = [path.name for path in notes.draw(one, tmp_path)]
    names = ("gates", "expected-over-target", "expected-widths")
    assert drawn == [f"{one.id}-{name}.png" for name in names]
    ways = notes._figure("expected widths", {"": told["expected widths"]}, "title").axes[0]
    assert {line.get_label(): line.get_ydata().tolist() for line in ways.lines} == told["expected widths"]
    shown = notes._figure("gates", {"": told["gates"]}, "title").axes[0]
    assert [label.get_text() for label in shown.get_yticklabels()] == ["stem", "conv"]
    assert shown.images[0].get_array().tolist()[0] == [0.0, 0.25, 0.75]
    course = notes._figure("expected over target", {"": told["expected over target"]}, "title").axes[0]
    assert course.lines[0].get_ydata().tolist() == told["expected over target"]
    assert course.lines[0].get_xdata().tolist()[-1] == 1.0


def test_points_of_a_method_are_one_curve_of_speed_ups():
    """By theoretical speed-up, whatever their order; another method is another curve."""
    quarter = record(DCSS(), 0.25, top1=85.0, macs=250)
    found = dict(pictures._figures(rows([*RECORDS, quarter], [*TAKEN, measured(quarter, 2.5, 2.4, 2.6)])))
    (axes,) = next(drawn for name, drawn in found.items() if name.startswith("speed-up")).axes
    curves = {bars.get_label(): bars[0].get_xydata().tolist() for bars in axes.containers}
    assert curves == {
        "digits/resnet20 dcss, 8 epochs": [[2.0, 1.5], [4.0, 2.5]],
        "digits/resnet20 l1_channels, 8 epochs": [[2.0, 0.8]],
    }


def test_a_disturbed_timing_is_faint_and_on_no_front():
    """The faster of two, were its timing to be trusted: drawn in both pictures, marked in both, and off the front."""
    quick = measured(RECORDS[4], 2.5, 2.4, 2.6, p50_ms=0.5, disturbed="the load was 3")
    drawn = dict(pictures._figures(rows(RECORDS, [*TAKEN[:2], quick])))
    quality, _, speed = drawn.values()
    macs, _, latency = quality.axes
    (front,) = (line for line in latency.lines if line.get_drawstyle() == "steps-post")
    assert 0.4 not in front.get_xdata()
    assert latency.get_xlabel() == "latency / dense latency\ncpu quick (faint: disturbed)"
    faint = {bars[0].get_xydata()[0][0]: bars[0].get_alpha() for bars in latency.containers}
    assert [spot for spot, alpha in faint.items() if alpha] == [0.4]
    assert not any(bars[0].get_alpha() for bars in macs.containers)
    (axes,) = speed.axes
    drawn = {tuple(bars[0].get_xydata()[0]): bars[0].get_alpha() for bars in axes.containers}
    assert {spot for spot, alpha in drawn.items() if alpha} == {(2.0, 2.5)}
    assert axes.get_ylabel().endswith("(faint: disturbed)")


def test_latency_is_of_dense_in_the_same_session():
    """Slower than the dense network of another session, and faster than that of its own: left of it."""
    taken = [
        measured(RECORDS[0], p50_ms=4.28, dense_p50_ms=4.28),
        measured(RECORDS[2], 1.06, 1.05, 1.07, p50_ms=5.44, dense_p50_ms=5.75),
    ]
    quality = next(iter(dict(pictures._figures(rows(RECORDS, taken))).values()))
    spots = {bars.get_label(): bars[0].get_xdata()[0] for bars in quality.axes[2].containers}
    assert spots == {"dense (2)": 1.0, "dcss (2)": 1 / 1.06}


def test_many_rows_leave_panels_their_room():
    """A name a method, however many its points; the picture grows by the names; a wide interval is cut off."""
    many = [record(DCSS(pull=p / 100), k / 20, 0, 80.0 + k, 50 * k) for p in range(1, 31) for k in range(8, 18, 2)]
    wide = [record(L1Channels(), 0.5, s, 80.0 + 10 * s, 500) for s in (0, 1)]
    ((heading, group),) = rows([*RECORDS[:2], *many, *wide], []).items()
    drawn = pictures.quality(heading, found := lines(heading, group))
    assert pictures.areas(found)
    assert len(drawn.get_suptitle().splitlines()) == 2
    (legend,) = drawn.legends
    assert len(legend.get_texts()) == 32
    assert {"dense (2)", "l1_channels (2)"} < {text.get_text() for text in legend.get_texts()}
    drawn.canvas.draw()
    assert all(axes.get_position().height * drawn.get_figheight() > 3 for axes in drawn.axes)
    assert drawn.axes[0].get_ylim()[0] > 70


def test_a_mean_far_from_the_others_is_named_outside_the_frame():
    """It would press them together. Of few means none is far out, and the dense network is always inside."""

    def panel(*found):
        ((heading, group),) = rows([*RECORDS[:2], *found], []).items()
        axes = pictures.quality(heading, lines(heading, group)).axes[0]
        return *axes.get_ylim(), axes.get_xlabel()

    near = [record(L1Channels(), k / 20, 0, 80.0 + k, 50 * k) for k in range(8, 18)]
    far = record(DCSS(), 0.5, 0, 10.0, 500)
    bottom, top, said = panel(*near, far)
    assert 80 < bottom < 88
    assert 97 < top < 105
    assert said == "MACs kept\noutside the frame: dcss 0.5 macs: 10.00"
    bottom, _, said = panel(*near[:4], far)
    assert (bottom < 10, said) == (True, "MACs kept")
    collapsed = [record(L1Channels(), k / 20, 0, 10.0 + k / 10, 50 * k) for k in range(8, 18)]
    bottom, top, said = panel(*collapsed)
    assert (bottom < 11, top > 92.5, said) == (True, True, "MACs kept")


def test_recipes_of_a_task_are_curves_of_their_own():
    """And two inputs' timings, on one machine, are files of their own, whose names tell them apart."""
    long = Digits(recipe=Recipe(epochs=40))
    made = [record(DCSS(), 0.5, task=task, macs=500) for task in (Digits(), long, TextureDigits())]
    taken = [*map(measured, made[:2]), measured(made[2], input_shape=(1, 1, 64, 64))]
    found = {name: drawn for name, drawn in pictures._figures(rows(made, taken)) if name.startswith("speed-up")}
    assert [name.rpartition("-")[0] for name in found] == [
        f"speed-up-cpu quick ({machine(found)}, {shape})" for shape in ("1x64x64", "1x8x8")
    ]
    names = [[bars.get_label() for bars in drawn.axes[0].containers] for drawn in found.values()]
    assert names[0] == ["texture_digits/fcn-resnet14 dcss, 8 epochs"]
    assert [name.partition(", recipe")[0] for name in names[1]] == [
        "digits/resnet20 (16 dense epochs",
        "digits/resnet20 (40 dense epochs",
    ]
    other = [replace(taken[2], measurement=replace(taken[2].measurement, samples=60))]
    again = [name for name, _ in pictures._figures(rows(made, [*taken, *other])) if name.startswith("speed-up")]
    assert len(set(again)) == len(again), again


def machine(found):
    """The digits of the machine in names of files."""
    return next(iter(found)).partition("(")[2][:6]
