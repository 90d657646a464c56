"""What is committed: pictures, weights and samples of embedded data alone, and numbers, which may be told of any data.

CamVid, Set5 and networks that began as weights for research stay local; what ours scored on them is no part of them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from slimbench import submission

ROOT = Path(__file__).parents[1]
FREE_WEIGHTS = {"akamaster"}  # BSD 2-Clause; those of super resolution were trained on data for research alone
IMAGE = re.compile(r"data:image/|iVBORw0KGgo|/9j/4AAQ|UEsDB")  # PNG, JPEG and ZIP in base64


def committed(root: Path = ROOT) -> list[str]:
    """Files that git knows, but links; the test is about them alone."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("needs a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    return [name for name in names.split("\0") if name and (root / name).is_file() and not (root / name).is_symlink()]


def unspoken(root: Path, names: list[str]) -> list[str]:
    """Pictures, weights and other binaries that no course of an evolution on embedded tasks speaks for."""
    told = [name for name in names if _is_binary(root / name) or (name.endswith(".svg") and not _is_chart(root / name))]
    return [name for name in told if not _of_an_evolution(root, Path(name))]


def _is_chart(file: Path) -> bool:
    """Lines and texts alone, drawn from numbers: no pixels in it."""
    content = file.read_text()
    return "<image" not in content and not IMAGE.search(content)


def _is_binary(file: Path) -> bool:
    """Whatever is no text."""
    content = file.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return b"\0" in content


def _of_an_evolution(root: Path, name: Path) -> bool:
    course = root / name.parent.with_suffix(".json")
    if name.suffix != ".png" or name.parent.parent != Path("reports/evolutions") or not course.is_file():
        return False
    tasks = [trial["task"] for trial in json.loads(course.read_text())["trials"]]
    return bool(tasks) and all(is_ours(task) for task in tasks)


def is_ours(task: dict) -> bool:
    """Embedded data, and no weights of others."""
    return task["is"] in submission.embedded() and not task.get("weights")


def wrong_records(root: Path) -> list[str]:
    """Records of networks that began as weights for research alone."""
    found = []
    for file in sorted(root.glob("reports/**/records/*.json")):
        weights = json.loads(file.read_text())["body"]["cell"]["task"].get("weights", "")
        if weights not in {"", None, *FREE_WEIGHTS}:
            found.append(file.name)
    return found


def test_no_picture_no_weights_no_samples_but_of_embedded_tasks():
    """Of the whole repository."""
    names = committed()
    assert any(name.startswith("reports/records/") for name in names)
    assert unspoken(ROOT, names) == []


def test_no_record_of_weights_that_stay_local():
    """Of others, for research alone."""
    assert wrong_records(ROOT) == []


def test_no_image_hides_in_a_text():
    """As base64: of pages, documents, records and measurements."""
    names = [name for name in committed() if Path(name).suffix in {".json", ".html", ".md", ".css", ".js"}]
    assert [name for name in names if IMAGE.search((ROOT / name).read_text())] == []


SVG = {"crop": b'<svg><image href="crop.png"/></svg>', "chart": b"<svg><path/></svg>"}


def test_charts_may_be_committed(tmp_path):
    """Of numbers, which may be told of any data."""
    planted(tmp_path / "docs" / "chart.svg")
    assert unspoken(tmp_path, ["docs/chart.svg"]) == []


def planted(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(SVG[file.stem] if file.suffix == ".svg" else b"\x89PNG\r\n\x1a\n\0")


@pytest.mark.parametrize(
    "name",
    [
        "reports/artifacts/00ff/program.pt2",
        "reports/pictures/camvid.png",
        "reports/artifacts/00ff/weights.safetensors",
        "reports/evolutions/00ff/photo.jpg",
        "docs/crop.png",
        "docs/crop.svg",
        "reports/evolutions/other/fitness.png",
    ],
)
def test_planted_files_are_found(tmp_path, name):
    """Weights, pictures of nothing that is told, and pictures of an evolution on other data."""
    course = tmp_path / "reports" / "evolutions"
    course.mkdir(parents=True)
    task = {"is": "camvid", "network": "fast-scnn", "weights": ""}
    (course / "other.json").write_text(json.dumps({"trials": [{"task": task}]}))
    (tmp_path / "reports" / "table.py").write_text('"""ä"""')
    planted(tmp_path / name)
    assert unspoken(tmp_path, ["reports/table.py", name]) == [name]


def test_pictures_of_an_embedded_evolution_may_be_committed(tmp_path):
    """Unless it began with weights of others."""
    course = tmp_path / "reports" / "evolutions"
    course.mkdir(parents=True)
    for weights, wrong in (("", []), ("akamaster", ["reports/evolutions/00ff/fitness.png"])):
        task = {"is": "digits", "weights": weights}
        (course / "00ff.json").write_text(json.dumps({"trials": [{"task": task}]}))
        planted(course / "00ff" / "fitness.png")
        assert unspoken(tmp_path, ["reports/evolutions/00ff/fitness.png"]) == wrong


@pytest.mark.parametrize(("weights", "wrong"), [("", []), ("akamaster", []), ("twtygqyy", ["00ff.json"])])
def test_records_by_their_weights(tmp_path, weights, wrong):
    """What a network of ours scored may be told; one that began as weights for research alone stays local whole."""
    folder = tmp_path / "reports" / "records"
    folder.mkdir(parents=True)
    task = {"is": "div2k", "test_sets": ["set5"], "weights": weights}
    (folder / "00ff.json").write_text(json.dumps({"body": {"cell": {"task": task}}}))
    assert wrong_records(tmp_path) == wrong
