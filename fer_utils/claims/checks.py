"""What a claim is made of: checks, each with an outcome, our figure and the reason.

A check holds (`YES`), is refuted (`NO`), is open because the interval reaches over the edge (`OPEN`), or cannot be told
from this run (`UNKNOWN`). A value holds when its 90% interval lies within the tolerance and is refuted when the
interval lies outside: two one-sided tests at 5%. An order holds, or is refuted, when the interval of the paired
difference leaves out zero.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fer_utils.claims.evidence import Untestable, number
from fer_utils.constants import CLASSES
from fer_utils.words import interval, listed

YES, NO, OPEN, UNKNOWN = "yes", "no", "open", "unknown"

#: Floats that miss a tolerance by less than this meet it.
EPS = 1e-9

#: Chance of a wrong decision of each one-sided test, and the power for which sample sizes are worked out.
ALPHA, POWER = 0.05, 0.80

WORDS = {"auc": "AUC", "f1": "F1", "mean_auc": "mean AUC"}


@dataclass(frozen=True)
class Check:
    """One part of a claim.

    Attributes
    ----------
    outcome : {"yes", "no", "open", "unknown"}
    ours : str
        Our figure, for people.
    why : str
        Why it has this outcome.
    low, high : float or None
        95% interval of the figure.
    difference : float or None
        How far ours is from the thesis's, as a part of the thesis's.
    lacking : tuple of str
        Models without a training that counts.
    """

    outcome: str
    ours: str = ""
    why: str = ""
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    lacking: tuple = ()


#: Every claim's function by the claim's id; the modules of claims fill it.
JUDGES = {}


def judges(*ids):
    """Register a function as what judges these claims; the first line of its docstring is shown as the rule."""

    def register(function):
        JUDGES.update(dict.fromkeys(ids, function))
        return function

    return register


def check(function):
    """Let a function that cannot get its figures return what it lacks."""

    @functools.wraps(function)
    def guarded(*arguments, **options):
        try:
            return function(*arguments, **options)
        except Untestable as error:
            return Check(UNKNOWN, why=error.reason, lacking=error.models)

    return guarded


def fact(holds, ours="", why="", *, wrong="", **more):
    """A check of something that has no sampling error; `wrong` is the reason where it does not hold."""
    return Check(YES if holds else NO, ours, (wrong if wrong and not holds else why) or ours, **more)


def unknown(why, ours=""):
    """A check that nothing in this run decides."""
    return Check(UNKNOWN, ours, why)


def named(metric):
    """``"macro F1"`` for ``"macro_f1"``."""
    return " ".join(WORDS.get(word, word) for word in (["mean_auc"] if metric == "mean_auc" else metric.split("_")))


def curve_name(column):
    """``"validation loss"`` for ``"test_loss"``: the thesis calls its test set so."""
    return f"validation {named(column[5:])}" if column.startswith("test_") else f"training {named(column)}"


def over_seeds(seeds):
    """``", 3 seeds 0.668 to 0.675"``; nothing for one seed."""
    return f", {len(seeds)} seeds {number(min(seeds))} to {number(max(seeds))}" if len(seeds) > 1 else ""


# ---- values


def inside(score, low, high, words):
    """Whether a score lies between two values, by two one-sided tests."""
    a, b = score.interval(1 - 2 * ALPHA)
    outside = b < low - EPS or a > high + EPS
    outcome = YES if a >= low - EPS and b <= high + EPS else NO if outside else OPEN
    place = {YES: "lies within", NO: "lies outside", OPEN: "reaches over the edge of"}[outcome]
    middle = (low + high) / 2
    spread = f"90% interval {number(a)} to {number(b)} " if b > a else ""
    return Check(
        outcome,
        f"{words} {interval(score.value, *score.interval())}{over_seeds(score.seeds)}",
        f"{words} {number(score.value)}: {spread}{place} {number(low)} to {number(high)}",
        *score.interval(),
        abs(score.value - middle) / middle if middle else None,
    )


@check
def near(e, model, metric, value, tolerance):
    """A figure on the test images is the stated one, within the tolerance."""
    return inside(e.score(model, metric), value - tolerance, value + tolerance, named(metric))


@check
def settles(e, model, column, low, high, tolerance):
    """A curve settles between two levels, within the tolerance of either."""
    return inside(e.level(model, column), low - tolerance, high + tolerance, curve_name(column))


@check
def close(e, model, column, tolerance):
    """Training and validation curve of a metric settle within the tolerance of each other."""
    gap = e.level(model, f"test_{column}") - e.level(model, column)
    return inside(gap, -tolerance, tolerance, f"validation less training {named(column)}")


def either(checks):
    """One of several readings: holds if one does, refuted if all are."""
    outcomes = [part.outcome for part in checks]
    outcome = next((o for o in (YES, UNKNOWN, OPEN) if o in outcomes), NO)
    best = next(part for part in checks if part.outcome == outcome)
    texts = dict.fromkeys(part.ours for part in checks if part.ours)
    whys = "; ".join(dict.fromkeys(part.why for part in checks if part.why))
    return Check(outcome, ", ".join(texts), whys, best.low, best.high, best.difference, best.lacking)


# ---- orders


def compare(difference, comparisons=1):
    """Outcome of "the first is larger", from draws of the paired difference."""
    low, high = difference.interval(1 - ALPHA / comparisons)
    return YES if low > EPS else NO if high < -EPS else OPEN


@check
def above(e, words, first, second):
    """The first of two named scores is larger; each is (name, function without arguments)."""
    (name, ours), (other, theirs) = first, second
    difference = ours() - theirs()
    low, high = difference.interval()
    return Check(
        compare(difference),
        f"{words}: {name} {number(ours().value)}, {other} {number(theirs().value)}",
        f"{name} less {other}: {difference.value:+.3f} [{low:+.3f}, {high:+.3f}]",
    )


def falls_below(e, model, column, other):
    """Two curves of one model: the first settles below the second."""
    sides = [(curve_name(c), lambda c=c: e.level(model, c)) for c in (other, column)]
    return above(e, e.label(model), *sides)


@check
def first_of(e, model, others, score, words, highest=True, margin=0.0):
    """A model is first (or last) of several by a score; refuted as soon as one that is there beats it.

    Parameters
    ----------
    score : function
        Model to `Score`.
    margin : float
        By how much another may be ahead.
    """
    ours, found, lacking = score(model), {}, []
    for other in others:
        try:
            found[other] = score(other)
        except Untestable as error:
            if not error.models:
                raise
            lacking += error.models
    sign = 1 if highest else -1
    order = sorted([model, *found], key=lambda m: sign * -(ours if m == model else found[m]).value)
    values = {m: (ours if m == model else found[m]).value for m in order}
    text = f"{words}: " + ", ".join(f"{e.label(m)} {number(values[m])}" for m in order)
    outcomes, whys = {}, []
    for other, theirs in found.items():
        gap = ours - theirs if highest else theirs - ours
        shifted = type(gap)(gap.value + margin, gap.draws + margin, ())
        outcomes[other] = compare(shifted, len(others))
        low, high = gap.interval(1 - ALPHA / len(others))
        if outcomes[other] != YES:
            side = {NO: "is ahead", OPEN: "cannot be told apart"}[outcomes[other]]
            bounds = (
                f"{sign * gap.value:+.3f} [{min(sign * low, sign * high):+.3f}, {max(sign * low, sign * high):+.3f}]"
            )
            whys.append(f"{e.label(other)} {side}: {e.label(model)} differs by {bounds}{power(e, model, other)}")
    outcome = NO if NO in outcomes.values() else UNKNOWN if lacking else OPEN if OPEN in outcomes.values() else YES
    ahead = f"{e.label(model)} is {'highest' if highest else 'lowest'} by {words}"
    return Check(outcome, text, "; ".join(whys) or ahead, lacking=tuple(lacking))


def power(e, model, other):
    """What difference in accuracy the test images tell apart at 80% power, from the discordance seen."""
    try:
        share, n = e.discordance(model, other)
    except Untestable:
        return ""
    if not share:
        return ""
    smallest = (stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER)) * np.sqrt(share / n)
    return f" ({share:.0%} of {n:,} images discordant, which tell {100 * smallest:.1f} points of accuracy apart)"


def by_score(e, metric):
    """Function from a model to one of its figures."""
    return lambda model: e.score(model, metric)


def by_level(e, column):
    """Function from a model to the level of one of its curves."""
    return lambda model: e.level(model, column)


# ---- classes


@check
def extreme_class(e, model, name, highest):
    """A class has the highest (or lowest) one-vs-rest AUC of a model."""
    scores = {other: e.score(model, f"auc_{other}") for other in CLASSES}
    sign = 1 if highest else -1
    outcomes = {}
    for other in CLASSES:
        if other != name:
            gap = scores[name] - scores[other] if highest else scores[other] - scores[name]
            outcomes[other] = compare(gap, len(CLASSES) - 1)
    found = max(scores, key=lambda other: sign * scores[other].value)
    outcome = NO if NO in outcomes.values() else OPEN if OPEN in outcomes.values() else YES
    tied = [other for other, o in outcomes.items() if o == OPEN]
    why = f"{'highest' if highest else 'lowest'} AUC: {found} ({number(scores[found].value)})"
    why += f"; {name} cannot be told apart from {listed(tied)}" if tied and outcome == OPEN else ""
    return Check(outcome, "", why)
