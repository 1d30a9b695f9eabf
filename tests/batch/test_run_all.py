"""run_all.sh itself, with a stand-in for Python that notes what it is asked to do."""

import shutil
import stat
import subprocess

import pytest

from fer_utils.paths import project_root

#: Answers for its version, makes an environment that holds itself, and writes everything else into a log.
PYTHON = """#!/bin/sh
echo "${{TF_CPP_MIN_LOG_LEVEL:-unset}}" >"$LOG.level"
case "$1" in
  -c) echo "{version}" ;;
  *) echo "$(basename "$0") $*" >>"$LOG" ;;
esac
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
"""


@pytest.fixture
def shell(tmp_path):
    """Return a function that runs a copy of the script, on a path with blanks, from somewhere else."""
    root = tmp_path / "a clone with blanks"
    root.mkdir()
    for name in ("run_all.sh", "requirements.txt", "requirements-gpu.txt", "pyproject.toml"):
        shutil.copy(project_root() / name, root / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "dirname", "basename", "cat", "cmp", "cp", "mkdir", "rm", "grep", "flock", "env"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)

    def run(*arguments, pythons=(), gpu=False, **environment):
        for name, version in dict(pythons).items():
            write(programs / name, PYTHON.format(version=version))
        if gpu:
            write(programs / "nvidia-smi", "#!/bin/sh\necho 'GPU 0: a stand-in'\n")
        log = tmp_path / "log"
        log.write_text("")
        clean = {"PATH": str(programs), "LOG": str(log), "HOME": str(tmp_path)}
        done = subprocess.run(
            [shutil.which("bash"), str(root / "run_all.sh"), *arguments],
            cwd=tmp_path,
            env=clean | environment,
            capture_output=True,
            text=True,
        )
        return done, log.read_text()

    return run


def write(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_it_makes_an_environment_once_and_hands_over(shell):
    done, log = shell("--seeds", "0,1", pythons={"python3.12": "3.12"})
    assert done.returncode == 0, done.stderr
    asked = log.splitlines()
    assert asked[0].startswith("python3.12 -m venv ") and asked[0].endswith("/a clone with blanks/.venv")
    assert asked[1].endswith("-r " + asked[0].split(" -m venv ")[1].replace("/.venv", "/requirements.txt"))
    assert "ipykernel install --sys-prefix --name fer2013" in asked[3]
    assert asked[-1] == "python -m fer_utils.batch.run --seeds 0,1"
    _, log = shell(pythons={"python3.12": "3.12"})
    assert log.splitlines() == ["python -m fer_utils.batch.run"]


def test_changed_requirements_make_it_anew(shell, tmp_path):
    shell(pythons={"python3.11": "3.11"})
    (tmp_path / "a clone with blanks" / "requirements.txt").write_text("another==1\n")
    _, log = shell(pythons={"python3.11": "3.11"})
    assert "-m venv" in log


def test_a_gpu_gets_an_environment_of_its_own(shell):
    _, log = shell(pythons={"python3": "3.13"}, gpu=True)
    assert "/.venv-gpu" in log and "requirements-gpu.txt" in log


@pytest.mark.parametrize(
    ("option", "gpu"),
    [(["--cluster", "slurm"], False), (["--cluster", "slurm:big"], True), (["--cluster=slurm:big"], True),
     (["--cluster", "slurm:mai"], False), (["--", "--cluster", "slurm:big"], False)],
)  # fmt: skip
def test_the_nodes_of_a_cluster_decide(shell, tmp_path, option, gpu):
    write(tmp_path / "bin" / "sinfo", "#!/bin/sh\necho 'main* (null)\nbig gpu:a100:4(S:0-1)'\n")
    _, log = shell(*option, pythons={"python3": "3.13"}, gpu=option == ["--cluster", "slurm"])
    assert ("/.venv-gpu" in log) == gpu


def test_the_tests_are_ruff_and_pytest(shell):
    _, log = shell("test", "-k", "some thing", pythons={"python3": "3.11"})
    asked = log.splitlines()[-3:]
    assert [line.split()[2] for line in asked] == ["ruff", "ruff", "pytest"]
    assert asked[-1].endswith("-k some thing")


def test_jupyterlab_listens_on_this_machine_only(shell):
    _, log = shell("lab", pythons={"python3": "3.11"})
    assert "python -P -m jupyterlab --ServerApp.ip=127.0.0.1" in log.splitlines()[-1]


@pytest.mark.parametrize(("call", "level"), [("lab", "unset"), ("try", "unset"), ("--seeds", "2"), ("report", "2")])
def test_a_run_logs_tensorflows_errors_and_jupyterlab_shows_no_red_boxes(shell, tmp_path, call, level):
    shell(call, pythons={"python3": "3.11"})
    assert (tmp_path / "log.level").read_text().strip() == level


@pytest.mark.parametrize(
    ("pythons", "environment", "words"),
    [
        ({"python3": "3.10"}, {}, ["Python 3.11, 3.12 or 3.13 is needed", "python3 is Python 3.10"]),
        ({"python3": "3.14"}, {}, ["python3 is Python 3.14"]),
        ({"python3.12": "3.12"}, {"PYTHON": "/no/such/python"}, ["PYTHON=/no/such/python does not run"]),
        ({}, {}, ["No Python was found"]),
    ],
)
def test_no_other_python_is_taken_and_the_reason_is_said(shell, pythons, environment, words):
    done, log = shell(pythons=pythons, **environment)
    assert done.returncode == 2 and not log and all(word in done.stderr for word in words)


def test_the_newest_supported_python_is_taken(shell):
    pythons = {"python3": "3.14", "python3.11": "3.11", "python3.12": "3.12"}
    assert shell(pythons=pythons)[1].startswith("python3.12 ")


def test_help_needs_no_environment():
    done = subprocess.run([str(project_root() / "run_all.sh"), "--help"], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0
    for option in ("--profile", "--data", "--models", "--seeds", "--jobs", "--kernel", "--out", "--set"):
        assert option in done.stdout


@pytest.mark.parametrize(("machine", "refused"), [("Darwin x86_64", True), ("Darwin arm64", False)])
def test_a_mac_with_an_intel_processor_is_refused_with_the_reason(shell, tmp_path, machine, refused):
    write(tmp_path / "bin" / "uname", f"#!/bin/sh\necho {machine}\n")
    done, _ = shell("report", pythons={"python3": "3.12"})
    assert (done.returncode == 2) == refused
    assert ("no build" in done.stderr and "Apple silicon" in done.stderr) == refused
