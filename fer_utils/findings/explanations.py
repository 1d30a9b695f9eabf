"""What explains the differences between the thesis's figures and a rerun's, each shown by a computation.

Every function takes what a run left and returns a `Part`: computed sentences, the table behind them, and, where
the run lacks what the part needs, the command that makes it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_utils import metrics
from fer_utils.claims import claims
from fer_utils.claims.evidence import seeds_option
from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS, USAGES
from fer_utils.data import audit
from fer_utils.errors import ResultsError
from fer_utils.findings import statistics
from fer_utils.words import listed, scored_each_epoch

#: Trainings that differ in the initial weights only, pretrained first (claim S08).
PRETRAINED_PAIRS = (("resnet50", "resnet50_scratch"), ("mobilenet_v3", "mobilenet_v3_scratch"))

#: The two networks that the thesis calls its fourth model (claim S09).
MOBILENETS = ("mobilenet_v1", "mobilenet_v3")

#: One network, trained under the sound protocol and under the thesis's (claim S10).
BOTH_PROTOCOLS = ("resnet50", "resnet50_thesis_protocol")

PROFILES = ("smoke", "quick", "paper")


@dataclass(frozen=True)
class Part:
    """One explanation.

    Attributes
    ----------
    text : str
        What came out, or what is missing, in computed sentences.
    table : DataFrame or None
        The numbers behind it, tidy.
    command : str or None
        The command, or commands line by line, that make the runs that are missing.
    """

    text: str
    table: pd.DataFrame | None = None
    command: str | None = None


def command(run, models=(), *, seeds=None, **parameters):
    """Write the command that repeats a run with more models or with other parameters.

    Parameters
    ----------
    run : Run
        Its profile, its models and its seeds are kept.
    models : sequence of str
        Further models.
    seeds : sequence of int, optional
        Other seeds.
    **parameters
        Notebook parameters to set.

    Returns
    -------
    str
    """
    records = [result.record for result in run.models]
    profile = run.plan.get("profile") or next((record["profile"] for record in records), None)
    words = ["./run_all.sh"]
    if profile in PROFILES:  # a notebook run alone has none of them
        words += ["--profile", profile]
    if run.plan.get("data") == "synthetic" or any(record["synthetic"] for record in records):
        words += ["--data", "synthetic"]
    wanted = list(dict.fromkeys([*(result.model for result in run.models), *models]))
    if wanted:
        words += ["--models", ",".join(wanted)]
    words += ["--seeds", ",".join(map(str, seeds))] if seeds else seeds_option(run)
    for name, value in parameters.items():
        words += ["--set", f"{name}={value}"]
    return " ".join(words)


def stated(claim, key="value", rule=None):
    """Return what the thesis states in a claim, from ``claims.yaml``.

    Parameters
    ----------
    claim : str
        Its id, for example ``"D01"``.
    key : str
        Which parameter of the claim's rules.
    rule : str, optional
        The rule's name, where several of the claim have such a parameter.

    Returns
    -------
    number, list or dict
        That of the first of the claim's (or of these) rules that has it.
    """
    row = next(row for row in claims.read_file(claims.FILE)["claims"] if row["id"] == claim)
    return next(entry[key] for entry in row["rules"] if key in entry and rule in (None, entry["rule"]))


# --- the threshold (F25) ---------------------------------------------------------------------------------------


def threshold_curve(y_true, y_proba, thresholds=None):
    """Precision and recall against the threshold, all classes pooled.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels in 0..6.
    y_proba : ndarray of float, shape (n, 7)
        Class probabilities.
    thresholds : ndarray of float, optional
        0 to 0.99 in steps of 0.01 by default.

    Returns
    -------
    DataFrame
        ``threshold``, ``precision`` (NaN where nothing is predicted), ``recall``, ``predictions`` (classes
        predicted per image) and ``accuracy`` of the arg-max class, which is also its pooled precision and recall.
    """
    thresholds = np.round(np.arange(0, 1, 0.01), 2) if thresholds is None else np.asarray(thresholds)
    y_proba = np.asarray(y_proba)
    cuts = thresholds.astype(y_proba.dtype)  # 0.3 as float64 is not 0.3 as float32
    own = np.sort(y_proba[np.arange(len(y_true)), y_true])
    every = np.sort(y_proba.ravel())
    hits = len(own) - np.searchsorted(own, cuts, side="right")
    predicted = len(every) - np.searchsorted(every, cuts, side="right")
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "threshold": thresholds,
                "precision": hits / predicted,
                "recall": hits / len(own),
                "predictions": predicted / len(own),
                "accuracy": float((y_proba.argmax(axis=1) == y_true).mean()),
            }
        )


def threshold_curves(results, part=None):
    """`threshold_curve` of several trainings, with ``model`` and ``label``; `part` as in `threshold`."""
    tables = [
        threshold_curve(*result.select(part or result.final_part)).assign(model=result.model, label=result.label)
        for result in results
    ]
    return pd.concat(tables, ignore_index=True)


def threshold(results, part=None):
    """Show how the threshold of 0.5 parts precision from recall (claim F25).

    Parameters
    ----------
    results : list of ModelResult
    part : str or None
        Which images; None takes each training's final part.

    Returns
    -------
    Part
        The table has a row a training: both kinds of precision and recall, and ``undecided``, the share of images
        with no class above 0.5.
    """
    rows = []
    for result in results:
        y_true, y_proba = result.select(part or result.final_part)
        found = metrics.scores(y_true, y_proba)
        names = ("precision", "recall", "accuracy", "macro_precision", "macro_recall")
        rows.append(
            {
                "model": result.model,
                "label": result.label,
                **{name: found[name] for name in names},
                "undecided": float((y_proba.max(axis=1) <= metrics.THRESHOLD).mean()),
            }
        )
    table = pd.DataFrame(rows)
    widest = table.loc[(table["precision"] - table["recall"]).abs().idxmax()]
    text = (
        f"For {widest['label']}, where the two lie farthest apart, precision is {widest['precision']:.3f} and "
        f"recall {widest['recall']:.3f} when a class counts as predicted above a probability of 0.5. When the "
        f"most probable class counts, both are the accuracy, {widest['accuracy']:.3f}, with all classes pooled "
        f"(macro {widest['macro_precision']:.3f} and {widest['macro_recall']:.3f}). No class is above 0.5 for "
        f"{widest['undecided']:.1%} of the images: each of them is missed, which lowers recall, and none is a "
        "wrong prediction, which leaves precision alone. "
    )
    gap = table["precision"] - table["recall"]
    low, tolerance = stated("F25", "low", rule="threshold_effect"), claims.load_tolerances()["threshold_gap"]["value"]
    wide = table.loc[gap >= low - tolerance, "label"]
    if len(wide):
        text += (
            f"For {listed(wide)} the gap is as wide as that of claim F25 ({low:.2f} or more, within {tolerance}), so "
            "the claim's high precision beside low recall needs no other cause than the threshold."
        )
    else:
        text += (
            f"Precision exceeds recall by {gap.max():.3f} at most; the gap of claim F25 is {low:.2f} or more, which "
            "the threshold does not make in this run."
        )
    return Part(text, table)


# --- the dataset's counts (D01 to D03, D11) --------------------------------------------------------------------


def dataset_counts(counts, stated, stated_total):
    """Hold the copy's counts against Table 3.1 and the stated total (claims D01 to D03, D11).

    Parameters
    ----------
    counts : dict of str to dict of str to int
        Usage, then class, to number of images.
    stated : dict of str to int
        Table 3.1, in its own order.
    stated_total : int
        The total that the thesis's text gives.

    Returns
    -------
    Part
        The table has a row a class: ``Training``, ``PublicTest``, ``PrivateTest``, ``here``, ``thesis``,
        ``difference``.
    """
    table = pd.DataFrame(
        [
            {
                "class": name,
                **{usage: int(counts.get(usage, {}).get(name, 0)) for usage in USAGES},
                "thesis": int(stated[name]),
            }
            for name in CLASSES
        ]
    )
    table.insert(4, "here", table[list(USAGES)].sum(axis=1))
    table["difference"] = table["thesis"] - table["here"]
    here, sums = int(table["here"].sum()), np.cumsum(list(stated.values()))
    text = (
        f"This copy holds {here:,} images; the thesis's text states {stated_total:,}, and the {len(stated)} rows "
        f"of its Table 3.1 add up to {sums[-1]:,}. "
    )
    fits = np.flatnonzero(sums[:-1] == here)
    if len(fits):
        text += (
            f"The first {fits[0] + 1} rows alone add up to {here:,}, this copy's total, although they differ from "
            "it class by class. "
        )
    equal = int((table["difference"] == 0).sum())
    largest = table.loc[table["difference"].abs().idxmax()]
    text += (
        f"{equal or 'None'} of the {len(CLASSES)} classes agree{'s' if equal == 1 else ''} with the table; the "
        f"largest difference is at {largest['class']}, {largest['thesis']:,} stated and {largest['here']:,} found."
    )
    if here:
        test = int(table[["PublicTest", "PrivateTest"]].sum().sum())
        text += (
            f" PublicTest and PrivateTest together are {test:,} images, {test / here:.2%} of this copy; 20% of "
            f"the stated total would be {0.2 * stated_total:,.0f}."
        )
    return Part(text, table)


# --- duplicates and labels -------------------------------------------------------------------------------------


def flags(images):
    """Mark the images of the test split without which a score is worth looking at.

    Parameters
    ----------
    images : DataFrame
        ``dataset/images.parquet``: ``id``, ``usage``, ``label``, ``pixel_hash``, ``std``.

    Returns
    -------
    DataFrame
        Indexed by ``id``, the test split only: ``in_train`` (the same pixels stand in the training split),
        ``repeated`` (they stand earlier in the test split), ``conflicting`` (they carry different labels somewhere
        in the set), ``constant`` (nearly one grey level).
    """
    labels = images.groupby("pixel_hash")["label"].nunique()
    images = images.assign(in_train=audit.in_training(images), constant=audit.near_constant(images))
    test = images[images["usage"] != "Training"]
    return pd.DataFrame(
        {
            "in_train": test["in_train"].to_numpy(),
            "repeated": test["pixel_hash"].duplicated().to_numpy(),
            "conflicting": test["pixel_hash"].map(labels).gt(1).to_numpy(),
            "constant": test["constant"].to_numpy(),
        },
        index=pd.Index(test["id"], name="id"),
    )


#: Subsets of the test images, from the columns of `flags`.
SUBSETS = {
    "all": lambda marks: pd.Series(True, marks.index),
    "without those in train": lambda marks: ~marks["in_train"],
    "without repeats": lambda marks: ~marks["repeated"],
    "without conflicting labels": lambda marks: ~marks["conflicting"],
    "without nearly constant ones": lambda marks: ~marks["constant"],
    "without any of these": lambda marks: ~marks.any(axis=1),
    "only those in train": lambda marks: marks["in_train"],
}


def duplicates(run, part="test"):
    """Score each model with and without duplicates, conflicting labels and test images that stand in train.

    Parameters
    ----------
    run : Run
        Needs the dataset notebook's ``images``.
    part : {"test", "private", "public"}

    Returns
    -------
    Part
        The table has a row a model and subset: ``n``, ``value``, ``low``, ``high`` (accuracy), ``macro_f1`` and
        ``change`` (accuracy less that on all images).
    """
    if run.images is None:
        return Part("The dataset's audit is not in this run folder.", command=command(run))
    marks = flags(run.images)
    rows = []
    for result in run.first_seeds:
        predictions = result.predictions[result.mask(part)]
        unknown = int((~predictions["id"].isin(marks.index)).sum())
        if unknown:
            return Part(
                f"The dataset's audit lacks {unknown:,} of the {len(predictions):,} images that {result.label} "
                "predicted, so it was made from other data.",
                command=command(run),
            )
        y_true = predictions["label"].to_numpy(dtype=np.int64)
        y_proba = predictions[list(PROBABILITY_COLUMNS)].to_numpy()
        used = marks.loc[predictions["id"]]
        for name, choose in SUBSETS.items():
            kept = choose(used).to_numpy()
            if not kept.any():
                continue
            found = statistics.counted_intervals(y_true[kept], y_proba[kept]).set_index("metric")
            rows.append(
                {
                    "model": result.model,
                    "label": result.label,
                    "subset": name,
                    "n": int(kept.sum()),
                    **{key: float(found.at["accuracy", key]) for key in ("value", "low", "high")},
                    "macro_f1": float(found.at["macro_f1", "value"]),
                }
            )
    table = pd.DataFrame(rows)
    whole = table[table["subset"] == "all"].set_index("model")["value"]
    table["change"] = table["value"] - table["model"].map(whole)
    text = (
        f"Of the {len(used):,} test images scored, {used['in_train'].sum():,} also stand in the training split, "
        f"{used['repeated'].sum():,} repeat another test image, {used['conflicting'].sum():,} carry a label that "
        f"the same picture contradicts elsewhere, and {used['constant'].sum():,} are nearly one grey level. "
    )
    clean = table[table["subset"] == "without any of these"]
    if len(clean):
        most = clean.loc[clean["change"].abs().idxmax()]
        text += (
            f"Leaving all of them out moves the accuracy of no model by more than {100 * abs(most['change']):.2f} "
            f"percentage points ({most['label']}, to {most['value']:.3f}). "
        )
    seen = table[table["subset"] == "only those in train"]
    if len(seen):
        easiest = seen.loc[seen["change"].idxmax()]
        text += (
            f"On the images that also stand in train, {easiest['label']} reaches {easiest['value']:.3f}, "
            f"{100 * easiest['change']:+.1f} points against all images."
        )
    return Part(text.strip(), table)


# --- selecting on the test split (S10) -------------------------------------------------------------------------


def selection(run):
    """Compare what is reported when the epoch is chosen on the images that it is reported on (claim S10).

    Parameters
    ----------
    run : Run
        Only histories are used: every epoch is scored on PublicTest, PrivateTest and both. Trainings under the
        thesis's protocol are left out: there PublicTest alone chose nothing, not even the learning rate.

    Returns
    -------
    Part
        The table has a row a training under the sound protocol: the epoch that PublicTest, PrivateTest and both
        would choose, the accuracy on PrivateTest and on both at the epoch that PublicTest chooses (``_sound``) and
        at their own best (``_circular``), and ``optimism_``, the difference, which cannot be negative.
    """
    results = [result for result in run.models if result.record["protocol"] == "sound"]
    if not results:
        text = "No training of this run is under the sound protocol, in which PublicTest alone chooses the epoch."
        return Part(text, command=command(run, protocol="sound"))
    rows = []
    for result in results:
        history = result.history.set_index("epoch")
        public, private, both = (history[f"{name}_accuracy"] for name in ("public", "private", "test"))
        chosen = int(public.idxmax())
        rows.append(
            {
                "model": result.model,
                "label": result.label,
                "seed": result.seed,
                "epoch_by_public": chosen,
                "epoch_by_private": int(private.idxmax()),
                "epoch_by_both": int(both.idxmax()),
                "private_sound": private[chosen],
                "private_circular": private.max(),
                "optimism_private": private.max() - private[chosen],
                "both_sound": both[chosen],
                "both_circular": both.max(),
                "optimism_both": both.max() - both[chosen],
            }
        )
    table = pd.DataFrame(rows)
    if max(len(result.history) for result in results) == 1:
        text = "Every training of this run has one epoch, so there is none to select."
        return Part(text, table, command(run, epochs=10))
    most = table.loc[table["optimism_private"].idxmax()]
    text = (
        "Within one training, the choice of the epoch alone: choosing it on PrivateTest itself instead of on "
        f"PublicTest adds {100 * table['optimism_private'].mean():.2f} percentage points to the accuracy on "
        f"PrivateTest on average over {len(table)} training{'s' if len(table) > 1 else ''}, at most "
        f"{100 * most['optimism_private']:.2f} ({most['label']}: {most['private_circular']:.3f} instead of "
        f"{most['private_sound']:.3f}). Choosing on all test images, as the thesis's text reads, adds "
        f"{100 * table['optimism_both'].mean():.2f} points on average to the accuracy on all of them. "
        f"{scored_each_epoch(results)}"
    )
    return Part(text.strip(), table)


def settings(result):
    """Return what a training was set to, apart from its protocol, its name and where it ran, as hashable pairs."""
    other = {"model", "label", "out", "profile", "protocol", "data", "threads", "deterministic"}
    chosen = {name: value for name, value in result.record["parameters"].items() if name not in other}
    return result.record["notebook"], result.seed, tuple(sorted((k, str(v)) for k, v in chosen.items()))


def protocols(run):
    """Compare whole trainings under the thesis's protocol and under the sound one (claim S10).

    Parameters
    ----------
    run : Run

    Returns
    -------
    Part
        The table has a row a model and seed that was trained under both: accuracy on PrivateTest and on all test
        images under each, and ``difference``, what the thesis's protocol reports (all test images) less what the
        sound one reports (PrivateTest).
    """
    trained = {}
    for result in run.models:
        trained.setdefault(settings(result), {}).setdefault(result.record["protocol"], result)
    rows = []
    for pair in trained.values():
        if not {"sound", "thesis"} <= set(pair):
            continue
        best = {name: pair[name].metrics["best"] for name in ("sound", "thesis")}
        rows.append(
            {
                "label": pair["sound"].label,
                "seed": pair["sound"].seed,
                **{
                    f"{name}_{part}": best[name][part]["accuracy"]
                    for name in ("sound", "thesis")
                    for part in ("private", "test")
                },
                "difference": best["thesis"]["test"]["accuracy"] - best["sound"]["private"]["accuracy"],
            }
        )
    if not rows:
        have = listed(sorted({result.record["protocol"] for result in run.models}))
        return Part(
            f"No model of this run was trained under both protocols (all: {have}).",
            command=command(run, BOTH_PROTOCOLS),
        )
    table = pd.DataFrame(rows)
    most = table.loc[table["difference"].abs().idxmax()]
    text = (
        "Whole trainings: what the thesis's protocol reports (all test images, on which it also selected) differs "
        "from what the sound one reports (PrivateTest, unseen until then) by "
        f"{100 * table['difference'].mean():+.2f} percentage points on average, most for {most['label']}: "
        f"{most['thesis_test']:.3f} against {most['sound_private']:.3f}."
    )
    return Part(text, table)


# --- pairs of models (S08, S09) --------------------------------------------------------------------------------


def pair_up(run, names, part):
    """Compare two models on the same images, the first seed of each.

    Returns
    -------
    DataFrame or None
        One row, as from `statistics.compare`, with accuracy and macro F1 of both; None where one was not run.
    """
    first = {result.model: result for result in run.first_seeds}
    if not all(name in first for name in names):
        return None
    sides = {"a": first[names[0]], "b": first[names[1]]}
    table = statistics.compare(list(sides.values()), part)
    for side, result in sides.items():
        found = metrics.scores(*result.select(part))
        table[f"accuracy_{side}"], table[f"macro_f1_{side}"] = found["accuracy"], found["macro_f1"]
    return table


def tell_apart(row):
    """Say in a sentence which of two trainings is better, and whether the test tells them apart at 5%."""
    points, low, high = (100 * row[name] for name in ("difference", "low", "high"))
    test = f"McNemar's exact test, p = {row['p']:.2g}"
    better = row["a"] if points > 0 else row["b"]
    end = f"{better} is better" if row["p"] < 0.05 else "nothing tells them apart"
    return (
        f"{row['a']} has an accuracy of {row['accuracy_a']:.3f}, {row['b']} of {row['accuracy_b']:.3f}: "
        f"{points:+.2f} percentage points, 95% interval {low:+.2f} to {high:+.2f}; of these two "
        f"trainings {end} ({test})."
    )


def pretraining(run, part="test"):
    """Compare ImageNet weights with random initialisation (claim S08).

    Parameters
    ----------
    run : Run
    part : str

    Returns
    -------
    Part
        A pair counts only where the first of it really started from ImageNet weights.
    """
    first = {result.model: result for result in run.first_seeds}
    tables, sentences, missing, commands = [], [], [], []
    for names in PRETRAINED_PAIRS:
        pretrained = first.get(names[0])
        if pretrained is not None and not pretrained.pretrained:
            weights = pretrained.record["weights"]
            reason = f": {weights['reason']}" if weights.get("reason") else ""
            sentences.append(
                f"{pretrained.label} did not start from ImageNet weights in this run (asked for: "
                f"{weights['requested']}, used: {weights['used']}{reason}), so it shows nothing about pretraining."
            )
            commands.append(command(run, [names[1]], weights="imagenet"))
            continue
        try:
            table = pair_up(run, names, part)
        except ResultsError as error:
            sentences.append(str(error))
            continue
        if table is None:
            missing += [name for name in names if name not in first]
        else:
            tables.append(table)
            sentences.append(tell_apart(table.iloc[0]))
    if missing:
        sentences.append(f"Not run: {listed(missing)}.")
        commands.append(command(run, missing))
    table = pd.concat(tables, ignore_index=True) if tables else None
    # Fewer commands than reasons where the same one serves several.
    return Part(" ".join(sentences), table, "\n".join(dict.fromkeys(commands)) or None)


def mobilenets(run, part="test"):
    """Compare MobileNet V1 with V3 (claim S09).

    Parameters
    ----------
    run : Run
    part : str

    Returns
    -------
    Part
    """
    first = {result.model: result for result in run.first_seeds}
    try:
        table = pair_up(run, MOBILENETS, part)
    except ResultsError as error:
        return Part(str(error))
    if table is None:
        missing = [name for name in MOBILENETS if name not in first]
        return Part(f"Not run: {listed(missing)}.", command=command(run, missing))
    weights = [f"{first[name].label} {first[name].record['weights']['used']}" for name in MOBILENETS]
    return Part(f"{tell_apart(table.iloc[0])} Initial weights: {listed(weights)}.", table)
