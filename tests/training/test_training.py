"""Training: it can be stopped at any moment, and what it leaves on disk is what it was."""

import contextlib
import functools
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from planted import read_model
from sklearn.metrics import accuracy_score

from fer_utils import metrics
from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.data import synthetic
from fer_utils.errors import ConfigError
from fer_utils.training import evaluation, fast_layers, keras_metrics, run

PARAMETERS = {
    "model": "tiny",
    "label": "Tiny",
    "notebook": "none.ipynb",
    "data": "synthetic",
    "profile": "alone",
    "protocol": "sound",
    "seed": 3,
    "threads": 1,
    "deterministic": True,
    "precision": "auto",
    "images_per_class": 12,
    "test_images_per_class": 6,
    "epoch_images_per_class": 0,
    "epochs": 4,
    "learning_rate": 0.01,
    "fast_layers": True,
    "monitor": "val_accuracy",
}

#: A training that ends where argv[2] says: in the middle of an epoch (its number), while the state of the third epoch
#: is written ("state"), between two files of the evaluation ("evaluation"), or never; "twice" evaluates twice.
SCRIPT = """
import json, math, sys
from fer_utils import training
from fer_utils.training import evaluation, resume as resuming
import keras

globals().update(json.loads(sys.argv[1]))
__annotations__ = dict.fromkeys(json.loads(sys.argv[1]))
training.begin(globals())
# As when the cells of a notebook are run again.
run = training.begin(globals())
network = keras.Sequential([
    keras.Input((48, 48, 1)),
    keras.layers.Rescaling(1 / 255),
    keras.layers.Conv2D(4, 3, strides=4, activation="relu"),
    keras.layers.BatchNormalization(),
    keras.layers.Dropout(0.3),
    keras.layers.Flatten(),
    keras.layers.Dense(7, activation="softmax", dtype="float32"),
])
killed_in = sys.argv[2]

def half(path, **arrays):
    # Half a file, as left by a kill, after two whole epochs.
    if "epoch-003" in str(path):
        path.write_bytes(bytes(1000))
        end()
    savez(path, **arrays)

if killed_in == "state":
    savez, resuming.np.savez = resuming.np.savez, half
if killed_in == "evaluation":
    evaluation.write_json = lambda *a: end()

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1 and str(self.epoch) == killed_in:
            end()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

augmentation = {"rotation_range": 10, "horizontal_flip": True}
network.compile(keras.optimizers.Adam(learning_rate), "categorical_crossentropy", metrics=training.table_5_1_metrics())
run.fast_layers = training.accelerate(network) if fast_layers else []
resume = training.ExactResume(run, network, augmentation)
schedule = keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1)
checkpoint = keras.callbacks.ModelCheckpoint(
    resume.best_weights, monitor=monitor, save_best_only=True, save_weights_only=True
)
if resume.epoch < epochs:
    network.fit(
        # Three whole batches: for one of another size there would be a second graph to build.
        training.batches(run, augmentation, 28, first_epoch=resume.epoch), initial_epoch=resume.epoch, epochs=epochs,
        steps_per_epoch=math.ceil(len(run.split.train) / 28), shuffle=False, verbose=0,
        callbacks=[training.ScoreEpoch(run), schedule, checkpoint, resume.watch(schedule, checkpoint),
                   training.Progress(run), Kill()],
    )
print(training.evaluate(run, network, resume))
if killed_in == "twice":
    training.evaluate(run, network, resume)
print(training.closing_sentence(run))
"""


#: Fewer drawn faces than usual: to draw them takes longer than these trainings.
SCALE = 10_000

#: How a process of its own begins, and how it is ended.
ALONE = f"""
import os
from fer_utils.data import synthetic
synthetic.SCALE = {SCALE}
end = lambda: os.kill(os.getpid(), 9)
"""


class Ended(BaseException):
    """The end of a training in this process, as where the kernel is interrupted."""


def end():
    raise Ended


def train(out, killed_in="never", **changes):
    """Train as a notebook does; return what was printed.

    What is ended while its state is written is killed, in a process of its own, so that nothing is tidied up.
    """
    arguments = ["-c", json.dumps(PARAMETERS | {"out": str(out)} | changes), str(killed_in)]
    if killed_in == "state":
        killed = subprocess.run([sys.executable, "-c", ALONE + SCRIPT, *arguments[1:]], capture_output=True, text=True)
        assert killed.returncode == -9, killed.stderr
        return killed.stdout
    printed = io.StringIO()
    ends = contextlib.nullcontext() if killed_in in ("never", "twice") else pytest.raises(Ended)
    with (
        contextlib.redirect_stdout(printed),
        mock.patch.object(sys, "argv", arguments),
        mock.patch.object(evaluation, "write_json", evaluation.write_json),  # which the script may replace
        ends,
    ):
        try:
            exec(SCRIPT, {"end": end})
        finally:
            keras.config.set_dtype_policy("float32")
    return printed.getvalue()


@pytest.fixture(scope="module", autouse=True)
def faces_drawn_once():
    with (
        mock.patch.object(synthetic, "SCALE", SCALE),
        mock.patch.object(run.datasets, "load", functools.cache(run.datasets.load)),
    ):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out / "tiny" / "seed-3", train(out)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    out = tmp_path_factory.mktemp("resumed")
    train(out, killed_in=2)
    return out / "tiny" / "seed-3", train(out)


def test_a_killed_training_goes_on_to_the_same_weights_and_history(whole, resumed):
    assert "2 of 4 epochs were trained before" in resumed[1]
    assert (whole[0] / "history.csv").read_bytes() == (resumed[0] / "history.csv").read_bytes()
    assert (whole[0] / "model.weights.h5").read_bytes() == (resumed[0] / "model.weights.h5").read_bytes()
    # The file too, byte for byte: it holds no time and no path.
    assert (whole[0] / "predictions.parquet").read_bytes() == (resumed[0] / "predictions.parquet").read_bytes()


def make_old(folder):
    """Only what has not changed for a minute is removed."""
    for path in [*folder.rglob(".*.unfinished"), *folder.rglob(".*.unfinished/*")]:
        os.utime(path, (0, 0))


def test_a_kill_in_the_writing_of_state_or_results_costs_an_epoch_at_most(whole, tmp_path):
    folder, states = tmp_path / "tiny" / "seed-3", tmp_path / ".training" / "tiny" / "seed-3"
    train(tmp_path, killed_in="state")
    assert list(states.rglob(".*.unfinished"))
    make_old(tmp_path)
    # One who finished an earlier training may have left a record here.
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"data": read_model(whole[0]).record["data"]}))
    killed = train(tmp_path, killed_in="evaluation")
    assert "2 of 4 epochs were trained before" in killed
    # What is half evaluated has no record.
    assert (folder / "predictions.parquet").exists() and not (folder / "run.json").exists()
    make_old(tmp_path)
    done = train(tmp_path)
    assert "4 of 4 epochs were trained before" in done
    for name in ("history.csv", "predictions.parquet", "model.weights.h5"):
        assert (folder / name).read_bytes() == (whole[0] / name).read_bytes()
    assert not list(tmp_path.rglob(".*.unfinished"))


def test_predictions_are_hashed_by_value(whole):
    sha = hashlib.sha256()
    for line in pd.read_parquet(whole[0] / "predictions.parquet").itertuples(index=False):
        image, usage, label, *values = line
        sha.update(f"{image}\t{usage}\t{label}\t{struct.pack('>7f', *values).hex()}\n".encode())
    assert read_model(whole[0]).record["predictions_sha256"] == sha.hexdigest()


def test_the_record_says_where_each_epoch_was_trained(resumed):
    segments = read_model(resumed[0]).record["segments"]
    assert [(s["first_epoch"], s["last_epoch"]) for s in segments] == [(1, 2), (3, 4)]
    assert all(s["seconds"] > 0 and s["threads"] == 1 for s in segments)


def test_a_finished_training_is_not_done_again_whatever_was_tried_in_between(resumed):
    out = resumed[0].parent.parent
    before = (resumed[0] / "history.csv").read_bytes()
    # Another learning rate is another training; a shorter one too, which cannot be had from the longer one's state.
    for changes, said in (
        ({"learning_rate": 0.02}, "differs from the last one here in: learning_rate 0.01 -> 0.02."),
        ({"epochs": 2}, "differs from the last one here in: learning_rate 0.02 -> 0.01."),
    ):
        printed = train(out, **changes)
        assert "epochs were trained before" not in printed
        assert said in printed
        assert ".training/tiny/seed-3/state-... in the run folder" in printed
        assert (resumed[0] / "history.csv").read_bytes() != before
    done = train(out)
    assert "4 of 4 epochs were trained before" in done
    assert (resumed[0] / "history.csv").read_bytes() == before


def test_a_longer_training_goes_on_from_a_shorter_one_and_is_evaluated_as_often_as_one_likes(whole, tmp_path):
    train(tmp_path, epochs=2)
    assert "2 of 4 epochs were trained before" in train(tmp_path, "twice")
    for name in ("history.csv", "metrics.json"):
        assert (tmp_path / "tiny" / "seed-3" / name).read_bytes() == (whole[0] / name).read_bytes()


def test_a_killed_training_in_16_bits_goes_on_to_the_same_weights(whole, tmp_path, precision="mixed_bfloat16"):
    first, second = tmp_path / "first", tmp_path / "second"
    changes = {"precision": precision, "monitor": "val_loss"}
    train(first, **changes)
    train(second, killed_in=2, **changes)
    done = train(second, **changes)
    assert "2 of 4 epochs were trained before" in done
    paths = [folder / "tiny" / "seed-3" for folder in (first, second)]
    for name in ("history.csv", "model.weights.h5", "predictions_last.parquet"):
        assert (paths[0] / name).read_bytes() == (paths[1] / name).read_bytes()
    assert (paths[0] / "history.csv").read_bytes() != (whole[0] / "history.csv").read_bytes()
    predictions = pd.read_parquet(paths[0] / "predictions.parquet")[list(PROBABILITY_COLUMNS)]
    # Probabilities of 8 bits would miss 1 by some thousandths.
    np.testing.assert_allclose(predictions.sum(axis=1), 1, atol=1e-5)
    assert read_model(paths[0]).record["precision"] == precision
    # The table has no entry for this test's network.
    assert read_model(whole[0]).record["precision"] == "float32"
    # What was best is known after the kill too.
    history = read_model(paths[1]).history
    assert read_model(paths[1]).record["epochs"]["best"] == history.loc[history["val_loss"].idxmin(), "epoch"]


def test_results_on_other_data_are_not_mixed_in(whole, tmp_path):
    other = tmp_path / "other" / "seed-0"
    other.mkdir(parents=True)
    data = {"fingerprint": "0" * 64, "source": "fer2013.zip", "description": "planted"}
    (other / "run.json").write_text(json.dumps({"data": data}))
    with pytest.raises(ConfigError, match=r"holds results on other data \(fer2013.zip: planted\)"):
        train(tmp_path)


def test_the_files_hold_what_was_computed(whole):
    result = read_model(whole[0])
    assert list(result.history["epoch"]) == [1, 2, 3, 4]
    best = result.history.loc[result.history["val_accuracy"].idxmax(), "epoch"]
    assert result.metrics["best"]["epoch"] == best == result.record["epochs"]["best"]
    y_true, y_proba = result.select("test")
    assert len(y_true) == 2 * 7 * 6
    assert result.metrics["best"]["test"]["accuracy"] == pytest.approx(accuracy_score(y_true, y_proba.argmax(axis=1)))
    assert result.metrics["last"]["epoch"] == 4
    assert (result.predictions["usage"] == "Training").sum() == 7 * 12
    np.testing.assert_allclose(result.predictions[list(PROBABILITY_COLUMNS)].sum(axis=1), 1, atol=1e-5)


def test_the_scores_of_an_epoch_are_those_of_the_weights_kept_for_it(whole):
    result = read_model(whole[0])
    row = result.history[result.history["epoch"] == result.metrics["best"]["epoch"]].iloc[0]
    for part in ("public", "private", "test"):
        for name in ("loss", "accuracy", "precision", "auc", "macro_f1"):
            assert row[f"{part}_{name}"] == pytest.approx(result.metrics["best"][part][name], abs=1e-6)
    assert row["val_accuracy"] == row["public_accuracy"]


def test_the_saved_models_load_with_keras_alone_and_agree(whole):
    # In a process of its own, which never imports fer_utils.
    code = """
import sys, keras, numpy as np
folder = sys.argv[1]
x = np.random.default_rng(0).uniform(0, 255, (5, 48, 48, 1))
whole = keras.saving.load_model(folder + "/model.keras")
first = whole.predict(x, verbose=0)
assert np.allclose(first.sum(axis=1), 1, atol=1e-5)
assert np.allclose(first, keras.saving.load_model(folder + "/model.h5").predict(x, verbose=0))
whole.load_weights(folder + "/model.weights.h5")
assert np.allclose(first, whole.predict(x, verbose=0))
"""
    done = subprocess.run([sys.executable, "-c", code, str(whole[0])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_synthetic_and_shortened_runs_say_so(whole):
    record = read_model(whole[0]).record
    assert record["synthetic"] and record["shortened"]
    assert any("SYNTHETIC" in line for line in record["warnings"])
    assert any("SHORTENED" in line for line in record["warnings"])
    assert "This is no result" in whole[1]


def test_the_record_names_no_folder_of_the_machine(whole):
    record = (whole[0] / "run.json").read_text()
    assert str(whole[0].parent.parent) not in record


def test_the_thesis_protocol_validates_on_all_test_images(tmp_path):
    train(tmp_path, protocol="thesis", epochs=1)
    result = read_model(tmp_path / "tiny" / "seed-3")
    assert (result.history["val_accuracy"] == result.history["test_accuracy"]).all()
    assert result.metrics["best"]["validation"] == result.metrics["best"]["test"]


def test_keras_and_our_scores_agree_on_an_epoch(whole):
    """The training side is counted by Keras, the validation side by scikit-learn: they must mean the same."""
    from fer_utils.metrics import METRICS, scores

    y_true, y_proba = read_model(whole[0]).select("test")
    ours = scores(y_true, y_proba)
    for metric in keras_metrics.table_5_1_metrics():
        metric.update_state(np.eye(7, dtype="float32")[y_true], y_proba)
        # Keras's AUC sums over 200 thresholds.
        tolerance = 0.005 if metric.name == "auc" else 1e-5
        assert float(np.mean(metric.result())) == pytest.approx(ours[metric.name], abs=tolerance), metric.name
    assert {m.name for m in keras_metrics.table_5_1_metrics()} | {"loss"} == set(METRICS)
    loss = keras.losses.CategoricalCrossentropy()(np.eye(7, dtype="float32")[y_true], y_proba)
    assert float(loss) == pytest.approx(ours["loss"], rel=1e-5)


def test_the_graph_is_built_once_for_each_size_of_batch():
    sizes = []
    inputs = keras.Input((48, 48, 1))
    seen = keras.layers.Lambda(lambda images: sizes.append(images.shape[0]) or images)(inputs)
    outputs = keras.layers.Dense(7, "softmax")(keras.layers.GlobalAveragePooling2D()(seen))
    network = keras.Model(inputs, outputs)
    network.compile("adam", "categorical_crossentropy", metrics=keras_metrics.table_5_1_metrics())
    fast_layers.accelerate(network)
    network.optimizer.build(network.trainable_variables)  # as ExactResume does
    assert all(value == 0 for value in network.get_metrics_result().values())
    sizes.clear()
    images, labels = np.ones((40, 48, 48, 1), "float32"), np.eye(7, dtype="float32")[np.arange(40) % 7]
    network.fit(tf.data.Dataset.from_tensor_slices((images, labels)).batch(16), epochs=2, verbose=0)
    assert sizes == [16, 8]


def test_the_momentum_reaches_networks_inside_the_network():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)])
    network = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), inner])
    fast_layers.set_batch_norm_momentum(network, 0.0)
    assert network.layers[0].momentum == inner.layers[0].momentum == 0.99
    fast_layers.set_batch_norm_momentum(network, 0.9)
    assert network.layers[0].momentum == inner.layers[0].momentum == 0.9


def test_the_last_epochs_predictions_are_kept_too(whole):
    result = read_model(whole[0])
    last = pd.read_parquet(whole[0] / "predictions_last.parquet")
    assert len(last) == 2 * 7 * 6 and set(last["usage"]) == {"PublicTest", "PrivateTest"}
    right = last[list(PROBABILITY_COLUMNS)].to_numpy().argmax(axis=1) == last["label"]
    assert right.mean() == pytest.approx(result.metrics["last"]["test"]["accuracy"])


def test_stock_keras_learns_what_the_fast_layers_learn(whole, tmp_path, monitor="val_macro_recall"):
    train(tmp_path, fast_layers=False, monitor=monitor)
    stock, fast = read_model(tmp_path / "tiny" / "seed-3"), read_model(whole[0])
    assert stock.record["fast_layers"] == [] and "Adam, fused" in fast.record["fast_layers"]
    np.testing.assert_allclose(stock.history["loss"], fast.history["loss"], rtol=1e-4)
    # What is monitored decides which epoch is the best one.
    assert stock.record["epochs"]["best"] == stock.history.loc[stock.history[monitor].idxmax(), "epoch"]


def namespace(**changes):
    return {"__annotations__": dict.fromkeys(PARAMETERS | {"out": ""})} | PARAMETERS | changes


def test_impossible_parameters_are_named(tmp_path):
    lacking = namespace(out=str(tmp_path))
    del lacking["epochs"]
    with pytest.raises(ConfigError, match="lacks epochs"):
        run.begin(lacking)
    with pytest.raises(ConfigError, match="epochs is 0"):
        run.begin(namespace(epochs=0, out=str(tmp_path)))


def test_the_score_table_has_names_that_people_read():
    y_true, y_proba = np.arange(7), np.eye(7)
    part = metrics.scores(y_true, y_proba)
    table = evaluation.score_table({"epoch": 3, "train": part, "private": part}, {"epoch": 5, "private": part})
    assert list(table.index) == [
        ("best (3)", "Training images"),
        ("best (3)", "PrivateTest"),
        ("last (5)", "PrivateTest"),
    ]
    assert (
        list(table.columns[:3]) == ["Images", "Accuracy", "Loss (cross-entropy)"] and table.columns[-1] == "F1 (macro)"
    )
    assert len(table.columns) == 1 + len(metrics.METRICS) and (table["Images"] == 7).all()
    assert (table["Recall (above 0.5)"] == 1).all() and (table["Loss (cross-entropy)"] < 1e-6).all()
