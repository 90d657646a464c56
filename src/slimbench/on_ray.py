"""Ray: cells go out as tasks of a cluster; a task whose node died is started on another."""

from __future__ import annotations

import importlib.util
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slimbench.apart import drive
from slimbench.core import UserError

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable, Sequence

    from slimbench.apart import Apart, Said
    from slimbench.execute import Event, Job
    from slimbench.leases import Claims

_LOOK_S = 1.0
_PATIENCE_S = 5.0
_GRACE_S = 10.0  # a little more than a node's own


@dataclass(frozen=True)
class OnRay:
    """Tasks of a Ray cluster that shares the store's folder.

    Attributes:
        address: of the cluster's head, "auto" for the one that this machine belongs to.
        at_once: tasks that are submitted at most.
        cpus, gpus, memory_gb: of one cell.
        restarts: of a cell whose node died.

    """

    address: str = "auto"
    at_once: int = 1024
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None
    restarts: int = 3

    def run(self, jobs: Sequence[Job], plugins: tuple[str, ...], claims: Claims | None) -> Generator[Event, None, None]:
        """Run jobs; leases are taken on the nodes. Raises: UserError where Ray or the cluster is absent."""
        if importlib.util.find_spec("ray") is None:
            raise UserError("--executor ray needs Ray: pip install 'slimbench[ray]'.")
        if is_silent(self.address):
            raise UserError(f"No Ray cluster answers at {self.address}: see --address.")
        import ray

        if not ray.is_initialized():
            try:
                ray.init(address=self.address, log_to_driver=False, configure_logging=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UserError(f"No Ray cluster answers at {self.address} ({error}): see --address.") from error
        needs: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": self.restarts}
        if self.memory_gb:
            needs["memory"] = int(self.memory_gb * 2**30)
        task = ray.remote(_call).options(**needs)
        yield from drive(_Tasks(ray, task), jobs, plugins, claims, at_once=self.at_once)


def is_silent(address: str) -> bool:
    """Whether nothing listens at HOST:PORT. Ray would look for a minute, and then end this process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return False  # "auto"
    try:
        socket.create_connection((host, int(port)), _PATIENCE_S).close()
    except (OSError, OverflowError):
        return True
    return False


def _call(call: Apart) -> Said:
    return call()


@dataclass
class _Tasks:
    """Tasks by their object references."""

    ray: Any
    task: Any

    def submit(self, calls: Sequence[Apart]) -> list[Hashable]:
        """A task a call."""
        return [self.task.remote(call) for call in calls]

    def ended(self, handles: Sequence[Hashable]) -> list[tuple[Hashable, Said]]:
        """Results, and the ends of tasks that left none."""
        done, _ = self.ray.wait(list(handles), num_returns=len(handles), timeout=_LOOK_S)
        return [(reference, self._said(reference)) for reference in done]

    def cancel(self, handles: Sequence[Hashable]) -> None:
        """Interrupt the tasks, which save where they stand; what has not ended in time is killed."""
        for reference in handles:
            self.ray.cancel(reference)
        _, late = self.ray.wait(list(handles), num_returns=len(handles), timeout=_GRACE_S) if handles else ([], [])
        for reference in late:
            self.ray.cancel(reference, force=True)

    def _said(self, reference: Any) -> Said:
        try:
            return self.ray.get(reference)  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001  whatever ended it: a node that died, an error of Ray
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            return "failed", f"its task ended without a result ({type(error).__name__}): {last[0]}"
