"""An edge device in a box: ONNX Runtime in a container with a few of this machine's cores and little memory.

It shows what fits, and what latency is on so many cores; the cores are this machine's, and no board's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slimbench.core import DoesNotFitError, Level, Measurement, UserError
from slimbench.environment import usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = "slimbench-edge:1"
BUILD = f"docker build -f docker/edge.Dockerfile -t {IMAGE} ."
_LABEL = "org.slimbench.edge"
_NOBODY = "65534:65534"
_ANSWERS_S = 10
_KILLED = 137


@dataclass(frozen=True)
class EdgeContainer:
    """ONNX Runtime in a container: 1 core and 512 MiB, or ``edge_container(cores=4, memory_mib=1024)``."""

    cores: int = 1
    memory_mib: int = 512
    batch: int = 1

    name: ClassVar[str] = "edge_container"
    version: ClassVar[int] = 2
    takes_onnx: ClassVar[bool] = True
    device: ClassVar[str] = "cpu"

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        from slimbench.hardware_profiles.onnx_cpu import at_least_one

        at_least_one({"cores": self.cores, "batch": self.batch, "memory_mib": self.memory_mib})

    def unavailable(self) -> str | None:
        """No engine, too few cores, too little memory, no limits, or no image."""
        try:
            with _engine(_ANSWERS_S) as engine:
                return self._lacks(engine.info()) or self._has_no_image(engine)
        except UserError as error:
            return str(error)

    def _lacks(self, info: dict[str, Any]) -> str | None:
        cores, memory_mib = min(info["NCPU"], len(usable_cores())), info["MemTotal"] >> 20
        if self.cores > cores:
            return f"{self.cores} cores were asked for, the container engine has {cores}"
        if self.memory_mib > memory_mib:
            return f"{self.memory_mib} MiB were asked for, the container engine has {memory_mib} MiB"
        if not (info.get("MemoryLimit") and info.get("CPUSet", info.get("CpuCfsQuota"))):
            return "the container engine cannot limit memory or cores: run one with cgroups (not rootless on cgroup v1)"
        return None

    def _has_no_image(self, engine: Any) -> str | None:
        from docker.errors import ImageNotFound

        try:
            engine.images.get(IMAGE)
        except ImageNotFound:
            return f"the image {IMAGE} is not built: `{BUILD}` in a checkout"
        return None

    def machine(self) -> dict[str, Any]:
        """This one, and the image: another build may hold other libraries."""
        from slimbench.environment import machine

        return {**machine(), "image": image_id()}

    def options(self, folder: Path) -> dict[str, Any]:
        """What the engine is asked for: the limits, and nothing that the agent does not need."""
        cpus = ",".join(str(cpu) for cpu in usable_cores()[-self.cores :])  # the last: the first serve interrupts
        return {
            "cpuset_cpus": cpus,
            "mem_limit": f"{self.memory_mib}m",
            "memswap_limit": f"{self.memory_mib}m",  # of both together: no swap
            "network_mode": "none",
            "read_only": True,
            "user": _NOBODY,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "pids_limit": 64,
            "volumes": {str(folder): {"bind": "/edge", "mode": "ro"}},
            "labels": [_LABEL],
        }

    def measure(self, artifact: Path, reference: Path, level: Level) -> Measurement:
        """By the agent, in a container of its own. Raises: UserError; DoesNotFitError."""
        from slimbench.hardware_profiles import _onnx

        room = f"{self.memory_mib} MiB"
        with tempfile.TemporaryDirectory(prefix="slimbench-") as name:
            folder = Path(name)
            request = _onnx.package(artifact, reference, folder, level, threads=self.cores, batch=self.batch)
            _onnx.readable(folder)
            with _engine(_onnx.LIMIT_S) as engine:
                state, said, complained = run(engine, self.options(folder), _onnx.LIMIT_S)
        found = _onnx.answer(said)
        if found is None and (state["OOMKilled"] or state["ExitCode"] == _KILLED):
            raise DoesNotFitError(f"the networks do not fit in {room}")
        if found is None:
            last = (complained.strip().splitlines() or [f"exit {state['ExitCode']}"])[-1]
            raise UserError(f"The container failed ({last}): build its image again, `{BUILD}`.")
        _onnx.refuse(found["failed"], "in the image", room)
        return _onnx.measurement(found, request, level)


@functools.cache
def image_id() -> str:
    """The image's digest, asked for once. Raises: UserError."""
    with _engine(_ANSWERS_S) as engine:
        return str(engine.images.get(IMAGE).id)


def run(engine: Any, options: dict[str, Any], limit_s: float) -> tuple[dict[str, Any], str, str]:
    """The ended container's state, output and complaints. It is removed, and so are others that were left behind."""
    for left in engine.containers.list(all=True, filters={"label": _LABEL, "status": "exited"}):
        left.remove()
    container = engine.containers.create(IMAGE, **options)
    try:
        container.start()
        container.wait(timeout=limit_s)
        container.reload()
        said, complained = (
            container.logs(stdout=out, stderr=not out).decode(errors="replace") for out in (True, False)
        )
        return container.attrs["State"], said, complained
    finally:
        container.remove(force=True)


@contextlib.contextmanager
def _engine(patience_s: float) -> Iterator[Any]:
    """The container engine that the environment names. Raises: UserError where none answers, or not any more."""
    import docker
    import requests
    from docker.errors import DockerException

    absent = "no container engine answers: start Docker until `docker info` works, or set DOCKER_HOST"
    if not _listens():
        raise UserError(absent)
    try:
        engine = docker.from_env(timeout=patience_s)
    except DockerException as error:
        raise UserError(absent) from error
    try:
        yield engine
    except (DockerException, requests.exceptions.RequestException) as error:
        if isinstance(error, requests.exceptions.ReadTimeout) or "Read timed out" in str(error):
            raise UserError(f"The container took more than {patience_s:g} s: use a smaller batch.") from error
        why = getattr(error, "explanation", None) or error
        raise UserError(
            f"The container engine failed ({why}): see that `docker info` works, then run again."
        ) from error
    finally:
        engine.close()


def _listens() -> bool:
    """Whether anybody listens on the engine's socket: where nobody does, the SDK would leave its own end open."""
    from docker.context import ContextAPI

    address = os.environ.get("DOCKER_HOST") or getattr(ContextAPI.get_current_context(), "Host", None) or ""
    kind, _, path = address.partition("unix://")
    if kind not in {"", "http+"} or not path:
        return True  # another machine's
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_ANSWERS_S)
        return line.connect_ex(path) == 0
