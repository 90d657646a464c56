"""Peak memory is what a network takes, and not what a process imports before the first one; nothing waits for ever."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from made import measured, record
from slimbench import environment, fresh, memory
from slimbench.core import Budget
from slimbench.hardware_profiles import _protocol
from slimbench.hardware_profiles.cpu import CPU
from slimbench.identity import digest
from slimbench.methods.dcss import DCSS
from slimbench.store import Store


def test_what_python_imports_is_no_networks_memory(stored):
    """A process of its own had imported 100 MB by the time that a network of 100 kB had run."""
    peaks = [fresh.apart(_protocol._peak_here, CPU(batch=4), stored["dense"], anew=True) for _ in range(2)]
    if peaks[0]["peak_bytes"] is None:
        pytest.skip("this system does not tell a process's memory")
    assert all(0 < peak["peak_bytes"] < 20e6 for peak in peaks)


class Wide(CPU):
    """Times one network whose every map has 17 MB."""

    def load(self, file):
        torch.set_num_threads(1)
        network, images = (
            nn.Sequential(nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1)),
            torch.zeros(32, 3, 32, 32),
        )
        return torch.inference_mode()(lambda: network(images))


def test_a_peak_is_what_the_network_holds():
    """Two maps and one more inside a layer, each time alike; not the gaps between what was freed before."""
    peaks = [fresh.apart(CPU.peak, Wide(), Path(), anew=True)["peak_bytes"] for _ in range(3)]
    if peaks[0] is None:
        pytest.skip("this system does not tell a process's memory")
    held = 4 * 128 * 32 * 32 * 32
    assert all(2 * held < peak < 3.5 * held for peak in peaks), peaks
    assert max(peaks) < 1.03 * min(peaks)


def test_more_images_take_more_memory(stored):
    """The second time as well: what the first look freed is taken again."""
    few, many = (_protocol._peak_here(CPU(batch=batch), stored["dense"])["peak_bytes"] for batch in (1, 4096))
    if few is None:
        pytest.skip("this system does not tell a process's memory")
    images = 4096 * 64 * 4
    assert many > 4 * images > few


def test_where_the_highest_cannot_be_forgotten_only_more_counts(stored, monkeypatch):
    """Old memory is no network's."""
    told = {False: 100, True: 400}
    monkeypatch.setattr(memory, "forget_peak", lambda: False)
    monkeypatch.setattr(memory, "resident", lambda *, peak: told[peak])
    assert CPU().peak(stored["dense"]) == {"peak_bytes": 0}
    monkeypatch.setattr(memory, "forget_peak", lambda: True)
    assert CPU().peak(stored["dense"]) == {"peak_bytes": 300}


@pytest.mark.timeout(120)
@pytest.mark.skipif(environment.physical_cores() < 2, reason="needs two cores")
def test_a_notebook_may_measure_twice_on_several_threads(stored):
    """What forks from a process that has run a network on several threads waits for ever: it runs none."""
    for _ in range(2):
        assert CPU(threads=2, batch=4).measure(stored["compressed"], stored["dense"], "quick").threads == 2


@pytest.mark.parametrize(
    ("written", "profile", "version", "told"),
    [(1, "cpu", 2, None), (2, "cpu", 3, None), (2, "cpu", 4, 40), (3, "cpu", 4, 40), (3, "cuda", 1, None)],
)
def test_peaks_that_had_more_than_the_network_in_them_are_told_no_more(tmp_path, written, profile, version, told):
    """Of records that were written before; times stay."""
    store = Store(tmp_path / "reports")
    one = measured(record(DCSS(), budget=Budget(0.5, epochs=8)), peak_bytes=40, dense_peak_bytes=50, reserved_bytes=40)
    store.put(one := replace(one, profile={**one.profile, "is": profile, "version": version}))
    (file,) = store.root.glob("measurements/*.json")
    body = json.loads(file.read_text())["body"]
    file.write_text(json.dumps({"schema": written, "body": body, "checksum": digest(body)}))
    (read,) = Store(store.root).measurements()
    assert read.measurement.peak_bytes == told
    assert (read.measurement.dense_peak_bytes is None) == (told is None)
    assert read.measurement.reserved_bytes == told
    assert read.measurement.p50_ms == one.measurement.p50_ms
