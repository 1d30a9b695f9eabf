"""What a run has to say about a claim: scores with resamples, learning curves, confusion cells, counts of images.

Everything is computed on the thesis's own test set, the 20% that it calls both validation and test: PublicTest and
PrivateTest together. Test images are resampled once for the whole run, so that differences between trainings are
paired by image; with several seeds the seeds are resampled too.
"""

import zlib
from dataclasses import dataclass, field

import numpy as np

from fer_utils import metrics
from fer_utils.constants import CLASSES, THESIS_SETTINGS, USAGES
from fer_utils.errors import ResultsError
from fer_utils.findings import comparisons, statistics
from fer_utils.findings.results import Run, command
from fer_utils.words import listed

#: The thesis's four models and the fourth's other name.
LABELS = {
    "traditional_cnn": "Traditional CNN",
    "resnet50": "ResNet-50",
    "vgg16": "VGG-16",
    "mobilenet_v3": "MobileNet-V3",
    "mobilenet_v1": "MobileNet-V1",
}

#: Models that the methods start from ImageNet weights (3.2.5.2 and 3.2.5.4), and the abstract from scratch (claim S08).
PRETRAINED = ("resnet50", "mobilenet_v3")

#: Both readings of claim S08, with ``weights.used`` of the trainings that belong to each.
READINGS = {"from scratch": "none", "ImageNet weights": "imagenet"}

#: Entries of ``config.yaml`` that stand for a model, the one to prefer first, by what follows the model's name.
VARIANTS = ("", "_scratch", "_plain", "_thesis_protocol", "_float32")

#: A curve settles at the mean of its last fifth; a curve of fewer epochs has none.
TAIL = 5

#: Images that the thesis's training split holds, by Kaggle's listing: what a shortened run has a share of.
TRAINING_IMAGES = 28_709


class Untestable(Exception):
    """A figure that this run cannot give: ``models`` that lack a training that counts, or the reason."""

    def __init__(self, reason="", models=()):
        super().__init__(reason)
        self.reason, self.models = reason, tuple(models)


@dataclass(frozen=True)
class Score:
    """A figure as the mean over the seeds, its bootstrap draws, and its value for each seed."""

    value: float
    draws: np.ndarray
    seeds: tuple

    def interval(self, level=0.95):
        """Lower and upper end of the percentile interval."""
        low, high = statistics.percentile_interval(self.draws, level)
        return float(low), float(high)

    def __sub__(self, other):
        return Score(self.value - other.value, self.draws - other.draws, ())


def tail(values):
    """Last fifth of a curve, at least one epoch."""
    values = np.asarray(values, dtype=float)
    return values[-max(1, -(-len(values) // TAIL)) :]


def number(value):
    """Write a number with three decimals; an en dash for NaN."""
    return f"{value:.3f}" if np.isfinite(value) else "–"


def settings_that_differ(result):
    """``"batch_size 32"`` for each hyperparameter that is not Table 5.1's."""
    used = result.record["parameters"]
    return [f"{name} {used.get(name)}" for name, value in THESIS_SETTINGS.items() if used.get(name) != value]


@dataclass(frozen=True)
class Evidence:
    """A run, asked for figures under one reading of the thesis; ``dataclasses.replace`` keeps what is computed."""

    run: Run
    reading: str = ""  # key of READINGS: which trainings of the PRETRAINED models count; "" where a claim does not ask
    loose: bool = False  # any data and length of training counts: for what was seen beside a claim that is not testable
    resamples: int = statistics.RESAMPLES
    cache: dict = field(default_factory=dict, repr=False)

    def once(self, key, compute):
        """Return what was computed under this key before, or compute it."""
        if key not in self.cache:
            self.cache[key] = compute()
        return self.cache[key]

    # ---- trainings

    def variants(self, model):
        """Finished trainings of a model by variant, one list for each that has any."""
        return [found for variant in VARIANTS if (found := self.run.by_name(model + variant))]

    def of_reading(self, model):
        """Those of `variants` that belong to the reading."""
        wanted = READINGS.get(self.reading) if model in PRETRAINED else None
        found = [[r for r in v if wanted in (None, r.record["weights"]["used"])] for v in self.variants(model)]
        return [results for results in found if results]

    def every(self, model):
        """All trainings of a model, whatever their length, data and weights: for what was built and recorded."""
        found = [result for results in self.variants(model) for result in results]
        if not found:
            raise Untestable(models=[model])
        return found

    def obstacles(self, result):
        """Why a training's figures cannot be held against the thesis's, by kind; empty if they can."""
        found, other = dict(result.reasons), settings_that_differ(result)
        if other and "shortened" not in found:
            found["settings"] = f"other hyperparameters than Table 5.1's ({', '.join(other)})"
        return found

    def used(self, model):
        """Trainings of a model that count, one per seed, of the first variant that has any; else none."""
        found = ([r for r in results if self.loose or not self.obstacles(r)] for results in self.of_reading(model))
        return next(filter(None, found), [])

    def trainings(self, model):
        """`used`, or `Untestable` where there is none."""
        if found := self.used(model):
            return found
        raise Untestable(models=[model])

    def label(self, model):
        """Name that people read."""
        return LABELS.get(model, model)

    def cause(self, model):
        """Say why no training of a model counts, and what is wrong, by kind."""
        if found := self.of_reading(model):
            kinds = self.obstacles(found[0][0])
            return ", ".join(kinds.values()), set(kinds)
        if found := self.variants(model):
            start = "random values" if self.reading == "from scratch" else "ImageNet weights"
            reason = (found[0][0].record["weights"].get("reason") or "").partition(" (")[0]
            return f"not trained from {start}" + (f" ({reason})" if reason else ""), {"weights"}
        failed = [f.get("error") for f in self.run.failures if f["model"] in {model + v for v in VARIANTS}]
        return f"failed ({failed[0]})" if failed else "not run", {"absent"}

    def needs(self, models):
        """Say what is missing for these models, and the command that makes it."""
        groups, kinds = {}, set()
        for model in models:
            text, found = self.cause(model)
            groups.setdefault(text, []).append(self.label(model))
            kinds |= found
        scratch = self.reading == "from scratch"
        names = [model + "_scratch" * (scratch and model in PRETRAINED) for model in models]
        weights = "weights" in kinds and not scratch
        # The profile `paper` takes no other data than the known ones.
        other_data = "data" in kinds or (bool(self.fingerprint) and not self.fingerprint.get("known"))
        fresh = bool(kinds & {"shortened", "settings"})
        before = ["the known FER2013 in data/"] * other_data + ["Keras's ImageNet weights within reach"] * weights
        if weights and not (fresh or other_data) and self.run.plan.get("profile") == "paper":
            before.append("these models' folders deleted")  # else they count as done
        said = "; ".join(f"{listed(labels)}: {text}" for text, labels in groups.items())
        what = command(self.run, names, profile="paper", data="auto" if other_data else None, fresh=fresh)
        return f"{said}; needs {listed(before)}{', then ' if before else ''}{what}"

    def beside(self, models):
        """``" (shortened run (3 of 45 epochs, ...))"`` where our figure is not one that counts."""
        found = [text for model in models for result in self.used(model) for text in self.obstacles(result).values()]
        kind = self.fingerprint.get("variant") == "synthetic"
        if not models and self.fingerprint and not self.fingerprint.get("known"):
            found = ["synthetic data" if kind else "data that are not the known FER2013"]
        return f" ({'; '.join(dict.fromkeys(found))})" if found else ""

    def shares(self, models):
        """``"0.02% of the training"``, of trainings that are only shortened; empty where there are others, or none."""
        results = [result for model in models for result in self.used(model)]
        if not results or any(set(self.obstacles(result)) != {"shortened"} for result in results):
            return ""
        whole = THESIS_SETTINGS["epochs"] * TRAINING_IMAGES
        shares = [100 * r.record["epochs"]["run"] * r.record["split"]["train"] / whole for r in results]
        return f"{' to '.join(dict.fromkeys(f'{share:.2g}%' for share in (min(shares), max(shares))))} of the training"

    # ---- resampled test images

    def scored(self, result):
        """Every figure of one training on the test images: dict of name to (value, draws); ``confusion``, counts.

        Names are those of `statistics.COUNTED`, the same with ``balanced_`` in front (all classes weighted alike),
        ``loss``, ``auc_<class>`` and ``mean_auc``. AUCs are resampled through DeLong's components, to first order.
        """
        return self.once(("scored", result.model, result.seed), lambda: self.compute_scores(result))

    def compute_scores(self, result):
        """See `scored`."""
        y_true, y_proba = result.select("test")
        n = len(y_true)
        if n == 0:
            raise Untestable("no test images were predicted")
        weights = self.once(("weights", n), lambda: statistics.resample(n, self.resamples))
        all_once = np.ones((1, n), np.float32)
        counts = statistics.resampled_counts(y_true, y_proba, np.vstack([all_once, weights]))
        with np.errstate(invalid="ignore"):
            balanced = np.nan_to_num(counts / counts.sum(axis=(-1, -2), keepdims=True))
        found = {"confusion": counts[0].sum(axis=-1).astype(np.int64)}
        for prefix, array in (("", counts), ("balanced_", balanced)):
            values = statistics.counted_metrics(array)
            found |= {prefix + name: (float(values[name][0]), values[name][1:]) for name in statistics.COUNTED}
        losses = metrics.cross_entropies(y_true, y_proba)
        found["loss"] = (float(losses.mean()), weights @ losses / n)
        parts = {}
        for k, name in enumerate(CLASSES):
            own = y_true == k
            if 0 < own.sum() < n:
                sides = [statistics.placements(y_proba[i, k], y_proba[~i, k]) for i in (own, ~own)]
                area, part = float(sides[0].mean()), np.zeros(n)
                part[own], part[~own] = (sides[0] - area) / own.sum(), (1 - sides[1] - area) / (~own).sum()
                found[f"auc_{name}"], parts[name] = (area, area + weights @ part), part
        if len(parts) == len(CLASSES):
            mean = float(np.mean([found[f"auc_{name}"][0] for name in CLASSES]))
            found["mean_auc"] = (mean, mean + weights @ np.mean(list(parts.values()), axis=0))
        return found

    def combine(self, model, pairs):
        """One `Score` from (value, draws) of each seed; seeds are resampled with the images."""
        values, draws = [value for value, _ in pairs], np.stack([draw for _, draw in pairs])
        if len(pairs) > 1:
            rng = np.random.default_rng(zlib.crc32(model.encode()))
            picked = rng.integers(len(pairs), size=draws.T.shape)
            draws = np.take_along_axis(draws.T, picked, axis=1).T
        return Score(float(np.mean(values)), draws.mean(axis=0), tuple(values))

    def score(self, model, metric):
        """A figure on the test images; see `scored` for the names."""
        found = [self.scored(result) for result in self.trainings(model)]
        if any(metric not in table for table in found):
            raise Untestable(f"no {metric} of {self.label(model)}: a class has no test image")
        return self.combine(model, [table[metric] for table in found])

    def train_auc(self, model):
        """Mean one-vs-rest AUC on the training images (``metrics.json``); no sample, so only seeds vary."""
        areas = []
        for result in self.trainings(model):
            by_class = [scores["auc"] for scores in result.metrics["best"]["train"]["per_class"].values()]
            if None in by_class:
                raise Untestable(f"no AUC of {self.label(model)} in every class of the training images")
            areas.append(float(np.mean(by_class)))
        return self.combine(model, [(area, np.full(self.resamples, area)) for area in areas])

    def confusion(self, model):
        """Confusion matrix as shares of the true class, mean over the seeds, and the images of each class."""
        tables = [self.scored(result)["confusion"] for result in self.trainings(model)]
        n = tables[0].sum(axis=1)
        if not n.all():
            raise Untestable("a class has no test image")
        return np.mean([table / table.sum(axis=1, keepdims=True) for table in tables], axis=0), n

    def power(self, model, other):
        """Say what difference in accuracy the test images tell apart, given the share of discordant images."""
        try:
            _, y_true, y_proba = comparisons.aligned([self.trainings(name)[0] for name in (model, other)])
        except ResultsError:  # other test images
            return ""
        one, two = (proba.argmax(axis=1) == y_true for proba in y_proba)
        n, share = len(y_true), (one != two).mean()
        least = 100 * comparisons.detectable(n, share)
        told = f"{share:.0%} of {n:,} images discordant, which tell {least:.1f} points apart at 80% power"
        return f" ({told})" if share else ""

    # ---- learning curves

    def curves(self, model, column):
        """One array over the epochs for each seed; five epochs at least."""
        found = [result.history[column].to_numpy(dtype=float) for result in self.trainings(model)]
        if any(len(curve) < TAIL for curve in found):
            raise Untestable(f"a curve of fewer than {TAIL} epochs does not settle")
        return found

    def level(self, model, column):
        """Where a curve settles, the mean of its last fifth.

        A validation level gets the sampling spread of the same figure of the kept epoch, whose predictions are there;
        a training level is that of the images trained on, which are no sample.
        """
        levels = [float(tail(curve).mean()) for curve in self.curves(model, column)]
        if not column.startswith("test_"):
            return self.combine(model, [(level, np.full(self.resamples, level)) for level in levels])
        kept = [self.scored(result)[column.removeprefix("test_")] for result in self.trainings(model)]
        pairs = [(level, level + draws - value) for level, (value, draws) in zip(levels, kept, strict=True)]
        return self.combine(model, pairs)

    def gap(self, model, metric):
        """Level of the validation curve less that of the training curve."""
        return self.level(model, f"test_{metric}") - self.level(model, metric)

    # ---- the dataset

    @property
    def fingerprint(self):
        """What the dataset notebook found; empty if it was not run."""
        return self.run.dataset.get("fingerprint", {})

    def counts(self, usages=USAGES):
        """Images of each class in the given parts of the known FER2013."""
        if not self.fingerprint.get("counts"):
            raise Untestable(f"the dataset notebook was not run; needs {command(self.run)}")
        if not (self.loose or self.fingerprint.get("known")):
            what = self.fingerprint.get("description", "other data").rstrip(".")
            raise Untestable(f"{what}; needs the known FER2013 in data/, then {command(self.run, data='auto')}")
        counts = self.fingerprint["counts"]
        return {name: sum(counts.get(usage, {}).get(name, 0) for usage in usages) for name in CLASSES}
