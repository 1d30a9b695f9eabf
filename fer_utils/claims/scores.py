"""Claims about scores, ROC curves and the confusion matrix (Figures 5.1, 5.4 and 5.8, chapters 6 and 7).

Figures are computed from the predictions of the epoch with the best validation accuracy, on PublicTest and
PrivateTest together.
"""

import numpy as np
from scipy import stats

from fer_utils.claims.checks import (
    NO,
    OPEN,
    UNKNOWN,
    YES,
    Check,
    above,
    by_score,
    check,
    either,
    extreme_class,
    fact,
    first_of,
    judges,
    near,
)
from fer_utils.claims.evidence import Score, Untestable
from fer_utils.constants import CLASSES

#: Matrices that are drawn to see how often a sample of the thesis's size would look like its matrix.
SIMULATIONS = 2000


@judges("F01")
def highest_accuracy(e, claim):
    """ResNet-50's accuracy is the stated one, and higher than that of each other model by the paired difference."""
    return [
        near(e, "resnet50", "accuracy", claim.stated["accuracy"], claim.tolerances["score"]),
        first_of(e, "resnet50", claim.models[1:], by_score(e, "accuracy"), "accuracy"),
    ]


@judges("F02")
def accuracy_of_chapter_6(e, claim):
    """ResNet-50's accuracy is the stated one, on the test images as they are or with all classes weighted alike."""
    value = claim.stated["accuracy"]
    return [
        either(
            [
                near(e, "resnet50", "accuracy", value, claim.tolerances["score"]),
                near(e, "resnet50", "balanced_accuracy", value, claim.tolerances["macro_score"]),
            ]
        )
    ]


@judges("F04")
def lowest_accuracy(e, claim):
    """VGG-16's accuracy is lower than that of each other model by the paired difference."""
    return [first_of(e, "vgg16", claim.models[1:], by_score(e, "accuracy"), "accuracy", highest=False)]


@judges("F05")
def weakest_by_roc(e, claim):
    """MobileNet-V3's AUC, the mean over the classes, is lower than that of each other model."""
    return [first_of(e, "mobilenet_v3", claim.models[1:], by_score(e, "mean_auc"), "mean AUC", highest=False)]


@judges("F07")
def deeper_models_generally_better(e, claim):
    """The deeper models' mean accuracy exceeds the lighter ones'; of those trained, as long as some are missing."""
    sides, lacking = {}, []
    for side in ("deeper", "lighter"):
        found = []
        for model in claim.stated[side]:
            try:
                found.append((e.label(model), e.score(model, "accuracy")))
            except Untestable as error:
                lacking += error.models
        sides[side] = found
    if not all(sides.values()):
        return [Check(UNKNOWN, lacking=tuple(lacking))]
    means = [
        Score(np.mean([s.value for _, s in found]), np.mean([s.draws for _, s in found], axis=0), ())
        for found in sides.values()
    ]
    names = [f"{side} ({', '.join(name for name, _ in found)})" for side, found in sides.items()]
    part = above(e, "mean accuracy", *[(name, lambda s=s: s) for name, s in zip(names, means, strict=True)])
    outcome = part.outcome if part.outcome == NO or not lacking else UNKNOWN
    return [Check(outcome, part.ours, part.why, lacking=tuple(lacking))]


@judges("F36")
def modern_models_better(e, claim):
    """VGG-16 and ResNet-50 each have a higher accuracy than the traditional CNN, by the paired difference."""
    return [
        above(e, "accuracy", *[(e.label(m), lambda m=m: e.score(m, "accuracy")) for m in (model, "traditional_cnn")])
        for model in claim.models[:2]
    ]


@judges("F13", "F14", "F15", "F16")
def auc_of_fear_and_happy(e, claim):
    """The one-vs-rest AUC is lowest in fear and highest in happy, and there as stated."""
    (model,) = claim.models
    return [
        *[near(e, model, f"auc_{name}", value, claim.tolerances["auc"]) for name, value in claim.stated.items()],
        extreme_class(e, model, "fear", highest=False),
        extreme_class(e, model, "happy", highest=True),
    ]


@judges("F17")
def best_auc_in_every_class(e, claim):
    """In each class no other model's AUC exceeds ResNet-50's by more than the printed precision hides."""
    return [
        first_of(
            e,
            "resnet50",
            claim.models[1:],
            by_score(e, f"auc_{name}"),
            f"AUC of {name}",
            margin=claim.tolerances["printed_auc"],
        )
        for name in CLASSES
    ]


@judges("F35")
def best_roc_on_both_sets(e, claim):
    """ResNet-50's mean AUC over the classes is the highest on the test images and on the training images."""
    return [
        first_of(e, "resnet50", claim.models[1:], by_score(e, "mean_auc"), "mean AUC on the test images"),
        first_of(e, "resnet50", claim.models[1:], e.train_auc, "mean AUC on the training images"),
    ]


@judges("F27")
def precision_recall_f1_of_chapter_6(e, claim):
    """Macro precision, recall and F1 are the stated ones, on the test images as they are or balanced, and the highest."""
    value, tolerance = claim.stated["all"], claim.tolerances["macro_score"]
    names = ("macro_precision", "macro_recall", "macro_f1")
    return [
        *[
            either([near(e, "resnet50", prefix + name, value, tolerance) for prefix in ("", "balanced_")])
            for name in names
        ],
        *[first_of(e, "resnet50", claim.models[1:], by_score(e, name), name.replace("_", " ")) for name in names],
    ]


# ---- the confusion matrix: the thesis's is one sample of 140 images of each class, ours is estimated on all


@judges("F29")
def correct_per_class(e, claim):
    """The share of correct predictions is as stated in each class, within the sampling error of both sides.

    Ours is estimated on all test images of the class; the variances of both proportions are added, at 5% for the
    seven cells together (Bonferroni), and half a percent is what the thesis's rounding hides.
    """
    return [diagonal(e, claim.stated["percent"], claim.stated["per_class"], claim.tolerances["cells"])]


@check
def diagonal(e, stated, per_class, level):
    """See `correct_per_class`."""
    cells, n = e.confusion("resnet50")
    z = stats.norm.ppf(1 - level / 2 / len(stated))
    ours, off = {}, []
    for name, percent in stated.items():
        k = CLASSES.index(name)
        p, q = percent / 100, float(cells[k, k])
        size = min(per_class, n[k])
        reach = z * np.sqrt((p * (1 - p) + q * (1 - q)) / 2 * (1 / size + 1 / n[k])) + 0.005
        ours[name] = 100 * q
        if abs(p - q) > reach:
            off.append(f"{name} {100 * q:.0f} against {percent} (give or take {100 * reach:.0f})")
    mean = np.mean(list(ours.values()))
    return fact(
        not off,
        ", ".join(f"{name} {p:.0f}" for name, p in ours.items()) + f"; mean {mean:.1f}",
        "no class differs by more than both samples' errors",
        wrong="; ".join(off),
        difference=max(abs(ours[name] - p) / 100 for name, p in stated.items()),
    )


@judges("F30", "F31")
def confused_pairs(e, claim):
    """The named pairs are among those confused most (or least) often, one direction of each as often as stated.

    A pair counts by the mean of both directions. How often a sample of 140 images of each class from our matrix ranks
    the named pairs so is simulated: refuted below 5%, reproduced above 50%, undecided between.
    """
    pairs = [tuple(pair.split("/")) for pair in claim.stated["pairs"]]
    most = claim.id == "F30"
    return [
        rank(e, pairs, most, int(claim.tolerances["most_pairs" if most else "least_pairs"]), claim.stated["per_class"]),
        shares(e, pairs, claim.stated["percent"], claim.stated["per_class"], claim.tolerances["cells"]),
    ]


@check
def rank(e, pairs, most, places, per_class):
    """How often a sample of the thesis's size ranks these pairs among the first places."""
    cells, n = e.confusion("resnet50")
    rng = np.random.default_rng(0)
    sizes = np.minimum(per_class, n)
    drawn = np.stack(
        [rng.multinomial(size, row, SIMULATIONS) / size for size, row in zip(sizes, cells, strict=True)], 1
    )
    above_diagonal = np.triu_indices(len(CLASSES), 1)
    means = {}
    for matrix in (cells[None], drawn):
        both = (matrix + matrix.transpose(0, 2, 1)) / 2
        means[len(matrix)] = both[:, *above_diagonal] * (1 if most else -1)
    at = [
        next(i for i, (a, b) in enumerate(zip(*above_diagonal, strict=True)) if {CLASSES[a], CLASSES[b]} == set(pair))
        for pair in pairs
    ]
    values = means[SIMULATIONS]
    last = np.sort(values, axis=1)[:, -places]
    share = float((values[:, at] >= last[:, None] - 1e-9).all(axis=1).mean())
    order = np.argsort(-means[1][0], kind="stable")[: max(places, 2)]
    names = ["/".join(sorted((CLASSES[above_diagonal[0][i]], CLASSES[above_diagonal[1][i]]))) for i in order]
    percent = [f"{name} {abs(100 * means[1][0][i]):.1f}" for name, i in zip(names, order, strict=True)]
    text = f"confused {'most' if most else 'least'}: {', '.join(percent)} (mean of both directions, %)"
    outcome = NO if share < 0.05 else YES if share > 0.5 else OPEN
    why = f"{share:.0%} of samples of {per_class} images of each class rank the named pairs among the {places}"
    return Check(outcome, text, why)


@check
def shares(e, pairs, percent, per_class, level):
    """One direction of each pair is as often taken for the other as stated, within both sides' sampling error."""
    cells, n = e.confusion("resnet50")
    z, off, ours = stats.norm.ppf(1 - level / 2 / len(pairs)), [], []
    for pair in pairs:
        gaps = []
        for a, b in (pair, pair[::-1]):
            i, j = CLASSES.index(a), CLASSES.index(b)
            p, q, size = percent / 100, float(cells[i, j]), min(per_class, n[i])
            reach = z * np.sqrt((p * (1 - p) + q * (1 - q)) / 2 * (1 / size + 1 / n[i])) + 0.005
            gaps.append((abs(p - q) - reach, 100 * q, 100 * reach))
        gap, nearest, reach = min(gaps)
        ours.append(f"{'/'.join(pair)} {nearest:.1f}")
        if gap > 0:
            off.append(f"{'/'.join(pair)} {nearest:.1f}% against {percent}% (give or take {reach:.1f})")
    return fact(not off, ", ".join(ours) + " (%)", "; ".join(off) or "each share agrees within both samples' errors")
