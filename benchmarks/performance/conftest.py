"""Times are compared with this machine's own alone: on another, or with other versions, exit status 2."""

from __future__ import annotations

import pytest

from slimbench.environment import machine


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["slimbench"] = machine()


def pytest_benchmark_compare_machine_info(config, benchmarksession, machine_info, compared_benchmark):
    if compared_benchmark["machine_info"].get("slimbench") != machine_info["slimbench"]:
        pytest.exit(
            "The saved times are another machine's, or of other versions: `make speed-baseline` takes new ones.", 2
        )
