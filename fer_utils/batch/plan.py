"""The plan of a run: which models, with which parameters, on which data, and how long that will take."""

import re
import subprocess
import sys
from pathlib import Path

import psutil

from fer_utils import provenance
from fer_utils.batch import config as configuration
from fer_utils.data import dataset as datasets
from fer_utils.data import splits
from fer_utils.errors import ConfigError
from fer_utils.findings.results import read_object, read_run
from fer_utils.paths import project_root
from fer_utils.words import duration

#: Milliseconds to train on an image, where ``config.yaml`` has no ``cost``: about that of the traditional CNN.
COST = 8.0

#: Time to predict an image, as a share of the time to train on it.
PREDICT = 0.3

#: How many times as fast as two CPU cores a GPU is taken to be until a run was timed there: a guess.
GPU_SPEED = 100

#: Memory that a training may take, in GiB: about that of VGG-16's kernel. A job beyond what is free ends the others.
JOB_MEMORY = 2.5

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
    if not re.fullmatch(r"\d+(,\d+)*", options.seeds):
        raise ConfigError(f"--seeds {options.seeds}: expected whole numbers, 0 or more, with commas: 0,1,2")
    seeds = list(dict.fromkeys(int(seed) for seed in options.seeds.split(",")))
    profiles = config["profiles"]
    if options.profile not in (*profiles, "auto"):
        raise ConfigError(f"--profile {options.profile}: unknown; config.yaml has {', '.join(profiles)}; or auto")
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: expected 1 or more")
    check_kernel(options.kernel)
    notebooks = dict.fromkeys(config["models"][model]["notebook"] for model in models)
    broken = configuration.broken_notebooks(notebooks)
    for error in broken.values():
        on_message(f"*** {error}")
    if len(broken) == len(notebooks):
        raise ConfigError("no notebook is left that could be run; what to do is said above")
    settings = configuration.read_settings(options.set, notebooks.keys() - broken)

    out = Path(options.out).expanduser().absolute() if options.out else None
    dataset = choose_data(options, out, on_message)
    gpus = count_gpus()
    fingerprint = dataset.fingerprint
    profile, why = choose_profile(options.profile, fingerprint["variant"] == "synthetic", gpus > 0)
    on_message(f"Profile: {profile} ({why}): {profiles[profile]['about']}")

    device = "GPU" if gpus else "CPU"
    seen = seen_speeds(project_root() / "results", device)
    costs = {entry["notebook"]: entry["cost"] for entry in config["models"].values() if "cost" in entry}
    entries = []
    for model in models:
        entry = config["models"][model]
        planned = {"model": model, "label": entry["label"], "notebook": entry["notebook"]}
        if error := broken.get(entry["notebook"]):  # its job fails with this, the others are not touched
            planned |= {"parameters": {"threads": 0}, "estimate": 0, "error": error}
            entries += [planned | {"seed": seed} for seed in seeds]
            continue
        parameters = configuration.resolve_parameters(config, profile, model, settings)
        cost = entry.get("cost") or costs.get(entry["notebook"], COST)
        guess = cost / 1000 / (GPU_SPEED if gpus else 1)
        speed = seen.get(model) or seen.get(entry["notebook"]) or guess
        for seed in seeds:
            own = {"seed": seed, "parameters": parameters | {"seed": seed, "data": data_path(dataset)}}
            entries.append(planned | own | {"estimate": round(estimate(parameters, dataset, speed), 1)})
    name = "-".join([profile, data_name(fingerprint), *(f"{key}={value}" for key, value in sorted(settings.items()))])
    out = out or project_root() / "results" / re.sub(r"[^\w.,=+-]", "_", name)
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
        # Another machine's jobs are not this one's business.
        "gpus": 0 if options.elsewhere else gpus,
        "at_once": options.jobs if options.elsewhere else jobs_at_once(options.jobs, gpus, on_message),
        "models": entries,
    }
    check_folder(out, plan)
    total = sum(entry["estimate"] for entry in entries)
    basis = "from earlier runs here" if seen else "a guess: no run was timed here yet"
    labels = ", ".join(dict.fromkeys(entry["label"] for entry in entries))
    on_message(f"Models: {labels}; seeds {', '.join(map(str, seeds))}; on the {device}")
    on_message(f"Time: about {duration(total + 60)} if nothing of it is done yet ({basis})")
    for entry in entries:
        on_message(f"  {entry['label']} (seed {entry['seed']}): {entry.get('error') or duration(entry['estimate'])}")
    on_message(f"Run folder: {out}")
    return plan | {"command": command, "created": provenance.now(), "git": provenance.git()}, out


def check_folder(out, plan):
    """Refuse a run folder that holds another profile's or another data set's results."""
    before, _ = read_object(out / "plan.json")
    for name in ("profile", "data_sha256"):
        if before and before.get(name) != plan[name]:
            raise ConfigError(
                f"{out} holds a run with {name} {before.get(name)}, this one has {plan[name]}; results of the two "
                "would lie side by side as if they were one. Give another --out, or remove the folder."
            )
