"""The batch run behind ``./run_all.sh``: choose profile, data and models, write the plan, call Snakemake."""

import argparse
import errno
import fcntl
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from fer_utils.batch import lifeline
from fer_utils.batch.cli import make_parser
from fer_utils.batch.job import JOBS
from fer_utils.batch.plan import make_plan
from fer_utils.errors import ConfigError, FerError
from fer_utils.files import remove_unfinished, write_json, write_text
from fer_utils.findings.results import read_run
from fer_utils.paths import project_root
from fer_utils.report.facts import commit_text
from fer_utils.words import duration

#: Seconds to wait for the jobs of a run that was killed; they look for it twice a second.
PATIENCE = 60


class Stopped(BaseException):
    """The run was stopped from outside.

    Parameters
    ----------
    number : int
        The signal.
    who : str
        Whom it ended.
    """

    def __init__(self, number, who="It"):
        super().__init__(f"{who} was stopped by {signal.Signals(number).name}.")
        self.status = 128 + number


def hold(out):
    """Take the run folder for this process and the Snakemake that it starts.

    The lock is one of the system's own: it ends with the last process that holds it, however that ended. The jobs of
    a run that was killed end by themselves; they are waited for, and what they left unfinished is removed.

    Returns
    -------
    file
        To be passed on to child processes.

    Raises
    ------
    ConfigError
        If another run is at work there, or jobs of one that is gone.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = open(out / ".lock", "a")  # noqa: SIM115 - it stays open as long as this process lives
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(f"{out}: another run is at work in this folder; wait for it or give another --out") from None
    if not wait_for_jobs(out):
        raise ConfigError(f"{out}: jobs of a run that is gone are still at work in this folder; end them or wait")
    remove_unfinished(out)
    replace_home(out)
    return lock


def wait_for_jobs(out, seconds=PATIENCE):
    """Wait until no job works in a run folder; return whether that came true."""
    (out / JOBS).parent.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + seconds
    with open(out / JOBS, "a") as jobs:
        while True:
            try:
                fcntl.flock(jobs, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > give_up:
                    return False
                time.sleep(0.1)


def replace_home(out):
    """Give Jupyter, Snakemake and matplotlib a place in the run folder where the home folder cannot be written."""
    if os.access(Path.home(), os.W_OK):
        return
    for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        if variable not in os.environ:
            folder = out / ".home" / variable.lower()
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[variable] = str(folder)


def snakemake(out, rules, plan, lock, extra=()):
    """Call Snakemake in the run folder for some rules.

    Returns
    -------
    int
        Its exit status.

    Raises
    ------
    Stopped
        If it was killed.
    """
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(project_root() / "Snakefile")]
    base += ["--directory", str(out), "--cores", str(max(os.cpu_count(), plan["jobs"]))]
    locks = out / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        # We hold the folder, so that whoever left these is gone.
        subprocess.run([*base, "--unlock"], capture_output=True, pass_fds=[lock.fileno()], check=True)
    command = [
        *base,
        *rules,
        "--resources",
        f"slot={plan['at_once']}",
        "--keep-going",
        "--rerun-incomplete",
        *extra,
    ]
    # The jobs' own lines go to the terminal; what Snakemake says about them is kept for when something fails.
    with open(out / "snakemake.log", "ab") as log:
        start = log.tell()
        process = subprocess.Popen(command, pass_fds=[lock.fileno()], stderr=log)
        try:
            status = process.wait()
        finally:
            # Where this process is stopped, the jobs end with Snakemake; by itself it would wait for them.
            process.kill()
            process.wait()
            if process.returncode < 0:
                wait_for_jobs(out)
    if status < 0:
        raise Stopped(-status, "Snakemake")
    if status and not read_run(out).failures:
        said = (out / "snakemake.log").read_bytes()[start:].decode(errors="replace")
        errors = [line for line in said.splitlines() if re.search(r"error|exception", line, re.IGNORECASE)]
        print(
            f"Snakemake ended with status {status}:",
            *errors[:5],
            f"All of it: {out / 'snakemake.log'}",
            sep="\n  ",
        )
    return status


def finish(out, status):
    """Print what came out of a run; return the exit status.

    Parameters
    ----------
    out : Path
        The run folder.
    status : int
        Snakemake's: where it is not 0, something could not be made.
    """
    run = read_run(out)
    estimates = {(entry["model"], entry["seed"]): entry["estimate"] for entry in run.plan["models"]}
    for result in run.models:
        scored = result.metrics["best"][result.final_part]
        times = result.record["times"]
        # An estimate made after the training has learnt from it.
        if times["finished"] < run.plan["created"]:
            beside = "in an earlier call"
        else:
            beside = f"estimated {duration(estimates[result.model, result.seed])}"
        print(
            f"  {result.label} (seed {result.seed}): accuracy {scored['accuracy']:.3f}, macro F1 "
            f"{scored['macro_f1']:.3f} on {scored['n']:,} images ({result.final_part}); took "
            f"{duration(times['train_seconds'] + times['evaluate_seconds'])}, {beside}"
        )
    for failure in run.failures:
        print(f"  FAILED: {failure['label']} (seed {failure['seed']}): {failure['error']}")
    if any(result.record["synthetic"] for result in run.models):
        print("  These come from synthetic data and are no results.")
    elif any(result.record["shortened"] for result in run.models):
        print("  These come from a shortened run and are no results.")
    missing = len(run.plan["models"]) - len(run.models)
    if missing:
        print(f"{missing} of {len(run.plan['models'])} trainings are missing; the same command tries them again.")
    return 1 if status or missing else 0


def publish(out):
    """Copy a run's figures to ``figures/``, with a note that says what made them.

    Raises
    ------
    ConfigError
        If the run is on synthetic data or a smoke run.
    """
    run = read_run(out)
    if run.plan["profile"] == "smoke" or run.plan["data_variant"] == "synthetic":
        raise ConfigError("--publish: a smoke run or synthetic data make no figures worth publishing")
    target = project_root() / "figures"
    for old in target.glob("*"):
        if old.suffix in (".svg", ".png", ".csv"):
            old.unlink()
    for path in sorted((out / "figures").glob("*")):
        shutil.copyfile(path, target / path.name)
    shutil.copyfile(out / "claims.csv", target / "claims.csv")
    # Where files lie on the machine is nobody's business but its own: of a path the last name is kept.
    command = re.sub(r"(?<![.\w])[~/][^\s']*/", "", run.plan["command"])
    models = [f"{m.label} (seed {m.seed}, initial weights: {m.record['weights']['used']})" for m in run.models]
    lines = [
        "# Published figures",
        "",
        f"Made by `{command}`, copied here with `--publish`.",
        "",
        f"- profile: {run.plan['profile']} ({run.plan['about']})",
        f"- data: {run.plan['data_variant']}, fingerprint `{run.plan['data_sha256']}`",
        f"- code: {'; '.join(sorted({commit_text(m.record) for m in run.models}))}",
        f"- device: {', '.join(sorted({m.record['device']['kind'] for m in run.models}))}",
        f"- models: {'; '.join(models)}",
        "",
    ]
    write_text(target / "README.md", "\n".join(lines))
    print(f"Published: {target}")


def newest_run():
    """Return the run folder whose plan was written last.

    Raises
    ------
    ConfigError
        If there is none.
    """
    plans = sorted((project_root() / "results").glob("*/plan.json"), key=os.path.getmtime)
    if not plans:
        raise ConfigError("there is no run under results/ yet; ./run_all.sh makes one")
    return plans[-1].parent


def make_report(arguments):
    """Make figures and report of a run again, without training: ``./run_all.sh report``."""
    parser = argparse.ArgumentParser(prog="./run_all.sh report", allow_abbrev=False)
    parser.add_argument("--out", metavar="DIR", help="run folder; default: the newest under results/")
    parser.add_argument("--publish", action="store_true", help="copy the figures to figures/ of the project")
    options = parser.parse_args(arguments)
    out = Path(options.out).expanduser().absolute() if options.out else newest_run()
    if not (out / "plan.json").exists():
        raise ConfigError(f"{out}: no plan.json, so that this is no run folder; ./run_all.sh makes one")
    lock = hold(out)
    # Two steps over what is there, one after the other: Snakemake would need seconds to say so.
    python, place = [sys.executable, "-m"], {"cwd": out, "pass_fds": [lock.fileno()]}
    failed = subprocess.run([*python, "fer_utils.batch.job", "findings"], **place).returncode
    # It prints where the report is, and so do we.
    failed = (
        failed or subprocess.run([*python, "fer_utils.report.page", "."], stdout=subprocess.DEVNULL, **place).returncode
    )
    return close(out, options, bool(failed))


def close(out, options, failed, status=0):
    """Say what came out of a run, publish it if asked; return the exit status.

    Parameters
    ----------
    out : Path
        The run folder.
    options : argparse.Namespace
        The parsed command line.
    failed : bool
        Whether findings or report could not be made.
    status : int
        Snakemake's for the models.
    """
    report = out / "report.html"
    status = finish(out, status or failed)
    if failed:
        print(f"The report could not be made{'; the one that is there is an older one' if report.exists() else ''}.")
        return 1
    print(f"Report: {report}")
    if options.publish:
        publish(out)
    return status


def make_run(arguments):
    """Run the workflow: ``./run_all.sh`` with options."""
    # What goes on to Snakemake decides no result, and may be an executor's credentials.
    command = shlex.join(["./run_all.sh", *itertools.takewhile(lambda word: word != "--", arguments)])
    extra = []
    if "--" in arguments:
        place = arguments.index("--")
        arguments, extra = arguments[:place], arguments[place + 1 :]
    options = make_parser().parse_args(arguments)
    options.elsewhere = any(word.startswith(("--executor", "-e")) for word in extra)
    plan, out = make_plan(options, command, on_message=lambda line: print(line, flush=True))
    lock = hold(out)
    write_json(out / "plan.json", plan)
    for entry in plan["models"]:
        # What failed is tried again, and how far it had come says nothing of how far it is now.
        (out / "failed" / f"{entry['model']}-seed-{entry['seed']}.json").unlink(missing_ok=True)
        (out / ".training" / entry["model"] / f"seed-{entry['seed']}" / "progress.json").unlink(missing_ok=True)
    # Where every training is there one call does, and mostly finds nothing to do. Where one is missing, or fails now,
    # the report is made over what the first call left.
    places = [out / entry["model"] / f"seed-{entry['seed']}" / "run.json" for entry in plan["models"]]
    complete = all(path.exists() for path in places)
    status = snakemake(out, ["models", "report"] if complete else ["models"], plan, lock, extra)
    failed = False if complete and not status else snakemake(out, ["report"], plan, lock, extra)
    return close(out, options, failed, status)


def raise_stopped(number, _):
    """Turn a signal into an exception, once: what it starts must not be stopped half way."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number, "The run")


def main(arguments=None):
    """Run the command line; errors of ours are a line, not a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    lifeline.lead(first=True)
    try:
        if arguments[:1] == ["report"]:
            return make_report(arguments[1:])
        return make_run(arguments)
    except FerError as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"run_all.sh: the disk is full; free some space and call again ({error})", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"\n{stopped} Nothing that was finished is lost: the same command goes on where this one stopped.")
        return stopped.status


if __name__ == "__main__":
    # The plan is printed in the order in which it is made, also into a file.
    sys.stdout.reconfigure(line_buffering=True)
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, raise_stopped)
    sys.exit(main())
