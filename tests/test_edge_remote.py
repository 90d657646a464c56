"""``edge_remote``: over a client that runs the command here, and over a real sshd on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from boards import ANSWER, MACHINE, failure
from slimbench.core import DoesNotFitError, UserError
from slimbench.hardware_profiles import edge_remote
from slimbench.hardware_profiles.edge_remote import EdgeRemote

# An ssh that takes the options and host apart and runs the command here, in a shell, as sshd would.
LOOPBACK = """
import os, subprocess, sys
host, command = sys.argv[sys.argv.index("--") + 1:]
assert host == "board", host
for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ServerAliveInterval=5"):
    assert option in sys.argv, option
sys.exit(subprocess.call(["sh", "-c", command], env={**os.environ, "TMPDIR": os.environ["THERE"]}))
"""


@pytest.fixture
def board(monkeypatch, tmp_path):
    """Sets what BENCH_SSH runs; the board is called board, and its temporary folders lie apart."""
    edge_remote.told.cache_clear()
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.setenv("BENCH_BOARD", "board")
    monkeypatch.setenv("THERE", str(there))  # not this process's TMPDIR: runtimes write there too

    def runs(code: str) -> Path:
        client = tmp_path / "client.py"
        client.write_text(code)
        monkeypatch.setenv("BENCH_SSH", f"{sys.executable} {client}")
        return there

    yield runs
    edge_remote.told.cache_clear()


def test_a_board_measures_and_nothing_stays_there(board, stored):
    """One connection; the machine is the board's."""
    there = board(LOOPBACK)
    profile = EdgeRemote(python=sys.executable, batch=2)
    assert profile.unavailable() is None
    assert profile.machine()["versions"]["torch"] == torch.__version__
    assert profile.machine()["cores"] >= 1
    taken = profile.measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.batch, taken.threads, taken.input_shape) == (30, 2, 1, (2, 1, 8, 8))
    assert list(there.iterdir()) == []


# An ssh whose connection breaks as soon as the agent has begun, which the board sees as the end of the agent's parent.
BREAKS = LOOPBACK.replace("sys.exit(subprocess.call(", "subprocess.Popen(").replace("}))", "})") + (
    """
import pathlib, time
while not pathlib.Path("begun").exists():
    time.sleep(0.01)
os._exit(255)
"""
)
# It looks as the real one does between its parts.
AGENT = """
import os, pathlib, sys, time
parent, ends = os.getppid(), time.monotonic() + 30
pathlib.Path("begun").touch()
while os.getppid() == parent and time.monotonic() < ends:
    time.sleep(0.01)
pathlib.Path("ended").write_text(str(time.monotonic() < ends))
"""


def test_the_agent_notices_that_nobody_listens_any_more(board, tmp_path, monkeypatch):
    """It ends, and its folder goes: the next one would measure beside it."""
    monkeypatch.chdir(tmp_path)
    there = board(BREAKS)
    (tmp_path / "fake.py").write_text(AGENT)
    with pytest.raises(UserError, match="board disappeared in the middle"):
        edge_remote._ask("board", sys.executable, edge_remote.packed([tmp_path / "fake.py"], "agent.py"), (), 60.0)
    assert (tmp_path / "ended").read_text() == "True"
    assert list(there.iterdir()) == []


def test_a_stream_that_is_cut_off_leaves_no_folder(board):
    """Nothing was begun."""
    there = board(LOOPBACK)
    with pytest.raises(UserError, match="The agent failed on board"):
        edge_remote._ask("board", sys.executable, b"no tar" * 1000, (), 60.0)
    assert list(there.iterdir()) == []


def test_no_board_is_a_reason(monkeypatch):
    """A field comes before the variable."""
    monkeypatch.delenv("BENCH_BOARD", raising=False)
    assert EdgeRemote().unavailable().startswith("no board is named: set BENCH_BOARD")
    monkeypatch.setenv("BENCH_BOARD", "one")
    assert (EdgeRemote().board, EdgeRemote(host="two").board) == ("one", "two")


def test_too_many_threads_for_a_board_are_a_reason(board):
    """By its own cores."""
    board(LOOPBACK)
    assert EdgeRemote(python=sys.executable, threads=999).unavailable().startswith("999 threads on ")


def fails(code: int, complained: str, said: str = "") -> str:
    return f"import sys\nprint({said!r})\nprint({complained!r}, file=sys.stderr)\nsys.exit({code})\n"


SENTENCES = {
    "unreachable": (
        fails(255, "ssh: connect to host board port 22: No route to host"),
        r"board cannot be reached \(ssh: .* No route to host\): see that it is on, and that `ssh board` works\.",
    ),
    "refused key": (
        fails(255, "me@board: Permission denied (publickey)."),
        "board refuses your key: `ssh-copy-id board`, so that `ssh board` asks for no password",
    ),
    "unknown host": (
        fails(255, "No ED25519 host key is known for board.\r\nHost key verification failed."),
        "board is not a known host, or not the one that is known: `ssh board` once, and compare its key",
    ),
    "no Python": (
        fails(127, "sh: 1: python3: not found"),
        r"board has no python3 \(sh: 1: python3: not found\): install Python 3.8 or newer there, or name it",
    ),
    "old Python": (
        fails(1, "SyntaxError: invalid syntax"),
        r"python3 failed on board \(SyntaxError: invalid syntax\): it",
    ),
    "gone": (
        fails(255, "Connection to board closed by remote host.", edge_remote.HERE),
        r"board disappeared in the middle \(Connection to board closed by remote host\): see that it is on, and",
    ),
    "no disk": (
        fails(1, "OSError: [Errno 28] No space left on device", edge_remote.HERE),
        r"The agent failed on board \(OSError: \[Errno 28\] No space left on device\): see its memory and disk",
    ),
    "nothing": (fails(0, "", edge_remote.HERE), r"The agent failed on board \(exit 0\)"),
}


@pytest.mark.parametrize(("client", "why"), SENTENCES.values(), ids=SENTENCES)
def test_a_board_that_fails_is_one_sentence(board, stored, client, why):
    """As a reason beforehand, and as an error in the middle."""
    board(client)
    import re

    assert re.match(why, EdgeRemote().unavailable())
    with pytest.raises(UserError, match=why) as error:
        EdgeRemote().measure(stored["compressed"], stored["dense"], "quick")
    assert "\n" not in str(error.value)


def test_a_board_without_onnxruntime_is_told_how_to_get_it(board, monkeypatch):
    """By its own Python."""
    lacks = MACHINE | {"versions": MACHINE["versions"] | {"onnxruntime": "absent"}}
    board(fails(0, "", json.dumps({"machine": lacks})))
    assert EdgeRemote(python="venv/bin/python").unavailable() == (
        "board lacks onnxruntime: `ssh board venv/bin/python -m pip install numpy onnxruntime`."
    )


def test_a_board_that_was_asked_once_is_not_asked_again(board, tmp_path):
    """Listing, planning and ids come of one connection; a failure is no answer."""
    board(fails(255, "ssh: No route to host"))
    assert EdgeRemote().unavailable()
    board(fails(0, "", json.dumps({"machine": MACHINE})))
    assert EdgeRemote().machine()["cpu"] == "Board 3, Chip 7"
    board(fails(255, "ssh: No route to host"))
    assert EdgeRemote().unavailable() is None


def test_a_silent_board_and_an_absent_client(board, stored, monkeypatch):
    """Each has its sentence."""
    board("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(edge_remote, "_LIMIT_S", 0.5)
    assert EdgeRemote().unavailable().startswith("board took more than 0.5 s")
    monkeypatch.setenv("BENCH_SSH", "/no/such/ssh")
    assert EdgeRemote().unavailable().startswith("/no/such/ssh is not installed here")


def test_a_board_with_too_little_memory_is_a_result(board, stored):
    """The process was killed there."""
    board(fails(0, "", json.dumps(ANSWER | {"failed": [failure(which="compressed", code=-9)]})))
    with pytest.raises(DoesNotFitError, match="the compressed network does not fit in the memory of board"):
        EdgeRemote().measure(stored["compressed"], stored["dense"], "quick")


def test_no_owner_travels(packed):
    """Names and contents alone."""
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(edge_remote.packed(packed[0].glob("[!.]*")))) as archive:
        entries = archive.getmembers()
    assert sorted(e.name for e in entries) == ["agent.py", "compressed.onnx", "dense.onnx", "request.json"]
    assert {(e.uid, e.gid, e.uname, e.mtime) for e in entries} == {(0, 0, "", 0)}


# ------------------------------------------------------------------------------------------------ over a real sshd


class Server:
    """An sshd on loopback with keys of its own, and a client's configuration for it."""

    def __init__(self, folder: Path, sshd: str) -> None:
        for name in ("host", "user", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name]
            subprocess.run(command, check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        shutil.copy(folder / "user.pub", folder / "authorized")
        (folder / "authorized").chmod(0o600)
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
        )
        self.know("host")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE)

    def know(self, key: str) -> None:
        """Which host key the client knows."""
        public = (self.folder / f"{key}.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")

    def client(self, key: str = "user") -> str:
        """What BENCH_SSH is, with this private key."""
        config = self.folder / f"config-{key}"
        config.write_text(
            f"Host board\n HostName 127.0.0.1\n Port {self.port}\n User {os.environ.get('USER') or 'root'}\n"
            f" IdentityFile {self.folder}/{key}\n IdentitiesOnly yes\n UserKnownHostsFile {self.folder}/known_hosts\n"
            " GlobalKnownHostsFile /dev/null\n"
        )
        return f"ssh -F {config}"

    def answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real sshd; skips where there is none."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not sshd or not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        pytest.skip("needs OpenSSH: on Debian `apt-get install openssh-server openssh-client`")
    one = Server(tmp_path_factory.mktemp("sshd"), sshd)
    for _ in range(50):
        if one.answers() or one.process.poll() is not None:
            break
        time.sleep(0.1)
    if not one.answers():
        one.process.kill()
        pytest.skip(f"sshd does not start here: {one.process.communicate()[1].decode().strip()}")
    yield one
    one.process.terminate()
    one.process.communicate()


@pytest.fixture
def over_ssh(server, monkeypatch):
    """Reaches the real sshd as board."""
    edge_remote.told.cache_clear()
    monkeypatch.setenv("BENCH_BOARD", "board")
    monkeypatch.setenv("BENCH_SSH", server.client())
    yield server
    server.know("host")
    edge_remote.told.cache_clear()


def test_a_real_connection_measures(over_ssh, stored):
    """With the user's configuration: name, port, key and known hosts are from there."""
    profile = EdgeRemote(python=sys.executable)
    assert profile.unavailable() is None
    taken = profile.measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.batch) == (30, 1)
    assert taken.p50_ms > 0


def test_a_real_connection_refuses_strangers(over_ssh, monkeypatch):
    """A key that the board does not know, a board whose key is not the known one or not known, no board."""
    monkeypatch.setenv("BENCH_SSH", over_ssh.client("stranger"))
    assert EdgeRemote().unavailable().startswith("board refuses your key")
    monkeypatch.setenv("BENCH_SSH", over_ssh.client())
    over_ssh.know("stranger")
    assert EdgeRemote().unavailable().startswith("board is not a known host")
    (over_ssh.folder / "known_hosts").write_text("")
    assert EdgeRemote().unavailable().startswith("board is not a known host")
    assert EdgeRemote(host="no-such-host.invalid").unavailable().startswith("no-such-host.invalid cannot be reached")


def test_a_real_board_lacks_things(over_ssh, tmp_path):
    """Python, or the libraries."""
    assert EdgeRemote(python="no-such-python").unavailable().startswith("board has no no-such-python")
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -I -S "$@"\n')
    bare.chmod(0o755)
    assert "board lacks onnxruntime" in EdgeRemote(python=str(bare)).unavailable()


def test_a_real_board_disappears_in_the_middle(over_ssh, stored, tmp_path):
    """Its end of the connection dies after it has begun."""
    dying = tmp_path / "dying"
    dying.write_text(f'#!/bin/sh\necho "{edge_remote.HERE}"\nsleep 0.3\nkill -9 $PPID\n')
    dying.chmod(0o755)
    with pytest.raises(UserError, match=r"board disappeared in the middle \(.*\): see that it is on, and run again"):
        EdgeRemote(python=f"{dying}").measure(stored["compressed"], stored["dense"], "quick")
