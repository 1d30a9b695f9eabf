"""The batch command: progress, what is printed at the end, publishing."""

import io
import time

import pytest
from planted import change_plan, plant_run
from rich.console import Console

from fer_utils.batch import progress, run
from fer_utils.errors import ConfigError
from fer_utils.files import read_json, write_json
from fer_utils.findings.results import read_run


def plant(folder, *estimates, **state):
    """Plan trainings m0, m1 ...; m0 is done after 100 s, and m1 is at work if `state` says so."""
    folder.mkdir(exist_ok=True)
    models = [{"model": f"m{k}", "seed": 0, "label": f"M{k}", "estimate": e} for k, e in enumerate(estimates)]
    plant_run(folder, models=("m0",), times={"train_seconds": 80.0, "evaluate_seconds": 20.0})
    change_plan(folder, models=models)
    work(folder, **state) if state else None
    return folder


def work(folder, **state):
    state = {"epochs": 4, "finished": 2, "seconds_left": None, "val_accuracy": None, "stage": "training"} | state
    path = folder / ".training" / "m1" / "seed-0" / "progress.json"
    write_json(path, state)


# --- progress -----------------------------------------------------------------------------------------------


def test_progress_counts_finished_running_and_waiting_models(tmp_path):
    plant(tmp_path, 100, 100, 200)
    assert progress.left(read_run(tmp_path)) == (0.25, 300.0)
    # Half way, and slower than expected: 100 s where the estimate leaves 50.
    work(tmp_path, done=0.5, seconds_left=100.0)
    done, seconds = progress.left(read_run(tmp_path))
    assert done == pytest.approx((100 + 50) / 400)
    # The first took the 100 s that were expected: together 200 s instead of 150.
    assert seconds == pytest.approx(100 + 200 * 200 / 150)
    change_plan(tmp_path, at_once=2)
    assert progress.left(read_run(tmp_path))[1] == pytest.approx((100 + 200 * 200 / 150) / 2)
    work(tmp_path, done=0.5)
    assert progress.left(read_run(tmp_path))[1] == pytest.approx((50 + 200) / 2)


def test_a_failed_model_counts_as_over(tmp_path):
    plant(tmp_path, 100, 100, 200)
    write_json(tmp_path / "failed" / "m1-seed-0.json", {"error": "planted"})
    assert progress.left(read_run(tmp_path)) == (0.5, 200.0)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"done": 0.55, "epochs": 6}, "3.3 of 6 epochs"),
        ({"done": 0.5, "epochs": 6, "val_accuracy": 0.41}, "3.0 of 6 epochs, val_accuracy 0.410"),
        ({"done": 1.0, "epochs": 6, "stage": "scoring"}, "scoring all images"),
    ],
)
def test_how_far_a_training_is(state, text):
    assert progress.describe(state) == text


def report(folder, states, console):
    """Report while the training goes through these states; return what a console printed."""
    reporter = progress.Reporter(folder, console)
    reporter.watch = lambda: None
    with reporter:
        for state in states:
            work(folder, **state)
            (reporter.draw if reporter.live else reporter.log)(read_run(folder))
            time.sleep(0.15)
    return reporter


STATES = [
    {"done": 0.4, "finished": 0},
    {"done": 0.5, "finished": 2, "seconds_left": 90},
    {"done": 0.6, "finished": 2, "seconds_left": 80},
    {"done": 1.0, "finished": 4, "stage": "scoring", "seconds_left": 0},
    {"done": 1.0, "finished": 4, "stage": "scoring", "seconds_left": 0},
]


def test_a_log_has_a_line_for_each_finished_epoch(tmp_path, capsys):
    report(plant(tmp_path, 100, 100), STATES, Console(file=io.StringIO()))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("] ")[2] for line in lines] == [
        "M1 (seed 0): 2.0 of 4 epochs; whole run 75%, about 2 min left",
        "M1 (seed 0): scoring all images; whole run 100%",
    ]


def test_a_terminal_has_a_bar_for_each_training_and_one_for_the_run(tmp_path):
    shown = io.StringIO()
    reporter = report(plant(tmp_path, 100, 100), STATES, Console(file=shown, force_terminal=True, width=120))
    assert {"whole run", "M1 (seed 0)"} == {task.description for task in reporter.bars.tasks}
    text = shown.getvalue()
    assert "2.0 of 4 epochs, about 2 min left" in text and "scoring all images" in text and "━" in text
    # A training that has ended has no bar.
    plant_run(tmp_path, models=("m0", "m1"))
    reporter.draw(read_run(tmp_path))
    assert [task.description for task in reporter.bars.tasks] == ["whole run"]


def test_the_reporter_looks_by_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "INTERVAL", 0.05)
    with progress.Reporter(plant(tmp_path, 100, 100, done=0.5, finished=2), Console(file=io.StringIO())):
        time.sleep(1)
    assert "2.0 of 4 epochs" in capsys.readouterr().out


# --- the end of a run ---------------------------------------------------------------------------------------


def test_the_end_says_what_failed_and_exits_with_1(tmp_path, capsys):
    plant_run(tmp_path, models=("traditional_cnn", "resnet50"))
    models = read_json(tmp_path / "plan.json")["models"]
    vgg16 = {"model": "vgg16", "seed": 0, "label": "VGG-16", "estimate": 4000.0}
    change_plan(tmp_path, models=[*models, vgg16])
    failure = {"model": "vgg16", "seed": 0, "label": "VGG-16", "error": "ValueError: planted"}
    write_json(tmp_path / "failed" / "vgg16-seed-0.json", failure)
    # A failure of an earlier call that this one does not plan.
    write_json(tmp_path / "failed" / "mobilenet_v1-seed-0.json", failure | {"model": "mobilenet_v1"})
    assert run.close(tmp_path, False, False) == 1
    printed = capsys.readouterr().out
    # 3,500 seconds of training and 60 of scoring, as the planted records say, beside the plan's 4,000.
    assert printed.count("took 59 min, estimated 1 h 07 min") == 2
    assert printed.count("FAILED") == 1 and "FAILED: VGG-16 (seed 0): ValueError: planted" in printed
    assert "1 of 3 trainings are missing" in printed and "no results" not in printed
    change_plan(tmp_path, models=models)
    (tmp_path / "failed" / "vgg16-seed-0.json").unlink()
    assert run.close(tmp_path, False, False) == 0
    # All models are there, but something else, the dataset's notebook say, could not be made.
    assert run.close(tmp_path, False, False, status=1) == 1


def test_a_training_of_an_earlier_call_stands_beside_no_estimate(tmp_path, capsys):
    """The estimate of the call that found it done was made from it."""
    plant_run(tmp_path, models=("traditional_cnn",), synthetic=True)
    change_plan(tmp_path, created="2026-01-01T01:00:01Z")  # the planted training finished at one o'clock
    (tmp_path / "report.html").write_text("")
    assert run.close(tmp_path, False, True) == 1
    printed = capsys.readouterr().out
    assert "took 59 min, in an earlier call" in printed and "estimated" not in printed
    assert "These are no results: synthetic data." in printed
    assert "could not be made; the one that is there is an older one" in printed and "Report:" not in printed


# --- the command --------------------------------------------------------------------------------------------


def test_what_goes_on_to_snakemake_is_not_recorded(monkeypatch):
    """An executor takes its credentials as options."""
    recorded = []

    def make_plan(options, command, on_message):
        recorded.append((command, options.elsewhere))
        raise ConfigError("enough")

    monkeypatch.setattr(run, "make_plan", make_plan)
    assert run.main(["--jobs", "2", "--", "--executor", "slurm", "--slurm-reservation", "planted"]) == 2
    assert recorded == [("./run_all.sh --jobs 2", True)]


def test_errors_of_ours_are_one_line(tmp_path, capsys):
    assert run.main(["--data", str(tmp_path / "nowhere.zip"), "--kernel", "python3"]) == 2
    error = capsys.readouterr().err
    assert "nowhere.zip" in error and "Traceback" not in error
    assert run.main(["report", "--out", str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err
