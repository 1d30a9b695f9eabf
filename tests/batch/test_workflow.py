"""The whole graph, end to end, in a copy of the project on a path that is hard on shells.

One run: killed twice, begun again, one of its models failing; then again with that model mended.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
from faults.kill import kill_after_epoch

from fer_utils.findings.results import read_model, read_run
from fer_utils.paths import project_root

pytestmark = pytest.mark.slow

MODELS = ["traditional_cnn", "mobilenet_v3"]
EPOCHS = 5

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

ALONE = """
import json, sys

for name, parameters in json.loads(sys.argv[1]):
    space = {}
    for cell in json.load(open(name, encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), space)
        if "parameters" in cell["metadata"].get("tags", []):
            space |= parameters
        if "evaluate(run" in "".join(cell["source"]):
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
        self.environment.pop("FER2013_DATA", None)
        run = [sys.executable, "-m", "fer_utils.batch.run"]
        # No data are given and Kaggle fails, so that the drawn faces are taken.
        options = ["--models", ",".join(MODELS), "--kernel", "python3", "--jobs", "2", "--set", f"epochs={EPOCHS}"]
        self.command = [*run, *options, "--out", str(self.out)]
        self.report = [*run, "report", "--out", str(self.out)]

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, command):
        options = {"cwd": self.elsewhere, "env": self.environment, "text": True, "timeout": 900}
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)

    def train_alone(self, out):
        """Execute the code of the models' notebooks in one process, without papermill, Snakemake or a kernel."""
        run = read_run(self.out)
        threads = {model.record["device"]["threads"] for model in run.models}
        assert len(threads) == 1
        changed = {"out": str(out), "threads": threads.pop()}
        notebooks = [[entry["notebook"], entry["parameters"] | changed] for entry in run.plan["models"]]
        command = [sys.executable, "-c", ALONE, json.dumps(notebooks)]
        done = subprocess.run(
            command, cwd=self.root / "notebooks", env=self.environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr

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


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project after a run that was killed twice and in which one model failed, and after that was mended."""
    project = Project(tmp_path_factory.mktemp("workflow"))
    notebook = project.root / "notebooks" / "05_mobilenet.ipynb"
    sound = notebook.read_text()
    assert sound.count('weights: str = \\"imagenet\\"') == 1
    notebook.write_text(sound.replace('weights: str = \\"imagenet\\"', 'weights: str = \\"/nowhere/weights.h5\\"'))
    log = project.elsewhere / "log.txt"
    command = ["env", "-C", str(project.elsewhere), *project.command]
    project.kills = [
        kill_after_epoch(command, project.out, target, delay, log, project.environment)
        for target, delay in (("group", 0.3), ("snakemake", 0.0))
    ]
    project.log = log.read_text()
    project.first = project.run(project.command)
    assert project.first.returncode == 1, project.first.stdout
    project.first_run = read_run(project.out)
    project.first_report = (project.out / "report.html").read_text()
    project.before = project.stamps()
    notebook.write_text(sound)
    project.second = project.run(project.command)
    return project


def test_what_is_killed_leaves_nothing_behind_and_goes_on(project):
    assert [kill and kill["status"] for kill in project.kills] == [-9, 137], project.log
    # Kernels too, which are in no process group of the run's.
    assert not any(kill["left"] for kill in project.kills)
    record = read_model(project.out / "traditional_cnn" / "seed-0").record
    ends = [segment["last_epoch"] for segment in record["segments"]]
    assert len(ends) == 3 and ends[-1] == EPOCHS == record["epochs"]["run"]
    assert [segment["first_epoch"] for segment in record["segments"]] == [1, ends[0] + 1, ends[1] + 1]
    assert "Data: those that the run in this folder began with" in project.first.stdout


def test_one_model_failing_does_not_stop_the_others(project):
    said, run = project.first.stdout, project.first_run
    assert "FAILED: MobileNet-V3 (seed 0): ConfigError" in said and "nowhere" in said
    assert [m.model for m in run.models] == ["traditional_cnn"] and [f["model"] for f in run.failures] == MODELS[1:]
    assert {"dataset/notebook.ipynb", "methods/notebook.ipynb"} <= set(project.before), said
    assert "weights.h5" in project.first_report and "FAILED MODELS" in project.first_report


def test_the_next_call_tries_the_failed_ones_and_keeps_the_others(project):
    said = project.second.stdout
    assert project.second.returncode == 0, said
    assert f"Report: {project.out / 'report.html'}" in said
    run = read_run(project.out)
    assert [m.model for m in run.models] == MODELS and not run.failures
    after = project.stamps()
    assert {name for name in project.before if after[name] == project.before[name]} == {
        "traditional_cnn/seed-0/notebook.ipynb", "dataset/notebook.ipynb", "methods/notebook.ipynb"
    }  # fmt: skip


def test_kills_and_other_jobs_change_no_byte(project, tmp_path):
    """Against both networks one after the other in a single process."""
    project.train_alone(tmp_path)
    hashes = set()
    for model in MODELS:
        folder, alone = project.out / model / "seed-0", tmp_path / model / "seed-0"
        hashes.add(read_model(alone).record["predictions_sha256"])
        for name in ("history.csv", "predictions.parquet", "model.weights.h5"):
            assert (alone / name).read_bytes() == (folder / name).read_bytes(), (model, name)
    assert len(hashes) == len(MODELS)


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
    for number in ("5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.7", "5.8"):
        assert f'id="fig-{number.replace(".", "-")}"' in report, number
        assert list(project.out.glob(f"figures/fig-{number}-*.svg")), number
    assert len((project.out / "claims.csv").read_text().splitlines()) > 63
    for page in (project.first_report, report):
        assert str(project.root.parent) not in page and "a path with spaces" not in page


def test_the_same_command_again_does_nothing(project):
    assert project.changed_by(project.command) == set()


def test_editing_a_cell_reruns_that_model_and_what_is_made_from_it(project):
    path = project.root / "notebooks" / "02_traditional_cnn.ipynb"
    text = path.read_text()
    assert "layers.Dense(256" in text
    path.write_text(text.replace("layers.Dense(256", "layers.Dense(128"))
    made = {"traditional_cnn/seed-0/notebook.ipynb", "findings/notebook.ipynb", "audit/notebook.ipynb", "report.html"}
    assert project.changed_by(project.command) == made


def test_figures_and_report_are_rebuilt_from_predictions_alone(project):
    for path in [*project.out.glob("*/seed-*/model.*"), *project.out.glob("figures/*")]:
        path.unlink()
    shutil.rmtree(project.out / ".training")
    made = {"findings/notebook.ipynb", "audit/notebook.ipynb", "report.html"}
    assert project.changed_by(project.report) == made
    assert list(project.out.glob("figures/fig-5.1-*.svg"))
    assert not list(project.out.glob("*/seed-*/model.*"))
