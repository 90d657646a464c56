"""Records and measurements as a run would leave them, for tests of what is made of records."""

from __future__ import annotations

from dataclasses import replace

from slimbench import identity
from slimbench.core import Budget, Cell, Cost, Measurement, MeasurementRecord, Record, Scores, Settings, Spent
from slimbench.environment import environment
from slimbench.hardware_profiles.cpu import CPU
from slimbench.methods.dense import Dense
from slimbench.tasks.digits import Digits

NOTHING = {"quality": {}, "cost": None, "dense_cost": None}
DENSE_COST = Cost(1000, 100, 100, 90, 50, 400)


def record(method, keep=1.0, seed=0, top1=90.0, macs=1000, **more) -> Record:
    """A record as a run would leave it."""
    task = more.pop("task", Digits())
    dense = Cell(task, Dense(), Budget(1.0), seed)
    budget = more.pop("budget", Budget(keep, epochs=8))
    cell = dense if isinstance(method, Dense) else Cell(task, method, budget, seed, Settings(), dense)
    fields = {
        "id": identity.cell_id(cell),
        "label": identity.cell_label(cell),
        "cell": identity.describe_cell(cell),
        "status": "ok",
        "quality": {"top1": Scores(top1, top1 * 4, 400.0)},
        "cost": replace(DENSE_COST, macs=macs),
        "dense_cost": DENSE_COST,
        "spent": Spent(16.0, 0.0, 8.0),
        "reference": identity.cell_id(dense) if cell.reference else "",
        "environment": environment(),
    }
    return Record(**fields | more)


def measured(of: Record, ratio=1.5, low=1.4, high=1.6, env=None, **more) -> MeasurementRecord:
    """A measurement as the CPU profile would leave it."""
    timing = Measurement(
        1.0, 1.1, 1.2, 0.1, 1.5, ratio, low, high, 0.02, "quick", None, 32, 1, 30, 1, 1, 0.0, (0.0, 0.0), (None, None),
        (32, 1, 8, 8),
    )  # fmt: skip
    profile = identity.describe(CPU()) | {"version": 1, "label": identity.label(CPU())}
    env = env or environment()
    name = identity.digest([of.id, env])
    return MeasurementRecord(name, of.id, of.reference, profile, "ok", "", replace(timing, **more), env, "2026-01-01")
