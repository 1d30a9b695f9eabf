"""Run folders planted by the tests, in the layout that the model notebooks leave, without training anything."""

import dataclasses
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS, USAGES
from fer_utils.files import read_json, write_json
from fer_utils.findings.results import read_training
from fer_utils.metrics import METRICS, scores

LABELS = {
    "traditional_cnn": "Traditional CNN",
    "resnet50": "ResNet-50",
    "vgg16": "VGG-16",
    "mobilenet_v3": "MobileNet-V3",
    "resnet50_scratch": "ResNet-50 (scratch)",
    "mobilenet_v1": "MobileNet-V1",
}
NO_WEIGHTS = {"requested": "none", "used": "none", "sha256": None, "reason": None}
PREFIXES = {"": "train", "val_": "validation", "public_": "public", "private_": "private", "test_": "test"}
PARTS = {"train": USAGES[:1], "public": USAGES[1:2], "private": USAGES[2:], "test": USAGES[1:]}


def planted_predictions(n=700, skill=2.0, seed=0):
    """Random labels and probabilities; the greater the skill, the more often the true class comes first."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % len(CLASSES)
    usage = np.asarray(USAGES)[rng.permutation(n) % len(USAGES)]
    logits = rng.normal(size=(n, len(CLASSES)))
    logits[np.arange(n), label] += skill
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [f"{u}/{CLASSES[k]}/{u}_{i}.jpg" for i, (u, k) in enumerate(zip(usage, label, strict=True))]
    table = pd.DataFrame({"id": ids, "usage": usage, "label": label.astype("int8")})
    table[list(PROBABILITY_COLUMNS)] = proba.astype("float32")
    return table


def planted_history(epochs=10, final=None):
    """Curves that approach the values given in `final` (a dict of column to value); 0.5 where none is given."""
    epoch = np.arange(1, epochs + 1)
    columns = {"epoch": epoch, "learning_rate": np.full(epochs, 0.001)}
    for prefix in PREFIXES:
        for name in METRICS:
            end = (final or {}).get(prefix + name, 1.0 if name == "loss" else 0.5)
            start = end + 0.5 if name == "loss" else end / 2
            columns[prefix + name] = end + (start - end) * np.exp(-epoch)
    return pd.DataFrame(columns)


@cache
def scores_of(label, proba, dtype):
    """Scores from the bytes of labels and probabilities, which many tests plant alike: most of a planting's time."""
    return scores(np.frombuffer(label, dtype=int), np.frombuffer(proba, dtype).reshape(-1, len(CLASSES)))


def planted_metrics(predictions, protocol="sound", epoch=3):
    """``metrics.json`` computed from predictions; best and last epoch alike."""
    proba = predictions[list(PROBABILITY_COLUMNS)].to_numpy()
    label = predictions["label"].to_numpy().astype(int)
    out = {"epoch": epoch}
    for part, usages in PARTS.items():
        rows = predictions["usage"].isin(usages).to_numpy()
        out[part] = scores_of(label[rows].tobytes(), proba[rows].tobytes(), proba.dtype.str)
    out["validation"] = out["public" if protocol == "sound" else "test"]
    return {"best": out, "last": out}


def planted_record(model="resnet50", seed=0, **changes):
    """``run.json`` of a `paper` run on the known data; keyword arguments replace top-level entries."""
    record = {
        "model": model, "seed": seed, "label": LABELS.get(model, model), "notebook": f"{model}.ipynb",
        "profile": "paper", "protocol": "sound", "shortened": False, "synthetic": False, "warnings": [],
        "data": {
            "source": "fer2013.zip", "variant": "fer2013-kaggle-jpeg", "known": True, "decoder": "planted",
            "description": "planted by a test", "fingerprint": "0" * 64, "n_images": 700,
        },
        "split": {
            "train": 234, "public": 233, "private": 233, "images_per_class": 0, "test_images_per_class": 0,
        },
        "weights": {"requested": "imagenet", "used": "imagenet", "sha256": "0" * 64, "reason": None},
        "parameters": {
            "epochs": 45, "batch_size": 64, "learning_rate": 0.001, "optimizer": "Adam",
            "loss": "CategoricalCrossentropy", "image_size": 48,
        },
        "augmentation": {"rotation": 10, "horizontal_flip": True},
        "device": {"kind": "CPU", "name": "planted", "threads": 2},
        "precision": "mixed_bfloat16",
        "versions": {"python": "3.11", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2"},
        "git": {"commit": "0" * 40, "dirty": False},
        "times": {
            "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T01:00:00Z",
            "train_seconds": 3500.0, "seconds_per_epoch": 78.0, "evaluate_seconds": 60.0,
        },
        "memory": {"peak_rss_mb": 2000.0, "gpu_peak_mb": None},
        "epochs": {"requested": 45, "run": 45, "best": 3},
    }  # fmt: skip
    if model in ("traditional_cnn", "vgg16"):
        record["weights"] = dict(NO_WEIGHTS)
    return record | changes


def plant_model(folder, model="resnet50", seed=0, predictions=None, history=None, record=None):
    """Write one training's files below a run folder; returns its folder."""
    record = record or planted_record(model, seed)
    predictions = planted_predictions(seed=seed) if predictions is None else predictions
    history = planted_history() if history is None else history
    target = Path(folder) / model / f"seed-{seed}"
    target.mkdir(parents=True, exist_ok=True)
    history.to_csv(target / "history.csv", index=False)
    predictions.to_parquet(target / "predictions.parquet", index=False)
    metrics = planted_metrics(predictions, record["protocol"])
    for name, content in (("metrics", metrics), ("run", record), ("architecture", {})):
        write_json(target / f"{name}.json", content, durable=False)
    (target / "summary.txt").write_text("Model: planted\n")
    return target


def plant_run(folder, models=("traditional_cnn", "resnet50", "vgg16", "mobilenet_v3"), seeds=(0,), **record):
    """Write a whole run folder with a plan; keyword arguments replace entries of each ``run.json``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for (number, model), seed in product(enumerate(models), seeds):
        predictions = planted_predictions(skill=1.0 + 0.4 * number, seed=seed)
        plant_model(folder, model, seed, predictions, record=planted_record(model, seed, **record))
        entries.append({"model": model, "seed": seed, "label": LABELS.get(model, model), "estimate": 4000.0})
    plan = {"profile": "paper", "data": "fer2013.zip", "protocol": "sound", "models": entries}
    plan["created"] = "2025-12-31T23:59:59Z"  # a second before the planted trainings began
    write_json(folder / "plan.json", plan, durable=False)
    return folder


#: ``dataset.json`` of a small copy.
DATASET = {
    "source": "fer2013.zip",
    "fingerprint": {
        "variant": "fer2013-kaggle-jpeg", "known": True, "description": "All images match.", "decoder": "planted",
        "counts": {"Training": {"angry": 5, "sad": 3}, "PublicTest": {"angry": 2}, "PrivateTest": {"sad": 4}},
        "n_images": 14,
    },
    "audit": {"n_test_in_train": 568, "n_near_constant": 13, "n_conflicting_images": 160},
}  # fmt: skip


def edit_json(path, **changes):
    """Replace top-level entries of a JSON file."""
    write_json(path, read_json(path) | changes, durable=False)


def change_plan(folder, **changes):
    edit_json(folder / "plan.json", **changes)
    return folder


def read_model(folder):
    """Read the finished training in ``<run>/<model>/seed-<n>``."""
    found = read_training(folder, folder.parent.name, int(folder.name.removeprefix("seed-")))
    assert found.finished, found.failure
    return found


def changed(result, **tables):
    """Copy a ModelResult with other tables (``predictions``, ``history`` ...) than those in its folder."""
    copy = dataclasses.replace(result)
    vars(copy).update(tables)
    return copy
