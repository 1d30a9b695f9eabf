"""What explains the differences between the thesis's figures and a rerun's, each shown by a computation.

Every function takes what a run left and returns a `Part`: computed sentences, the table behind them, and, where
the run lacks what the part needs, the command that makes it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_utils import metrics
from fer_utils.constants import CLASSES, USAGES
from fer_utils.errors import ResultsError
from fer_utils.findings import comparisons
from fer_utils.findings.results import command
from fer_utils.words import STARTS, listed, plural, scored_each_epoch

#: Trainings that differ in the initial weights only, pretrained first (claim S08).
PRETRAINED_PAIRS = (("resnet50", "resnet50_scratch"), ("mobilenet_v3", "mobilenet_v3_scratch"))

#: The two networks that the thesis calls its fourth model (claim S09).
MOBILENETS = (("mobilenet_v1", "mobilenet_v3"),)

#: How the entries of ``config.yaml`` end that train a model under the thesis's protocol (claim S10).
SUFFIX = "_thesis_protocol"


@dataclass(frozen=True)
class Part:
    """One explanation: computed sentences, the tidy table behind them, and the commands that make what is missing."""

    text: str
    table: pd.DataFrame | None = None
    command: str | None = None


# --- the threshold (F25) ---------------------------------------------------------------------------------------


def threshold_curves(results, part):
    """Precision and recall against the threshold, all classes pooled.

    Returns
    -------
    DataFrame
        ``model``, ``label``, ``threshold`` (0 to 0.99), ``precision`` (NaN where nothing is predicted), ``recall`` and
        ``accuracy`` of the arg-max class, which is also its pooled precision and recall.
    """
    tables = []
    for result in results:
        y_true, y_proba = result.select(part)
        cuts = np.round(np.arange(0, 1, 0.01), 2).astype(y_proba.dtype)
        table = pd.DataFrame([metrics.thresholded(y_true, y_proba, cut) for cut in cuts]).drop(columns="f1")
        table = table.assign(precision=table["precision"].where(cuts < y_proba.max()))
        accuracy = float((y_proba.argmax(axis=1) == y_true).mean())
        tables.append(table.assign(threshold=cuts, accuracy=accuracy, model=result.model, label=result.label))
    return pd.concat(tables, ignore_index=True)


def threshold(results, part, stated, tolerance):
    """Show how the threshold of 0.5 separates precision from recall (claim F25).

    `stated` is the gap between precision and recall in the thesis's curves, at least, and `tolerance` how much less
    still counts. The table has one row per training: both kinds of precision and recall, and ``undecided``, the share
    of images with no class above 0.5.
    """
    names = ("precision", "recall", "accuracy", "macro_precision", "macro_recall")
    rows = []
    for result in results:
        y_true, y_proba = result.select(part)
        found = metrics.scores(y_true, y_proba)
        row = {"model": result.model, "label": result.label} | {name: found[name] for name in names}
        rows.append(row | {"undecided": float((y_proba.max(axis=1) <= metrics.THRESHOLD).mean())})
    table = pd.DataFrame(rows)
    gap = table["precision"] - table["recall"]
    widest = table.loc[gap.abs().idxmax()]
    where = f"For {widest['label']}" + (", where the two differ most" if gap.nunique() > 1 else "")
    text = (
        f"{where}, precision is {widest['precision']:.3f} and recall {widest['recall']:.3f} when a class counts as "
        "predicted above a probability of 0.5. When the most probable class counts, both are the accuracy, "
        f"{widest['accuracy']:.3f}, with all classes pooled. No class is above 0.5 for {widest['undecided']:.1%} of "
        "the images: such an image lowers recall and leaves precision as it is. "
    )
    wide = table.loc[gap >= stated - tolerance, "label"]
    if len(wide):
        text += (
            f"For {listed(wide)} the gap is as wide as in the thesis's curves (claim F25: at least {stated:.2f}, "
            f"tolerance {tolerance}), so the threshold alone can explain a high precision beside a low recall."
        )
    else:
        text += (
            f"Precision exceeds recall by {gap.max():.3f} at most. In the thesis's curves the gap is at least "
            f"{stated:.2f} (claim F25), so the threshold does not explain it in this run."
        )
    return Part(text, table)


# --- the dataset's counts (D01 to D03) -------------------------------------------------------------------------


def dataset_counts(counts, stated, stated_total):
    """Compare the copy's counts with Table 3.1 and the total in the thesis's text (claims D01 to D03).

    `counts` maps usage, then class, to the number of images; `stated` is Table 3.1, in its own order. The table has one
    row per class: the three usages, ``here``, ``thesis`` and ``difference`` (here less thesis).
    """
    table = pd.DataFrame({usage: counts.get(usage, {}) for usage in USAGES}, index=list(CLASSES))
    table = table.fillna(0).astype(int).rename_axis("class").reset_index()
    table["here"] = table[list(USAGES)].sum(axis=1)
    table["thesis"] = table["class"].map(stated)
    table["difference"] = table["here"] - table["thesis"]
    here, sums = int(table["here"].sum()), np.cumsum(list(stated.values()))
    text = (
        f"This copy has {here:,} images. The thesis's text states {stated_total:,}, and the {len(stated)} rows of its "
        f"Table 3.1 add up to {sums[-1]:,}. "
    )
    fits = np.flatnonzero(sums[:-1] == here)
    if len(fits):
        text += f"The first {fits[0] + 1} rows alone add up to {here:,}, this copy's total, but with other classes. "
    without = table.loc[here - table["here"] == stated_total, "class"]
    if len(without):
        text += f"Without {without.iloc[0]} this copy has {stated_total:,} images, the total in the thesis's text. "
    largest = table.loc[table["difference"].abs().idxmax()]
    if largest["difference"]:
        equal = int((table["difference"] == 0).sum())
        text += (
            f"Classes with the number of images in the table: {equal} of {len(CLASSES)}. The largest difference is "
            f"{largest['difference']:+,} ({largest['class']}: {largest['here']:,} here, {largest['thesis']:,} stated)."
        )
    else:
        text += "Every class has the number of images in the table."
    return Part(text, table)


# --- selecting on the test split (S10) -------------------------------------------------------------------------


def selection(run):
    """Compare what is reported when the epoch is chosen on the images that it is reported on (claim S10).

    Trainings under the thesis's protocol are left out: there PublicTest alone chose nothing. The table has one row per
    training: the epoch that PublicTest, PrivateTest and both would choose, the accuracy on PrivateTest and on both at
    the epoch that PublicTest chooses (``_sound``) and at their own best (``_circular``), and ``optimism_``, the
    difference.
    """
    results = [result for result in run.models if result.record["protocol"] == "sound"]
    if not results:
        text = "No training of this run used the sound protocol, in which PublicTest alone chooses the epoch."
        return Part(text, command=command(run, protocol="sound"))
    rows = []
    for result in results:
        history = result.history.set_index("epoch")
        public, private, both = (history[f"{name}_accuracy"] for name in ("public", "private", "test"))
        chosen = int(public.idxmax())
        row = {"model": result.model, "label": result.label, "seed": result.seed, "epoch_by_public": chosen}
        row |= {"epoch_by_private": int(private.idxmax()), "epoch_by_both": int(both.idxmax())}
        for name, scores in (("private", private), ("both", both)):
            row |= {f"{name}_sound": scores[chosen], f"{name}_circular": scores.max()}
            row[f"optimism_{name}"] = scores.max() - scores[chosen]
        rows.append(row)
    table = pd.DataFrame(rows)
    if max(len(result.history) for result in results) == 1:
        text = "Every training of this run has one epoch, so there is none to select."
        return Part(text, table, command(run, epochs=10))
    most = table.loc[table["optimism_private"].idxmax()]
    if table[["optimism_private", "optimism_both"]].to_numpy().max() == 0:
        text = "In every training, the epoch that PublicTest chooses is also the best one on PrivateTest and on both."
        return Part(f"{text} {scored_each_epoch(results)}".strip(), table)
    text = (
        "Choosing the epoch on PrivateTest itself instead of on PublicTest adds "
        f"{100 * table['optimism_private'].mean():.2f} percentage points to the accuracy on PrivateTest on average "
        f"over {plural(len(table), 'training')}, at most {100 * most['optimism_private']:.2f} ({most['label']}). "
        "Choosing on all test images, as the thesis's text reads, adds "
        f"{100 * table['optimism_both'].mean():.2f} points on average to the accuracy on all of them. "
        f"{scored_each_epoch(results)}"
    )
    return Part(text.strip(), table)


def differ_in_nothing_else(sound, thesis):
    """Whether two trainings have equal settings apart from protocol, names, and where they ran."""
    other = dict.fromkeys(("model", "label", "out", "profile", "protocol", "data", "threads", "deterministic"))
    return sound.record["parameters"] | other == thesis.record["parameters"] | other


def protocols(run):
    """Compare whole trainings under the thesis's protocol and under the sound one (claim S10).

    The table has one row per model and seed trained under both: the accuracies, and ``difference``, what the thesis's
    protocol reports (all test images) less what the sound one reports (PrivateTest).
    """
    rows = []
    for thesis in run.models:
        for sound in run.by_name(thesis.model.removesuffix(SUFFIX)):
            kinds = [result.record["protocol"] for result in (sound, thesis)]
            if sound.seed == thesis.seed and kinds == ["sound", "thesis"] and differ_in_nothing_else(sound, thesis):
                row = {"label": sound.label, "seed": sound.seed}
                for name, result in (("sound", sound), ("thesis", thesis)):
                    best = result.metrics["best"]
                    row |= {f"{name}_{part}": best[part]["accuracy"] for part in ("private", "test")}
                rows.append(row | {"difference": row["thesis_test"] - row["sound_private"]})
    if not rows:
        have = listed(sorted({result.record["protocol"] for result in run.models}))
        text = f"No model of this run was trained under both protocols (all trainings: {have})."
        return Part(text, command=command(run, ("resnet50", f"resnet50{SUFFIX}")))
    table = pd.DataFrame(rows)
    most = table.loc[table["difference"].abs().idxmax()]
    text = (
        "The accuracy that the thesis's protocol reports (all test images, on which it also selected) differs from "
        "what the sound one reports (PrivateTest, not used before) by "
        f"{100 * table['difference'].mean():+.2f} percentage points on average over {plural(len(table), 'pair')}, "
        f"most for {most['label']}: {most['thesis_test']:.3f} against {most['sound_private']:.3f}."
    )
    return Part(text, table)


# --- pairs of models (S08, S09) --------------------------------------------------------------------------------


def tell_apart(row):
    """Say in a sentence which of two trainings is better, and whether the test tells them apart at 5%."""
    points, low, high = (100 * row[name] for name in ("difference", "low", "high"))
    better = row["a"] if points > 0 else row["b"]
    end = f"{better} is better" if row["p"] < 0.05 else "the test does not tell them apart"
    return (
        f"{row['a']} has an accuracy of {row['accuracy_a']:.3f}, {row['b']} of {row['accuracy_b']:.3f}: "
        f"{points:+.2f} percentage points, 95% interval {low:+.2f} to {high:+.2f}; of these two "
        f"trainings, {end} (McNemar's exact test, p = {row['p']:.2g})."
    )


def pairs(run, wanted, pretrained=False):
    """Compare pairs of models on the same images, the first seed of each (claims S08 and S09).

    `wanted` are pairs of models such as `PRETRAINED_PAIRS`. With `pretrained` a pair counts only if its first training
    started from ImageNet weights. The table has one row per pair, as from `comparisons.compare`, with accuracy and
    macro F1 of both.
    """
    first = {result.model: result for result in run.first_seeds}
    tables, sentences, missing, commands = [], [], [], []
    for names in wanted:
        sides = [first.get(name) for name in names]
        if pretrained and sides[0] and not sides[0].pretrained:
            weights = sides[0].record["weights"]
            why = "; ImageNet weights were unavailable" if weights["requested"] == "imagenet" else ""
            sentences.append(
                f"{sides[0].label} started from {STARTS[weights['used']]} in this run{why}. So it shows nothing about "
                f"pretraining. To train it again, with access to Keras's weights, delete {names[0]} in the run folder "
                "first."
            )
            commands.append(command(run, [names[1]], weights=None))
        elif not all(sides):
            missing += [name for name in names if name not in first]
        else:
            try:
                table = comparisons.compare(sides)
            except ResultsError as error:
                sentences.append(str(error))
                continue
            for side, result in zip("ab", sides, strict=True):
                found = metrics.scores(*result.select("test"))
                table[f"accuracy_{side}"], table[f"macro_f1_{side}"] = found["accuracy"], found["macro_f1"]
            tables.append(table)
            starts = [f"{result.label} {result.record['weights']['used']}" for result in sides]
            sentences.append(tell_apart(table.iloc[0]) + f" Initial weights: {listed(starts)}.")
    if missing:
        sentences.append(f"Not run: {listed(missing)}.")
        commands.append(command(run, missing))
    table = pd.concat(tables, ignore_index=True) if tables else None
    # Fewer commands than reasons where the same one serves several.
    return Part(" ".join(sentences), table, "\n".join(dict.fromkeys(commands)) or None)
