"""Comparing trainings with each other, image by image, and two runs side by side.

Both of a pair are scored on the same images, so tests and intervals are paired. Two runs have their conditions too, and
what of these may explain a difference.
"""

import dataclasses
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.errors import ResultsError
from fer_utils.findings.statistics import normal_interval
from fer_utils.metrics import scores
from fer_utils.paths import project_root
from fer_utils.provenance import digest_predictions
from fer_utils.words import commit_text, listed

#: Where the published set lies that a run is put beside.
PUBLISHED = project_root() / "figures"

#: Parameters of a notebook that decide no number, or that `conditions` shows by what came of them.
HIDDEN = {
    *("model", "label", "notebook", "data", "out", "profile", "protocol", "images_per_class", "test_images_per_class"),
    *("epochs", "weights", "seed", "precision", "fast_layers", "threads"),
}

#: The parameters of the network; see `causes`.
NETWORK = "network"

#: Causes that a sentence names; the table has all of them.
NAMED = 4

#: Conditions that come after the parameters, in this order.
LAST = (
    *("augmentation", NETWORK, "test images (test_images_per_class)", "seed", "precision", "fast_layers", "code"),
    *("tensorflow", "keras", "device", "threads", "numpy", "python", "platform", "decoder"),
)

#: Conditions that build no other network.
FIXED = {"data", "protocol", "training images (images_per_class)", "epochs", *LAST}

#: What stands for a value that an older record lacks.
UNKNOWN = "–"


def aligned(results, part="test"):
    """Bring the predictions of several trainings into one order of images.

    Returns ids (n,), labels (n,) and one array of probabilities (n, 7) for each training; `part` is as in
    `ModelResult.select`. ResultsError if the trainings did not predict the same images, or disagree about a label.
    """
    tables = [result.predictions[result.mask(part)].set_index("id") for result in results]
    first, name = tables[0], results[0].label
    for result, table in zip(results, tables, strict=True):
        same = table.index.equals(first.index)  # as they mostly are; to look up each id takes long
        if not same and (len(table) != len(first) or not table.index.isin(first.index).all()):
            raise ResultsError(
                f"{result.label} predicted {len(table)} images of the part {part!r}, {name} {len(first)}, and they are "
                "not the same ones. Run both on the same data and settings."
            )
        if (table["label"].reindex(first.index) != first["label"]).any():
            raise ResultsError(f"{result.label} has other labels than {name} for the same images: use the same data.")
    tables = [table.loc[first.index] for table in tables]
    y_true = first["label"].to_numpy(dtype=np.int64)
    return first.index, y_true, [table[list(PROBABILITY_COLUMNS)].to_numpy() for table in tables]


def comparable(results):
    """Return those trainings that can be ranked with the first: under its protocol, tested on the same images."""

    def key(result):
        return result.record["protocol"], frozenset(result.predictions.loc[result.mask("test"), "id"])

    return [result for result in results if key(result) == key(results[0])]


def ensemble(results, part):
    """Average the probabilities of several trainings (soft voting); labels (n,) and probabilities (n, 7)."""
    _, y_true, y_proba = aligned(results, part)
    return y_true, np.mean(y_proba, axis=0)


def compare(results, part="test"):
    """McNemar's exact test between each pair of trainings, with Holm's correction over the pairs.

    Returns
    -------
    DataFrame
        One row per pair: ``a``, ``b`` (labels), ``n``, ``only_a`` and ``only_b`` (images that only one of them
        classifies correctly), ``difference`` (accuracy of a less that of b) with its interval ``low``, ``high``
        (normal, of paired proportions), ``p``, ``p_holm``, and ``detectable``, the difference that this pair's
        disagreement lets a test find (see `detectable`). Empty for fewer than two trainings.
    """
    columns = ["a", "b", "n", "only_a", "only_b", "difference", "low", "high", "p", "p_holm", "detectable"]
    if len(results) < 2:
        return pd.DataFrame(columns=columns)
    _, y_true, y_proba = aligned(results, part)
    n, right = len(y_true), [proba.argmax(axis=1) == y_true for proba in y_proba]
    rows = []
    for i, j in combinations(range(len(results)), 2):
        only_a, only_b = int((right[i] & ~right[j]).sum()), int((right[j] & ~right[i]).sum())
        gap, apart = (only_a - only_b) / n, (only_a + only_b) / n
        low, high = normal_interval(gap, (apart - gap**2) / n, bounds=(-1.0, 1.0))
        p = float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)
        rows.append((results[i].label, results[j].label, n, only_a, only_b, gap, low, high, p, detectable(n, apart)))
    pairs = pd.DataFrame(rows, columns=[name for name in columns if name != "p_holm"])
    return pairs.assign(p_holm=multipletests(pairs["p"], method="holm")[1])[columns]


def detectable(n, discordance):
    """Smallest difference in accuracy that a paired test of `n` images at 5% finds with a power of 80%.

    `discordance` is the share of the images that one of the two classifies correctly and the other does not.
    """
    return float(stats.norm.ppf([0.975, 0.8]).sum() * np.sqrt(discordance / n))


# --- two runs


def conditions(result):
    """Map what may change a training's numbers to its value; parameters have their name, alone or in brackets."""
    record, split, weights = result.record, result.record["split"], result.record["weights"]
    data, device, versions = record["data"], record.get("device", {}), record.get("versions", {})
    sha = f" ({weights['sha256'][:8]})" if weights.get("sha256") else ""
    fast = record.get("fast_layers")
    last = (
        *(", ".join(result.augmentation.values()) or "none", result.architecture.get("parameters", {}).get("total")),
        *(sum(split.get(name) or 0 for name in ("public", "private")), result.seed, record.get("precision")),
        *(None if fast is None else "on" if fast else "off", commit_text(record)),
        *(versions.get("tensorflow"), versions.get("keras")),
        *(f"{device.get('kind', '')} {device.get('name', '')}".strip(), device.get("threads")),
        *(versions.get(name) for name in ("numpy", "python", "platform")),
        data.get("decoder"),
    )
    found = {
        "data": f"{data.get('variant')} ({str(data.get('fingerprint'))[:8]})",
        "protocol": record["protocol"],
        "training images (images_per_class)": split.get("train"),
        "epochs": record["epochs"].get("run"),
        "weights": f"{weights['used']}{sha}",
        **{name: value for name, value in record["parameters"].items() if name not in HIDDEN},
        **dict(zip(LAST, last, strict=True)),
    }
    return {name: UNKNOWN if value in (None, "") else str(value) for name, value in found.items()}


def pairs(run, other):
    """Pair the trainings of two runs by model and seed, or by model and first seed; list of (ours, theirs)."""
    theirs = {result.key: result for result in other.models}
    found = [(result, theirs[result.key]) for result in run.models if result.key in theirs]
    paired = {ours.model for ours, _ in found}
    first = {result.model: result for result in other.first_seeds}
    rest = [result for result in run.first_seeds if result.model in first and result.model not in paired]
    return found + [(result, first[result.model]) for result in rest]


def side_by_side(paired):
    """List every condition of pairs of trainings, the most consequential first.

    Returns
    -------
    DataFrame
        ``condition``, ``a``, ``b`` (a value per model where the models have several), ``differs``, the models in
        which the two sides differ: ``"all"``, their labels, or empty, and ``recorded``, whether both sides recorded it.
    """
    both = [(conditions(ours), conditions(theirs)) for ours, theirs in paired]
    labels, rows = [named(ours, paired) for ours, _ in paired], []
    names = dict.fromkeys(name for sides in both for side in sides for name in side)
    for name in sorted(names, key=lambda name: LAST.index(name) + 1 if name in LAST else 0):
        values = [[side.get(name, UNKNOWN) for side in sides] for sides in both]
        # A parameter that only some models have is shown for these.
        shown = [(label, *pair) for label, pair in zip(labels, values, strict=True) if set(pair) != {UNKNOWN}]
        apart = [label for label, a, b in shown if a != b]
        recorded = all(UNKNOWN not in pair for pair in shown)
        if not shown:
            continue
        texts = [grouped([(line[0], line[side]) for line in shown]) for side in (1, 2)]
        rows.append((name, *texts, "all" if apart and len(apart) == len(shown) else ", ".join(apart), recorded))
    return pd.DataFrame(rows, columns=["condition", "a", "b", "differs", "recorded"])


def grouped(values):
    """Write (label, value) as one value, or each value with the labels that have it."""
    found = {}
    for label, value in values:
        found.setdefault(value, []).append(label)
    return "; ".join(f"{value} ({', '.join(labels)})" if len(found) > 1 else value for value, labels in found.items())


def causes(table):
    """Return those rows of `side_by_side` that may explain a difference, the most likely first.

    What one side did not record comes last.
    """
    apart = table[table["differs"] != ""].sort_values("recorded", ascending=False, kind="stable")
    names = list(apart["condition"])
    # With the same code, another network comes from a parameter.
    explained = NETWORK in names and "code" not in names and not set(names).isdisjoint(set(table["condition"]) - FIXED)
    return apart[apart["condition"] != NETWORK] if explained else apart


def named(result, paired):
    """Label of a training, with its seed where the pairs have several of its model."""
    several = sum(result.model == ours.model for ours, _ in paired) > 1
    return result.title if several else result.label


def on_the_same_images(ours, theirs):
    """Return copies of two trainings with the predictions of those test images only that both predicted."""
    tables = [result.predictions[result.mask("test")] for result in (ours, theirs)]
    common = set(tables[0]["id"]) & set(tables[1]["id"])
    copies = [dataclasses.replace(result) for result in (ours, theirs)]
    for copy, table in zip(copies, tables, strict=True):
        vars(copy)["predictions"] = table[table["id"].isin(common)]
    return copies


def score(paired):
    """Compare the scores of pairs of trainings on the same images.

    Returns
    -------
    DataFrame
        One row per pair and part (PrivateTest, and all test images): ``label``, ``part``, ``n`` (images in both),
        ``accuracy_a``, ``accuracy_b``, ``difference`` with its 95% interval ``low``, ``high``, ``p`` (McNemar's exact
        test), ``macro_f1_a``, ``macro_f1_b`` and ``identical``, whether the predictions are the same bit by bit. A pair
        without a common image, or with other labels, has its own scores and no difference.
    """
    rows = []
    for ours, theirs in paired:
        sides = on_the_same_images(ours, theirs)
        for part in ("private", "test"):
            row = {"label": named(ours, paired), "part": part, "n": int(sides[0].mask(part).sum()), "identical": False}
            try:
                found = compare(sides, part).iloc[0] if row["n"] else {}
            except ResultsError:
                found = {}
            shown = sides if len(found) else (ours, theirs)
            if len(found):
                digests = {digest_predictions(side.predictions[side.mask(part)].sort_values("id")) for side in sides}
                row["identical"] = len(digests) == 1
            for letter, result in zip("ab", shown, strict=True):
                values = scores(*result.select(part))
                row |= {f"accuracy_{letter}": values["accuracy"], f"macro_f1_{letter}": values["macro_f1"]}
            rows.append(row | {name: found.get(name) for name in ("difference", "low", "high", "p")})
    columns = ["label", "part", "n", "accuracy_a", "accuracy_b", "difference", "low", "high", "p"]
    return pd.DataFrame(rows)[[*columns, "macro_f1_a", "macro_f1_b", "identical"]].astype(
        dict.fromkeys(("difference", "low", "high", "p"), float)
    )


def sentence(scored, table, names=("this run", "the other")):
    """Say how far two runs lie apart and which of their conditions differ, the most consequential first."""
    rows, apart = scored[scored["part"] == "test"], causes(table)
    row = rows.loc[(rows["accuracy_a"] - rows["accuracy_b"]).abs().idxmax()]
    told = "The largest difference: " if len(rows) > 1 else ""
    told += f"{row['label']} has an accuracy of {row['accuracy_a']:.3f} ({names[0]}) and {row['accuracy_b']:.3f} "
    told += f"({names[1]})"
    low, high = row["low"], row["high"]
    if rows["identical"].all():
        told = "The predictions are the same, bit by bit"
    elif low == low:
        told += f", {100 * row['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}] on the same "
        told += f"{row['n']:,} images" + (", which is no more than chance" if low <= 0 <= high else "")
    else:
        told += "; the test images or their labels are not the same, so there is no interval"
    texts = [
        f"{row.condition} ({row.a} against {row.b}{'' if row.differs == 'all' else f'; {row.differs}'})"
        for row in apart.head(NAMED).itertuples()
    ]
    more = f", and {len(apart) - NAMED} more" if len(apart) > NAMED else ""
    if not texts:
        cause = "No recorded condition differs."
    elif len(apart) == 1:
        cause = f"One condition differs: {texts[0]}."
    elif rows["identical"].all():
        cause = f"What differs did not change them: {listed(texts)}{more}."
    else:
        cause = f"What differs, the most likely cause first: {listed(texts)}{more}."
    return f"{told}. {cause}"
