"""The whole graph, end to end, in a copy of the project on a path that is hard on shells.

One folder: a run killed twice; then all four networks, one of them failing; then again with that one mended and another
one's notebook edited; then the report from what is left.
"""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import papermill
import pytest
from bs4 import BeautifulSoup
from faults.kill import LIMIT, kill_after_epoch

from fer_utils.files import read_json
from fer_utils.findings.results import read_run
from fer_utils.paths import project_root

pytestmark = pytest.mark.slow

#: Epochs of each network: there must be some for a kill to fall between two.
EPOCHS = {"traditional_cnn": 5, "resnet50": 1, "vgg16": 1, "mobilenet_v3": 1}
MODELS = list(EPOCHS)

#: Planted where a run could meet them; none may turn up in anything that it writes.
SECRETS = {
    "KAGGLE_USERNAME": "planted-user",
    "KAGGLE_KEY": "planted-key-0123",
    "KAGGLE_API_TOKEN": "planted-token-0123",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-0123",
    "UNRELATED": "planted-unrelated-0123",
}

#: Kaggle's client as it is with VERBOSE and a wrong key: it prints what it sends, and where it was sent on to.
KAGGLE = """
import os, pathlib, sys
home = pathlib.Path(os.environ["KAGGLE_CONFIG_DIR"], "kaggle.json").read_text()
print("send: Authorization: Basic planted-header-0123", home, os.environ["KAGGLE_KEY"])
print("Authorization: Bearer", os.environ["KAGGLE_API_TOKEN"], file=sys.stderr)
print("403 Forbidden for url: https://planted-login:planted-word@kaggle.example/x?token=planted-query-0123 "
      + home + os.environ["KAGGLE_USERNAME"] + " Bearer planted-bearer-0123", file=sys.stderr)
sys.exit(1)
"""


class Project:
    """A copy of the project, and its command."""

    def __init__(self, folder):
        self.root = folder / "a path with spaces, ünïcode & 'quotes'"
        for name in ("fer_utils", "notebooks"):
            shutil.copytree(project_root() / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Snakefile", "config.yaml", "pyproject.toml"):
            shutil.copy(project_root() / name, self.root / name)
        parameters = "parameters: {epochs: 1, images_per_class: 9,"
        self.edit("config.yaml", parameters, f"models: {{traditional_cnn: {{epochs: 5}}}}\n    {parameters}")
        # A fifth of the drawn faces: each of some twenty processes draws them, for 3.4 s otherwise.
        self.edit("fer_utils/data/synthetic.py", "\nSCALE = 18\n", "\nSCALE = 10_000\n")
        self.out = folder / "a run, ünïcode & blanks"
        self.elsewhere = folder / "elsewhere"
        # A Kaggle client that fails and tells all, and a proxy that is not there.
        self.write("kaggle/__init__.py", "")
        self.write("kaggle/__main__.py", KAGGLE)
        config = self.write("kaggle config/kaggle.json", '{"username": "planted-name", "key": "planted-file-0123"}')
        self.elsewhere.mkdir()
        proxy = "http://planted-proxy:planted%40proxy@127.0.0.1:9"
        self.environment = os.environ | SECRETS | {
            "PYTHONPATH": str(self.root),
            "FER_CACHE": str(folder / "cache"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # Nobody can write there, not even root.
            "HOME": "/proc/no-home",
            "KAGGLE_CONFIG_DIR": str(config.parent),
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy),
        }  # fmt: skip
        for name in ("FER2013_DATA", "PYTHONDONTWRITEBYTECODE"):
            self.environment.pop(name, None)
        run = [sys.executable, "-m", "fer_utils.batch.run"]
        # No data are given and Kaggle fails, so that the drawn faces are taken.
        self.command = [*run, "--kernel", "python3", "--jobs", "2", "--out", str(self.out)]
        self.report = [*run, "report", "--out", str(self.out)]

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def edit(self, name, before, after):
        """Replace a text that is there once in one of the project's files."""
        text = (self.root / name).read_text()
        assert text.count(before) == 1
        self.write(name, text.replace(before, after))

    def run(self, command):
        options = {"cwd": self.elsewhere, "env": self.environment, "text": True, "timeout": LIMIT}
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)

    def changed_by(self, command):
        """Run a command; return which executed notebooks and reports it wrote anew."""
        before = self.stamps()
        done = self.run(command)
        assert done.returncode == 0, done.stdout
        return {name for name, stamp in self.stamps().items() if stamp != before.get(name)}

    def stamps(self):
        """When each executed notebook, and the report, was written."""
        paths = [*self.out.glob("**/notebook.ipynb"), self.out / "report.html"]
        return {str(p.relative_to(self.out)): p.stat().st_mtime_ns for p in paths if ".training" not in p.parts}


WEIGHTS = [f'weights: str = \\"{name}\\"' for name in ("imagenet", "/nowhere/weights.h5")]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project after all that is told above but the last."""
    project = Project(tmp_path_factory.mktemp("workflow"))
    project.edit("notebooks/05_mobilenet.ipynb", *WEIGHTS)
    log = project.elsewhere / "log.txt"
    command = ["env", "-C", str(project.elsewhere), *project.command, "--models", "traditional_cnn"]
    project.kills = [
        kill_after_epoch(command, project.out, target, delay, log, project.environment)
        for target, delay in (("group", 0.3), ("snakemake", 0.0))
    ]
    project.log = log.read_text()
    project.first = project.run(project.command)
    assert project.first.returncode == 1, project.first.stdout
    project.first_run = read_run(project.out)
    project.first_report = (project.out / "report.html").read_text()
    project.killed = shutil.copytree(project.out / "traditional_cnn" / "seed-0", project.elsewhere / "killed")
    project.before = project.stamps()
    project.edit("notebooks/05_mobilenet.ipynb", *WEIGHTS[::-1])
    project.edit("notebooks/02_traditional_cnn.ipynb", "layers.Dense(256", "layers.Dense(128")
    project.second = project.run(project.command)
    return project


def test_what_is_killed_leaves_nothing_behind_and_goes_on(project):
    assert [kill and kill["status"] for kill in project.kills] == [-9, 137], project.log
    # Kernels too, which are in no process group of the run's.
    assert not any(kill["left"] for kill in project.kills)
    record = json.loads((project.killed / "run.json").read_text())
    ends = [segment["last_epoch"] for segment in record["segments"]]
    assert len(ends) == 3 and ends[-1] == EPOCHS["traditional_cnn"] == record["epochs"]["run"]
    assert [segment["first_epoch"] for segment in record["segments"]] == [1, ends[0] + 1, ends[1] + 1]
    assert "Data: those that the run in this folder began with" in project.first.stdout


def test_one_model_failing_does_not_stop_the_others(project):
    said, run = project.first.stdout, project.first_run
    assert "FAILED: MobileNet-V3 (seed 0): ConfigError" in said and "nowhere" in said
    assert [m.model for m in run.models] == MODELS[:-1] and [f["model"] for f in run.failures] == MODELS[-1:]
    assert {"dataset/notebook.ipynb", "methods/notebook.ipynb"} <= set(project.before), said
    assert "weights.h5" in project.first_report and "FAILED MODELS" in project.first_report


def test_the_next_call_makes_what_failed_or_was_edited_and_what_rests_on_it(project):
    said = project.second.stdout
    assert project.second.returncode == 0, said
    assert f"Report: {project.out / 'report.html'}" in said
    run = read_run(project.out)
    assert [m.model for m in run.models] == MODELS and not run.failures
    after = project.stamps()
    assert {name for name in after if after[name] != project.before.get(name)} == {
        "traditional_cnn/seed-0/notebook.ipynb", "mobilenet_v3/seed-0/notebook.ipynb",
        "findings/notebook.ipynb", "audit/notebook.ipynb", "report.html",
    }  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_a_model_leaves_its_results(project, model):
    result = read_run(project.out).by_name(model)[0]
    assert result.record["epochs"]["run"] == EPOCHS[model] and result.record["synthetic"]
    for suffix in ("keras", "h5", "weights.h5"):
        assert (result.folder / f"model.{suffix}").stat().st_size > 10_000
    text = "\n".join(printed(result.folder / "notebook.ipynb"))
    assert "SYNTHETIC DATA" in text and "This is no result" in text
    # ImageNet weights are used where they can be had; where not, the record and the page say so.
    weights = result.record["weights"]
    if weights["requested"] == "imagenet":
        assert (weights["used"] == "imagenet") == (weights["reason"] is None)
        assert (weights["used"] == "none") == ("RANDOM INITIALISATION" in "\n".join(result.record["warnings"]))


def printed(path):
    """Yield the texts and tables that an executed notebook shows."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            yield output.get("text") or "".join(output.get("data", {}).get("text/html", ""))


def test_a_killed_run_leaves_the_bytes_of_the_notebook_run_by_hand(project, tmp_path, monkeypatch):
    """In the folder that it lies in, as JupyterLab runs it, with no job beside it and with its own defaults."""
    record = json.loads((project.killed / "run.json").read_text())
    assert record["profile"] == "smoke"
    given = ("epochs", "images_per_class", "test_images_per_class")
    parameters = {name: record["parameters"][name] for name in given} | {"threads": record["device"]["threads"]}
    monkeypatch.setenv("PYTHONPATH", str(project.root))
    papermill.execute_notebook(
        project_root() / "notebooks" / "02_traditional_cnn.ipynb",
        tmp_path / "notebook.ipynb",
        parameters | {"out": str(tmp_path), "data": "synthetic"},
        kernel_name="python3",
        cwd=project.root / "notebooks",
        progress_bar=False,
    )
    cells = nbformat.read(tmp_path / "notebook.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]  # a red box in JupyterLab
    alone = read_run(tmp_path).models[0]
    assert alone.record["profile"] == "alone" and alone.record["predictions_sha256"] == record["predictions_sha256"]
    for name in ("history.csv", "predictions.parquet", "model.weights.h5"):
        assert (alone.folder / name).read_bytes() == (project.killed / name).read_bytes(), name


def test_no_secret_is_in_anything_that_a_run_leaves(project):
    said = project.first.stdout + project.second.stdout + project.log
    assert "403 Forbidden for url: https://***@kaggle.example/x?***" in said and "planted" not in said
    places = (project.root, project.elsewhere, project.out)
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    files = [p for p in files if not {"kaggle", "kaggle config", "__pycache__"} & set(p.parts)]
    assert {"run.json", "plan.json", "report.html", "notebook.ipynb", "notebook.log", "snakemake.log"} <= {
        path.name for path in files
    }
    assert [path for path in files if b"planted" in path.read_bytes()] == []


def test_the_report_says_what_it_is_and_not_where_it_was_made(project):
    report = (project.out / "report.html").read_text(encoding="utf-8")
    assert "SYNTHETIC" in report.upper() and "SMOKE" in report.upper()
    for number in ["3.6", "3.7", "3.8", "3.9", "3.10", "3.21", "5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.7", "5.8"]:
        assert f'id="fig-{number.replace(".", "-")}"' in report, number
        assert list(project.out.glob(f"figures/fig-{number}-*.svg")), number
    assert len((project.out / "claims.csv").read_text().splitlines()) > 63
    assert read_json(project.out / "gradcam.json")["faces"]
    for page in (project.first_report, report):
        assert str(project.root.parent) not in page and "a path with spaces" not in page


def test_the_models_stand_in_one_order_everywhere(project):
    order = ["Traditional CNN", "ResNet-50", "VGG-16", "MobileNet-V3"]
    places = {name: place for place, name in enumerate([*order, *MODELS])}
    soup = BeautifulSoup((project.out / "report.html").read_text(encoding="utf-8"), "html.parser")
    found = {
        table.get("id"): [cell.get_text(" ", strip=True) for cell in table(["th", "td"])] for table in soup("table")
    }
    found |= {path.name: list(pd.read_csv(path).get("model", [])) for path in project.out.glob("figures/*.csv")}
    found = {name: [places[text] for text in dict.fromkeys(texts) if text in places] for name, texts in found.items()}
    assert {name: seen for name, seen in found.items() if seen != sorted(seen)} == {}
    assert sum(len(seen) == 4 for seen in found.values()) > 10


def test_the_same_command_again_does_nothing(project):
    assert project.changed_by(project.command) == set()


def test_figures_and_report_are_rebuilt_from_predictions_alone(project):
    for path in [*project.out.glob("*/seed-*/model.*"), *project.out.glob("figures/*")]:
        path.unlink()
    shutil.rmtree(project.out / ".training")
    made = {"findings/notebook.ipynb", "audit/notebook.ipynb", "report.html"}
    assert project.changed_by(project.report) == made
    assert list(project.out.glob("figures/fig-5.1-*.svg"))
    assert not list(project.out.glob("*/seed-*/model.*"))
