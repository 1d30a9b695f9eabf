"""The report's first page and its last: what was reproduced, and how reproducible this run itself is.

The first follows the one-page summary of the ML Reproducibility Challenge (paperswithcode.com/rc2020 and later),
the last the Machine Learning Reproducibility Checklist (Pineau et al. 2021, version 2.0). Every number in them is
computed from the run's files, so the prose cannot be wrong about it.
"""

import html
from dataclasses import dataclass

import numpy as np

from fer_utils.claims import CONTRADICTED, NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, link, load_claims, tally
from fer_utils.constants import USAGES
from fer_utils.evidence import PRETRAINED, Evidence, number
from fer_utils.figures import Displayable
from fer_utils.rules import listed

#: How a warning looks where the report's style sheet is not at hand.
BANNER = "border-left:5px solid #9b1c1c;background:#fdecec;padding:0.5em 1em;margin:0.5em 0"

#: Epochs of Table 5.1.
EPOCHS = 45

#: How the three most telling claims are chosen; `telling` does it.
TELLING = (
    "chosen by rule: of the claims not reproduced the one farthest from the thesis's figure, of those reproduced "
    "the nearest (each as a part of that figure), of the contradictions the one that touches most other claims "
    "(among equals, whose sides are farthest apart); what a verdict lacks is filled up in the order not reproduced, "
    "contradicted, reproduced"
)

SOURCES = {
    "fer2013-kaggle-jpeg": "https://www.kaggle.com/datasets/msambare/fer2013",
    "fer2013-csv-lossless": "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-"
    "recognition-challenge",
    "synthetic": "drawn by the package itself (fer_utils.synthetic), from its seed",
}

PROTOCOLS = {
    "sound": "PublicTest chooses epoch and learning rate, PrivateTest gives the final figure",
    "thesis": "the 20% chooses epoch and learning rate and gives the final figure too",
}


def plural(n, one, many=None):
    """``"1 claim"``, ``"2 claims"``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def duration(seconds):
    """``"45 s"``, ``"12 min"``, ``"3.4 h"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def names_of(results):
    """Labels of trainings, each once, in order."""
    return listed(dict.fromkeys(result.label for result in results))


# ---- the first page


def warnings(run):
    """List what a reader must know before any number.

    Parameters
    ----------
    run : fer_utils.results.Run

    Returns
    -------
    list of (str, str)
        A heading in capitals and what it means here; empty for a paper run of the thesis's four on the known data.
    """
    found = []
    if not run.models:
        found.append(("NOTHING HAS BEEN TRAINED", "this run holds no model's results."))
    if is_synthetic(run):
        found.append(("SYNTHETIC DATA", "the faces are drawn by a program; no number here is a result on FER2013."))
    else:
        found += [("NOT THE KNOWN FER2013", text) for text in altered_data(run)]
    for profile in dict.fromkeys(result.record["profile"] for result in run.models):
        if profile != "paper":
            what = "a check of the plumbing; " if profile == "smoke" else ""
            found.append((f"{profile.upper()} RUN", f"{what}no figure can be held against the thesis."))
    short = [result for result in run.models if result.record["shortened"]]
    if short:
        lengths = "; ".join(dict.fromkeys(length(result) for result in short))
        found.append(("SHORTENED", f"{lengths} (Table 5.1: {EPOCHS} epochs on all images)."))
    random = [r for r in run.models if r.model in PRETRAINED and not r.pretrained]
    for reason in dict.fromkeys(result.record["weights"]["reason"] for result in random):
        those = [result for result in random if result.record["weights"]["reason"] == reason]
        used = sorted({result.record["weights"]["used"] for result in those})
        head = "RANDOM INITIALISATION" if used == ["none"] else "OTHER INITIAL WEIGHTS"
        why = reason or f"asked for: {listed(used)}"
        found.append((head, f"{names_of(those)}, which the thesis starts from ImageNet weights ({why})."))
    for failure in run.failures:
        label = Evidence(run).label(failure.get("model", "a model"))
        found.append(("FAILED", f"{label}, seed {failure.get('seed', '?')}: {failure.get('error') or 'no message'}."))
    return found


def is_synthetic(run):
    """Whether anything in the run was made from drawn faces."""
    drawn = [r.record["synthetic"] or r.record["data"]["variant"] == "synthetic" for r in run.models]
    return any(drawn) or run.dataset.get("fingerprint", {}).get("variant") == "synthetic"


def altered_data(run):
    """Descriptions of the data that are not the known FER2013, each once."""
    data = [result.record["data"] for result in run.models]
    if run.dataset.get("fingerprint"):
        data.append(run.dataset["fingerprint"])
    return list(dict.fromkeys(d["description"] for d in data if not d["known"] and d["variant"] != "synthetic"))


def length(result):
    """``"ResNet-50: 6 epochs, 3,489 training images"``."""
    record = result.record
    return f"{result.label}: {plural(record['epochs']['run'], 'epoch')}, {record['split']['train']:,} training images"


def telling(claims, n=3):
    """Choose the claims that say most, by the rule in `TELLING`.

    Parameters
    ----------
    claims : DataFrame
        As `fer_utils.claims.judge` returns it.
    n : int
        How many.

    Returns
    -------
    DataFrame
        At most `n` of the rows; none that is not testable.
    """
    ranked = claims.assign(touches=claims["id"].map(claims["see"].value_counts()).fillna(0))
    orders = {
        NOT_REPRODUCED: ranked.sort_values("difference", ascending=False, kind="stable"),
        REPRODUCED: ranked.sort_values("difference", kind="stable"),
        CONTRADICTED: ranked.sort_values(["touches", "difference"], ascending=False, kind="stable"),
    }
    queues = {verdict: list(order.index[order["verdict"] == verdict]) for verdict, order in orders.items()}
    chosen = [queue.pop(0) for queue in queues.values() if queue][:n]
    for verdict in (NOT_REPRODUCED, CONTRADICTED, REPRODUCED):
        chosen += queues[verdict][: n - len(chosen)]
    return claims.loc[chosen]


def scope(run, claims):
    """Say what is tested."""
    stated = {claim.id: claim for claim in load_claims()}
    kinds = claims["kind"].value_counts(sort=False)
    return [
        "The thesis compares four convolutional networks (traditional CNN, ResNet-50, VGG-16, MobileNet-V3) at "
        f"recognising seven emotions in FER2013. Its central claim: {stated['F01'].statement} Chapter 6 says "
        f"{stated['F02'].thesis}.",
        f"All {len(claims)} of its checkable statements are judged: "
        + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        + ".",
    ]


def methodology(run, claims):
    """Say what was done, on what, for how long."""
    if not run.models:
        return ["The thesis's own numbers were held against each other. No training was found."]
    first = run.models[0].record
    seeds = {m: [r.seed for r in run.by_name(m)] for m in dict.fromkeys(r.model for r in run.models)}
    trained = ", ".join(
        f"{trainings_text(run, m, len(s))}, from {start_of(run.by_name(m)[0])}" for m, s in seeds.items()
    )
    protocols = dict.fromkeys(result.record["protocol"] for result in run.models)
    return [
        f"Trained by the notebooks of this repository, profile {listed(profiles(run))}. {trained}.",
        f"Data: {first['data']['source']}: {first['data']['description']}",
        "; ".join(dict.fromkeys(length(result) for result in run.models)) + ".",
        "Protocol: " + "; ".join(f"{name} ({PROTOCOLS[name]})" for name in protocols) + ". Claims are judged on the "
        "thesis's own test set, PublicTest and PrivateTest together.",
        f"Computed on {listed(devices(run))} in {duration(seconds_of(run))} of training, with "
        f"TensorFlow {first['versions'].get('tensorflow', '?')} and Keras {first['versions'].get('keras', '?')}.",
    ]


def start_of(result):
    """Say what a training started from."""
    used = {"imagenet": "ImageNet weights", "none": "random values", "path": "weights from a file"}
    return used[result.record["weights"]["used"]]


def profiles(run):
    """Profiles of the run's trainings, each once."""
    return list(dict.fromkeys(result.record["profile"] for result in run.models))


def devices(run):
    """Devices of the run's trainings, each once."""
    kinds = (result.record["device"] for result in run.models)
    return list(dict.fromkeys(f"{d['kind']} {d['name']}, {plural(d['threads'], 'thread')}" for d in kinds))


def seconds_of(run):
    """Seconds of all trainings together."""
    return sum(result.record["times"]["train_seconds"] or 0 for result in run.models)


def results(run, claims):
    """Say what came out: figures, tally, and the most telling claims as (id, text)."""
    evidence = Evidence(run)
    lines = []
    for model in dict.fromkeys(result.model for result in run.models):
        value, low, high, seeds = evidence.score(model, "accuracy")
        if value is None:
            continue
        n = int(evidence.results(model)[0].mask("test").sum())
        spread = f", {len(seeds)} seeds from {number(min(seeds))} to {number(max(seeds))}" if len(seeds) > 1 else ""
        lines.append(
            f"{evidence.label(model)}: accuracy {number(value)} [{number(low)}, {number(high)}] on {n:,} test "
            f"images{spread}{evidence.beside([model])}"
        )
    chosen = [
        (row.id, f"{row.verdict}: {row.statement} Thesis: {row.thesis}. Ours: {row.ours or 'none'}. {row.reason}")
        for row in telling(claims).itertuples()
    ]
    counts = ", ".join(f"{n} {verdict}" for verdict, n in tally(claims).items())
    return lines, f"Of {len(claims)} claims: {counts}.", chosen


def easy(run, claims):
    """Say what went without trouble in this run."""
    lines = []
    print_ = run.dataset.get("fingerprint", {})
    if print_.get("known"):
        lines.append(f"Recognising the data: {print_['description']}")
    if run.models:
        planned = len(run.models) + len(run.failures)
        lines.append(f"{len(run.models)} of {plural(planned, 'training')} ended without an error.")
    setup = claims[(claims["kind"] == "setup") & (claims["verdict"] == REPRODUCED)]
    if len(setup):
        lines.append(f"Following the thesis's setup where it is stated: {listed(setup['id'])}.")
    return lines or ["Nothing yet: nothing of it has been run."]


def difficult(run, claims):
    """Say what stood in the way."""
    contradictions = claims[claims["verdict"] == CONTRADICTED]
    untested = claims[claims["verdict"] == NOT_TESTABLE]
    literature = int((untested["kind"] == "literature").sum())
    lines = []
    if len(contradictions):
        places = plural(len(contradictions), "place")
        lines.append(f"The thesis contradicts itself in {places} ({listed(contradictions['id'])}).")
    lines.append(
        "It gives no seed, no software versions, no ranges of augmentation, no settings of the learning-rate "
        "schedule and no layer sizes of its traditional CNN; each notebook says what was chosen instead."
    )
    if len(untested) > literature:
        lines.append(
            f"{plural(len(untested) - literature, 'claim')} could not be tested in this run; beside each stands "
            "the reason and, where there is one, the command that makes what is missing."
        )
    lines += [
        f"{head.capitalize()}: {text}" for head, text in warnings(run) if head.startswith(("RANDOM", "FAILED", "NOT "))
    ]
    return lines


def opening(run, claims):
    """Show the reproducibility summary on one page.

    Parameters
    ----------
    run : fer_utils.results.Run
    claims : DataFrame
        As `fer_utils.claims.judge` returns it.

    Returns
    -------
    fer_utils.figures.Displayable
    """
    figures, counts, chosen = results(run, claims)
    parts = [("Scope of reproducibility", scope(run, claims)), ("Methodology", methodology(run, claims))]
    after = [
        ("What was easy", easy(run, claims)),
        ("What was difficult", difficult(run, claims)),
        ("Communication with the author", ["None is recorded in this run."]),
    ]
    loud = warnings(run)
    head = "".join(
        f'<div class="banner danger" role="note" style="{BANNER}"><strong>{html.escape(title)}</strong>: '
        f"{html.escape(text)}</div>"
        for title, text in loud
    )
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in figures)
    telling_lines = "".join(f"<li>{link(f'claim-{name}', name)}, {html.escape(text)}</li>" for name, text in chosen)
    middle = (
        f"<h3>Results</h3><p><b>{html.escape(counts)}</b></p>"
        + (f"<ul>{lines}</ul>" if lines else "")
        + f"<p>The three most telling ({html.escape(TELLING)}):</p><ol>{telling_lines}</ol>"
    )
    markup = (
        f'<section class="fer-summary" aria-label="Reproducibility summary">{head}{paragraphs(parts)}{middle}'
        f"{paragraphs(after)}</section>"
    )
    text = [f"{title}: {line}" for title, line in loud]
    text += [f"{title}\n  " + "\n  ".join(body) for title, body in parts]
    text += ["Results\n  " + "\n  ".join([counts, *figures, *(f"{name}, {line}" for name, line in chosen)])]
    text += [f"{title}\n  " + "\n  ".join(body) for title, body in after]
    return Displayable(markup, "\n".join(text))


def paragraphs(parts):
    """Headings with their sentences, as HTML."""
    return "".join(
        f"<h3>{html.escape(title)}</h3>" + "".join(f"<p>{html.escape(line)}</p>" for line in body)
        for title, body in parts
    )


# ---- the last page


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
    run : fer_utils.results.Run
    claims : DataFrame
        As `fer_utils.claims.judge` returns it.

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
            "fer_utils.synthetic says how faces are drawn",
        )
        if variant == "synthetic"
        else Item("For new data, a description of their collection", "not applicable", "no data were collected"),
    ]


def split_text(result):
    """Sizes of a training's parts."""
    split = result.record["split"]
    return (
        f"{split['train']:,} training, {split['public']:,} PublicTest, {split['private']:,} PrivateTest images, "
        f"protocol {result.record['protocol']} ({PROTOCOLS[result.record['protocol']]})"
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
        answered("Training code", clean, f"notebooks/ and fer_utils.training, commit {shown}", lacking),
        answered("Evaluation code", clean, f"fer_utils.metrics and fer_utils.statistics, commit {shown}", lacking),
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
            "macro figures of the arg-max class; fer_utils.statistics: 95% bootstrap intervals over images",
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


def trainings_text(run, model, n):
    """``"ResNet-50: seeds 0 and 1"``."""
    seeds = [result.seed for result in run.by_name(model)]
    return f"{run.by_name(model)[0].label}: {'seeds' if n > 1 else 'seed'} {listed(seeds)}"


def checklist(run, claims):
    """Show the Machine Learning Reproducibility Checklist, filled in from the run.

    Parameters
    ----------
    run : fer_utils.results.Run
    claims : DataFrame
        As `fer_utils.claims.judge` returns it.

    Returns
    -------
    fer_utils.figures.Displayable
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
