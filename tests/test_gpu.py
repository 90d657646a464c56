"""The same promises on a CUDA device: training resumes to the same bits, networks reload and compute the same."""

from __future__ import annotations

import pytest
import torch

from conftest import fakes
from runs import PLUGINS
from slimbench import artifact, identity, seeding, train
from slimbench.compress import compress
from slimbench.core import Arm, Budget, Cell, Settings, Suite
from slimbench.hardware_profiles import cuda
from slimbench.methods.dass import DASS, SparseScores
from slimbench.methods.dcss import DCSS
from slimbench.methods.dense import Dense
from slimbench.methods.etpf import ETPF
from slimbench.methods.gpp import GPP
from slimbench.methods.l1_channels import L1Channels
from slimbench.methods.resconv import ResConv, ResConvFromScratch
from slimbench.progress import PlainView
from slimbench.run import Options, run
from slimbench.tasks.photos import Photos
from slimbench.tasks.texture_digits import TextureDigits
from slimbench.train import Loop
from zoo import relative

pytestmark = pytest.mark.gpu
TASK = fakes.Stripes("resnet14")
CUDA = Settings("bf16", "cuda")


@pytest.mark.parametrize(
    "method",
    [
        L1Channels(),
        ResConv(),
        ResConvFromScratch(variant="R1"),
        DCSS(),
        ETPF(),
        ETPF("sum(abs(P - mX))"),
        GPP(),
        GPP(push="eigen"),
        SparseScores(),
        DASS("dass-99", 4, 3),
        DASS(channels=4, cells=3, search_channels=4, search_cells=3, unrolled=True),
    ],
    ids=identity.label,
)
def test_a_cell_runs_and_ends_in_a_network_for_any_device(store, method):
    """Trained on the GPU, stored for the CPU, the same outputs on both."""
    dense = Cell(TASK, Dense(), Budget(1.0), 0, CUDA)
    assert compress(dense, store).status == "ok"
    resource = "prunable_nonzero" if method.card.granularity == "weight" else "macs"
    record = compress(Cell(TASK, method, Budget(0.5, resource, epochs=2), 0, CUDA, dense), store)
    assert (record.status, record.reason) == ("ok", "")
    program = artifact.load(store.artifact(record.id)).module()
    inputs = torch.randn(32, 1, 8, 8)
    with torch.inference_mode():
        expected, found = program(inputs), program.to("cuda")(inputs.cuda()).cpu()
    assert relative(found, expected) < 1e-3


@pytest.mark.parametrize("task", [TextureDigits(), Photos()], ids=["segmentation", "super resolution"])
def test_batches_and_losses_of_every_family_are_the_devices(task):
    """Windows and patches are gathered there, and equal those of the CPU."""
    model = task.build().cuda().eval()
    rng = (seeding.generator(0, "batch") for _ in range(2))
    indices = torch.arange(4)
    inputs, targets = task.batch("train", indices.cuda(), next(rng))
    expected, labels = task.batch("train", indices, next(rng))
    torch.testing.assert_close(inputs.cpu(), expected)
    torch.testing.assert_close(targets.cpu(), labels)
    assert task.loss(model(inputs), targets).isfinite()
    scores = task.evaluate(model, "val")
    found = task.evaluate(model.cpu(), "val")
    for name, score in scores.items():
        assert score.value == pytest.approx(found[name].value, rel=1e-2)


def test_training_resumes_on_the_gpu(tmp_path, monkeypatch):
    """From a checkpoint taken in the middle."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)

    class Killed(BaseException):
        pass

    def dies(step):
        if step.index == 4:
            raise Killed

    def fit(work, hook=None):
        with seeding.seeded(0):
            return Loop(TASK, 0, Settings("fp32", "cuda"), 9.0, work).fit(TASK.build(), 2, name="fit", after_step=hook)

    straight = fit(None)
    with pytest.raises(Killed):
        fit(tmp_path, dies)
    resumed = fit(tmp_path)
    for one, two in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two)


def test_memory_of_training_is_the_devices(tmp_path):
    """Allocated bytes, not the process's resident ones."""
    loop = Loop(TASK, 0, CUDA, 9.0)
    loop.watch_memory()
    rest = torch.cuda.memory_allocated()
    loop.fit(TASK.build(), 1, name="fit")
    assert loop.spent.peak_bytes >= torch.cuda.max_memory_allocated()
    assert loop.spent.added_bytes == torch.cuda.max_memory_allocated() - rest > 0


@pytest.mark.parametrize("mode", ["eager", "graph", "compile"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_the_gpu_measures_stored_networks(tmp_path, mode, precision):
    """Every way of running, at level quick: allocated and reserved memory, and what NVML says."""
    for name, depth in (("dense", 14), ("compressed", 8)):
        task = fakes.Stripes(f"resnet{depth}")
        artifact.save(task.build(), task.example(), tmp_path / name)
    profile = cuda.CUDA(mode, precision, batch=4)
    assert profile.unavailable() is None
    taken = profile.measure(tmp_path / "compressed", tmp_path / "dense", "quick")
    assert (taken.samples, taken.input_shape) == (30, (4, 1, 8, 8))
    assert 0 < taken.p50_ms <= taken.p90_ms
    assert taken.device["name"] == torch.cuda.get_device_name()
    assert taken.peak_bytes is None or 0 < taken.peak_bytes <= taken.reserved_bytes


def test_a_run_compresses_and_measures_on_the_gpu(store):
    """Through the runner and its worker processes, two of which share the device."""
    suite = Suite("gpu", "", (TASK,), Dense(), (Arm((L1Channels(),), (Budget(0.5, epochs=1),)),), (0,), (cuda.CUDA(),))
    outcome = run(suite, CUDA, Options(jobs=2, plugins=PLUGINS), store, PlainView())
    assert outcome.failed == 0
    assert [record.status for record in store.records()] == ["ok", "ok"]
    assert [timing.status for timing in store.timings()] == ["ok", "ok"]
