"""A run whose jobs are on other machines, with stand-ins for SLURM's commands; faults/slurm.py has a real one."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
from planted import plant_run
from rich.console import Console

from fer_utils import files
from fer_utils.batch import cli, cluster, processes, progress, run, workflow
from fer_utils.batch import job as jobs
from fer_utils.batch import plan as planning
from fer_utils.constants import USAGES
from fer_utils.errors import ConfigError
from fer_utils.findings.results import read_run
from fer_utils.paths import project_root

GPU_ROWS = "main* (null)\nbig gpu:a100:4(S:0-1)\nmixed (null)\nmixed mps:100,gpu:2\nlittle gpumem:5\n"

#: Jobs are lines of a file; scancel notes what it is asked to cancel and, unless told otherwise, drops them.
SCANCEL = """#!/bin/sh
echo "$*" >>{folder}/cancelled
for number in "$@"; do sed -i "/^$number|/d" {folder}/queue; done
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """SLURM's commands: the folder that holds the ``queue``, and what was ``cancelled``."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "queue").write_text("")
    (folder / "partitions").write_text(GPU_ROWS)
    scripts = {"squeue": f"#!/bin/sh\ncat {folder}/queue\n", "sinfo": f"#!/bin/sh\ncat {folder}/partitions\n"}
    scripts["scontrol"] = "#!/bin/sh\necho 'MessageTimeout = 10 sec'; echo 'MinJobAge               = 120 sec'\n"
    for name, text in (scripts | {"scancel": SCANCEL.format(folder=folder)}).items():
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def plan(tmp_path, *arguments, messages=None):
    words = ["--data", "synthetic", "--kernel", "python3", "--out", str(tmp_path / "run"), *arguments]
    return planning.make_plan(
        cli.make_parser().parse_args(words), "planted", [].append if messages is None else messages.append
    )[0]


@pytest.fixture
def _data(monkeypatch):
    """Labels without images: to draw faces takes seconds."""
    shape = {"usage": np.repeat(USAGES, 84), "labels": np.tile(np.repeat(np.arange(7), 12), 3), "notes": ()}
    fingerprint = {"variant": "synthetic", "sha256": "0" * 64, "description": "planted"}
    data = SimpleNamespace(fingerprint=fingerprint, path=None, source="planted", **shape)
    monkeypatch.setattr(planning.datasets, "load", lambda source, **options: data)


# --- what is planned ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0-3", [0, 1, 2, 3]), ("7,2-4,3,7", [7, 2, 3, 4]), ("5-5", [5])]
)
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert planning.read_seeds(text) == seeds


@pytest.mark.parametrize(
    ("partition", "gpus"), [(None, False), ("big", True), ("mixed", True), ("little", False), ("main", False)]
)
def test_the_nodes_of_a_partition_have_gpus(slurm, partition, gpus):
    assert cluster.has_gpus(partition) == gpus


def test_a_partition_that_is_not_there_is_refused_by_name(slurm, monkeypatch):
    with pytest.raises(ConfigError, match="no such partition; there are main, big, mixed, little"):
        cluster.has_gpus("bigger")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="there is no command sinfo here"):
        cluster.has_gpus()


@pytest.mark.usefixtures("_data")
def test_what_a_training_asks_of_a_node_is_planned_once(slurm, tmp_path, monkeypatch):
    """Neither the login node's memory and cores nor its GPUs limit it."""
    monkeypatch.setattr(planning.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(planning.psutil, "virtual_memory", lambda: pytest.fail("the memory of this machine"))
    monkeypatch.setattr(planning, "count_gpus", lambda: pytest.fail("the GPUs of this machine"))
    # Begun with 3 threads, and so to be ended.
    state = tmp_path / "run" / ".training" / "traditional_cnn" / "seed-1"
    (state / "state-x").mkdir(parents=True)
    (state / "state-x" / "state.json").write_text("{}")
    (state / "resolved.json").write_text('{"threads": 3}')
    words = ["--models", "traditional_cnn", "--seeds", "0-1", "--jobs", "8", "--cluster"]
    said = []
    made = plan(tmp_path, *words, "slurm", messages=said)
    assert [line for line in said if line.startswith("*** SLURM forgets an ended job after 120 s")]
    assert [entry["threads"] for entry in made["models"]] == [planning.NODE_THREADS, 3]
    assert (made["cluster"], made["at_once"], made["gpus"]) == ("slurm", 8, 0)
    assert made["request"] == {"mem_mb": planning.NODE_MEMORY}
    assert plan(tmp_path, *words, "slurm:big")["request"] == {
        "mem_mb": planning.NODE_MEMORY, "gpu": 1, "slurm_partition": "big",
    }  # fmt: skip
    assert [e["threads"] for e in plan(tmp_path, *words, "slurm", "--set", "threads=2")["models"]] == [2, 2]


@pytest.mark.usefixtures("_data")
def test_the_cores_of_this_machine_are_shared_by_its_jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(planning.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(planning, "count_gpus", lambda: 0)
    assert {entry["threads"] for entry in plan(tmp_path, "--jobs", "3")["models"]} == {2}


@pytest.mark.parametrize(("seconds", "minutes"), [(20, 30), (600, 30), (601, 31), (36_000, 1800)])
def test_the_time_asked_for_is_three_times_the_estimate(seconds, minutes):
    assert planning.request_minutes(seconds) == minutes


# --- options for Snakemake ----------------------------------------------------------------------------------


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    """Profiles beside the working directory."""
    pytest.importorskip("snakemake_executor_plugin_slurm")
    for name, text in (("dry", "dry-run: true"), ("far", "executor: slurm"), ("near", "keep-going: true")):
        (tmp_path / "here" / name).mkdir(parents=True)
        (tmp_path / "here" / name / "config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)


@pytest.mark.parametrize(
    ("extra", "variable", "elsewhere", "dry"),
    [
        ([], None, False, False),
        (["--dry-run"], None, False, True),
        (["-nq"], None, False, True),
        (["--workflow-profile", "dry"], None, False, True),
        ([], "dry", False, True),
        ([], "far", True, False),
        (["--workflow-profile=far"], None, True, False),
        (["--workflow-profile", "profiles/slurm"], None, True, False),
        (["--profile", "near"], None, False, False),
        (["-e", "slurm"], None, True, False),
        (["--executor", "local"], "far", False, False),
    ],
)
def test_what_a_profile_says_is_noticed(profiles, monkeypatch, extra, variable, elsewhere, dry):
    if variable:
        monkeypatch.setenv("SNAKEMAKE_PROFILE", str(Path(variable).absolute()))
    assert workflow.read_options(extra)[1:] == (elsewhere, dry)


def test_profiles_are_found_from_here_and_in_the_project(profiles, tmp_path):
    own = str(project_root() / "profiles" / "slurm")
    for extra, expected in (
        (["--workflow-profile", "far", "-q"], ["--workflow-profile", str(tmp_path / "here" / "far"), "-q"]),
        (["--workflow-profile=profiles/slurm"], [f"--workflow-profile={own}"]),
        (["--workflow-profile", "slurm"], ["--workflow-profile", own]),
        (["--profile", "near", "dry"], ["--profile", *(str(tmp_path / "here" / name) for name in ("near", "dry"))]),
        (["--profile", "none", "--until", "near"], ["--profile", "none", "--until", "near"]),
    ):
        assert list(workflow.find_profiles(extra)) == expected
    with pytest.raises(ConfigError, match="--workflow-profile fra: there is no such profile"):
        workflow.read_options(["--workflow-profile", "fra"])
    with pytest.raises(ConfigError, match="Snakemake refuses its options: .*no-such"):
        workflow.read_options(["--no-such"])


@pytest.mark.usefixtures("_data")
def test_a_dry_run_is_dry(tmp_path, monkeypatch, capfd):
    out = tmp_path / "run"
    words = ["--data", "synthetic", "--kernel", "python3", "--models", "traditional_cnn", "--out", str(out)]
    files.write_json(out / "plan.json", plan(tmp_path, "--models", "traditional_cnn"))
    files.write_json(out / "failed" / "traditional_cnn-seed-0.json", {"error": "planted"})
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    # Another run may be at work.
    with filelock.FileLock(tmp_path / "run" / ".lock"):
        assert run.main([*words, "--seeds", "0-2", "--", "-n"]) == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if ".snakemake" not in path.parts}
    assert {path for path in after if after[path] != before.get(path)} <= {out, out / ".lock"}
    shown = "".join(capfd.readouterr())
    assert "Report:" not in shown and "traditional_cnn/seed-2/run.json" in shown
    # Where nothing is, nothing will be.
    done = subprocess.CompletedProcess([], 3)
    monkeypatch.setattr(workflow.subprocess, "run", lambda words, **options: asked.extend(words) or done)
    asked, made = [], json.loads((out / "plan.json").read_text())
    assert workflow.rehearse(tmp_path / "not there", made, ["--quiet"]) == 3
    assert str(tmp_path / "not there") not in asked and asked[-2:] == ["--dry-run", "--quiet"]


# --- whose folder it is -------------------------------------------------------------------------------------

FOLLOWER = """
import os, sys, time
from pathlib import Path
from fer_utils.batch import processes
processes.follow(lambda: os._exit(7), Path(sys.argv[1]))
print("follows", flush=True)
time.sleep(30)
"""


def follower(out):
    return subprocess.Popen([sys.executable, "-c", FOLLOWER, str(out)], stdout=subprocess.PIPE, text=True)


def test_a_job_ends_when_its_folder_is_another_runs(tmp_path):
    """On a node, where no process of the run can be seen."""
    processes.own(tmp_path)
    with follower(tmp_path) as job:
        assert job.stdout.readline() == "follows\n"
        mine = os.environ[processes.RUN_ID]
        processes.own(tmp_path)
        assert job.wait(10) == 7
        # One that was still waiting does not begin.
        os.environ[processes.RUN_ID] = mine
        with follower(tmp_path) as late:
            assert late.wait(10) == 7 and late.stdout.read() == ""
        # Whoever lost the folder does not give it up for the new owner.
        processes.disown(tmp_path)
        assert (tmp_path / processes.OWNER).exists() and not processes.owned(tmp_path)


def test_a_file_that_cannot_be_read_ends_no_job(tmp_path):
    processes.own(tmp_path)
    (tmp_path / processes.OWNER).write_text("")
    assert processes.owned(tmp_path)
    (tmp_path / processes.OWNER).unlink()
    assert not processes.owned(tmp_path)


def test_a_run_on_another_host_is_seen_by_its_sign_of_life(tmp_path):
    files.write_json(tmp_path / processes.OWNER, {"id": "x", "host": "login2"})
    with pytest.raises(ConfigError, match="another run is at work in this folder, on login2"):
        run.hold(tmp_path)
    owner = json.loads((tmp_path / processes.OWNER).read_text())
    assert owner["id"] == "x"
    long_ago = time.time() - files.SILENCE - 1
    os.utime(tmp_path / processes.OWNER, (long_ago, long_ago))
    run.hold(tmp_path).release()
    assert processes.owned(tmp_path)


def test_what_changed_within_a_minute_is_not_removed(tmp_path):
    for name, age in (("old", files.SILENCE + 1), ("young", 0), ("written", files.SILENCE + 1)):
        folder = tmp_path / f".{name}.unfinished"
        folder.mkdir()
        (folder / "file").touch()
        when = time.time() - age
        for path in (folder / "file", folder):
            os.utime(path, (when, when))
    (tmp_path / ".written.unfinished" / "file").write_text("more")
    files.remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".written.unfinished", ".young.unfinished"]


# --- jobs in the queue --------------------------------------------------------------------------------------


def fill(slurm, out, other="fer-0000000000000000"):
    """Jobs 1, 2 and 4 are the folder's."""
    own = cluster.name(out)
    rows = [f"1|{own}_x|RUNNING|None", f"2|{own}_x|PENDING|Resources", f"3|{other}_y|RUNNING|None"]
    (slurm / "queue").write_text("\n".join([*rows, f"4|{own}_z|PENDING|Priority", "5|bash|RUNNING|None"]) + "\n")


def test_jobs_of_an_earlier_call_are_ended_before_anything_is_removed(slurm, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    fill(slurm, out)
    monkeypatch.setattr(run, "remove_unfinished", lambda folder: (slurm / "cancelled").rename(slurm / "was first"))
    run.hold(out, on_cluster=True).release()
    assert (slurm / "was first").read_text() == "1 2 4\n"
    assert "3 jobs of this folder cancelled in SLURM's queue" in capsys.readouterr().out
    assert cluster.describe_queue(out) == "" and len((slurm / "queue").read_text().splitlines()) == 2


def test_where_slurm_does_not_answer_nothing_is_begun(slurm, tmp_path, capsys):
    (slurm / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match="SLURM does not answer: squeue .*Unable to contact slurm controller"):
        run.hold(tmp_path / "out", on_cluster=True)
    # A folder that an earlier call left on its way, seen from a machine without SLURM: its jobs end by themselves.
    out = tmp_path / "copied"
    files.write_json(out / "plan.json", {"cluster": "slurm"})
    files.write_json(out / processes.OWNER, {"id": "x", "host": os.uname().nodename})
    run.hold(out).release()
    assert "still at work end by themselves" in capsys.readouterr().out


def test_jobs_that_do_not_end_are_named(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "INTERVAL", 0.05)
    (slurm / "scancel").write_text("#!/bin/sh\n")
    fill(slurm, tmp_path)
    with pytest.raises(ConfigError, match="still in SLURM's queue: 1, 2, 4"):
        cluster.cancel(tmp_path, seconds=0.1)


SNAKEMAKE = """
import os, signal, sys, time
from pathlib import Path
from fer_utils.batch import processes
out = Path(sys.argv[1])
{handler}
try:
    print("ready", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    # A second one, as from the terminal and the run, must not stop it half way.
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
    (out / "cancelled").touch()
"""


@pytest.mark.parametrize(
    ("handler", "cancels"),
    [("processes.interrupt_once()", True), ("signal.signal(signal.SIGINT, signal.SIG_IGN)", False)],
)
def test_snakemake_is_interrupted_and_waited_for(slurm, tmp_path, monkeypatch, handler, cancels):
    monkeypatch.setattr(workflow, "CANCELLING", 5 if cancels else 1)
    processes.own(tmp_path)
    fill(slurm, tmp_path)
    command = [sys.executable, "-c", SNAKEMAKE.format(handler=handler), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        workflow.stop(tmp_path, {"cluster": "slurm"}, process)
        assert process.returncode == (0 if cancels else -signal.SIGKILL)
    assert (tmp_path / "cancelled").exists() == cancels
    # What it did not know of: submitted while it was interrupted.
    assert (slurm / "cancelled").read_text() == "1 2 4\n"
    assert not (tmp_path / processes.OWNER).exists()


# --- failures -----------------------------------------------------------------------------------------------

LOG = """
Error in rule model:
    message: SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'. Detailed failure reason unavailable (status \
command is not 'sacct').For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 3
    output: m1/seed-12/notebook.ipynb, m1/seed-12/run.json
    log: {out}/.snakemake/slurm logs/7.log (check log file(s) for error details)
[Fri Nov 27 23:58:59 2026]
Error in rule model:
    message: None
    jobid: 2
    output: m0/seed-0/notebook.ipynb, m0/seed-0/run.json
[Fri Nov 27 23:58:59 2026]
Error in rule dataset:
    message: None
    output: dataset/notebook.ipynb, dataset/dataset.json
"""


def test_a_job_that_was_killed_has_a_record_of_why(tmp_path):
    models = [{"model": m, "seed": s, "label": m.upper(), "estimate": 1} for m, s in (("m0", 0), ("m1", 12), ("m2", 0))]
    files.write_json(tmp_path / "plan.json", {"models": models})
    workflow.record_lost(tmp_path, LOG.format(out=tmp_path))
    found = {f"{f['model']} {f['seed']}": f["error"] for f in read_run(tmp_path).failures}
    assert found == {
        "m0 0": "its job left no word of why it ended: it was killed",
        "m1 12": "its job left no word of why it ended: SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'; "
        "log: .snakemake/slurm logs/7.log",
    }
    # SLURM's own word for it, where there is one.
    (tmp_path / "failed" / "m1-seed-12.json").unlink()
    path = tmp_path / ".snakemake" / "slurm logs" / "7.log"
    path.parent.mkdir(parents=True)
    path.write_text("M1: begins\nslurmstepd-n7: error: *** JOB 7 CANCELLED DUE TO TIME LIMIT ***\nsrun: error: more\n")
    workflow.record_lost(tmp_path, LOG.format(out=tmp_path))
    assert "'OUT_OF_MEMORY' (JOB 7 CANCELLED DUE TO TIME LIMIT); log: " in read_run(tmp_path).failures[1]["error"]
    # One that left a record of its own keeps it.
    files.write_json(tmp_path / "failed" / "m0-seed-0.json", {"error": "its own"})
    workflow.record_lost(tmp_path, LOG.format(out=tmp_path))
    assert [f["error"] for f in read_run(tmp_path).failures][0] == "its own"


def test_a_failure_beside_a_result_is_an_old_one(tmp_path):
    plant_run(tmp_path, models=("vgg16",))
    files.write_json(tmp_path / "failed" / "vgg16-seed-0.json", {"error": "an old one"})
    assert read_run(tmp_path).failures == [] and len(read_run(tmp_path).models) == 1
    (tmp_path / "vgg16" / "seed-0" / "run.json").unlink()
    assert [failure["error"] for failure in read_run(tmp_path).failures] == ["an old one"]


def test_a_training_that_another_process_holds_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "KERNEL_END", 0.1)
    monkeypatch.setattr(jobs, "execute", lambda *words: (_ for _ in ()).throw(ConfigError("another process trains")))
    entry = {"model": "m", "seed": 0, "label": "M", "notebook": "n.ipynb", "parameters": {}, "threads": 1}
    result, state = tmp_path / "m" / "seed-0", tmp_path / ".training" / "m" / "seed-0"
    files.write_json(result / "run.json", {})
    state.mkdir(parents=True)
    with filelock.FileLock(state / "lock"):
        assert jobs.run_model({"kernel": "python3"}, tmp_path, entry) is False
    assert (result / "run.json").exists() and not (tmp_path / "failed").exists()
    assert "left alone, another process is training it: ConfigError: another process" in capsys.readouterr().out
    assert jobs.run_model({"kernel": "python3"}, tmp_path, entry) is False
    assert not result.exists() and len(list((tmp_path / "failed").iterdir())) == 1


# --- what the terminal shows --------------------------------------------------------------------------------


def test_the_terminal_shows_what_jobs_on_nodes_say(slurm, tmp_path, capsys):
    out = tmp_path / "out"
    plant_run(out, models=("m0",), times={"train_seconds": 80.0, "evaluate_seconds": 20.0})
    models = [{"model": f"m{k}", "seed": 0, "label": f"M{k}", "estimate": 1, "threads": 1} for k in range(3)]
    files.write_json(out / "plan.json", json.loads((out / "plan.json").read_text()) | {"models": models})
    (out / "m0").rename(out / "later")
    queue = lambda: cluster.describe_queue(out)  # noqa: E731
    reporter = progress.Reporter(out, Console(file=io.StringIO()), elsewhere=True, queue=queue)
    reporter.tell(read_run(out))
    fill(slurm, out)
    files.write_json(out / ".training/m1/seed-0/progress.json", {"done": 0, "epochs": 1, "finished": 0})
    reporter.tell(read_run(out))
    (out / "later").rename(out / "m0")
    files.write_json(out / "failed" / "m1-seed-0.json", {"error": "planted"})
    for _ in range(2):
        reporter.tell(read_run(out))
    said = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
    accuracy = read_run(out).models[0].metrics["best"]["private"]["accuracy"]
    assert said == [
        "M1 (seed 0): begins",
        "1 at work on nodes, 2 waiting in SLURM's queue (Resources, Priority)",
        f"M0 (seed 0): done in 2 min, accuracy {accuracy:.3f} (private)",
        "M1 (seed 0): FAILED: planted",
    ]


def test_the_plugin_is_among_the_pins():
    """An environment that is made anew has it."""
    for name in ("requirements-base.in", "requirements.txt", "requirements-gpu.txt"):
        assert "snakemake-executor-plugin-slurm" in (project_root() / name).read_text(), name
