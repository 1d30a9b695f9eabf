"""Snakemake, called in a run folder and stopped there, and the options that go on to it."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from fer_utils.batch import cluster, processes
from fer_utils.batch.progress import Reporter
from fer_utils.errors import ConfigError
from fer_utils.files import write_json
from fer_utils.findings.results import read_run
from fer_utils.paths import project_root

#: Seconds to wait for the processes of a run that was killed, and for Snakemake to cancel what is in a queue: it does
#: so at once, and may then sleep for minutes before it ends.
PATIENCE, CANCELLING = 60, 10


class Stopped(BaseException):
    """The run, or its Snakemake, was ended by a signal."""

    def __init__(self, number, who="It"):
        super().__init__(f"{who} was stopped by {signal.Signals(number).name}.")
        self.status = 128 + number


def read_options(extra):
    """Look at what goes on to Snakemake, in a profile of its own and in SNAKEMAKE_PROFILE too.

    Returns the words with absolute paths of profiles, whether jobs go to other machines, and whether nothing is done.
    """
    if not extra and "SNAKEMAKE_PROFILE" not in os.environ:
        return extra, False, False
    # A second to import.
    from snakemake.cli import parse_args

    extra = list(find_profiles(extra))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = parse_args(["--snakefile", str(project_root() / "Snakefile"), *extra])[1]
    except SystemExit:
        raise ConfigError(f"Snakemake refuses its options: {said.getvalue().strip().splitlines()[-1]}") from None
    except Exception as error:
        raise ConfigError(f"Snakemake refuses its options: {' '.join(str(error).split())}") from None
    return extra, options.executor not in (None, "local"), options.dryrun


def find_profiles(words):
    """Yield options for Snakemake, relative paths of profiles made absolute: from here, or from the project."""
    option = ""
    for word in words:
        equals, value = "", word
        if word.startswith("-"):
            option, equals, value = word.partition("=")
        if option in ("--profile", "--workflow-profile") and value not in ("", "none"):
            places = [root / value for base in (Path.cwd(), project_root()) for root in (base, base / "profiles")]
            found = next((str(place) for place in places if place.exists()), None)
            if not found and option == "--workflow-profile":
                # Snakemake would go on without it, on this machine.
                raise ConfigError(f"--workflow-profile {value}: there is no such profile here or in {project_root()}")
            word = f"{option}{equals}{found or value}" if equals else found or value
        yield word


def base_command(out, rules, plan):
    """Return the words of a call of Snakemake for some rules of a plan."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(project_root() / "Snakefile")]
    words += ["--directory", str(out)]
    if plan["cluster"]:
        profile = project_root() / "profiles" / plan["cluster"]
        words += ["--workflow-profile", str(profile), "--slurm-jobname-prefix", cluster.name(out)]
    # Where jobs go elsewhere, the cores of this machine are no limit for them.
    words += ["--jobs", str(plan["jobs"])] if plan["elsewhere"] else ["--cores", str(max(os.cpu_count(), plan["jobs"]))]
    return [*words, "--resources", f"slot={plan['at_once']}", "--keep-going", "--rerun-incomplete", *rules]


def rehearse(out, plan, extra):
    """Have Snakemake say what it would do, and change nothing; return its exit status."""
    environment = {key: value for key, value in os.environ.items() if key != processes.VARIABLE}
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "plan.json", plan)
        command = base_command(out if out.exists() else Path(folder), ["models", "report"], plan)
        command += ["--configfile", str(Path(folder) / "plan.json")]
        return subprocess.run([*command, "--dry-run", *extra], env=environment).returncode


def run_rules(out, rules, plan, extra=()):
    """Call Snakemake in the run folder for some rules, report the progress and return the exit status."""
    command = base_command(out, rules, plan)
    locks = out / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        # We hold the folder, so that whoever left these is gone.
        subprocess.run([*command, "--unlock"], capture_output=True, check=True)
    queue = (lambda: cluster.describe_queue(out)) if plan["cluster"] else None
    # The jobs' own lines go to the terminal; what Snakemake says about them is kept for when something fails.
    with open(out / "snakemake.log", "ab") as log, Reporter(out, elsewhere=plan["elsewhere"], queue=queue) as reporter:
        start = log.tell()
        pipe = subprocess.PIPE if reporter.live else None
        process = subprocess.Popen([*command, *extra], stderr=log, stdout=pipe, text=True, errors="replace")
        try:
            for line in process.stdout or ():
                print(line, end="")
            status = process.wait()
        finally:
            if process.poll() != 0:
                stop(out, plan, process)
    if status < 0:
        raise Stopped(-status, "Snakemake")
    said = (out / "snakemake.log").read_bytes()[start:].decode(errors="replace")
    if status:
        record_lost(out, said)
    if status and not read_run(out).failures:
        errors = [line for line in said.splitlines() if re.search(r"error|exception", line, re.IGNORECASE)]
        lines = [f"Snakemake ended with status {status}:", *errors[:5], f"All of it: {out / 'snakemake.log'}"]
        print(*lines, sep="\n  ")
    return status


def stop(out, plan, process):
    """End Snakemake and its jobs, on whatever machine; one that has ended by itself may have left some."""
    if process.poll() is None:
        # It cancels what it has submitted; by itself it would wait for the others, and does not know of all.
        process.send_signal(signal.SIGINT)
        processes.disown(out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CANCELLING if plan["cluster"] else PATIENCE)
        process.kill()
        process.wait()
    elif process.returncode < 0:
        processes.disown(out)
    if plan["cluster"]:
        try:
            cancel(out)
        except ConfigError as error:
            print(f"*** {error}\n*** They end by themselves; the next call makes sure of it.")
    processes.wait_for_others(out, PATIENCE)


def cancel(out):
    """End a run folder's jobs in the cluster's queue, and say so."""
    if count := cluster.cancel(out):
        print(f"{count} {'job' if count == 1 else 'jobs'} of this folder cancelled in SLURM's queue")


def record_lost(out, said):
    """Leave a record for each training whose job ended without one: killed for memory or time, by a node, by hand."""
    trainings = {(t.model, str(t.seed)): t for t in read_run(out).trainings if not t.record and not t.failure}
    for block in re.split(r"\n(?=Error in rule )", said)[1:]:
        reason = re.search(r"^ +message: (.*?)(?:\. Detailed|For further|\n)", block, re.MULTILINE)
        log = re.search(r"^ +log: (.*) \(check log file", block, re.MULTILINE)
        place = re.search(r"^ +output: (\w+)/seed-(\d+)/", block, re.MULTILINE)
        if training := reason and place and trainings.get(place.groups()):
            record = {"model": training.model, "seed": training.seed, "label": training.label}
            reason = "it was killed" if reason[1] == "None" else reason[1]
            where = f"{slurm_word(log[1])}; log: {os.path.relpath(log[1], out)}" if log else ""
            error = f"its job left no word of why it ended: {reason}{where}"
            write_json(out / "failed" / f"{training.model}-seed-{training.seed}.json", record | {"error": error})


def slurm_word(log):
    """Return the first thing that SLURM itself wrote into a job's log, in brackets, or nothing."""
    with contextlib.suppress(OSError):
        text = Path(log).read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^(?:slurmstepd|srun)\S*: error: (.*)", text, re.MULTILINE):
            return f" ({found[1].strip(' *')})"
    return ""
