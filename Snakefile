"""What makes what in a run.

`./run_all.sh` writes the plan (which models, with which parameters, on which data) into the run folder and calls
Snakemake there: first for the rule `models`, where one model's failure does not stop the others, then for the rule
`report`, over whatever is there; for both at once where every training is there already. The state of a training lies
in `.training/` and is no output, because Snakemake deletes outputs before it runs a rule again.

    dataset, methods, each model  ->  findings, gradcam  ->  audit  ->  report
"""

import functools
import json
import os
import sys
from pathlib import Path

from fer_utils.batch import processes
from fer_utils.batch.job import CHAPTERS
from fer_utils.provenance import APART, FINDINGS_CODE, code_hash

configfile: "plan.json"

# This process ends when the run does, its jobs when this process does. A rehearsal belongs to no run.
if processes.VARIABLE in os.environ:
    processes.interrupt_once()
    LOCK = processes.join(Path.cwd(), lambda: processes.interrupt_this(30))

PYTHON = sys.executable
ROOT = Path(workflow.basedir)
NOTEBOOKS = ROOT / "notebooks"
CHAPTERS = {chapter: NOTEBOOKS / name for chapter, name in CHAPTERS.items()}
PLAN = {(entry["model"], str(entry["seed"])): entry for entry in config["models"]}

# A fifth of a second, once for each notebook and not for each seed.
model_code = functools.cache(code_hash)

MODEL_FILES = ["history.csv", "predictions.parquet", "predictions_last.parquet", "metrics.json"]
MODEL_FILES += ["architecture.json", "summary.txt", "run.json"]


def finished(name):
    """The files of this name that the models left, planned or of an earlier call; those that failed have none."""
    places = [f"{entry['model']}/seed-{entry['seed']}" for entry in [*config["models"], *config.get("kept", [])]]
    return [f"{place}/{name}" for place in places if Path(place, "run.json").exists()]


def failures():
    """What is known of the planned models that failed, so that the report is made again when that changes."""
    paths = [Path("failed", f"{model}-seed-{seed}.json") for model, seed in PLAN]
    return [path.read_text(encoding="utf-8") for path in paths if path.exists()]


PUBLISHED = ROOT / "figures" / "SHA256SUMS"

# What findings and audit read.
RUN_FILES = [path for name in MODEL_FILES for path in finished(name)]
RUN_FILES += ["dataset/dataset.json"] if Path("dataset/dataset.json").exists() else []


# With --cluster the trainings go to the nodes.
localrules:
    models, dataset, methods, findings, gradcam, audit, report,


wildcard_constraints:
    model="[A-Za-z0-9_]+",
    seed="[0-9]+",


rule models:
    input:
        "dataset/dataset.json",
        "methods/notebook.ipynb",
        [f"{model}/seed-{seed}/run.json" for model, seed in PLAN],


rule dataset:
    input:
        CHAPTERS["dataset"],
    output:
        "dataset/notebook.ipynb",
        "dataset/dataset.json",
        "dataset/images.parquet",
    params:
        data=config["data_sha256"],
        code=code_hash(CHAPTERS["dataset"]),
    shell:
        "{PYTHON:q} -m fer_utils.batch.job dataset"


rule methods:
    input:
        CHAPTERS["methods"],
    output:
        "methods/notebook.ipynb",
    params:
        code=code_hash(CHAPTERS["methods"], ["findings"]),
    shell:
        "{PYTHON:q} -m fer_utils.batch.job methods"


rule model:
    input:
        lambda wildcards: NOTEBOOKS / PLAN[wildcards.model, wildcards.seed]["notebook"],
    output:
        expand("{{model}}/seed-{{seed}}/{name}", name=["notebook.ipynb", *MODEL_FILES]),
    params:
        parameters=lambda wildcards: json.dumps(PLAN[wildcards.model, wildcards.seed]["parameters"], sort_keys=True),
        data=config["data_sha256"],
        code=lambda wildcards: model_code(NOTEBOOKS / PLAN[wildcards.model, wildcards.seed]["notebook"]),
    # As planned: this file is read again on the node, which has other cores.
    threads: lambda wildcards: PLAN[wildcards.model, wildcards.seed]["threads"]
    resources:
        # `--jobs` slots in all: cores divided by jobs may leave a remainder that another job would fit into.
        slot=1,
        runtime=lambda wildcards: PLAN[wildcards.model, wildcards.seed]["minutes"],
        **config["request"],
    shell:
        "{PYTHON:q} -m fer_utils.batch.job {wildcards.model} {wildcards.seed}"


rule findings:
    input:
        CHAPTERS["findings"],
        RUN_FILES,
    output:
        "findings/notebook.ipynb",
    params:
        code=code_hash(CHAPTERS["findings"], FINDINGS_CODE),
        # A function, because Snakemake would look for wildcards between the braces of a string.
        failures=lambda wildcards: failures(),
    shell:
        "{PYTHON:q} -m fer_utils.batch.job findings"


rule gradcam:
    input:
        RUN_FILES,
    output:
        "gradcam.json",
    params:
        code=code_hash(parts=APART),
    shell:
        "{PYTHON:q} -m fer_utils.training.gradcam"


rule audit:
    input:
        CHAPTERS["audit"],
        "findings/notebook.ipynb",
        "gradcam.json",
        RUN_FILES,
    output:
        "audit/notebook.ipynb",
        "claims.csv",
    params:
        code=code_hash(CHAPTERS["audit"], FINDINGS_CODE),
        # The audit puts the run beside it.
        published=PUBLISHED.read_text(encoding="utf-8") if PUBLISHED.exists() else "",
        failures=lambda wildcards: failures(),
    shell:
        "{PYTHON:q} -m fer_utils.batch.job audit"


rule report:
    input:
        "findings/notebook.ipynb",
        "audit/notebook.ipynb",
        [f"{name}/notebook.ipynb" for name in ("dataset", "methods") if Path(name, "notebook.ipynb").exists()],
        finished("notebook.ipynb"),
    output:
        "report.html",
    params:
        code=code_hash(parts=FINDINGS_CODE),
        failures=lambda wildcards: failures(),
    shell:
        "{PYTHON:q} -m fer_utils.report.page . >/dev/null"
