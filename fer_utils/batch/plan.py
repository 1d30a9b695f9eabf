"""The plan of a run: which models, with which parameters, on which data, and how long that will take."""

import contextlib
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

from fer_utils import provenance
from fer_utils.batch import cluster
from fer_utils.batch import config as configuration
from fer_utils.data import dataset as datasets
from fer_utils.data import splits
from fer_utils.errors import ConfigError
from fer_utils.findings.results import read_object, read_run, read_training
from fer_utils.paths import project_root
from fer_utils.words import duration, listed

#: Milliseconds to train on an image, where ``config.yaml`` has no ``cost``: about that of the traditional CNN.
COST = 8.0

#: Time to predict an image, as a share of the time to train on it.
PREDICT = 0.3

#: How many times as fast as two CPU cores a GPU is taken to be until a run was timed there: a guess.
GPU_SPEED = 100

#: Memory that a training may take, in GiB: about that of VGG-16's kernel. A job beyond what is free ends the others.
JOB_MEMORY = 2.5

#: What a training asks of a cluster's node: threads, where ``--set threads`` does not say, and memory in MB.
NODE_THREADS, NODE_MEMORY = 4, 6000

#: How many times as long as estimated a node may take before SLURM ends the job, and the least that is asked for.
SLOWER, LEAST_MINUTES = 3, 30

#: Seconds that a notebook takes beside training and predicting: starting, building the network, saving.
OVERHEAD = 20

#: Number of newest runs to look at. The fastest of them gives the machine's speed: other work only slows a run down.
NEWEST_RUNS = 5


def check_kernel(name):
    """Refuse a Jupyter kernel that is not installed."""
    from jupyter_client.kernelspec import KernelSpecManager

    found = KernelSpecManager().find_kernel_specs()
    if name not in found:
        raise ConfigError(f"--kernel {name}: no such Jupyter kernel; there are {', '.join(sorted(found)) or 'none'}")


def count_gpus():
    """Return how many GPUs ``nvidia-smi`` and TensorFlow both see.

    TensorFlow is asked in a process of its own: it takes long to import, and would hold the GPU.
    """
    code = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    try:
        subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=True, timeout=30)
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    except (OSError, subprocess.SubprocessError):
        return 0
    return int(answer.stdout)


def jobs_at_once(jobs, gpus, on_message):
    """Return how many jobs may run at a time: as many as asked, unless there are fewer GPUs or too little memory."""
    free = psutil.virtual_memory().available / 2**30
    limits = {f"{free:.1f} GiB of memory are free, and a training may take {JOB_MEMORY}": int(free / JOB_MEMORY)}
    if gpus > 1:
        limits[f"there are {gpus} GPUs, and each is one job's"] = gpus
    for reason, limit in limits.items():
        if jobs > max(limit, 1):
            jobs = max(limit, 1)
            on_message(f"*** --jobs: {reason}; {jobs} at a time. Give --jobs {jobs}, and each gets more of the machine")
    return jobs


def choose_profile(asked, synthetic, gpu):
    """Return the profile and why."""
    if asked != "auto":
        return asked, "as asked"
    if synthetic:
        return "smoke", "the data are synthetic, so that no training is worth its time"
    return ("paper", "there is a GPU") if gpu else ("quick", "there is no GPU that TensorFlow can use")


def data_name(fingerprint):
    """Name the data in the name of a run folder; a copy that is not the known FER2013 carries its fingerprint."""
    names = {"fer2013-kaggle-jpeg": "fer2013", "fer2013-csv-lossless": "fer2013-csv", "synthetic": "synthetic"}
    variant = fingerprint["variant"]
    return names.get(variant, f"{variant}-{fingerprint['sha256'][:8]}")


def data_path(dataset):
    """Return what the notebooks are to load: the very data that were found, so that no job searches again."""
    return "synthetic" if dataset.path is None else str(Path(dataset.path).absolute())


def choose_data(options, out, on_message):
    """Load the data that ``--data`` asks for; where it leaves open which, those of the run in the folder."""
    asked = options.data
    before = read_object(out / "plan.json")[0] if out else {}
    if before and (asked == "auto" or asked == before.get("data_asked") == "kaggle"):
        found = before["data_path"]
        if found == "synthetic" or Path(found).exists():
            on_message("Data: those that the run in this folder began with")
            asked = found
    if asked not in ("auto", "synthetic", "kaggle"):
        asked = str(Path(asked).expanduser().absolute())
    # A profile that insists on real data must not wait for a fallback to be refused.
    insists = options.profile == "paper"
    dataset = datasets.load(asked, on_message=on_message, allow_fallback=not insists)
    if insists and dataset.fingerprint["variant"] == "synthetic":
        raise ConfigError("--profile paper needs FER2013 and takes no other data; give --data PATH, or --profile smoke")
    return dataset


def estimate(p, dataset, seconds_per_image):
    """Return the seconds that a training with these parameters will take."""
    split = splits.split(dataset, p["protocol"], p["images_per_class"], p["test_images_per_class"])
    per_class = p["epoch_images_per_class"] or p["test_images_per_class"]
    scored = splits.split(dataset, p["protocol"], test_images_per_class=per_class).test
    images = p["epochs"] * (len(split.train) + PREDICT * len(scored))
    images += PREDICT * (2 * len(split.test) + len(split.train))
    return images * seconds_per_image + OVERHEAD


def seen_speeds(folder, device):
    """Return seconds per image trained on, by model and by notebook, of the runs below a folder on a kind of device."""
    found = {}
    trainings = [training for path in Path(folder).glob("*/plan.json") for training in read_run(path.parent).models]
    records = [record for record in (training.record for training in trainings) if record.get("times")]
    for record in sorted(records, key=lambda record: record["times"]["finished"], reverse=True):
        split = record["split"]
        if record["device"]["kind"] != device or record["epochs"]["run"] < 2 or split["train"] < 1000:
            continue  # too short: most of its time went into the graph
        per_class = split.get("epoch_images_per_class", 0)
        scored = 2 * 7 * per_class if per_class else split["public"] + split["private"]
        seconds = record["times"]["seconds_per_epoch"] / (split["train"] + PREDICT * scored)
        for name in (record["model"], record["notebook"]):
            found.setdefault(name, []).append(seconds)
    return {name: min(seconds[:NEWEST_RUNS]) for name, seconds in found.items()}


def make_plan(options, command, on_message=print):
    """Return the content of ``plan.json`` and the run folder; FerError if options, configuration or data do not fit."""
    config = configuration.read_config()
    models = configuration.choose_models(config, options.models)
    seeds = read_seeds(options.seeds)
    profiles = config["profiles"]
    if options.profile not in (*profiles, "auto"):
        raise ConfigError(f"--profile {options.profile}: unknown; config.yaml has {', '.join(profiles)}; or auto")
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: expected 1 or more")
    check_kernel(options.kernel)
    scheduler, partition = cluster.parse(options.cluster) if options.cluster else (None, None)
    elsewhere = options.elsewhere or bool(scheduler)
    notebooks = dict.fromkeys(config["models"][model]["notebook"] for model in models)
    broken = {}  # to what is wrong and what to do
    for notebook in notebooks:
        try:
            configuration.notebook_parameters(notebook)
        except ConfigError as error:
            broken[notebook] = str(error)
            on_message(f"*** {error}")
    if len(broken) == len(notebooks):
        raise ConfigError("no notebook is left that could be run; what to do is said above")
    settings = configuration.read_settings(options.set, notebooks.keys() - broken)

    out = Path(options.out).expanduser().absolute() if options.out else None
    dataset = choose_data(options, out, on_message)
    gpus = int(cluster.has_gpus(partition)) if scheduler else count_gpus()
    if scheduler and (seconds := cluster.forgets()) and seconds <= cluster.LONGEST_LOOK:
        on_message(
            f"*** SLURM forgets an ended job after {seconds} s, before Snakemake may have seen its end. "
            "With accounting, add: -- --slurm-status-command sacct"
        )
    fingerprint = dataset.fingerprint
    profile, why = choose_profile(options.profile, fingerprint["variant"] == "synthetic", gpus > 0)
    on_message(f"Profile: {profile} ({why}): {profiles[profile]['about']}")

    device = "GPU" if gpus else "CPU"
    seen = seen_speeds(project_root() / "results", device)
    costs = {entry["notebook"]: entry["cost"] for entry in config["models"].values() if "cost" in entry}
    entries, places = [], {name: place for place, name in enumerate(config["models"])}
    name = "-".join([profile, data_name(fingerprint), *(f"{key}={value}" for key, value in sorted(settings.items()))])
    out = out or project_root() / "results" / re.sub(r"[^\w.,=+-]", "_", name)
    # What a training asks of a node, beside its threads and minutes, as resources of Snakemake.
    asked = {"mem_mb": NODE_MEMORY, "gpu": 1 if gpus else None, "slurm_partition": partition} if scheduler else {}
    request = {resource: value for resource, value in asked.items() if value}
    share = NODE_THREADS if scheduler else max(1, max(os.cpu_count(), options.jobs) // options.jobs)
    for model in models:
        entry = config["models"][model]
        planned = {"model": model, "label": entry["label"], "notebook": entry["notebook"], "place": places[model]}
        if error := broken.get(entry["notebook"]):  # its job fails with this, the others are not touched
            planned |= {"parameters": {}, "threads": 1, "estimate": 0, "minutes": LEAST_MINUTES, "error": error}
            entries += [planned | {"seed": seed} for seed in seeds]
            continue
        parameters = configuration.resolve_parameters(config, profile, model, settings)
        cost = entry.get("cost") or costs.get(entry["notebook"], COST)
        guess = cost / 1000 / (GPU_SPEED if gpus else 1)
        speed = seen.get(model) or seen.get(entry["notebook"]) or guess
        seconds = round(estimate(parameters, dataset, speed), 1)
        for seed in seeds:
            own = {"seed": seed, "parameters": parameters | {"seed": seed, "data": data_path(dataset)}}
            own["threads"] = parameters["threads"] or begun_threads(out, model, seed) or share
            entries.append(planned | own | {"estimate": seconds, "minutes": request_minutes(seconds)})
    plan = {
        "profile": profile,
        "about": profiles[profile]["about"],
        "data": dataset.source,
        "data_asked": options.data,
        "data_path": data_path(dataset),
        "data_variant": fingerprint["variant"],
        "data_description": fingerprint["description"],
        "data_sha256": fingerprint["sha256"],
        "data_notes": list(dataset.notes),
        "protocol": "/".join(sorted({entry["parameters"]["protocol"] for entry in entries if "error" not in entry})),
        "kernel": options.kernel,
        "jobs": options.jobs,
        "cluster": scheduler,
        "elsewhere": elsewhere,
        "request": request,
        # Another machine's jobs are not this one's business.
        "gpus": 0 if elsewhere else gpus,
        "at_once": options.jobs if elsewhere else jobs_at_once(options.jobs, gpus, on_message),
        "models": entries,
    }
    check_folder(out, plan)
    plan["kept"] = finished_before(out, config, plan, settings)
    if plan["kept"]:
        stay = (f"{entry['label']} (seed {entry['seed']})" for entry in plan["kept"])
        on_message(f"Finished by earlier calls, and part of the report: {listed(stay)}")
    # On one machine the jobs share it.
    total = sum(entry["estimate"] for entry in entries) / (options.jobs if elsewhere else 1)
    basis = "from earlier runs here" if seen else "a guess: no run was timed here yet"
    labels = ", ".join(dict.fromkeys(entry["label"] for entry in entries))
    on_message(f"Models: {labels}; seeds {options.seeds}; on the {device}{' of nodes' if elsewhere else ''}")
    on_message(f"Time: about {duration(total + 60)} if nothing of it is done yet ({basis})")
    for entry in entries[:: len(seeds)]:
        each = " for each seed" if len(seeds) > 1 else ""
        on_message(f"  {entry['label']}: {entry.get('error') or duration(entry['estimate']) + each}")
    on_message(f"Run folder: {out}")
    return plan | {"command": command, "created": provenance.now(), "git": provenance.git()}, out


def finished_before(out, config, plan, settings):
    """Return what earlier calls trained in the folder with these parameters: it stays in the tables and the report."""
    asked, found = {(entry["model"], entry["seed"]) for entry in plan["models"]}, []
    own = {"seed", "data", "out", "threads"}  # each training's, and the machine's
    for place, model in enumerate(config["models"]):
        for path in sorted((out / model).glob("seed-*/run.json")):
            training = read_training(path.parent, model, int(path.parent.name.removeprefix("seed-")))
            if training.key in asked or not training.finished:
                continue
            with contextlib.suppress(ConfigError):  # its notebook cannot be read
                wanted = configuration.resolve_parameters(config, plan["profile"], model, settings)
                used = training.record["parameters"]
                if all(used.get(name, value) == value for name, value in wanted.items() if name not in own):
                    names = {"model": model, "seed": training.seed, "label": training.label}
                    found.append(names | {"place": place})
    return found


def read_seeds(text):
    """Return the seeds of ``--seeds``: whole numbers and ranges, with commas."""
    parts = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in text.split(",")]
    ranges = [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts if part]
    if not all(parts) or not all(ranges):
        raise ConfigError(f"--seeds {text}: expected whole numbers, 0 or more, with commas, or a range: 0,1,2 or 0-99")
    return list(dict.fromkeys(itertools.chain(*ranges)))


def begun_threads(out, model, seed):
    """Return the number of threads that a training has begun with and so goes on with, or None."""
    state = out / ".training" / model / f"seed-{seed}"
    return read_object(state / "resolved.json")[0].get("threads") if any(state.glob("state-*/state.json")) else None


def request_minutes(seconds):
    """Return the minutes to ask of a node for a training that is estimated to take some seconds."""
    return max(LEAST_MINUTES, math.ceil(SLOWER * seconds / 60))


def check_folder(out, plan):
    """Refuse a run folder that holds another profile's or another data set's results."""
    before, _ = read_object(out / "plan.json")
    for name in ("profile", "data_sha256"):
        if before and before.get(name) != plan[name]:
            raise ConfigError(
                f"{out} holds a run with {name} {before.get(name)}, this one has {plan[name]}; results of the two "
                "would lie side by side as if they were one. Give another --out, or remove the folder."
            )
