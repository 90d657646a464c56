"""The CUDA profile without a GPU: a fake management library, fake events, and what is said when the device is gone."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from types import SimpleNamespace

import pytest
import torch

from slimbench import environment
from slimbench.core import UserError
from slimbench.hardware_profiles import _host, _nvml, _protocol
from slimbench.hardware_profiles.cuda import CUDA


class NVMLError(Exception):
    pass


class NotSupportedError(NVMLError):
    pass


class FakeNVML:
    """One GPU at 1.4 GHz; every answer can be planted."""

    NVMLError, NVMLError_NotSupported, NVMLError_NoPermission = NVMLError, NotSupportedError, NotSupportedError
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self) -> None:
        self.count, self.clock, self.bits, self.pids = 1, 1400, 0, []
        self.asked = []

    def nvmlInit(self):  # noqa: N802
        if self.count is None:
            raise NVMLError("NVML Shared Library Not Found")

    def nvmlShutdown(self):  # noqa: N802
        pass

    def nvmlDeviceGetCount(self):  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return f"GPU {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetName(self, gpu):  # noqa: N802
        return "NVIDIA Fake"

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "600.1"

    def nvmlDeviceGetClockInfo(self, gpu, kind):  # noqa: N802
        return self.clock

    def nvmlDeviceGetTemperature(self, gpu, kind):  # noqa: N802
        return 41

    def nvmlDeviceGetPowerUsage(self, gpu):  # noqa: N802
        raise NotSupportedError

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu):  # noqa: N802
        return self.bits

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):  # noqa: N802
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu):  # noqa: N802
        return 2500


@pytest.fixture
def nvml(monkeypatch):
    """The library, in place of NVIDIA's, on an idle host."""
    fake = FakeNVML()
    monkeypatch.setitem(__import__("sys").modules, "pynvml", fake)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_host, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(_host.Beside, "cores", lambda self: 0.0)
    monkeypatch.setattr(_host, "clock_mhz", lambda: None)
    return fake


@pytest.mark.parametrize(
    ("count", "cuda", "said"),
    [
        (None, "13.0", "no NVIDIA driver answers (NVML Shared Library Not Found)"),
        (0, "13.0", "this machine has no NVIDIA GPU"),
        (1, None, f"PyTorch {torch.__version__} was built without CUDA"),
        (1, "13.0", None),
    ],
)
def test_why_it_is_unavailable(nvml, monkeypatch, count, cuda, said):
    """A driver, a GPU and a PyTorch that can use it; CUDA is not started to find out."""
    nvml.count = count
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("a fork would be broken"))
    assert CUDA().unavailable() == said


def test_without_the_library_it_is_unavailable(monkeypatch):
    """It says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert CUDA().unavailable() == "nvidia-ml-py is not installed: pip install nvidia-ml-py"
    assert environment.gpus() == []


def test_a_gpu_is_part_of_the_machine(nvml, monkeypatch):
    """Latencies of two GPUs never share a column; where there is none, the fingerprint is as it was."""
    environment.machine.cache_clear()
    assert environment.machine()["gpus"] == ["NVIDIA Fake"]
    nvml.count = None
    environment.machine.cache_clear()
    assert "gpus" not in environment.machine()
    environment.machine.cache_clear()


@pytest.mark.parametrize(("visible", "gpu"), [(None, "GPU 0"), ("2,0", "GPU 2"), ("GPU-aa11", "GPU-aa11")])
def test_the_gpu_that_is_looked_at_is_the_one_that_runs(nvml, monkeypatch, visible, gpu):
    """CUDA's first, in the library's order."""
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _nvml.opened()[1] == gpu
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_what_was_seen(nvml):
    """Clock, temperature and power before and after; what the GPU does not tell is None."""
    watch = CUDA().watch()
    watch.begin()
    nvml.clock = 1300
    seen = watch.end()
    assert seen.disturbed is None
    assert seen.clock_mhz == (1400, 1300)
    device = dict(seen.device)
    assert device.pop("runtime").startswith(f"torch {torch.__version__}, CUDA ")
    assert device == {
        "name": "NVIDIA Fake",
        "driver": "600.1",
        "temperature_c": [41, 41],
        "power_w": [None, None],
        "throttled": [],
        "other_processes": 0,
    }


@pytest.mark.parametrize(
    ("before", "after", "others"),
    [
        ([], [], 0),  # the system does not tell
        ([], [0], 0),  # this process, under its own number
        ([], [77], 0),  # this process, as a container shows it
        ([5], [5, 77], 1),
        ([5], [0], 1),
        ([], [0, 5], 1),  # one that came later
        ([], [77, 5], 1),
    ],
)
def test_other_processes_are_counted(nvml, before, after, others):
    """Those that were there before CUDA started here, and those that came; 0 stands for this process."""
    nvml.pids = before
    watch = CUDA().watch()
    watch.begin()
    nvml.pids = [pid or os.getpid() for pid in after]
    seen = watch.end()
    assert seen.device["other_processes"] == others
    assert seen.disturbed == (f"{others} other process used the GPU" if others else None)


@pytest.mark.parametrize(
    ("bits", "clock", "said"),
    [
        (0x1 | 0x2, 1400, None),  # idle; clocks that somebody set
        (0x4 | 0x40, 1400, "the GPU was throttled: hardware thermal slowdown, power cap"),
        (0x0, 1259, "the GPU's clock went from 1400 to 1259 MHz"),
        (0x0, 1260, None),
    ],
)
def test_throttling_and_drift(nvml, bits, clock, said):
    """Seen after the timing."""
    watch = CUDA().watch()
    watch.begin()
    nvml.bits, nvml.clock = bits, clock
    assert watch.end().disturbed == said


def test_a_busy_host_disturbs_as_well(nvml, monkeypatch):
    """It launches every kernel."""
    monkeypatch.setattr(_host, "busy_cores", lambda: 2.0)
    monkeypatch.setattr(_host, "physical_cores", lambda: 2)
    watch = CUDA().watch()
    watch.begin()
    assert watch.end().disturbed == "other work kept 2.0 of 2 cores busy"


def test_energy_is_the_devices(nvml, monkeypatch):
    """Millijoules in joules; None where it does not count them."""
    assert CUDA().joules() == 2.5
    monkeypatch.setattr(FakeNVML, "nvmlDeviceGetTotalEnergyConsumption", FakeNVML.nvmlDeviceGetPowerUsage)
    assert CUDA().joules() is None


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_network_lives_as_long_as_its_run(monkeypatch, mode):
    """A captured graph reads weights and input where they lie, and holds neither."""
    fakes = {
        "Stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
        "current_stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "stream": contextlib.nullcontext,
        "graph": contextlib.nullcontext,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    network, inputs = torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)
    held = weakref.ref(network.weight), weakref.ref(inputs)
    run = CUDA(mode=mode)._run(network, inputs)
    del network, inputs
    gc.collect()
    run()
    assert all(ref() is not None for ref in held)


def test_a_peak_is_what_a_network_adds(monkeypatch, tmp_path):
    """To what was set up, and to what the first time had tried out."""
    held = {"allocated": 0, "reserved": 0}
    peaks = dict(held)

    def load(self, file):
        def run():  # the first time: 500 of a workspace that stays, 900 that are tried out
            first = not held["allocated"]
            held.update(allocated=500, reserved=2000)
            peaks.update(allocated=500 + (900 if first else 40), reserved=2000 + (1000 if first else 64))

        return run

    monkeypatch.setattr(CUDA, "load", load)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: peaks.update(held))
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    for name in ("allocated", "reserved"):
        monkeypatch.setattr(torch.cuda, f"memory_{name}", lambda name=name: held[name])
        monkeypatch.setattr(torch.cuda, f"max_memory_{name}", lambda name=name: peaks[name])
    assert CUDA().peak(tmp_path) == {"peak_bytes": 40, "reserved_bytes": 64}


def test_one_synchronisation_a_block(monkeypatch):
    """Events around every run, read once all have been queued."""
    told = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            told.append("event")
            self.at = len(told)

        def elapsed_time(self, other):
            told.append("read")
            return other.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: told.append("sync"))
    assert CUDA().times([lambda: told.append("run")] * 2) == [2.0, 2.0]
    assert told == ["event", "run", "event"] * 2 + ["sync", "read", "read"]


@pytest.fixture
def backends():
    """As they were, afterwards."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before, benchmark = [one.allow_tf32 for one in backends], torch.backends.cudnn.benchmark
    yield backends
    for one, value in zip(backends, before, strict=True):
        one.allow_tf32 = value
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True), ("fp16", False)])
def test_products_are_as_precise_as_it_says(backends, precision, tf32):
    """Float32 is float32, unless TensorFloat-32 is asked for."""
    for one in backends:
        one.allow_tf32 = not tf32
    with CUDA(precision=precision).ready(alone=False):
        assert torch.is_inference_mode_enabled()
        assert [one.allow_tf32 for one in backends] == [tf32, tf32]
        assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: unspecified launch failure\nSearch for it"), NVMLError("GPU is lost")]
)
def test_a_device_that_disappears_is_one_sentence(monkeypatch, tmp_path, error):
    """The first line of whatever was raised."""

    def gone(*args):
        raise error

    monkeypatch.setattr(_protocol, "compare", gone)
    said = str(error).splitlines()[0]
    with pytest.raises(UserError, match=rf"^The GPU failed or went away while it measured \({said}\)\.$"):
        CUDA().measure(tmp_path, tmp_path, "quick")


def test_bad_input_stays_what_it_is(monkeypatch, tmp_path):
    """A damaged artifact is not the GPU's fault."""

    def damaged(*args):
        raise UserError("damaged")

    monkeypatch.setattr(_protocol, "compare", damaged)
    with pytest.raises(UserError, match=r"^damaged$"):
        CUDA().measure(tmp_path, tmp_path, "quick")


@pytest.mark.parametrize("field", [{"batch": 0}, {"samples": 9}])
def test_impossible_profiles_are_refused(field):
    """In words."""
    with pytest.raises(UserError, match="is impossible: give at least"):
        CUDA(**field)
