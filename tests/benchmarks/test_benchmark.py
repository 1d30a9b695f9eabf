"""The benchmark: ratios and their intervals, what counts as met, the networks of the notebooks, each kind in small."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest

from benchmarks import compare as benchmark
from benchmarks import costs as benchmark_costs
from benchmarks import sides as benchmark_sides
from fer_utils.errors import ConfigError


def test_the_ratio_is_of_speeds_and_paired():
    # Ours takes half the other's time in every pair, however much slower the machine gets.
    other = [2.0, 4.0, 8.0, 3.0, 5.0]
    ratio, low, high = benchmark.ratio_interval([x / 2 for x in other], other)
    assert ratio == low == high == 2.0


def test_the_interval_holds_the_median_and_narrows_with_the_pairs():
    rng = np.random.default_rng(1)
    ratios = np.exp(rng.normal(0.1, 0.2, 200))
    ratio, low, high = benchmark.ratio_interval(np.ones(200), ratios)
    assert ratio == np.median(ratios) and low < ratio < high
    # The textbook's interval of a median from order statistics: ranks n/2 +- 1.96 sqrt(n)/2.
    ordered = np.sort(ratios)
    assert low == pytest.approx(ordered[100 - 14], abs=0.03) and high == pytest.approx(ordered[100 + 14], abs=0.03)
    few = benchmark.ratio_interval(np.ones(10), ratios[:10])
    assert few[2] - few[1] > high - low


def test_processes_take_turns_and_count_as_one_value(monkeypatch, tmp_path):
    order, folders = [], []

    class Side:
        """Ours takes 1 s; the other 2 s in the first process, 3 in the second, 7 in the third, but for each tenth."""

        def __init__(self, options, log):
            self.ours = options["side"] == "pipeline"
            folders.append(options["folder"])
            assert options["steps"] == (0 if len(folders) == 1 else 9) and options["turns"] == 10
            self.seconds = 1.0 if self.ours else (2.0, 3.0, 7.0)[len(set(folders)) - 1]
            self.ready = {"steps": 9, "images": 100} | ({} if self.ours else {"bfloat16": False})
            # What the first pair found to be faster, the next need not find again.
            assert options.get("bfloat16") == (None if len(folders) <= 2 else False)

        def measure(self):
            order.append(self.ours)
            return 50.0 if len(order) % 20 == 7 else self.seconds

        def end(self):
            pass

    monkeypatch.setattr(benchmark, "Side", Side)
    asked = SimpleNamespace(pairs=3, data="synthetic", steps=0, seconds=None, out=str(tmp_path))
    row = benchmark.compare("ceiling", "mobilenet_v3", asked, tmp_path)
    # Who begins takes turns, too.
    assert order == [True, False, False, True] * 5 + [False, True, True, False] * 5 + [True, False, False, True] * 5
    assert len(row["turns"]) == 30 and [other for _, other in row["turns"][8:12]] == [2.0, 2.0, 3.0, 3.0]
    assert (row["ratio"], row["low"], row["high"]) == (3.0, 2.0, 7.0)


def test_a_turn_is_as_long_as_asked_for_and_both_sizes_of_batch_come_before():
    sides = object.__new__(benchmark_sides.Sides)
    sides.options, sides.train = {"steps": 0, "seconds": 1.0}, range(64 * 9 + 37)
    sizes = []
    network = SimpleNamespace(train_on_batch=lambda images, labels: time.sleep(0.01) or sizes.append(len(images)))
    # A batch takes a hundredth of a second, or somewhat longer where the machine is busy.
    assert 11 <= sides.steps(network, [(range(64), range(64))]) <= 100
    assert sizes == [37, 64, 64, 64, 64]


def test_the_batches_of_a_turn_are_counted_across_epochs(monkeypatch):
    answers, lines = [], iter(["go\n"] * 3)
    clock = iter([10.0, 13.0, 20.0, 24.0, 30.0, 35.0])
    monkeypatch.setattr(benchmark_sides.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(benchmark_sides.sys, "stdin", SimpleNamespace(readline=lambda: next(lines, "")))
    turns = benchmark_sides.Turns(4, answers.append)
    with pytest.raises(SystemExit):
        for batch in [0, 1, 2] * 9:
            turns.on_train_batch_end(batch)
    # Four lead up to the first line; the parent is gone after the third turn.
    assert turns.done == 16 and answers == [{"steps": 4, "images": 256}, *({"seconds": s} for s in (3.0, 4.0, 5.0))]


def test_a_side_stays_after_its_last_measurement(tmp_path):
    # It would work against the other side if it ended.
    asked = {"model": "mobilenet_v3", "data": "synthetic", "seconds": 1.0, "turns": 1, "steps": 2}
    side = benchmark.Side(asked | {"side": "repeated", "folder": str(tmp_path)}, tmp_path / "log")
    try:
        assert side.measure() > 0
        with pytest.raises(subprocess.TimeoutExpired):
            side.process.wait(timeout=5)
    finally:
        side.end()


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


def test_a_side_can_do_without_onednn(monkeypatch, tmp_path):
    started = []

    def popen(command, *, env, **_):
        started.append((json.loads(command[-1])["side"], env.get("TF_ENABLE_ONEDNN_OPTS")))
        return SimpleNamespace(stdout=["{}"])

    monkeypatch.setattr(benchmark.subprocess, "Popen", popen)
    comparison = benchmark.COMPARISONS["onednn"]
    for value in ("1", "0"):
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", value)
        for side in ("pipeline", comparison.ours, comparison.other):
            benchmark.Side({"side": side}, tmp_path / "log")
    assert [value for _, value in started] == ["1", "1", "0", "0", "1", "0"]


@pytest.mark.parametrize(
    ("low", "high", "met"), [(0.98, 1.1, "yes"), (0.97, 1.0, "yes"), (0.9, 0.96, "no"), (0.9, 1.0, "inconclusive")]
)
def test_an_interval_that_holds_the_goal_decides_nothing(low, high, met):
    assert benchmark.verdict(low, high, 0.97) == met


@pytest.mark.parametrize(
    ("low", "high", "met"), [(3.0, 4.9, "yes"), (3.0, 5.0, "yes"), (5.1, 7.0, "no"), (4.9, 5.1, "inconclusive")]
)
def test_a_goal_that_is_not_to_be_exceeded_is_met_from_below(low, high, met):
    assert benchmark.verdict(low, high, 5.0, at_most=True) == met


def test_unknown_comparisons_and_models_are_refused(capsys):
    assert benchmark.main(["speed"]) == 2
    assert (
        "there are ceiling, generator, pytorch, precision, onednn, resume, startup, memory, paper"
        in capsys.readouterr().err
    )
    assert benchmark.main(["ceiling", "--models", "alexnet"]) == 2
    assert "unknown alexnet" in capsys.readouterr().err


def test_a_comparison_in_small_leaves_a_table_and_its_pairs(tmp_path):
    command = [sys.executable, "-m", "benchmarks.compare", "ceiling", "--models", "traditional_cnn"]
    options = ["--pairs", "2", "--steps", "2", "--out", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "benchmark.json").read_text())
    (row,) = found["rows"]
    ours, other = np.array(row["turns"]).T
    assert row["pairs"] == 2 and len(ours) == 20 and (ours > 0).all() and (other > 0).all()
    assert row["ratio"] == pytest.approx((np.median((other / ours)[:10]) + np.median((other / ours)[10:])) / 2)
    # Two batches of 64 in the median time of the turns.
    assert row["ours"] == pytest.approx(128 / np.median(ours))
    assert f"| traditional_cnn | {row['ours']:.0f} |" in (tmp_path / "benchmark.md").read_text()
    assert found["cores"] and found["versions"]["tensorflow"]


def options(**changes):
    return SimpleNamespace(**{"pairs": 2, "data": "planted", "steps": 0, "seconds": 1.0, "out": "nowhere"} | changes)


def planted_data(monkeypatch, variant, images):
    """Let the costs find such a data set."""
    path = None if variant == "synthetic" else "/nowhere/planted.zip"
    dataset = SimpleNamespace(labels=[0] * images, path=path, fingerprint={"variant": variant, "sha256": "ab" * 32})
    monkeypatch.setattr(benchmark_costs.datasets, "load", lambda *_, **__: dataset)


@pytest.mark.parametrize(
    ("variant", "images", "goals"),
    [
        ("fer2013-kaggle-jpeg", 35_887, [10.0, 0.5]),
        ("fer2013-kaggle-jpeg", 35_886, [None, None]),
        ("synthetic", 35_887, [None, None]),
    ],
)
def test_the_goals_of_loading_are_for_the_real_data(monkeypatch, tmp_path, variant, images, goals):
    planted_data(monkeypatch, variant, images)
    monkeypatch.setattr(benchmark_costs, "call", lambda *_: (7.0, "0.25\n"))
    rows = list(benchmark_costs.startup(["traditional_cnn"], options(), tmp_path))
    assert [row["goal"] for row in rows] == [*goals, None, None, 5.0, None]
    # What a process says of itself counts in the first two and the fourth, the clock in the others.
    assert [row["median"] for row in rows] == [0.25, 0.25, 7.0, 0.25, 7.0, 7.0]
    assert rows[4]["met"] == "no" and [row["met"] for row in rows[:2]] == [
        "" if goal is None else "yes" for goal in goals
    ]
    assert all(("the goal is for" in row["note"]) == (goals[0] is None) for row in rows[:2])


def test_what_takes_the_time_is_what_a_notebook_imports():
    lines = benchmark_costs.imports_of("02_traditional_cnn.ipynb").splitlines()
    assert lines[0].startswith("from fer_utils import ") and "session" in lines[0]
    assert lines[1] == "from keras import Input, Sequential, layers" and len(lines) == 2


def test_a_process_that_fails_ends_the_measurement_with_what_it_said():
    with pytest.raises(ConfigError, match="status 3.*(?s:.)*planted words"):
        benchmark_costs.call("-c", "print('planted words'); raise SystemExit(3)")


def test_loading_and_a_kernel_are_timed_by_the_process_itself(small_set, tmp_path):
    archive = small_set.write_zip(tmp_path / "faces.zip")
    whole, out = benchmark_costs.call("-c", benchmark_costs.LOAD, str(archive), str(tmp_path / "cache"))
    assert 0 < float(out) < whole and list((tmp_path / "cache" / "decoded").iterdir())
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6 * 7")])
    nbformat.write(book, tmp_path / "book.ipynb")
    done = tmp_path / "done.ipynb"
    arguments = [str(tmp_path / "book.ipynb"), str(done), benchmark_costs.KERNEL]
    whole, out = benchmark_costs.call("-c", benchmark_costs.EXECUTE, *arguments)
    assert 0 < float(out) < whole
    assert nbformat.read(done, 4).cells[0].outputs[0].data["text/plain"] == "42"
    times = benchmark_costs.notebook_times(done)
    assert 0 < times["whole"] < float(out) and times["fit"] == times["evaluate"] == 0


def test_a_paper_run_is_worked_out_from_its_parts():
    """45 epochs of 28,709 images at 2 ms are 2,583.81 s, and of 7,178 at 1 ms 323.01 s."""
    notebook = {"whole": 40.0, "fit": 10.0, "evaluate": 12.0}
    fit, scoring, beside = benchmark_costs.paper_seconds(0.002, 0.001, 0.2, notebook, predicted=65)
    assert scoring == pytest.approx(323.01)
    # The short run's fit, and 45 states of a fifth of a second.
    assert fit == pytest.approx(2583.81 + 323.01 + 10 + 9)
    # 43,065 images are predicted at the end, of which the short run did 65.
    assert beside == pytest.approx(30 + 43)


def test_the_share_that_is_not_fit_is_that_of_all_models(monkeypatch, tmp_path):
    """Two models; the whole of a short call took 100 s, its two notebooks 40 s each."""
    planted_data(monkeypatch, "synthetic", 100)
    notebook = {"whole": 40.0, "fit": 10.0, "evaluate": 12.0}
    monkeypatch.setattr(benchmark_costs, "batch", lambda *_: 100.0)
    monkeypatch.setattr(benchmark_costs.precision, "kind_of_device", lambda device: device)
    monkeypatch.setattr(benchmark_costs, "notebook_times", lambda path: notebook)
    split = {"train": 5, "public": 10, "private": 20}
    monkeypatch.setattr(benchmark_costs, "read_json", lambda path: {"split": split})
    measured = {"a": ([0.002, 0.002], [0.001, 0.001], [0.2, 0.2]), "b": ([0.004, 0.004], [0.001, 0.001], [0.2, 0.2])}
    monkeypatch.setattr(benchmark_costs, "measure_model", lambda model, *_: measured[model])
    rows = {row["what"]: row for row in benchmark_costs.paper(["a", "b"], options(), tmp_path)}
    fit = [2583.81 + 323.01 + 19, 2 * 2583.81 + 323.01 + 19]
    assert [rows[f"{model}: fit"]["median"] for model in "ab"] == pytest.approx(fit)
    assert rows["a: to train on an image"]["note"] == "`cost: {CPU: [2, 1]}`"
    assert rows["b: to train on an image"]["note"] == "`cost: {CPU: [4, 1]}`"
    assert rows["a: of fit, scoring"]["median"] == pytest.approx(100 * 323.01 / fit[0])
    # 20 s of the call, and of each model 30 s of the notebook and 43,000 predictions.
    beside = 20 + 2 * (30 + 43)
    total = rows["all: not fit"]
    assert total["median"] == pytest.approx(100 * beside / (beside + sum(fit)))
    assert total["goal"] == 2.0 and total["met"] == "yes"
    assert rows["all: whole run"]["median"] == pytest.approx(beside + sum(fit))


def test_memory_is_held_against_the_goals_of_the_large_networks(monkeypatch, tmp_path):
    planted_data(monkeypatch, "fer2013-kaggle-jpeg", 35_887)
    peaks = iter([1000.0, 1200.0, 2600.0, 2600.0])
    asked = []

    def execute(source, target, parameters, kernel, work):
        asked.append(parameters)
        book = nbformat.read(source, 4)
        assert "peak_memory_mb" in book.cells[-1].source
        book.cells[-1].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": str(next(peaks))})]
        nbformat.write(book, target)

    monkeypatch.setattr(benchmark_costs.execution, "execute", execute)
    record = {"split": {"train": 9, "public": 1, "private": 2}, "precision": "float32"}
    monkeypatch.setattr(benchmark_costs, "read_json", lambda path: record)
    rows = list(benchmark_costs.memory(["traditional_cnn", "vgg16"], options(), tmp_path))
    assert [(row["median"], row["goal"], row["met"]) for row in rows] == [(1100.0, None, ""), (2600.0, 2560, "no")]
    for p in asked:
        assert (p["epochs"], p["batch_size"], p["test_images_per_class"], p["epoch_images_per_class"]) == (1, 64, 0, 0)
    written = benchmark_costs.table(rows)
    assert "| traditional_cnn | MiB | 1100 | 1000 to 1200 |  |  | 9 trained on, 3 scored, float32 |" in written
    assert "| vgg16 | MiB | 2600 | 2600 to 2600 | 2560 | no |" in written


def test_what_follows_an_epoch_is_measured_in_small(tmp_path):
    measured = benchmark_costs.measure_model(
        "traditional_cnn", options(data="synthetic", steps=1, out=tmp_path), tmp_path, 2
    )
    train, predict, save = measured
    assert len(train) == len(predict) == len(save) == 2
    # By the image, of which 64 are trained on and 256 predicted; less than a second each even on a slow machine.
    assert all(0 < seconds < 1 for seconds in [*train, *predict])
    (state,) = tmp_path.glob("kept-traditional_cnn/state-*")
    assert {path.name for path in state.iterdir()} == {
        "best-001.weights.h5",
        "epoch-001.npz",
        "key.json",
        "state.json",
    }
