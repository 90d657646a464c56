"""LeNet-5 in the widths of the pruning literature: 20-50-500."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from slimbench.core import UserError


class LeNet5(nn.Module):
    """(N, C, size, size) -> (N, classes); two 5x5 convolutions without padding, pooled by two each."""

    def __init__(self, channels: int, classes: int, size: int) -> None:
        super().__init__()
        left = ((size - 4) // 2 - 4) // 2
        if left < 1:
            raise UserError(f"lenet5 needs images of at least 16 x 16 pixels, not {size} x {size}: choose a ResNet.")
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * left * left, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))
