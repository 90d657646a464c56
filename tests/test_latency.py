"""Latencies of two nights: equal networks are not timed, a planted 5 % is found, doubt is said."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

import nights
from conftest import HERE
from slimbench import baseline, discover, latency
from slimbench.artifact import sha256
from slimbench.baseline import Apart
from slimbench.core import UserError
from slimbench.latency import Look, is_slower


@pytest.fixture(scope="module")
def looks(stored, tmp_path_factory):
    """Eight A/A looks by a clock of random numbers, which is a profile while this file's tests run."""
    before = [*discover._plugins]
    discover.load_plugin(str(HERE / "nights.py"))
    network = tmp_path_factory.mktemp("timed") / "network"
    shutil.copytree(stored["dense"], network)
    (network / "ms").write_text("10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "ENOUGH_LOOKS", 8)
        taken = latency.calibrate(discover.make("hardware_profiles", "clockwork"), [network], 8, lambda text: None)
    yield taken
    discover._plugins[:] = before
    discover.found.cache_clear()


@pytest.fixture
def kept(store, stored, tmp_path, looks):
    """A baseline of one network of 10 ms with A/A looks, its file, and a function that makes head's of so many ms."""

    def put(kind: str, ms: float):
        made = nights.record(0)
        shutil.copytree(stored[kind], store.artifact(made.id), dirs_exist_ok=True)
        (store.artifact(made.id) / "ms").write_text(str(ms))
        return replace(made, artifact=sha256(store.artifact(made.id) / "manifest.json"))

    made = replace(baseline.of([put("dense", 10.0)], "a test"), apart={"clockwork": looks})
    file = tmp_path / "baseline.json"
    baseline.keep_networks(made.cells, store, file)
    return made, file, put


def verdict(kept, store, kind, ms, profile="clockwork"):
    base, file, put = kept
    base = replace(base, apart={profile: base.apart["clockwork"]})
    (found,) = latency.compare(base, baseline.newest([put(kind, ms)]), store, file, say=lambda text: None)
    return found.verdict, found.text


def test_five_per_cent_slower_is_found(kept, store):
    """By two looks; a network as fast is fine, and so is a faster one."""
    said, text = verdict(kept, store, "compressed", 10.5)
    assert said == "regression"
    assert ", then " in text
    assert "detectable" in text
    assert verdict(kept, store, "compressed", 10.0)[0] == "fine"
    assert verdict(kept, store, "compressed", 5.0)[0] == "fine"


def test_the_same_network_is_not_timed(kept, store):
    """It cannot have got slower, whatever a clock says."""
    assert verdict(kept, store, "dense", 99.0) == ("fine", "the same network, to the bit")
    assert not (store.root / "artifacts/sessions").exists()


def test_a_slow_place_in_memory_blames_no_network(kept, store):
    """Each network takes it in every other session."""
    profile, network = discover.make("hardware_profiles", "clockwork(slot=0.1)"), store.artifact(nights.record(0).id)
    seen = latency.sessions(profile, network, network)
    assert [session.slower > 0.05 for session in seen] == [True, False] * 4
    assert abs(latency.Look.of(seen).slower) < 0.03


def test_what_other_work_disturbed_cannot_be_told(kept, store):
    """However slow it was."""
    said, text = verdict(kept, store, "compressed", 20.0, "clockwork(disturbed=True)")
    assert said == "cannot tell"
    assert "a planted load" in text


def test_another_machine_cannot_tell(kept, store):
    """Its noise is another."""
    base, file, put = kept
    elsewhere = replace(base, apart={"clockwork": Apart("elsewhere", base.apart["clockwork"].looks)})
    assert verdict((elsewhere, file, put), store, "compressed", 20.0)[0] == "cannot tell"


def test_a_network_that_is_gone_cannot_be_compared_with(kept, store):
    """Nor one that was altered."""
    networks = baseline.networks(kept[1])
    (manifest,) = networks.glob("*/manifest.json")
    manifest.write_text(manifest.read_text() + " ")
    assert verdict(kept, store, "compressed", 10.0)[0] == "cannot tell"
    shutil.rmtree(networks)
    assert verdict(kept, store, "compressed", 10.0)[0] == "cannot tell"


def test_a_busy_machine_makes_no_baseline(kept, store):
    """Too few looks were quiet."""
    profile = discover.make("hardware_profiles", "clockwork(disturbed=True)")
    with pytest.raises(UserError, match="Only 0 of 1 A/A looks were undisturbed"):
        latency.calibrate(profile, [store.artifact(nights.record(0).id)], 1, lambda text: None)


def untimed(monkeypatch, *, heads: bool, bases: bool, tries: int = 99, why: str = "no such operator"):
    """Sessions in which head's networks, the baseline's, or both, cannot be timed so many times."""
    real, failed = latency.sessions, []

    def sessions(profile, head, base):
        if (heads if head != base else bases) and len(failed) < tries:
            failed.append(head)
            raise UserError(f"{head.name} cannot be timed by clockwork: {why}")
        return real(profile, head, base)

    monkeypatch.setattr(latency, "sessions", sessions)


def test_a_network_that_cannot_be_timed_is_a_regression(kept, store, monkeypatch):
    """Where the baseline's can, and at the second try too; what was found before it is not lost."""
    untimed(monkeypatch, heads=True, bases=False)
    said, text = verdict(kept, store, "compressed", 10.0)
    assert said == "regression"
    assert "no such operator" in text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"bases": True}, "the baseline's network cannot be timed either"),
        ({"bases": False, "tries": 1}, "second try"),
        ({"bases": False, "why": "its process was killed by SIGKILL (out of memory?)"}, "out of memory"),
    ],
)
def test_what_cannot_be_timed_at_all_or_once_cannot_be_told(kept, store, monkeypatch, given, words):
    """No network's fault, or not for sure."""
    untimed(monkeypatch, heads=True, **given)
    said, text = verdict(kept, store, "compressed", 10.0)
    assert said == "cannot tell"
    assert words in text


def test_a_second_look_that_fails_confirms_nothing(kept, store, monkeypatch):
    """And hides no other finding."""
    real, looked = latency.look, []

    def look(*networks):
        looked.append(networks)
        if len(looked) == 2:
            raise UserError("it broke")
        return real(*networks)

    monkeypatch.setattr(latency, "look", look)
    said, text = verdict(kept, store, "compressed", 20.0)
    assert said == "cannot tell"
    assert text.endswith("then it broke")


def test_a_profile_that_is_not_at_hand_cannot_tell(kept, store):
    """Its plug-in was not loaded; other profiles, and scores, were judged all the same."""
    said, text = verdict(kept, store, "compressed", 10.0, "no_such_profile")
    assert said == "cannot tell"
    assert "Unknown hardware profile 'no_such_profile'" in text


def test_a_store_without_the_network_cannot_tell(kept, store):
    """It was not copied along: no regression."""
    base, file, put = kept
    (head,) = baseline.newest([put("compressed", 10.0)])
    shutil.rmtree(store.artifact(head.id))
    (found,) = latency.compare(base, [head], store, file, say=lambda text: None)
    assert (found.verdict, found.text) == ("cannot tell", f"the network is not in {store.root}")


def test_one_look_is_no_alarm():
    """The second must agree."""
    slow, fine, doubtful = Look(0.2), Look(0.0), Look(0.2, "a load")
    assert is_slower(slow, lambda: slow, 0.1)[0] is True
    assert is_slower(slow, lambda: fine, 0.1)[0] is False
    assert is_slower(fine, lambda: slow, 0.1) == (False, [fine])
    assert is_slower(doubtful, lambda: slow, 0.1)[0] is None
    assert is_slower(slow, lambda: doubtful, 0.1)[0] is None
