"""What `bench export ID --format pt2` wrote, used without SlimBench: torch is enough."""

import json


def outputs(file, images):
    """Of images (N, C, H, W), values in [0, 1]."""
    import torch

    extra = {"about.json": ""}
    network = torch.export.load(file, extra_files=extra).module()
    about = json.loads(extra["about.json"])
    mean, std = (torch.tensor(json.loads(about[name]))[:, None, None] for name in ("mean", "std"))
    with torch.inference_mode():
        return network((torch.as_tensor(images, dtype=torch.float32) - mean) / std)
