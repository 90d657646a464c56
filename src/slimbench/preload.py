"""What the fork server does once, so that each worker, a fork of it, starts in a tenth of a second.

The first export and the first count of a process cost seconds of imports inside torch; here they are paid for once.
Nothing may ask for CUDA meanwhile: PyTorch then refuses it to every fork.
"""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from unittest import mock

import sklearn.datasets  # noqa: F401  heavy, and wanted by many cells
import torch
import torch_pruning  # noqa: F401  likewise

from slimbench import artifact, cost, environment, worker

__all__ = ["worker"]

for _number in worker.SENT_TO_ALL:  # the server ends with its runner
    signal.signal(_number, signal.SIG_IGN)
environment.commit()  # what the modules are of that a fork has, whatever is edited meanwhile
torch.set_num_threads(1)  # a thread pool would not survive the fork
_network, _example = torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)
with mock.patch("torch.cuda.is_available", return_value=False), tempfile.TemporaryDirectory() as _folder:
    cost.count(_network, _example)
    artifact.save(_network, _example, Path(_folder) / "warm")
    artifact.load(Path(_folder) / "warm")
    artifact.load_weights(Path(_folder) / "warm")
