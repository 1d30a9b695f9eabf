"""The batch command: locks, progress, publishing, what is printed at the end."""

import fcntl
import json
import subprocess
import sys

import pytest
from planted import plant_run

from fer_utils.batch import job as execution
from fer_utils.batch import progress
from fer_utils.batch import run as batch
from fer_utils.errors import ConfigError


def test_a_folder_is_held_by_one_run_at_a_time(tmp_path):
    lock = batch.hold(tmp_path)
    code = "import sys; from pathlib import Path; from fer_utils.batch import run; run.hold(Path(sys.argv[1]))"
    other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "another run is at work" in other.stderr
    fcntl.flock(lock, fcntl.LOCK_UN)
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True).returncode == 0


def entries(*estimates):
    return [{"model": f"m{k}", "seed": 0, "label": f"M{k}", "estimate": e} for k, e in enumerate(estimates)]


def test_progress_counts_finished_running_and_waiting_models(tmp_path):
    plan = {"models": entries(100, 100, 200), "jobs": 1}
    assert progress.left(plan, tmp_path) == (0.0, 400.0)
    (tmp_path / "m0" / "seed-0").mkdir(parents=True)
    times = {"train_seconds": 80.0, "evaluate_seconds": 20.0}
    (tmp_path / "m0" / "seed-0" / "run.json").write_text(json.dumps({"times": times}))
    running = tmp_path / ".training" / "m1" / "seed-0"
    running.mkdir(parents=True)
    # Half way, and slower than expected: 100 s where the estimate leaves 50.
    (running / "progress.json").write_text(json.dumps({"done": 0.5, "epochs": 4, "seconds_left": 100.0}))
    done, seconds = progress.left(plan, tmp_path)
    assert done == pytest.approx((100 + 50) / 400)
    # The first took the 100 s that were expected: together 200 s instead of 150.
    assert seconds == pytest.approx(100 + 200 * 200 / 150)
    (running / "progress.json").write_text(json.dumps({"done": 0.5, "epochs": 4, "seconds_left": None}))
    assert progress.left(plan, tmp_path)[1] == pytest.approx(50 + 200)


def test_a_failed_model_counts_as_over(tmp_path):
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "m0-seed-0.json").write_text("{}")
    assert progress.left({"models": entries(100, 300), "jobs": 1}, tmp_path) == (0.25, 300.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (44.6, "45 s"), (60, "1 min"), (3599, "1 h 00 min"), (12_000, "3 h 20 min")],
)
def test_durations_read_well(seconds, text):
    assert progress.duration(seconds) == text


def test_the_end_says_what_failed_and_exits_with_1(tmp_path, capsys):
    plant_run(tmp_path, models=("traditional_cnn", "resnet50"))
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["models"].append({"model": "vgg16", "seed": 0, "label": "VGG-16", "estimate": 4000.0})
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "failed").mkdir()
    failure = {"model": "vgg16", "seed": 0, "label": "VGG-16", "error": "ValueError: planted"}
    (tmp_path / "failed" / "vgg16-seed-0.json").write_text(json.dumps(failure))
    # A failure of an earlier call that this one does not plan.
    (tmp_path / "failed" / "mobilenet_v1-seed-0.json").write_text(json.dumps(failure | {"model": "mobilenet_v1"}))
    assert batch.finish(tmp_path, 0) == 1
    printed = capsys.readouterr().out
    # 3,500 seconds of training and 60 of scoring, as the planted records say, beside the plan's 4,000.
    assert printed.count("took 59 min, estimated 1 h 07 min") == 2
    assert printed.count("FAILED") == 1 and "FAILED: VGG-16 (seed 0): ValueError: planted" in printed
    assert "1 of 3 trainings are missing" in printed
    plan["models"].pop()
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "failed" / "vgg16-seed-0.json").unlink()
    assert batch.finish(tmp_path, 0) == 0
    # All models are there, but something else, the dataset's notebook say, could not be made.
    assert batch.finish(tmp_path, 1) == 1


def test_a_training_of_an_earlier_call_stands_beside_no_estimate(tmp_path, capsys):
    """The estimate of the call that found it done was made from it."""
    plant_run(tmp_path, models=("traditional_cnn",))
    plan = json.loads((tmp_path / "plan.json").read_text())
    # The planted training finished at one o'clock.
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"created": "2026-01-01T01:00:01Z"}))
    assert batch.finish(tmp_path, 0) == 0
    printed = capsys.readouterr().out
    assert "took 59 min, in an earlier call" in printed and "estimated" not in printed


def test_an_old_report_is_not_passed_off_as_the_new_one(tmp_path, capsys):
    plant_run(tmp_path, models=("traditional_cnn",))
    (tmp_path / "report.html").write_text("")
    assert batch.close(tmp_path, None, True) == 1
    printed = capsys.readouterr().out
    assert "could not be made; the one that is there is an older one" in printed and "Report:" not in printed


def test_publishing_names_what_made_the_figures(tmp_path, monkeypatch):
    run = plant_run(tmp_path / "run")
    plan = json.loads((run / "plan.json").read_text())
    plan |= {
        "about": "planted",
        "command": "./run_all.sh --profile paper --data /home/someone/data/fer2013.zip",
        "data_variant": "fer2013-kaggle-jpeg",
        "data_sha256": "ab" * 32,
        "git": {"commit": "c" * 40, "dirty": True},  # of the last call, which may have trained nothing
    }
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "figures").mkdir()
    (run / "figures" / "fig-5.1-accuracy.svg").write_text("<svg/>")
    (run / "claims.csv").write_text("id\n")
    target = tmp_path / "project" / "figures"
    target.mkdir(parents=True)
    (target / "fig-9.9-old.svg").write_text("<svg/>")
    monkeypatch.setattr(batch, "project_root", lambda: tmp_path / "project")
    batch.publish(run)
    assert sorted(p.name for p in target.iterdir()) == ["README.md", "claims.csv", "fig-5.1-accuracy.svg"]
    note = (target / "README.md").read_text()
    assert "`./run_all.sh --profile paper --data fer2013.zip`" in note and "ab" * 32 in note
    # The commit is that of the trainings, forty zeros in the planted records.
    assert "0" * 12 in note and "c" * 12 not in note
    (run / "plan.json").write_text(json.dumps(plan | {"data_variant": "synthetic"}))
    with pytest.raises(ConfigError, match="synthetic"):
        batch.publish(run)


def test_what_goes_on_to_snakemake_is_not_recorded(monkeypatch):
    """An executor takes its credentials as options."""
    recorded = []

    def make_plan(options, command, on_message):
        recorded.append(command)
        raise ConfigError("enough")

    monkeypatch.setattr(batch, "make_plan", make_plan)
    assert batch.main(["--jobs", "2", "--", "--executor", "x", "--x-token", "planted"]) == 2
    assert recorded == ["./run_all.sh --jobs 2"]


def test_errors_of_ours_are_one_line(tmp_path, capsys):
    assert batch.main(["--data", str(tmp_path / "nowhere.zip")]) == 2
    error = capsys.readouterr().err
    assert "nowhere.zip" in error and "Traceback" not in error
    assert batch.main(["report", "--out", str(tmp_path)]) == 2
    assert "no run folder" in capsys.readouterr().err


def test_colours_are_stripped_from_tracebacks():
    assert execution.plain("\x1b[0;31mValueError\x1b[0m: no") == "ValueError: no"
