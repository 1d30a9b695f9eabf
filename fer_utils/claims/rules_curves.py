"""Rules about single learning curves (thesis, Figs. 5.2 to 5.7).

The thesis's "validation" is its 20% test set, so validation curves are the history's ``test_`` columns. A level is
the mean of the last fifth of the epochs; with several seeds, the mean of their levels. Curves of fewer than five
epochs are not judged (`fer_utils.claims.claims.apply`).
"""

import numpy as np

from fer_utils.claims.evidence import TAIL, number, tail
from fer_utils.claims.rules import Finding, curve_words, ranked, relative, rule, within


def level_text(evidence, model, column):
    """Describe a level: ``"validation loss 1.21 (1.18 to 1.25 over the last fifth)"``."""
    ends = np.concatenate([tail(curve) for curve in evidence.curves(model, column)])
    level = number(evidence.settled(model, column))
    return f"{curve_words(column)} {level} ({number(ends.min())} to {number(ends.max())} over the last fifth)"


@rule("The mean of the last fifth of the epochs of {model}'s {curve} is {value}, within {tolerance}")
def settles_near(evidence, model, curve, value, tolerance):
    """Judge the level at which a curve settles."""
    level = evidence.settled(model, curve)
    return Finding(
        within(level, value, tolerance),
        level_text(evidence, model, curve),
        level,
        difference=relative(level, value),
        note=f"{curve_words(curve)} settles at {number(level)}, {abs(level - value):.3f} from {value}",
    )


@rule(
    "The mean of the last fifth of the epochs of {model}'s {curve} lies from {low} to {high}, within {tolerance} "
    "of either end"
)
def settles_within(evidence, model, curve, low, high, tolerance):
    """Judge whether a curve settles in a range."""
    level = evidence.settled(model, curve)
    outside = max(low - level, level - high, 0)
    return Finding(
        within(outside, 0, tolerance),
        level_text(evidence, model, curve),
        level,
        difference=outside / low,
        note=f"{curve_words(curve)} settles at {number(level)}, {outside:.3f} outside {low} to {high}",
    )


@rule("{model}'s {curve} exceeds {value} in at least one epoch")
def passes(evidence, model, curve, value):
    """Judge whether a curve gets above a value."""
    highest = float(np.mean([np.nanmax(c) for c in evidence.curves(model, curve)]))
    text = f"highest {curve_words(curve)} {number(highest)}"
    return Finding(highest > value, text, highest, note=text)


@rule("The mean of {model}'s {curve} is lower in each fifth of the epochs than in the one before")
def keeps_falling(evidence, model, curve):
    """Judge whether a curve falls to the end."""
    curves = evidence.curves(model, curve)
    fifths = np.mean([[part.mean() for part in np.array_split(c, TAIL)] for c in curves], axis=0)
    text = f"{curve_words(curve)} by fifths {', '.join(number(x) for x in fifths)}"
    return Finding(bool((np.diff(fifths) < 0).all()), text, note=text)


def settling_epoch(values, tolerance):
    """Return the first epoch (from 1) from which a curve stays within a tolerance of its final level.

    Parameters
    ----------
    values : ndarray of float, shape (epochs,)
    tolerance : float

    Returns
    -------
    int or None
        None if the last epoch is still outside.
    """
    outside = np.flatnonzero(~(np.abs(values - tail(values).mean()) <= tolerance))
    if not len(outside):
        return 1
    return int(outside[-1]) + 2 if outside[-1] + 1 < len(values) else None


@rule(
    "The first epoch from which {model}'s {curve} stays within {tolerance} of the mean of its last fifth is epoch "
    "{epoch}, give or take {within}"
)
def settles_at(evidence, model, curve, epoch, within, tolerance):
    """Judge when a curve settles."""
    found = [settling_epoch(c, tolerance) for c in evidence.curves(model, curve)]
    if None in found:
        text = f"{curve_words(curve)} does not settle"
        return Finding(False, text, note=text)
    ours = float(np.mean(found))
    text = f"{curve_words(curve)} settles at epoch {ours:.0f}"
    return Finding(abs(ours - epoch) <= within, text, ours, difference=relative(ours, epoch), note=text)


@rule("The mean of the last fifth of the epochs of {model}'s {curve} is below that of {other}")
def lies_below(evidence, model, curve, other):
    """Judge which of two curves ends lower."""
    ours, theirs = evidence.settled(model, curve), evidence.settled(model, other)
    text = f"{curve_words(curve)} {number(ours)}, {curve_words(other)} {number(theirs)}"
    return Finding(ours < theirs, text, ours, note=text)


@rule("The means of the last fifth of the epochs of {model}'s {curve} and {other} differ by no more than {tolerance}")
def close_together(evidence, model, curve, other, tolerance):
    """Judge whether two curves end close together."""
    gap = abs(evidence.settled(model, curve) - evidence.settled(model, other))
    text = f"{curve_words(curve)} and {curve_words(other)} differ by {number(gap)}"
    return Finding(within(gap, 0, tolerance), f"gap {number(gap)}", gap, note=text)


@rule("Over the last fifth of the epochs {model}'s {curve} exceeds its {other} by more than {tolerance} on average")
def well_above(evidence, model, curve, other, tolerance):
    """Judge whether one curve ends clearly above another."""
    gap = evidence.settled(model, curve) - evidence.settled(model, other)
    text = f"{curve_words(curve)} is {gap:+.3f} from {curve_words(other)}"
    return Finding(gap > tolerance, f"gap {gap:+.3f}", gap, note=text)


# ---- between models


@rule("Of the four models {model} has the smallest gap between {curve} and {other} over the last fifth of the epochs")
def smallest_gap(evidence, claim, model, curve, other):
    """Judge whose two curves lie closest together."""
    gaps = {
        m: abs(evidence.settled(m, curve) - evidence.settled(m, other)) for m in claim.models if evidence.results(m)
    }
    return ranked(evidence, claim, gaps, model, "lowest", f"gap of {curve_words(curve)}")


@rule("Of the four models {model} has the {which} {curve}, as the mean of the last fifth of the epochs")
def extreme_curve(evidence, claim, model, curve, which):
    """Judge which model's curve settles highest or lowest."""
    values = {m: evidence.settled(m, curve) for m in claim.models}
    return ranked(evidence, claim, values, model, which, curve_words(curve))
