"""The batch run behind ``./run_all.sh``: make the plan, call Snakemake, say what came out."""

import argparse
import errno
import itertools
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import filelock
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from fer_utils.batch import processes, verify, workflow
from fer_utils.batch.cli import make_parser
from fer_utils.batch.plan import make_plan
from fer_utils.batch.progress import name_of
from fer_utils.batch.published import publish, refuse
from fer_utils.batch.workflow import PATIENCE, Stopped
from fer_utils.errors import ConfigError, FerError
from fer_utils.files import SILENCE, remove_unfinished, write_json
from fer_utils.findings import comparisons
from fer_utils.findings.results import read_object, read_run
from fer_utils.paths import project_root
from fer_utils.words import duration, listed, p_value


def hold(out, on_cluster=False):
    """Lock the run folder, end what is left of a run that was killed, and remove its unfinished files.

    Returns the lock, which the system releases when this process ends; ConfigError if another run is at work there, or
    SLURM does not say whether jobs of one are.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(f"{out}: another run is at work in this folder; wait for it or give another --out") from None
    if host := processes.owner_elsewhere(out):
        raise ConfigError(
            f"{out}: another run is at work in this folder, on {host}; wait for it or give another --out. If it was "
            f"killed, call again in {SILENCE} seconds"
        )
    # Before anything is removed: what an earlier call left in the queue. It ends by itself once the folder is ours.
    earlier = (out / processes.OWNER).exists() and read_object(out / "plan.json")[0].get("cluster")
    processes.own(out)
    if on_cluster or earlier:
        try:
            workflow.cancel(out)
        except ConfigError as error:
            if on_cluster:
                raise
            print(f"*** {error}\n*** Jobs of an earlier call that are still at work end by themselves.")
    if not processes.wait_for_others(out, PATIENCE):
        raise ConfigError(f"{out}: jobs of a run that is gone are still at work in this folder; end them or wait")
    remove_unfinished(out)
    replace_home(out)
    return lock


def replace_home(out):
    """Give Jupyter, Snakemake and matplotlib a place in the run folder where the home folder cannot be written."""
    if os.access(Path.home(), os.W_OK):
        return
    for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        if variable not in os.environ:
            folder = out / ".home" / variable.lower()
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[variable] = str(folder)


def close(out, publishing, failed, status=0):
    """Say what came out of a run, publish it if asked; return the exit status.

    `failed` is whether findings, audit or report could not be made, `status` Snakemake's for the models.
    """
    run = read_run(out)
    estimates = {(entry["model"], entry["seed"]): entry["estimate"] for entry in run.plan["models"]}
    for result in run.models:
        scored = result.metrics["best"][result.final_part]
        # An estimate made after the training has learnt from it.
        earlier = result.record["times"]["finished"] < run.plan["created"] or result.key not in estimates
        print(
            f"  {name_of(result)}: accuracy {scored['accuracy']:.3f}, macro F1 {scored['macro_f1']:.3f} on "
            f"{scored['n']:,} images ({result.final_part}); training and scoring took "
            f"{duration(result.seconds)}, "
            + ("in an earlier call" if earlier else f"estimated {duration(estimates[result.key])}")
        )
    for training in run.trainings:
        if training.failure:
            print(f"  FAILED: {name_of(training)}: {training.failure['error']}")
    if run.models and not run.is_result:
        print(f"  These are no results: {'; '.join(run.reasons.values())}.")
    missing = len(run.trainings) - len(run.models)
    if missing:
        print(f"{missing} of {len(run.trainings)} trainings are missing; the same command tries them again.")
    report = out / "report.html"
    if failed:
        print(f"The report could not be made{'; the one that is there is an older one' if report.exists() else ''}.")
        return 1
    # Without one where options after -- asked Snakemake for a part of the run.
    if report.exists():
        print(f"Report: {report}")
    if publishing:
        publish(run)
    return 1 if status or missing else 0


def make_report(arguments):
    """Make figures and report of a run again, without training: ``./run_all.sh report``."""
    parser = argparse.ArgumentParser(prog="./run_all.sh report", allow_abbrev=False)
    parser.add_argument("--out", metavar="DIR", help="run folder; default: the newest under results/")
    parser.add_argument("--publish", action="store_true", help="copy the figures to figures/ of the project")
    options = parser.parse_args(arguments)
    plans = sorted((project_root() / "results").glob("*/plan.json"), key=os.path.getmtime)
    if not options.out and not plans:
        raise ConfigError("there is no run under results/ yet; ./run_all.sh makes one")
    out = Path(options.out).expanduser().absolute() if options.out else plans[-1].parent
    if not (out / "plan.json").exists():
        raise ConfigError(f"{out}: no plan.json, so that this is no run folder; ./run_all.sh makes one")
    if out == comparisons.PUBLISHED:
        raise ConfigError(f"{out} is the published set, with its report.html; copy the folder to make the report again")
    lock = hold(out)
    # Over what is there: Snakemake would need seconds to say so. The page prints where it is, and so do we.
    steps = [["fer_utils.batch.job", "findings"], ["fer_utils.batch.job", "audit"], ["fer_utils.report.page", "."]]
    if "faces" not in read_object(out / "gradcam.json")[0]:  # else it is there: a report changes no network
        steps.insert(1, ["fer_utils.training.gradcam"])
    for words in steps:
        output = subprocess.DEVNULL if words[-1] == "." else None
        done = subprocess.run([sys.executable, "-m", *words], cwd=out, stdout=output)
        if done.returncode:
            break
    status = close(out, options.publish, bool(done.returncode))
    lock.release()
    return status


def find_run(name):
    """Read the run folder that the command line names; ``published`` is ``figures/``."""
    folder = comparisons.PUBLISHED if name == "published" else Path(name).expanduser().absolute()
    run = read_run(folder)
    if not run.models:
        raise ConfigError(f"{folder}: no finished training there; expected a run folder, as ./run_all.sh makes it")
    return run


def compare(arguments):
    """Put two runs side by side and say what may explain the difference: ``./run_all.sh compare``."""
    parser = argparse.ArgumentParser(prog="./run_all.sh compare", allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="run folder, or published")
    parser.add_argument("other", metavar="OTHER", nargs="?", default="published", help="default: published, figures/")
    options = parser.parse_args(arguments)
    run, other = find_run(options.run), find_run(options.other)
    paired = comparisons.pairs(run, other)
    if not paired:
        models = (listed(dict.fromkeys(result.model for result in side.models)) for side in (run, other))
        raise ConfigError("{} and {}: no model is in both ({}; {})".format(options.run, options.other, *models))
    table, scored = comparisons.side_by_side(paired), comparisons.score(paired)
    table["b"] = table["b"].where(table["differs"] != "", "the same")
    shown = scored.assign(p=scored["p"].map(p_value)).round(4).astype(str).replace("nan", "–")
    shown.columns = [name.replace("_", " ").replace("difference", "a - b") for name in shown]
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    for rows in (table.drop(columns="recorded"), shown):
        grid = Table(*(Column(name, overflow="fold") for name in rows), box=None, pad_edge=False)
        for row in rows.to_numpy():
            grid.add_row(*map(escape, row), style="bold" if "differs" in rows and row[-1] else None)
        console.print(grid, "")
    print(f"a is {run.folder}, b is {other.folder}. {comparisons.sentence(scored, table, ('a', 'b'))}")
    return 0


def make_run(arguments):
    """Run the workflow: ``./run_all.sh`` with options."""
    # What goes on to Snakemake decides no result, and may be an executor's credentials.
    own = list(itertools.takewhile(lambda word: word != "--", arguments))
    extra = arguments[len(own) + 1 :]
    options = make_parser().parse_args(own)
    extra, options.elsewhere, dry = workflow.read_options(extra)
    command = shlex.join(["./run_all.sh", *own])
    plan, out = make_plan(options, command, on_message=lambda line: print(line, flush=True))
    if options.publish:
        refuse(plan)
    if dry:
        return workflow.rehearse(out, plan, extra)
    lock = hold(out, on_cluster=bool(plan["cluster"]))
    write_json(out / "plan.json", plan)
    for entry in plan["models"]:
        # What failed is tried again, and how far it had come says nothing of how far it is now.
        (out / "failed" / f"{entry['model']}-seed-{entry['seed']}.json").unlink(missing_ok=True)
        (out / ".training" / entry["model"] / f"seed-{entry['seed']}" / "progress.json").unlink(missing_ok=True)
    # Where every training is there one call does, and mostly finds nothing to do. Where one is missing, or fails now,
    # the report is made over what the first call left.
    run = read_run(out)
    complete = len(run.models) == len(run.trainings)
    status = workflow.run_rules(out, ["models", "report"] if complete else ["models"], plan, extra)
    here = plan | {"cluster": None, "elsewhere": False}
    failed = False if complete and not status else workflow.run_rules(out, ["report"], here, extra)
    status = close(out, options.publish, failed, status)
    lock.release()
    return status


def raise_stopped(number, _):
    """Turn a signal into an exception, once: what it starts must not be stopped half way."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number, "The run")


def main(arguments=None):
    """Run the command line; errors of ours are a line, not a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    processes.lead(first=True)
    try:
        words = {"report": make_report, "verify": verify.main, "compare": compare}
        call = words.get(arguments[0]) if arguments else None
        return call(arguments[1:]) if call else make_run(arguments)
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
