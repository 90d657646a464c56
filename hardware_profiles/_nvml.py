"""NVIDIA's management library goes in; what a GPU does and who else uses it comes out, before and after a timing."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from slimbench.hardware_profiles import _host

if TYPE_CHECKING:
    from slimbench.hardware_profiles._protocol import Seen

_CLOCK_DRIFT = 0.10
# bits of nvmlDeviceGetCurrentClocksEventReasons that slow a GPU down; idling and clocks that somebody set are none
_THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


@dataclass(frozen=True)
class Look:
    """One look at a GPU; None: it does not tell.

    Attributes:
        others: compute processes under other numbers than this one's.
        shows_this: whether this process is among those that it lists.

    """

    clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    throttled: tuple[str, ...]
    others: int
    shows_this: bool


def missing() -> str | None:
    """Why there is no GPU to look at, or None. Initialises no CUDA: processes may be forked afterwards."""
    try:
        import pynvml as nvml
    except ImportError:
        return "nvidia-ml-py is not installed: pip install nvidia-ml-py"
    try:
        nvml.nvmlInit()
        try:
            return None if nvml.nvmlDeviceGetCount() else "this machine has no NVIDIA GPU"
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        return f"no NVIDIA driver answers ({error})"


def opened() -> tuple[Any, Any]:
    """The library and the GPU that CUDA calls its first."""
    import pynvml as nvml

    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # in which the library counts
    nvml.nvmlInit()
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    by = nvml.nvmlDeviceGetHandleByIndex(int(first)) if first.isdigit() else nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml, by


def asked(nvml: Any, ask: str, *args: Any) -> Any:
    """The answer of a query, or None where this GPU has none. Raises: NVMLError where the GPU is lost."""
    try:
        return getattr(nvml, ask)(*args)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission):
        return None


def look(nvml: Any, gpu: Any) -> Look:
    """One look."""
    power = asked(nvml, "nvmlDeviceGetPowerUsage", gpu)
    bits = asked(nvml, "nvmlDeviceGetCurrentClocksEventReasons", gpu) or 0
    pids = {process.pid for process in asked(nvml, "nvmlDeviceGetComputeRunningProcesses", gpu) or []}
    return Look(
        asked(nvml, "nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_SM),
        asked(nvml, "nvmlDeviceGetTemperature", gpu, nvml.NVML_TEMPERATURE_GPU),
        None if power is None else power / 1000,
        tuple(name for bit, name in _THROTTLES.items() if bits & bit),
        len(pids - {os.getpid()}),
        os.getpid() in pids,
    )


class GPUWatch:
    """Looks at the GPU before CUDA starts here, right before and right after the timing, and at the host's load."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.host = _host.HostWatch(1, {})
        self.nvml, self.gpu = opened()
        self.about = about | {"name": str(self.nvml.nvmlDeviceGetName(self.gpu))}
        self.about["driver"] = str(self.nvml.nvmlSystemGetDriverVersion())
        self.others = look(self.nvml, self.gpu).others

    def begin(self) -> None:
        """Right before the first round."""
        self.before = look(self.nvml, self.gpu)
        self.host.begin()

    def end(self) -> Seen:
        """Right after the last."""
        after, seen = look(self.nvml, self.gpu), self.host.end()
        # in a container this process goes by another number: then it is one of the others
        others = max(self.others, after.others if after.shows_this else after.others - 1)
        both = (self.before, after)
        device = self.about | {
            "temperature_c": [one.temperature_c for one in both],
            "power_w": [one.power_w for one in both],
            "throttled": sorted({name for one in both for name in one.throttled}),
            "other_processes": others,
        }
        clocks = (self.before.clock_mhz, after.clock_mhz)
        why = disturbed(others, tuple(device["throttled"]), clocks) or seen.disturbed
        return replace(seen, disturbed=why, clock_mhz=clocks, device=device)


def disturbed(others: int, throttled: tuple[str, ...], clocks: tuple[float | None, float | None]) -> str | None:
    """Why a timing should be doubted, or None: other processes, throttling, a drifting clock."""
    if others:
        return f"{others} other process{'es' if others > 1 else ''} used the GPU"
    if throttled:
        return f"the GPU was throttled: {', '.join(throttled)}"
    before, after = clocks
    if before and after and abs(after - before) > _CLOCK_DRIFT * before:
        return f"the GPU's clock went from {before:.0f} to {after:.0f} MHz"
    return None
