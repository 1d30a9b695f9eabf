"""Rules that judge claims, and those about the dataset, the thesis's own numbers and the literature.

A rule is a function of the evidence and its parameters in ``claims.yaml``; it computes our figure and says whether
the thesis's statement holds for it. Its sentence, filled in from the same parameters, is what the report shows as
the rule applied. Rules about networks are in `rules_setup`, about scores in `rules_scores`,
about learning curves in `fer_utils.claims.rules_curves`.
"""

import inspect
from dataclasses import dataclass

import numpy as np

from fer_utils.claims.evidence import LABELS, number
from fer_utils.constants import IMAGE_SIZE, USAGES
from fer_utils.words import STARTS, interval, listed


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Attributes
    ----------
    holds : bool or None
        Whether the statement holds for our figure; for a contradiction, whether its sides exclude each other.
        None if this run cannot tell.
    ours : str
        Our figure or figures, for people.
    value : float or None
        The first of them.
    low, high : float or None
        Its 95% interval, where it has one.
    difference : float or None
        How far ours is from the thesis's, as a part of the thesis's; for a contradiction, how far its sides are
        apart, as a part of the larger one, and 1 for answers that share nothing. None where there is no such number.
    note : str
        Why it does not hold, or cannot be told; for a contradiction, both sides.
    """

    holds: bool | None
    ours: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Rule:
    """A function that judges, its sentence, and whether it is about a single model."""

    judge: callable
    sentence: str
    single: bool


#: Every rule by its name; the modules of rules fill it.
RULES = {}

#: The words for a column of ``history.csv`` or a metric.
WORDS = {
    "auc": "AUC",
    "f1": "F1",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
}


def rule(sentence):
    """Register a rule under its function's name.

    Parameters
    ----------
    sentence : str
        What the rule demands, with its parameters in braces.
    """

    def register(function):
        single = "model" in inspect.signature(function).parameters
        RULES[function.__name__] = Rule(function, sentence, single)
        return function

    return register


def metric_words(name):
    """Return ``"macro F1"`` for ``"macro_f1"``."""
    return WORDS.get(name, name.replace("_", " "))


def curve_words(column):
    """Call a column as the thesis does: ``"loss"`` is "training loss", ``"test_loss"`` a validation loss.

    The images are named, as those that a training of the sound protocol validates on are PublicTest alone.
    """
    if column.startswith("test_"):
        return f"validation {metric_words(column.removeprefix('test_'))} (PublicTest and PrivateTest)"
    return f"training {metric_words(column)}"


def label_words(name):
    """Return a model's name as people read it, any other word as it is."""
    return LABELS.get(name, name)


def where_words(where):
    """Return a place in the thesis as people read it: ``"chapter 6"`` for ``"6"``, ``"Fig. 5.1"`` as it is."""
    return f"chapter {where}" if where[0].isdigit() else where


def sentence_of(name, parameters):
    """Fill in a rule's sentence.

    Parameters
    ----------
    name : str
        The rule's name.
    parameters : dict
        As the rule gets them.

    Returns
    -------
    str
    """
    shown = {}
    for key, value in parameters.items():
        if key in ("curve", "other"):
            shown[key] = curve_words(value)
        elif key == "metric":
            shown[key] = metric_words(value)
        elif key == "model":
            shown[key] = label_words(value)
        elif key == "pairs":
            shown[key] = ", ".join("/".join(pair) for pair in value)
        elif isinstance(value, list):
            shown[key] = listed(label_words(v) if isinstance(v, str) else v for v in value) or "any"
        elif isinstance(value, dict):
            shown[key] = ", ".join(
                f"{label_words(k)} {listed(v) if isinstance(v, list) else v}" for k, v in value.items()
            )
        elif isinstance(value, int) and value >= 1000:
            shown[key] = f"{value:,}"
        else:
            shown[key] = value
    return RULES[name].sentence.format(**shown)


# ---- shared by rules about models


def within(ours, thesis, tolerance):
    """Whether ours is no farther from the thesis's than the tolerance, whatever the last bits of a float say."""
    return abs(ours - thesis) <= tolerance + 1e-9


def relative(ours, thesis):
    """Return how far ours is from the thesis's, as a part of the thesis's; None where ours is no number."""
    return None if ours is None or not np.isfinite(ours) else abs(ours - thesis) / abs(thesis)


def close_call(first, second):
    """Return the words for two intervals that overlap, so that another sample of images could turn the order."""
    return "; not told apart: their 95% intervals overlap" if first[0] <= second[1] and second[0] <= first[1] else ""


def ranked(evidence, claim, values, model, which, words, intervals=None):
    """Judge whether a model is first or last among the claim's models.

    Parameters
    ----------
    evidence : Evidence
    claim : Claim
    values : dict of str to (float or None)
        By model.
    model : str
        The model that is said to be extreme.
    which : {"highest", "lowest"}
    words : str
        What is compared.
    intervals : dict of str to (float, float), optional
        By model; where those of the first two overlap, that is said. The order decides all the same, as it does
        in the thesis, which has one training of each model.

    Returns
    -------
    Finding
    """
    stated = values
    values = {m: value for m, value in values.items() if value is not None and np.isfinite(value)}
    order = sorted(values, key=values.get, reverse=which == "highest")
    text = f"{words}: " + ", ".join(f"{evidence.label(m)} {number(values[m])}" for m in order)
    if len(values) < len(claim.models):
        lacking = [evidence.label(m) for m in stated if m not in values]
        return Finding(None, text if values else "", note=f"no {words} of {listed(lacking)}")
    extreme = values[order[0]]
    tied = sum(value == extreme for value in values.values()) > 1
    if intervals:
        text += close_call(intervals[order[0]], intervals[order[1]])
    return Finding(
        order[0] == model and not tied,
        text,
        values[model],
        note=f"{evidence.label(order[0])} is {which} by {words} ({number(extreme)}), "
        f"{evidence.label(model)} has {number(values[model])}",
    )


# ---- the dataset: counts of the dataset notebook


@rule("The number of {of} images is {value}, give or take {tolerance}")
def image_count(evidence, of, value, tolerance):
    """Judge a number of images: ``of`` is ``all`` or ``test``."""
    counts = evidence.class_counts(USAGES if of == "all" else USAGES[1:])
    if not counts:
        return Finding(None)
    ours = sum(counts.values())
    return Finding(
        abs(ours - value) <= tolerance,
        f"{ours:,}",
        ours,
        difference=abs(ours - value) / value,
        note=f"{ours:,} images against {value:,}: {ours - value:+,}",
    )


@rule("Each class has as many images as stated, give or take {tolerance}")
def class_counts(evidence, value, tolerance):
    """Judge the rows of Table 3.1."""
    counts = evidence.class_counts(USAGES)
    if not counts:
        return Finding(None)
    off = {name: counts[name] - value[name] for name in value if abs(counts[name] - value[name]) > tolerance}
    return Finding(
        not off,
        ", ".join(f"{name} {counts[name]:,}" for name in value),
        difference=max(abs(counts[name] - value[name]) / value[name] for name in value),
        note=f"{len(off)} of {len(value)} classes differ: " + ", ".join(f"{name} {by:+,}" for name, by in off.items()),
    )


@rule("Over the whole dataset no class has more images than {largest}, none fewer than {smallest}")
def extreme_classes(evidence, largest, smallest):
    """Judge which class is the largest and which the smallest."""
    counts = evidence.class_counts(USAGES)
    if not counts:
        return Finding(None)
    most, fewest = max(counts, key=counts.get), min(counts, key=counts.get)
    return Finding(
        counts[largest] == counts[most] and counts[smallest] == counts[fewest],
        f"largest {most} ({counts[most]:,}), smallest {fewest} ({counts[fewest]:,})",
        note=f"{largest} has {counts[largest]:,} images, {smallest} {counts[smallest]:,}",
    )


@rule("The data could be read, which takes images of {size}x{size} pixels, and {classes} classes have images")
def image_form(evidence, size, classes):
    """Judge the images' size and the number of classes; `fer_utils.data.decoding` refuses images of another size."""
    counts = evidence.class_counts(USAGES)
    if not counts:
        return Finding(None)
    found = sum(n > 0 for n in counts.values())
    text = f"{IMAGE_SIZE}x{IMAGE_SIZE} (others are refused), {found} classes"
    return Finding((size, classes) == (IMAGE_SIZE, found), text, note=text)


@rule("PublicTest and PrivateTest are {value} of all images, within {tolerance}")
def test_share(evidence, value, tolerance):
    """Judge the share of the test images."""
    every, test = (sum(evidence.class_counts(usages).values()) for usages in (USAGES, USAGES[1:]))
    if not every:
        return Finding(None)
    share = test / every
    return Finding(
        abs(share - value) <= tolerance,
        f"{share:.4f} ({test:,} of {every:,})",
        share,
        difference=abs(share - value) / value,
        note=f"the test images are {share:.1%} of all",
    )


@rule("Every class has at least {value} images in PublicTest and PrivateTest together")
def enough_per_class(evidence, value):
    """Judge whether a balanced sample of the test set can be drawn."""
    counts = evidence.class_counts(USAGES[1:])
    if not counts:
        return Finding(None)
    fewest = min(counts, key=counts.get)
    short = [f"{name} has {n}" for name, n in counts.items() if n < value]
    return Finding(
        not short,
        f"fewest: {fewest}, {counts[fewest]}",
        counts[fewest],
        difference=max(0, value - counts[fewest]) / value,
        note=f"{listed(short)} test images",
    )


# ---- contradictions: both sides from the thesis's own numbers


def digits(text):
    """Count the decimals in which a number is written."""
    return len(text.partition(".")[2])


def bounds(number, exact):
    """Return the values that a written number can stand for.

    Parameters
    ----------
    number : str or list of str
        A number, or the two ends of a range.
    exact : bool
        Whether it is a count and so not rounded.

    Returns
    -------
    low, high : float
        Half a unit of the last decimal to each side.
    """
    ends = number if isinstance(number, list) else [number]
    reach = [0 if exact else 0.5 * 10 ** -digits(end) for end in ends]
    return float(ends[0]) - reach[0], float(ends[-1]) + reach[-1]


def written(number):
    """Return a number, or the ends of a range, as the thesis writes it."""
    return " to ".join(number) if isinstance(number, list) else number


@rule(
    "The sides exclude each other: no number rounds to all of them, when each may be off by half a unit of the "
    "last decimal in which it is written ({quantity})"
)
def no_common_number(evidence, quantity, sides, beside=None):
    """Judge whether numbers given for the same thing can all be true."""
    found = [bounds(side["number"], side.get("exact", False)) for side in sides]
    low, high = max(b[0] for b in found), min(b[1] for b in found)
    # Counts agree only if equal; rounded numbers that share no more than an end cannot both be right.
    exact = any(side.get("exact", False) for side in sides)
    excluded = low > high if exact else low > high - 1e-9
    middles = [(b[0] + b[1]) / 2 for b in found]
    said = "; ".join(f"{written(side['number'])} ({where_words(side['where'])})" for side in sides)
    return Finding(
        excluded,
        BESIDE[beside](evidence) if beside else "",
        difference=(max(middles) - min(middles)) / max(middles),
        note=f"{quantity}: {said}" + ("" if excluded else ", which can all be true"),
    )


@rule("The sides exclude each other: no answer to “{question}” is among those that every side allows")
def no_common_answer(evidence, question, sides, beside=None):
    """Judge whether answers given to the same question can all be true.

    A side has ``answers``, or ``lowest_of``: numbers by name, the answer being the name with the lowest.
    """
    allowed = [
        (
            side["where"],
            [min(side["lowest_of"], key=side["lowest_of"].get)] if "lowest_of" in side else side["answers"],
        )
        for side in sides
    ]
    common = set.intersection(*(set(answers) for _, answers in allowed))
    said = "; ".join(
        f"{' or '.join(label_words(a) for a in answers)} ({where_words(where)})" for where, answers in allowed
    )
    return Finding(
        not common,
        BESIDE[beside](evidence) if beside else "",
        difference=0.0 if common else 1.0,
        note=f"{question} {said}" + (f", which {listed(sorted(common))} satisfies" if common else ""),
    )


@rule("The sides exclude each other: the rows of the table do not add up to the stated total")
def sum_of_rows(evidence, total, rows, beside=None):
    """Judge whether a table's rows add up to the total that the text states."""
    found = sum(rows.values())
    *first, _ = rows.values()
    return Finding(
        found != total,
        BESIDE[beside](evidence) if beside else "",
        difference=abs(found - total) / max(found, total),
        note=f"stated {total:,}; the {len(rows)} rows add up to {found:,}, the first {len(first)} to {sum(first):,}",
    )


@rule("The sides exclude each other: {share} of the stated total is {tolerance} image or more away from {part}")
def part_of_total(evidence, part, share, total, other_total, tolerance, beside=None):
    """Judge whether a part is the stated share of the stated total."""
    expected = share * total
    return Finding(
        abs(part - expected) >= tolerance,
        BESIDE[beside](evidence) if beside else "",
        difference=abs(part - expected) / max(part, expected),
        note=f"{share:.0%} of {total:,} is {expected:,.0f}; {part:,} is {share:.0%} of {other_total:,} "
        f"({share * other_total:,.1f})",
    )


# ---- our figure beside a contradiction


def whole_run(evidence):
    """Return the names of all models of the run, in its order."""
    return list(dict.fromkeys(result.model for result in evidence.run.models))


def total_beside(usages):
    """Return a function that gives the number of images of some parts."""

    def beside(evidence):
        counts = evidence.class_counts(usages)
        return f"{sum(counts.values()):,}{evidence.beside_data()}" if counts else ""

    return beside


def colour_beside(evidence):
    """Return the images' colour: `fer_utils.data.decoding` refuses all that is not grey, so read data are."""
    return f"one grey channel (others are refused){evidence.beside_data()}" if evidence.fingerprint else ""


def classes_beside(evidence):
    """Count the classes that have images."""
    found = sum(n > 0 for n in evidence.class_counts(USAGES).values())
    return f"{found}{evidence.beside_data()}" if found else ""


def extreme_beside(metric, choose):
    """Return a function that gives the model with the highest or lowest value of a metric."""

    def beside(evidence):
        models = [m for m in whole_run(evidence) if m in LABELS]
        scores = {m: evidence.score(m, metric)[0] for m in models}
        scores = {m: value for m, value in scores.items() if value is not None}
        if len(scores) < 2:
            return ""
        model = choose(scores, key=scores.get)
        return f"{evidence.label(model)}, {number(scores[model])}{evidence.beside(scores)}"

    return beside


def resnet_beside(*names):
    """Return a function that gives metrics of ResNet-50."""

    def beside(evidence):
        found = [(name, evidence.score("resnet50", name)) for name in names]
        texts = [
            f"{metric_words(name)} {interval(value, low, high)}"
            for name, (value, low, high, _) in found
            if value is not None
        ]
        return f"{', '.join(texts)}{evidence.beside(['resnet50'])}" if texts else ""

    return beside


def weights_beside(evidence):
    """Say what each model of this run started from."""
    first = evidence.run.first_seeds
    return ", ".join(f"{result.label}: {STARTS[result.record['weights']['used']]}" for result in first)


def mobilenet_beside(evidence):
    """List which MobileNets were trained here."""
    return listed(evidence.label(m) for m in whole_run(evidence) if m.startswith("mobilenet"))


def input_beside(evidence):
    """Return the size of the images that our VGG-16 takes."""
    shapes = [r.architecture.get("input_shape") for r in evidence.results("vgg16")]
    return f"{shapes[0][0]}x{shapes[0][1]}" if shapes and shapes[0] else ""


#: Our figure beside a contradiction, by the name that ``beside`` has in ``claims.yaml``.
BESIDE = {
    "image_total": total_beside(USAGES),
    "test_total": total_beside(USAGES[1:]),
    "image_colour": colour_beside,
    "class_total": classes_beside,
    "best_accuracy": extreme_beside("accuracy", max),
    "worst_accuracy": extreme_beside("accuracy", min),
    "best_precision": extreme_beside("macro_precision", max),
    "resnet_accuracy": resnet_beside("accuracy"),
    "resnet_precision": resnet_beside("precision", "macro_precision"),
    "resnet_recall": resnet_beside("recall", "macro_recall"),
    "starting_weights": weights_beside,
    "fourth_model": mobilenet_beside,
    "input_size": input_beside,
}


# ---- the literature


@rule("None: it takes {source}'s own method and data ({data})")
def citation(evidence, source, data, value):
    """Say what is cited; nothing in a run of this package tests it."""
    return Finding(None, note=f"cited from {source}: {value:.2%} on {data}; nothing here repeats that study")
