"""What `bench export ID --format onnx` wrote, used without SlimBench: ONNX Runtime is enough."""

import json

import numpy as np


def outputs(file, images):
    """Of images (N, C, H, W), values in [0, 1]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    mean, std = (np.array(json.loads(about[name]), np.float32)[:, None, None] for name in ("mean", "std"))
    inputs = (np.asarray(images, np.float32) - mean) / std
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def digits():
    """All of scikit-learn's, (1797, 1, 8, 8), and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images[:, None] / 16, data.target
