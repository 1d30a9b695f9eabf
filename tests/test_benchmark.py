"""The benchmark: ratios and their intervals, what counts as met, the networks of the notebooks, one run in small."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fer_utils import benchmark


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


@pytest.mark.parametrize(
    ("low", "high", "met"), [(0.98, 1.1, "yes"), (0.97, 1.0, "yes"), (0.9, 0.96, "no"), (0.9, 1.0, "inconclusive")]
)
def test_an_interval_that_holds_the_goal_decides_nothing(low, high, met):
    assert benchmark.verdict(low, high, 0.97) == met


def test_unknown_comparisons_and_models_are_refused(capsys):
    assert benchmark.main(["speed"]) == 2
    assert "there are ceiling, generator, pytorch, precision, resume" in capsys.readouterr().err
    assert benchmark.main(["ceiling", "--models", "alexnet"]) == 2
    assert "unknown alexnet" in capsys.readouterr().err


def test_a_comparison_in_small_leaves_a_table_and_its_pairs(tmp_path):
    command = [sys.executable, "-m", "fer_utils.benchmark", "ceiling", "--models", "traditional_cnn"]
    options = ["--pairs", "2", "--steps", "2", "--out", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "benchmark.json").read_text())
    (row,) = found["rows"]
    assert len(row["pairs"]) == 2 and all(seconds > 0 for pair in row["pairs"] for seconds in pair)
    ratios = [other / ours for ours, other in row["pairs"]]
    assert row["ratio"] == pytest.approx(sum(ratios) / 2)
    # Two batches of 64 in the median time of the two.
    assert row["ours"] == pytest.approx(128 / (sum(ours for ours, _ in row["pairs"]) / 2))
    assert f"| traditional_cnn | {row['ours']:.0f} |" in (tmp_path / "benchmark.md").read_text()
    assert found["cores"] and found["versions"]["tensorflow"]
