"""Claims that the thesis's own numbers and words decide, and what it cites (groups "arithmetic" and "literature").

A check that holds finds the statements consistent; a refuted one finds that they exclude each other.
"""

import numpy as np

from fer_utils.claims.checks import fact, judges, unknown
from fer_utils.claims.evidence import LABELS, Untestable
from fer_utils.constants import CLASSES, USAGES
from fer_utils.words import STARTS, interval, listed


def ours(e, *wanted):
    """Our figures beside the thesis's: (model, metric, words) each, in either reading; empty where there are none."""
    texts = []
    for model, metric, words in wanted:
        try:
            score = e.score(model, metric)
        except Untestable:
            continue
        texts.append(f"{words} {interval(score.value, *score.interval())}")
    return ", ".join(texts)


def counts(e, usages=USAGES):
    """Images of each class in this run's data, or None."""
    try:
        return e.counts(usages)
    except Untestable:
        return None


@judges("D03")
def sum_of_table_3_1(e, claim):
    """The rows of Table 3.1 add up to the stated total."""
    total, rows = claim.stated["total"], list(claim.stated["counts"].values())
    found = counts(e)
    return [
        fact(
            sum(rows) == total,
            f"{sum(found.values()):,}" if found else "",
            f"stated {total:,}; the {len(rows)} rows add up to {sum(rows):,}, the first {len(rows) - 1} to {sum(rows[:-1]):,}",
            difference=abs(sum(rows) - total) / max(sum(rows), total),
        )
    ]


@judges("D11")
def fifth_of_the_total(e, claim):
    """The test images are the stated share of the stated total, give or take what rounding to whole images hides."""
    part, share, total = (claim.stated[name] for name in ("test", "share", "total"))
    other = claim.stated["other_total"]
    found = counts(e, USAGES[1:])
    return [
        fact(
            abs(part - share * total) < claim.tolerances["whole_image"],
            f"{sum(found.values()):,}" if found else "",
            f"{share:.0%} of {total:,} is {share * total:,.0f}; {part:,} is {share:.0%} of {other:,} ({share * other:,.1f})",
            difference=abs(part - share * total) / part,
        )
    ]


@judges("D05", "D10", "S08", "S09", "F06", "F33")
def one_answer_to_one_question(e, claim):
    """Some answer to the question is among those that every place allows."""
    sides = claim.stated["answers"]
    allowed = {where: answers if isinstance(answers, list) else [answers] for where, answers in sides.items()}
    common = set.intersection(*map(set, allowed.values()))
    said = "; ".join(
        f"{' or '.join(str(LABELS.get(a, a)) for a in answers)} ({where})" for where, answers in allowed.items()
    )
    text = f"{claim.stated['question']} {said}"
    why = text + (f", which {listed(sorted(common))} satisfies" if common else "")
    return [fact(bool(common), BESIDE.get(claim.id, lambda e: "")(e), why, difference=0.0 if common else 1.0)]


def weights_beside(e):
    """What each model of this run started from."""
    return ", ".join(f"{r.label}: {STARTS[r.record['weights']['used']]}" for r in e.run.first_seeds)


def mobilenets_beside(e):
    """Which MobileNets were trained here."""
    return listed(r.label for r in e.run.first_seeds if r.model.startswith("mobilenet"))


#: Our figure beside an answer, by the claim's id.
BESIDE = {
    "D05": lambda e: "one grey channel" if counts(e) else "",
    "D10": lambda e: str(sum(n > 0 for n in counts(e).values())) if counts(e) else "",
    "S08": weights_beside,
    "S09": mobilenets_beside,
}


@judges("F03")
def one_matrix_gives_both(e, claim):
    """The diagonal of Figure 5.8 gives one accuracy weighted by the classes' test images, the other as a plain mean.

    Kaggle's test folder gives the weights. Each figure must print as stated, with two decimals.
    """
    diagonal, images = claim.stated["percent"], claim.stated["test_images"]
    weighted = sum(diagonal[name] * images[name] for name in CLASSES) / sum(images.values()) / 100
    mean = float(np.mean([diagonal[name] for name in CLASSES])) / 100
    first, second = claim.stated["accuracy"]
    text = f"the diagonal of Figure 5.8, weighted by the {sum(images.values()):,} test images, gives {weighted:.4f}, which "
    text += f"prints as {weighted:.2f}; its plain mean over the classes is {mean:.4f}, which prints as {mean:.2f}"
    return [
        fact(
            (round(weighted, 2), round(mean, 2)) == (first, second),
            ours(e, ("resnet50", "accuracy", "ResNet-50: accuracy"), ("resnet50", "balanced_accuracy", "balanced")),
            f"{text}: one matrix gives both figures",
            difference=0.0,
        )
    ]


@judges("F28")
def two_kinds_of_precision(e, claim):
    """Figures pooled above a threshold of 0.5 (chapter 5) and macro figures of the arg-max class can both be true.

    Above 0.5 an image may have no predicted class: recall may fall below and precision rise above the accuracy, as
    both do here.
    """
    stated = claim.stated
    return [
        fact(
            stated["recall"] < stated["macro"] < max(stated["precision"]),
            ours(
                e,
                ("resnet50", "precision", "above 0.5: precision"),
                ("resnet50", "recall", "recall"),
                ("resnet50", "macro_precision", "macro precision"),
                ("resnet50", "macro_recall", "macro recall"),
            ),
            "precision above and recall below the macro figures is what a threshold of 0.5 makes of one network",
        )
    ]


@judges("F34", "S13")
def about_different_things(e, claim):
    """Both statements are about the same quantity; if not, they cannot contradict each other."""
    first, second = claim.stated["about"]
    return [fact(first != second, "", f"one statement is about {first}, the other about {second}", difference=0.0)]


@judges("F37")
def modern_models_in_figure_5_1(e, claim):
    """A model that the text calls superior is not the one that Figure 5.1 shows as least successful."""
    superior, lowest = claim.stated["superior"], claim.stated["lowest"]
    text = f"superior: {listed(LABELS[m] for m in superior)} (3.2.5.1); lowest of four: {LABELS[lowest]} (Fig. 5.1)"
    return [fact(lowest not in superior, "", text, difference=1.0)]


@judges("F38")
def rates_near_the_corner(e, claim):
    """Near the upper left corner of a ROC curve, where the false positive rate is 0, both rates are high."""
    found = corner(e)
    return [
        fact(
            False,
            found,
            "the upper left corner is a true positive rate of 1 at a false positive rate of 0",
            difference=1.0,
        )
    ]


def corner(e):
    """False and true positive rate of ResNet-50's happy class at the point nearest to the corner."""
    from sklearn.metrics import roc_curve

    results = e.used("resnet50")
    y_true, y_proba = results[0].select("test") if results else (np.zeros(0), np.zeros((0, 7)))
    k = CLASSES.index("happy")
    if not 0 < (y_true == k).sum() < len(y_true):
        return ""
    false, true, _ = roc_curve(y_true == k, y_proba[:, k])
    at = np.hypot(false, 1 - true).argmin()
    return f"nearest point of ResNet-50's happy curve: false {false[at]:.2f}, true {true[at]:.2f}"


@judges("S16")
def accuracy_by_its_formula(e, claim):
    """(TP + TN) / all, counted one class against the rest, gives the stated accuracy.

    A network that is right on a share a of the images errs on 1 - a, and each error is a false positive of one class
    and a false negative of another: over seven classes the formula gives 1 - 2 (1 - a) / 7.
    """
    a, classes = claim.stated["accuracy"], len(CLASSES)
    formula = 1 - 2 * (1 - a) / classes
    return [
        fact(
            round(formula, 2) == a,
            "",
            f"one class against the rest, the formula gives {formula:.2f} for a network that is right on {a:.0%} of the "
            "images; the stated figure is the share of right images, which is another formula",
            difference=formula - a,
        )
    ]


@judges("S17")
def precision_in_words(e, claim):
    """Precision in words, the share of positive samples that are found, is TP / (TP + FP)."""
    tp, fp, fn = 3, 1, 2
    text = f"of {tp + fn} positive samples {tp} found with {fp} false alarm: in words {tp / (tp + fn):.2f}, which is recall; "
    return [
        fact(
            tp / (tp + fn) == tp / (tp + fp),
            ours(e, ("resnet50", "macro_precision", "macro precision"), ("resnet50", "macro_recall", "macro recall")),
            f"{text}by the formula {tp / (tp + fp):.2f}",
            difference=1.0,
        )
    ]


@judges("S15")
def references_to_figures(e, claim):
    """Each figure or table that the text refers to shows what the text says it does."""
    off = [
        f"{name} is said to show {said}, and shows {shows}"
        for name, (said, shows) in claim.stated["shown"].items()
        if said != shows
    ]
    return [fact(not off, "", "; ".join(off), difference=1.0)]


@judges("S21")
def an_unseen_test_set(e, claim):
    """Training, validation and unseen test images have a share of their own each."""
    training, test = claim.stated["training"], claim.stated["test"]
    left = abs(round(1 - training - test, 9))
    text = f"{training:.0%} training and {test:.0%} test leave {left:.0%} for the validation curves, the checkpoint and the "
    protocols = listed(dict.fromkeys(f"{r.label}: {r.record['protocol']}" for r in e.run.first_seeds))
    return [fact(left > 0, protocols, f"{text}learning-rate schedule, so these use the test images", difference=1.0)]


@judges("L05")
def sources_of_citations(e, claim):
    """Every work that the text cites is listed in chapter 8."""
    missing = [name for name in claim.stated["cited"] if name not in claim.stated["listed"]]
    cited = len(claim.stated["cited"])
    return [
        fact(
            not missing,
            "",
            f"{len(missing)} of {cited} cited works are not listed: {listed(missing)}",
            difference=len(missing) / cited,
        )
    ]


@judges("L01", "L02", "L03", "L04")
def cited(e, claim):
    """None: it takes the cited study's own method and data."""
    return [unknown(f"cited from {claim.stated['source']} ({claim.stated['data']}); nothing here repeats that study")]
