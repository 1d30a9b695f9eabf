"""A run folder is read whatever part of it is there, and one place decides whether it is a result."""

import numpy as np
import pytest
from planted import change_plan, plant_model, plant_run, planted_predictions, planted_record, read_model

from fer_utils.errors import ResultsError
from fer_utils.files import write_json
from fer_utils.findings.results import command, portable, read_run
from fer_utils.paths import project_root
from fer_utils.provenance import digest_predictions

FAILED = {"error": "no memory", "traceback": "Traceback", "notebook": "vgg16.ipynb"}


def test_a_plan_gives_the_trainings_and_their_order(tmp_path):
    plant_run(tmp_path, models=("vgg16", "resnet50"), seeds=(1, 0))
    plant_model(tmp_path, "mobilenet_v1", 0)  # of an earlier call
    write_json(tmp_path / "failed" / "mobilenet_v1-seed-3.json", FAILED)
    run = read_run(tmp_path)
    found = [(training.model, training.seed) for training in run.trainings]
    assert found == [("vgg16", 1), ("vgg16", 0), ("resnet50", 1), ("resnet50", 0)]
    assert [result.seed for result in run.by_name("vgg16")] == [0, 1]
    assert [(result.model, result.seed) for result in run.first_seeds] == [("vgg16", 0), ("resnet50", 0)]
    assert run.is_result and not run.failures


def test_without_a_plan_trainings_are_found(tmp_path):
    for seed in (10, 2):
        plant_model(tmp_path, "vgg16", seed)
    (tmp_path / "vgg16" / "seed-x").mkdir()
    (tmp_path / "vgg16" / "seed-x" / "run.json").write_text("{}")
    write_json(tmp_path / "failed" / "resnet50-seed-0.json", FAILED)
    run = read_run(tmp_path)
    found = [(t.model, t.seed, t.finished) for t in run.trainings]
    assert found == [("resnet50", 0, False), ("vgg16", 2, True), ("vgg16", 10, True)]
    assert run.failures == [{"model": "resnet50", "seed": 0, "label": "resnet50"} | FAILED]


def test_an_empty_folder_is_a_run_without_trainings(tmp_path):
    run = read_run(tmp_path / "nowhere")
    assert (run.trainings, run.models, run.failures, run.images, run.problems) == ([], [], [], None, [])
    assert run.reasons == {"absent": "no model has been trained"}


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("run.json", "{", "run.json cannot be read"),
        ("run.json", "[1]", "run.json holds a list, expected an object"),
        ("run.json", '{"protocol": "sound"}', "run.json lacks data, split, weights, parameters, epochs"),
        ("metrics.json", "{", "metrics.json cannot be read"),
        ("history.csv", None, "history.csv missing"),
    ],
)
def test_a_broken_training_is_a_failure_with_its_reason(tmp_path, name, content, error):
    path = plant_run(tmp_path, models=("resnet50", "vgg16")) / "vgg16" / "seed-0" / name
    path.unlink()
    if content:
        path.write_text(content)
    run = read_run(tmp_path)
    assert [result.model for result in run.models] == ["resnet50"]
    (failure,) = run.failures
    assert failure["error"].startswith(error)
    assert (failure["model"], failure["seed"], failure["label"]) == ("vgg16", 0, "VGG-16")


def test_broken_files_of_the_run_are_problems(tmp_path):
    plant_run(tmp_path, models=("vgg16",))
    (tmp_path / "plan.json").write_text("{")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "dataset.json").write_text('"text"')
    run = read_run(tmp_path)
    assert len(run.models) == 1 and run.plan == run.dataset == {}
    assert [text.split()[0] for text in run.problems] == ["plan.json", "dataset.json"]


def test_a_broken_table_names_the_file_when_it_is_asked_for(tmp_path):
    folder = plant_model(tmp_path, "vgg16")
    (folder / "predictions.parquet").write_bytes(b"PAR1")
    result = read_model(folder)
    assert len(result.history) == 10
    with pytest.raises(ResultsError, match="predictions.parquet cannot be read"):
        result.select("test")
    assert result.predictions_last is None


OTHER = {"known": False, "variant": "fer2013-modified"}
SHORT = {"requested": 3, "run": 3, "best": 1}


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, {}),
        ({"synthetic": True}, {"data": "synthetic data"}),
        ({"data": OTHER}, {"data": "data that are not the known FER2013 (fer2013-modified)"}),
        (
            {"shortened": True, "epochs": SHORT, "split": {"train": 63, "test_images_per_class": 8}},
            {"shortened": "shortened run (3 of 45 epochs, 63 training images, 8 test images per class)"},
        ),
    ],
)
def test_what_is_a_result(tmp_path, changes, reasons):
    run = read_run(plant_run(tmp_path, models=("vgg16", "resnet50"), **changes))
    assert run.models[0].reasons == run.reasons == reasons
    assert run.models[0].is_result == run.is_result == (not reasons)


def test_one_training_that_is_no_result_makes_the_run_none(tmp_path):
    plant_model(tmp_path, "resnet50")
    plant_model(tmp_path, "vgg16", record=planted_record("vgg16", shortened=True))
    run = read_run(tmp_path)
    assert [result.is_result for result in run.models] == [True, False]
    assert not run.is_result and list(run.reasons) == ["shortened"]


def planned(folder, text, **entries):
    """A run of two models that this command made."""
    plant_run(folder, models=("vgg16", "resnet50"), seeds=(0, 1))
    return read_run(change_plan(folder, command=text, **entries))


def test_a_command_names_the_seeds_that_all_models_have(tmp_path):
    """The others stay in the folder without being named: no network is trained anew for them."""
    run = planned(tmp_path / "run", "./run_all.sh")
    plan_entries = [{"model": m, "seed": s, "label": m} for m, s in (("vgg16", 0), ("vgg16", 1), ("resnet50", 0))]
    run = read_run(change_plan(run.folder, models=plan_entries))
    assert "--seeds" not in command(run, ["mobilenet_v1"])  # 0, the default
    assert "--seeds 0,1,2 " in command(run, seeds=(0, 1, 2)) + " "


def test_a_command_goes_to_the_runs_folder_with_its_options(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = "./run_all.sh --profile quick --data='/my data/f.zip' --models vgg16 --seeds 0,1 --out out/a --set epochs=3 "
    made += "--set weights=none --jobs 2 --publish"
    run = planned(tmp_path / "a run", made, data_path=str(tmp_path / "my data" / "f.zip"), profile="quick")
    base = "./run_all.sh --profile quick --models vgg16,resnet50"
    assert command(run, ["vgg16", "mobilenet_v1"], epochs=9, weights=None) == (
        base + ",mobilenet_v1 --seeds 0,1 --jobs 2 --out '~/a run' --set epochs=9"
    )
    # A setting would take from an entry of config.yaml what makes it differ.
    assert command(run, ["resnet50_scratch"]).endswith(
        "resnet50_scratch --seeds 0,1 --jobs 2 --out '~/a run' --set epochs=3"
    )
    # A run folder holds one profile and one data set.
    other = " --models vgg16,resnet50 --seeds 2 --jobs 2"
    assert command(run, seeds=(2,), profile="paper", data="auto") == "./run_all.sh --profile paper" + other
    beside = "./run_all.sh --profile paper --data '~/my data/f.zip'"
    assert command(run, seeds=(2,), profile="paper") == beside + other
    same = planned(tmp_path / "b", made, profile="paper")
    assert "--out '~/b'" in command(same, profile="paper") and "--out" not in command(same, profile="paper", fresh=True)
    # A published set holds no networks to go on with, so that its reader makes a run of his own.
    public = planned(tmp_path / "c", made, profile="quick", published="2026-11-28T00:00:00Z")
    assert command(public).startswith("./run_all.sh --profile quick --models") and "--out" not in command(public)


def test_a_path_in_a_command_holds_from_the_projects_root(tmp_path, monkeypatch):
    assert portable(project_root() / "results" / "a") == "results/a"
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    assert (project_root() / portable(tmp_path)).resolve() == tmp_path.resolve()


def test_a_command_without_a_plan_comes_from_the_records(tmp_path):
    assert command(read_run(tmp_path)) == "./run_all.sh"
    plant_model(tmp_path, "vgg16", 0, record=planted_record("vgg16", profile="alone", synthetic=True))
    assert command(read_run(tmp_path)) == "./run_all.sh --data synthetic --models vgg16"


def test_predictions_digest_sees_values_and_not_storage():
    table = planted_predictions(30)
    digest = digest_predictions(table)
    assert digest == digest_predictions(table.astype({"label": "int64"}))
    table.loc[3, "p_sad"] = np.nextafter(table.loc[3, "p_sad"], np.float32(1), dtype="float32")
    assert digest != digest_predictions(table)
