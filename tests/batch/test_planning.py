"""What a run is made of: profiles, models, parameters, names, estimates."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from fer_utils.batch import cli
from fer_utils.batch import plan as planning
from fer_utils.constants import CLASSES, USAGES
from fer_utils.errors import ConfigError

CONFIG = planning.read_config()


def plan(tmp_path, *arguments, messages=None):
    options = cli.make_parser().parse_args(["--data", "synthetic", "--out", str(tmp_path / "run"), *arguments])
    return planning.make_plan(options, "planted", on_message=(messages if messages is not None else []).append)


def test_every_entry_of_the_configuration_resolves_in_every_profile():
    for model, entry in CONFIG["models"].items():
        defaults = planning.notebook_parameters(entry["notebook"])
        for profile in CONFIG["profiles"]:
            resolved = planning.resolve_parameters(CONFIG, profile, model, {}, defaults)
            assert resolved["model"] == model and resolved["profile"] == profile
            assert {type(resolved[name]) for name in defaults} <= {str, int, float, bool}
            for name, value in defaults.items():
                assert isinstance(resolved[name], type(value)), (model, profile, name)


def test_every_profile_says_how_long_and_on_how_many_images():
    """What a profile leaves out comes from the notebook, whose defaults are a short check."""
    sizes = {"epochs", "images_per_class", "test_images_per_class", "epoch_images_per_class"}
    for name, profile in CONFIG["profiles"].items():
        assert sizes <= set(profile["parameters"]), name


def test_the_paper_profile_is_table_5_1_on_all_images():
    for model, entry in CONFIG["models"].items():
        p = planning.resolve_parameters(CONFIG, "paper", model, {}, planning.notebook_parameters(entry["notebook"]))
        assert (p["epochs"], p["batch_size"], p["learning_rate"]) == (45, 64, 0.001)
        assert p["images_per_class"] == p["test_images_per_class"] == p["epoch_images_per_class"] == 0


def test_a_later_layer_of_parameters_wins():
    config = {
        "profiles": {"p": {"parameters": {"a": 2, "b": 2, "c": 2}, "models": {"m": {"c": 4}}}},
        "models": {"m": {"label": "M", "notebook": "n.ipynb", "parameters": {"b": 3, "c": 3}}},
    }
    defaults = {"a": 1, "b": 1, "c": 1, "d": 1, "e": True, "f": 0.5}
    settings = {"d": "5", "e": "false", "f": "1"}
    resolved = planning.resolve_parameters(config, "p", "m", settings, defaults)
    assert {name: resolved[name] for name in defaults} == {"a": 2, "b": 3, "c": 4, "d": 5, "e": False, "f": 1.0}


def test_a_parameter_that_the_notebook_lacks_is_an_error_of_the_configuration():
    config = {
        "profiles": {"p": {"parameters": {"nonsense": 1}}},
        "models": {"m": {"label": "M", "notebook": "n.ipynb"}},
    }
    with pytest.raises(ConfigError, match="profile p: n.ipynb has no parameter nonsense; it has a"):
        planning.resolve_parameters(config, "p", "m", {}, {"a": 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "resnet51"], "unknown resnet51; config.yaml has traditional_cnn"),
        (["--models", ","], "unknown choice"),
        (["--seeds", "0,x"], "expected whole numbers"),
        (["--seeds", "-1"], "expected whole numbers"),
        (["--profile", "fast"], "config.yaml has smoke, quick, paper, and there is auto"),
        (["--jobs", "0"], "expected 1 or more"),
        (["--set", "dropuot=1"], "no such parameter .* known: .*dropout"),
        (["--set", "epochs"], "expected NAME=VALUE"),
        (["--set", "epochs=many"], "expected a value of type int"),
        (["--set", "deterministic=perhaps"], "expected a value of type bool"),
        (["--set", "seed=3"], "use --seeds"),
        (["--set", "epochs=-1"], "expected 1 or more"),
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
    assert [(e["model"], e["seed"]) for e in made["models"]][:2] == [
        ("traditional_cnn", 0),
        ("traditional_cnn", 2),
    ]


def test_the_choice_of_the_profile():
    assert planning.choose_profile("smoke", synthetic=False, gpu=True)[0] == "smoke"
    assert planning.choose_profile("auto", synthetic=True, gpu=True)[0] == "smoke"
    assert planning.choose_profile("auto", synthetic=False, gpu=True)[0] == "paper"
    assert planning.choose_profile("auto", synthetic=False, gpu=False)[0] == "quick"


def test_what_was_chosen_is_said_before_it_starts(tmp_path):
    messages = []
    plan(tmp_path, messages=messages)
    text = "\n".join(messages)
    assert "Profile: smoke" in text and "synthetic" in text.lower()
    assert "Time: about" in text and "Traditional CNN, ResNet-50, VGG-16, MobileNet-V3" in text


def test_folders_are_named_by_data_and_never_mixed(tmp_path):
    assert planning.data_name({"variant": "fer2013-kaggle-jpeg", "sha256": "ab" * 32}) == "fer2013"
    assert planning.data_name({"variant": "synthetic", "sha256": "ab" * 32}) == "synthetic"
    modified = planning.data_name({"variant": "fer2013-modified", "sha256": "ab" * 32})
    assert modified == "fer2013-modified-abababab"
    made, out = plan(tmp_path)
    out.mkdir()
    (out / "plan.json").write_text(json.dumps(made | {"data_sha256": "0" * 64}))
    with pytest.raises(ConfigError, match="holds a run with data_sha256"):
        plan(tmp_path)
    (out / "plan.json").write_text(json.dumps(made | {"profile": "quick"}))
    with pytest.raises(ConfigError, match="holds a run with profile quick"):
        plan(tmp_path)


def fake_dataset(per_class=10):
    usage = np.repeat(USAGES, 7 * per_class)
    labels = np.tile(np.repeat(np.arange(len(CLASSES)), per_class), 3)
    return SimpleNamespace(usage=usage, labels=labels)


def test_the_estimate_is_images_times_cost():
    p = {"protocol": "sound", "images_per_class": 5, "test_images_per_class": 0, "epoch_images_per_class": 2}
    p |= {"epochs": 3, "precision": "float32"}
    entry = {"notebook": "n.ipynb", "cost": [100, 10]}
    # 3 epochs of 35 images at 0.1 s and 28 scored at 0.01 s; then twice 140 test and 35 training images at 0.01 s.
    expected = 3 * (35 * 0.1 + 28 * 0.01) + (2 * 140 + 35) * 0.01
    seconds = planning.estimate(entry, p, fake_dataset(), "CPU", {})
    assert seconds == pytest.approx(expected + planning.OVERHEAD)
    seen = {("n.ipynb", "CPU", "float32"): 0.5}
    assert planning.estimate(entry, p, fake_dataset(), "CPU", seen) == pytest.approx(expected / 2 + planning.OVERHEAD)
    # What was seen in float32 says nothing of another precision.
    other = planning.estimate(entry, p | {"precision": "mixed_bfloat16"}, fake_dataset(), "CPU", seen)
    assert other == pytest.approx(expected + planning.OVERHEAD)


def test_a_cost_is_that_of_the_kind_of_processor(monkeypatch):
    by_kind = {"cost": {"CPU with bfloat16": [2, 1], "CPU": [8, 3]}}
    for kind, expected in (("CPU", (0.008, 0.003)), ("CPU with bfloat16", (0.002, 0.001))):
        monkeypatch.setattr(planning.precisions, "kind_of_device", lambda device, kind=kind: kind)
        assert planning.cost(by_kind, "CPU") == pytest.approx(expected)
        assert planning.cost({"cost": [5, 4]}, "CPU") == pytest.approx((0.005, 0.004))
        # As `benchmark paper` prints it on one machine.
        assert planning.cost({"cost": {"CPU": [8, 3]}}, "CPU") == pytest.approx((0.008, 0.003))


def test_the_cost_on_a_gpu_does_not_depend_on_the_processor_beside_it(monkeypatch):
    by_kind = {"cost": {"CPU with bfloat16": [2, 1], "CPU": [8, 3]}}
    monkeypatch.setattr(planning.precisions.machine, "cpu_flags", lambda cpuinfo: set())
    assert planning.cost(by_kind, "CPU") == pytest.approx((0.008, 0.003))
    assert planning.cost(by_kind, "GPU") == pytest.approx((0.002, 0.001))


def test_every_model_has_a_cost_for_every_kind_of_processor(monkeypatch):
    for kind in ("CPU", "CPU with bfloat16"):
        monkeypatch.setattr(planning.precisions, "kind_of_device", lambda device, kind=kind: kind)
        for entry in planning.read_config()["models"].values():
            train, predict = planning.cost(entry, "CPU")
            assert 0 < predict < train


def plant_times(folder, seconds, threads=2, precision="float32", age=0):
    """Leave the record of a traditional CNN: an epoch of 10,000 images, which 4.7 ms each make 47 seconds."""
    record = {
        "model": "traditional_cnn",
        "epochs": {"run": 4},
        "split": {"train": 10_000, "public": 0, "private": 0, "epoch_images_per_class": 0},
        "device": {"kind": "CPU", "threads": threads},
        "precision": precision,
        "times": {"seconds_per_epoch": seconds},
    }
    path = folder / "traditional_cnn" / "seed-0" / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    os.utime(path, (1_000_000 - age, 1_000_000 - age))


CONFIGURED = {"models": {"traditional_cnn": {"notebook": "n.ipynb", "cost": [4.7, 1.3]}}}


def test_earlier_runs_teach_the_estimate(tmp_path):
    plant_times(tmp_path / "a", 23.5)
    plant_times(tmp_path / "b", 9.4, precision="mixed_bfloat16")
    assert planning.seen_speeds(tmp_path, CONFIGURED) == {
        ("n.ipynb", "CPU", "float32"): pytest.approx(0.5),
        ("n.ipynb", "CPU", "mixed_bfloat16"): pytest.approx(0.2),
    }


def test_a_run_on_a_busy_machine_is_not_believed_beside_a_faster_one(tmp_path):
    plant_times(tmp_path / "busy", 235.0)
    plant_times(tmp_path / "quiet", 47.0, age=1)
    plant_times(tmp_path / "four-threads", 4.7, threads=4, age=2)
    for number in range(3):
        plant_times(tmp_path / f"again-{number}", 94.0, age=3 + number)
    # Nor is one that is older than five others: the machine, or the code, was another one.
    plant_times(tmp_path / "long-ago", 4.7, age=6)
    assert planning.seen_speeds(tmp_path, CONFIGURED) == {("n.ipynb", "CPU", "float32"): pytest.approx(1.0)}
