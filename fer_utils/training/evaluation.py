"""The end of every model's notebook: scores, and the files that everything later is made from."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from fer_utils import provenance
from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS
from fer_utils.files import read_json, remove_unfinished, replacing, write_json, write_text
from fer_utils.metrics import scores
from fer_utils.training import architecture as architectures
from fer_utils.training import distribution, machine


def evaluate(run, network):
    """Score the best and the last epoch and write what the run leaves.

    The predictions come from the weights with the best validation accuracy. The network is left with them.

    Parameters
    ----------
    run : TrainingRun
        After `fit`.
    network : keras.Model
        The network that was trained.

    Returns
    -------
    DataFrame
        One row per scored part of the data and epoch: ``epoch``, ``images`` and the metrics.
    """
    kept, split, dataset = run.kept, run.split, run.dataset
    started = time.monotonic()
    run.folder.mkdir(parents=True, exist_ok=True)

    def predict(index):
        return distribution.predict(network, dataset.images[index][..., np.newaxis])

    run.state.restore_weights(network, kept)
    last = {"epoch": kept["epoch"]} | score_test(run, predict(split.test))
    network.load_weights(run.state.folder / kept["best_file"])
    everything = np.concatenate([split.train, split.test])
    proba = predict(everything)
    best = {"epoch": kept["best_epoch"]}
    best["train"] = scores(dataset.labels[split.train], proba[: len(split.train)])
    best |= score_test(run, proba[len(split.train) :])

    history = pd.DataFrame(kept["history"])
    predictions = pd.DataFrame({"id": dataset.ids[everything], "usage": dataset.usage[everything]})
    predictions["label"] = dataset.labels[everything].astype("int8")
    predictions[list(PROBABILITY_COLUMNS)] = proba.astype("float32")
    architecture = architectures.describe(network)

    # The first to go and the last to be written: a folder with a record is a whole one.
    (run.folder / "run.json").unlink(missing_ok=True)
    remove_unfinished(run.folder)
    with replacing(run.folder / "history.csv") as path:
        history.to_csv(path, index=False)
    with replacing(run.folder / "predictions.parquet") as path:
        predictions.to_parquet(path, index=False)
    # Saved with standard metrics and without the optimizer's moments: loading needs Keras alone.
    network.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    for name in ("model.keras", "model.h5"):
        with replacing(run.folder / name) as path:
            network.save(path)
    with replacing(run.folder / "model.weights.h5") as path:
        network.save_weights(path)
    write_text(run.folder / "summary.txt", architectures.summary_text(network))
    write_json(run.folder / "architecture.json", architecture)
    write_json(run.folder / "metrics.json", {"best": best, "last": last})
    record = make_record(run, architecture, time.monotonic() - started)
    record["predictions_sha256"] = provenance.digest_predictions(predictions)
    write_json(run.folder / "run.json", record)
    return score_table(run, best, last)


def score_test(run, proba):
    """Score probabilities of the test images, in the split's order, on each of its parts."""
    labels = run.dataset.labels[run.split.test]
    public = run.dataset.usage[run.split.test] == "PublicTest"
    parts = {
        "public": scores(labels[public], proba[public]),
        "private": scores(labels[~public], proba[~public]),
        "test": scores(labels, proba),
    }
    return {"validation": parts["public" if run.parameters["protocol"] == "sound" else "test"]} | parts


def score_table(run, best, last):
    """Return the scores of the best and the last epoch as a table for people."""
    names = {
        "train": "training images",
        "public": "PublicTest",
        "private": "PrivateTest",
        "test": "PublicTest + PrivateTest",
    }
    rows = []
    for which, epoch in (("best", best), ("last", last)):
        for part, name in names.items():
            if part in epoch:
                values = {k: v for k, v in epoch[part].items() if k not in ("n", "per_class")}
                row = {"epoch": f"{which} ({epoch['epoch']})", "scored on": name, "images": epoch[part]["n"]}
                rows.append(row | values)
    return pd.DataFrame(rows).set_index(["epoch", "scored on"])


def make_record(run, architecture, evaluate_seconds):
    """Return ``run.json``: all that made the numbers of this run."""
    p, kept, fingerprint, split = run.parameters, run.kept, run.dataset.fingerprint, run.split
    seconds = sum(segment["seconds"] for segment in kept["segments"])
    gpu_peak = None
    if run.device["kind"] == "GPU":
        memory = [tf.config.experimental.get_memory_info(f"GPU:{n}") for n in range(run.device["replicas"])]
        gpu_peak = round(max(used["peak"] for used in memory) / 2**20, 1)
    shown = p | {
        "optimizer": "Adam",
        "loss": "CategoricalCrossentropy",
        # Where files lie is nobody's business but the machine's.
        "data": run.dataset.source,
        "out": Path(p["out"]).name,
    }
    if "weights" in p:
        shown["weights"] = run.weights["requested"]
    return {
        "model": p["model"],
        "seed": p["seed"],
        "label": p["label"],
        "notebook": p.get("notebook", ""),
        "profile": p["profile"],
        "protocol": p["protocol"],
        "data": {
            "source": run.dataset.source,
            "variant": fingerprint["variant"],
            "known": fingerprint["known"],
            "description": fingerprint["description"],
            "fingerprint": fingerprint["sha256"],
            "decoder": fingerprint["decoder"],
            "n_images": fingerprint["n_images"],
        },
        "split": {
            "train": len(split.train),
            "validation": len(split.validation),
            "public": len(split.public),
            "private": len(split.private),
            "images_per_class": p["images_per_class"],
            "test_images_per_class": p["test_images_per_class"],
            "epoch_images_per_class": p["epoch_images_per_class"],
        },
        "weights": run.weights,
        "parameters": shown,
        "architecture": {
            name: architecture[name] for name in architecture if not isinstance(architecture[name], (list, dict))
        },
        "augmentation": run.augmentation,
        "device": run.device,
        "precision": run.precision,
        "versions": machine.versions(),
        "git": provenance.git(),
        "times": {
            "started": run.started,
            "finished": provenance.now(),
            "train_seconds": round(seconds, 1),
            "seconds_per_epoch": round(seconds / kept["epoch"], 2),
            "evaluate_seconds": round(evaluate_seconds, 1),
        },
        "segments": kept["segments"],
        "memory": {"peak_rss_mb": machine.peak_memory_mb(), "gpu_peak_mb": gpu_peak},
        "epochs": {"requested": p["epochs"], "run": kept["epoch"], "best": kept["best_epoch"]},
        "classes": list(CLASSES),
        "shortened": run.shortened,
        "synthetic": run.synthetic,
        "warnings": run.warnings(),
    }


def closing_sentence(run):
    """Say in a sentence what came out, for the notebook's end."""
    scored = read_json(run.folder / "metrics.json")["best"]
    part, name = ("private", "PrivateTest") if run.parameters["protocol"] == "sound" else ("test", "the test images")
    kind = "This is no result of FER2013: " if run.synthetic else ""
    return (
        f"{kind}{run.parameters['label']} (seed {run.parameters['seed']}) reached an accuracy of "
        f"{scored[part]['accuracy']:.3f} and a macro F1 of {scored[part]['macro_f1']:.3f} on {name} "
        f"({scored[part]['n']:,} images), from epoch {scored['epoch']} of {run.kept['epoch']}; on PublicTest and "
        f"PrivateTest together, {scored['test']['accuracy']:.3f} ({scored['test']['n']:,} images)."
    )
