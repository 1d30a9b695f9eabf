"""The report's last page: how reproducible this run itself is.

The Machine Learning Reproducibility Checklist (Pineau et al. 2021, version 2.0), filled in from the run's files.
"""

import html
from dataclasses import dataclass

import numpy as np

from fer_utils.claims.claims import CONTRADICTED
from fer_utils.constants import USAGES
from fer_utils.findings.figures import Displayable
from fer_utils.report.facts import PROTOCOLS
from fer_utils.report.summary import devices, names_of, trainings_text
from fer_utils.words import duration, listed, plural

SOURCES = {
    "fer2013-kaggle-jpeg": "https://www.kaggle.com/datasets/msambare/fer2013",
    "fer2013-csv-lossless": "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-"
    "recognition-challenge",
    "synthetic": "drawn by the package itself (fer_utils.data.synthetic), from its seed",
}


@dataclass(frozen=True)
class Item:
    """One item of the checklist: what is asked, ``yes``, ``no`` or ``not applicable``, and what shows it."""

    asked: str
    answer: str
    evidence: str


def answered(asked, shown, evidence, missing="nothing has been trained"):
    """Return an item: yes with its evidence if it is shown, else no with what is missing."""
    return Item(asked, "yes", evidence) if shown else Item(asked, "no", missing)


def checklist_items(run, claims):
    """Fill in the checklist.

    Parameters
    ----------
    run : fer_utils.findings.results.Run
    claims : DataFrame
        As `fer_utils.claims.claims.judge` returns it.

    Returns
    -------
    dict of str to list of Item
        By section.
    """
    return {
        "Models and algorithms": model_items(run, claims),
        "Theoretical claims": [
            Item("A clear statement of each claim", "not applicable", "neither thesis nor report makes one"),
            Item("A complete proof of each claim", "not applicable", "neither thesis nor report makes one"),
        ],
        "Datasets": dataset_items(run),
        "Shared code": code_items(run),
        "Experimental results": result_items(run),
    }


def model_items(run, claims):
    """Fill in the items about models."""
    models = run.first_seeds
    sized = [r for r in models if r.architecture.get("parameters")]
    unsized = [r for r in models if r not in sized]
    sizes = ", ".join(f"{r.label} {r.architecture['parameters']['total']:,} parameters" for r in sized)
    timed = [r for r in models if r.record["times"].get("seconds_per_epoch") is not None]
    chosen = listed(claims.loc[claims["verdict"] == CONTRADICTED, "id"])
    return [
        answered(
            "A clear description of the algorithm or model",
            models and not unsized,
            f"summary, diagram and code of each network: {sizes}",
            f"no architecture.json of {names_of(unsized)}" if unsized else "nothing has been trained",
        ),
        answered(
            "A clear explanation of the assumptions",
            models,
            "the notebooks say what was chosen where the thesis is silent, the audit where it contradicts itself "
            f"({chosen}); protocol {listed(dict.fromkeys(r.record['protocol'] for r in models))}",
        ),
        answered(
            "An analysis of the complexity (time, space, sample size)",
            models and len(timed) == len(models) and not unsized,
            f"{sizes}; "
            + "; ".join(
                f"{r.label}: {r.record['times']['seconds_per_epoch']:.1f} s an epoch of "
                f"{r.record['split']['train']:,} images, {memory_text(r)}"
                for r in timed
            ),
            "time or number of parameters is not recorded for every model" if models else "nothing has been trained",
        ),
    ]


def memory_text(result):
    """Peak memory of a training, in words."""
    peak = result.record["memory"].get("peak_rss_mb")
    return f"{peak:,.0f} MB at most" if peak else "memory not recorded"


def dataset_items(run):
    """Fill in the items about the data."""
    fingerprint = run.dataset.get("fingerprint", {})
    counts = {usage: sum(by_class.values()) for usage, by_class in fingerprint.get("counts", {}).items()}
    data = fingerprint or (run.models[0].record["data"] if run.models else {})
    variant = data.get("variant")
    splits = dict.fromkeys(split_text(result) for result in run.models)
    limits = [
        r for r in run.models if r.record["split"]["images_per_class"] or r.record["split"]["test_images_per_class"]
    ]
    used = "; ".join(dict.fromkeys(limit_text(r) for r in limits)) or "no image was left out"
    unknown = "the data were not read" if not variant else f"this copy is not a published one: {data['description']}"
    return [
        answered(
            "The relevant statistics, such as the number of examples",
            counts,
            f"{fingerprint.get('n_images', 0):,} images ("
            + ", ".join(f"{usage} {counts.get(usage, 0):,}" for usage in USAGES)
            + "), by class in Table 3.1",
            "the dataset notebook was not run",
        ),
        answered("The details of the training, validation and test splits", splits, "; ".join(splits)),
        answered(
            "What data were left out, and all pre-processing",
            run.models,
            f"{used}; decoded with {data.get('decoder', '?')}; augmentation: "
            + "; ".join(f"{r.label} {augmentation_text(r)}" for r in run.first_seeds),
        ),
        answered("A link to a version of the dataset", variant in SOURCES, SOURCES.get(variant, ""), unknown),
        Item(
            "For new data, a description of their collection",
            "yes",
            "fer_utils.data.synthetic says how faces are drawn",
        )
        if variant == "synthetic"
        else Item("For new data, a description of their collection", "not applicable", "no data were collected"),
    ]


def split_text(result):
    """Sizes of a training's parts."""
    split = result.record["split"]
    return (
        f"{split['train']:,} training, {split['public']:,} PublicTest, {split['private']:,} PrivateTest images, "
        f"protocol {PROTOCOLS[result.record['protocol']]}"
    )


def limit_text(result):
    """How many images of each class were used at most, in words."""
    split = result.record["split"]
    train, test = (split[name] or "all" for name in ("images_per_class", "test_images_per_class"))
    return f"{result.label}: {train} training images and {test} of each test part a class"


def augmentation_text(result):
    """List the settings of a training's augmentation that are on."""
    on = {name: value for name, value in result.record["augmentation"].items() if value}
    return ", ".join(f"{name} {value}" for name, value in on.items()) or "none"


def code_items(run):
    """Fill in the items about code."""
    commits = dict.fromkeys(result.record["git"].get("commit") for result in run.models)
    dirty = any(result.record["git"].get("dirty") for result in run.models)
    clean = bool(commits) and None not in commits and not dirty
    shown = listed([commit[:12] for commit in commits if commit])
    lacking = "nothing has been trained"
    if run.models:
        lacking = f"commit {shown} with uncommitted changes" if dirty and shown else "the commit is not recorded"
    saved = [result for result in run.models if (result.folder / "model.keras").exists()]
    versions = run.models[0].record["versions"] if run.models else {}
    command = run.plan.get("command")
    return [
        answered(
            "Specification of dependencies",
            versions,
            "requirements.txt; used: " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        ),
        answered("Training code", clean, f"notebooks/ and fer_utils.training.session, commit {shown}", lacking),
        answered(
            "Evaluation code", clean, f"fer_utils.metrics and fer_utils.findings.statistics, commit {shown}", lacking
        ),
        answered(
            "Trained models",
            run.models and len(saved) == len(run.models),
            f"{plural(len(saved), 'network')} as .keras in the run's folder",
            f"{len(saved)} of {plural(len(run.models), 'network')} lie in the run's folder",
        ),
        answered(
            "A table of results with the command that makes them",
            command and run.models,
            f"this report's tables, made by {command}",
            "the notebooks were run one by one, without run_all.sh" if run.models else "nothing has been trained",
        ),
    ]


def result_items(run):
    """Fill in the items about results."""
    seeds = {model: len(run.by_name(model)) for model in dict.fromkeys(result.model for result in run.models)}
    searched = ("batch_size", "learning_rate", "epochs", "optimizer", "loss")
    values = {
        name: listed(dict.fromkeys(str(result.record["parameters"].get(name)) for result in run.models))
        for name in searched
    }
    fewest = min(seeds.values(), default=0)
    return [
        answered(
            "The range of hyperparameters considered, how the best were selected, and all that were used",
            run.models,
            "no search: the thesis's Table 5.1 gives one value each. Used: "
            + ", ".join(f"{name} {value}" for name, value in values.items())
            + "; all others in each run.json",
        ),
        answered(
            "The exact number of training and evaluation runs",
            run.models,
            f"{plural(len(run.models), 'training')} "
            f"({', '.join(trainings_text(run, m, n) for m, n in seeds.items())}), each evaluated at its best and "
            f"its last epoch; {len(run.failures)} failed",
        ),
        answered(
            "A clear definition of the measures and statistics",
            run.models,
            "fer_utils.metrics: precision, recall and F1 both at a probability threshold of 0.5, pooled, and as "
            "macro figures of the arg-max class; fer_utils.findings.statistics: 95% bootstrap intervals over images",
        ),
        answered(
            "Central tendency and variation",
            fewest > 1,
            f"mean and spread over at least {plural(fewest, 'seed')} a model, and intervals over images",
            "one seed for at least one model: the intervals cover the choice of images, not that of the seed"
            if run.models
            else "nothing has been trained",
        ),
        answered(
            "The average runtime, or the energy used",
            run.models,
            "; ".join(f"{run.by_name(m)[0].label} {duration(mean_seconds(run, m))} a training" for m in seeds)
            + "; energy was not measured",
        ),
        answered(
            "A description of the computing infrastructure",
            run.models,
            f"{listed(devices(run))}; "
            + "; ".join(dict.fromkeys(f"{result.label}: {memory_text(result)}" for result in run.models)),
        ),
    ]


def mean_seconds(run, model):
    """Return the mean seconds of a model's trainings."""
    return float(np.mean([result.record["times"]["train_seconds"] or 0 for result in run.by_name(model)]))


def checklist(run, claims):
    """Show the Machine Learning Reproducibility Checklist, filled in from the run.

    Parameters
    ----------
    run : fer_utils.findings.results.Run
    claims : DataFrame
        As `fer_utils.claims.claims.judge` returns it.

    Returns
    -------
    fer_utils.findings.figures.Displayable
    """
    sections = checklist_items(run, claims)
    answers = [item.answer for items in sections.values() for item in items]
    counts = ", ".join(f"{answers.count(answer)} {answer}" for answer in ("yes", "no", "not applicable"))
    tables = "".join(section_html(title, items) for title, items in sections.items())
    markup = f'<section class="fer-checklist" aria-label="Reproducibility checklist"><p>{counts}.</p>{tables}</section>'
    lines = [f"{item.answer}: {item.asked}: {item.evidence}" for items in sections.values() for item in items]
    return Displayable(markup, "\n".join([f"{counts}.", *lines]))


def section_html(title, items):
    """One section of the checklist as a table."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(item.asked)}</th>'
        f'<td style="text-align:left"><b>{item.answer}</b></td>'
        f'<td style="text-align:left;overflow-wrap:anywhere">{html.escape(item.evidence)}</td></tr>'
        for item in items
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Item", "Answer", "Evidence"))
    return (
        f'<div style="overflow-x:auto"><table><caption style="text-align:left">{html.escape(title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
