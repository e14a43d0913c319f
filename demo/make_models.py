"""Trains the demo's two networks on real smartwatch data and writes demo/models/.

Needs its own virtual environment (see demo/models/README.md); nothing else in the repository imports this file or what
it needs. The data set is `load_watch` of the seglearn wheel: 140 series of shoulder exercises, 10 people, 6 channels
at 50 Hz (D. M. Burns et al., "Shoulder physiotherapy exercise recognition", arXiv:1802.01489).

    python demo/make_models.py            # about three minutes on two cores
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from seglearn.datasets import load_watch

MODELS = Path(__file__).parent / "models"
WINDOW = 100  # samples: two seconds at 50 Hz
STEP = 25
# By person, so that no one is both learnt from and judged on.
FIRST_PEOPLE = (1, 2, 3, 4, 5)
MORE_PEOPLE = (6, 7)
EVALUATION_PEOPLE = (8, 9, 10)
EVALUATION_PER_CLASS = 45
CALIBRATION_PER_CLASS = 16
# The stored inputs are rounded to this grid: finer than the int8 input's own step, and half the file.
GRID = 1 / 32

Windows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def windows_of(watch: dict[str, object], people: Iterable[int]) -> tuple[Windows, Labels]:
    """Raw windows of these people, shape (n, 6, 1, 100) in g and rad/s, and their exercise numbers."""
    windows, labels = [], []
    for series, label, person in zip(watch["X"], watch["y"], watch["subject"], strict=True):  # type: ignore[call-overload]
        if person in set(people):
            for start in range(0, len(series) - WINDOW + 1, STEP):
                windows.append(series[start : start + WINDOW].T[:, None, :])
                labels.append(label)
    return np.asarray(windows, np.float32), np.asarray(labels, np.int64)


def network() -> torch.nn.Sequential:
    """A 1-D CNN written as 2-D convolutions of height 1, unpadded: padding would cost PAD operators and arena."""

    def block(inputs: int, outputs: int, width: int, stride: int) -> list[torch.nn.Module]:
        convolution = torch.nn.Conv2d(inputs, outputs, (1, width), stride=(1, stride), bias=False)
        return [convolution, torch.nn.BatchNorm2d(outputs), torch.nn.ReLU()]

    return torch.nn.Sequential(
        *block(6, 24, 5, 2),
        *block(24, 32, 5, 2),
        *block(32, 48, 3, 2),
        *block(48, 48, 3, 1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(48, 7),
    )


def train(
    model: torch.nn.Sequential, inputs: Windows, labels: Labels, *, epochs: int, rate: float, head_only: bool
) -> None:
    """Adam with one-cycle rate; noise and gain jitter stand for other wrists and straps.

    `head_only` trains the last layer alone, with the features as they are: the update that a radio with a few hundred
    bytes a minute can carry to every node.
    """
    generator = torch.Generator().manual_seed(7)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    learnt = model[-1].parameters() if head_only else model.parameters()
    optimizer = torch.optim.AdamW(learnt, lr=rate, weight_decay=1e-3)
    batch = 128
    steps = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    model.train(not head_only)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for indices in order[: len(x) // batch * batch].split(batch):
            gain = 1 + 0.15 * torch.randn((batch, 6, 1, 1), generator=generator)
            noise = 0.1 * torch.randn((batch, 6, 1, WINDOW), generator=generator)
            loss = torch.nn.functional.cross_entropy(model(x[indices] * gain + noise), y[indices], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"  epoch {epoch + 1}/{epochs}: loss {loss.item():.3f}", flush=True)
    model.eval()


def accuracy(model: torch.nn.Module, inputs: Windows, labels: Labels) -> float:
    with torch.no_grad():
        return float((model(torch.from_numpy(inputs)).argmax(1).numpy() == labels).mean())


def balanced(inputs: Windows, labels: Labels, per_class: int, seed: int) -> tuple[Windows, Labels]:
    random = np.random.default_rng(seed)
    chosen = np.concatenate([random.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in range(7)])
    random.shuffle(chosen)
    return inputs[chosen], labels[chosen]


def save_arrays(path: Path, inputs: Windows, labels: Labels) -> None:
    np.savez_compressed(path, inputs=inputs.astype(np.float16), labels=labels.astype(np.uint8))


def export(model: torch.nn.Module, path: Path) -> None:
    with_scores = torch.nn.Sequential(model, torch.nn.Softmax(dim=1)).eval()
    torch.onnx.export(
        with_scores,
        (torch.zeros(1, 6, 1, WINDOW),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["window"],
        output_names=["scores"],
    )
    exported = onnx.load(str(path))
    exported.doc_string = ""
    onnx.save(exported, str(path))


def save_unsupported(path: Path, model: torch.nn.Sequential) -> None:
    """A variant that keeps only the time steps with much movement: how many depends on the data (NonZero), so neither
    its memory nor its time has a bound, and the pipeline must refuse it."""
    weights = {
        "threshold": np.asarray(1.0, np.float32),
        "spread": model[-1].weight.detach().numpy()[:, :6].T.copy(),
        "bias": model[-1].bias.detach().numpy(),
        "steps_shape": np.asarray([6, -1], np.int64),
        "flat": np.asarray([-1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["window", "steps_shape"], ["steps"], "steps"),
        helper.make_node("Abs", ["steps"], ["size"], "size"),
        helper.make_node("ReduceMax", ["size"], ["largest"], "largest", axes=[0], keepdims=0),
        helper.make_node("Greater", ["largest", "threshold"], ["moving"], "moving"),
        helper.make_node("NonZero", ["moving"], ["kept_2d"], "keep_moving_steps"),
        helper.make_node("Reshape", ["kept_2d", "flat"], ["kept"], "kept"),
        helper.make_node("Gather", ["steps", "kept"], ["pruned"], "pruned", axis=1),
        helper.make_node("ReduceMean", ["pruned"], ["mean"], "mean", axes=[1], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["row"], "row"),
        helper.make_node("Gemm", ["row", "spread", "bias"], ["logits"], "logits"),
        helper.make_node("Softmax", ["logits"], ["scores"], "scores", axis=1),
    ]
    weights["axis"] = np.asarray([0], np.int64)
    graph = helper.make_graph(
        nodes,
        "imu-pruned",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, [1, 6, 1, WINDOW])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 7])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    unsupported = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(unsupported, full_check=True)
    onnx.save(unsupported, str(path))


def main() -> None:
    torch.manual_seed(7)
    torch.use_deterministic_algorithms(True)
    MODELS.mkdir(exist_ok=True)
    watch = load_watch()
    first_raw, first_labels = windows_of(watch, FIRST_PEOPLE)
    # The preprocessing "imu-standardized-v1": these constants belong to the firmware, for both versions.
    mean, deviation = first_raw.mean((0, 2, 3), keepdims=True), first_raw.std((0, 2, 3), keepdims=True)

    def standardized(raw: Windows) -> Windows:
        return np.asarray(np.round((raw - mean) / deviation / GRID) * GRID, np.float32)

    first = standardized(first_raw)
    all_raw, all_labels = windows_of(watch, FIRST_PEOPLE + MORE_PEOPLE)
    everyone = standardized(all_raw)
    unseen_raw, unseen_labels = windows_of(watch, EVALUATION_PEOPLE)
    unseen = standardized(unseen_raw)
    evaluation, evaluation_labels = balanced(unseen, unseen_labels, EVALUATION_PER_CLASS, seed=1)
    calibration, calibration_labels = balanced(first, first_labels, CALIBRATION_PER_CLASS, seed=2)

    model = network()
    facts: dict[str, object] = {
        "mean": [round(float(v), 6) for v in mean.ravel()],
        "standard_deviation": [round(float(v), 6) for v in deviation.ravel()],
        "classes": list(watch["y_labels"]),
    }
    print("version 1.0")
    train(model, first, first_labels, epochs=30, rate=4e-3, head_only=False)
    export(model, MODELS / "imu-1.0.onnx")
    facts["1.0"] = [accuracy(model, evaluation, evaluation_labels), accuracy(model, unseen, unseen_labels)]
    print("version 1.1")
    train(model, everyone, all_labels, epochs=6, rate=1e-3, head_only=True)
    export(model, MODELS / "imu-1.1.onnx")
    facts["1.1"] = [accuracy(model, evaluation, evaluation_labels), accuracy(model, unseen, unseen_labels)]
    save_unsupported(MODELS / "imu-unsupported.onnx", model)
    save_arrays(MODELS / "imu-calibration.npz", calibration, calibration_labels)
    save_arrays(MODELS / "imu-evaluation.npz", evaluation, evaluation_labels)
    for path in sorted(MODELS.glob("imu-*")):
        print(f"{path.name}: {path.stat().st_size} bytes")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
