"""Claims that the thesis's own numbers and words decide, and what it cites (groups "arithmetic" and "literature").

A check that holds finds the statements consistent; a refuted one finds that they exclude each other.
"""

import numpy as np

from fer_utils.claims.checks import fact, judges, named, unknown
from fer_utils.claims.evidence import LABELS, PRETRAINED, Untestable
from fer_utils.constants import CLASSES, USAGES
from fer_utils.words import STARTS, interval, listed


def figures(e, *metrics):
    """``"ResNet-50: accuracy 0.672 [0.661, 0.683]"``, in words, or nothing."""
    try:
        found = [(named(metric), e.score("resnet50", metric)) for metric in metrics]
    except Untestable:
        return ""
    return "ResNet-50: " + ", ".join(f"{name} {interval(s.value, *s.interval())}" for name, s in found)


def images(e, usages=USAGES):
    """Images of the known FER2013, or nothing where this run has none."""
    try:
        return sum(e.counts(usages).values())
    except Untestable:
        return None


@judges("D03")
def sum_of_table_3_1(e, c):
    """The rows of Table 3.1 add up to the stated total."""
    rows = list(c.counts.values())
    why = f"stated {c.total:,}; the {len(rows)} rows add up to {sum(rows):,}, the first {len(rows) - 1} to "
    why += f"{sum(rows[:-1]):,}"
    ours = images(e)
    return fact(sum(rows) == c.total, f"{ours:,}" if ours else "", why, difference=abs(sum(rows) - c.total) / sum(rows))


@judges("D11")
def fifth_of_the_total(e, c):
    """The test images are the stated share of the stated total, give or take what rounding to whole images hides."""
    expected, other = c.share * c.total, c.share * c.other_total
    why = f"{c.share:.0%} of {c.total:,} is {expected:,.0f}; {c.test:,} is that of {c.other_total:,} ({other:,.1f})"
    ours, off = images(e, USAGES[1:]), abs(c.test - expected)
    return fact(off < c.within["whole_image"], f"{ours:,}" if ours else "", why, difference=off / c.test)


@judges("D05", "D10", "S08", "S09", "S17", "F06", "F33", "F37", "F38")
def one_answer_to_one_question(e, c):
    """At least one answer to the question fits every place in the thesis that answers it."""
    allowed = {where: answers if isinstance(answers, list) else [answers] for where, answers in c.answers.items()}
    common = set.intersection(*map(set, allowed.values()))
    said = [f"{' or '.join(str(LABELS.get(a, a)) for a in answers)} ({where})" for where, answers in allowed.items()]
    pretrained = [r for r in e.run.first_seeds if r.model.startswith(PRETRAINED)]
    starts = [f"{r.label}: {STARTS[r.record['weights']['used']]}" for r in pretrained]
    ours = {
        "D05": "one grey channel" * bool(images(e)),
        "D10": str(sum(n > 0 for n in e.counts().values())) if images(e) else "",
        "S08": ", ".join(starts),
        "S09": listed(r.label for r in e.run.first_seeds if r.model.startswith("mobilenet")),
    }
    why = f"{c.question} {'; '.join(said)}" + (f": {listed(sorted(common))} satisfies all" if common else "")
    return fact(bool(common), ours.get(c.id, ""), why, difference=0.0 if common else 1.0)


@judges("F03")
def one_matrix_gives_both(e, c):
    """The diagonal of Figure 5.8 gives one accuracy weighted by the classes' test images, the other as a plain mean.

    Kaggle's test folder gives the weights. Each figure must print as stated, with two decimals.
    """
    n = sum(c.test_images.values())
    weighted = sum(c.percent[name] * c.test_images[name] for name in CLASSES) / n / 100
    mean = float(np.mean(list(c.percent.values()))) / 100
    why = f"the diagonal of Figure 5.8, weighted by the {n:,} test images, gives {weighted:.4f}, which prints as "
    why += f"{weighted:.2f}; its plain mean over the classes is {mean:.4f}, which prints as {mean:.2f}"
    both = [round(weighted, 2), round(mean, 2)] == c.accuracy
    return fact(both, figures(e, "accuracy", "balanced_accuracy"), why, difference=0.0 if both else 1.0)


@judges("F28")
def two_kinds_of_precision(e, c):
    """Chapter 5's figures can be pooled ones above a threshold of 0.5, chapter 6's macro ones of the arg-max class.

    Above 0.5 an image may have no predicted class: recall may fall below and precision rise above the accuracy.
    """
    why = "precision above and recall below the macro figures is what a threshold of 0.5 makes of one network"
    ours = figures(e, "precision", "recall", "macro_precision", "macro_recall")
    return fact(c.recall < c.macro < max(c.precision), ours, why, difference=0.0)


@judges("F34", "S13")
def about_different_things(e, c):
    """Statements contradict each other only if they are about the same quantity."""
    first, second = c.about
    return fact(first != second, "", f"one statement is about {first}, the other about {second}", difference=0.0)


@judges("S16")
def accuracy_by_its_formula(e, c):
    """(TP + TN) / all, counted one class against the rest, gives the stated accuracy.

    A network that is right on a share a of the images errs on 1 - a, and each error is a false positive of one class
    and a false negative of another: over seven classes the formula gives 1 - 2 (1 - a) / 7.
    """
    formula = 1 - 2 * (1 - c.accuracy) / len(CLASSES)
    why = f"one class against the rest, the formula gives {formula:.2f} for a network that is right on "
    why += f"{c.accuracy:.0%} of the images; the stated figure is the share of right images, which is another formula"
    return fact(round(formula, 2) == c.accuracy, "", why, difference=formula - c.accuracy)


@judges("S15")
def references_to_figures(e, c):
    """Each figure or table that the text refers to shows what the text says it does."""
    off = {name: pair for name, pair in c.shown.items() if len(set(pair)) > 1}
    why = "; ".join(f"{name} is said to show {said}, and shows {shows}" for name, (said, shows) in off.items())
    return fact(not off, "", why, difference=1.0)


@judges("S21")
def an_unseen_test_set(e, c):
    """Training, validation and unseen test images have a share of their own each."""
    left = abs(round(1 - c.training - c.test, 9))
    why = f"{c.training:.0%} training and {c.test:.0%} test leave {left:.0%} for the validation curves, the checkpoint "
    why += "and the learning-rate schedule, so these use the test images"
    ours = ", ".join(dict.fromkeys(f"{r.record['protocol']} protocol" for r in e.run.models))
    return fact(left > 0, ours, why, difference=1.0)


@judges("L05")
def sources_of_citations(e, c):
    """Every work that the text cites is listed in chapter 8."""
    missing = [name for name in c.cited if name not in c.listed]
    why = f"{len(missing)} of {len(c.cited)} cited works are not listed: {listed(missing)}"
    return fact(not missing, "", why, difference=len(missing) / len(c.cited))


@judges("L01", "L02", "L03", "L04")
def cited(e, c):
    """None: it takes the cited study's own method and data."""
    return unknown(f"cited from {c.source} ({c.data}); nothing here repeats that study")
