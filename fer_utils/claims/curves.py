"""Claims about the learning curves of Figures 5.2 to 5.7.

The thesis's "validation" is its 20% test set: the history's ``test_`` columns. A level is the mean of the last fifth.
"""

import numpy as np

from fer_utils.claims import checks
from fer_utils.claims.checks import check, close, fact, falls_below, first_of, judges, named, settles
from fer_utils.claims.evidence import TAIL, Score, number, tail


def settling_epoch(values, tolerance):
    """First epoch (from 1) from which a curve stays within a tolerance of its level; None if the last is outside."""
    outside = np.flatnonzero(~(np.abs(values - tail(values).mean()) <= tolerance))
    last = int(outside[-1]) + 1 if len(outside) else 0
    return last + 1 if last < len(values) else None


@check
def settles_at(e, model, epoch, within):
    """Validation loss stays near its level from about the stated epoch on."""
    found = [settling_epoch(curve, within["settled_loss"]) for curve in e.curves(model, "test_loss")]
    if None in found:
        return fact(False, "validation loss does not settle")
    off, text = abs(np.mean(found) - epoch), f"validation loss settles at epoch {np.mean(found):.0f}"
    return fact(off <= within["epochs"], text, difference=off / epoch)


@check
def keeps_falling(e, model):
    """Mean training loss of each fifth of the epochs is below that of the fifth before."""
    fifths = np.mean([[part.mean() for part in np.array_split(c, TAIL)] for c in e.curves(model, "loss")], axis=0)
    return fact((np.diff(fifths) < 0).all(), f"training loss by fifths {', '.join(map(number, fifths))}")


@check
def apart(e, model, metric, tolerance):
    """Validation and training curve settle further apart than the tolerance."""
    gap = e.gap(model, metric)
    ends = np.abs(gap.interval(0.90))
    outcome = checks.NO if max(ends) < tolerance else checks.YES if min(ends) > tolerance else checks.OPEN
    text = f"validation less training {metric} {gap.value:+.3f}"
    return checks.Check(outcome, text, text)


@judges("F10", "F12", "F21", "F22", "F24")
def both_settle_close_together(e, c):
    """Training and validation curve settle at the stated level, close together, validation lower where so stated."""
    pair, (level, gap) = (f"test_{c.metric}", c.metric), c.within.values()
    parts = [settles(e, model, column, c.level, level) for model in c.models for column in pair]
    parts += [close(e, model, c.metric, gap) for model in c.models]
    return parts + ([falls_below(e, c.models[0], *pair)] if c.stated.get("lower") == "validation" else [])


@judges("F08")
def accuracy_of_resnet(e, c):
    """Validation accuracy settles at the stated level, and training accuracy exceeds the other value in some epoch."""
    highest = np.mean([np.nanmax(curve) for curve in e.curves("resnet50", "accuracy")])
    passes = fact(highest > c.passes, f"highest training accuracy {number(highest)}")
    return [settles(e, "resnet50", "test_accuracy", c.level, c.within["curve"]), passes]


@judges("F09", "F11")
def loss_keeps_falling(e, c):
    """Training loss falls in each fifth of the epochs and ends below validation loss, which settles near epoch 20."""
    (model,) = c.models
    below = falls_below(e, model, "loss", "test_loss")
    return [settles_at(e, model, c.epoch, c.within), keeps_falling(e, model), below]


@judges("F18", "F23")
def curves_apart(e, c):
    """The validation curve settles at the stated level, apart from the training curve, above it where so stated."""
    (model,), (level, gap), validation = c.models, c.within.values(), f"test_{c.metric}"
    parts = [settles(e, model, validation, c.level, level), apart(e, model, c.metric, gap)]
    return parts + ([falls_below(e, model, c.metric, validation)] if c.stated.get("lower") == "training" else [])


@judges("F19")
def precision_of_vgg(e, c):
    """Both precisions settle in the stated range, close together, with the smallest gap of the four models."""

    def gap(model):
        found = e.gap(model, "precision")
        return Score(abs(found.value), np.abs(found.draws), ())

    names = ("test_precision", "precision")
    return [
        *(settles(e, "vgg16", name, c.level, c.within["curve_range"]) for name in names),
        close(e, "vgg16", "precision", c.within["close_curve"]),
        first_of(e, "vgg16", c.models[1:], gap, "gap of precision", highest=False),
    ]


@judges("F20")
def precision_of_mobilenet(e, c):
    """Training and validation precision settle at the stated levels."""
    return [settles(e, "mobilenet_v3", column, level, c.within["rough_curve"]) for column, level in c.stated.items()]


@judges("F25")
def precision_beside_low_recall(e, c):
    """Precision settles in the stated range beside the stated recall, and a threshold of 0.5 is what parts them.

    Counted above 0.5, precision exceeds recall by as much, while arg-max predictions, pooled, have one value for both,
    their accuracy, which lies between.
    """
    return [
        settles(e, "vgg16", "test_precision", c.precision, c.within["curve_range"]),
        settles(e, "vgg16", "test_recall", c.recall, c.within["rough_curve"]),
        threshold_gap(e, *(end - c.recall for end in c.precision), c.within["threshold_gap"] + checks.EPS),
    ]


@check
def threshold_gap(e, low, high, tolerance):
    """Above 0.5, precision and recall lie on either side of the accuracy, as far apart as stated."""
    precision, recall, accuracy = (e.score("vgg16", name).value for name in ("precision", "recall", "accuracy"))
    text = f"kept epoch, above 0.5: precision {number(precision)}, recall {number(recall)}; accuracy {number(accuracy)}"
    gap = precision - recall
    holds = low - tolerance <= gap <= high + tolerance and recall < accuracy < precision
    return fact(holds, text, f"{text}; {gap:+.3f}")


@judges("F26", "F32")
def resnet_best_by_curves(e, c):
    """ResNet-50's validation curves of the named figures settle best of the four, and one pair of curves is close."""

    def best(name):
        score, words = lambda model: e.level(model, name), named(name)
        return first_of(e, "resnet50", c.models[1:], score, words, highest=name != "test_loss")

    return [*map(best, c.best), close(e, "resnet50", c.close, next(iter(c.within.values())))]
