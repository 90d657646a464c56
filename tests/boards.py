"""What a board's agent answers, for the tests of what is made of it."""

from __future__ import annotations

from slimbench.hardware_profiles import _onnx


def sample(ms: float, count: int = 9) -> list[float]:
    return [ms] * count


MACHINE = {
    "cpu": "Board 3, Chip 7",
    "cores": 4,
    "memory_gib": 1,
    "system": "Linux aarch64",
    "versions": {"python": "3.9.2", "numpy": "1.26.4", "onnxruntime": "1.20.0"},
}


def session(dense=4.0, again=4.0, compressed=2.0, **more):
    """What a process of the agent prints, on an idle machine."""
    samples = {"dense": sample(dense), "again": sample(again), "compressed": sample(compressed)}
    quiet = {"busy_cores": 0.5, "load_average": [1.0, 2.0], "clock_mhz": [None, None]}
    return {"samples": samples} | quiet | more


ANSWER = {"machine": MACHINE, "peak": {"dense": 200, "compressed": 100}, "session": {"0": session()}, "failed": []}
REQUEST = {"threads": 2, "shape": [8, 3, 4, 4], "sessions": 1, "rounds": 9, "warm_s": [0, 0]}
REQUEST["bytes"] = {"dense": 20, "compressed": 10}


def failure(what="peak", which="dense", code=1, said=""):
    return {"what": what, "which": which, "code": code, "said": said}


def planted(monkeypatch, code: str) -> None:
    """An agent that does something else."""

    def package(artifact, reference, folder, level, *, threads, batch):
        (folder / "agent.py").write_text(code)
        return REQUEST

    monkeypatch.setattr(_onnx, "package", package)
