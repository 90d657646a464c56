"""Two hidden layers of 300 and 100 neurons, LeNet-300-100 of the pruning literature: the fastest network there is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """(N, C, size, size) -> (N, classes)."""

    def __init__(self, channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * size * size, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))
