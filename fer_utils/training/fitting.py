"""Training as Table 5.1 says, so that it can be stopped at any moment and called again."""

import hashlib
import json

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from fer_utils import provenance
from fer_utils.data import splits
from fer_utils.errors import ConfigError, TrainingError
from fer_utils.paths import project_root
from fer_utils.training import augmentation as augmentations
from fer_utils.training import distribution, fast_layers, pipeline
from fer_utils.training.callbacks import KeepState, Progress, ScoreEpoch
from fer_utils.training.macro import MacroPrecision, MacroRecall
from fer_utils.training.state import TrainingState


def fit(
    run,
    network,
    *,
    augmentation,
    batch_size,
    learning_rate,
    plateau_factor,
    plateau_patience,
    batch_norm_momentum=0.0,
):
    """Train a network as Table 5.1 says; called again, go on where it stopped.

    Adam, categorical cross-entropy, ReduceLROnPlateau on the validation loss, ModelCheckpoint on the validation
    accuracy (thesis, section 3.2.5 and Table 5.1).

    Parameters
    ----------
    run : TrainingRun
        What `begin` returned.
    network : keras.Model
        Takes images (48, 48, 1) in 0..255, gives 7 class probabilities.
    augmentation : dict
        See `fer_utils.training.augmentation.check`.
    batch_size : int
        Images in a batch.
    learning_rate : float
        Adam's, at the start.
    plateau_factor, plateau_patience : float, int
        After so many epochs without a lower validation loss the learning rate is multiplied by the factor.
    batch_norm_momentum : float
        Share of a running statistic that a batch leaves as it was; 0 keeps each layer's own.

    Returns
    -------
    DataFrame
        One row an epoch: ``epoch``, ``learning_rate``, and each of `fer_utils.metrics.METRICS` for training (no
        prefix; measured while training, with dropout and augmentation), ``val_``, ``public_``, ``private_`` and
        ``test_``.

    Raises
    ------
    ConfigError
        If several devices are to train a network that was built for one, or cannot all have a share of a batch.
    TrainingError
        If the training diverges, or cannot begin without weights that are gone.
    """
    p, split, dataset = run.parameters, run.split, run.dataset
    run.augmentation = augmentations.check(augmentation)
    for layer in batch_normalizations(network) if batch_norm_momentum else ():
        layer.momentum = batch_norm_momentum
    if run.strategy and network.distribute_strategy is not run.strategy:
        raise ConfigError(
            f"the network was not built for the {run.device['replicas']} devices of this run: build it inside "
            "`with run.scope():`, or train on one (devices)"
        )
    distribution.check_batches(len(split.train), batch_size, run.device["replicas"])
    with run.scope():
        compile_network(network, learning_rate, run.device["kind"])
    per_class = p["epoch_images_per_class"] or p["test_images_per_class"]
    scored = splits.split(dataset, p["protocol"], test_images_per_class=per_class).test
    settings = {
        "augmentation": run.augmentation,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "plateau_factor": plateau_factor,
        "plateau_patience": plateau_patience,
    }
    state = TrainingState(run.state_folder, training_key(run, network, settings, scored), p["epochs"])
    kept = state.read() or {
        "epoch": 0,
        "history": [],
        "plateau": {},
        "best": None,
        "best_epoch": None,
        "best_file": None,
        "segments": [],
    }
    first_epoch = kept["epoch"]
    run.state, run.kept = state, kept
    if first_epoch:
        state.restore(network, kept)
        print(f"{first_epoch} of {p['epochs']} epochs were trained before; nothing of them is done again.")
        print(moved(kept["segments"][-1], run.device) if first_epoch < p["epochs"] else "", end="")
    else:
        print(state.explain_beginning())
        check_weights(run.weights)
    if first_epoch < p["epochs"]:
        segment = {"first_epoch": first_epoch + 1, "last_epoch": first_epoch, "seconds": 0.0}
        segment |= {"started": provenance.now(), "git": provenance.git()} | run.device
        kept["segments"].append(segment)
        plateau = keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss", factor=plateau_factor, patience=plateau_patience, min_lr=1e-6
        )
        checkpoint = keras.callbacks.ModelCheckpoint(
            state.folder / "best-{epoch:03d}.weights.h5",
            monitor="val_accuracy",
            mode="max",
            save_best_only=True,
            save_weights_only=True,
            initial_value_threshold=kept["best"],
        )
        steps = pipeline.steps_per_epoch(len(split.train), batch_size)
        batches = pipeline.training_batches(
            dataset.images[split.train],
            dataset.labels[split.train],
            batch_size=batch_size,
            seed=p["seed"],
            settings=run.augmentation,
            first_epoch=first_epoch,
            epochs=p["epochs"],
            ahead=run.device["kind"] == "GPU",
        )
        with distribution.training(network):
            network.fit(
                distribution.share(batches, run.strategy),
                initial_epoch=first_epoch,
                epochs=p["epochs"],
                steps_per_epoch=steps,
                shuffle=False,
                callbacks=[
                    ScoreEpoch(
                        dataset.images[scored][..., np.newaxis],
                        dataset.labels[scored],
                        dataset.usage[scored] == "PublicTest",
                        "public" if p["protocol"] == "sound" else "test",
                    ),
                    plateau,
                    checkpoint,
                    KeepState(state, plateau, kept),
                    Progress(run.state_folder / "progress.json", f"{p['label']}, seed {p['seed']}", p["epochs"], steps),
                ],
                verbose=0,
            )
    return pd.DataFrame(kept["history"])


def moved(before, now):
    """Say that a training goes on elsewhere than it was, since that changes its numbers; empty if it does not."""
    names = [name for name in ("kind", "name", "threads") if before[name] != now[name]]
    if not names:
        return ""
    changes = "; ".join(f"{name} {before[name]} -> {now[name]}" for name in names)
    return f"*** It goes on elsewhere ({changes}): its numbers differ a little from those without the move.\n"


def check_weights(weights):
    """Refuse to begin a training whose initial weights are known by name but cannot be had now.

    Raises
    ------
    TrainingError
        If only their record is there, which does for a training that goes on.
    """
    if weights.get("absent"):
        raise TrainingError(
            f"this folder's trainings begin with the weights {weights['requested']!r}, which cannot be had now: "
            f"{weights['absent']}. Get them back, give other weights, or choose another folder (out)"
        )


def compile_network(network, learning_rate, device):
    """Compile a network as Table 5.1 says.

    Parameters
    ----------
    network : keras.Model
    learning_rate : float
        Adam's, at the start.
    device : {"CPU", "GPU"}
        What it will be trained on.
    """
    adam = keras.optimizers.Adam
    distributed = network.distribute_strategy.num_replicas_in_sync > 1
    # What is slow in Keras on a CPU was measured there; a GPU has its own ways. The faster layers know one device.
    fast = device == "CPU" and not distributed
    if fast:
        fast_layers.use(network)
        adam = fast_layers.FusedAdam
    network.compile(
        # One name, so that a state can move between a CPU and a GPU.
        optimizer=adam(learning_rate, name="adam"),
        loss=distribution.SharedCrossentropy() if distributed else keras.losses.CategoricalCrossentropy(),
        metrics=epoch_metrics(),
        # XLA pays on a GPU and slows training on a CPU; what passes between devices it cannot compile.
        jit_compile="auto" if device == "GPU" and not distributed else False,
    )
    # Only a built optimizer takes its state back.
    network.optimizer.build(network.trainable_variables)
    if fast:
        network.train_function = fast_layers.train_function(network)
    if not distributed:
        # The metrics make their variables when first used; in the graph they would have it built twice.
        probabilities = tf.zeros((1, *network.output_shape[1:]))
        network.compute_metrics(None, probabilities, probabilities)
        network.reset_metrics()


def batch_normalizations(network):
    """Return the batch normalisation layers of a network and of the networks inside it."""
    return [layer for layer in fast_layers.walk(network) if isinstance(layer, keras.layers.BatchNormalization)]


def epoch_metrics():
    """Return Table 5.1's metrics as Keras counts them over a training epoch."""
    return [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.Precision(name="precision"),
        keras.metrics.Recall(name="recall"),
        keras.metrics.F1Score(average="micro", threshold=0.5, name="f1"),
        keras.metrics.AUC(name="auc"),
        MacroPrecision(name="macro_precision"),
        MacroRecall(name="macro_recall"),
        keras.metrics.F1Score(average="macro", name="macro_f1"),
    ]


def training_key(run, network, settings, scored):
    """Everything that the course of a training depends on, but for its length: another key is another training.

    Device and threads are left out: a training that is moved goes on, and the record says where each epoch ran. On
    several devices at once it is another training.

    Parameters
    ----------
    run : TrainingRun
    network : keras.Model
        Compiled, not trained yet.
    settings : dict
        Augmentation, batch size, learning rate and schedule.
    scored : ndarray of int
        Positions in the dataset of the images that are scored after each epoch.

    Returns
    -------
    dict
        JSON-able.
    """
    layers = json.loads(network.to_json())
    # Optimizer and loss are the settings' and the code's; whether XLA compiles is the device's.
    layers.pop("compile_config", None)
    images = hashlib.sha256(run.split.train.tobytes() + b"/" + scored.tobytes()).hexdigest()
    several = {}
    if run.strategy:
        several = {"distribution": f"{run.device['distribution']} on {run.device['replicas']}"}
    return {
        "network": json.dumps(layers, sort_keys=True),
        "trainable": [variable.path for variable in network.trainable_variables],
        "weights": {name: run.weights[name] for name in ("used", "sha256")},
        "data": run.dataset.fingerprint["sha256"],
        "images": images,
        "parameters": {name: run.parameters[name] for name in ("protocol", "seed", "deterministic")},
        "precision": run.precision,
        "settings": settings,
        "code": provenance.code_hash(project_root() / "notebooks" / run.parameters["notebook"]),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
    } | several
