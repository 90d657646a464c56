"""Numbers that prose quotes from records by footnotes: checked, written anew, and refused where nothing backs them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from conftest import ROOT
from made import NOTHING, measured, record
from slimbench import cli
from slimbench.core import Budget, Scores, UserError
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.l1_channels import L1Channels
from slimbench.reports import documents, quoted
from slimbench.store import Store
from slimbench.tasks.digits import Digits
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits

HALF = Budget(0.5, epochs=8)


@pytest.fixture
def store(tmp_path):
    """Two seeds of each of two methods; one that failed; the first is timed."""
    store = Store(tmp_path / "reports")
    for seed, (ours, theirs) in enumerate([(88.0, 87.0), (89.0, 87.0)]):
        val = {"top1": Scores(70.0 + seed, 280.0, 400.0)}
        store.put(record(DCSS(), seed=seed, top1=ours, macs=500, budget=HALF, val_quality=val))
        store.put(record(L1Channels(), seed=seed, top1=theirs, macs=250, budget=HALF))
    store.put(record(Dense(), seed=3, status="failed", reason="killed", **NOTHING))
    store.put(record(Dense(), seed=4, status="off budget"))
    store.put(PHOTO)
    memory = {"peak_bytes": 3_000_000, "dense_peak_bytes": 4_500_000}
    store.put(measured(record(DCSS(), budget=HALF), ratio=0.9512, low=0.901, high=1.004, **memory))
    store.put(measured(record(DCSS(), seed=1, budget=HALF), ratio=2.0, disturbed="other work", peak_bytes=None))
    return store


def ids(method, *seeds):
    return " ".join(record(method, seed=seed, budget=HALF).id for seed in seeds)


def changed(of_it, task=None, **cell):
    """As if its cell, or its task, had been another."""
    return replace(of_it, id="f0" * 8, cell=of_it.cell | cell | {"task": of_it.cell["task"] | (task or {})})


PHOTO = record(DCSS(), seed=0, budget=HALF, task=Photos(), quality={"psnr_y": Scores(30.0, 30.0, 1.0)})
NOT_SCORES = {"34.5", "42.6", "12.5", "2.1", "2.9", "0.02", "0.13", "7.91", "55.5", "0.19", "0.27"}
DCSS_BOTH, L1_BOTH = ids(DCSS(), 0, 1), ids(L1Channels(), 0, 1)


@pytest.mark.parametrize(
    ("prose", "said", "right"),
    [
        ("It ends at 0.00[^a].", DCSS_BOTH, "It ends at 88.50[^a]."),
        ("It ends at 0.0 points[^a]: so", f"top1 of {DCSS_BOTH}.", "It ends at 88.5 points[^a]: so"),
        ("Ahead by 0.0 points[^a]", f"{DCSS_BOTH} minus {L1_BOTH}", "Ahead by 1.5 points[^a]"),
        (
            "0.50 was 0.00 points (0.00 to 0.00, 2 seeds)[^a]",
            f"{DCSS_BOTH} minus {L1_BOTH}",
            "0.50 was 1.50 points (-4.85 to 7.85, 2 seeds)[^a]",
        ),
        (
            "0.0 points (0.0 to\n0.0)[^a]",
            f"{DCSS_BOTH} minus {L1_BOTH}",
            "1.5 points (-4.9 to\n7.9)[^a]",
        ),
        ("0.0[^a] behind", f"{L1_BOTH} minus {DCSS_BOTH}", "-1.5[^a] behind"),
        ("chosen at 0.00[^a]", f"val of {DCSS_BOTH}", "chosen at 70.50[^a]"),
        ("0.0 %[^a] of the MACs", f"macs of {DCSS_BOTH}", "50.0 %[^a] of the MACs"),
        (
            "ran at 0.00 times (0.00 to 0.00)[^a]",
            f"speed of {ids(DCSS(), 0)} on cpu quick",
            "ran at 0.95 times (0.90 to 1.00)[^a]",
        ),
        ("0.0 times[^a]", f"speed of {ids(DCSS(), 1)} on cpu quick, disturbed", "2.0 times[^a]"),
        ("within 0.0 %[^a]", f"noise of {ids(DCSS(), 0)} on cpu quick", "within 2.0 %[^a]"),
        ("takes 0.0 ms[^a]", f"latency of {ids(DCSS(), 0)} on cpu quick", "takes 1.0 ms[^a]"),
        ("of 0.0 ms[^a]", f"dense latency of {ids(DCSS(), 0)} on cpu quick", "of 1.5 ms[^a]"),
        ("takes 0.0 MB[^a]", f"memory of {ids(DCSS(), 0)} on cpu quick", "takes 3.0 MB[^a]"),
        ("of 0.0 MB[^a]", f"dense memory of {ids(DCSS(), 0)} on cpu quick", "of 4.5 MB[^a]"),
    ],
)
def test_the_number_before_a_footnote_is_that_of_its_records(store, prose, said, right):
    """With its interval, at its own decimals; what stands elsewhere is left alone."""
    text = f"1.23 before.\n\n{prose}\n\n```md\n0.77[^a]\n```\n\n[^a]: {said}\n"
    new = quoted.quoted_into(text, store)
    assert new == text.replace(prose, right)
    assert quoted.quoted_into(new, store) == new


def test_every_place_of_a_footnote_and_every_footnote_is_written(store):
    """A long one may go on in lines that are indented; one without records is any footnote."""
    prose = "From 0.0[^a] to 0.0[^b], that is 0.000[^a]."
    text = f"{prose}\n\n[^a]: val of\n    {DCSS_BOTH}\n[^b]: {L1_BOTH}\n[^c]: See the paper, 0.5.\n"
    assert quoted.quoted_into(text, store).startswith("From 70.5[^a] to 87.0[^b], that is 70.500[^a].\n")
    assert quoted.has_quotes(text)
    assert not quoted.has_quotes("0.5[^c]\n\n[^c]: See the paper, 0.5.\n")


@pytest.mark.parametrize(
    ("prose", "said", "why"),
    [
        ("0.5[^a]", "the record 0123456789abcdef", "words that cannot be checked"),
        ("0.5[^a]", DCSS_BOTH.upper(), "words that cannot be checked"),
        ("0.5[^a]", f"{ids(DCSS(), 0)} {ids(DCSS(), 1)[:9]}f0", "words that cannot be checked"),
        ("0.5[^a]", "0123456789abcdef", r"record 0123456789abcdef, which .* does not have"),
        ("0.5[^a]", record(Dense(), seed=3).id, "ended as failed: it has nothing to quote"),
        ("0.5[^a]", record(Dense(), seed=4).id, "ended as off budget: it has nothing to quote"),
        ("0.5[^a]", f"mIoU of {DCSS_BOTH}", "quotes 'mIoU' of"),
        ("0.5[^a]", f"val of {L1_BOTH}", "quotes 'val' of"),
        ("0.5", DCSS_BOTH, "stands behind nothing"),
        ("0.5 (0.1 to 0.9)[^a]", ids(DCSS(), 0), "is of one value, which has no interval"),
        ("0.5[^a] (0.1 to 0.9)", DCSS_BOTH, "in brackets stands behind"),
        ("0.5[^a] [0.1, 0.9]", DCSS_BOTH, "in brackets stands behind"),
        ("0.5[^a](0.1 to 0.9)", DCSS_BOTH, "in brackets stands behind"),
        ("0.5[^a] ± 0.3", DCSS_BOTH, "in brackets stands behind"),
        ("0.5[^a]", f"`{ids(L1Channels(), 0)}` minus `0123456789abcdef`", "names the record 0123456789abcdef"),
        ("0.5[^a]", f"{DCSS_BOTH} minus {ids(L1Channels(), 0)}", r"seeds \[0, 1\] with seeds \[0\]"),
        ("0.5[^a]", f"{ids(DCSS(), 0)} minus {PHOTO.id}", "takes psnr_y from top1"),
        ("0.5[^a]", f"{ids(DCSS(), 0)} {ids(L1Channels(), 0)}", "two records of seed 0 on one side"),
        ("0.5[^a]", f"{ids(DCSS(), 0)} {ids(L1Channels(), 1)}", "differ in more than the seed"),
        ("0.5[^a]", f"{DCSS_BOTH} on cpu quick", "but a score is not timed"),
        ("0.5[^a]", f"speed of {DCSS_BOTH} on cpu quick", "a timing is of one"),
        ("0.5[^a]", f"speed of {ids(DCSS(), 0)} on cpu full", "was timed on: cpu quick, machine "),
        ("0.5[^a]", f"speed of {ids(L1Channels(), 0)}", "was timed on: nothing"),
        (
            "0.5[^a]",
            f"speed of {ids(DCSS(), 1)} on cpu quick",
            r"disturbed \(other work\); end the footnote with `, dist",
        ),
        ("0.5[^a]", f"speed of {ids(DCSS(), 0)} on cpu quick, disturbed", "not disturbed; end the footnote without"),
        (
            "0.5[^a]",
            f"memory of {ids(DCSS(), 1)} on cpu quick, disturbed",
            "the memory, which that timing does not have",
        ),
        ("0.5 (0.1 to 0.9)[^a]", f"noise of {ids(DCSS(), 0)} on cpu quick", "of one value, which has no interval"),
    ],
)
def test_a_quote_that_nothing_backs_is_refused(store, prose, said, why):
    """In one sentence that names the footnote."""
    with pytest.raises(UserError, match=why):
        quoted.quoted_into(f"{prose}\n\n[^a]: {said}\n", store)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (record(L1Channels(), budget=HALF, task=TextureDigits()), r"compares digits/\S+ with texture_digits/\S+: name"),
        (
            changed(record(L1Channels(), seed=7, budget=HALF), data="f" * 64),
            "compares data [0-9a-f]{6} with data ffffff",
        ),
        (
            changed(record(L1Channels(), budget=HALF), {"family": "segmentation"}),
            "compares digits/resnet20 with digits",
        ),
        (changed(record(L1Channels(), budget=HALF), {"is": "mnist", "label": "mnist/lenet"}), "with mnist/lenet: name"),
    ],
)
def test_scores_of_unlike_tasks_are_not_taken_from_each_other(store, other, why):
    """Though they are of one metric and seed; of another network they are."""
    store.put(other)
    ours = record(DCSS(), seed=other.cell["seed"], budget=HALF, id="0f" * 8)
    store.put(ours)
    with pytest.raises(UserError, match=why):
        quoted.quoted_into(f"0.5[^a]\n\n[^a]: {ours.id} minus {other.id}\n", store)
    store.put(wide := record(L1Channels(), budget=HALF, task=Digits(network="resnet56"), top1=80.0))
    text = f"0.0[^a]\n\n[^a]: {ids(DCSS(), 0)} minus {wide.id}\n"
    assert quoted.quoted_into(text, store).startswith("8.0[^a]")


def test_one_network_of_several_seeds_is_one(store):
    """It has no interval, nor has the difference of two such."""
    for method, top1 in ((DCSS(), 88.0), (L1Channels(), 87.0)):
        for seed in (0, 1):
            store.put(record(method, seed=seed, top1=top1, budget=HALF, artifact=f"{top1:g}"))
    for said in (DCSS_BOTH, f"{DCSS_BOTH} minus {L1_BOTH}"):
        with pytest.raises(UserError, match="is of one value, which has no interval"):
            quoted.quoted_into(f"0.5 (0.1 to 0.9)[^a]\n\n[^a]: {said}\n", store)
    assert quoted.quoted_into(f"0.5[^a]\n\n[^a]: {DCSS_BOTH} minus {L1_BOTH}\n", store).startswith("1.0[^a]")


@pytest.mark.parametrize(
    "prose",
    [
        "half[^a]",
        "0.5\n\nhalf[^a]",
        "- 0.5\n- half[^a]",
        "1) 0.5\n2) half[^a]",
        "> - 0.5\n> - half[^a]",
        "# 0.5\nhalf[^a]",
        "| 0.5 | half[^a] |",
        "0.5[^c] and half[^a]",
        "0.5[^c][^a]",
        "With 0.25 of the MACs 3 points[^a]",
        "0.25 of it ran 1.6fold[^a]",
        "0.25, then 1.6e-1[^a]",
        "0.25, then 1,234.5[^a]",
        "34.9 ± 0.3[^a]",
        "0.5 (interval 0.1 to 0.9)[^a]",
        "0.5 (0.1 to 0.9[^a])",
        "0.5 (0 to 0.9)[^a]",
        "0.5 (0.1-0.9)[^a]",
        "`keep=0.25` is ahead[^a]",
        "`keep=0.25`[^a]",
        "With 0.25 of the MACs it is ahead[^a]",
        "Fig. 3.2 shows it[^a]",
        "0.5 (0.1 to 0.9), which is 0.4 wide[^a]",
        "0.1 to 0.5[^a]",
        "0.1-0.5[^a]",
        "0.1\u20130.5[^a]",
        "0.1/0.5[^a]",
        "<!-- 0.25 --> ahead[^a]",
        "[it](https://example.org/2101.12345)[^a]",
    ],
)
def test_what_may_be_another_number_is_not_guessed(store, prose):
    """The one that is meant is right before the footnote, or its interval is."""
    with pytest.raises(UserError, match=r"not sure which number \[\^a\] is of"):
        quoted.quoted_into(f"{prose}\n\n[^a]: {DCSS_BOTH}\n[^c]: A word.\n", store)


@pytest.mark.parametrize("fence", ["```", "~~~~"])
def test_code_is_left_alone(store, fence):
    """A footnote in it is none, nor what it defines."""
    text = f"0.0[^a]\n\n{fence}md\n0.0[^a]\n[^b]: 0123456789abcdef\n{fence}\n\nand `[^a]`\n\n[^a]: {DCSS_BOTH}\n"
    assert quoted.quoted_into(text, store) == text.replace("0.0", "88.5", 1)


def test_the_kind_of_a_sign_is_kept(store):
    """A plus where there was one, and a minus that is no hyphen."""
    text = f"+0.0 points[^a], \u22120.0 [\u22120.0, +0.0][^b]\n\n[^a]: {DCSS_BOTH} minus {L1_BOTH}\n"
    text += f"[^b]: {L1_BOTH} minus {DCSS_BOTH}\n"
    assert quoted.quoted_into(text, store).startswith("+1.5 points[^a], \u22121.5 [\u22127.9, +4.9][^b]\n")


def test_the_documented_example_holds():
    """Of the project's own records."""
    (example,) = re.findall(r"```markdown\n(.*?)```", (ROOT / "docs/reports.md").read_text(), re.DOTALL)
    store = Store(ROOT / "reports", create=False)
    assert quoted.has_quotes(example)
    assert quoted.quoted_into(example, store) == example


def test_of_two_machines_one_must_be_named(store):
    """Their timings differ."""
    of_it = record(DCSS(), budget=HALF)
    env = of_it.environment | {"cpu": "another"}
    store.put(measured(of_it, ratio=2.0, env=env))
    with pytest.raises(UserError, match=r"timed on: cpu quick, machine (\w+); cpu quick, machine (\w+)\.") as caught:
        quoted.quoted_into(f"0.0[^a]\n\n[^a]: speed of {of_it.id} on cpu quick\n", store)
    places = str(caught.value).partition("timed on: ")[2].removesuffix(".").split("; ")
    numbers = {quoted.quoted_into(f"0.0[^a]\n\n[^a]: speed of {of_it.id} on {place}\n", store)[:3] for place in places}
    assert numbers == {"1.0", "2.0"}


def test_a_record_that_is_corrupt_is_named_and_stays(store, tmp_path):
    """A check moves nothing aside."""
    file = next((tmp_path / "reports/records").glob(f"{ids(DCSS(), 0)}*"))
    file.write_text(file.read_text()[:-9])
    page = tmp_path / "page.md"
    page.write_text(f"0.0[^a]\n\n[^a]: {DCSS_BOTH}\n")
    with pytest.raises(UserError, match=rf"names the record {ids(DCSS(), 0)}, which .* does not have \(.*corrupt"):
        documents.written_into(page.read_text(), tmp_path)
    assert file.exists()


def test_bench_check_writes_quotes(store, tmp_path):
    """Into a document without markers too; a wrong one leaves it as it was, with exit status 2."""
    page = tmp_path / "page.md"
    page.write_text(f"0.0[^a]\n\n[^a]: {DCSS_BOTH}\n")
    result = CliRunner().invoke(cli.main, ["check", "--write", str(page)])
    assert (result.exit_code, page.read_text()[:4]) == (0, "88.5")
    assert documents.written_into(page.read_text(), tmp_path).text == page.read_text()
    page.write_text(before := "0.0[^a]\n\n[^a]: 0123456789abcdef\n")
    result = CliRunner().invoke(cli.main, ["check", "--write", str(page)])
    assert result.exit_code == 2
    assert "[^a] names the record 0123456789abcdef" in result.output
    assert page.read_text() == before


BESIDE = {"892a21a0e7cab81b", "df4e74cc4f169bd8", "87d7cf34327c6f47"}  # scales of layers; two of `reports/avx512`


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_a_document_names_records_in_footnotes(path):
    """Where the numbers before them are held to them; but for those of another store and what is no score."""
    prose = re.sub(
        r"<!-- .*?<!-- end of \w+ -->|^\[\^.*?$|```.*?```|`[^`\n]+`",
        "",
        path.read_text(),
        flags=re.DOTALL | re.MULTILINE,
    )
    assert set(re.findall(r"\b[0-9a-f]{16}\b", prose)) <= BESIDE


@pytest.mark.parametrize("name", ["findings", "findings-low-rate"])
def test_no_number_in_the_findings_is_without_its_records(name):
    """But for rates, shares and claims, which are no scores: these are listed here."""
    text, store = (ROOT / f"docs/{name}.md").read_text(), Store(ROOT / "reports", create=False)
    for start, end in quoted.edits(text, store):
        text = text[:start] + "#" * (end - start) + text[end:]
    prose = re.sub(r"<!-- .*?<!-- end of \w+ -->|^\[\^.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"-?\d+\.\d+", prose)) <= NOT_SCORES
