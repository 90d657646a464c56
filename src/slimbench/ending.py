"""An end that is asked for: training saves where it stands first, whatever else is under way ends at once."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class EndedError(BaseException):
    """Training was asked to end, and has saved where it stands. No ``except Exception`` of a method holds it up."""


@dataclass
class Ending:
    """Between the thread that trains and the one that listens to the runner.

    Attributes:
        asked: whether the end was asked for.
        training: fits under way.

    """

    asked: bool = False
    training: int = 0

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Training looks at ``asked`` after each step, and leaves nothing unsaved. Raises: EndedError."""
        self.training += 1
        try:
            yield
        finally:
            self.training -= 1
        if self.asked:  # since the last look: in this order one of the two threads sees what the other did
            raise EndedError

    def ask(self) -> bool:
        """Ask for the end; whether there is training that will see it."""
        self.asked = True
        return self.training > 0
