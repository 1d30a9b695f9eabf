"""Marks of a verdict: choices of the trainings behind it that differ from the thesis's text, or from this repository's.

Where the thesis is silent, the repository's own choice is unmarked and any other is marked.
"""

import numpy as np

from fer_utils.claims.evidence import settings_that_differ
from fer_utils.constants import CLASSES
from fer_utils.findings.diagrams import flat_layers
from fer_utils.words import listed

SHIFTS = {"width_shift_range": 0.1, "height_shift_range": 0.1}
ZOOM = SHIFTS | {"zoom_range": 0.1}

#: The choices of the model notebooks where the thesis gives no value (dropout rates, schedule, strength of the
#: augmentation); a run with another value is marked. The test suite holds them against the notebooks.
CHOICES = {
    "plateau_factor": 0.2,
    "plateau_patience": 5,
    "plateau_monitor": "val_loss",
    "plateau_min_lr": 1e-6,
    "checkpoint_monitor": "val_accuracy",
    "batch_norm_momentum": 0.0,
    "trained_part": 0.5,
}
DROPOUT = {"traditional_cnn": 0.25, "resnet50": 0.5, "vgg16": 0.5, "mobilenet_v3": 0.3}
AUGMENTATION = {
    "traditional_cnn": {"rotation_range": 10, "horizontal_flip": True} | ZOOM,
    "resnet50": {"rotation_range": 10, "horizontal_flip": True},
    "vgg16": {"rotation_range": 10, "horizontal_flip": True} | ZOOM,
    "mobilenet_v3": {"rotation_range": 10, "horizontal_flip": True} | SHIFTS,
}

#: A training that gives one class to at least this share of the test images has collapsed.
ONE_CLASS = 0.95


def collapsed(result):
    """``"answers happy for every image; 24.7% is that class's share"``; empty unless (nearly) all get one class."""
    y_true, y_proba = result.select("test")
    if not len(y_true):
        return ""
    counts = np.bincount(y_proba.argmax(axis=1))
    name, share = counts.argmax(), counts.max() / len(y_true)
    if share < ONE_CLASS:
        return ""
    often = "every image" if share == 1 else f"{share:.1%} of the images"
    return f"answers {CLASSES[name]} for {often}; {(y_true == name).mean():.1%} is that class's share"


def marks_of(result, model):
    """What is marked on one training, which stands for one of the thesis's models."""
    record, parameters = result.record, result.record["parameters"]
    found = []
    if record["protocol"] == "sound":
        found.append("sound protocol: the epoch is chosen on PublicTest alone")
    if model == "vgg16" and any(layer["class"] == "BatchNormalization" for layer in flat_layers(result.architecture)):
        found.append("batch normalisation, which the thesis does not mention for VGG-16")
    wanted = CHOICES | {"dropout": DROPOUT.get(model)}
    found += [
        f"{name} {parameters[name]} (this repository: {value})"
        for name, value in wanted.items()
        if name in parameters and value is not None and parameters[name] != value
    ]
    if model in AUGMENTATION and {n: record["augmentation"][n] for n in result.augmentation} != AUGMENTATION[model]:
        found.append(f"augmentation {', '.join(result.augmentation.values()) or 'off'}")
    if parameters.get("version", "v3") != "v3":
        found.append(f"MobileNet-{parameters['version'].upper()}")
    if record.get("precision", "float32") != "float32":
        found.append(f"{record['precision']} arithmetic")
    found += settings_that_differ(result) if "shortened" not in result.reasons else []
    return [*found, *filter(None, [collapsed(result)])]


def marks(evidence, models):
    """Marks of all trainings that a claim's models stand for, each once with the models that it holds for."""
    found, behind = {}, [(model, result) for model in models for result in evidence.used(model)]
    for model, result in behind:
        for mark in evidence.once(("marks", result.model, result.seed), lambda r=result, m=model: marks_of(r, m)):
            found.setdefault(mark, []).append(result.label)
    everyone = {result.label for _, result in behind}
    return "; ".join(
        mark if set(names) == everyone else f"{listed(dict.fromkeys(names))}: {mark}" for mark, names in found.items()
    )
