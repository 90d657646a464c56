"""The command line in a process of its own, and what it has to say to bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from click.testing import Result

BENCH = str(Path(sys.executable).with_name("bench"))


def bench(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    return subprocess.run([BENCH, *args], cwd=cwd, env=os.environ | env, capture_output=True, text=True)


def refused(result: subprocess.CompletedProcess | Result, *words: str) -> None:
    """One sentence that starts with the command's name and holds the words, exit status 2, no traceback."""
    status = result.returncode if isinstance(result, subprocess.CompletedProcess) else result.exit_code
    assert result.stderr.startswith("bench: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr + result.stdout
    for word in words:
        assert word in result.stderr
    assert status == 2
