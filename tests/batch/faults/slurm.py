#!/usr/bin/env python
"""Runs on a real SLURM: munge, slurmctld and three nodes on the loopback address of this machine.

    apt-get install munge slurmctld slurmd slurm-client        # Debian's packages; as root
    .venv/bin/python tests/batch/faults/slurm.py               # all cases, about half an hour on two cores
    .venv/bin/python tests/batch/faults/slurm.py same stop

Each node has a host name of its own (`unshare`), so that process numbers say nothing between them. There is no
accounting. Each case prints what it found; the exit status is 1 if one of them is not as docs/cluster.md says.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import psutil

# PYTHONSAFEPATH, which run_all.sh sets, leaves a script's own folder out.
sys.path.insert(0, str(Path(__file__).parent))
from kill import COMPARED, ROOT, finished_epochs, sha256, start  # noqa: E402
from runs import check  # noqa: E402

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "scontrol", "unshare")

NODES = ("node1", "node2", "node3")

#: Seconds after which something hangs.
LIMIT = 3600

#: The runs that were started; what is left of them at the end is stopped.
RUNS = []

CONFIGURATION = """
ClusterName=fer
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmdTimeout=30
GresTypes=gpu
NodeName=node1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000
NodeName=node2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000
NodeName=node3 NodeAddr=127.0.0.1 Port={ports[3]} CPUs=2 RealMemory=8000 Gres=gpu:1
PartitionName=main Default=YES Nodes=node1,node2 MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=node3 MaxTime=INFINITE State=UP
"""


def ask(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def wait_until(true, seconds, what):
    give_up = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.2)
    return found


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def slurm(folder):
    """Start a cluster, name it in SLURM_CONF, and end it."""
    started = []

    def daemon(name, *words):
        log = open(folder / f"{name}.out", "wb")  # noqa: SIM115
        started.append(psutil.Popen(words, stdout=log, stderr=log))

    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    host = socket.gethostname()
    text = CONFIGURATION.format(folder=folder, host=host, ports=free_ports(4))
    configuration = folder / "slurm.conf"
    configuration.write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    (folder / "gres.conf").write_text("NodeName=node3 Name=gpu File=/dev/null\n")
    (folder / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", host, *NODES)))
    os.environ["SLURM_CONF"] = str(configuration)
    words = [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
    words = [word.replace(".pid-file", ".pid").replace(".log-file", ".log") for word in words]
    try:
        daemon("munged", "munged", "--foreground", "--force", f"--key-file={folder}/munge.key", *words)
        wait_until((folder / "munge.socket").exists, 20, "munged")
        daemon("slurmctld", "slurmctld", "-D", "-f", str(configuration))
        for node in NODES:
            (folder / f"spool-{node}").mkdir()
            # Jobs forget SLURM_CONF on the node, so that it lies where SLURM looks for it.
            binds = f"mount --bind {folder}/hosts /etc/hosts && mount --bind {folder} /etc/slurm"
            begin = f"{binds} && hostname {node} && exec slurmd -D"
            daemon(node, "unshare", "--uts", "--mount", "sh", "-c", begin)
        wait_until(lambda: "node[1-2] idle" in ask("sinfo", "-h", "-p", "main", "-o", "%N %T"), 60, "two idle nodes")
        yield
    finally:
        for run in RUNS:
            if run.is_running():
                run.terminate()
        psutil.wait_procs(RUNS, timeout=90)
        for process in reversed(started):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(started, timeout=10)


def queue():
    """The states of the jobs in the queue."""
    return ask("squeue", "-h", "-o", "%T").split()


class Study:
    """A run folder and the commands that fill it."""

    def __init__(self, python, out, seeds="0-2", epochs=12, whole=False):
        base = [python, "-m", "fer_utils.batch.run", "--kernel", "python3"] if python else [str(ROOT / "run_all.sh")]
        settings = ("images_per_class=20", "test_images_per_class=8", "batch_norm_momentum=0.9", "threads=1")
        settings += (f"epochs={epochs}",)
        options = ["--data", "synthetic", "--profile", "smoke", "--models", "traditional_cnn", "--seeds", seeds]
        self.words = [*base, *options, *(word for pair in settings for word in ("--set", pair)), "--out", str(out)]
        self.on_cluster = ["--cluster", "slurm", "--jobs", "3"]
        # Without the other notebooks, which the first case has.
        self.extra = [] if whole else ["--", "--until", "model"]
        self.out, self.log = out, out.with_name(f"{out.name}.txt")

    def start(self, local=False, extra=None):
        """Call on the cluster, or on this machine."""
        place = ["--jobs", "3"] if local else self.on_cluster
        RUNS.append(start([*self.words, *place, *(extra or self.extra)], self.log))
        return RUNS[-1]

    def call(self, **options):
        """Call to the end; return the exit status and all that was printed."""
        status = self.start(**options).wait(LIMIT)
        return status, self.log.read_text()

    def folders(self):
        return sorted(path.parent for path in self.out.glob("traditional_cnn/seed-*/run.json"))

    def records(self):
        return [json.loads((folder / "run.json").read_text()) for folder in self.folders()]

    def hashes(self, name):
        return [sha256(folder / name) for folder in self.folders()]

    def once(self):
        """Whether each epoch was trained once, in one state, whatever came between."""
        ends = [[(s["first_epoch"], s["last_epoch"]) for s in record["segments"]] for record in self.records()]
        whole = all(
            one[0][0] == 1 and all(b[0] == a[1] + 1 for a, b in zip(one, one[1:], strict=False)) for one in ends
        )
        states = [len(list(p.glob("state-*"))) for p in self.out.glob(".training/traditional_cnn/seed-*")]
        return whole and set(states) == {1}, f"epochs {ends}"


def alone(folder, python):
    """A run on this machine that was left alone, made once."""
    study = Study(python, folder.parent / "local")
    if not study.folders():
        status, text = study.call(local=True)
        check(f"on this machine: exit {status}", status == 0, text)
    return study


def equal(study, other):
    """Whether two runs left the same bytes."""
    good = True
    for name in COMPARED:
        one, two = study.hashes(name), other.hashes(name)[: len(study.folders())]
        good &= check(
            f"{name} {[h and h[:16] for h in two]}: the same as on this machine", one and one == two, str(one)
        )
    return good


def seconds_of(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def same(folder, python):
    """Local and on SLURM: the same bytes; what is asked of a node, what the terminal shows, how long it waits."""
    local, remote, good = alone(folder, python), Study(python, folder / "slurm", whole=True), True
    began = time.time()
    process = remote.start()
    asked = wait_until(lambda: ask("squeue", "-h", "-o", "%C %m %l %j") if queue() else "", LIMIT, "a job in the queue")
    submitted = time.time()
    progress = lambda: list(remote.out.glob(".training/*/seed-*/progress.json"))  # noqa: E731
    wait_until(lambda: progress() or process.poll() is not None, LIMIT, "the first batch")
    first = time.time() - submitted
    print(f"  seconds: call to submission {submitted - began:.1f}, submission to first batch {first:.1f}")
    good &= check(f"cores, memory, time, name asked: {asked.splitlines()[0]}", asked.startswith("1 6000M 30:00 fer-"))
    status = process.wait(LIMIT)
    ended, text = time.time(), remote.log.read_text()
    good &= check(f"on SLURM, without accounting: exit {status}", status == 0, text)
    good &= equal(remote, local)
    best = [json.loads((f / "metrics.json").read_text())["best"]["epoch"] for f in remote.folders()]
    good &= check(f"best epochs {best}, not all the first", set(best) != {1})
    threads = [record["device"]["threads"] for record in remote.records()]
    good &= check(f"threads {threads}", threads == [1, 1, 1])
    trained = max(seconds_of(record["times"]["finished"]) for record in remote.records())
    report = (remote.out / "report.html").stat().st_mtime
    print(f"  seconds: whole run {ended - began:.1f}, last training to its end {ended - trained:.1f}")
    lines = [line for line in text.splitlines() if re.search(r"queue|begins|done in", line)]
    print("  " + "\n  ".join(lines))
    said = ("at work on nodes", "(seed 2): begins", "(seed 2): done in")
    good &= check("the terminal shows it", all(word in text for word in said), text)
    rules = (remote.out / "snakemake.log").read_text()
    submitted = len(re.findall(r"has been submitted with SLURM", rules))
    return good & check(f"{submitted} jobs submitted, the rest here; report at {report - began:.0f} s", submitted == 3)


def processes_of(process):
    return [process, *process.children(recursive=True)]


def kill_run(process):
    process.kill()


def kill_all(process):
    """The run and its Snakemake at once, as when the login node goes down."""
    everyone = processes_of(process)
    for one in everyone:
        one.suspend()
    for one in everyone:
        one.kill()


STOPS = {
    "Ctrl-C": lambda process: os.killpg(process.pid, signal.SIGINT),
    "SIGTERM": lambda process: process.terminate(),
    "SIGKILL": kill_run,
    "SIGKILL of all on this host": kill_all,
}


def stop(folder, python):
    """Stopped with jobs at work and waiting: none is left, or the next call ends it; no epoch is trained twice."""
    study, good = Study(python, folder / "out"), True
    for what, end in STOPS.items():
        before = finished_epochs(study.out)
        process = study.start()
        wait_until(lambda: finished_epochs(study.out) > before or process.poll() is not None, LIMIT, "an epoch")  # noqa: B023
        found = sorted(queue())
        everyone = processes_of(process)
        end(process)
        began = time.monotonic()
        status = process.wait(LIMIT)
        ended = time.monotonic() - began
        left = psutil.wait_procs(everyone, timeout=90)[1]
        while (after := queue()) and time.monotonic() - began < 30:
            time.sleep(0.5)
        gone = time.monotonic() - began
        print(f"  {what}: {found} before; exit {status} after {ended:.1f} s, {after} after {gone:.1f} s", flush=True)
        good &= check("jobs at work and waiting", {"RUNNING", "PENDING"} <= set(found), study.log.read_text())
        good &= check("no process of it here is left", not left, str(left))
        if what.endswith("host"):
            good &= check("the jobs go on", after, study.log.read_text())
        else:
            good &= check("no job is left", not after, study.log.read_text())
    status, text = study.call()
    good &= check(f"the same command: exit {status}", status == 0, text)
    good &= check("it says what it cancelled", "cancelled in SLURM's queue" in text, text)
    good &= check("no failure anywhere", "FAILED" not in text, text)
    once, said = study.once()
    good &= check(f"each epoch was trained once: {said}", once)
    return good & equal(study, alone(folder, python))


def requeue(folder, python):
    """A job that SLURM begins again, as after the crash of a node, and one that is cancelled by hand."""
    study = Study(python, folder / "out", seeds="0-1")
    process = study.start()
    wait_until(lambda: finished_epochs(study.out) or process.poll() is not None, LIMIT, "an epoch")
    jobs = dict(line.split("|") for line in ask("squeue", "-h", "-t", "RUNNING", "-o", "%k|%i").splitlines())
    ask("scontrol", "requeue", jobs["rule_model_wildcards_traditional_cnn_0"])
    ask("scancel", jobs["rule_model_wildcards_traditional_cnn_1"])
    status, text = process.wait(LIMIT), study.log.read_text()
    good = check(f"exit {status}", status == 1, text)
    failed = [line for line in text.splitlines() if line.startswith("  FAILED")]
    good &= check(f"the cancelled one: {failed}", len(failed) == 1 and "CANCELLED" in failed[0], text)
    good &= check("the other one is there", len(study.records()) == 1)
    status, text = study.call()
    good &= check(f"the same command: exit {status}", status == 0, text)
    once, said = study.once()
    good &= check(f"each epoch was trained once: {said}", once)
    return good & equal(study, alone(folder, python))


def memory(folder, python):
    """A job that takes more memory than it asked for: a failure with a reason."""
    study = Study(python, folder / "out", seeds="0", epochs=2)
    status, text = study.call(extra=[*study.extra, "--set-resources", "model:mem_mb=300"])
    failed = [line for line in text.splitlines() if line.startswith("  FAILED")]
    return check(f"exit {status}: {failed}", status == 1 and failed and "left no word" in failed[0], text)


def gpu(folder, python):
    """A partition with a GPU, which this machine has not: each training asks for one."""
    study = Study(python, folder / "out", seeds="0", epochs=1)
    study.on_cluster[1] = "slurm:gpu"
    process = study.start()
    wait_until(lambda: queue() or process.poll() is not None, LIMIT, "a job in the queue")
    asked = ask("squeue", "-h", "-O", "Partition,tres-per-job").split()
    status = process.wait(LIMIT)
    good = check(f"partition, GPU: {asked}", asked == ["gpu", "gres:gpu:1"])
    text = study.log.read_text()
    good &= check(f"exit {status}", status == 0, text)
    return good & check("the plan is for GPUs", "on the GPU of nodes" in text, text)


def rehearsal(folder, python):
    """A dry run changes nothing; how long planning 10, 100 and 1,000 jobs takes."""
    good = True
    for count in (10, 100, 1000):
        study = Study(python, folder / f"out-{count}", seeds=f"0-{count - 1}")
        began = time.monotonic()
        status, text = study.call(extra=["--", "--dry-run", "--quiet"])
        good &= check(f"{count} jobs: exit {status} after {time.monotonic() - began:.1f} s", status == 0, text)
        good &= check("nothing is there", not study.out.exists() and not queue())
        began = time.monotonic()
        study.call(local=True, extra=["--", "--dry-run", "--quiet"])
        print(f"  on this machine: {time.monotonic() - began:.1f} s")
    return good


CASES = {case.__name__: case for case in (same, stop, requeue, memory, gpu, rehearsal)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--python", help="an interpreter with the packages, in the place of ./run_all.sh")
    parser.add_argument("--keep", action="store_true", help="keep the run folders and SLURM's logs")
    options = parser.parse_args()
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        parser.error(f"{', '.join(missing)} not found: apt-get install munge slurmctld slurmd slurm-client")
    if os.geteuid():
        parser.error("the nodes have host names of their own, which takes root")
    good, top = True, Path(tempfile.mkdtemp(prefix="fer-slurm-"))
    print(f"run folders and logs in {top}", flush=True)
    (top / "slurm").mkdir()
    with slurm(top / "slurm"):
        for name in options.cases or CASES:
            print(f"{name}: {CASES[name].__doc__}", flush=True)
            (top / name).mkdir()
            good &= bool(CASES[name](top / name, options.python))
    print("all as described" if good else "FAILED")
    if good and not options.keep:
        shutil.rmtree(top)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
