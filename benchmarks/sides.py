"""One side of a comparison of `benchmarks.compare`: a process that trains for a turn whenever it reads a line.

It trains the network that a finished training left (``model.keras``), compiled and fed as the notebooks do.
"""

import json
import math
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from fer_utils.constants import CLASSES
from fer_utils.data import dataset as datasets
from fer_utils.data import splits
from fer_utils.files import read_json
from fer_utils.training import accelerate, table_5_1_metrics
from fer_utils.training import device as devices
from fer_utils.training.fast_layers import walk
from fer_utils.training.pipeline import make_batches

#: Batches of an epoch, as of FER2013, and more epochs than a benchmark takes. All batches are whole: a smaller one
#: would build a second graph while a turn is timed.
STEPS, EPOCHS = 448, 10_000

FIRST = 4  # batches before the first turn; the first of them builds the graph

#: Dtype policies of the sides.
PRECISIONS = {
    "ours": "auto",
    "stock": "auto",
    "bfloat16": "mixed_bfloat16",
    "float32": "float32",
    "generator": "float32",
}


class Turns(keras.callbacks.Callback):
    """Hold a training after some batches, time and again, until a line comes in; answer how long they took.

    `ready` is what to answer before the first turn. A turn is `steps` batches; for 0, as many as fit into `seconds`.
    """

    def __init__(self, ready, steps, seconds, batch_size, answer):
        super().__init__()
        self.ready, self.steps, self.seconds, self.batch_size = ready, steps, seconds, batch_size
        self.answer, self.done = answer, 0

    def on_train_batch_end(self, batch, logs=None):
        """Answer at the end of a turn and wait for the next one."""
        self.done += 1
        now = time.monotonic()
        if self.done == FIRST:
            self.steps = self.steps or math.ceil(self.seconds * (FIRST - 1) / (now - self.started))
            self.answer(self.ready | {"steps": self.steps, "images": self.steps * self.batch_size})
        elif self.done > FIRST and (self.done - FIRST) % self.steps == 0:
            self.answer({"seconds": now - self.started})
        elif self.done > 1:
            return
        if self.done > 1 and not sys.stdin.readline():
            sys.exit("the benchmark is gone")
        self.started = time.monotonic()


def load_network(path, precision):
    """Return the network in a ``model.keras`` with a dtype policy, every layer trainable, with new random weights."""
    network = keras.models.load_model(path, compile=False)
    keras.config.set_dtype_policy(precision)
    network.trainable = True
    *hidden, _ = walk(network)  # the last layer gives float32 probabilities whatever the dtype policy
    for layer in hidden:
        layer.trainable, layer.dtype_policy = True, precision
    return keras.models.clone_model(network)


def write_images(folder, images, labels):
    """Write images as JPEG files, a folder a class, unless they are there."""
    if not folder.exists():
        for name in CLASSES:
            (folder / name).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(folder / CLASSES[label] / f"{number}.jpg", quality=95)


def train(options, answer):
    """Train as the side ``options["side"]``, turn by turn, until the parent process ends or kills this one."""
    side, folder = options["side"], Path(options["folder"])
    record = read_json(folder / "run.json")
    batch_size = record["parameters"]["batch_size"]
    device = devices.prepare(devices.available_cores(), 0, deterministic=side != "generator")
    precision = devices.choose_precision(PRECISIONS[side], record["notebook"], device["kind"])
    network = load_network(folder / "model.keras", precision)
    network.compile(
        optimizer=keras.optimizers.Adam(record["parameters"]["learning_rate"]),
        loss="categorical_crossentropy",
        metrics=table_5_1_metrics(),
    )
    if side not in ("stock", "generator"):
        accelerate(network)

    dataset = datasets.load(options["data"])
    # There may be fewer images than in FER2013; an image that comes twice takes as long as another one.
    index = np.resize(splits.split(dataset).train, STEPS * batch_size)
    images, labels = dataset.images[index], dataset.labels[index]
    if side == "generator":
        write_images(Path(options["images"]), images, labels)
        reader = tf.keras.preprocessing.image.ImageDataGenerator(**record["augmentation"])
        size = {"target_size": images.shape[1:], "color_mode": "grayscale", "batch_size": batch_size}
        batches = reader.flow_from_directory(options["images"], class_mode="categorical", seed=0, **size)
    else:
        how = {"batch_size": batch_size, "settings": record["augmentation"], "ahead": device["kind"] == "GPU"}
        batches = make_batches(images, labels, seed=0, epochs=range(EPOCHS), **how)
    ready = {
        "note": precision,
        "notebook": record["notebook"],
        "kind": devices.kind_of_device(device["kind"]),
        "machine": {"cpu": devices.cpu_name(), "cores": device["threads"], "versions": devices.versions()},
    }
    turns = Turns(ready, options["steps"], options["seconds"], batch_size, answer)
    steps = None if side == "generator" else STEPS  # the generator knows its own
    network.fit(batches, steps_per_epoch=steps, epochs=EPOCHS, shuffle=False, callbacks=[turns], verbose=0)


def main():
    """Be the side that the command line names."""
    # What the libraries print goes to the log, the answers go to the parent.
    out, sys.stdout = sys.stdout, sys.stderr
    train(json.loads(sys.argv[1]), lambda value: print(json.dumps(value), file=out, flush=True))


if __name__ == "__main__":
    main()
