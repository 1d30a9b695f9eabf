"""One side of a comparison of `benchmarks.compare`: a process that trains for a while whenever it reads a line.

The networks and their augmentation are those of the notebooks, taken from their cells.
"""

import ast
import json
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import nbformat
import numpy as np
import tensorflow as tf
from fer_utils.training.state import TrainingState
from PIL import Image

from fer_utils import provenance
from fer_utils.batch.config import read_config
from fer_utils.constants import CLASSES
from fer_utils.data import dataset as datasets
from fer_utils.data import splits
from fer_utils.paths import project_root
from fer_utils.training import distribution, fitting, pipeline, precision, session
from fer_utils.training.callbacks import Progress, ScoreEpoch

BATCH = 64
#: Images that `resume` trains on and scores in an epoch: FER2013's, where `--steps` does not say fewer. In a shorter
#: epoch what it costs beside its batches weighs more.
EPOCH, SCORED = 28_709, 7_178
#: More than a benchmark can take.
EPOCHS = 10_000
#: Images in the folder that `generator` reads.
IN_FOLDER = 1_400


def notebook_names(model):
    """Execute what a model's notebook defines, without training; weights are random.

    Returns
    -------
    dict
        ``make_model``, ``augmentation`` and the parameters, among others.
    """
    entry = read_config()["models"][model]
    names = {"run": SimpleNamespace(weights={"used": "none"}, resolved=None)}
    for cell in nbformat.read(project_root() / "notebooks" / entry["notebook"], 4).cells:
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            keep = (ast.Import, ast.ImportFrom, ast.FunctionDef)
            if "parameters" not in cell.metadata.get("tags", ()):
                tree.body = [n for n in tree.body if isinstance(n, keep) or assigned(n) == "augmentation"]
            exec(compile(tree, entry["notebook"], "exec"), names)
    # In place: the functions look their names up here.
    names.update((entry.get("parameters") or {}) | {"weights": "none"})
    return names


def assigned(node):
    """Return the name that a statement assigns to, or None."""
    return getattr(node.targets[0], "id", None) if isinstance(node, ast.Assign) else None


class Turns(keras.callbacks.Callback):
    """Hold the training after some batches, time and again, until a line comes in; say how long they took.

    The first turn does not count. Epochs end where they do, since they do so in a real training, too.

    Parameters
    ----------
    steps : int
        Batches in a turn.
    answer : callable
        Takes a dict for the parent process.
    """

    def __init__(self, steps, answer):
        super().__init__()
        self.steps, self.answer, self.done = steps, answer, 0

    def on_train_batch_end(self, batch, logs=None):
        """Answer at the end of a turn and wait for the next."""
        self.done += 1
        if self.done % self.steps:
            return
        if self.done == self.steps:
            self.answer({"steps": self.steps, "images": self.steps * BATCH})
        else:
            self.answer({"seconds": time.monotonic() - self.started})
        if not sys.stdin.readline():
            sys.exit("the benchmark is gone")
        self.started = time.monotonic()


class Gate(Progress):
    """Hold each epoch but the first until a line comes in, and say how long it took."""

    def __init__(self, answer):
        # What `Progress` shows has no reader here.
        keras.callbacks.Callback.__init__(self)
        self.answer = answer

    def on_epoch_begin(self, epoch, logs=None):
        """Wait for the line."""
        if epoch:
            sys.stdin.readline()
        self.started = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Do nothing: there is no progress to show."""

    def on_epoch_end(self, epoch, logs=None):
        """Answer with the time; the first epoch builds the graph and does not count."""
        if epoch:
            self.answer({"seconds": time.monotonic() - self.started})
        else:
            self.answer(self.ready)


class Sides:
    """The ways to train; each method is one side and returns when it is told to stop.

    Parameters
    ----------
    options : dict
        ``model``, ``data``, ``steps`` (0: from ``seconds``), ``seconds``, ``turns``, ``folder``.
    answer : callable
        Takes a dict for the parent process.
    """

    def __init__(self, options, answer):
        self.options, self.answer = options, answer
        self.names = notebook_names(options["model"])
        self.dataset = datasets.load(options["data"])
        self.train = splits.split(self.dataset, "sound").train
        self.gate = Gate(answer)
        # Before the first measurement one that builds the graph; after the last one that never begins: a process that
        # ended would free its memory while the other's time is taken.
        self.fit_epochs = 1 + options["turns"] + 1
        self.precision = "auto"

    def network(self, ours):
        """Build the notebook's network, compiled as ours is, or as Keras has it; sets the precision before."""
        chosen = precision.choose(self.precision, self.names["notebook"], "CPU") if ours else "float32"
        keras.config.set_dtype_policy(chosen)
        network = self.names["make_model"]((48, 48, 1), 7)
        if ours:
            fitting.compile_network(network, 0.001, "CPU")
        else:
            network.compile(
                optimizer=keras.optimizers.Adam(0.001), loss="categorical_crossentropy", metrics=fitting.epoch_metrics()
            )
        return network

    def steps(self, network, batches):
        """Train on some batches, which builds the graphs; return how many make a turn."""
        images, labels = next(iter(batches))
        # The last batch of an epoch is smaller.
        for size in (len(self.train) % BATCH or BATCH, BATCH):
            network.train_on_batch(images[:size], labels[:size])
        if self.options["steps"]:
            return self.options["steps"]
        started = time.monotonic()
        for _ in range(3):
            network.train_on_batch(images, labels)
        return math.ceil(self.options["seconds"] / ((time.monotonic() - started) / 3))

    def train_batches(self, network, batches):
        """Train, turn by turn, until killed."""
        turns = Turns(self.steps(network, batches), self.answer)
        steps = pipeline.steps_per_epoch(len(self.train), BATCH)
        network.fit(batches, steps_per_epoch=steps, epochs=EPOCHS, callbacks=[turns], verbose=0)

    def batches(self):
        """Our pipeline over all training images, for ever long."""
        return pipeline.training_batches(
            self.dataset.images[self.train],
            self.dataset.labels[self.train],
            batch_size=BATCH,
            seed=0,
            settings=self.names["augmentation"],
            first_epoch=0,
            epochs=EPOCHS,
            ahead=False,
        )

    def pipeline(self):
        """Ours as `fitting.fit` trains."""
        session.prepare_device(session.available_cores(), 0, True)
        self.train_batches(self.network(True), self.batches())

    # What differs is set by `benchmarks.compare.Side`, before TensorFlow is there.
    with_onednn = without_onednn = pipeline

    def bfloat16(self):
        """Ours in bfloat16."""
        self.precision = "mixed_bfloat16"
        self.pipeline()

    def float32(self):
        """Ours in float32."""
        self.precision = "float32"
        self.pipeline()

    def repeated(self):
        """Ours, but for the pipeline: one batch, over and over."""
        session.prepare_device(session.available_cores(), 0, True)
        batch = next(iter(self.batches()))
        self.train_batches(self.network(True), tf.data.Dataset.from_tensors(batch).repeat())

    def generator(self):
        """As the thesis did it: stock Keras, ImageDataGenerator, folders of images."""
        folder = Path(self.options["folder"]) / "images"
        for number in self.train[:: max(1, len(self.train) // IN_FOLDER)]:
            path = folder / CLASSES[self.dataset.labels[number]] / f"{number}.jpg"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(self.dataset.images[number]).save(path, quality=95)
        reader = tf.keras.preprocessing.image.ImageDataGenerator(**self.names["augmentation"])
        batches = reader.flow_from_directory(
            folder, target_size=(48, 48), color_mode="grayscale", class_mode="categorical", batch_size=BATCH, seed=0
        )
        self.train_batches(self.network(False), EndlessBatches(batches))

    def epochs(self):
        """Return what `resume` trains on and scores after each epoch."""
        rng = np.random.default_rng(0)
        # The drawn faces are fewer than that; speed does not mind one that comes twice.
        images = self.options["steps"] * BATCH or EPOCH
        shown = np.sort(rng.choice(self.train, images, replace=len(self.train) < images))
        return shown, np.resize(np.flatnonzero(self.dataset.usage != "Training"), SCORED * images // EPOCH)

    def plain(self):
        """Keras's own `fit` on arrays: its shuffling, no state, operations as fast as they come."""
        session.prepare_device(session.available_cores(), 0, False)
        shown, scored = self.epochs()
        images, labels = self.dataset.images[..., np.newaxis], self.dataset.labels
        score = ScoreEpoch(images[scored], labels[scored], self.dataset.usage[scored] == "PublicTest", "test")
        self.gate.ready = {"steps": self.options["steps"], "images": len(shown)}
        self.network(True).fit(
            images[shown].astype("float32"),
            keras.utils.to_categorical(labels[shown], len(CLASSES)),
            batch_size=BATCH,
            epochs=self.fit_epochs,
            callbacks=[score, self.gate],
            verbose=0,
        )

    def resumable(self):
        """`fitting.fit` as the notebooks call it, without augmentation."""
        shown, scored = self.epochs()
        p = {"seed": 0, "threads": session.available_cores(), "deterministic": True, "protocol": "thesis"}
        p |= {"model": self.options["model"], "label": "", "epochs": self.fit_epochs}
        p |= {"epoch_images_per_class": 0, "test_images_per_class": 0}
        device = session.prepare_device(p["threads"], 0, True)
        chosen = precision.choose("auto", self.names["notebook"], "CPU")
        keras.config.set_dtype_policy(chosen)
        run = session.TrainingRun(
            parameters=p,
            dataset=self.dataset,
            split=splits.Split(
                protocol="thesis", train=shown, validation=scored, public=scored, private=scored, test=scored
            ),
            folder=Path(self.options["folder"]),
            state_folder=Path(self.options["folder"]) / f"state-{self.options['model']}",
            device=device,
            precision=chosen,
            started=provenance.now(),
            lock=None,
            resolved=None,
        )
        self.gate.ready = {"steps": self.options["steps"], "images": len(shown)}
        # The last of fit's callbacks gives way to the one that takes the time; the images scored are as few as beside.
        fitting.Progress = lambda *_: self.gate
        fitting.splits.split = lambda *_, **__: run.split
        fitting.fit(
            run,
            self.names["make_model"]((48, 48, 1), 7),
            augmentation={},
            batch_size=BATCH,
            learning_rate=0.001,
            plateau_factor=0.2,
            plateau_patience=5,
        )

    def after_epoch(self):
        """Do what ours does after an epoch: predict the scored images, keep the best weights and the state."""
        session.prepare_device(session.available_cores(), 0, True)
        network = self.network(True)
        tested = self.dataset.images[self.dataset.usage != "Training"][..., np.newaxis]
        state = TrainingState(Path(self.options["folder"]) / f"kept-{self.options['model']}", {}, 1)
        kept = {"epoch": 1, "best_file": "best-001.weights.h5"}

        def seconds(function, *arguments):
            started = time.monotonic()
            function(*arguments)
            return time.monotonic() - started

        def predict(images):
            return seconds(distribution.predict, network, images)

        def save():
            network.save_weights(state.folder / kept["best_file"])
            state.save(network, kept)

        # The first call builds the graph, the second says how many batches make a measurement.
        batch = np.resize(tested, (distribution.PREDICTED, *tested.shape[1:]))
        predict(batch)
        steps = self.options["steps"] or math.ceil(self.options["seconds"] / predict(batch))
        images = np.resize(tested, (min(steps * distribution.PREDICTED, SCORED), *tested.shape[1:]))
        self.answer({"images": len(images)})
        while sys.stdin.readline():
            self.answer({"predict": predict(images), "save": seconds(save)})


class EndlessBatches(keras.utils.PyDataset):
    """A generator of batches that starts over at its end, for `fit` with ``steps_per_epoch``."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return 1_000_000

    def __getitem__(self, number):
        return self.batches[number % len(self.batches)]


def main():
    """Be the side that the command line names."""
    options = json.loads(sys.argv[1])
    # What the libraries print goes to the log, the answers to the parent.
    out, sys.stdout = sys.stdout, sys.stderr

    def answer(value):
        print(json.dumps(value), file=out, flush=True)

    getattr(Sides(options, answer), options["side"])()


if __name__ == "__main__":
    main()
