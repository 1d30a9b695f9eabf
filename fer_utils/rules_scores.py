"""Rules about the figures of Chapter 5 that are computed from predictions: scores, AUC, the confusion matrix.

Everything is computed on the thesis's own test set (PublicTest and PrivateTest together), from the epoch with the
best validation accuracy, as a mean over the seeds.
"""

import numpy as np

from fer_utils.constants import CLASSES
from fer_utils.evidence import number
from fer_utils.rules import Finding, metric_words, ranked, relative, rule
from fer_utils.words import listed


def with_interval(value, low, high):
    """``"0.671 [0.660, 0.682]"``."""
    return f"{number(value)} [{number(low)}, {number(high)}]"


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
        abs(ours - value) <= tolerance,
        f"{metric_words(metric)} {with_interval(ours, low, high)}{over_seeds(seeds)}",
        ours,
        low,
        high,
        relative(ours, value),
        f"{metric_words(metric)} {number(ours)} is {abs(ours - value):.3f} from {value}",
    )


@rule("Of the four models {model} has the {which} {metric} on the thesis's test set")
def extreme_score(evidence, claim, model, metric, which):
    """Judge which model is first or last by a figure."""
    values = {m: evidence.score(m, metric)[0] for m in claim.models}
    return ranked(evidence, claim, values, model, which, metric_words(metric))


@rule("Each of {better} has a higher {metric} on the thesis's test set than each of {worse}")
def all_better(evidence, metric, better, worse):
    """Judge whether one group of models beats another."""
    values = {m: evidence.score(m, metric)[0] for m in [*better, *worse]}
    there = {m: value for m, value in values.items() if value is not None}
    text = ", ".join(f"{evidence.label(m)} {number(value)}" for m, value in there.items())
    if len(there) < len(values):
        return Finding(None, text)
    weakest, strongest = min(better, key=values.get), max(worse, key=values.get)
    return Finding(
        values[weakest] > values[strongest],
        text,
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
        texts.append(f"{name} {with_interval(ours[name], *evidence.auc_interval(model, name))}")
        if found != name:
            off.append(f"{found} ({number(ours[found])}) stands where {name} should")
        if abs(ours[name] - value) > tolerance:
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
    tables = {m: evidence.auc(m) for m in claim.models if evidence.results(m)}
    tables = {m: table for m, table in tables.items() if None not in table.values()}
    if model not in tables:
        return Finding(None)
    beaten = {}
    for name in CLASSES:
        best = max(tables, key=lambda m: tables[m][name])
        if tables[best][name] - tables[model][name] > tolerance:
            beaten[name] = best
    return Finding(
        len(tables) == len(claim.models) and not beaten,
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
    "predictions is as stated in every class, within {tolerance} points"
)
def correct_per_class(evidence, model, value, per_class, tolerance):
    """Judge the diagonal of the confusion matrix."""
    percent, n = evidence.confusion(model, per_class)
    ours = {name: float(percent.loc[name, name]) for name in value}
    if not all(np.isfinite(list(ours.values()))):
        return Finding(None, note="a class has no test image")
    off = [f"{name} {ours[name]:.0f} against {v}" for name, v in value.items() if abs(ours[name] - v) > tolerance]
    fewer = [f"{name} only {n[name]} images" for name in value if n[name] < per_class]
    return Finding(
        not off,
        ", ".join(f"{name} {p:.0f}" for name, p in ours.items())
        + f"; mean {np.mean(list(ours.values())):.1f}"
        + (f" ({', '.join(fewer)})" if fewer else ""),
        difference=max(abs(ours[name] - v) / 100 for name, v in value.items()),
        note="; ".join(off),
    )


def pair_cells(percent, choose):
    """One cell for each two classes: the larger or smaller of "a taken for b" and "b taken for a", in percent."""
    cells = {}
    for i, a in enumerate(CLASSES):
        for b in CLASSES[i + 1 :]:
            cells[frozenset((a, b))] = float(choose(percent.loc[a, b], percent.loc[b, a]))
    return cells


def pair_words(pair):
    """``"fear/sad"``."""
    return "/".join(sorted(pair))


@rule(
    "On the same sample, {pairs} are the pairs most often confused (by the larger of a pair's two cells), each "
    "{value}%, within {tolerance} points"
)
def most_confused(evidence, model, pairs, value, per_class, tolerance):
    """Judge which classes are confused most; which is taken for which the thesis does not say."""
    percent, _ = evidence.confusion(model, per_class)
    if percent.isna().any(axis=None):
        return Finding(None, note="a class has no test image")
    cells = pair_cells(percent, max)
    named = [frozenset(pair) for pair in pairs]
    top = sorted(cells, key=cells.get, reverse=True)[: len(named)]
    off = [f"{pair_words(pair)} {cells[pair]:.0f}%" for pair in top if pair not in named]
    off = [f"most confused is {listed(off)}"] if off else []
    off += [f"{pair_words(p)} {cells[p]:.0f} against {value}" for p in named if abs(cells[p] - value) > tolerance]
    return Finding(
        not off,
        ", ".join(f"{pair_words(p)} {cells[p]:.0f}" for p in named),
        cells[named[0]],
        difference=max(abs(cells[p] - value) / 100 for p in named),
        note="; ".join(off),
    )


@rule(
    "On the same sample, {pairs} are among the rarer half of all confusions (by the smaller of a pair's two "
    "cells), each {value}%, within {tolerance} points"
)
def least_confused(evidence, model, pairs, value, per_class, tolerance):
    """Judge which classes are confused least."""
    percent, _ = evidence.confusion(model, per_class)
    if percent.isna().any(axis=None):
        return Finding(None, note="a class has no test image")
    cells = pair_cells(percent, min)
    named = [frozenset(pair) for pair in pairs]
    median = float(np.median(percent.to_numpy()[~np.eye(len(CLASSES), dtype=bool)]))
    off = [f"{pair_words(p)} {cells[p]:.1f}" for p in named if abs(cells[p] - value) > tolerance or cells[p] > median]
    return Finding(
        not off,
        ", ".join(f"{pair_words(p)} {cells[p]:.1f}" for p in named),
        cells[named[0]],
        difference=max(abs(cells[p] - value) / 100 for p in named),
        note=f"{listed(off)} against {value}; the median confusion is {median:.1f}",
    )


# ---- the two kinds of precision and recall


@rule(
    "Counted at a probability threshold of 0.5, precision exceeds recall by more than {tolerance} while arg-max "
    "predictions of the same probabilities, pooled, have one value for both (their accuracy): the threshold makes "
    "the gap"
)
def threshold_effect(evidence, model, tolerance):
    """Test the explanation of claim F25."""
    values = {name: evidence.score(model, name)[0] for name in ("precision", "recall", "accuracy")}
    macro = {name: evidence.score(model, f"macro_{name}")[0] for name in ("precision", "recall")}
    if None in values.values():
        return Finding(None, note="no test images were predicted")
    gap = values["precision"] - values["recall"]
    return Finding(
        gap > tolerance and values["recall"] < values["accuracy"] < values["precision"],
        f"at threshold 0.5 precision {number(values['precision'])}, recall {number(values['recall'])}; arg-max "
        f"pooled {number(values['accuracy'])} both, macro {number(macro['precision'])}, {number(macro['recall'])}",
        values["precision"],
        note=f"precision exceeds recall by {gap:.3f} at the threshold",
    )
