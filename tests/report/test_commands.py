"""Each command that a report prints, planned word for word from the project's root."""

import dataclasses
import html
import re
import shlex
from pathlib import Path

import pytest
from planted import plant_model, planted_record

from fer_utils.batch import cli, config
from fer_utils.batch import plan as planning
from fer_utils.claims import claims, page
from fer_utils.files import write_json
from fer_utils.findings import duplicates, explanations
from fer_utils.findings.figures import command_lines
from fer_utils.findings.results import command, read_run
from fer_utils.paths import project_root
from fer_utils.report.page import build_report

MODELS = ("resnet50", "mobilenet_v3", "vgg16")


def make(text):
    """Plan a printed command; returns the plan and the run folder."""
    program, *words = shlex.split(text)
    assert program == "./run_all.sh"
    return planning.make_plan(cli.make_parser().parse_args(words), text, on_message=[].append)


def printed(out, run):
    """Every command of the audit's explanations and claims, and of the notes of the page."""
    parts = [explanations.protocols(run), explanations.selection(run), duplicates.explain(run)]
    parts += [explanations.pairs(run, explanations.PRETRAINED_PAIRS, pretrained=True)]
    parts += [explanations.pairs(run, explanations.MOBILENETS)]
    shown = "".join(command_lines(part.command)._repr_html_() for part in parts if part.command)
    shown += command_lines(command(run, seeds=(0, 1, 2)))._repr_html_()
    shown += page.render(claims.judge(run, resamples=20))._repr_html_()
    shown += build_report(out).read_text(encoding="utf-8")
    lines = re.findall(r"\./run_all\.sh --[^<\n]*", html.unescape(shown))
    # The command that made the run stands among its conditions, its paths shortened: it makes nothing that is missing.
    return sorted({line for line in lines if "--publish" not in line})


@pytest.mark.parametrize("profile", ["smoke", "paper"])
def test_every_printed_command_plans_what_it_is_printed_for(tmp_path, monkeypatch, small_set, profile):
    data = small_set.write_zip(tmp_path / "my data.zip")
    out, load = tmp_path / "a run", planning.datasets.load
    known = load(data, on_message=[].append)
    known = dataclasses.replace(
        known, fingerprint=known.fingerprint | {"known": True, "variant": "fer2013-kaggle-jpeg"}, path=data
    )
    asked = []

    def find(source, **_):
        asked.append(source)
        assert source == "auto" or Path(source).resolve() == data.resolve(), source
        return known

    monkeypatch.chdir(project_root())

    monkeypatch.setattr(planning.datasets, "load", find)
    monkeypatch.setattr(planning, "count_gpus", lambda: 0)
    monkeypatch.setattr(planning, "check_kernel", lambda name: None)
    monkeypatch.setattr(planning, "seen_speeds", lambda *_: {})
    options = ["--data", str(data), "--models", ",".join(MODELS), "--out", str(out), "--set", "weights=imagenet"]
    plan, _ = make(shlex.join(["./run_all.sh", "--profile", profile, *options, "--publish"]))
    for model in MODELS:
        unavailable = {"requested": "imagenet", "used": "none", "sha256": None, "reason": "no network"}
        plant_model(out, model, record=planted_record(model, profile=profile, weights=unavailable))
    write_json(out / "plan.json", plan)
    lines = printed(out, read_run(out))
    same = [line for line in lines if "--out" in line]
    assert len(same) >= 5 and len(lines) > len(same) or profile == "paper"
    for line in lines:
        asked.clear()
        again, folder = make(line)
        # In the folder of the run with its data, or in another one, of the thesis's setting.
        if line in same:
            assert folder.resolve() == out.resolve() and again["profile"] == profile and asked == [str(data)]
        else:
            assert again["profile"] == "paper" and folder.resolve() != out.resolve()
        entries = {entry["model"]: entry["parameters"] for entry in again["models"]}
        # In the one order of every table.
        assert list(entries)[: len(MODELS)] == [model for model in config.read_config()["models"] if model in MODELS]
        # Each model is what config.yaml makes of it, whatever the run's settings were.
        for name, parameters in entries.items():
            own = config.read_config()["models"][name].get("parameters", {})
            assert own.items() <= parameters.items(), line
    together = " ".join(lines)
    for name in ("resnet50_scratch", "mobilenet_v1", "resnet50_thesis_protocol", "--seeds 0,1,2"):
        assert name in together
