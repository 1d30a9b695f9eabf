"""How reproducible this run itself is: two published checklists, filled in from the run's files.

``checklist.yaml`` holds the items; `facts` what they are filled in with.
"""

from collections import namedtuple

import numpy as np
import yaml

from fer_utils.claims.claims import CONTRADICTED
from fer_utils.claims.page import HERE, TEMPLATES
from fer_utils.constants import USAGES
from fer_utils.findings import statistics
from fer_utils.findings.figures import Displayable
from fer_utils.findings.results import once
from fer_utils.words import PROTOCOLS, commit_text, device_text, duration, listed, plural

SOURCES = {
    "fer2013-kaggle-jpeg": "https://www.kaggle.com/datasets/msambare/fer2013",
    "fer2013-csv-lossless": "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-"
    "recognition-challenge",
    "synthetic": "drawn by the package itself (fer_utils.data.synthetic), from its seed",
}
UNTRAINED = "nothing has been trained"


#: One item: what is asked, ``yes``, ``no`` or ``not applicable``, and what shows it.
Item = namedtuple("Item", "asked answer evidence")


def split_text(record):
    """Sizes of a training's parts, and its protocol."""
    train, public, private = (f"{record['split'][name]:,}" for name in ("train", "public", "private"))
    return f"{train} training, {public} PublicTest, {private} PrivateTest images; {PROTOCOLS[record['protocol']]}"


def left_out(result):
    """``"ResNet-50: 9 training images and 8 of each test part per class"``, or nothing."""
    train, test = (result.record["split"].get(name) for name in ("images_per_class", "test_images_per_class"))
    text = f"{result.label}: {train or 'all'} training images and {test or 'all'} of each test part per class"
    return text if train or test else ""


def facts(run, verdicts):
    """What the items of ``checklist.yaml`` are filled in with: texts, and flags that decide the answers."""
    models, first, records = run.models, run.first_seeds, [result.record for result in run.models]
    fingerprint, audit = run.dataset.get("fingerprint", {}), run.dataset.get("audit", {})
    data = fingerprint or (records[0]["data"] if records else {})
    counts = {usage: sum(by.values()) for usage, by in fingerprint.get("counts", {}).items()}
    sizes = {r.label: r.architecture.get("parameters", {}).get("total") for r in first}
    seeds = {r.label: len(run.by_name(r.model)) for r in first}
    costs = statistics.costs(models).reindex(columns=["label", "train_seconds", "peak_rss_mb"]).set_index("label")
    costs = costs.astype(float).groupby(level=0, sort=False)
    times, memory = costs["train_seconds"].mean().dropna(), costs["peak_rss_mb"].first().dropna()
    versions = records[0].get("versions", {}) if records else {}
    commits = list(dict.fromkeys(map(commit_text, records)))
    saved = sum("model.keras" in result.networks for result in models)
    labels = [result.select("test")[0] for result in first]
    names = ("batch_size", "learning_rate", "epochs", "optimizer", "loss")
    used = {name: listed(dict.fromkeys(str(r["parameters"].get(name)) for r in records)) for name in names}
    near = audit.get("n_near_test_in_train")
    thesis = any(record["protocol"] == "thesis" for record in records)
    fewest = min(seeds.values(), default=0)
    return {
        "trained": bool(models),
        "runs": f"{plural(len(models), 'training')} ({', '.join(f'{k}: {n}' for k, n in seeds.items())})",
        "failed": len(run.failures),
        "fewest": fewest,
        "several_seeds": fewest > 1,
        "one_seed": "one seed for at least one model: intervals cover the choice of images, not that of the seed"
        if models
        else UNTRAINED,
        "pairs": len(first) > 1,
        "sized": bool(first) and all(sizes.values()),
        "sizes": once(f"{label} {size:,} parameters" for label, size in sizes.items() if size),
        "unsized": listed(label for label, size in sizes.items() if not size) or UNTRAINED,
        "timed": 0 < len(times) == len(first) and all(sizes.values()),
        "times": once(f"{label} {duration(seconds)}" for label, seconds in times.items()),
        "memory": once(f"{label} {mb:,.0f} MB" for label, mb in memory.items()) or "not recorded",
        "devices": once(map(device_text, records)),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "used": "; ".join(f"{name} {values}" for name, values in used.items()),
        "clean": bool(models) and all(text and "uncommitted" not in text for text in commits),
        "commit": once(commits) or "no commit is recorded",
        "command": bool(models) and run.plan.get("command"),
        "all_saved": bool(models) and saved == len(models),
        "saved": f"{saved} of {plural(len(models), 'network')} as .keras in the run's folder",
        "chosen": listed(dict.fromkeys(verdicts.loc[verdicts["verdict"] == CONTRADICTED, "id"])),
        "counts": counts
        and f"{sum(counts.values()):,} images ({', '.join(f'{u} {counts.get(u, 0):,}' for u in USAGES)})",
        "unread": "the dataset notebook was not run",
        "splits": once(map(split_text, records)),
        "left_out": once(map(left_out, first)) or "no image was left out",
        "decoder": data.get("decoder", "?"),
        "augmentation": once(f"{r.label} {', '.join(r.augmentation.values()) or 'none'}" for r in first),
        "link": SOURCES.get(data.get("variant"), ""),
        "unlinked": f"this copy is not a published one: {data.get('description')}"
        if data
        else "the data were not read",
        "drawn": data.get("variant") == "synthetic",
        "audited": "n_test_in_train" in audit,
        "corrupt": f"{audit.get('n_near_constant')} nearly constant images and {audit.get('n_conflicting_images')} "
        "with conflicting labels, kept",
        "shared": f"{audit.get('n_test_in_train')} test images also appear, pixel by pixel, in training; "
        + ("near-duplicates were not counted" if near is None else f"{near} more nearly do"),
        "majority": once(f"{np.bincount(y).max() / len(y):.1%}" for y in labels if len(y)),
        "separate": bool(models) and not thesis,
        "unseparated": "the test images choose the epoch and the learning rate" if thesis else UNTRAINED,
    }


def checklist_items(run, verdicts):
    """Fill in both checklists: dict of checklist to dict of section to list of `Item`."""
    known = facts(run, verdicts)

    def fill(asked, evidence, shown=None, missing=UNTRAINED, otherwise="no", answer=None):
        holds = answer is not None or known[shown]
        return Item(asked, answer or ("yes" if holds else otherwise), (evidence if holds else missing).format(**known))

    lists = yaml.safe_load((HERE / "checklist.yaml").read_text(encoding="utf-8"))
    return {
        title: {section: [fill(**entry) for entry in entries] for section, entries in sections.items()}
        for title, sections in lists.items()
    }


def checklist(run, verdicts):
    """Show both checklists, filled in from the run and its verdicts (as from `fer_utils.claims.claims.judge`)."""
    lists = checklist_items(run, verdicts)
    every = [item for sections in lists.values() for items in sections.values() for item in items]
    counts = ", ".join(f"{sum(i.answer == a for i in every)} {a}" for a in ("yes", "no", "not applicable"))
    lacking = [item for item in every if item.answer == "no"]
    markup = TEMPLATES.get_template("checklist.html.j2").render(lists=lists, counts=counts, open=lacking)
    return Displayable(markup, "\n".join([f"{counts}.", *(f"{i.answer}: {i.asked}: {i.evidence}" for i in every)]))
