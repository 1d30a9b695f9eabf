"""The plan of a run: which models, with which parameters, on which data, and how long that will take."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import yaml

from fer_utils import provenance
from fer_utils.batch.progress import name_of
from fer_utils.data import dataset as datasets
from fer_utils.data import splits
from fer_utils.errors import ConfigError
from fer_utils.files import read_json
from fer_utils.paths import project_root
from fer_utils.training import precision as precisions
from fer_utils.words import duration

#: Parameters that options of the command set; ``--set`` refuses them and names the option.
RESERVED = {
    "model": "--models",
    "label": "--models",
    "notebook": "--models",
    "seed": "--seeds",
    "data": "--data",
    "out": "--out",
    "profile": "--profile",
}

#: How many times as fast as two CPU cores with bfloat16 a GPU is taken to be until a run was timed there: a guess.
GPU_SPEED = 40

#: Memory that a training may take, in GiB: the kernel of VGG-16 (34 million weights, their gradients, Adam's moments, a
#: batch's activations, all images, TensorFlow itself). A job beyond what is free ends others with it. About so much.
JOB_MEMORY = 2.5

#: Seconds that a notebook takes beside training and predicting: starting, building the network, saving.
OVERHEAD = 20

#: Of so many of the newest runs alike, the fastest says how fast this machine is: whatever else it does slows a run
#: down, and nothing speeds one up.
NEWEST_RUNS = 5


def read_config():
    """Read ``config.yaml``."""
    return yaml.safe_load((project_root() / "config.yaml").read_text(encoding="utf-8"))


def choose_models(config, names):
    """Return the entries' names that ``--models`` asks for.

    Raises
    ------
    ConfigError
        If one is not in the configuration.
    """
    if names is None:
        return config["default_models"]
    chosen = list(config["models"]) if names == "all" else list(dict.fromkeys(filter(None, names.split(","))))
    unknown = [name for name in chosen if name not in config["models"]]
    if unknown or not chosen:
        raise ConfigError(
            f"--models {names}: unknown {', '.join(unknown) or 'choice'}; config.yaml has {', '.join(config['models'])}"
        )
    return chosen


def choose_seeds(text):
    """Return the seeds that ``--seeds`` gives, as whole numbers without repetition."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ConfigError(f"--seeds {text}: expected whole numbers, 0 or more, with commas: 0,1,2")
    return list(dict.fromkeys(int(seed) for seed in text.split(",")))


def notebook_parameters(notebook):
    """Return a notebook's parameters as papermill reads them: name to default value.

    Raises
    ------
    ConfigError
        If the notebook does not exist or has no parameters.
    """
    # papermill takes a second to import, and `--help` needs none of it.
    from papermill.inspection import inspect_notebook

    path = project_root() / "notebooks" / notebook
    if not path.is_file():
        raise ConfigError(f"config.yaml names the notebook {notebook}, and {path} is not there")
    found = inspect_notebook(path)
    if not found:
        raise ConfigError(f"{path}: no cell is tagged 'parameters'; copy the one of another model's notebook")
    return {name: ast.literal_eval(entry["default"]) for name, entry in found.items()}


def typed(name, text, default):
    """Read the value of ``--set`` as the type of the parameter's default.

    Raises
    ------
    ConfigError
        If it does not fit.
    """
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError):
        raise ConfigError(f"--set {name}={text}: expected a value of type {kind.__name__}, as {default!r}") from None


def read_settings(pairs, known):
    """Split ``NAME=VALUE`` settings and check the names.

    Parameters
    ----------
    pairs : list of str
        What ``--set`` gave.
    known : dict of str to dict
        Parameters and their defaults per notebook.

    Returns
    -------
    dict of str to str

    Raises
    ------
    ConfigError
        If a name is unknown to every notebook of the run, or set by another option.
    """
    names = sorted({name for parameters in known.values() for name in parameters} - set(RESERVED))
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: expected NAME=VALUE")
        if name in RESERVED:
            raise ConfigError(f"--set {name}: use {RESERVED[name]} for that")
        if name not in names:
            raise ConfigError(
                f"--set {name}: no such parameter in the notebooks of this run; known: {', '.join(names)}"
            )
        settings[name] = value
    return settings


def resolve_parameters(config, profile, model, settings, defaults):
    """Return the parameters of one model: the notebook's, the profile's, the entry's, ``--set``, in that order.

    Raises
    ------
    ConfigError
        If the configuration names a parameter that the notebook does not have.
    """
    entry, chosen = config["models"][model], config["profiles"][profile]
    layers = {
        f"profile {profile}": chosen.get("parameters") or {},
        f"model {model}": entry.get("parameters") or {},
        f"profile {profile}, model {model}": (chosen.get("models") or {}).get(model, {}),
    }
    resolved = dict(defaults)
    for origin, layer in layers.items():
        unknown = sorted(set(layer) - set(defaults))
        if unknown:
            raise ConfigError(
                f"config.yaml, {origin}: {entry['notebook']} has no parameter {', '.join(unknown)}; "
                f"it has {', '.join(defaults)}"
            )
        resolved |= layer
    resolved |= {name: typed(name, value, defaults[name]) for name, value in settings.items() if name in defaults}
    return resolved | {"model": model, "label": entry["label"], "notebook": entry["notebook"], "profile": profile}


def check_sizes(model, parameters):
    """Refuse numbers that no training can be made with, before anything starts.

    Raises
    ------
    ConfigError
    """
    for name in ("epochs", "batch_size"):
        if parameters[name] < 1:
            raise ConfigError(f"{model}: {name} is {parameters[name]}; expected 1 or more")
    for name in ("images_per_class", "test_images_per_class", "epoch_images_per_class", "threads", "devices"):
        if parameters.get(name, 0) < 0:
            raise ConfigError(f"{model}: {name} is {parameters[name]}; expected 0 (all) or more")


def check_kernel(name):
    """Refuse a Jupyter kernel that is not installed.

    Raises
    ------
    ConfigError
    """
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
    """Return how many jobs may run at a time: as many as asked, unless GPUs or memory do not do.

    What a job gets (threads, GPUs) is counted by the jobs asked for, so that the numbers do not depend on what happens
    to be free.

    Parameters
    ----------
    jobs : int
        What ``--jobs`` says.
    gpus : int
        How many there are; a single one is shared.
    on_message : callable
        Takes each line for the person who waits.

    Returns
    -------
    int
        1 or more.
    """
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
    """Return the profile and why.

    Parameters
    ----------
    asked : str
        What ``--profile`` says.
    synthetic : bool
        Whether the data are the drawn faces.
    gpu : bool
        Whether there is a GPU.
    """
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


def cost(entry, device):
    """Return the seconds to train on one image and to predict one, as ``config.yaml`` has them.

    Parameters
    ----------
    entry : dict
        Its ``cost`` is the two numbers in milliseconds, or two for each kind of device that
        `fer_utils.training.precision.kind_of_device` tells apart. The first stand for a kind that is not there.
    device : {"CPU", "GPU"}
        What is trained on.

    Returns
    -------
    train, predict : float
    """
    found = entry["cost"]
    if isinstance(found, dict):
        found = found.get(precisions.kind_of_device(device)) or next(iter(found.values()))
    train, predict = (milliseconds / 1000 for milliseconds in found)
    return train, predict


def estimate(entry, parameters, dataset, device, seen):
    """Seconds that a training will take.

    Parameters
    ----------
    entry : dict
        The model's entry in ``config.yaml``.
    parameters : dict
        Resolved parameters.
    dataset : fer_utils.data.dataset.Dataset
        The data.
    device : {"CPU", "GPU"}
        What it will run on.
    seen : dict
        Earlier runs' speeds on this machine, from `seen_speeds`.
    """
    p = parameters
    split = splits.split(dataset, p["protocol"], p["images_per_class"], p["test_images_per_class"])
    per_class = p["epoch_images_per_class"] or p["test_images_per_class"]
    scored = splits.split(dataset, p["protocol"], test_images_per_class=per_class).test
    train, predict = cost(entry, device)
    seconds = p["epochs"] * (len(split.train) * train + len(scored) * predict)
    seconds += (2 * len(split.test) + len(split.train)) * predict
    chosen = precisions.choose(p["precision"], entry["notebook"], device)
    factor = seen.get((entry["notebook"], device, chosen), 1 / GPU_SPEED if device == "GPU" else 1.0)
    return seconds * factor + OVERHEAD


def seen_speeds(folder, config):
    """How fast the runs below a folder were, against the configured cost.

    Returns
    -------
    dict
        (notebook, "CPU" or "GPU", precision) to seconds per epoch over what the cost in ``config.yaml`` would give;
        of the fastest of the `NEWEST_RUNS` with as many threads as the newest.
    """
    found = {}
    for path in sorted(Path(folder).glob("*/*/seed-*/run.json"), key=os.path.getmtime, reverse=True):
        record = read_json(path)
        entry = config["models"].get(record["model"])
        if entry is None or record["epochs"]["run"] < 2:
            continue
        split = record["split"]
        per_class = split["epoch_images_per_class"]
        scored = 2 * 7 * per_class if per_class else split["public"] + split["private"]
        train, predict = cost(entry, record["device"]["kind"])
        expected = split["train"] * train + scored * predict
        if expected > 5:
            device = record["device"]
            factors = found.setdefault((entry["notebook"], device["kind"], record["precision"]), [])
            factors.append((device["threads"], record["times"]["seconds_per_epoch"] / expected))
    speeds = {}
    for alike, factors in found.items():
        threads = factors[0][0]
        speeds[alike] = min([factor for number, factor in factors if number == threads][:NEWEST_RUNS])
    return speeds


def make_plan(options, command, on_message=print):
    """Choose data, profile and models, and estimate the time.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed command line.
    command : str
        The command as typed, for the record.
    on_message : callable
        Takes each line for the person who waits.

    Returns
    -------
    plan : dict
        What ``plan.json`` holds.
    out : Path
        The run folder.

    Raises
    ------
    FerError
        If an option, the configuration or the data do not fit.
    """
    config = read_config()
    models = choose_models(config, options.models)
    seeds = choose_seeds(options.seeds)
    if options.profile not in (*config["profiles"], "auto"):
        raise ConfigError(
            f"--profile {options.profile}: unknown; config.yaml has {', '.join(config['profiles'])}, and there is auto"
        )
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: expected 1 or more")
    check_kernel(options.kernel)
    known = {model: notebook_parameters(config["models"][model]["notebook"]) for model in models}
    settings = read_settings(options.set, known)

    gpus = count_gpus()
    # A profile that insists on real data must not wait for a fallback to be refused.
    insists = options.profile == "paper"
    asked = options.data
    before = read_json(Path(options.out).expanduser().absolute() / "plan.json") if options.out else {}
    if asked in ("auto", "kaggle") and before.get("data_asked") == asked:
        # Since the folder's first run a network may have come or gone.
        known = before["data_path"]
        if known == "synthetic" or Path(known).exists():
            on_message("Data: those that the run in this folder began with")
            asked = known
    if asked not in ("auto", "synthetic", "kaggle"):
        asked = str(Path(asked).expanduser().absolute())
    dataset = datasets.load(asked, on_message=on_message, allow_fallback=not insists)
    fingerprint = dataset.fingerprint
    synthetic = fingerprint["variant"] == "synthetic"
    if insists and synthetic:
        raise ConfigError("--profile paper needs FER2013 and takes no other data; give --data PATH, or --profile smoke")
    profile, why = choose_profile(options.profile, synthetic, gpus > 0)
    on_message(f"Profile: {profile} ({why}): {config['profiles'][profile]['about']}")

    device = "GPU" if gpus else "CPU"
    seen = seen_speeds(project_root() / "results", config)
    entries = []
    for model in models:
        parameters = resolve_parameters(config, profile, model, settings, known[model])
        check_sizes(model, parameters)
        seconds = estimate(config["models"][model], parameters, dataset, device, seen)
        for seed in seeds:
            entries.append(
                {
                    "model": model,
                    "seed": seed,
                    "label": config["models"][model]["label"],
                    "notebook": config["models"][model]["notebook"],
                    "parameters": parameters | {"seed": seed, "data": data_path(dataset)},
                    "estimate": round(seconds, 1),
                }
            )
    name = "-".join([profile, data_name(fingerprint), *(f"{key}={value}" for key, value in sorted(settings.items()))])
    name = re.sub(r"[^\w.,=+-]", "_", name)
    out = Path(options.out).expanduser().absolute() if options.out else project_root() / "results" / name
    plan = {
        "profile": profile,
        "about": config["profiles"][profile]["about"],
        "data": dataset.source,
        "data_asked": options.data,
        "data_path": data_path(dataset),
        "data_variant": fingerprint["variant"],
        "data_description": fingerprint["description"],
        "data_sha256": fingerprint["sha256"],
        "data_notes": list(dataset.notes),
        "protocol": "/".join(sorted({entry["parameters"]["protocol"] for entry in entries})),
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
    names = ", ".join(dict.fromkeys(entry["label"] for entry in entries))
    on_message(f"Models: {names}; seeds {', '.join(map(str, seeds))}; on the {device}")
    on_message(f"Time: about {duration(total + 60)} if nothing of it is done yet ({basis})")
    for entry in entries:
        on_message(f"  {name_of(entry)}: {duration(entry['estimate'])}")
    on_message(f"Run folder: {out}")
    return plan | {"command": command, "created": provenance.now(), "git": provenance.git()}, out


def data_path(dataset):
    """Return what the notebooks are to load: the very data that were found, so that no job searches again."""
    if dataset.fingerprint["variant"] == "synthetic":
        return "synthetic"
    return str(Path(dataset.path).absolute())


def check_folder(out, plan):
    """Refuse a run folder that holds another profile's or another data set's results.

    Raises
    ------
    ConfigError
    """
    before = read_json(out / "plan.json")
    for name in ("profile", "data_sha256"):
        if before and before[name] != plan[name]:
            raise ConfigError(
                f"{out} holds a run with {name} {before[name]}, this one has {plan[name]}; results of the two "
                "would lie side by side as if they were one. Give another --out, or remove the folder."
            )
