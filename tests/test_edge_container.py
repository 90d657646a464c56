"""``edge_container``: with an engine that is made up, and with a real one where there is one."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from boards import ANSWER, REQUEST, failure, planted
from conftest import ROOT
from slimbench.core import DoesNotFitError, UserError
from slimbench.hardware_profiles import _onnx, edge_container
from slimbench.hardware_profiles.edge_container import EdgeContainer


class Container:
    """A container that ends as it is told to."""

    def __init__(self, said="", complained="", code=0, oom=False, waits=None) -> None:
        self.said, self.complained, self.waits = said, complained, waits
        self.attrs = {"State": {"ExitCode": code, "OOMKilled": oom}}
        self.did: list[str] = []

    def start(self):
        self.did.append("start")

    def wait(self, timeout):
        self.did.append("wait")
        if self.waits:
            raise self.waits

    def reload(self):
        self.did.append("reload")

    def logs(self, *, stdout, stderr):
        assert stdout != stderr
        return (self.said if stdout else self.complained).encode()

    def remove(self, force=False):
        self.did.append("remove" + (" by force" if force else ""))


class Engine:
    """Docker's client, as far as it is used."""

    def __init__(self, container: Container | None = None, image: bool = True, **info) -> None:
        self.container, self.image, self.asked = container or Container(json.dumps(ANSWER)), image, {}
        self.left = [Container()]
        self.told = {"NCPU": 4, "MemTotal": 2 << 30, "MemoryLimit": True, "CPUSet": True} | info
        self.containers = SimpleNamespace(list=self.list, create=self.create)
        self.images = SimpleNamespace(get=self.get)
        self.is_closed = False

    def info(self):
        return self.told

    def get(self, name):
        from docker.errors import ImageNotFound

        assert name == edge_container.IMAGE
        if not self.image:
            raise ImageNotFound("no such image")
        return SimpleNamespace(id="sha256:abc")

    def list(self, *, filters, **more):
        assert more == {"all": True}
        assert filters == {"label": "org.slimbench.edge", "status": "exited"}
        return self.left

    def create(self, image, **options):
        self.asked = {"image": image} | options
        return self.container

    def close(self):
        self.is_closed = True


@pytest.fixture
def engine(monkeypatch):
    """Sets the engine that answers, on a machine of four cores; networks are not exported."""
    import docker

    monkeypatch.setattr(edge_container, "usable_cores", lambda: [0, 1, 2, 3])
    planted(monkeypatch, "")

    monkeypatch.setattr(edge_container, "_listens", lambda: True)
    edge_container.image_id.cache_clear()

    def answers(one):
        monkeypatch.setattr(docker, "from_env", lambda timeout: one)
        return one

    yield answers
    edge_container.image_id.cache_clear()


def test_a_container_is_asked_for_its_limits_and_nothing_else(engine, stored):
    """Cores, memory without swap; no network, no root, no rights; the folder read-only, and readable for nobody."""
    one = engine(Engine())
    modes = {}
    create = one.containers.create

    def seen(image, **options):
        (folder,) = options["volumes"]
        modes.update({path.name: path.stat().st_mode & 0o777 for path in (Path(folder), *Path(folder).iterdir())})
        modes["folder"] = modes.pop(Path(folder).name)
        return create(image, **options)

    one.containers.create = seen
    taken = EdgeContainer(cores=2, memory_mib=1024).measure(stored["compressed"], stored["dense"], "quick")
    assert taken.ratio == 2.0
    (folder,) = one.asked.pop("volumes").items()
    assert folder[1] == {"bind": "/edge", "mode": "ro"}
    assert not Path(folder[0]).exists()
    assert modes == {"folder": 0o755, "agent.py": 0o644}
    assert one.asked == {
        "image": edge_container.IMAGE,
        "cpuset_cpus": "2,3",
        "mem_limit": "1024m",
        "memswap_limit": "1024m",
        "network_mode": "none",
        "read_only": True,
        "user": "65534:65534",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 64,
        "labels": ["org.slimbench.edge"],
    }
    assert one.container.did == ["start", "wait", "reload", "remove by force"]
    assert one.left[0].did == ["remove"]
    assert one.is_closed


def test_a_container_runs_as_many_threads_as_cores(engine, stored, monkeypatch):
    """And the profile's batch."""
    asked = {}

    def package(artifact, reference, folder, level, **more):
        asked.update(more)
        return REQUEST

    monkeypatch.setattr(_onnx, "package", package)
    engine(Engine())
    EdgeContainer(cores=3, batch=7).measure(stored["compressed"], stored["dense"], "quick")
    assert asked == {"threads": 3, "batch": 7}


@pytest.mark.parametrize(
    ("spec", "engine_is", "why"),
    [
        ({}, {}, None),
        ({"cores": 4, "memory_mib": 1024}, {}, None),
        ({"cores": 4}, {"NCPU": 2}, "4 cores were asked for, the container engine has 2"),
        ({"cores": 5}, {"NCPU": 8}, "5 cores were asked for, the container engine has 4"),
        ({"memory_mib": 4096}, {}, "4096 MiB were asked for, the container engine has 2048 MiB"),
        ({}, {"MemoryLimit": False}, "the container engine cannot limit memory or cores: run one with cgroups"),
        ({}, {"CPUSet": False}, "the container engine cannot limit memory or cores: run one with cgroups"),
        ({}, {"image": False}, "the image slimbench-edge:1 is not built: `docker build -f docker/edge.Dockerfile -t"),
    ],
)
def test_a_container_is_unavailable_with_a_reason(engine, spec, engine_is, why):
    """What is missing, and how to get it."""
    one = engine(Engine(**engine_is))
    found = EdgeContainer(**spec).unavailable()
    assert found == why or found.startswith(why)
    assert one.is_closed


def test_no_engine_is_a_reason(monkeypatch, tmp_path):
    """A socket that is not there or that nobody listens on, and another machine that is not there."""
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(f"{tmp_path}/deaf")
    for address in (f"unix://{tmp_path}/none", f"unix://{tmp_path}/deaf", "tcp://127.0.0.1:1"):
        monkeypatch.setenv("DOCKER_HOST", address)
        assert EdgeContainer().unavailable() == (
            "no container engine answers: start Docker until `docker info` works, or set DOCKER_HOST"
        )


def ends(**how) -> Engine:
    return Engine(Container(**how))


def errors():
    import requests
    from docker.errors import APIError

    gone, late = requests.exceptions.ConnectionError("connection reset"), requests.exceptions.ReadTimeout("late")
    unix = requests.exceptions.ConnectionError("UnixHTTPConnectionPool: Read timed out. (read timeout=1)")
    memory = json.dumps(ANSWER | {"failed": [failure(code=-9)]})
    return [
        (ends(code=137, oom=True), DoesNotFitError, "the networks do not fit in 512 MiB"),
        (ends(code=137), DoesNotFitError, "the networks do not fit in 512 MiB"),
        (ends(said=memory), DoesNotFitError, "the dense network does not fit in 512 MiB, the compressed one does"),
        (
            ends(code=1, complained="x\nno such file\n"),
            UserError,
            r"The container failed \(no such file\): build its im",
        ),
        (ends(code=3), UserError, r"The container failed \(exit 3\)"),
        (
            ends(waits=gone),
            UserError,
            r"The container engine failed \(connection reset\): see that `docker info` works",
        ),
        (ends(waits=late), UserError, "The container took more than 1200 s: use a smaller batch"),
        (ends(waits=unix), UserError, "The container took more than 1200 s: use a smaller batch"),
        (ends(waits=APIError("bad", explanation="no space")), UserError, r"The container engine failed \(no space\)"),
    ]


@pytest.mark.parametrize(("one", "kind", "why"), errors())
def test_a_container_that_fails_is_one_sentence_and_is_removed(engine, stored, one, kind, why):
    """Memory is a result; the rest says what to do."""
    engine(one)
    with pytest.raises(UserError, match=why) as error:
        EdgeContainer().measure(stored["compressed"], stored["dense"], "quick")
    assert type(error.value) is kind
    assert one.container.did[-1] == "remove by force"
    assert one.is_closed


def test_another_image_is_another_machine(engine):
    """It may hold other libraries."""
    engine(Engine(image=False))
    with pytest.raises(UserError, match="The container engine failed"):
        EdgeContainer().machine()
    engine(Engine())
    assert EdgeContainer().machine()["image"] == "sha256:abc"
    engine(Engine(image=False))
    assert EdgeContainer().machine()["image"] == "sha256:abc"


@pytest.fixture(scope="module")
def real_engine():
    """A real engine with the image built from the Dockerfile; skips where there is none."""
    import docker
    from docker.errors import APIError, BuildError, DockerException

    if not edge_container._listens():  # where nobody does, the SDK leaves its own end open
        pytest.skip("needs a container engine: start Docker, or set DOCKER_HOST")
    try:
        client = docker.from_env(timeout=600)
    except DockerException:
        pytest.skip("needs a container engine: start Docker, or set DOCKER_HOST")
    try:
        client.images.build(
            path=str(ROOT), dockerfile="docker/edge.Dockerfile", tag=edge_container.IMAGE, network_mode="host", rm=True
        )
    except (APIError, BuildError) as error:
        client.close()
        if "FROM" in str(error) or "pull" in str(error) or "resolve" in str(error) or "registry" in str(error):
            pytest.skip(f"needs the base image: {error}")
        raise
    yield client
    client.close()


def test_a_real_container_measures(real_engine, stored):
    """End to end, and nothing is left behind."""
    profile = EdgeContainer()
    assert profile.unavailable() is None
    taken = profile.measure(stored["compressed"], stored["dense"], "quick")
    assert (taken.samples, taken.threads, taken.batch) == (30, 1, 1)
    assert taken.p50_ms > 0
    assert real_engine.containers.list(all=True, filters={"label": "org.slimbench.edge"}) == []
    assert profile.machine()["image"].startswith("sha256:")


def test_too_little_memory_is_a_result_in_a_real_container(real_engine, stored):
    """ONNX Runtime itself takes more than 24 MiB."""
    with pytest.raises(DoesNotFitError, match="fits in 24 MiB"):
        EdgeContainer(memory_mib=24).measure(stored["compressed"], stored["dense"], "quick")


def test_a_real_container_can_do_nothing_else(real_engine, tmp_path):
    """No network but loopback, no writing, no rights, one core, 512 MiB."""
    probe = (
        "import json, os, pathlib\n"
        "def writes(path):\n"
        "    try: pathlib.Path(path).write_text('x')\n"
        "    except OSError: return False\n"
        "    return True\n"
        "status = dict(l.split(':', 1) for l in pathlib.Path('/proc/self/status').read_text().splitlines())\n"
        "devices = pathlib.Path('/proc/net/dev').read_text().splitlines()[2:]\n"
        "print(json.dumps({'machine': {}, 'devices': [l.split(':')[0].strip() for l in devices],\n"
        "    'uid': os.getuid(), 'rights': int(status['CapEff'], 16), 'no_new': status['NoNewPrivs'].strip(),\n"
        "    'writes': [p for p in ('/x', '/tmp/x', '/edge/x') if writes(p)],\n"
        "    'cores': len(os.sched_getaffinity(0))}))\n"
    )
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "agent.py").write_text(probe)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(path.stat().st_mode | 0o055)
    _onnx.readable(folder)
    _, said, complained = edge_container.run(real_engine, EdgeContainer().options(folder), 60)
    found = _onnx.answer(said)
    assert found, complained
    assert (found["devices"], found["uid"], found["rights"], found["no_new"]) == (["lo"], 65534, 0, "1")
    assert (found["writes"], found["cores"]) == ([], 1)
