"""Claims about the learning curves of Figures 5.2 to 5.7.

The thesis's "validation" is its 20% test set: the history's ``test_`` columns. A level is the mean of the last fifth
of the epochs.
"""

import numpy as np

from fer_utils.claims.checks import NO, YES, Check, by_level, check, close, fact, falls_below, first_of, judges, settles
from fer_utils.claims.evidence import TAIL, number, tail


@check
def keeps_falling(e, model, column):
    """The mean of each fifth of the epochs is below that of the fifth before."""
    fifths = np.mean([[part.mean() for part in np.array_split(c, TAIL)] for c in e.curves(model, column)], axis=0)
    text = f"{column} by fifths of the epochs {', '.join(number(x) for x in fifths)}"
    return fact(bool((np.diff(fifths) < 0).all()), text)


def settling_epoch(values, tolerance):
    """First epoch (from 1) from which a curve stays within a tolerance of its level; None if the last is outside."""
    outside = np.flatnonzero(~(np.abs(values - tail(values).mean()) <= tolerance))
    if not len(outside):
        return 1
    return int(outside[-1]) + 2 if outside[-1] + 1 < len(values) else None


@check
def settles_at(e, model, column, epoch, within, tolerance):
    """A curve stays near its level from about the stated epoch on."""
    found = [settling_epoch(curve, tolerance) for curve in e.curves(model, column)]
    if None in found:
        return fact(False, "validation loss does not settle")
    ours = float(np.mean(found))
    return fact(
        abs(ours - epoch) <= within,
        f"validation loss settles at epoch {ours:.0f}",
        difference=abs(ours - epoch) / epoch,
    )


@check
def apart(e, model, column, tolerance):
    """Validation and training curve settle further apart than the tolerance."""
    gap = e.level(model, f"test_{column}") - e.level(model, column)
    low, high = gap.interval(0.90)
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    outcome = YES if nearest > tolerance else NO if max(abs(low), abs(high)) < tolerance else "open"
    text = f"validation less training {column} {gap.value:+.3f}"
    return Check(outcome, text, text)


@judges("F08")
def accuracy_of_resnet(e, claim):
    """Training accuracy exceeds 0.7 in some epoch, and validation accuracy settles near 0.68."""
    return [
        settles(e, "resnet50", "test_accuracy", *[claim.stated["level"]] * 2, claim.tolerances["curve"]),
        passes(e, "resnet50", "accuracy", claim.stated["passes"]),
    ]


@check
def passes(e, model, column, value):
    """A curve exceeds a value in some epoch (mean of the seeds' highest)."""
    highest = float(np.mean([np.nanmax(curve) for curve in e.curves(model, column)]))
    return fact(highest > value, f"highest training {column} {number(highest)}")


@judges("F09", "F11")
def falling_loss(e, claim):
    """Training loss falls in each fifth of the epochs and ends below validation loss, which settles near epoch 20."""
    (model,) = claim.models
    return [
        settles_at(
            e, model, "test_loss", claim.stated["epoch"], claim.tolerances["epochs"], claim.tolerances["settled_loss"]
        ),
        keeps_falling(e, model, "loss"),
        falls_below(e, model, "loss", "test_loss"),
    ]


@judges("F10")
def loss_of_vgg(e, claim):
    """Both losses settle near 1.2 and close together, validation below training."""
    return [
        *both_settle(e, "vgg16", "loss", claim, "loss_curve"),
        close(e, "vgg16", "loss", claim.tolerances["close_loss"]),
        falls_below(e, "vgg16", "test_loss", "loss"),
    ]


@judges("F12")
def loss_of_resnet(e, claim):
    """Both losses settle near 1.0 and close together."""
    return [
        *both_settle(e, "resnet50", "loss", claim, "loss_curve"),
        close(e, "resnet50", "loss", claim.tolerances["close_loss"]),
    ]


def both_settle(e, model, column, claim, tolerance):
    """Validation and training curve settle in the stated range (or at the stated level)."""
    level = claim.stated["level"]
    low, high = level if isinstance(level, list) else (level, level)
    return [settles(e, model, name, low, high, claim.tolerances[tolerance]) for name in (f"test_{column}", column)]


@judges("F18")
def precision_of_cnn(e, claim):
    """Validation precision settles near 0.7, and training and validation precision differ."""
    level = claim.stated["level"]
    return [
        settles(e, "traditional_cnn", "test_precision", level, level, claim.tolerances["rough_curve"]),
        apart(e, "traditional_cnn", "precision", claim.tolerances["close_curve"]),
    ]


@judges("F19")
def precision_of_vgg(e, claim):
    """Both precisions settle between 0.7 and 0.75, close together, with the smallest gap of the four models."""

    def gap(model):
        difference = e.level(model, "test_precision") - e.level(model, "precision")
        return type(difference)(abs(difference.value), np.abs(difference.draws), ())

    return [
        *both_settle(e, "vgg16", "precision", claim, "curve_range"),
        close(e, "vgg16", "precision", claim.tolerances["close_curve"]),
        first_of(e, "vgg16", claim.models[1:], gap, "gap of precision", highest=False),
    ]


@judges("F20")
def precision_of_mobilenet(e, claim):
    """Training precision settles near 0.8, validation precision near 0.7."""
    return [
        settles(e, "mobilenet_v3", column, level, level, claim.tolerances["rough_curve"])
        for column, level in claim.stated.items()
    ]


@judges("F21")
def precision_of_resnet(e, claim):
    """Both precisions settle between 0.7 and 0.75, close together."""
    return [
        *both_settle(e, "resnet50", "precision", claim, "curve_range"),
        close(e, "resnet50", "precision", claim.tolerances["close_curve"]),
    ]


@judges("F22")
def recall_of_cnn(e, claim):
    """Both recalls settle near 0.6, close together, validation below training."""
    return [
        *both_settle(e, "traditional_cnn", "recall", claim, "rough_curve"),
        falls_below(e, "traditional_cnn", "test_recall", "recall"),
        close(e, "traditional_cnn", "recall", claim.tolerances["close_curve"]),
    ]


@judges("F23")
def recall_of_vgg(e, claim):
    """Validation recall settles near 0.4, and exceeds training recall by more than both levels can be misread."""
    level = claim.stated["level"]
    return [
        settles(e, "vgg16", "test_recall", level, level, claim.tolerances["rough_curve"]),
        falls_below(e, "vgg16", "recall", "test_recall"),
        apart(e, "vgg16", "recall", claim.tolerances["apart"]),
    ]


@judges("F24")
def recall_of_mobilenet_and_resnet(e, claim):
    """Of both models both recalls settle near 0.6, with a minimal disparity between training and validation."""
    return [
        part
        for model in claim.models
        for part in (
            *both_settle(e, model, "recall", claim, "rough_curve"),
            close(e, model, "recall", claim.tolerances["close_curve"]),
        )
    ]


@judges("F25")
def precision_beside_low_recall(e, claim):
    """VGG-16's precision settles between 0.7 and 0.75 beside a recall near 0.4, as a threshold of 0.5 makes them.

    Counted above 0.5, precision exceeds recall by as much, while arg-max predictions, pooled, have one value for both,
    their accuracy, which lies between.
    """
    low, high = claim.stated["precision"]
    recall = claim.stated["recall"]
    return [
        settles(e, "vgg16", "test_precision", low, high, claim.tolerances["curve_range"]),
        settles(e, "vgg16", "test_recall", recall, recall, claim.tolerances["rough_curve"]),
        threshold_gap(e, low - recall, high - recall, claim.tolerances["threshold_gap"]),
    ]


@check
def threshold_gap(e, low, high, tolerance):
    """Precision and recall above 0.5 lie on either side of the accuracy, as far apart as stated."""
    values = {name: e.score("vgg16", name).value for name in ("precision", "recall", "accuracy")}
    gap = values["precision"] - values["recall"]
    text = ", ".join(f"{name} {number(value)}" for name, value in values.items())
    return fact(
        low - tolerance - 1e-9 <= gap <= high + tolerance + 1e-9
        and values["recall"] < values["accuracy"] < values["precision"],
        f"kept epoch: above 0.5 {text} (arg-max)",
        f"above a threshold of 0.5 precision exceeds recall by {gap:.3f}; accuracy {number(values['accuracy'])}",
    )


@judges("F26")
def f1_of_resnet(e, claim):
    """ResNet-50's validation F1 settles highest of the four models, and close to its training F1."""
    return [
        first_of(e, "resnet50", claim.models[1:], by_level(e, "test_f1"), "validation F1"),
        close(e, "resnet50", "f1", claim.tolerances["close_curve"]),
    ]


@judges("F32")
def resnet_is_best_by_curves(e, claim):
    """ResNet-50 settles at the lowest validation loss and the highest validation accuracy and F1; its losses are close."""
    others = claim.models[1:]
    return [
        first_of(e, "resnet50", others, by_level(e, "test_loss"), "validation loss", highest=False),
        first_of(e, "resnet50", others, by_level(e, "test_accuracy"), "validation accuracy"),
        first_of(e, "resnet50", others, by_level(e, "test_f1"), "validation F1"),
        close(e, "resnet50", "loss", claim.tolerances["close_loss"]),
    ]
