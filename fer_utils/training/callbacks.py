"""Keras callbacks: score each epoch on three parts of the data, and show progress."""

import sys
import time
from datetime import datetime

import keras
import numpy as np
from tqdm import tqdm

from fer_utils.errors import TrainingError
from fer_utils.files import write_json
from fer_utils.metrics import METRICS, scores
from fer_utils.words import duration

#: Prefixes of a history's columns for the scored parts; ``val`` is whichever part the protocol validates on.
PARTS = ("val", "public", "private", "test")


def score_parts(y_true, y_proba, public, protocol):
    """Score PublicTest, PrivateTest and both.

    Parameters
    ----------
    y_true : ndarray of int, shape (n,)
        Labels of PublicTest and PrivateTest images.
    y_proba : ndarray of float, shape (n, 7)
    public : ndarray of bool, shape (n,)
        Which images are PublicTest.
    protocol : {"sound", "thesis"}

    Returns
    -------
    dict of str to dict
        `fer_utils.metrics.scores` for ``validation``, ``public``, ``private`` and ``test`` (both).
    """
    parts = {
        "public": scores(y_true[public], y_proba[public]),
        "private": scores(y_true[~public], y_proba[~public]),
        "test": scores(y_true, y_proba),
    }
    return {"validation": parts["public" if protocol == "sound" else "test"]} | parts


class ScoreEpoch(keras.callbacks.Callback):
    """Score each epoch on PublicTest, PrivateTest and both, in one pass over the images.

    It takes the place of ``validation_data``: Keras scores one set per epoch, and to compare what selecting on each of
    the three would have given (claim S10) takes all three. The scores go into the epoch's logs as ``val_...``,
    ``public_...``, ``private_...`` and ``test_...``, where the callbacks after this one find them.

    Parameters
    ----------
    run : TrainingRun
        What `begin` returned.
    """

    def __init__(self, run):
        super().__init__()
        self.images = run.dataset.images[run.scored][..., np.newaxis]
        self.labels = run.dataset.labels[run.scored]
        self.public = run.dataset.usage[run.scored] == "PublicTest"
        self.protocol = run.parameters["protocol"]

    def on_epoch_end(self, epoch, logs):
        """Add the scores to the epoch's logs."""
        proba = self.model.predict(self.images, batch_size=256, verbose=0)
        if not (np.isfinite(proba).all() and np.isfinite(logs["loss"])):
            raise TrainingError(
                f"the training diverged: in epoch {epoch + 1} the loss became {logs['loss']}, or the network gave NaN "
                f"probabilities. The {epoch} epochs before are kept; try a lower learning_rate"
            )
        scored = score_parts(self.labels, proba, self.public, self.protocol)
        for prefix in PARTS:
            part = scored["validation" if prefix == "val" else prefix]
            logs |= {f"{prefix}_{name}": part[name] for name in METRICS}


class Progress(keras.callbacks.Callback):
    """Print a line per epoch, and show or write how far the training is.

    In a notebook run by hand a bar shows the batches of the epoch; a batch run reads ``progress.json`` instead.

    Parameters
    ----------
    run : TrainingRun
        What `begin` returned.
    """

    def __init__(self, run):
        super().__init__()
        self.path = run.state_folder / "progress.json"
        self.title = f"{run.parameters['label']}, seed {run.parameters['seed']}"
        self.interactive = run.parameters["profile"] == "alone"
        self.epoch, self.written, self.began, self.accuracy, self.finished = 0, 0.0, None, None, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Begin the epoch's bar."""
        self.epoch, self.epochs, self.steps = epoch, self.params["epochs"], self.params["steps"]
        self.bar = tqdm(
            total=self.steps,
            desc=f"epoch {epoch + 1}/{self.epochs}",
            unit="batch",
            leave=False,
            file=sys.stdout,  # standard error is a red box in JupyterLab
            mininterval=0.5,
            ascii=" =",
            disable=not self.interactive,
        )

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar, and write the file at most once a second."""
        self.bar.update()
        done = self.epoch + (batch + 1) / self.steps
        if self.began is None:
            # The first batch builds the graph; its time says nothing about the others.
            self.began, self.first = time.monotonic(), done
        if time.monotonic() - self.written >= 1:
            self.write(done)

    def on_epoch_end(self, epoch, logs):
        """Print the epoch's line."""
        self.bar.close()
        self.accuracy, self.finished = float(logs["val_accuracy"]), epoch + 1
        left = self.write(epoch + 1)
        print(
            f"{datetime.now():%H:%M:%S}  {self.title}: epoch {epoch + 1}/{self.epochs}  "
            f"loss {logs['loss']:.3f}  accuracy {logs['accuracy']:.3f}  "
            f"val_loss {logs['val_loss']:.3f}  val_accuracy {logs['val_accuracy']:.3f}  "
            f"{'' if left is None else f'about {duration(left)} left'}",
            flush=True,
        )

    def on_train_end(self, logs=None):
        """Say that all images are being scored now, which takes minutes for a large network."""
        self.write(self.epochs, stage="scoring")

    def write(self, done, stage="training"):
        """Write how much is done; return the seconds that the rest will take, or None if it is too early to tell."""
        self.written = time.monotonic()
        left = None
        if self.began is not None and done > self.first:
            left = (self.written - self.began) / (done - self.first) * (self.epochs - done)
        progress = {
            "stage": stage,
            "done": done / self.epochs,
            "epochs": self.epochs,
            "finished": self.finished,
            "seconds_left": left,
            "val_accuracy": self.accuracy,
        }
        write_json(self.path, progress, durable=False)
        return left
