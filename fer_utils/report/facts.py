"""What a run is, in a few words: its data, its conditions, and what must be known before reading a figure."""

import re
from dataclasses import dataclass
from pathlib import Path

from fer_utils.findings.figures import Displayable
from fer_utils.findings.results import once
from fer_utils.report.markup import render
from fer_utils.words import PROTOCOLS, commit_text, device_text, listed, plural

#: What notebooks warn of under these words has a notice of its own; see `fer_utils.training.run`.
COVERED = ("SYNTHETIC DATA", "NOT THE KNOWN FER2013", "SHORTENED RUN", "RANDOM INITIALISATION")


@dataclass(frozen=True)
class Notice:
    """What must be known before reading: ``danger`` (no result) or ``warning``; `loud` ones stand on every page."""

    kind: str
    title: str
    text: str
    points: tuple = ()
    loud: bool = True


def protocol_text(name):
    """``"sound (PublicTest chooses ...)"``; the name alone where it is no protocol of ours, or several."""
    return f"{name} ({PROTOCOLS[name]})" if name in PROTOCOLS else name


def profile_of(run):
    """Return the run's profile, or ``""``."""
    return run.plan.get("profile") or next((t.record["profile"] for t in run.trainings if t.record.get("profile")), "")


def data_of(run):
    """Return what is known of a run's data: from the dataset notebook, else the first training, else the plan."""
    found = run.dataset.get("fingerprint") or next(
        (t.record["data"] for t in run.trainings if t.record.get("data")), {}
    )
    planned = Path(str(run.plan.get("data", "data not recorded"))).name
    source = run.dataset.get("source") or found.get("source") or planned
    return {
        "source": "the synthetic set" if source == "synthetic" else source,
        "variant": found.get("variant") or run.plan.get("data_variant") or source,
        "description": found.get("description") or run.plan.get("data_description", ""),
        "differences": tuple(found.get("differences", ())),
        "sha256": found.get("sha256") or found.get("fingerprint") or run.plan.get("data_sha256", ""),
        "n_images": found.get("n_images"),
    }


def grouped(pairs):
    """Return each text once after the trainings it holds for, without an error's own text in brackets."""
    holders = {}
    for training, text in pairs:
        short = re.sub(r" \(\w*(Error|Exception).*\)", "", text.partition("\n")[0])
        holders.setdefault(short, []).append(training.title)
    return tuple(f"{'; '.join(names)}: {text}" for text, names in holders.items())


def notices(run):
    """List what a reader must know before reading any figure of a run."""
    data, reasons = data_of(run), run.reasons
    trainings, records = run.trainings, [t.record for t in run.trainings if t.record]
    tried = tuple(run.plan.get("data_notes", ()))
    digests = {r["data"]["fingerprint"] for r in records if r.get("data", {}).get("fingerprint")}
    digests |= {data["sha256"]} - {""} if digests else set()
    weights = [(t, t.record.get("weights", {})) for t in trainings]
    random = [(t, w.get("reason") or "no reason recorded") for t, w in weights if fell_back(w)]
    failed = [(t, t.failure["error"]) for t in trainings if t.failure]
    missing = [t for t in trainings if not t.record and not t.failure]
    warned = [(t, w) for t in trainings for w in t.record.get("warnings", ()) if not w.startswith(COVERED)]
    found = []

    def names(pairs):
        return listed(training.title for training, _ in pairs)

    def add(wanted, kind, title, text, points=(), loud=True):
        if wanted:
            found.append(Notice(kind, title, text, tuple(points), loud))

    synthetic = data["variant"] == "synthetic" or any(r.get("synthetic") for r in records)
    text = "The images are drawn faces, not FER2013. Nothing here says anything about the thesis's results."
    add(synthetic, "danger", "SYNTHETIC DATA", text, tried)
    smoke = profile_of(run) == "smoke"
    text = "A check that every part works, on a few images. Its figures are no results."
    add(smoke, "danger", "SMOKE RUN", text, filter(None, [reasons.get("shortened")]))
    text = "Fewer images or epochs than in the thesis: its figures cannot be compared with the thesis's."
    short = profile_of(run) == "quick" or "shortened" in reasons
    add(short and not smoke, "danger", "SHORTENED RUN", text, filter(None, [reasons.get("shortened")]))
    modified = data["variant"] in ("fer2013-modified", "unknown") or ("data" in reasons and not synthetic)
    add(modified, "danger", "MODIFIED DATA", data["description"] or reasons.get("data", ""), data["differences"])
    text = f"This folder holds work on {len(digests)} different data sets. Delete the folder and run again."
    add(len(digests) > 1, "danger", "MIXED DATA", text)
    text = "Pretrained weights were unavailable; trained from random values"
    add(random, "warning", "RANDOM INITIALISATION", f"{text}: {names(random)}.", grouped(random))
    add(failed, "danger", "FAILED MODELS", f"Without results: {names(failed)}.", grouped(failed))
    add(missing, "warning", "INCOMPLETE RUN", f"Planned and not trained yet: {listed(t.title for t in missing)}.")
    add(not trainings, "warning", "NO MODELS", "No model has been trained in this run.")
    add(run.problems, "warning", "BROKEN FILES", "These files of the run were left out:", run.problems, loud=False)
    add(tried and not synthetic, "warning", "NOTES ON THE DATA", "Tried before these data:", tried, loud=False)
    add(warned, "warning", "NOTES", "Warnings of the trainings:", grouped(warned), loud=False)
    return found


def fell_back(weights):
    """Whether pretrained weights were requested and random values used."""
    return weights.get("requested", "none") != "none" and weights.get("used") == "none"


def conditions(run):
    """List the run's conditions as pairs of name and text, leaving out what was not recorded."""
    data, records = data_of(run), [t.record for t in run.trainings if t.record]
    times = [r["times"] for r in records if r.get("times")]
    images = f", {data['n_images']:,} images" if data["n_images"] else ""
    started = min((t["started"] for t in times), default=run.plan.get("created"))
    finished = max((t["finished"] for t in times), default=None)
    protocols = once(protocol_text(r.get("protocol")) for r in records)
    found = {
        "Profile": profile_of(run),
        "Data": f"{data['source']} ({data['variant']}{images})",
        "Fingerprint": data["sha256"][:16],
        "Protocol": protocols or protocol_text(run.plan.get("protocol")),
        "Seeds": ", ".join(dict.fromkeys(str(t.seed) for t in run.trainings)),
        "Device": once(map(device_text, records)),
        "Software": once(map(software_text, records)),
        "Code": once(map(commit_text, records or [run.plan])),
        "Date": " to ".join(moment(time) for time in (started, finished) if time),
        "Command": run.plan.get("command"),
    }
    return [(name, value) for name, value in found.items() if value]


def software_text(record):
    """``"Python 3.11.7, TensorFlow 2.21.0, Keras 3.15.1"``, as far as recorded."""
    versions = record.get("versions") or {}
    return ", ".join(f"{n} {versions[n.lower()]}" for n in ("Python", "TensorFlow", "Keras") if versions.get(n.lower()))


def moment(time):
    """``"2026-01-01 12:30 UTC"`` from ``"2026-01-01T12:30:59Z"``."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*Z$", r"\1 \2 UTC", str(time))


def lead(run):
    """One sentence: what was run on what."""
    done = [t for t in run.trainings if t.record and not t.failure]
    models, data = len({t.model for t in done}), data_of(run)
    what = f"{plural(models, 'model')}, {plural(len(done), 'training')}, profile {profile_of(run) or 'not recorded'}"
    return f"{what}, on {data['source']}. {data['description']}".strip()


def show(run):
    """Show which run a notebook reads: notices, and conditions in a line each.

    Parameters
    ----------
    run : fer_utils.findings.results.Run

    Returns
    -------
    fer_utils.findings.figures.Displayable
    """
    told, stated = notices(run), conditions(run) if run.trainings else []
    text = [lead(run), *(f"{n.title}: {n.text} {'; '.join(n.points)}" for n in told), *map(": ".join, stated)]
    markup = render("facts.html.j2", lead=lead(run), notices=told, conditions=stated, begun=bool(run.models))
    return Displayable(markup, "\n".join(text))
