"""The benchmark: ratios and their intervals, what counts as met, the turns of its processes, each side in small."""

import contextlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import yaml

from benchmarks import compare as benchmark
from benchmarks import sides
from fer_utils.constants import CLASSES
from fer_utils.errors import ConfigError
from fer_utils.paths import project_root
from fer_utils.training.fast_layers import walk
from fer_utils.training.pipeline import check


def network(policy):
    """A network with another one inside, as the pretrained ones of the notebooks, under a dtype policy."""
    keras.config.set_dtype_policy(policy)
    layers = keras.layers
    inputs = keras.Input((48, 48, 4), name="x")
    inner = keras.Model(inputs, layers.ReLU(name="c")(layers.Conv2D(4, 3, name="b")(inputs)), name="i")
    outer = [keras.Input((48, 48, 1)), layers.Conv2D(4, 3, padding="same", name="a"), inner]
    outer += [layers.BatchNormalization(name="d"), layers.GlobalAveragePooling2D(name="e")]
    made = keras.Sequential([*outer, layers.Dense(7, activation="softmax", dtype="float32", name="f")], name="o")
    keras.config.set_dtype_policy("float32")
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a finished training of a small network, and one that has not finished."""
    folder = tmp_path_factory.mktemp("run") / "traditional_cnn" / "seed-1"
    folder.mkdir(parents=True)
    folder.with_name("seed-0").mkdir()
    network("float32").save(folder / "model.keras")
    record = {"notebook": "02_traditional_cnn.ipynb", "parameters": {"batch_size": 2, "learning_rate": 0.001}}
    (folder / "run.json").write_text(json.dumps(record | {"augmentation": check({"rotation_range": 10})}))
    return folder.parents[1]


def test_the_interval_of_the_median_is_that_of_order_statistics():
    values = np.exp(np.random.default_rng(1).normal(0.1, 0.2, 200))
    ratio, low, high = benchmark.median_interval(values)
    ordered = np.sort(values)  # ranks n/2 +- 1.96 sqrt(n)/2
    assert ratio == np.median(values)
    assert low == pytest.approx(ordered[100 - 14], abs=0.03) and high == pytest.approx(ordered[100 + 14], abs=0.03)
    assert benchmark.median_interval([2.0, 2.0]) == benchmark.median_interval([2.0]) == (2.0, 2.0, 2.0)


def test_an_interval_that_holds_the_goal_decides_nothing():
    met = [benchmark.verdict(*interval, 0.97) for interval in ((0.98, 1.1), (0.97, 1.0), (0.9, 0.96), (0.9, 1.0))]
    assert met == ["yes", "yes", "no", "inconclusive"]


def test_the_faster_precision_is_chosen_without_dwelling_on_the_other():
    class Planned:
        def __init__(self, *seconds):
            self.seconds, self.steps = iter(seconds), 0

        def train(self, steps):
            self.steps += steps
            return next(self.seconds)

    # The first step of either is slow; the least of the later ones decides.
    close, best = Planned(2.0, *[1.1] * 10), Planned(4.0, 1.2, 1.0, *[1.3] * 7, 0.9)
    assert benchmark.fastest([close, best]) is best and close.steps == best.steps == 11
    fast, emulated = Planned(*[1.0] * 11), Planned(19.0)
    assert benchmark.fastest([emulated, fast]) is fast and (emulated.steps, fast.steps) == (1, 11)
    assert benchmark.fastest([emulated]) is emulated and emulated.steps == 1


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """Sides that take planned seconds: what was asked of them, in what order, and a function that compares them."""
    asked, order = [], []

    class Side:
        """Ours takes 1 s, the other 2, 3 and 7 s in its three processes; a compiled one cannot start."""

        def __init__(self, options, log):
            asked.append(options)
            self.name, self.calls = options["side"], 0
            process = sum(a["side"] == self.name for a in asked) - 1
            self.seconds = 1.0 if self.name == asked[0]["side"] else (2.0, 3.0, 7.0)[process]

        def answer(self):
            if self.name == "pytorch_compiled":
                raise ConfigError("no C++ compiler")
            about = {"steps": 9, "images": 100, "notebook": "04.ipynb", "kind": "CPU", "machine": {}}
            return {"note": self.name} | ({"bfloat16": False} if self.name == "pytorch" else about)

        def measure(self):
            order.append(self.name)
            self.calls += 1
            # The first turn of a process does not count, nor does a single slow one.
            return 50.0 if self.calls in (1, 7) else self.seconds

        def end(self):
            order.append(f"end of {self.name}")

    monkeypatch.setattr(benchmark, "Side", Side)
    options = SimpleNamespace(pairs=3, data="synthetic", seconds=1.0, out=str(tmp_path))
    return asked, order, lambda name: benchmark.compare(name, "vgg16", tmp_path, options, tmp_path)


def test_processes_take_turns_and_count_as_one_value(planted, capsys):
    asked, order, compare = planted
    (row,) = compare("pytorch")
    assert "left out: no C++ compiler" in capsys.readouterr().out
    assert [a["side"] for a in asked] == ["ours", "pytorch", "pytorch_compiled", *["ours", "pytorch"] * 2]
    assert [a["steps"] for a in asked] == [0, *[9] * 6]
    assert [a["bfloat16"] for a in asked if a["side"] == "pytorch"] == [None, False, False]
    turns = [side for side in order if not side.startswith("end")]
    # Both warm up; then who begins takes turns, too.
    one, two = ["ours", "pytorch"], ["pytorch", "ours"]
    assert turns == one + (one + two) * 5 + one + (two + one) * 5 + one + (one + two) * 5
    assert order.count("end of pytorch") == 3
    # One value a pair: the median of 2, 3 and 7, and all of them.
    assert (row["ratio"], row["low"], row["high"]) == (3.0, 2.0, 7.0) and row["met"] == "yes"
    assert row["images_per_second"][0] == 100.0 and row["over"] == "pytorch"


def test_precision_gives_the_entry_of_its_table(planted):
    (row,) = planted[-1]("precision")
    entry = yaml.safe_load(row["note"].strip("`"))
    assert entry == {"04.ipynb": {"kinds": {"CPU": {"used": "mixed_bfloat16", "ratio": [3.0, 2.0, 7.0]}}}}
    expected = f"| vgg16 | float32 | 100 | 33 | 3.000 | 2.000 to 7.000 | 1 | yes | {row['note']} |"
    assert expected in benchmark.table([row]).splitlines()


def test_the_batches_of_a_turn_are_counted_after_the_first_ones(monkeypatch):
    answers, lines = [], iter(["go\n"] * 3)
    clock = iter(np.arange(100.0))
    monkeypatch.setattr(sides.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sides.sys, "stdin", SimpleNamespace(readline=lambda: next(lines, "")))
    turns = sides.Turns({"note": "x"}, 0, 2.0, 64, answers.append)
    with pytest.raises(SystemExit):
        for batch in [0, 1, 2] * 9:
            turns.on_train_batch_end(batch)
    # The clock goes on by 1 s whenever it is read: the first batch ends at 1, the fourth at 4, one batch takes 1 s.
    assert answers == [{"note": "x", "steps": 2, "images": 128}, *[{"seconds": 2.0}] * 3] and turns.done == 10


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_dtype_policy_is_that_of_a_network_built_under_it(tmp_path, policy):
    saved = network("float32")
    saved.layers[1].layers[1].trainable = False  # as in a pretrained base
    saved.save(tmp_path / "model.keras")
    loaded = sides.load_network(tmp_path / "model.keras", policy)
    found, expected = ([(layer.name, layer.dtype_policy) for layer in walk(x)] for x in (loaded, network(policy)))
    assert found == expected and found[0][1].name == policy and found[-1][1].name == "float32"
    # Two convolutions and the dense layer with a bias, scale and offset of the normalisation.
    assert len(loaded.trainable_variables) == 8 and loaded(np.zeros((1, 48, 48, 1))).dtype == "float32"


@pytest.fixture
def data(small_set, tmp_path, monkeypatch):
    """A small copy of the data, which is read faster than faces are drawn."""
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))
    return str(small_set.write_zip(tmp_path / "small.zip"))


def test_a_side_trains_on_request_and_stays_until_it_is_ended(run, data, tmp_path):
    options = {"side": "bfloat16", "folder": str(run / "traditional_cnn" / "seed-1"), "images": ""}
    process = benchmark.Side(options | {"data": data, "seconds": 0.01, "steps": 2}, tmp_path / "log")
    with contextlib.ExitStack() as stack:
        stack.callback(process.end)
        ready = process.answer()
        assert (ready["steps"], ready["images"], ready["note"]) == (2, 4, "mixed_bfloat16")
        assert process.measure() > 0
        with pytest.raises(subprocess.TimeoutExpired):  # its end would disturb the other side
            process.process.wait(timeout=2)
    with pytest.raises(ConfigError, match="side bfloat16 ended with status -9: .*log"):
        process.measure()


def test_a_comparison_in_small_leaves_a_table_and_its_seconds(run, data, tmp_path):
    # In the environment in which run_all.sh starts it, from another folder.
    environment = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(project_root())}
    command = [sys.executable, "-m", "benchmarks.compare", "generator", "--run", str(run), "--out", str(tmp_path)]
    command += ["--pairs", "1", "--seconds", "0.01", "--data", data]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "benchmark.json").read_text())
    (row,) = found["rows"]
    ours, other = np.array(row["seconds"])
    assert ours.shape == other.shape == (1, 10) and ours.min() > 0 and other.min() > 0
    assert row["ratio"] == pytest.approx(np.median(other / ours)) and row["note"].endswith("; float32")
    written = (tmp_path / "benchmark.md").read_text()
    assert f"| traditional_cnn | generator | {row['images_per_second'][0]:.0f} |" in written
    assert found["command"][:3] == ["./run_all.sh", "benchmark", "generator"] and row["machine"]["cores"]


def test_the_generator_reads_each_image_from_the_folder_of_its_class(tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 256, (9, 48, 48), dtype=np.uint8), np.arange(9) % 7
    for _ in range(2):  # those that are there stay
        sides.write_images(tmp_path / "images", images, labels)
    names = {f"{path.parent.name}/{path.name}" for path in tmp_path.glob("images/*/*.jpg")}
    assert names == {f"{CLASSES[label]}/{number}.jpg" for number, label in enumerate(labels)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("speed", "no comparison speed; there are fast_layers, generator, pytorch, precision"),
        ("precision --pairs 0", "--pairs 0: expected 1 or more"),
        ("precision --models vgg16 --run {run}", "no finished training of vgg16"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(run, tmp_path, capsys, arguments, said):
    assert benchmark.main([*arguments.format(run=run).split(), "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
