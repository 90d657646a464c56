"""A task goes in; the same task, whose test split is out of reach, comes out: what methods are given."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimbench.core import Task


class SealedError(RuntimeError):
    """A method reached for the test split."""


@dataclass(frozen=True)
class SealedTask:
    """A task whose test split is out of reach: no method of it takes "test"."""

    _task: Task

    def __getattr__(self, name: str) -> Any:
        """The task's own attribute; a method is wrapped."""
        value = getattr(self._task, name)
        if not callable(value):
            return value

        @functools.wraps(value)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if any(isinstance(arg, str) and arg == "test" for arg in (*args, *kwargs.values())):
                raise SealedError("the test split is sealed: methods see train and val, and the engine opens test once")
            return value(*args, **kwargs)

        return guarded
