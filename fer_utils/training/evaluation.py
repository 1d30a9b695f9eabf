"""The end of every model's notebook: scores, and the files that everything later is made from."""

import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils import provenance
from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS
from fer_utils.files import read_json, remove_unfinished, replacing, write_json, write_text
from fer_utils.metrics import METRIC_NAMES, scores
from fer_utils.training import architecture as architectures
from fer_utils.training import device
from fer_utils.training.callbacks import score_parts

#: Parts of the data, as the score table names them.
PART_NAMES = {
    "train": "Training images",
    "public": "PublicTest",
    "private": "PrivateTest",
    "test": "PublicTest + PrivateTest",
}


def evaluate(run, network, resume):
    """Score the best and the last epoch and write what the run leaves.

    Parameters
    ----------
    run : TrainingRun
        What `begin` returned.
    network : keras.Model
        Trained. It is left with the weights of the best epoch, the one with the best monitored value.
    resume : fer_utils.training.resume.ExactResume
        What kept the training's state.

    Returns
    -------
    DataFrame
        One row per epoch (best, last) and scored part of the data: number of images and each metric.
    """
    kept, split, dataset = resume.kept, run.split, run.dataset
    started = time.monotonic()
    run.folder.mkdir(parents=True, exist_ok=True)

    def predict(index):
        proba = network.predict(dataset.images[index][..., np.newaxis], batch_size=256, verbose=0)
        predictions = pd.DataFrame({"id": dataset.ids[index], "usage": dataset.usage[index]})
        predictions["label"] = dataset.labels[index].astype("int8")
        predictions[list(PROBABILITY_COLUMNS)] = proba.astype("float32")
        return proba, predictions

    def score(proba):
        public = dataset.usage[split.test] == "PublicTest"
        return score_parts(dataset.labels[split.test], proba, public, run.parameters["protocol"])

    resume.state.restore_weights(network, kept)
    proba, last_predictions = predict(split.test)
    last = {"epoch": kept["epoch"]} | score(proba)
    network.load_weights(resume.state.folder / kept["best_file"])
    proba, predictions = predict(np.concatenate([split.train, split.test]))
    best = {"epoch": kept["best_epoch"], "train": scores(dataset.labels[split.train], proba[: len(split.train)])}
    best |= score(proba[len(split.train) :])

    # The first to go and the last to be written: a folder with a record is a whole one.
    (run.folder / "run.json").unlink(missing_ok=True)
    remove_unfinished(run.folder)
    with replacing(run.folder / "history.csv") as path:
        resume.history.to_csv(path, index=False)
    for name, table in (("predictions", predictions), ("predictions_last", last_predictions)):
        with replacing(run.folder / f"{name}.parquet") as path:
            table.to_parquet(path, index=False)
    # Saved with standard metrics and without the optimizer's moments: loading needs Keras alone.
    network.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    # Keras warns on standard error that HDF5 is its older format.
    logging.getLogger("absl").setLevel(logging.ERROR)
    for name in ("model.keras", "model.h5"):
        with replacing(run.folder / name) as path:
            network.save(path)
    with replacing(run.folder / "model.weights.h5") as path:
        network.save_weights(path)
    architecture = architectures.describe(network)
    write_text(run.folder / "summary.txt", architectures.summary_text(network))
    write_json(run.folder / "architecture.json", architecture)
    write_json(run.folder / "metrics.json", {"best": best, "last": last})
    record = make_record(run, kept, architecture, time.monotonic() - started)
    record["predictions_sha256"] = provenance.digest_predictions(predictions)
    write_json(run.folder / "run.json", record)
    return score_table(best, last)


def score_table(best, last):
    """Return the scores of the best and the last epoch as a table for people."""
    rows = []
    for which, epoch in (("best", best), ("last", last)):
        for part, name in PART_NAMES.items():
            if part in epoch:
                row = {"Epoch": f"{which} ({epoch['epoch']})", "Scored on": name, "Images": epoch[part]["n"]}
                rows.append(row | {text: epoch[part][metric] for metric, text in METRIC_NAMES.items()})
    return pd.DataFrame(rows).set_index(["Epoch", "Scored on"])


def make_record(run, kept, architecture, evaluate_seconds):
    """Return ``run.json``: everything that made the numbers of this run."""
    p, fingerprint, split = run.parameters, run.dataset.fingerprint, run.split
    seconds = sum(segment["seconds"] for segment in kept["segments"])
    # Paths of the machine are left out: of a folder its name is kept, of the data what they are.
    shown = p | {"optimizer": "Adam", "loss": "CategoricalCrossentropy", "data": run.dataset.source}
    shown |= {"out": Path(p["out"]).name} | ({"weights": run.weights["requested"]} if "weights" in p else {})
    gpu = device.peak_memory_mb("GPU") if run.device["kind"] == "GPU" else None
    return {
        "model": p["model"],
        "seed": p["seed"],
        "label": p["label"],
        "notebook": p["notebook"],
        "profile": p["profile"],
        "protocol": p["protocol"],
        "data": {"source": run.dataset.source, "fingerprint": fingerprint["sha256"]}
        | {name: fingerprint[name] for name in ("variant", "known", "description", "decoder", "n_images")},
        "split": {part: len(getattr(split, part)) for part in ("train", "validation", "public", "private")}
        | {name: p[name] for name in ("images_per_class", "test_images_per_class", "epoch_images_per_class")},
        "weights": run.weights,
        "parameters": shown,
        "architecture": {k: v for k, v in architecture.items() if not isinstance(v, list | dict)},
        "augmentation": run.augmentation,
        "device": run.device,
        "precision": run.precision,
        "fast_layers": run.fast_layers,
        "versions": device.versions(),
        "git": provenance.git(),
        "times": {
            "started": run.started,
            "finished": provenance.now(),
            "train_seconds": round(seconds, 1),
            "seconds_per_epoch": round(seconds / kept["epoch"], 2),
            "evaluate_seconds": round(evaluate_seconds, 1),
        },
        "segments": kept["segments"],
        "memory": {"peak_rss_mb": device.peak_memory_mb(), "gpu_peak_mb": gpu},
        "epochs": {"requested": p["epochs"], "run": kept["epoch"], "best": kept["best_epoch"]},
        "classes": list(CLASSES),
        "shortened": run.shortened,
        "synthetic": run.synthetic,
        "warnings": run.warnings(),
    }


def closing_sentence(run):
    """Return a sentence that says what came out, for the notebook's end.

    Parameters
    ----------
    run : TrainingRun
        After `evaluate`.

    Returns
    -------
    str
    """
    best, p = read_json(run.folder / "metrics.json")["best"], run.parameters
    part, name = ("private", "PrivateTest") if p["protocol"] == "sound" else ("test", "the test images")
    kind = "This is no result of FER2013: " if run.synthetic else ""
    return (
        f"{kind}{p['label']} (seed {p['seed']}) reached an accuracy of {best[part]['accuracy']:.3f} and a macro F1 of "
        f"{best[part]['macro_f1']:.3f} on {name} ({best[part]['n']:,} images), from epoch {best['epoch']} of "
        f"{p['epochs']}; on PublicTest and PrivateTest together, {best['test']['accuracy']:.3f} "
        f"({best['test']['n']:,} images)."
    )
