"""What the documents say is so: generated tables, commands, files."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from importlib import util

import click
import numpy as np
import pytest
from click.testing import CliRunner

from conftest import ROOT
from runs import go, suite_of
from slimbench import discover
from slimbench.cli import main
from slimbench.core import Recipe, UserError
from slimbench.methods.dense import Dense
from slimbench.store import Store
from slimbench.tasks import _images
from slimbench.tasks.digits import Digits

README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
BENCH = main.make_context("bench", [], resilient_parsing=True)
COMMANDS = {name: main.get_command(BENCH, name) for name in main.list_commands(BENCH)}  # plug-ins' too


def test_every_command_is_in_the_readme_and_every_one_there_exists():
    """With options that it has."""
    commands = COMMANDS
    lines = [line.split("#")[0] for line in README.splitlines() if line.startswith("bench ")]
    shown = [shlex.split(line) for line in lines]
    assert {words[1] for words in shown} <= set(commands)
    assert set(commands) - {words[1] for words in shown} <= {"download", "lock"}
    for words in shown:
        known = {option for p in commands[words[1]].params for option in p.opts}
        used = {word for word in words if word.startswith("--")}
        assert used <= known, words


def test_every_command_and_option_has_help():
    """Nobody has to read the source."""
    for name, command in COMMANDS.items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_links_between_documents_resolve():
    """Relative ones."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def _commands(path):
    """Every line of the shell blocks of a document that runs `bench`, without comments, as words."""
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", path.read_text(), re.DOTALL | re.MULTILINE):
        if language not in {"", "sh", "bash"}:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words and words[0].rpartition("/")[2] == "bench":
                yield words[1:]


@pytest.fixture
def examples(monkeypatch):
    """The files of docs/examples as plug-ins, until the test ends."""
    monkeypatch.setattr(discover, "_plugins", [*discover._plugins])
    for example in EXAMPLES:
        discover.load_plugin(str(example))
    yield
    discover.found.cache_clear()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_are_real(path, tmp_path, monkeypatch, examples):
    """Options exist and take these values; methods, tasks, profiles and suites are there with these fields."""
    monkeypatch.chdir(tmp_path)
    _are_real(path, tmp_path)


def _are_real(path, tmp_path):
    for words in _commands(path):
        _give_what_is_named(words, tmp_path)
        command = COMMANDS.get(words[0])
        assert command, f"no command {words[0]}"
        context = command.make_context(words[0], list(words[1:]), parent=BENCH)  # a command keeps its help option
        _specs_exist(context)


def _give_what_is_named(words, folder):
    """Files that a command would be given."""
    for word in words:
        if re.fullmatch(r"[\w./-]+\.(zip|md|py|json)", word) and not (folder / word).exists():
            (folder / word).parent.mkdir(parents=True, exist_ok=True)
            (folder / word).touch()


def _specs_exist(context):
    for name, kind in (("method", "methods"), ("task", "tasks"), ("tasks", "tasks"), ("profile", "hardware_profiles")):
        given = context.params.get(name) or ()
        for text in (given,) if isinstance(given, str) else given:
            if text not in USERS:
                discover.make(kind, text)
    suite = context.params.get("suite")
    assert suite is None or suite in USERS or discover.suite(suite)


USERS = {"mine"}  # a name of the reader's own in the documents
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.py"))


def test_a_command_that_is_not_real_is_found(tmp_path, examples):
    """A wrong command, option, choice, method, field or suite."""
    for line in (
        "nothing",
        "run quick --nope",
        "run x --level best",
        "run --method no",
        "run --task 'digits(x=1)'",
        "run no",
    ):
        path = tmp_path / "page.md"
        path.write_text(f"```sh\nbench {line}\n```\n")
        with pytest.raises((AssertionError, UserError, click.UsageError)):
            _are_real(path, tmp_path)


def test_records_that_are_named_are_there():
    """Every id in a document is of a stored record or measurement."""
    stored = {path.stem for part in ("records", "measurements") for path in (ROOT / "reports" / part).glob("*.json")}
    for path in DOCUMENTS:
        assert set(re.findall(r"\b[0-9a-f]{16}\b", path.read_text())) <= stored, path.name


def test_every_example_is_shown():
    """Each file of docs/examples stands in a document, which another test holds to its text."""
    shown = " ".join(path.read_text() for path in DOCUMENTS)
    for example in EXAMPLES:
        assert f"<!-- file of examples/{example.name}:" in shown
    blocks = re.findall(r"(<!-- file of [^\n]*\n)?```python\n", shown)
    assert all(blocks), "every Python block is a file that a test runs"


def test_the_examples_run_as_plug_ins(tmp_path):
    """Method, task and profile, each in its file, through `bench run --plugin`: a record, its budget met, timed."""
    plugins = [word for example in EXAMPLES for word in ("--plugin", str(example))]
    chosen = [
        "smoke",
        "--task",
        "parity(recipe={'epochs': 1})",
        "--method",
        "halved",
        "--profile",
        "cpu_channels_first",
        "--seeds",
        "0",
    ]
    command = [sys.executable, "-c", "from slimbench.cli import main; main()", "run", *chosen, *plugins]
    store = Store(tmp_path / "store")
    done = subprocess.run([*command, "--store", str(store.root)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    statuses = {record.cell["method"]["is"]: (record.status, record.reason) for record in store.records()}
    assert statuses == {"dense": ("ok", ""), "halved": ("ok", "")}
    assert {m.profile["is"] for m in store.measurements() if m.status == "ok"} == {"cpu_channels_first"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store whose only cell is a small network of digits, trained for long enough to be right mostly."""
    store = Store(tmp_path_factory.mktemp("trained") / "store")
    task = Digits("resnet8", Recipe(epochs=3, batch_size=64, lr=0.05))
    go(suite_of(Dense(), task=task), store)
    return store


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_an_exported_network_is_used_as_the_example_says(trained, tmp_path, kind):
    """Without SlimBench, on the images as scikit-learn has them: as often right as its record says."""
    record = next(r for r in trained.records() if r.cell["reference"])
    file = str(tmp_path / f"net.{kind}")
    arguments = ["export", record.id, "--store", str(trained.root), "--format", kind, "--out", file]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
    example = {name: runpy.run_path(str(ROOT / f"docs/examples/{name}.py")) for name in (f"run_{kind}", "run_onnx")}
    _, test = _images.split_off(1797, 400)
    images, labels = (values[test] for values in example["run_onnx"]["digits"]())
    found = np.asarray(example[f"run_{kind}"]["outputs"](file, images)).argmax(1)
    assert 100 * (found == labels).mean() == pytest.approx(record.quality["top1"].value, abs=0.5)
    assert record.quality["top1"].value > 80


@pytest.mark.skipif(
    any(util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")), reason="needs the extra docs"
)
def test_the_pages_build(tmp_path):
    """Strictly: a broken link, or a page in no menu, fails."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "pages")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    built = {path.stem for path in (tmp_path / "pages").glob("*.html")}
    assert {path.stem for path in ROOT.glob("docs/*.md")} <= built
    assert "compress" in (tmp_path / "pages/api.html").read_text(), "the interface is read from the source"


def test_the_runs_of_make_evidence_are_real(tmp_path):
    """What make would run: suites and options that there are, every reduced suite but ImageNet's, CIFAR-10 first."""
    told = subprocess.run(["make", "-n", "evidence"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    runs = re.findall(r"^\S+/bench run --store \S+ +(.+) \|\| \[ \$\? -eq 1 \]$", told, re.MULTILINE)
    assert len(runs) == told.count("bench run") == (ROOT / "Makefile").read_text().count("\t$(call part,")
    assert runs[0].startswith("cifar10-reduced")
    reduced = {
        name
        for name in discover.suites()
        if name.endswith(("-reduced", "-reduced-controls", "-reduced-rewound", "-thinned"))
    }
    assert reduced - {run.split()[0] for run in runs} == {"dcss-imagenet-reduced"}, "ImageNet is no two cores' work"
    page = tmp_path / "page.md"
    page.write_text("```sh\n" + "".join(f"bench run --store s {run}\n" for run in runs) + "```\n")
    _are_real(page, tmp_path)


def test_the_two_commands_exist():
    """In the Makefile, and CI runs the second."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^bench: env", makefile, re.MULTILINE)
    assert re.search(r"^test: env", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci/run").read_text()
