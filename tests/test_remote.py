"""Stores of objects: in this process's memory, and in a real server that speaks S3, where one is installed."""

from __future__ import annotations

import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from click.testing import CliRunner

import nights
from runs import SUITE, go, timeless
from slimbench import leases as leasing
from slimbench.cli import main
from slimbench.core import UserError
from slimbench.objects import Objects
from slimbench.remote import RemoteLeases, RemoteStore, open_store
from slimbench.store import Store

pytest.importorskip("fsspec", reason="object stores are read by fsspec, which is not installed")
CELLS = replace(SUITE, profiles=())


@pytest.fixture(scope="session")
def server():
    """A server that speaks S3, with one bucket."""
    reason = "pip install 's3fs' 'moto[server]' to test against a server that speaks S3"
    pytest.importorskip("s3fs", reason=reason)
    moto = pytest.importorskip("moto.server", reason=reason)
    running = moto.ThreadedMotoServer(port=0)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture(params=["memory", "s3"])
def url(request, monkeypatch, tmp_path):
    """A prefix that nobody has used."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    if request.param == "memory":
        return f"memory://bucket/{secrets.token_hex(4)}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("server"))
    import s3fs

    for name, value in {"ACCESS_KEY_ID": "who", "SECRET_ACCESS_KEY": "ever", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    if not files.exists("bucket"):
        files.mkdir("bucket")
    return f"s3://bucket/{secrets.token_hex(4)}"


@pytest.fixture
def clock(monkeypatch):
    """The steady clock of this machine, to be set."""
    now = [1000.0]
    monkeypatch.setattr(leasing.time, "monotonic", lambda: now[0])
    return now


# ------------------------------------------------------------------------------------------------------------ objects


def test_objects_are_kept_by_name(url, tmp_path):
    """Written, replaced, listed, fetched, removed."""
    objects = Objects(url)
    objects.check()
    assert objects.stamps("records") == {}
    objects.write("records/a.json", b"1")
    objects.write("records/b.json", b"2")
    first = objects.stamps("records")
    objects.write("records/b.json", b"three")
    second = objects.stamps("records")
    assert list(first) == list(second) == ["records/a.json", "records/b.json"]
    assert first["records/a.json"] == second["records/a.json"]
    assert first["records/b.json"] != second["records/b.json"]
    objects.fetch({"records/b.json": tmp_path / "b"})
    assert (tmp_path / "b").read_bytes() == objects.read("records/b.json") == b"three"
    for _ in range(2):
        objects.remove("records/b.json")
    assert objects.read("records/b.json") is None


def test_an_object_is_created_once(url):
    """The second is refused, and changes nothing."""
    objects = Objects(url)
    assert objects.create("leases/job", b"one")
    assert not objects.create("leases/job", b"two")
    assert objects.read("leases/job") == b"one"


def test_of_many_that_create_at_once_one_does(url):
    """The server decides."""
    if url.startswith("memory"):
        pytest.skip("one process's memory looks first, then writes: it is for one thread")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: Objects(url).create("leases/job", str(n).encode()), range(16)))
    assert sum(made) == 1
    assert Objects(url).read("leases/job") == str(made.index(True)).encode()


# ------------------------------------------------------------------------------------------------------------- leases


@pytest.fixture
def runner(url, tmp_path):
    """Makes a runner of the store; none beats by itself."""
    return lambda: RemoteLeases(Objects(url), tmp_path, beat_s=1e6)


def test_a_job_is_one_runners(url, runner):
    """The second gets it when the first has given it back, and nothing is left at the end."""
    with runner() as one, runner() as two:
        assert one.take("job")
        assert not two.take("job")
        assert not one.take("job")
        assert two.holder("job") == one.name
        assert two.others() == [one.name]
        one.drop("job")
        assert two.take("job")
    assert Objects(url).stamps("leases") == Objects(url).stamps("runners") == {}


def test_a_silent_runner_is_dead_after_its_patience(runner, clock):
    """And finds, once it wakes, that its job is another's; one that beats is not."""
    with runner() as still, runner() as other:
        assert still.take("job")
        for _ in range(3):
            assert not other.take("job")
            clock[0] += leasing.PATIENCE_S - 1
            still._touch()
        assert not other.take("job")
        clock[0] += leasing.PATIENCE_S + 1
        assert other.take("job")
        assert still.lost() == {"job"}
        still.drop("job")
        assert other.holder("job") == other.name


def test_of_two_that_take_over_one_does(runner, clock):
    """The dead one's lease stays; its successor's can be made only once."""
    dead = runner().__enter__()
    assert dead.take("job")
    with runner() as one, runner() as two:
        assert not one.take("job")
        assert not two.take("job")
        clock[0] += leasing.PATIENCE_S + 1
        assert [one.take("job"), two.take("job")] == [True, False]


def test_an_answer_that_got_lost_is_no_refusal(runner, monkeypatch):
    """The object was made, the answer did not come, the second request was refused: it is this runner's."""
    with runner() as one:
        create = one._objects.create
        monkeypatch.setattr(one._objects, "create", lambda *what: create(*what) and create(*what))
        assert one.take("job")
        assert one.holder("job") == one.name


# ------------------------------------------------------------------------------------------------------------- stores


def test_a_suite_is_run_once_whoever_runs_it(url, store, tmp_path):
    """The second machine finds all of it; its report is that of the folder into which it is merged."""
    outcome, _ = go(SUITE, RemoteStore(url))
    assert outcome.failed == 0
    second = RemoteStore(url)
    outcome, view = go(SUITE, second)
    assert outcome.failed == 0
    assert view.labels("started") == []
    merged = CliRunner().invoke(main, ["merge", url, "--into", str(store.root)])
    assert (merged.exit_code, "conflict" in merged.output) == (0, False)
    assert timeless(second) == timeless(store)
    there, here, file = (
        CliRunner().invoke(main, ["report", "--store", place]).output
        for place in (url, str(store.root), f"file://{store.root}")
    )
    assert there == here == file
    assert "| dense" in there


def test_two_runners_at_once_share_the_work(url):
    """No cell is done twice; each fetches the networks that it starts from."""
    stores = [RemoteStore(url), RemoteStore(url)]
    with ThreadPoolExecutor(2) as pool:
        (one, first), (two, second) = pool.map(lambda opened: go(SUITE, opened), stores)
    assert (one.failed, two.failed) == (0, 0)
    started = [label for label in first.labels("started") + second.labels("started") if "check" not in label]
    assert len(started) == len(set(started))
    assert set(started) == {*first.labels("done"), *second.labels("done")}
    assert timeless(stores[0]) == timeless(stores[1])
    assert Objects(url).stamps("leases") == {}


def test_what_starts_from_a_network_made_elsewhere_fetches_it(url):
    """Here only the records of the dense cells were known."""
    go(replace(CELLS, arms=(replace(CELLS.arms[0], methods=()),)), RemoteStore(url))
    outcome, view = go(CELLS, there := RemoteStore(url))
    assert outcome.failed == 0
    assert not any("dense" in label for label in view.labels("started"))
    assert {record.status for record in there.records()} == {"ok"}


def test_a_record_that_was_not_published_is_by_the_next_run(url, tmp_path):
    """Its runner was killed in between; the folder has it."""
    first = RemoteStore(url, folder=tmp_path / "one")
    Store.put(first, nights.record(0, artifact=""))
    assert Objects(url).stamps("records") == {}
    os.close(first._folder_lock)
    RemoteStore(url, folder=tmp_path / "one")
    assert [record.id for record in RemoteStore(url, folder=tmp_path / "two").records()] == [nights.record(0).id]


def test_a_record_made_again_that_was_not_published_is_by_the_next_run(url, tmp_path):
    """Over the failure that is there; a report in between publishes nothing, and does not forget."""
    cell = nights.record(0, artifact="")

    def opened(folder, **how):
        one = RemoteStore(url, folder=tmp_path / folder, **how)
        os.close(one._folder_lock)
        return one

    opened("one").put(replace(cell, status="failed"))
    Store.put(opened("one"), cell)
    assert opened("one", create=False).statuses() == {cell.id: "ok"}
    assert opened("two").statuses() == {cell.id: "failed"}
    opened("one")
    assert opened("two").statuses() == {cell.id: "ok"}
    before = Objects(url).stamps("records")
    opened("one")
    opened("one")
    assert Objects(url).stamps("records") == before


def test_a_record_without_its_network_is_not_held_to_be_published(url, tmp_path):
    """Nobody could use it; once the network is there, it is shown."""
    cell = nights.record(0, artifact="some")

    def opened(folder):
        one = RemoteStore(url, folder=tmp_path / folder)
        os.close(one._folder_lock)
        return one

    opened("one").put(replace(cell, status="failed", artifact=""))
    one = opened("one")
    Store.put(one, cell)
    opened("one")
    assert opened("two").statuses() == {cell.id: "failed"}
    one.artifact(cell.id).mkdir()
    for name in ("manifest.json", "mine.txt"):
        (one.artifact(cell.id) / name).write_text("{}")
    opened("one")
    assert opened("two").statuses() == {cell.id: "ok"}
    shown = opened("two")
    shown.bring(cell.id)
    assert [path.name for path in shown.artifact(cell.id).iterdir()] == ["manifest.json"], "what else lies there stays"


def test_what_an_older_version_knew_is_taken_anew(url, tmp_path):
    """It kept no stamps of files; what was removed there goes all the same."""
    one = RemoteStore(url, folder=tmp_path / "one")
    for n in range(2):
        one.put(nights.record(n, artifact=""))
    os.close(one._folder_lock)
    (one.root / "published.json").write_text(json.dumps(Objects(url).stamps("records")))
    Objects(url).remove(f"records/{nights.record(1).id}.json")
    assert list(RemoteStore(url, folder=tmp_path / "one").statuses()) == [nights.record(0).id]


@pytest.mark.parametrize("name", ["../../../../evil.json", "sub/a.json", "A B.json", "ab.txt"])
def test_an_object_that_is_no_record_is_left_out(tmp_path, monkeypatch, name):
    """Whoever can write to the bucket would write anywhere here."""
    url = f"memory://bucket/{secrets.token_hex(4)}"
    cell = nights.record(0, artifact="")
    RemoteStore(url, folder=tmp_path / "one").put(cell)
    Objects(url).write(f"records/{name}", b"{}")
    opened = RemoteStore(url, folder=tmp_path / "a" / "b" / "c")
    assert list(opened.statuses()) == [cell.id]
    assert opened.warnings == [f"{url} has objects that are not of a store, such as 'records/{name}': left out."]
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("name", ["../../../evil", "/{}/evil"])
def test_a_network_is_fetched_into_its_folder_alone(tmp_path, name):
    """Its other files come."""
    url = f"memory://bucket/{secrets.token_hex(4)}"
    opened = RemoteStore(url, folder=tmp_path / "here")
    cell = nights.record(0, artifact="ab" * 32)
    opened.put(cell)
    for file in ("deep/weights", name.format(tmp_path)):
        Objects(url).write(f"artifacts/{cell.id}/{cell.artifact}/{file}", b"1")
    opened.bring(cell.id)
    assert [path.name for path in opened.artifact(cell.id).rglob("*")] == ["deep", "weights"]
    assert "evil" in opened.warnings[0]
    assert not list(tmp_path.rglob("evil"))


def test_a_record_that_was_removed_there_is_gone_here(url, tmp_path):
    """And one that was replaced there is replaced."""
    one = RemoteStore(url, folder=tmp_path / "one")
    for n in range(2):
        one.put(nights.record(n, artifact=""))
    os.close(RemoteStore(url, folder=tmp_path / "two")._folder_lock)
    one.put(nights.record(0, artifact="", status="failed"))
    Objects(url).remove(f"records/{nights.record(1).id}.json")
    assert RemoteStore(url, folder=tmp_path / "two").statuses() == {nights.record(0).id: "failed"}


def test_a_record_whose_network_is_lost_is_not_published(url):
    """Others would take its cell for done."""
    opened = RemoteStore(url)
    opened.put(nights.record(0, artifact="ab" * 32))
    assert Objects(url).stamps("records") == {}


def test_a_network_that_is_gone_is_said(url, tmp_path):
    """With what to do."""
    opened = RemoteStore(url)
    opened.put(nights.record(0, artifact="ab" * 32))
    with pytest.raises(UserError, match=r"gone from .* made again"):
        opened.bring(nights.record(0).id)


# -------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["report", "--store", "memory://nothing/here"], "There is no store in memory://nothing/here"),
        (["report", "--store", "nosuch://bucket"], "nosuch://bucket cannot be opened"),
        (["status", "--store", "memory://bucket/x"], "is no folder, which this command needs"),
        (["run", "--all", "--store", "memory://b/x", "--executor", "slurm"], "wants a folder that all nodes see"),
    ],
)
def test_what_cannot_be_is_one_sentence(command, says, tmp_path, monkeypatch):
    """And exit status 2."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    told = CliRunner().invoke(main, command)
    assert told.exit_code == 2
    assert says in told.output
    assert told.output.count("\n") == 1


def test_a_store_without_exclusive_writes_is_refused(monkeypatch, tmp_path):
    """Those that look first and then write, and those that ignore what was asked."""
    with pytest.raises(UserError, match="only where there is none"):
        Objects(f"dir::file://{tmp_path}").check()
    objects = Objects("memory://bucket/overwrites")
    monkeypatch.setattr(objects, "create", lambda name, data: objects.write(name, data) is None)
    with pytest.raises(UserError, match="only where there is none"):
        objects.check()


def test_a_folder_is_a_folder(tmp_path):
    """With or without a scheme."""
    assert type(open_store(str(tmp_path / "one"))) is Store
    assert open_store(f"file://{tmp_path}/two").root == tmp_path / "two"
