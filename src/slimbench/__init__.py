"""SlimBench: an honest, reproducible benchmark of methods that compress convolutional networks."""

from slimbench.core import (
    Arm,
    Budget,
    Card,
    Cell,
    Cost,
    Measurement,
    Method,
    Metric,
    Published,
    Recipe,
    Record,
    Scores,
    Settings,
    Spent,
    Step,
    Suite,
    Task,
    Trainer,
    UserError,
)

__version__ = "0.1.0"

__all__ = [
    "Arm",
    "Budget",
    "Card",
    "Cell",
    "Cost",
    "Measurement",
    "Method",
    "Metric",
    "Published",
    "Recipe",
    "Record",
    "Scores",
    "Settings",
    "Spent",
    "Step",
    "Suite",
    "Task",
    "Trainer",
    "UserError",
    "__version__",
]
