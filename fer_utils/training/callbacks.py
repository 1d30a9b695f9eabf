"""Keras callbacks: score each epoch, keep the state, show progress."""

import time
from datetime import datetime

import keras
import numpy as np

from fer_utils.errors import TrainingError
from fer_utils.files import write_json
from fer_utils.metrics import METRICS, scores
from fer_utils.training import distribution
from fer_utils.words import duration


class ScoreEpoch(keras.callbacks.Callback):
    """Score each epoch on PublicTest, PrivateTest and both, in one pass over the images.

    It stands in for ``validation_data``: Keras scores one set an epoch, and to compare what selecting on each
    of the three would have given (claim S10) takes all three.

    Parameters
    ----------
    images : ndarray, shape (n, 48, 48, 1)
        PublicTest and PrivateTest images.
    labels : ndarray of int, shape (n,)
        Labels in 0..6.
    public : ndarray of bool, shape (n,)
        Which of them are PublicTest.
    validation : {"public", "test"}
        What is validated on, reported with the prefix ``val_`` that Keras's own callbacks monitor.
    """

    def __init__(self, images, labels, public, validation):
        super().__init__()
        self.images, self.labels, self.public, self.validation = images, labels, public, validation

    def on_epoch_end(self, epoch, logs):
        """Add the scores to the epoch's logs, where the callbacks after this one find them."""
        proba = distribution.predict(self.model, self.images)
        if not (np.isfinite(proba).all() and np.isfinite(logs["loss"])):
            raise TrainingError(
                f"the training diverged: in epoch {epoch + 1} the loss became {logs['loss']}, or the network's "
                f"probabilities no numbers. The {epoch} epochs before are kept; try a lower learning_rate"
            )
        parts = {
            "public": scores(self.labels[self.public], proba[self.public]),
            "private": scores(self.labels[~self.public], proba[~self.public]),
            "test": scores(self.labels, proba),
        }
        for prefix, part in {
            "val": self.validation,
            "public": "public",
            "private": "private",
            "test": "test",
        }.items():
            logs |= {f"{prefix}_{name}": parts[part][name] for name in METRICS}


class KeepState(keras.callbacks.Callback):
    """Keep the training's state after each epoch and, at the start, set back what Keras resets.

    It must come after the schedule and the checkpoint in the list of callbacks.

    Parameters
    ----------
    state : fer_utils.training.state.TrainingState
        Where to keep it.
    plateau : keras.callbacks.ReduceLROnPlateau
        The learning-rate schedule. It forgets its patience when a training begins.
    kept : dict
        What was read from the state, or what a training begins with; it is brought up to date.
    """

    def __init__(self, state, plateau, kept):
        super().__init__()
        self.state, self.plateau, self.kept = state, plateau, kept

    def on_train_begin(self, logs=None):
        """Give the schedule its memory back."""
        for name, value in self.kept["plateau"].items():
            setattr(self.plateau, name, value)
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs):
        """Keep the epoch."""
        kept = self.kept
        columns = ["loss", *(name for name in METRICS if name != "loss")]
        columns += [f"{prefix}_{name}" for prefix in ("val", "public", "private", "test") for name in columns]
        row = {"epoch": epoch + 1, "learning_rate": float(logs["learning_rate"])}
        kept["history"].append(row | {name: float(logs[name]) for name in columns})
        kept["epoch"] = epoch + 1
        kept["plateau"] = {name: float(getattr(self.plateau, name)) for name in ("best", "wait", "cooldown_counter")}
        if kept["best_file"] is None or logs["val_accuracy"] > kept["best"]:
            kept["best"] = float(logs["val_accuracy"])
            kept["best_epoch"] = epoch + 1
            kept["best_file"] = f"best-{epoch + 1:03d}.weights.h5"
        now = time.monotonic()
        kept["segments"][-1]["last_epoch"] = epoch + 1
        kept["segments"][-1]["seconds"] += now - self.started
        self.started = now
        self.state.save(self.model, kept)


class Progress(keras.callbacks.Callback):
    """Print a line an epoch, and keep a small file up to date that a batch run reads its progress from.

    Parameters
    ----------
    path : path
        The file.
    title : str
        What is trained.
    epochs : int
        Epochs in all.
    steps : int
        Batches in an epoch.
    """

    def __init__(self, path, title, epochs, steps):
        super().__init__()
        self.path, self.title, self.epochs, self.steps = path, title, epochs, steps
        self.epoch, self.written, self.began, self.accuracy, self.finished = 0, 0.0, None, None, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Note the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Update the file, at most once a second."""
        done = self.epoch + (batch + 1) / self.steps
        if self.began is None:
            # The first batch builds the graph, so that its time says nothing of the others'.
            self.began, self.first = time.monotonic(), done
        if time.monotonic() - self.written >= 1:
            self.write(done)

    def on_epoch_end(self, epoch, logs):
        """Print the epoch's line."""
        self.accuracy, self.finished = float(logs["val_accuracy"]), epoch + 1
        left = self.write(epoch + 1)
        print(
            f"{datetime.now():%H:%M:%S}  {self.title}: epoch {epoch + 1}/{self.epochs}  "
            f"loss {logs['loss']:.3f}  accuracy {logs['accuracy']:.3f}  "
            f"val_loss {logs['val_loss']:.3f}  val_accuracy {logs['val_accuracy']:.3f}  "
            f"{'' if left is None else f'about {duration(left)} left'}",
            flush=True,
        )

    def write(self, done):
        """Write how much is done; return the seconds that the rest will take, or None if it is too early."""
        self.written = time.monotonic()
        left = None
        if done > self.first:
            left = (self.written - self.began) / (done - self.first) * (self.epochs - done)
        progress = {
            "done": done / self.epochs,
            "epochs": self.epochs,
            "finished": self.finished,
            "seconds_left": left,
            "val_accuracy": self.accuracy,
        }
        write_json(self.path, progress, durable=False)
        return left
