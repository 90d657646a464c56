"""Cores: threads that share one are counted once, wherever threads are counted or put."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from slimbench import environment
from slimbench.core import UserError
from slimbench.hardware_profiles import _host, edge_container
from slimbench.hardware_profiles.cpu import CPU
from slimbench.hardware_profiles.edge_container import EdgeContainer
from slimbench.hardware_profiles.executorch_cpu import ExecuTorchCPU

INFO = {"NCPU": 8, "MemTotal": 2 << 30, "MemoryLimit": True, "CPUSet": True}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Four cores of two hyper-threads: 0 and 1, 2 and 3, ...; sets which of the eight this process may use."""
    for cpu in range(8):
        (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
        first = cpu - cpu % 2
        (tmp_path / f"cpu{cpu}/topology/thread_siblings_list").write_text(f"{first},{first + 1}\n")
    monkeypatch.setattr(environment, "CORES", tmp_path)
    monkeypatch.setattr(environment.psutil, "cpu_count", lambda logical: 8 if logical else 4)

    def may_use(*cpus):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cpus))

    return may_use


def test_two_threads_of_one_core_are_one(machine):
    """Of 6 and 7 there is no second core: two threads would share it, under the name of two."""
    machine(6, 7)
    assert environment.physical_cores() == 1
    assert CPU(threads=2).unavailable() == "2 threads on 1 cores would wait for each other"
    assert CPU(threads="all").threads_used == 1
    with pytest.raises(UserError, match="this machine has 1 cores"):
        environment.resolve("fp32", threads=2)


def test_as_many_threads_as_are_counted_are_pinned_to_a_core_each(machine, monkeypatch):
    """Whatever part of the machine a process may use."""
    given = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: given.append(cpus))
    for cpus in ((6, 7), (1, 2, 3), range(8)):
        machine(*cpus)
        _host.pin(environment.physical_cores())
    assert given == [[6], [1, 2], [0, 2, 4, 6]]


def test_executorch_s_threads_are_made_where_they_are_pinned(machine, monkeypatch):
    """A thread keeps to the cores that its process had when it began."""
    did = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: did.append(cpus))
    library = SimpleNamespace(_unsafe_reset_threadpool=did.append)
    for name in ("executorch", "executorch.extension", "executorch.extension.pybindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "executorch.extension.pybindings.portable_lib", library)
    machine(*range(8))
    with ExecuTorchCPU(threads=2).ready(alone=True):
        assert did == [[4, 6], 2]
    with ExecuTorchCPU(threads=3).ready(alone=False):
        assert did == [[4, 6], 2, 3], "not alone: nothing is pinned"


def test_a_container_gets_whole_cores(machine):
    """Not both hyper-threads of one as two."""
    machine(*range(8))
    assert EdgeContainer(cores=2).options("folder")["cpuset_cpus"] == "4,6"
    assert EdgeContainer(cores=4)._lacks(INFO) is None
    assert EdgeContainer(cores=5)._lacks(INFO) == "5 cores were asked for, the container engine has 4"
    machine(6, 7)
    assert edge_container.usable_cores() == [6]
    assert EdgeContainer(cores=2)._lacks(INFO) == "2 cores were asked for, the container engine has 1"
