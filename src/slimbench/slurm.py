"""Slurm: cells go out as job arrays, through submitit; a cell that runs out of time is put back and goes on."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slimbench.apart import RefusedError, doze, drive
from slimbench.core import UserError

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable, Mapping, Sequence
    from pathlib import Path

    from slimbench.apart import Apart, Said
    from slimbench.execute import Event, Job
    from slimbench.leases import Claims

_LOOK_S = 2.0
_QUEUE_S = 60.0  # between two looks at the queue; a result on a shared file system may take as long to be seen
_REQUEUES = 100


@dataclass(frozen=True)
class Slurm:
    """Job arrays on a Slurm cluster that shares the store's folder.

    Attributes:
        folder: for submitit's scripts and the nodes' own output.
        at_once: tasks of an array that may run at the same time, and cells that are submitted at most.
        minutes: of one allocation; a cell that takes longer goes on in the next.
        memory_gb, cpus, gpus: of one cell.
        extra: further options of sbatch by name, e.g. ``{"partition": "gpu"}``.
        cluster: "slurm"; "local" runs the same scripts here, for tests.

    """

    folder: Path
    at_once: int = 64
    minutes: int = 240
    memory_gb: float | None = None
    cpus: int = 1
    gpus: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)
    cluster: str = "slurm"

    def run(self, jobs: Sequence[Job], plugins: tuple[str, ...], claims: Claims | None) -> Generator[Event, None, None]:
        """Run jobs; leases are taken on the nodes. Raises: UserError where submitit or sbatch is absent."""
        yield from drive(_Arrays(self._executor(), self.cluster), jobs, plugins, claims, at_once=self.at_once)

    def _executor(self) -> Any:
        if importlib.util.find_spec("submitit") is None:
            raise UserError("--executor slurm needs submitit: pip install 'slimbench[slurm]'.")
        import submitit

        try:
            executor = submitit.AutoExecutor(folder=self.folder, cluster=self.cluster, **self._requeues())
        except RuntimeError as error:
            raise UserError(
                f"--executor slurm, but this machine cannot submit ({error}): use --executor local."
            ) from error
        executor.update_parameters(name="slimbench", timeout_min=self.minutes, cpus_per_task=self.cpus)
        if self.gpus:
            executor.update_parameters(gpus_per_node=self.gpus)
        if self.memory_gb:
            executor.update_parameters(mem_gb=self.memory_gb)
        if self.cluster == "slurm":
            executor.update_parameters(slurm_array_parallelism=self.at_once, slurm_additional_parameters={**self.extra})
        return executor

    def _requeues(self) -> dict[str, int]:
        return {f"{self.cluster}_max_num_timeout": _REQUEUES}


@dataclass
class _Arrays:
    """One array a wave."""

    executor: Any
    cluster: str
    looked: float = field(default_factory=time.monotonic)  # at the queue
    missing: set[str] = field(default_factory=set)  # then

    def submit(self, calls: Sequence[Apart]) -> list[Hashable]:
        """An array of calls. Raises: RefusedError."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with contextlib.redirect_stderr(io.StringIO()), self.executor.batch():  # it would print what it raises
                return [self.executor.submit(call) for call in calls]
        except FailedJobError as error:
            raise RefusedError(
                f"Slurm takes no jobs ({_last(error)}): see --slurm, and run the same command again; what is done is "
                "kept."
            ) from error
        except FailedSubmissionError as error:
            raise RefusedError(
                f"What sbatch answered is no job ({str(error).splitlines()[0]}): cancel what it may have begun, see "
                "`squeue`, and run the same command again; what is done is kept."
            ) from error

    def ended(self, handles: Sequence[Any]) -> list[tuple[Hashable, Said]]:
        """Results, and the ends of jobs that left none."""
        doze(_LOOK_S)
        said = [(job, _said(job)) for job in handles if job.done()]
        return said + [
            (job, ("failed", f"its job {job.job_id} left the queue without a result")) for job in self._lost(handles)
        ]

    def _lost(self, handles: Sequence[Any]) -> list[Any]:
        """What two looks did not find in the queue: where Slurm keeps no accounts, nothing else tells of its end."""
        now = time.monotonic()
        if self.cluster != "slurm" or now - self.looked < _QUEUE_S:
            return []
        self.looked, queue = now, _queue()
        gone = set() if queue is None else {job.job_id for job in handles} - queue
        lost, self.missing = gone & self.missing, gone
        return [job for job in handles if job.job_id in lost and not job.done()]

    def cancel(self, handles: Sequence[Any]) -> None:
        """Scancel."""
        for job in handles:
            job.cancel(check=False)


def _queue() -> set[str] | None:
    """Ids of all jobs that wait or run; None where Slurm does not answer just now."""
    told = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True, check=False
    )
    return None if told.returncode else set(told.stdout.split())


def _said(job: Any) -> Said:
    try:
        return job.result()
    except Exception as error:  # noqa: BLE001  whatever ended it: cancelled, a node that died, a fault of submitit
        return "failed", f"its job {job.job_id} ended without a result ({job.state}): {_last(error)}"


def _last(error: Exception) -> str:
    """The last line that it says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
