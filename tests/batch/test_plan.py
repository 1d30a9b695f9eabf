"""What a run is made of: configuration, profiles, models, parameters, data, estimates."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from planted import plant_model, plant_run, planted_record

from fer_utils.batch import cli, config, progress
from fer_utils.batch import plan as planning
from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import synthetic
from fer_utils.errors import ConfigError
from fer_utils.files import write_json
from fer_utils.findings.results import read_run
from fer_utils.paths import project_root

CONFIG = config.read_config()


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch, drawn={}):  # noqa: B006 - kept from test to test
    """The drawn faces, which take seconds to draw."""
    load = planning.datasets.load

    def cached(source, **options):
        if source not in drawn:
            drawn[source] = load(source, **options)
        return drawn[source]

    monkeypatch.setattr(synthetic, "SCALE", 10_000)  # fewer than usual
    monkeypatch.setattr(planning.datasets, "load", cached)


def plan(tmp_path, *arguments, messages=None):
    words = ["--data", "synthetic", "--kernel", "python3", "--out", str(tmp_path / "run"), *arguments]
    options = cli.make_parser().parse_args(words)
    return planning.make_plan(options, "planted", on_message=(messages if messages is not None else []).append)


# --- config.yaml --------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a function that reads the configuration with one entry changed, in a copy of the project."""
    shutil.copytree(project_root() / "notebooks", tmp_path / "notebooks")
    monkeypatch.setattr(config, "project_root", lambda: tmp_path)
    config.notebook_parameters.cache_clear()

    def read(*path, value):
        changed = yaml.safe_load((project_root() / "config.yaml").read_text(encoding="utf-8"))
        place = changed
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed))
        return config.read_config()

    yield read
    config.notebook_parameters.cache_clear()


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            ("profiles", "paper", "parameters", "learning_rate"),
            "1e-3",
            "'1e-3' is not of type 'number'; .* write 0.001",
        ),
        (("profiles", "paper", "parameters", "epochs"), "1e1", "'1e1' is not of type 'integer'"),
        (("profiles", "paper", "parameters", "epochs"), 1.5, "1.5 is not of type 'integer'"),
        (("profiles", "paper", "parameters", "epochs"), 0, "0 is less than the minimum of 1"),
        (("profiles", "paper", "parameters", "deterministic"), 1, "1 is not of type 'boolean'"),
        (("profiles", "quick", "models", "vgg16", "dropuot"), 1, r"'dropuot' was unexpected\); known: .*dropout"),
        (("profiles", "quick", "models", "vgg"), {}, r"'vgg' was unexpected\); known: .*vgg16"),
        (("profiles", "quick", "colour"), "red", r"'colour' was unexpected\); known: about, models, parameters"),
        (("models", "vgg16", "parameters"), {"weights": 1}, "'weights' was unexpected"),
        (("models", "resnet50", "parameters"), {"weights": 1}, "1 is not of type 'string'"),
        (("models", "vgg16", "parameters"), {"seed": 1}, "'seed' was unexpected"),
        (("models", "vgg16"), {"label": "VGG-16"}, "'notebook' is a required property"),
        (("models", "vgg16", "label"), 16, "16 is not of type 'string'"),
        (("models", "vgg16", "cost"), [1, 2], "is not of type 'number'"),
        (("models", "no name"), CONFIG["models"]["vgg16"], "'no name' does not match"),
        (("models", "vgg16", "cost"), -1, "-1 is less than the minimum of 0"),
        (("profiles", "paper", "parameters", "learning_rate"), -1, "-1 is less than or equal to the minimum of 0"),
        (("models", "vgg16", "parameters"), {"dropout": 5}, "5 is greater than or equal to the maximum of 1"),
        (("models", "vgg16", "parameters"), {"precision": "float23"}, "'float23' is not one of .*'float32'"),
        (("models", "vgg16", "parameters"), {"protocol": "sond"}, "'sond' is not one of .'sound', 'thesis'"),
        (("models", "vgg16", "label"), "ResNet-50", "vgg16.label: 'ResNet-50' is the label of resnet50 already"),
        (("default_models",), ["vgg"], "'vgg' is not one of"),
        (("models", "vgg16", "notebook"), "9.ipynb", "config.yaml names the notebook 9.ipynb, and there is no"),
    ],
)
def test_a_mistake_in_the_configuration_is_a_line(project, path, value, line):
    with pytest.raises(ConfigError, match=line) as caught:
        project(*path, value=value)
    assert len(str(caught.value).splitlines()) <= 2


def test_every_mistake_has_a_line(project, tmp_path):
    with pytest.raises(ConfigError) as caught:
        project("models", value={"a": {"label": 1}, "b": 2})
    assert len(str(caught.value).splitlines()) == 4
    (tmp_path / "config.yaml").write_text("models:\n\tvgg16: {}")
    with pytest.raises(ConfigError, match=r"cannot be read: .*cannot start any token.* line 2"):
        config.read_config()
    text = (project_root() / "config.yaml").read_text(encoding="utf-8")
    (tmp_path / "config.yaml").write_text(text + "  vgg16:\n    label: Another\n    notebook: 04_vgg16.ipynb\n")
    with pytest.raises(ConfigError, match=r"'vgg16' stands twice.* line "):
        config.read_config()
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match="the file: None is not of type 'object'"):
        config.read_config()


def test_a_model_is_a_notebook_and_two_lines(project):
    read = project("models", "mine", value={"label": "Mine", "notebook": "04_vgg16.ipynb"})
    assert config.resolve_parameters(read, "paper", "mine")["label"] == "Mine"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda text: text.replace(' "cells"', '<<<<<<< HEAD\n "cells"', 1),
            "merge markers, the first in line 2; resolve",
        ),
        (
            lambda text: text.replace('"def make', '">>>>>>> theirs\\n",\n    "def make', 1),
            "merge markers, the first in line",
        ),
        (lambda text: text[:-300], "no notebook: not JSON \\(.*line .*\\); restore it"),
        (lambda text: "", "no notebook: an empty file; restore it"),
        (lambda text: "[1, 2]", "no notebook, though it is JSON; restore it"),
        (lambda text: text.replace('"nbformat": 4', '"nbformat": 3'), "of format 3, expected 4; open and save it in"),
        (lambda text: text.replace('"parameters"', '"other"'), "no cell is tagged 'parameters'; copy that of"),
        (
            lambda text: text.replace("epochs: int = 2", "epochs: int = 1 + 1"),
            "parameter epochs is 1 \\+ 1; expected a number",
        ),
        (
            lambda text: text.replace("epochs: int = 2", "epochs: int = None"),
            "parameter epochs is None; expected a number",
        ),
    ],
    ids=["merge", "merge in a cell", "half", "empty", "other JSON", "format 3", "no parameters", "sum", "None"],
)
def test_a_broken_notebook_is_a_line_and_the_others_are_planned(project, tmp_path, monkeypatch, change, line):
    path = tmp_path / "notebooks" / "04_vgg16.ipynb"
    path.write_text(change(path.read_text()))
    read, said = project("default_models", value=["vgg16", "traditional_cnn"]), []
    monkeypatch.setattr(config, "read_config", lambda: read)
    made, _ = plan(tmp_path, "--set", "dropout=0.3", messages=said)
    broken, sound = made["models"]
    assert re.search(f"^\\*\\*\\* 04_vgg16.ipynb: .*{line}", "\n".join(said), re.MULTILINE)
    assert re.search(line, broken["error"]) and broken["estimate"] == 0 and made["protocol"] == "sound"
    assert sound["parameters"]["dropout"] == 0.3 and sound["estimate"] > 0
    with pytest.raises(ConfigError, match="no notebook is left"):
        plan(tmp_path, "--models", "vgg16,vgg16_plain")


def test_every_entry_resolves_in_every_profile():
    for model in CONFIG["models"]:
        for profile in CONFIG["profiles"]:
            resolved = config.resolve_parameters(CONFIG, profile, model)
            assert resolved["model"] == model and resolved["profile"] == profile
            # What a profile leaves out comes from the notebook, whose defaults are a short check.
            sizes = {"epochs", "images_per_class", "test_images_per_class", "epoch_images_per_class"}
            assert sizes <= set(CONFIG["profiles"][profile]["parameters"])
            if profile == "paper":
                assert (resolved["epochs"], resolved["batch_size"], resolved["learning_rate"]) == (45, 64, 0.001)
                assert not any(resolved[name] for name in sizes - {"epochs"})


def test_a_later_layer_of_parameters_wins(monkeypatch):
    defaults = {"a": 1, "b": 1, "c": 1, "d": 1, "e": True, "f": 0.5}
    monkeypatch.setattr(config, "notebook_parameters", lambda notebook: defaults)
    read = {
        "profiles": {"p": {"parameters": {"a": 2, "b": 2, "c": 2}, "models": {"m": {"c": 4}}}},
        "models": {"m": {"label": "M", "notebook": "n.ipynb", "parameters": {"b": 3, "c": 3}}},
    }
    resolved = config.resolve_parameters(read, "p", "m", {"d": "5", "e": "false", "f": "1", "g": "1"})
    assert {name: resolved[name] for name in defaults} == {"a": 2, "b": 3, "c": 4, "d": 5, "e": False, "f": 1.0}


# --- the command's options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "resnet51"], "unknown resnet51; config.yaml has traditional_cnn"),
        (["--models", ","], "unknown choice"),
        (["--seeds", "0,x"], "expected whole numbers"),
        (["--seeds", "-1"], "expected whole numbers"),
        (["--seeds", "3-1"], "expected whole numbers"),
        (["--cluster", "pbs"], "expected slurm or slurm:PARTITION"),
        (["--profile", "fast"], "config.yaml has smoke, quick, paper; or auto"),
        (["--jobs", "0"], "expected 1 or more"),
        (["--set", "dropuot=1"], "expected NAME=VALUE with one of these names: .*dropout"),
        (["--set", "epochs"], "expected NAME=VALUE"),
        (["--set", "epochs=many"], "--set epochs: 'many' is not of type 'integer'"),
        (["--set", "deterministic=perhaps"], "'perhaps' is not of type 'boolean'"),
        (["--set", "learning_rate=-1"], "--set learning_rate: -1.0 is less than or equal to the minimum of 0"),
        (["--set", "learning_rate=nan"], "--set learning_rate: 'nan' is not of type 'number'"),
        (["--set", "seed=3"], "use --seeds"),
        (["--set", "epochs=-1"], "-1 is less than the minimum of 1"),
        (["--kernel", "typo"], "no such Jupyter kernel"),
        (["--profile", "paper"], "takes no other data"),
    ],
)
def test_wrong_options_are_refused_and_the_right_ones_named(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        plan(tmp_path, *arguments)


def test_a_setting_reaches_the_notebooks_that_have_it(tmp_path):
    made, _ = plan(tmp_path, "--models", "traditional_cnn,mobilenet_v3", "--set", "version=v1", "--seeds", "0,2")
    parameters = [entry["parameters"] for entry in made["models"]]
    assert [p.get("version") for p in parameters] == [None, None, "v1", "v1"]
    assert [p["seed"] for p in parameters] == [0, 2, 0, 2]


@pytest.mark.parametrize(
    ("asked", "synthetic", "gpu", "profile"),
    [("smoke", False, True, "smoke"), ("auto", True, True, "smoke"), ("auto", False, True, "paper"),
     ("auto", False, False, "quick")],
)  # fmt: skip
def test_the_choice_of_the_profile(asked, synthetic, gpu, profile):
    assert planning.choose_profile(asked, synthetic, gpu)[0] == profile


def test_what_was_chosen_is_said_before_it_starts(tmp_path):
    messages = []
    plan(tmp_path, messages=messages)
    text = "\n".join(messages)
    assert "Profile: smoke" in text and "synthetic" in text.lower()
    assert "Time: about" in text and "Traditional CNN, ResNet-50, VGG-16, MobileNet-V3" in text


def test_more_jobs_than_memory_or_gpus_bear_are_not_started_at_once(monkeypatch):
    monkeypatch.setattr(planning.psutil, "virtual_memory", lambda: SimpleNamespace(available=6 * 2**30))
    for jobs, gpus, expected in ((8, 0, 2), (2, 0, 2), (8, 4, 2), (1, 4, 1)):
        said = []
        assert planning.jobs_at_once(jobs, gpus, said.append) == expected
        assert bool(said) == (expected < jobs)


# --- data and folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", ["synthetic", "a file that is gone"])
def test_a_second_run_takes_the_data_that_the_first_found(tmp_path, monkeypatch, found):
    made, out = plan(tmp_path)
    out.mkdir()
    (out / "plan.json").write_text(json.dumps(made | {"data_asked": "auto", "data_path": found}))
    asked, load = [], planning.datasets.load

    def note(source, **options):
        asked.append(source)
        return load("synthetic")

    monkeypatch.setattr(planning.datasets, "load", note)
    again, _ = plan(tmp_path, "--data", "auto", "--models", "vgg16")
    assert asked == ["synthetic" if found == "synthetic" else "auto"]
    assert again["models"][0]["parameters"]["data"] == "synthetic" and again["data_asked"] == "auto"


def test_folders_are_named_by_data_and_never_mixed(tmp_path):
    for variant, name in (("fer2013-kaggle-jpeg", "fer2013"), ("fer2013-modified", "fer2013-modified-abababab")):
        assert planning.data_name({"variant": variant, "sha256": "ab" * 32}) == name
    made, out = plan(tmp_path)
    out.mkdir()
    for name, value in (("data_sha256", "0" * 64), ("profile", "quick")):
        (out / "plan.json").write_text(json.dumps(made | {name: value}))
        with pytest.raises(ConfigError, match=f"holds a run with {name} {value}"):
            plan(tmp_path)


def test_what_earlier_calls_finished_stays_in_the_report(tmp_path):
    """Other seeds and models, trained with the parameters that this call would give them."""
    options = ("--profile", "smoke", "--set", "batch_size=32")
    made, out = plan(tmp_path, *options, "--models", "mobilenet_v3,vgg16,traditional_cnn", "--seeds", "0,1")
    assert made["kept"] == []
    trained = {(entry["model"], entry["seed"]): entry for entry in made["models"]}
    del trained["vgg16", 1]
    trained["traditional_cnn", 1]["parameters"] |= {"batch_size": 64}
    for (model, seed), entry in trained.items():
        record = planted_record(model, seed) | {"parameters": entry["parameters"] | {"data": "elsewhere", "threads": 9}}
        plant_model(out, model, seed, record=record)
    (out / "mobilenet_v3" / "seed-1" / "metrics.json").unlink()
    messages = []
    made, _ = plan(tmp_path, *options, "--models", "resnet50", messages=messages)
    assert [(e["model"], e["seed"]) for e in made["kept"]] == [
        ("traditional_cnn", 0),
        ("vgg16", 0),
        ("mobilenet_v3", 0),
    ]
    assert (
        "Finished by earlier calls, and part of the report: Traditional CNN (seed 0), VGG-16 (seed 0) and"
        in "\n".join(messages)
    )
    write_json(out / "plan.json", made)
    assert [training.model for training in read_run(out).trainings] == [
        "traditional_cnn", "resnet50", "vgg16", "mobilenet_v3",
    ]  # fmt: skip
    # The share of the work that is done is of this call's.
    assert progress.left(read_run(out))[0] == 0


# --- the estimate -------------------------------------------------------------------------------------------


def test_the_estimate_is_images_times_cost():
    per_class = 10
    usage = np.repeat(USAGES, 7 * per_class)
    labels = np.tile(np.repeat(np.arange(len(CLASSES)), per_class), 3)
    p = {
        "protocol": "sound",
        "images_per_class": 5,
        "test_images_per_class": 0,
        "epoch_images_per_class": 2,
        "epochs": 3,
    }
    # 3 epochs of 35 images trained on and 28 predicted; then twice 140 test and 35 training images predicted.
    expected = 3 * (35 * 0.1 + 28 * 0.03) + (2 * 140 + 35) * 0.03
    seconds = planning.estimate(p, SimpleNamespace(usage=usage, labels=labels), 0.1)
    assert seconds == pytest.approx(expected + planning.OVERHEAD)


def test_earlier_runs_teach_the_estimate(tmp_path):
    """An epoch of 10,000 images that 1,000 seconds take: 0.1 s each."""
    split = {"train": 10_000, "public": 0, "private": 0, "epoch_images_per_class": 0}

    def plant(name, seconds, finished, model="vgg16", epochs=4, device="CPU"):
        plant_run(tmp_path / name, models=(model,), notebook="n.ipynb", split=split, epochs={"run": epochs},
                  times={"seconds_per_epoch": seconds, "finished": finished}, device={"kind": device})  # fmt: skip

    assert planning.seen_speeds(tmp_path, "CPU") == {}
    plant("quiet", 1000, "2026-01-07")
    plant("busy", 5000, "2026-01-08")
    plant("plain", 800, "2026-01-08", model="vgg16_plain")
    plant("gpu", 10, "2026-01-08", device="GPU")
    plant("one epoch", 1, "2026-01-08", epochs=1)
    for number in range(1, 5):
        plant(f"again-{number}", 2000, f"2026-01-0{number + 2}")
    # Older than five others: the machine, or the code, was another one.
    plant("long-ago", 100, "2026-01-01")
    seen = planning.seen_speeds(tmp_path, "CPU")
    assert seen["vgg16"] == pytest.approx(0.1) and seen["n.ipynb"] == pytest.approx(0.08)
    assert planning.seen_speeds(tmp_path, "GPU") == pytest.approx({"vgg16": 0.001, "n.ipynb": 0.001})
