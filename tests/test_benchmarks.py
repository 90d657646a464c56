"""Benchmarks of the harness itself, which nobody runs by hand every day, still run: at a small scale, untimed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.parametrize("name", ["runner", "scale"])
def test_the_harness_can_be_timed(name):
    """What `make speed` and docs/scaling.md rest on."""
    file = f"benchmarks/performance/test_{name}.py"
    command = [sys.executable, "-m", "pytest", "--benchmark-disable", file]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"BENCH_SCALE": "50"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "skipped" not in done.stdout
