"""A board over SSH: ONNX files and the agent go there in one stream, samples come back, and nothing stays."""

from __future__ import annotations

import functools
import io
import os
import re
import shlex
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from slimbench.core import Level, Measurement, UserError

HERE = "slimbench is here"  # what the board says first: from then on, an end is one in the middle
# keys only, hosts that are known only, and a board that falls silent is noticed
_SSH = "-T -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=10 -o ServerAliveInterval=5"
_FAILED = 255  # ssh's own errors, apart from those of what it ran
_MISSING = {126, 127}
_LIMIT_S = 60.0  # for the board to say what it is
# runs on the board and becomes the agent, whose parent is then the connection; its child waits for its end, at which
# the pipe closes, and removes the folder, whether or not anybody still listens
_UNPACK = f"""
import os, shutil, sys, tarfile, tempfile
print({HERE!r}, flush=True)
folder = tempfile.mkdtemp(prefix="slimbench-")
ended, held = os.pipe()
if os.fork() == 0:
    os.close(held)
    os.read(ended, 1)
    shutil.rmtree(folder)
    os._exit(0)
os.set_inheritable(held, True)
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    archive.extractall(folder)
os.execv(sys.executable, [sys.executable, "-B", folder + "/agent.py", *(sys.argv[1:] or [folder])])
"""


@dataclass(frozen=True)
class EdgeRemote:
    """ONNX Runtime on a board over SSH: the host is ``host`` or the variable BENCH_BOARD.

    Attributes:
        host: as ``ssh`` takes it: a name of your ssh config, or user@address.
        python: the Python there that has numpy and onnxruntime, e.g. "venv/bin/python".
        threads: on the board.
        batch: images a forward pass.

    """

    host: str = ""
    python: str = "python3"
    threads: int = 1
    batch: int = 1

    name: ClassVar[str] = "edge_remote"
    version: ClassVar[int] = 2
    takes_onnx: ClassVar[bool] = True
    device: ClassVar[str] = "board"

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        from slimbench.hardware_profiles.onnx_cpu import at_least_one

        at_least_one({"threads": self.threads, "batch": self.batch})

    @property
    def board(self) -> str:
        """The host's name; empty where none is named."""
        return self.host or os.environ.get("BENCH_BOARD", "")

    def unavailable(self) -> str | None:
        """No board is named, it cannot be reached, it lacks something, or has too few cores."""
        if not self.board:
            return "no board is named: set BENCH_BOARD to one that `ssh` reaches, or edge_remote(host='user@board')"
        try:
            machine = self.machine()
        except UserError as error:
            return str(error)
        cores = machine["cores"]
        return None if self.threads <= cores else f"{self.threads} threads on {cores} cores would wait for each other"

    def machine(self) -> dict[str, Any]:
        """The board's. Raises: UserError."""
        from slimbench.hardware_profiles import _onnx

        return _onnx.fingerprint(told(self.board, self.python))

    def measure(self, artifact: Path, reference: Path, level: Level) -> Measurement:
        """By the agent, on the board. Raises: UserError; DoesNotFitError."""
        from slimbench.hardware_profiles import _onnx

        with tempfile.TemporaryDirectory(prefix="slimbench-") as name:
            request = _onnx.package(artifact, reference, Path(name), level, threads=self.threads, batch=self.batch)
            found = _ask(self.board, self.python, packed(Path(name).iterdir()), (), _onnx.LIMIT_S)
        _onnx.refuse(found["failed"], f"on {self.board}", f"the memory of {self.board}")
        return _onnx.measurement(found, request, level)


@functools.cache
def told(board: str, python: str) -> dict[str, Any]:
    """What the board says of itself; it must have what the agent needs. Raises: UserError."""
    from slimbench.hardware_profiles import _onnx

    machine: dict[str, Any] = _ask(board, python, packed([_onnx.AGENT], "agent.py"), ("--machine",), _LIMIT_S)[
        "machine"
    ]
    for package in ("numpy", "onnxruntime"):
        if machine["versions"][package] == "absent":
            raise UserError(f"{board} lacks {package}: `ssh {board} {python} -m pip install numpy onnxruntime`.")
    return machine


def packed(files: Any, name: str = "") -> bytes:
    """A tar of files, without what is this machine's: owners and folders."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for file in files:
            entry = tarfile.TarInfo(name or file.name)
            entry.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(entry, content)
    return stream.getvalue()


def _ask(board: str, python: str, archive: bytes, arguments: tuple[str, ...], limit_s: float) -> dict[str, Any]:
    """The agent's answer from the board, in one connection. Raises: UserError."""
    from slimbench.hardware_profiles import _onnx

    # BENCH_SSH: another client, or one with options, e.g. "ssh -F config"
    client = shlex.split(os.environ.get("BENCH_SSH", "ssh"))
    remote = "exec " + shlex.join([python, "-c", _UNPACK, *arguments])  # no shell stays between
    try:
        done = subprocess.run(
            [*client, *_SSH.split(), "--", board, remote],
            input=archive,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise UserError(f"{client[0]} is not installed here: on Debian `apt-get install openssh-client`.") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{board} took more than {limit_s:g} s: see what it is busy with, or use a smaller batch."
        ) from error
    said, complained = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    found = _onnx.answer(said)
    if done.returncode or found is None:
        raise UserError(_why(board, python, done.returncode, said, complained))
    return found


def _why(board: str, python: str, code: int, said: str, complained: str) -> str:
    """One sentence of what went wrong and what to do."""
    last = (complained.strip().splitlines() or [f"exit {code}"])[-1].strip().rstrip(".")
    if HERE in said:
        if code in {_FAILED, -9, -15}:
            return (
                f"{board} disappeared in the middle ({last}): see that it is on, and run again; what is done is kept."
            )
        return f"The agent failed on {board} ({last}): see its memory and disk, and try `ssh {board} {python} -V`."
    if code in _MISSING:
        return (
            f"{board} has no {python} ({last}): install Python 3.8 or newer there, or name it: edge_remote(python=...)."
        )
    if re.search("Host key verification failed|HOST IDENTIFICATION HAS CHANGED", complained):
        return f"{board} is not a known host, or not the one that is known: `ssh {board}` once, and compare its key."
    if "Permission denied" in complained:
        return f"{board} refuses your key: `ssh-copy-id {board}`, so that `ssh {board}` asks for no password."
    if code == _FAILED:
        return f"{board} cannot be reached ({last}): see that it is on, and that `ssh {board}` works."
    return f"{python} failed on {board} ({last}): it must be Python 3.8 or newer."
