"""Time hard swish against ReLU on one feature map (claim S19); what a run's audit reads.

``python -m benchmarks.activations RUNFOLDER`` writes ``RUNFOLDER/benchmarks/activations.json``.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from fer_utils.files import write_json

#: A batch of the feature map after MobileNetV3Small's first convolution of a 48x48 image.
SHAPE = (64, 24, 24, 16)


def fastest(function, features, repeats=50):
    """Fewest seconds of several calls; the first call compiles and does not count."""
    function(features).numpy()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function(features).numpy()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def measure():
    """Seconds of both activations, compiled, on this machine's first device."""
    import keras
    import tensorflow as tf

    features = tf.constant(np.random.default_rng(0).normal(size=SHAPE).astype("float32"))
    functions = {"relu": keras.activations.relu, "hard_swish": keras.activations.hard_swish}
    seconds = {name: fastest(tf.function(function), features) for name, function in functions.items()}
    return seconds | {"device": features.device.rpartition(":")[0].rpartition(":")[2], "shape": SHAPE}


def main(arguments=None):
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="run folder")
    folder, found = parser.parse_args(arguments).run, measure()
    write_json(folder / "benchmarks" / "activations.json", found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
