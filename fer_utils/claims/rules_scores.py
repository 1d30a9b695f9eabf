"""Rules about the figures of Chapter 5 that are computed from predictions: scores, AUC, the confusion matrix.

Everything is computed on the thesis's own test set (PublicTest and PrivateTest together), from the epoch with the
best validation accuracy, as a mean over the seeds.
"""

import numpy as np
from scipy import stats

from fer_utils.claims.evidence import number
from fer_utils.claims.rules import Finding, close_call, metric_words, ranked, relative, rule, within
from fer_utils.constants import CLASSES
from fer_utils.words import interval, listed


def over_seeds(values):
    """``", 3 seeds 0.668 to 0.675"``; nothing for one seed."""
    return f", {len(values)} seeds {number(min(values))} to {number(max(values))}" if len(values) > 1 else ""


@rule("The {metric} of {model} on the thesis's test set is {value}, within {tolerance}")
def score(evidence, model, metric, value, tolerance):
    """Judge a figure."""
    ours, low, high, seeds = evidence.score(model, metric)
    if ours is None:
        return Finding(None, note="no test images were predicted")
    return Finding(
        within(ours, value, tolerance),
        f"{metric_words(metric)} {interval(ours, low, high)}{over_seeds(seeds)}",
        ours,
        low,
        high,
        relative(ours, value),
        f"{metric_words(metric)} {number(ours)} is {abs(ours - value):.3f} from {value}",
    )


@rule("Of the four models {model} has the {which} {metric} on the thesis's test set")
def extreme_score(evidence, claim, model, metric, which):
    """Judge which model is first or last by a figure."""
    found = {m: evidence.score(m, metric) for m in claim.models}
    values = {m: score[0] for m, score in found.items()}
    intervals = {m: score[1:3] for m, score in found.items()}
    return ranked(evidence, claim, values, model, which, metric_words(metric), intervals)


@rule("Each of {better} has a higher {metric} on the thesis's test set than each of {worse}")
def all_better(evidence, metric, better, worse):
    """Judge whether one group of models beats another."""
    found = {m: evidence.score(m, metric) for m in [*better, *worse]}
    values = {m: score[0] for m, score in found.items()}
    there = {m: value for m, value in values.items() if value is not None}
    text = ", ".join(f"{evidence.label(m)} {number(value)}" for m, value in there.items())
    if len(there) < len(values):
        return Finding(None, text)
    weakest, strongest = min(better, key=values.get), max(worse, key=values.get)
    close = close_call(found[weakest][1:3], found[strongest][1:3])
    return Finding(
        values[weakest] > values[strongest],
        text + (f" ({evidence.label(weakest)} and {evidence.label(strongest)}{close})" if close else ""),
        note=f"{evidence.label(weakest)} {number(values[weakest])} against "
        f"{evidence.label(strongest)} {number(values[strongest])}",
    )


# ---- ROC curves


@rule(
    "The one-vs-rest AUC of {model} on the thesis's test set is lowest and highest in the classes named, and is "
    "there as stated ({lowest}; {highest}), within {tolerance}"
)
def auc_extremes(evidence, model, lowest, highest, tolerance):
    """Judge the lowest and the highest AUC of a model; ``lowest`` and ``highest`` hold one class each."""
    ours = evidence.auc(model)
    if None in ours.values():
        return Finding(None, note="a class has no test image")
    off, texts = [], []
    for stated, found in ((lowest, min(ours, key=ours.get)), (highest, max(ours, key=ours.get))):
        (name, value), *_ = stated.items()
        texts.append(f"{name} {interval(ours[name], *evidence.auc_interval(model, name))}")
        if found != name:
            off.append(f"{found} ({number(ours[found])}) stands where {name} should")
        if not within(ours[name], value, tolerance):
            off.append(f"{name}: {number(ours[name])} is {abs(ours[name] - value):.3f} from {value}")
    (first, _), *_ = lowest.items()
    stated = lowest | highest
    return Finding(
        not off,
        ", ".join(texts),
        ours[first],
        *evidence.auc_interval(model, first),
        max(relative(ours[name], value) for name, value in stated.items()),
        "; ".join(off),
    )


@rule(
    "In no class is another model's AUC on the thesis's test set higher than that of {model} by more than {tolerance}"
)
def auc_in_every_class(evidence, claim, model, tolerance):
    """Judge whether a model has the best ROC curve in every class."""
    tables = {m: evidence.auc(m) for m in claim.models}
    lacking = [evidence.label(m) for m, table in tables.items() if None in table.values()]
    if lacking:
        return Finding(None, note=f"no AUC of {listed(lacking)} in every class")
    beaten = {}
    for name in CLASSES:
        best = max(tables, key=lambda m: tables[m][name])
        if tables[best][name] - tables[model][name] > tolerance + 1e-9:
            beaten[name] = best
    return Finding(
        not beaten,
        f"{evidence.label(model)} in {len(CLASSES) - len(beaten)} of {len(CLASSES)} classes",
        note="; ".join(
            f"{name}: {evidence.label(m)} {number(tables[m][name])} against {number(tables[model][name])}"
            for name, m in beaten.items()
        ),
    )


@rule("Of the four models {model} has the {which} one-vs-rest AUC, as the mean over the classes, on the {part} images")
def extreme_auc(evidence, claim, model, part, which):
    """Judge which model is first or last by its ROC curves."""
    values = {m: evidence.mean_auc(m, part) for m in claim.models if evidence.results(m)}
    return ranked(evidence, claim, values, model, which, f"mean AUC ({part})")


# ---- the confusion matrix (Fig. 5.8)


@rule(
    "On {per_class} test images of each class (all, where there are fewer), the percentage of {model}'s correct "
    "predictions is as stated in every class, within the binomial half-width of that percentage over {per_class} "
    "images, at a level of {tolerance} for all classes together"
)
def correct_per_class(evidence, model, value, per_class, tolerance):
    """Judge the diagonal of the confusion matrix."""
    percent, n = evidence.confusion(model, per_class)
    ours = {name: float(percent.loc[name, name]) for name in value}
    if not all(np.isfinite(list(ours.values()))):
        return Finding(None, note="a class has no test image")
    z = stats.norm.ppf(1 - tolerance / 2 / len(value))
    reach = {name: z * np.sqrt(v * (100 - v) / per_class) for name, v in value.items()}
    off = [
        f"{name} {ours[name]:.0f} against {v} (give or take {reach[name]:.0f})"
        for name, v in value.items()
        if not within(ours[name], v, reach[name])
    ]
    fewer = [f"{name} only {n[name]} images" for name in value if n[name] < per_class]
    return Finding(
        not off,
        ", ".join(f"{name} {p:.0f}" for name, p in ours.items())
        + f"; mean {np.mean(list(ours.values())):.1f}"
        + (f" ({', '.join(fewer)})" if fewer else ""),
        difference=max(abs(ours[name] - v) / 100 for name, v in value.items()),
        note="; ".join(off),
    )


def pair_words(pair):
    """``"fear/sad"``."""
    return "/".join(sorted(pair))


@rule(
    "On the same sample, {pairs} are among the {within} pairs of classes that are confused {which} often (by the mean "
    "of both directions), and one direction of each is {value}%, within {tolerance} points"
)
def confused(evidence, model, pairs, which, within, value, per_class, tolerance):
    """Judge which classes are confused most or least; which is taken for which the thesis does not say.

    Parameters
    ----------
    pairs : list of [str, str]
        Classes.
    which : {"most", "least"}
    within : int
        How many of the 21 pairs count as those confused most or least.
    value : float
        Percent.
    per_class : int
        Images a class in the sample.
    tolerance : float
        Percentage points.
    """
    percent, _ = evidence.confusion(model, per_class)
    if percent.isna().any(axis=None):
        return Finding(None, note="a class has no test image")
    cells = {
        frozenset((a, b)): (float(percent.loc[a, b]), float(percent.loc[b, a]))
        for i, a in enumerate(CLASSES)
        for b in CLASSES[i + 1 :]
    }
    means = {pair: np.mean(both) for pair, both in cells.items()}
    order = sorted(means, key=means.get, reverse=which == "most")
    last = means[order[within - 1]]
    named = [frozenset(pair) for pair in pairs]
    nearest = {pair: min(cells[pair], key=lambda cell: abs(cell - value)) for pair in named}
    off = [
        f"{pair_words(pair)} ({means[pair]:.1f}%) is not among the {within} confused {which}, which end at {last:.1f}% "
        f"and begin with {pair_words(order[0])} ({means[order[0]]:.1f}%)"
        for pair in named
        if (means[pair] < last if which == "most" else means[pair] > last)
    ]
    off += [f"{pair_words(p)} {nearest[p]:.0f} against {value}" for p in named if abs(nearest[p] - value) > tolerance]
    return Finding(
        not off,
        ", ".join(f"{pair_words(pair)} {nearest[pair]:.0f}" for pair in named),
        nearest[named[0]],
        difference=max(abs(nearest[pair] - value) / 100 for pair in named),
        note="; ".join(off),
    )


# ---- the two kinds of precision and recall


@rule(
    "Counted at a probability threshold of 0.5, precision exceeds recall by {low} to {high}, within {tolerance} of "
    "either end, while arg-max predictions of the same probabilities, pooled, have one value for both (their "
    "accuracy), which lies between: the threshold makes the gap"
)
def threshold_effect(evidence, model, low, high, tolerance):
    """Test the explanation of claim F25."""
    values = {name: evidence.score(model, name)[0] for name in ("precision", "recall", "accuracy")}
    macro = {name: evidence.score(model, f"macro_{name}")[0] for name in ("precision", "recall")}
    if None in values.values():
        return Finding(None, note="no test images were predicted")
    gap = values["precision"] - values["recall"]
    outside = max(low - gap, gap - high, 0)
    return Finding(
        within(outside, 0, tolerance) and values["recall"] < values["accuracy"] < values["precision"],
        f"at threshold 0.5 precision {number(values['precision'])}, recall {number(values['recall'])}; arg-max "
        f"pooled {number(values['accuracy'])} both, macro {number(macro['precision'])}, {number(macro['recall'])}",
        values["precision"],
        difference=outside / low,
        note=f"precision exceeds recall by {gap:.3f} at the threshold, with the accuracy {number(values['accuracy'])}",
    )
