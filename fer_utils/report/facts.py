"""What a run is, in a few words: its trainings, its data, and what must be known before reading a figure.

The report's header is made of these. They read the small JSON files of a run folder and nothing else, and do
without any that is missing.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from fer_utils.files import read_json
from fer_utils.findings.figures import Displayable, command_lines, notice, paragraph
from fer_utils.words import duration, plural

PROTOCOLS = {
    "sound": "sound (model and learning rate chosen on PublicTest, final figure on PrivateTest)",
    "thesis": "thesis (the 20% test set is validation set and test set alike)",
}

#: What notebooks warn of under these words has a banner of its own; see `fer_utils.training.session`.
COVERED_WARNINGS = ("SYNTHETIC DATA", "NOT THE KNOWN FER2013", "SHORTENED RUN", "RANDOM INITIALISATION")


@dataclass(frozen=True)
class Banner:
    """A notice at the head of the report; `kind` is ``danger`` (not a result) or ``warning``."""

    kind: str
    title: str
    text: str
    points: tuple = ()
    on_every_page: bool = True


def read_record(path):
    """Read one JSON file of a run, or a dict with only ``unreadable`` (the reason) where it is broken."""
    try:
        content = read_json(path)
    except ValueError as error:
        return {"unreadable": f"{Path(path).name} cannot be read: {error}"}
    if not isinstance(content, dict):
        return {"unreadable": f"{Path(path).name} holds {type(content).__name__}, expected an object"}
    return content


def find_trainings(out, plan):
    """List the trainings of a run in the plan's order, or by name where there is no plan.

    Parameters
    ----------
    out : Path
        The run folder.
    plan : dict
        ``plan.json``, or an empty dict.

    Returns
    -------
    list of dict
        ``model``, ``seed``, ``label``, ``folder`` (Path), ``record`` (``run.json`` or empty) and ``failure``
        (empty, or ``error``, ``traceback`` and ``notebook`` as ``failed/<model>-seed-<n>.json`` holds them).
    """
    entries = [(entry["model"], entry["seed"], entry.get("label")) for entry in plan.get("models", [])]
    if not entries:
        folders = sorted({path.parent for path in out.glob("*/seed-*/*") if path.suffix in (".json", ".ipynb")})
        entries = [(path.parent.name, path.name.removeprefix("seed-"), None) for path in folders]
    failures = {}
    for path in sorted(out.glob("failed/*.json")):
        failure = read_record(path)
        model, _, seed = path.stem.rpartition("-seed-")
        error = failure.get("unreadable", "no error recorded")
        blank = {"model": model or path.stem, "seed": seed, "error": error, "traceback": "", "notebook": None}
        failure = {**blank, **failure}
        failures[str(failure["model"]), str(failure["seed"])] = failure
    known = {(str(model), str(seed)) for model, seed, _ in entries}
    if not plan.get("models"):
        entries += [(*key, None) for key in failures if key not in known]
    trainings = []
    for model, seed, label in entries:
        folder = out / str(model) / f"seed-{seed}"
        record = read_record(folder / "run.json")
        failure = failures.get((str(model), str(seed)), {})
        if "unreadable" in record:
            failure = failure or {"error": record["unreadable"], "traceback": "", "notebook": None}
            record = {}
        label = str(label or record.get("label") or failure.get("label") or model)
        trainings.append(
            {"model": model, "seed": seed, "label": label, "folder": folder, "record": record, "failure": failure}
        )
    return trainings


def named(training):
    """``"ResNet-50, seed 0"``."""
    return f"{training['label']}, seed {training['seed']}"


def describe_data(trainings, dataset, plan):
    """Say which data a run used: from the dataset notebook, else from the first training, else from the plan.

    Returns
    -------
    dict
        ``source``, ``variant``, ``description``, ``differences``, ``sha256``, ``n_images`` (None if not recorded)
        and ``notes``: what was tried before these data were taken.
    """
    found = dataset.get("fingerprint") or {}
    if not found:
        found = next((t["record"]["data"] for t in trainings if t["record"].get("data")), {})
    source = dataset.get("source") or found.get("source") or Path(str(plan.get("data", "data not recorded"))).name
    return {
        "source": "the synthetic set" if source == "synthetic" else source,
        "variant": found.get("variant") or plan.get("data_variant") or source,
        "description": found.get("description") or plan.get("data_description", ""),
        "differences": tuple(found.get("differences", ())),
        "sha256": found.get("sha256") or found.get("fingerprint") or plan.get("data_sha256", ""),
        "n_images": found.get("n_images"),
        "notes": tuple(plan.get("data_notes", ())),
    }


def noted(trainings, covered):
    """Warnings of the trainings, each once, with those it holds for.

    Parameters
    ----------
    covered : str or tuple of str
        Only warnings that begin so; ``()`` for those that begin with none of `COVERED_WARNINGS`.

    Returns
    -------
    tuple of str
        ``"2 of 45 epochs (VGG-16, seed 0)"``; without the names where it holds for every training.
    """
    holders = {}
    for training in trainings:
        for text in training["record"].get("warnings", ()):
            if text.startswith(covered) if covered else not text.startswith(COVERED_WARNINGS):
                text = text.removeprefix(f"{covered}: ") if covered else text
                holders.setdefault(text, []).append(named(training))
    finished = sum(bool(t["record"]) for t in trainings)
    return tuple(text if len(names) == finished else f"{text} ({'; '.join(names)})" for text, names in holders.items())


def make_banners(trainings, data, profile):
    """List what a reader must know before reading any figure.

    Parameters
    ----------
    trainings : list of dict
        From `find_trainings`.
    data : dict
        From `describe_data`.
    profile : str
        The run's profile, or ``""``.

    Returns
    -------
    list of Banner
    """
    records = [t["record"] for t in trainings if t["record"]]
    shortened = noted(trainings, "SHORTENED RUN")
    banners = []

    def add(kind, title, text, points=(), on_every_page=True):
        banners.append(Banner(kind, title, text, tuple(points), on_every_page))

    if data["variant"] == "synthetic" or any(r.get("synthetic") for r in records):
        text = (
            "The images are faces drawn by a program, not FER2013. Nothing in this report says anything about "
            "FER2013 or about the thesis's results."
        )
        add("danger", "SYNTHETIC DATA", text, data["notes"])
    elif data["notes"]:
        add("warning", "NOTES ON THE DATA", "Before these data were found:", data["notes"], on_every_page=False)
    if profile == "smoke":
        text = "A check that every part works, on a few images and an epoch or two. Its figures are no results."
        add("danger", "SMOKE RUN", text, shortened)
    elif profile == "quick" or any(r.get("shortened") for r in records):
        text = "Fewer images or epochs than the thesis used: these figures cannot be held against the thesis's."
        add("danger", "SHORTENED RUN", text, shortened)
    if data["variant"] in ("fer2013-modified", "unknown"):
        add("danger", "MODIFIED DATA", data["description"], data["differences"])
    fingerprints = {r["data"]["fingerprint"] for r in records if r.get("data", {}).get("fingerprint")}
    fingerprints |= {data["sha256"]} - {""} if fingerprints else set()
    if len(fingerprints) > 1:
        text = (
            f"This folder holds work on {len(fingerprints)} different data sets, which cannot be compared. "
            "Delete the folder and run again."
        )
        add("danger", "MIXED DATA", text)
    fallen = [
        f"{named(t)}: {t['record']['weights'].get('reason') or 'no reason recorded'}"
        for t in trainings
        if t["record"].get("weights", {}).get("requested", "none") != "none"
        and t["record"]["weights"].get("used") == "none"
    ]
    if fallen:
        text = "Pretrained weights were asked for and could not be had; these started from random ones:"
        add("warning", "RANDOM INITIALISATION", text, fallen)
    failed = [f"{named(t)}: {t['failure']['error']}" for t in trainings if t["failure"]]
    if failed:
        add("danger", "FAILED MODELS", "These did not finish:", failed)
    missing = [named(t) for t in trainings if not t["record"] and not t["failure"]]
    if missing:
        add("warning", "INCOMPLETE RUN", "Planned, and not trained yet:", missing)
    if not trainings:
        add("warning", "NO MODELS", "No model has been trained in this run.")
    notes = noted(trainings, ())
    if notes:
        add("warning", "NOTES", "The trainings noted:", notes, on_every_page=False)
    return banners


def state_facts(trainings, data, plan, profile):
    """List the run's facts as pairs of name and text, leaving out what was not recorded."""
    records = [t["record"] for t in trainings if t["record"]]
    images = f", {data['n_images']:,} images" if data["n_images"] else ""
    protocols = {r["protocol"]: None for r in records if r.get("protocol")} or [plan.get("protocol", "")]
    started = min((r["times"]["started"] for r in records if r.get("times")), default=plan.get("created"))
    finished = max((r["times"]["finished"] for r in records if r.get("times")), default=None)
    facts = {
        "Profile": profile,
        "Data": f"{data['source']} ({data['variant']}{images})",
        "Fingerprint": data["sha256"][:16],
        "Protocol": "; ".join(PROTOCOLS.get(name, name) for name in protocols),
        "Seeds": ", ".join(dict.fromkeys(str(t["seed"]) for t in trainings)),
        "Device": distinct(records, device_text),
        "Software": distinct(records, software_text),
        "Code": distinct(records or [plan], commit_text),
        "Date": " to ".join(moment(time) for time in (started, finished) if time),
        "Command": plan.get("command"),
    }
    return [(name, value) for name, value in facts.items() if value]


def distinct(records, text):
    """Join what `text` says of each record, each once, without the empty ones."""
    return "; ".join(dict.fromkeys(filter(None, map(text, records))))


def device_text(record):
    """``"CPU AMD EPYC with avx2, 2 threads"``, with how many at once where several trained; empty without a record."""
    device = record.get("device") or {}
    if not device.get("kind"):
        return ""
    several = f"{device['replicas']} x " if device.get("replicas", 1) > 1 else ""
    threads = plural(device["threads"], "thread") if device.get("threads") else ""
    name = f"{several}{device['kind']} {device.get('name') or ''}".strip()
    return ", ".join(filter(None, [name, threads, device.get("distribution")]))


def software_text(record):
    """``"Python 3.11.7, TensorFlow 2.21.0, Keras 3.15.1"``, as far as recorded."""
    versions = record.get("versions") or {}
    names = [name for name in ("Python", "TensorFlow", "Keras") if versions.get(name.lower())]
    return ", ".join(f"{name} {versions[name.lower()]}" for name in names)


def commit_text(record):
    """``"0123456789ab, with uncommitted changes"``; empty where no commit was recorded."""
    git = record.get("git") or {}
    if not git.get("commit"):
        return ""
    return f"commit {git['commit'][:12]}{', with uncommitted changes' if git.get('dirty') else ''}"


def moment(time):
    """``"2026-01-01 12:30 UTC"`` from ``"2026-01-01T12:30:59Z"``."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*Z$", r"\1 \2 UTC", str(time))


def tabulate_trainings(trainings):
    """One row of texts for each training that finished: what it started from, what it had, how long it took."""
    several = len({t["record"].get("protocol") for t in trainings if t["record"]}) > 1
    replicas = [(t["record"].get("device") or {}).get("replicas", 1) for t in trainings]
    rows = []
    for training in trainings:
        record = training["record"]
        if not record:
            continue
        weights, split = record.get("weights") or {}, record.get("split") or {}
        epochs, times = record.get("epochs") or {}, record.get("times") or {}
        device = record.get("device") or {}
        used = {"none": "random", "imagenet": "ImageNet"}.get(weights.get("used"), weights.get("used", "–"))
        if used == "random" and weights.get("requested", "none") != "none":
            used = f"random (asked: {weights['requested']})"
        seconds = times.get("train_seconds")
        rows.append(
            {
                "Model": training["label"],
                "Seed": training["seed"],
                **({"Protocol": record.get("protocol", "–")} if several else {}),
                "Weights": used,
                "Precision": record.get("precision", "–"),
                **({"Devices": device.get("replicas", 1)} if max(replicas) > 1 else {}),
                "Training images": f"{split['train']:,}" if "train" in split else "–",
                "Epochs": f"{epochs.get('run', '–')} of {epochs.get('requested', '–')}",
                "Best epoch": epochs.get("best", "–"),
                "Training time": "–" if seconds is None else duration(seconds),
                "Predictions (sha256)": record.get("predictions_sha256", "–")[:16],
            }
        )
    return rows


def summarise(trainings, data, profile):
    """One sentence under the title: what was run on what."""
    finished = [t for t in trainings if t["record"] and not t["failure"]]
    models, seeds = len({t["model"] for t in finished}), len(finished)
    what = f"{models} model{'' if models == 1 else 's'}, {seeds} training{'' if seeds == 1 else 's'}"
    return f"{what}, profile {profile or 'not recorded'}, on {data['source']}. {data['description']}".strip()


def show(run):
    """Show which run a notebook reads: notices and facts, or the command that makes a run."""
    trainings = find_trainings(run.folder, run.plan)
    data = describe_data(trainings, run.dataset, run.plan)
    profile = run.plan.get("profile") or next((result.record["profile"] for result in run.models), "")
    items = [notice(banner.title, banner.text, banner.points) for banner in make_banners(trainings, data, profile)]
    if run.models:
        lines = [f"{name}: {text}" for name, text in state_facts(trainings, data, run.plan, profile)]
        items += [paragraph(summarise(trainings, data, profile)), paragraph(". ".join(lines) + ".")]
    else:
        items += [paragraph("Nothing to show yet: no model has been trained. This command trains them:")]
        items += [command_lines("./run_all.sh")]
    return Displayable("".join(item.markup for item in items), "\n".join(item.text for item in items))
