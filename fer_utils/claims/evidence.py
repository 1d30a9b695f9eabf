"""What a run has to say about a claim: its figures, what they were made from, and what keeps them from counting.

A claim is judged on the thesis's own test set, the 20% that it calls both validation and test: PublicTest and
PrivateTest together. Figures of several seeds are averaged; the interval is then the average of the seeds'
intervals, which is that of one training, and the spread over the seeds stands beside it.
"""

import numpy as np
import pandas as pd

from fer_utils import metrics
from fer_utils.constants import CLASSES, THESIS_SETTINGS
from fer_utils.findings import statistics
from fer_utils.words import listed

#: The thesis's four, as people read them; another model has its label in its record.
LABELS = {
    "traditional_cnn": "Traditional CNN",
    "resnet50": "ResNet-50",
    "vgg16": "VGG-16",
    "mobilenet_v3": "MobileNet-V3",
    "mobilenet_v1": "MobileNet-V1",
}

#: Models that the thesis starts from ImageNet weights (3.2.5.2 and 3.2.5.4).
PRETRAINED = ("resnet50", "mobilenet_v3")

#: One over the part of the training's end that counts as the level at which a curve settles; a curve of fewer epochs
#: has no such part.
TAIL = 5


def tail(values):
    """Last fifth of a curve, at least one epoch.

    Parameters
    ----------
    values : sequence of float, shape (epochs,)

    Returns
    -------
    ndarray of float
    """
    values = np.asarray(values, dtype=float)
    return values[-max(1, -(-len(values) // TAIL)) :]


def weights_reason(result):
    """Say why a training did not start from ImageNet weights, without the details of the error."""
    reason = result.record["weights"]["reason"]
    return reason.partition(" (")[0] if reason else f"weights: {result.record['weights']['requested']} was asked for"


def number(value, digits=3):
    """Write a number with so many decimals; an en dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def seeds_option(run):
    """Return the words of a command that keep the run's seeds; none where it has seed 0 alone, the default."""
    seeds = sorted({result.seed for result in run.models})
    return ["--seeds", ",".join(map(str, seeds))] if seeds not in ([], [0]) else []


class Evidence:
    """A run, asked for figures; each is computed once.

    Parameters
    ----------
    run : fer_utils.findings.results.Run
    """

    def __init__(self, run):
        self.run = run
        self.known_figures = {}

    def once(self, key, compute):
        """Return what was computed under this key before, or compute it."""
        if key not in self.known_figures:
            self.known_figures[key] = compute()
        return self.known_figures[key]

    # ---- trainings

    def label(self, model):
        """Name that people read."""
        found = self.run.by_name(model)
        return found[0].label if found else LABELS.get(model, model)

    def counts(self, result):
        """Whether a training can be held against the thesis."""
        return not self.kind_of_run(result)

    def results(self, model):
        """Trainings of a model, one a seed: those that count, or, where none does, all."""
        found = self.run.by_name(model)
        return [result for result in found if self.counts(result)] or found

    def kind_of_run(self, result):
        """Say what keeps one training from being held against the thesis; empty if nothing does.

        Returns
        -------
        dict of str to str
            By what is wrong (``data``, ``profile``, ``settings``, ``weights``), for example
            ``{"profile": "quick run", "weights": "random initialisation"}``.
        """
        record = result.record
        parameters = record["parameters"]
        other = [f"{name} {parameters.get(name)}" for name, v in THESIS_SETTINGS.items() if parameters.get(name) != v]
        found = {}
        if record["synthetic"] or record["data"]["variant"] == "synthetic":
            found["data"] = "synthetic data"
        elif not record["data"]["known"]:
            found["data"] = f"data that are not the known FER2013 ({record['data']['variant']})"
        if record["profile"] != "paper":
            found["profile"] = f"{record['profile']} run"
        elif record["shortened"]:
            found["profile"] = "shortened run"
        elif other:
            found["settings"] = f"other hyperparameters than Table 5.1's ({', '.join(other)})"
        if result.model in PRETRAINED and not result.pretrained:
            random = record["weights"]["used"] == "none"
            found["weights"] = "random initialisation" if random else "weights from a file of unknown origin"
        return found

    def beside(self, models):
        """Return what our figure is, in brackets, where it is not one that counts: ``" (quick run)"``."""
        results = [result for model in models for result in self.results(model)]
        kinds = [kind for result in results for kind in self.kind_of_run(result).values()]
        return f" ({', '.join(dict.fromkeys(kinds))})" if kinds else ""

    def obstacles(self, models):
        """Say why claims about these models cannot be tested in this run.

        Returns
        -------
        list of str
            What is wrong with which models, then the command that makes it good; empty if each model has a
            training that counts.
        """
        causes = {model: self.causes(model) for model in models}
        lacking = [model for model in models if causes[model]]
        if not lacking:
            return []
        groups = {}
        for model in lacking:
            groups.setdefault(", ".join(causes[model].values()), []).append(self.label(model))
        kinds = {kind for model in lacking for kind in causes[model]}
        said = [f"{', '.join(labels)}: {text}" for text, labels in groups.items()]
        return [*said, f"needs {self.remedy(kinds, lacking)}"]

    def causes(self, model):
        """Say what keeps a model from being tested, by what is wrong; empty if a training of it counts."""
        found = self.run.by_name(model)
        if not found:
            return self.absence(model)
        if any(self.counts(result) for result in found):
            return {}
        causes = self.kind_of_run(found[0])
        if causes.get("weights") == "random initialisation":
            causes["weights"] = f"our figure, from random initialisation ({weights_reason(found[0])})"
        return causes

    def remedy(self, causes, models):
        """Return what a claim about these models needs, then the command that makes it.

        Parameters
        ----------
        causes : collection of str
            What is wrong: ``absent``, ``data``, ``profile``, ``settings``, ``weights``.
        models : list of str

        Returns
        -------
        str
        """
        # A later call reports on the models that it names, so those of this run are named again.
        kept = [r.model for r in self.run.models] if self.run.plan.get("profile") == "paper" else []
        command = f"./run_all.sh --profile paper --models {','.join(dict.fromkeys([*kept, *models]))}"
        command += "".join(f" {word}" for word in seeds_option(self.run))
        needs = []
        if "data" in causes:
            needs.append("the known FER2013 at PATH")
            command += " --data PATH"
        if "weights" in causes:
            needs.append("Keras's ImageNet weights within reach")
        return f"{listed(needs)}, then {command}" if needs else command

    def absence(self, model):
        """Say why there is no training of a model; empty if there is one."""
        if self.run.by_name(model):
            return {}
        errors = [failure.get("error", "") for failure in self.run.failures if failure.get("model") == model]
        return {"absent": f"failed ({errors[0] or 'no message'})" if errors else "not run"}

    # ---- figures of trainings; lists have one entry a seed

    def counted(self, result):
        """Metrics of one training on the thesis's test set, and their bootstrap resamples; None without images."""

        def compute():
            y_true, y_proba = result.select("test")
            if len(y_true) == 0:
                return None
            counts = statistics.outcome_counts(y_true, y_proba)
            draws = statistics.counted_metrics(statistics.resampled_counts(counts))
            return statistics.counted_metrics(counts), draws

        return self.once(("counted", result.model, result.seed), compute)

    def score(self, model, metric):
        """Mean of a metric over the seeds, with its 95% bootstrap interval.

        Parameters
        ----------
        model : str
        metric : str
            One of `fer_utils.findings.statistics.COUNTED`.

        Returns
        -------
        value, low, high : float
            None for each where there is nothing to score.
        values : list of float
            One a seed.
        """
        found = [self.counted(result) for result in self.results(model)]
        found = [pair for pair in found if pair is not None]
        if not found:
            return None, None, None, []
        values = [float(value[metric]) for value, _ in found]
        bounds = np.mean([statistics.percentile_interval(draws[metric]) for _, draws in found], axis=0)
        return float(np.mean(values)), float(bounds[0]), float(bounds[1]), values

    def auc(self, model, part="test"):
        """Mean one-vs-rest AUC of each class over the seeds; None where it is not defined."""

        def compute(result):
            return self.once(("auc", result.model, result.seed, part), lambda: metrics.class_auc(*result.select(part)))

        tables = [compute(result) for result in self.results(model)]
        return {
            name: float(np.mean([table[name] for table in tables]))
            if tables and all(table[name] is not None for table in tables)
            else None
            for name in CLASSES
        }

    def auc_interval(self, model, name):
        """DeLong's 95% interval of one class's AUC on the thesis's test set, averaged over the seeds."""
        k = CLASSES.index(name)
        bounds = []
        for result in self.results(model):
            y_true, y_proba = result.select("test")
            bounds.append(statistics.auc_interval(y_proba[y_true == k, k], y_proba[y_true != k, k])[1:])
        low, high = np.mean(bounds, axis=0)
        return float(low), float(high)

    def mean_auc(self, model, part="test"):
        """Mean over the classes of the one-vs-rest AUC; None where a class has none."""
        values = list(self.auc(model, part).values())
        return None if None in values else float(np.mean(values))

    def curves(self, model, column):
        """One array of values over the epochs for each seed."""
        return [result.history[column].to_numpy(dtype=float) for result in self.results(model)]

    def too_short(self, models):
        """Whether a training of these models has too few epochs for its curves to settle."""
        return any(len(result.history) < TAIL for model in models for result in self.results(model))

    def settled(self, model, column):
        """Return the level at which a curve settles, the mean of its last fifth; None without runs."""
        levels = [float(tail(curve).mean()) for curve in self.curves(model, column)]
        return float(np.mean(levels)) if levels else None

    def confusion(self, model, per_class):
        """Confusion matrix in percent of the true class, on the balanced sample of Fig. 5.8, averaged over seeds.

        Parameters
        ----------
        model : str
        per_class : int
            Images a class; a class that has fewer in the test set gives all it has.

        Returns
        -------
        percent : DataFrame, shape (7, 7)
            True classes down, predicted ones across.
        n : Series of int, length 7
            Images of each class in the sample.
        """
        tables = []
        for result in self.results(model):
            y_true, y_proba = result.select("test")
            sample = statistics.balanced_sample(y_true, per_class)
            tables.append(statistics.confusion(y_true[sample], y_proba[sample].argmax(axis=1)))
        every = pd.concat(tables)
        cells = every.groupby(["true", "predicted"])["percent"].mean().unstack()
        n = tables[0].groupby("true")["n"].sum()
        order = list(CLASSES)
        return cells.loc[order, order], n[order]

    # ---- the dataset

    @property
    def fingerprint(self):
        """What the dataset notebook found; empty if it was not run."""
        return self.run.dataset.get("fingerprint", {})

    def data_obstacles(self):
        """Say why claims about the dataset cannot be tested in this run; empty if they can."""
        if not self.fingerprint:
            return ["the dataset notebook was not run; needs ./run_all.sh --data PATH"]
        if not self.fingerprint["known"]:
            what = self.fingerprint["description"].rstrip(".")
            return [f"{what}; needs the known FER2013: ./run_all.sh --data PATH"]
        return []

    def beside_data(self):
        """Return what the data are, in brackets, where they are not the known FER2013."""
        if not self.fingerprint or self.fingerprint["known"]:
            return ""
        synthetic = self.fingerprint["variant"] == "synthetic"
        return " (synthetic data)" if synthetic else " (data that are not the known FER2013)"

    def class_counts(self, usages):
        """Images of each class in the given parts; empty if the dataset notebook was not run."""
        counts = self.fingerprint.get("counts", {})
        if not counts:
            return {}
        return {name: sum(counts.get(usage, {}).get(name, 0) for usage in usages) for name in CLASSES}
