"""A planted run that is like the thesis's, or as unlike it as a test wants, without any training."""

import copy
from functools import cache

import numpy as np
import pandas as pd
import planted

from fer_utils import metrics
from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS, USAGES
from fer_utils.findings import results

FOUR = ("traditional_cnn", "resnet50", "vgg16", "mobilenet_v3")

#: Images of FER2013 by class, training and test, as Kaggle's listing has them (order of CLASSES).
TRAINING = (3995, 436, 4097, 7215, 4965, 4830, 3171)
TEST = (958, 111, 1024, 1774, 1233, 1247, 831)

#: Fig. 5.8 in percent as far as the thesis gives it; the rest of each row is spread so that nothing else stands out.
CONFUSION = {
    "angry": (60, 3, 9, 5, 10, 10, 3),
    "disgust": (9, 82, 1, 3, 1, 2, 2),
    "fear": (9, 4, 56, 3, 6, 17, 5),
    "happy": (2, 2, 2, 87, 3, 2, 2),
    "neutral": (9, 2, 5, 9, 57, 17, 1),
    "sad": (10, 1, 9, 5, 15, 57, 3),
    "surprise": (4, 2, 7, 5, 2, 2, 78),
}

#: The level at which each of the thesis's curves settles, as its text gives it (training, then validation).
LEVELS = {
    "traditional_cnn": {
        "loss": (0.6, 1.1), "accuracy": (0.75, 0.62), "precision": (0.8, 0.7), "recall": (0.62, 0.59), "f1": (0.7, 0.6),
    },
    "resnet50": {
        "loss": (0.98, 1.02), "accuracy": (0.72, 0.68), "precision": (0.745, 0.715), "recall": (0.61, 0.6),
        "f1": (0.67, 0.66),
    },
    "vgg16": {
        "loss": (1.22, 1.19), "accuracy": (0.55, 0.56), "precision": (0.722, 0.721), "recall": (0.32, 0.4),
        "f1": (0.5, 0.51),
    },
    "mobilenet_v3": {
        "loss": (0.7, 1.1), "accuracy": (0.7, 0.61), "precision": (0.8, 0.7), "recall": (0.62, 0.6), "f1": (0.64, 0.62),
    },
}  # fmt: skip

RANDOM = {"requested": "imagenet", "used": "none", "sha256": None, "reason": "no network (URL)"}


@cache
def names(n):
    """Ids of images."""
    return [f"image-{i}" for i in range(n)]


def table_of(label, proba):
    """Predictions of test images (every other one PublicTest), and the same again as training images."""
    n = len(label)
    usage = np.where(np.arange(n) % 2, "PublicTest", "PrivateTest")
    label, usage = np.tile(label, 2), np.concatenate([usage, np.full(n, "Training")])
    table = pd.DataFrame({"id": names(2 * n), "usage": usage, "label": label.astype("int8")})
    table[list(PROBABILITY_COLUMNS)] = np.tile(proba, (2, 1)).astype("float32")
    return table


def from_confusion(percent=CONFUSION, sure=0.9, counts=TEST):
    """Test images of each class, classified as the matrix says, each with the probability `sure`."""
    label = np.repeat(np.arange(7), counts)
    places = [(np.arange(n) + 0.5) / n * 100 for n in counts]
    rows = [np.searchsorted(np.cumsum(percent[name]), at) for name, at in zip(CLASSES, places, strict=True)]
    proba = np.full((len(label), 7), (1 - sure) / 6)
    proba[np.arange(len(label)), np.concatenate(rows)] = sure
    return table_of(label, proba)


def with_accuracy(percent, sure=0.9, counts=TEST):
    """Test images of which `percent` of each class are right, the others taken for the next class."""
    rows = {name: [0] * 7 for name in CLASSES}
    for k, name in enumerate(CLASSES):
        rows[name][k], rows[name][(k + 1) % 7] = percent, 100 - percent
    if rows["surprise"][0]:  # searchsorted reads a row from its first class on
        rows["surprise"] = [100 - percent, 0, 0, 0, 0, 0, percent]
    return from_confusion(rows, sure, counts)


def with_auc(percent, counts=TEST):
    """`percent` of each class's own images score above all others, the rest below: each AUC is that percentage.

    The rows are no probabilities, which nothing that ranks minds.
    """
    label = np.repeat(np.arange(7), counts)
    proba = np.full((len(label), 7), 0.5)
    for k, n in enumerate(counts):
        proba[label == k, k] = np.where(np.arange(n) < percent[k] / 100 * n, 0.9, 0.1)
    return table_of(label, proba)


def one_class(name="happy"):
    """Every image is taken for one class."""
    return from_confusion({true: [100 * (other == name) for other in CLASSES] for true in CLASSES})


def curves(model, levels=LEVELS):
    """45 epochs: training loss falls to the end, all else settles at its level, validation loss at epoch 20."""
    epoch = np.arange(1, 46)
    final = {}
    for name, (training, validation) in levels[model].items():
        final |= {name: training} | {f"{prefix}_{name}": validation for prefix in ("val", "test", "public", "private")}
    history = planted.planted_history(45, final)
    loss, test_loss = levels[model]["loss"]
    history["loss"] = loss + 0.01 * (41 - epoch)
    # The deviation from the level is above 0.05 up to epoch 19 and below it from epoch 20 on.
    history["test_loss"] = test_loss + np.where(epoch < 20, 0.1 + 0.02 * (20 - epoch), 0.0)
    p, r = history["val_precision"], history["val_recall"]
    history["val_f1"] = 2 * p * r / (p + r)
    history["learning_rate"] = np.where(epoch < 30, 1e-3, 2e-4)
    return history


def layer(kind, name="", parameters=9, trainable=9, **settings):
    """One layer as ``architecture.json`` has it."""
    described = {"name": name or kind.lower(), "class": kind, "settings": settings, "output_shape": [1]}
    return described | {"parameters": parameters, "trainable_parameters": trainable}


SOFTMAX = layer("Dense", units=7, activation="softmax")


def resnet_base(threes=1):
    """ResNet-50's convolutions under Keras's names; `threes` of 3x3 in each block."""
    layers = [layer("Conv2D", "conv1_conv", kernel_size=[7, 7])]
    for stage, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        for block in range(1, blocks + 1):
            kernels = [[1, 1], *[[3, 3]] * threes, [1, 1]]
            if block == 1:
                layers.append(layer("Conv2D", f"conv{stage}_block1_0_conv", kernel_size=[1, 1]))
            layers += [
                layer("Conv2D", f"conv{stage}_block{block}_{i}_conv", kernel_size=kernel)
                for i, kernel in enumerate(kernels, start=1)
            ]
    return layer("Functional", "resnet50", 99) | {"layers": layers}


def architectures():
    """Networks as the thesis describes them."""
    convolution = [layer("Conv2D", activation="relu"), layer("BatchNormalization")]
    mobile = [layer("Conv2D", "conv", trainable=0), layer("Conv2D", "conv_1")]
    relu = {"activation": "relu"}
    hidden = [layer("Dense", units=4096, **relu)] * 2
    layers = {
        "traditional_cnn": [*convolution * 3, layer("MaxPooling2D"), layer("Flatten"), *[layer("Dense")] * 2, SOFTMAX],
        "resnet50": [resnet_base(), *map(layer, ("Conv2D", "MaxPooling2D", "Dense", "Dropout")), SOFTMAX],
        "vgg16": [*[layer("Conv2D", **relu)] * 13, *[layer("MaxPooling2D")] * 5, *hidden, SOFTMAX],
        "mobilenet_v3": [layer("Functional", "MobileNetV3Small", 99) | {"layers": mobile}, SOFTMAX],
    }
    totals = dict(zip(FOUR, (1_800_000, 28_000_000, 33_000_000, 1_000_000), strict=True))
    common = {"name": "planted", "class": "Sequential"}
    return {model: common | {"parameters": {"total": totals[model]}, "layers": layers[model]} for model in FOUR}


def fingerprint(training=TRAINING, test=TEST, **changes):
    """What the dataset notebook writes about the known FER2013."""
    public = [n // 2 for n in test]
    private = [n - half for n, half in zip(test, public, strict=True)]
    counts = {
        usage: dict(zip(CLASSES, map(int, row), strict=True))
        for usage, row in zip(USAGES, (training, public, private), strict=True)
    }
    known = {"variant": "fer2013-kaggle-jpeg", "known": True, "description": "planted by a test.", "decoder": "planted"}
    return known | {"counts": counts, "n_images": int(sum(training) + sum(test))} | changes


#: What the model notebooks choose where the thesis is silent.
AUGMENTATION = {"rotation_range": 10, "horizontal_flip": True}
SHIFTS = {"width_shift_range": 0.1, "height_shift_range": 0.1}


@cache
def areas(y_true, y_proba):
    """Return ``per_class`` of ``metrics.json`` as far as the audit reads it, from the bytes of `select`."""
    y_proba = np.frombuffer(y_proba, dtype=np.float32).reshape(-1, 7)
    found = metrics.class_auc(np.frombuffer(y_true, dtype=np.int64), y_proba)
    return {name: {"auc": value} for name, value in found.items()}


def plant(folder, predictions=None, levels=LEVELS, models=FOUR, seeds=(0,), found=None, files=True, **record):
    """A run like the thesis's; `predictions` maps a model to its table, `found` is the dataset's fingerprint."""
    trained = []
    for model in models:
        base = next(name for name in FOUR if model.startswith(name))
        for seed in seeds:
            history, entry = curves(base, levels), planted.planted_record(model, seed, **copy.deepcopy(record))
            if base in ("traditional_cnn", "vgg16") or model.endswith("_scratch"):
                entry["weights"] = dict(planted.NO_WEIGHTS)
            more = {"resnet50": {}, "mobilenet_v3": SHIFTS}.get(base, SHIFTS | {"zoom_range": 0.1})
            entry["augmentation"] = record.get("augmentation", AUGMENTATION | more)
            entry["epochs"] = {"requested": 45, "run": 45, "best": int(history["val_accuracy"].idxmax()) + 1}
            entry["epochs"] |= record.get("epochs", {})
            entry["precision"] = record.get("precision", "float32")
            target = folder / model / f"seed-{seed}"
            target.mkdir(parents=True)
            for name in ("model.keras", "model.h5", "model.weights.h5") if files else ():
                (target / name).write_bytes(b"")
            table = (predictions or {}).get(model, with_accuracy(60))
            result = results.ModelResult(model, seed, entry["label"], target, entry)
            vars(result).update(history=history, predictions=table.copy(), architecture=architectures()[base])
            y_true, y_proba = result.select("train")
            scores = areas(y_true.tobytes(), y_proba.tobytes())
            vars(result)["metrics"] = {"best": {"train": {"per_class": scores}}}
            trained.append(result)
    plan = {"profile": "paper", "command": "./run_all.sh"}
    return results.Run(folder, plan, {"source": "fer2013.zip", "fingerprint": found or fingerprint()}, trained)
