"""What runs, and what it did: `bench status` and `bench logs`, from files alone."""

from __future__ import annotations

import json
import os
import subprocess
import threading

import pytest
from click.testing import CliRunner

from slimbench import logs, memory, status
from slimbench.cli import main
from slimbench.core import Record, UserError
from slimbench.execute import Event, Job
from slimbench.leases import Leases
from slimbench.logs import Writer
from slimbench.progress import PlainView


def bench(*args) -> str:
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def running(store):
    """A runner that has one job, which is in its third epoch."""
    with Leases(store.root, "quick") as leases:
        leases.take("00ff")
        log = Writer(store.log("00ff"))
        log.write("started", label="stripes fake", host="here", pid=7)
        log.progress({"fit": "fine-tune", "epoch": 2.5, "epochs": 8.0, "images_per_second": 1234.5})
        log.printed(b"a warning of a librar")
        log.printed(b"y\nand half a li")
        yield leases


def test_status_says_what_runs_where_since_when_and_how_far(store, running):
    """For people and for machines."""
    os.utime(store.root / "leases" / "00ff", follow_symlinks=False, times=(1e9, 1e9))
    text = bench("status", "--store", store.root)
    assert text.startswith("0 records; 1 runner\n\nquick on ")
    assert f"process {os.getpid()}: last sign of life 0 s ago" in text
    assert "  00ff  stripes fake: for " in text
    assert text.rstrip().endswith(" h, fine-tune, epoch 2.5 of 8, 1,234 images/s")
    (runner,) = json.loads(bench("status", "--store", store.root, "--json"))["runners"]
    assert (runner["what"], runner["pid"], runner["sign"]) == ("quick", os.getpid(), "runs")
    assert runner["work"][0]["for_s"] > 1e8


def test_status_goes_by_the_clock_of_the_file_system(store, running, monkeypatch):
    """Not by this machine's, which may be a year off."""
    monkeypatch.setattr(status.time, "time", lambda: 0.0)
    (runner,) = status.runners(store)
    assert runner.silent_s < 60
    assert runner.work[0].for_s < 60


def test_status_tells_the_silent_and_the_dead(store, running):
    """One may be alive, on another machine; the other is not."""
    file = store.root / "runners" / running.name
    os.utime(file, (1e9, 1e9))
    assert status.runners(store)[0].sign == "silent"
    assert "no sign of life for " in bench("status", "--store", store.root)
    file.unlink()
    (runner,) = status.runners(store)
    assert (runner.sign, [job.id for job in runner.work]) == ("dead", ["00ff"])


def test_status_of_a_quiet_store(store):
    """Nothing runs, and nothing is made."""
    before = sorted(store.root.rglob("*"))
    assert bench("status", "--store", store.root) == "0 records; no runners\n"
    assert sorted(store.root.rglob("*")) == before


def test_a_log_is_shown_with_times(store, running):
    """What its runner saw and what it printed, by whole lines."""
    lines = bench("logs", "00", "--store", store.root).splitlines()
    assert [line[21:].split()[0] for line in lines] == ["started", "progress", "printed"]
    assert lines[2].endswith("printed   a warning of a library")
    facts = [json.loads(line) for line in bench("logs", "00ff", "--store", store.root, "--json").splitlines()]
    assert facts[1]["epoch"] == 2.5
    assert all(fact["at"].endswith("+00:00") for fact in facts)


def test_a_log_is_followed_to_the_end_of_its_job(store, running):
    """What is written meanwhile comes, half a line as soon as it is whole."""
    path = store.log("00ff")
    followed = logs.follow(path, is_over=lambda: False)
    assert [next(followed)["event"] for _ in range(3)] == ["started", "progress", "printed"]

    def go_on():
        with path.open("a") as file:
            file.write('{"at": "2026", "ev')
            file.flush()
            file.write('ent": "done"}\n')

    writer = threading.Timer(0.1, go_on)
    writer.start()
    assert [fact["event"] for fact in followed] == ["done"]
    writer.join()


def test_a_log_that_nobody_writes_is_followed_to_what_there_is(store, running):
    """Its runner has ended."""
    running.drop("00ff")
    assert len(bench("logs", "00ff", "--store", store.root, "--follow").splitlines()) == 3


def test_lines_of_other_makers_are_text(store):
    """An older log, or a number alone."""
    store.log("aa").write_text("Epoch 1\n17\n{}\n")
    assert [fact["text"] for fact in logs.lines(store.log("aa"))] == ["Epoch 1", "17", "{}"]


def test_progress_is_thinned(store):
    """Each stage once, and then now and then."""
    log = Writer(store.log("bb"))
    for epoch in range(100):
        log.progress({"fit": "a", "epoch": epoch})
    log.progress({"stage": "evaluate"})
    assert len(list(logs.lines(store.log("bb")))) == 2


def test_a_progress_bar_is_logged_as_a_terminal_shows_it(store):
    """And hours of it take no longer than they must."""
    log = Writer(store.log("bb"))
    for i in range(5000):
        log.printed(b"\r%d of 5000" % i)
    log.printed(b"\ran end\r\nand ")
    log.printed(b"more", last=True)
    assert [fact["text"] for fact in logs.lines(store.log("bb"))] == ["an end", "and more"]
    log.printed(b"x" * 100_000)
    assert list(logs.lines(store.log("bb")))[-1]["text"] == "x" * 100_000


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path):
    """The work is worth more."""
    Writer(tmp_path / "absent" / "log").write("started")


@pytest.mark.parametrize("prefix", ["zz", "0", "../records/00", "*", "/-"])
def test_a_log_is_named_by_the_start_of_an_id(store, prefix):
    """None, and several, are said so; nothing outside is read."""
    for name in ("00", "01"):
        store.log(name).touch()
    with pytest.raises(UserError, match=r"No log has an id that starts|2 logs have ids that start"):
        logs.find(store, prefix)


def test_logs_that_share_the_start_of_an_id_are_named(store):
    """With what they are of, as far as a line goes."""
    for number in range(7):
        Writer(store.log(f"0{number}")).write("started", label=f"cell {number}")
    words = r"^7 logs have ids that start with '0', 00 \(cell 0\), 01 \(cell 1\), .* and 2 more: give more of the id\.$"
    with pytest.raises(UserError, match=words):
        logs.find(store, "0")


def test_a_line_of_a_run_names_the_cell(store, capsys):
    """By the beginning of its id, also where it is measured: what `bench show` takes."""
    record = Record("0123456789abcdef", "stripes fake", {}, "failed", reason="it broke")
    view = PlainView()
    view.begin("compress", 2)
    for name, work in ((record.id, {"cell": 1}), ("fedcba9876543210", {"record": record})):
        view.show(Event("done", Job(name, "stripes fake", work, store.log(name)), record))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("[1/2] 01234567 stripes fake: failed: it broke; about ")
    assert lines[2] == "[2/2] 01234567 stripes fake: failed: it broke"
    store.put(record)
    assert store.find("01234567") == record


def test_memory_that_is_left_is_the_containers_where_that_is_less(tmp_path):
    """Of cgroups, version 2."""
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert memory.available_bytes(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes(tmp_path) > 2**20
    assert memory.resident_bytes(os.getpid()) > 2**20
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert memory.resident_bytes(gone.pid) == 0
