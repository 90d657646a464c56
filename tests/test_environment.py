"""What a record says of the machine that made it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slimbench import environment
from slimbench.identity import digest

EPYC = "processor\t: 0\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: AMD EPYC\nflags\t\t: avx2 {}\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"


@pytest.fixture
def cpuinfo(monkeypatch):
    """Makes Linux tell something else of the processor."""

    def tell(text: str) -> None:
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
        environment._cpuinfo.cache_clear()
        environment.machine.cache_clear()

    yield tell
    monkeypatch.undo()
    environment._cpuinfo.cache_clear()
    environment.machine.cache_clear()


def test_two_designs_of_one_name_are_two_machines(cpuinfo):
    """Clouds call their processors alike; their latencies must not share a column."""
    found = []
    for family, model, flag in ((25, 1, ""), (26, 2, "avx512_bf16")):
        cpuinfo(EPYC.format(family, model, flag))
        found.append(environment.machine())
        assert environment.has_fast_bf16() == bool(flag)
    assert [machine["cpu"] for machine in found] == ["AMD EPYC"] * 2
    assert [machine["cpu_design"] for machine in found] == ["cpu family 25, model 1", "cpu family 26, model 2"]
    assert digest(found[0]) != digest(found[1])


def test_processors_that_tell_other_things(cpuinfo, monkeypatch):
    """An Arm's parts; nothing where there is no such file."""
    cpuinfo(ARM)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert environment.cpu_design() == "CPU implementer 0x41, CPU part 0xd0b"
    assert environment.cpu_name() == "aarch64"
    assert not environment.cpu_flags()

    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    environment._cpuinfo.cache_clear()
    monkeypatch.setattr(platform, "processor", lambda: "i386")
    assert environment.cpu_design() == ""
    assert environment.cpu_name() == "i386"


def test_a_checkout_that_was_edited_says_how(tmp_path, monkeypatch):
    """Another edit is another commit; a text that no number hangs on is none, and a hook does not matter."""
    for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "src").mkdir()
    engine, page, new = tmp_path / "src/engine.py", tmp_path / "page.md", tmp_path / "src/new.py"
    for file in (engine, page):
        file.write_text("1")
    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm 1"):
        subprocess.run(["git", *words.split()], cwd=tmp_path, env=environment.without_git(), check=True)
    clean = environment.commit_in(tmp_path)
    assert re.fullmatch("[0-9a-f]{12}", clean)
    page.write_text("2")
    assert environment.commit_in(tmp_path) == clean
    said = set()
    for file in (engine, new):
        for text in ("22", "33"):
            file.write_text(text)
            said.add(environment.commit_in(tmp_path))
    engine.unlink()
    said.add(environment.commit_in(tmp_path))
    (tmp_path / "src/link").symlink_to(Path(tmp_path / "elsewhere"))
    for text in ("4", "5"):
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        (tmp_path / "elsewhere/one.py").write_text(text)
        said.add(environment.commit_in(tmp_path))
    assert len(said) == 7
    assert all(re.fullmatch(f"{clean}-dirty-[0-9a-f]{{8}}", one) for one in said)
    monkeypatch.setenv("GIT_DIR", str(Path(__file__).parents[1] / ".git"))
    assert environment.commit_in(tmp_path) in said


def test_a_night_has_a_store_for_its_code(tmp_path):
    """Which is named as records name their commit, so that another edit starts from nothing; old verdicts go first."""
    (tmp_path / "python").write_text("#!/bin/sh\necho $2 | grep -q environment.import.commit && echo code\n")
    (tmp_path / "python").chmod(0o755)
    command = ["make", "-n", "nightly", f"BIN={tmp_path}"]
    told = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True).stdout
    assert told.count("--store nightly/code ") == 2
    assert told.index("rm -f nightly/summary.md") < told.index("bench run")


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="these instructions are x86's")
def test_a_process_held_to_other_instructions_says_so():
    """And is another machine: it rounds otherwise, and takes its time."""
    code = "import json; from slimbench.environment import machine; print(json.dumps(machine()))"

    def told(**more: str) -> dict[str, object]:
        free = {k: v for k, v in os.environ.items() if not k.endswith(("_CPU_CAPABILITY", "_MAX_CPU_ISA"))}
        ran = subprocess.run([sys.executable, "-c", code], env=free | more, capture_output=True, text=True, check=True)
        return json.loads(ran.stdout)

    held = told(ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="sse41")
    assert held["instructions"] == "DEFAULT, oneDNN SSE41"
    assert "oneDNN" not in str(told()["instructions"])
