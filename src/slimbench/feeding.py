"""A task goes in; how its networks are fed and what they put out, for those who take one away, come out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from slimbench import described, identity
from slimbench.core import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from slimbench.core import Record, Task

_PUTS_OUT = {  # by family
    "classification": "logits by class, (N, classes), in the order of the task's labels",
    "segmentation": "scores by class and pixel, (N, classes, H, W)",
    "super resolution": "the enlarged RGB image, (N, 3, scale * H, scale * W), values in [0, 1] but for overshoot",
}
_IMAGE = 3  # channels, height, width
_AS_IT_IS = {"super resolution": ((0.0,) * 3, (1.0,) * 3)}  # families whose inputs are not normalised


def of(task: Task, shape: Sequence[int]) -> dict[str, Any]:
    """What is known: layout, shape, range of values, mean and std (of values in that range), output, classes.

    Args:
        shape: of one input that the network was stored for, (C, H, W) of an image.

    What a task says itself in ``feeding``, a mapping, goes before what its mean, std, family and class names tell. Its
    "prepared" says in words how an image becomes one of that shape.

    """
    told: dict[str, Any] = {"task": identity.task_label(task), "shape": list(shape), "any_size": task.any_size}
    if len(shape) == _IMAGE:
        colours = {1: "grey", 3: "RGB"}.get(shape[0], "")
        told["layout"] = ", ".join(filter(None, ("float32 (N, C, H, W)", colours)))
    known = _AS_IT_IS.get(task.family, (None, None))
    mean, std = (getattr(task, name, value) for name, value in zip(("mean", "std"), known, strict=True))
    if mean and std:
        told |= {"range": [0.0, 1.0], "mean": list(mean), "std": list(std)}
    if task.family in _PUTS_OUT:
        told["output"] = _PUTS_OUT[task.family]
    if names := getattr(task, "class_names", None):
        told["classes"] = list(names)
    return told | dict(getattr(task, "feeding", {}))


def of_record(record: Record, shape: Sequence[int]) -> dict[str, Any]:
    """As ``of``. Raises: UserError where the record's task, as it was then, is not at hand."""
    told, users = record.cell["task"], record.cell.get("user", {})
    try:
        task: Task = described.spec(told)
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"its task {told['is']} is not installed here: give its file with --plugin") from error
    module = type(task).__module__
    if task.version != told["version"] or (module in users and identity.users_source(module) != users[module]):
        raise UserError(f"its task {told['is']} has changed since")
    return of(task, shape)


def as_metadata(told: Mapping[str, Any]) -> dict[str, str]:
    """Text by name: words as they are, everything else as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}


def sentence(told: Mapping[str, Any]) -> str:
    """For people, in one line."""
    size = " x ".join(map(str, told["shape"])) + (" pixels" if "layout" in told else "")
    layout = ", ".join(filter(None, (told.get("layout"), size)))
    words = [f"feed it {layout}" + (" or another size" if told["any_size"] else "")]
    if "prepared" in told:
        words.append(told["prepared"])
    if "mean" in told:
        low, high = told["range"]
        words.append(f"values in [{low:g}, {high:g}] as (x - {_figures(told['mean'])}) / {_figures(told['std'])}")
    if "output" in told:
        words.append(f"it puts out {told['output']}")
    if "classes" in told:
        words.append(f"classes: {', '.join(told['classes'])}")
    return "; ".join(words)


def _figures(values: Sequence[float]) -> str:
    """One number where all are equal, else one a channel."""
    return f"{values[0]:g}" if len(set(values)) == 1 else f"[{', '.join(f'{value:g}' for value in values)}]"
