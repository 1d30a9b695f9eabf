"""Claims about scores, ROC curves and the confusion matrix (Figures 5.1, 5.4 and 5.8, chapters 6 and 7).

Figures are computed from the predictions of the kept epoch on PublicTest and PrivateTest together.
"""

from dataclasses import replace

import numpy as np
from scipy import stats

from fer_utils.claims import checks
from fer_utils.claims.checks import Check, above, check, either, fact, first_of, judges, named, near
from fer_utils.claims.evidence import Score, Untestable
from fer_utils.constants import CLASSES

#: Matrices that are drawn to see how often a sample of the thesis's size would rank pairs of classes as it does.
SIMULATIONS = 2000


def first_by(e, c, metric, **options):
    """The claim's first model is the first of its models by a figure."""
    return first_of(e, c.models[0], c.models[1:], lambda m: e.score(m, metric), named(metric), **options)


@judges("F01")
def highest_accuracy(e, c):
    """ResNet-50's accuracy is the stated one, and higher than that of each other model by the paired difference."""
    return [near(e, "resnet50", "accuracy", c.accuracy, c.within["score"]), first_by(e, c, "accuracy")]


@judges("F02")
def accuracy_of_chapter_6(e, c):
    """ResNet-50's accuracy is the stated one, on the test images as they are or with all classes weighted alike."""
    whole = near(e, "resnet50", "accuracy", c.accuracy, c.within["score"])
    return either(whole, near(e, "resnet50", "balanced_accuracy", c.accuracy, c.within["macro_score"]))


@judges("F04", "F05")
def lowest_of_all(e, c):
    """The model's accuracy (F04) or mean AUC over the classes (F05) is lower than each other model's."""
    return first_by(e, c, c.metric, highest=False)


@judges("F07")
def deeper_models_generally_better(e, c):
    """The deeper models' mean accuracy exceeds the lighter models'; where some were not trained, of those that were."""
    lacking = tuple(model for model in c.models if not e.used(model))
    sides = {side: [m for m in c.stated[side] if m not in lacking] for side in ("deeper", "lighter")}
    if not all(sides.values()):
        raise Untestable(models=lacking)

    def mean(models):
        scores = [e.score(model, "accuracy") for model in models]
        return Score(np.mean([s.value for s in scores]), np.mean([s.draws for s in scores], axis=0), ())

    ends = [(f"{side} ({', '.join(map(e.label, ms))})", lambda ms=ms: mean(ms)) for side, ms in sides.items()]
    part = above("mean accuracy", *ends)
    return replace(part, outcome=checks.UNKNOWN, lacking=lacking) if lacking and part.outcome != checks.NO else part


@judges("F36")
def modern_models_better(e, c):
    """VGG-16 and ResNet-50 each have a higher accuracy than the traditional CNN, by the paired difference."""
    sides = {model: (e.label(model), lambda m=model: e.score(m, "accuracy")) for model in c.models}
    return [above("accuracy", sides[model], sides["traditional_cnn"]) for model in c.models[:2]]


@judges("F13", "F14", "F15", "F16")
def auc_of_fear_and_happy(e, c):
    """The one-vs-rest AUC is lowest in fear and highest in happy, and there as stated."""
    (model,) = c.models
    values = [near(e, model, f"auc_{name}", value, c.within["auc"]) for name, value in c.stated.items()]
    orders = [
        first_of(e, name, [k for k in CLASSES if k != name], lambda k: e.score(model, f"auc_{k}"), words, highest)
        for name, words, highest in (("fear", "lowest AUC", False), ("happy", "highest AUC", True))
    ]
    return [*values, *orders]


@judges("F17")
def best_auc_in_every_class(e, c):
    """In each class no other model's AUC exceeds ResNet-50's by more than the printed precision hides."""
    return [first_by(e, c, f"auc_{name}", margin=c.within["printed_auc"]) for name in CLASSES]


@judges("F35")
def best_roc_on_both_sets(e, c):
    """ResNet-50's mean AUC over the classes is the highest on the test images and on the training images."""
    return [first_by(e, c, "mean_auc"), first_of(e, "resnet50", c.models[1:], e.train_auc, "mean AUC in training")]


@judges("F27")
def precision_recall_f1_of_chapter_6(e, c):
    """Macro precision, recall and F1 are as stated, on the test images as they are or balanced, and the highest."""
    names, tolerance = ("macro_precision", "macro_recall", "macro_f1"), c.within["macro_score"]
    values = [[near(e, "resnet50", sample + n, c.all, tolerance) for sample in ("", "balanced_")] for n in names]
    return [*(either(*both) for both in values), *(first_by(e, c, n) for n in names)]


# ---- the confusion matrix: the thesis's is one sample of 140 images of each class, ours is estimated on all


def reach(p, q, size, n, cells, level):
    """How far two shares of two samples may lie apart by chance, at a level for so many cells, and by rounding."""
    z = stats.norm.ppf(1 - level / 2 / cells)
    return z * np.sqrt((p * (1 - p) + q * (1 - q)) / 2 * (1 / min(size, n) + 1 / n)) + 0.005


@judges("F29")
def correct_per_class(e, c):
    """The share of correct predictions is as stated in each class, within the sampling error of both sides.

    Ours is estimated on all test images of the class; the variances of both are added, at 5% for the seven cells
    together (Bonferroni), and half a percent is what the thesis's rounding hides.
    """
    cells, n = e.confusion("resnet50")
    ours, off = dict(zip(CLASSES, cells.diagonal(), strict=True)), []
    for name, percent in c.percent.items():
        far = reach(percent / 100, ours[name], c.per_class, n[CLASSES.index(name)], len(n), c.within["cells"])
        if abs(ours[name] - percent / 100) > far:
            off.append(f"{name} {100 * ours[name]:.0f} against {percent} (give or take {100 * far:.0f})")
    text = ", ".join(f"{name} {100 * ours[name]:.0f}" for name in c.percent)
    text += f"; mean {100 * cells.diagonal().mean():.1f}"
    farthest = max(abs(ours[name] - percent / 100) for name, percent in c.percent.items())
    return fact(not off, text, wrong="; ".join(off), difference=farthest)


@judges("F30", "F31")
def confused_pairs(e, c):
    """The named pairs are those confused most (or least) often, one direction of each as often as stated.

    A pair counts by the mean of both directions. How often a sample of 140 images of each class from our matrix ranks
    the named pairs so is simulated: refuted below 5%, reproduced above 50%, undecided between.
    """
    pairs = [tuple(CLASSES.index(name) for name in pair.split("/")) for pair in c.pairs]
    return [ranked(e, c, pairs), as_often(e, c, pairs)]


@check
def ranked(e, c, pairs):
    """How often a sample of the thesis's size ranks these pairs among the first places."""
    (most, places), *_ = c.within.items()
    sign, places = (1 if most == "most_pairs" else -1), int(places)
    cells, n = e.confusion("resnet50")
    rng, sizes = np.random.default_rng(0), np.minimum(c.per_class, n)
    drawn = [rng.multinomial(size, row, SIMULATIONS) / size for size, row in zip(sizes, cells, strict=True)]
    every = np.concatenate([cells[None], np.stack(drawn, axis=1)])
    rows, columns = np.triu_indices(len(CLASSES), 1)
    means = sign * (every[:, rows, columns] + every[:, columns, rows]) / 2
    at = [int(np.flatnonzero((rows == min(pair)) & (columns == max(pair)))[0]) for pair in pairs]
    last = np.sort(means[1:], axis=1)[:, -places]
    share = (means[1:, at] >= last[:, None] - checks.EPS).all(axis=1).mean()
    order = np.argsort(-means[0], kind="stable")[:places]
    first = [f"{CLASSES[rows[i]]}/{CLASSES[columns[i]]} {abs(100 * means[0, i]):.1f}" for i in order]
    text = f"confused {most.removesuffix('_pairs')}: {', '.join(first)} (%, mean of both directions)"
    why = f"{share:.0%} of samples of {c.per_class} images of each class rank the named pairs among the {places}"
    return Check(checks.NO if share < 0.05 else checks.YES if share > 0.5 else checks.OPEN, text, why)


@check
def as_often(e, c, pairs):
    """One direction of each pair is as often taken for the other as stated, within both sides' sampling error."""
    cells, n = e.confusion("resnet50")
    p, off, ours = c.percent / 100, [], []
    for name, (a, b) in zip(c.pairs, pairs, strict=True):
        ends = [(q, reach(p, q, c.per_class, n[i], len(pairs), c.within["cells"]))
                for i, q in ((a, cells[a, b]), (b, cells[b, a]))]  # fmt: skip
        q, far = min(ends, key=lambda end: abs(end[0] - p) - end[1])
        ours.append(f"{name} {100 * q:.1f}")
        if abs(q - p) > far:
            off.append(f"{name} {100 * q:.1f}% against {c.percent}% (give or take {100 * far:.1f})")
    return fact(not off, f"{', '.join(ours)} (%)", wrong="; ".join(off))
