"""What a claim is made of: checks, each with an outcome, our figure and the reason.

A check holds (`YES`), is refuted (`NO`), is open because the interval reaches over the edge (`OPEN`), or cannot be
told from this run (`UNKNOWN`). A value holds when its 90% interval lies within the tolerance and is refuted when the
interval lies outside: two one-sided tests at 5%. An order holds, or is refuted, when the interval of the paired
difference leaves out zero.
"""

import functools
from dataclasses import dataclass

from fer_utils.claims.evidence import Score, Untestable, number
from fer_utils.words import interval

YES, NO, OPEN, UNKNOWN = "yes", "no", "open", "unknown"

EPS = 1e-9  # floats that miss a tolerance by less than this meet it
ALPHA = 0.05  # chance of a wrong decision of each one-sided test

#: Every claim's function by the claim's id; the modules of claims fill it.
JUDGES = {}


@dataclass(frozen=True)
class Check:
    """One part of a claim."""

    outcome: str
    ours: str = ""  # our figure in words
    why: str = ""
    low: float | None = None  # of its 95% interval
    high: float | None = None
    difference: float | None = None  # distance from the thesis's figure, as a part of that
    lacking: tuple = ()  # models that lack a training that counts


def judges(*ids):
    """Register a function ``(evidence, claim)`` for these claims; its docstring's first paragraph is shown as the rule.

    It returns a `Check` or a list of them, or raises `Untestable`.
    """

    def register(function):
        JUDGES.update(dict.fromkeys(ids, function))
        return function

    return register


def check(function):
    """Turn `Untestable` into a check that says what is lacking, so that other checks of the claim still count."""

    @functools.wraps(function)
    def guarded(*arguments, **options):
        try:
            return function(*arguments, **options)
        except Untestable as error:
            return Check(UNKNOWN, why=error.reason, lacking=error.models)

    return guarded


def fact(holds, ours="", why="", *, wrong="", difference=None):
    """A check of something that has no sampling error; `wrong` is the reason where it does not hold."""
    return Check(YES if holds else NO, ours, (wrong if wrong and not holds else why) or ours, difference=difference)


def unknown(why, ours=""):
    """A check that nothing in this run decides."""
    return Check(UNKNOWN, ours, why)


def named(metric):
    """``"macro F1"`` for ``"macro_f1"``; ``"validation loss"`` for ``"test_loss"``, as in the thesis."""
    words = metric.replace("test_", "validation_").split("_")
    return " ".join({"auc": "AUC", "f1": "F1"}.get(word, word) for word in words)


# ---- values


def inside(score, low, high, words):
    """Whether a score lies between two values, by two one-sided tests."""
    a, b = score.interval(1 - 2 * ALPHA)
    outside = b < low - EPS or a > high + EPS
    outcome = YES if a >= low - EPS and b <= high + EPS else NO if outside else OPEN
    place = {YES: "lies within", NO: "lies outside", OPEN: "reaches over the edge of"}[outcome]
    middle, seeds = (low + high) / 2, score.seeds
    many = f", {len(seeds)} seeds {number(min(seeds))} to {number(max(seeds))}" if len(seeds) > 1 else ""
    spread = f"90% interval {number(a)} to {number(b)} " if b > a else ""
    return Check(
        outcome,
        f"{words} {interval(score.value, *score.interval())}{many}",
        f"{words} {number(score.value)}: {spread}{place} {number(low)} to {number(high)}",
        *score.interval(),
        abs(score.value - middle) / middle if middle else None,
    )


@check
def near(e, model, metric, value, tolerance):
    """A figure on the test images is the stated one, within the tolerance."""
    return inside(e.score(model, metric), value - tolerance, value + tolerance, named(metric))


@check
def settles(e, model, column, level, tolerance):
    """A curve settles at a level, or between two, within the tolerance."""
    low, high = level if isinstance(level, list) else (level, level)
    words = named(column) if column.startswith("test_") else f"training {named(column)}"
    return inside(e.level(model, column), low - tolerance, high + tolerance, words)


@check
def close(e, model, metric, tolerance):
    """Training and validation curve of a metric settle within the tolerance of each other."""
    return inside(e.gap(model, metric), -tolerance, tolerance, f"validation less training {named(metric)}")


def either(*checks):
    """One of several readings: holds if one does, refuted if all are."""
    outcomes = [part.outcome for part in checks]
    outcome = next((o for o in (YES, UNKNOWN, OPEN) if o in outcomes), NO)
    best = checks[outcomes.index(outcome)]
    ours, why = (dict.fromkeys(filter(None, (getattr(part, name) for part in checks))) for name in ("ours", "why"))
    return Check(outcome, ", ".join(ours), "; ".join(why), best.low, best.high, best.difference, best.lacking)


# ---- orders


def compare(difference, comparisons=1):
    """Outcome of "the first is larger", from the paired difference; Bonferroni's correction for several."""
    low, high = difference.interval(1 - ALPHA / comparisons)
    return YES if low > EPS else NO if high < -EPS else OPEN


@check
def above(words, first, second):
    """The first of two scores is larger; each side is (name, function that returns it)."""
    (name, ours), (other, theirs) = [(name, score()) for name, score in (first, second)]
    gap = ours - theirs
    text = f"{words}: {name} {number(ours.value)}, {other} {number(theirs.value)}"
    return Check(compare(gap), text, f"{name} less {other}: {signed(gap, 0.95)}")


def signed(gap, level):
    """``"+0.021 [+0.010, +0.032]"``."""
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(gap.value, *gap.interval(level))


def falls_below(e, model, column, other):
    """The first of two curves of one model settles below the second."""
    return above(e.label(model), *((named(c), lambda c=c: e.level(model, c)) for c in (other, column)))


@check
def first_of(e, model, others, score, words, highest=True, margin=0.0):
    """A model or class is first (or last) of several by ``score(name)``; refuted as soon as one that is there beats it.

    Another may be ahead by `margin`. Where two are not told apart, the reason names the difference that could be.
    """
    found, lacking, whys = {model: score(model)}, [], {NO: [], UNKNOWN: [], OPEN: [], YES: []}
    for other in others:
        try:
            found[other] = score(other)
        except Untestable as error:
            if not error.models:
                raise
            lacking += error.models
            continue
        gap = found[model] - found[other]
        outcome = compare(Score(0, (gap.draws if highest else -gap.draws) + margin, ()), len(others))
        by = signed(gap, 1 - ALPHA / len(others)) + (e.power(model, other) if words == "accuracy" else "")
        tie = ", not told apart" * (outcome == OPEN)
        whys[outcome].append(f"{e.label(model)} less {e.label(other)}: {by}{tie}")
    outcome = next(o for o in whys if whys[o] or o == YES or (o == UNKNOWN and lacking))
    order = sorted(found, key=lambda m: found[m].value, reverse=highest)
    text = f"{words}: " + ", ".join(f"{e.label(m)} {number(found[m].value)}" for m in order)
    why = "" if outcome == YES else "; ".join(whys[outcome])  # that all are beaten is said by the claim
    return Check(outcome, text, f"{words}: {why}", lacking=tuple(lacking))
