"""The whole graph, end to end, in a copy of the project on a path that is hard on shells."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from faults.kill import kill_after_epoch

from fer_utils.findings.results import read_model, read_run
from fer_utils.paths import project_root

pytestmark = pytest.mark.slow

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

MODELS = ["traditional_cnn", "resnet50", "vgg16", "mobilenet_v3"]


ALONE = """
import json, sys

for name, parameters in json.loads(sys.argv[1]):
    space = {}
    for cell in json.load(open(name, encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
        if "parameters" in cell["metadata"].get("tags", []):
            space |= parameters
        if "evaluation.evaluate" in "".join(cell["source"]):
            break
"""


class Project:
    """A copy of the project, and its command."""

    def __init__(self, folder):
        self.root = folder / "a path with spaces, ünïcode & 'quotes'"
        for name in ("fer_utils", "notebooks"):
            shutil.copytree(project_root() / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Snakefile", "config.yaml", "pyproject.toml"):
            shutil.copy(project_root() / name, self.root / name)
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "FER_CACHE": str(folder / "cache"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # Nobody can write there, not even root.
            "HOME": "/proc/no-home",
        }
        self.environment.pop("FER2013_DATA", None)
        # A Kaggle client that fails and tells all, and a proxy that is not there.
        (self.root / "kaggle").mkdir()
        (self.root / "kaggle" / "__init__.py").touch()
        (self.root / "kaggle" / "__main__.py").write_text(KAGGLE)
        config = folder / "kaggle config"
        config.mkdir()
        (config / "kaggle.json").write_text('{"username": "planted-name", "key": "planted-file-0123"}')
        self.environment |= {**SECRETS, "KAGGLE_CONFIG_DIR": str(config)}
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            self.environment[name] = "http://planted-proxy:planted%40proxy@127.0.0.1:9"

    def command(self, *arguments):
        return [sys.executable, "-m", "fer_utils.batch.run", *arguments]

    def run(self, *arguments):
        return subprocess.run(
            self.command(*arguments),
            cwd=self.elsewhere,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )

    def train_alone(self, entries, threads, out):
        """Execute the code of models' notebooks in one process, without papermill, Snakemake or a kernel."""
        changed = {"out": str(out), "threads": threads}
        notebooks = [[entry["notebook"], entry["parameters"] | changed] for entry in entries]
        done = subprocess.run(
            [sys.executable, "-c", ALONE, json.dumps(notebooks)],
            cwd=self.root / "notebooks",
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr

    @property
    def out(self):
        return self.root / "results" / "smoke-synthetic"


def stamps(out):
    """When each executed notebook, and the report, was written."""
    return {
        str(p.relative_to(out)): p.stat().st_mtime_ns for p in [*out.glob("**/notebook.ipynb"), out / "report.html"]
    }


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("workflow"))


@pytest.fixture(scope="module")
def project(fresh):
    """The project after a run in which one model failed, and after the run that tried it again."""
    broken = fresh.root / "notebooks" / "03_resnet50.ipynb"
    sound = broken.read_text()
    assert "weights, resolved=" in sound
    broken.write_text(sound.replace("weights, resolved=", "'/nowhere/weights.h5', resolved="))
    # No data are given and Kaggle fails, so that the drawn faces are taken.
    fresh.first = fresh.run("--jobs", "2")
    fresh.first_run = read_run(fresh.out)
    fresh.first_report = (fresh.out / "report.html").read_text() if fresh.first.returncode == 1 else ""
    fresh.before = stamps(fresh.out)
    broken.write_text(sound)
    fresh.second = fresh.run("--jobs", "2")
    return fresh


def test_one_model_failing_does_not_stop_the_others(project):
    done, run, report = project.first, project.first_run, project.first_report
    assert done.returncode == 1, done.stdout
    assert "FAILED: ResNet-50 (seed 0): ConfigError" in done.stdout and "nowhere" in done.stdout
    assert [m.model for m in run.models] == ["traditional_cnn", "vgg16", "mobilenet_v3"]
    assert {f["model"] for f in run.failures} == {"resnet50"}
    assert {"dataset/notebook.ipynb", "methods/notebook.ipynb"} <= set(project.before), done.stdout
    assert "weights.h5" in report and "FAILED MODELS" in report


def test_the_next_call_tries_the_failed_ones_and_keeps_the_others(project):
    done, before = project.second, project.before
    assert done.returncode == 0, done.stdout
    assert f"Report: {project.out / 'report.html'}" in done.stdout
    run = read_run(project.out)
    assert [m.model for m in run.models] == MODELS and not run.failures
    after = stamps(project.out)
    for kept in ("traditional_cnn/seed-0/notebook.ipynb", "vgg16/seed-0/notebook.ipynb", "dataset/notebook.ipynb"):
        assert after[kept] == before[kept]
    assert after["findings/notebook.ipynb"] > before["findings/notebook.ipynb"]


def test_all_four_networks_give_the_same_predictions_again_and_beside_others(project, tmp_path):
    """Two at a time in kernels of their own, and one after the other in a single process."""
    run = read_run(project.out)
    threads = {model.record["device"]["threads"] for model in run.models}
    assert len(threads) == 1 and run.plan["jobs"] == 2
    project.train_alone(run.plan["models"], threads.pop(), tmp_path)
    again = {model: read_model(tmp_path / model / "seed-0").record["predictions_sha256"] for model in MODELS}
    assert again == {model.model: model.record["predictions_sha256"] for model in run.models}
    assert len(set(again.values())) == len(MODELS)


def test_no_secret_is_in_anything_that_a_run_leaves(project):
    said = project.first.stdout + project.second.stdout
    assert "403 Forbidden for url: https://***@kaggle.example/x?***" in said and "planted" not in said
    files = [path for path in [*project.root.rglob("*"), *project.elsewhere.rglob("*")] if path.is_file()]
    files = [path for path in files if path.parent.name != "kaggle" and "__pycache__" not in path.parts]
    assert {"run.json", "plan.json", "report.html", "notebook.ipynb", "notebook.log", "snakemake.log"} <= {
        path.name for path in files
    }
    assert [path for path in files if b"planted" in path.read_bytes()] == []
    assert "403 Forbidden" in (project.out / "plan.json").read_text()


def test_the_report_does_not_say_where_on_the_machine_it_was_made(project):
    for report in (project.first_report, (project.out / "report.html").read_text(encoding="utf-8")):
        assert report and str(project.root.parent) not in report
        assert "a path with spaces" not in report


def test_the_report_says_on_its_face_what_it_is(project):
    report = (project.out / "report.html").read_text()
    assert "SYNTHETIC" in report.upper() and "SMOKE" in report.upper()
    for number in ("5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.7", "5.8"):
        assert f'id="fig-{number.replace(".", "-")}"' in report, number
        assert list(project.out.glob(f"figures/fig-{number}-*.svg")), number
    assert len((project.out / "claims.csv").read_text().splitlines()) > 63


def test_the_same_command_again_does_nothing(project):
    before = stamps(project.out)
    started = time.monotonic()
    done = project.run("--data", "synthetic", "--jobs", "2")
    assert done.returncode == 0
    assert stamps(project.out) == before
    assert time.monotonic() - started < 60


def test_editing_a_cell_reruns_that_model_and_the_findings_only(project):
    before = stamps(project.out)
    path = project.root / "notebooks" / "02_traditional_cnn.ipynb"
    text = path.read_text()
    assert "layers.Dense(256" in text
    path.write_text(text.replace("layers.Dense(256", "layers.Dense(128"))
    done = project.run("--data", "synthetic", "--jobs", "2")
    assert done.returncode == 0, done.stdout
    after = stamps(project.out)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"traditional_cnn/seed-0/notebook.ipynb", "findings/notebook.ipynb", "report.html"}


def test_figures_and_report_are_rebuilt_from_predictions_alone(project):
    for path in [*project.out.glob("*/seed-*/model.*"), *project.out.glob("figures/*")]:
        path.unlink()
    shutil.rmtree(project.out / ".training")
    before = stamps(project.out)
    done = project.run("report")
    assert done.returncode == 0, done.stdout
    after = stamps(project.out)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"findings/notebook.ipynb", "report.html"}
    assert list(project.out.glob("figures/fig-5.1-*.svg"))
    assert not list(project.out.glob("*/seed-*/model.*"))


def test_a_run_that_is_killed_twice_leaves_what_one_that_is_not_leaves(fresh, tmp_path):
    out, log = fresh.root / "results" / "killed", tmp_path / "log.txt"
    arguments = ["--data", "synthetic", "--models", "traditional_cnn", "--set", "epochs=6", "--out", str(out)]
    command = ["env", "-C", str(fresh.elsewhere), *fresh.command(*arguments)]
    for target, delay in (("group", 0.3), ("snakemake", 0.0)):
        kill = kill_after_epoch(command, out, target, delay, log, fresh.environment)
        assert kill and kill["status"] == {"group": -9, "snakemake": 137}[target], log.read_text()
        # Kernels too, which are in no process group of the run's.
        assert not kill["left"]
    done = fresh.run(*arguments)
    assert done.returncode == 0, done.stdout
    run = read_run(out)
    segments = run.models[0].record["segments"]
    assert len(segments) == 3 and run.models[0].record["epochs"]["run"] == 6
    assert [s["first_epoch"] for s in segments] == [1, segments[0]["last_epoch"] + 1, segments[1]["last_epoch"] + 1]
    fresh.train_alone(run.plan["models"], run.models[0].record["device"]["threads"], tmp_path)
    for name in ("history.csv", "predictions.parquet", "model.weights.h5"):
        alone = tmp_path / "traditional_cnn" / "seed-0" / name
        assert alone.read_bytes() == (run.models[0].folder / name).read_bytes()
