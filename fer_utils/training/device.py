"""The machine that a training runs on: processor or GPU, threads, dtype policy, seeds; and what of it is recorded."""

import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

import keras
import tensorflow as tf
import yaml

from fer_utils.errors import ConfigError

#: Where Linux describes the processor.
CPUINFO = Path("/proc/cpuinfo")

#: Sets of vector instructions, by which speed and last digits differ; the first that a processor has is named.
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "avx", "asimd")

#: The packages whose version a result can depend on.
PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "scipy", "pillow", "matplotlib")

#: What ``precision="auto"`` stands for, by notebook and kind of device.
PRECISION_TABLE = Path(__file__).with_name("precision.yaml")

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


def prepare(threads, seed, deterministic):
    """Set threads, seeds and determinism before TensorFlow computes anything.

    Parameters
    ----------
    threads : int
        CPU threads within an operation. One and two threads give different sums, so the number is recorded.
    seed : int
        Seeds Python, NumPy and TensorFlow.
    deterministic : bool
        Use only operations that give the same result each time.

    Returns
    -------
    dict
        ``kind`` (CPU or GPU), ``name``, ``threads``.

    Raises
    ------
    ConfigError
        If TensorFlow already runs with another number of threads.
    """
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        except RuntimeError:
            raise ConfigError(
                f"threads is {threads}, and TensorFlow runs in this kernel with another number; restart the kernel"
            ) from None
    # One training uses one GPU: batches of 64 images of 48x48 pixels keep no second one busy.
    gpus = tf.config.list_physical_devices("GPU")[:1]
    for gpu in gpus:
        tf.config.set_visible_devices(gpu, "GPU")
        tf.config.experimental.set_memory_growth(gpu, True)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name)
    else:
        name = cpu_name() + (", without oneDNN" if onednn_in_use() is False else "")
    return {"kind": "GPU" if gpus else "CPU", "name": name, "threads": threads}


def available_cores():
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def choose_precision(asked, notebook, device, cpuinfo=CPUINFO):
    """Return the dtype policy to train with.

    Parameters
    ----------
    asked : {"auto", "float32", "mixed_bfloat16", "mixed_float16"}
        ``auto`` is 16 bits only where ``precision.yaml`` shows that they were measured to be faster, else float32. On
        a CPU mixed_float16 works and is several times slower than float32.
    notebook : str
        File name, by which the table knows the network.
    device : {"CPU", "GPU"}
        What is trained on.
    cpuinfo : Path
        Where Linux describes the processor.

    Returns
    -------
    {"float32", "mixed_bfloat16", "mixed_float16"}

    Raises
    ------
    ConfigError
        If there is no such precision.
    """
    if asked not in PRECISIONS:
        raise ConfigError(f"precision is {asked!r}; expected one of {', '.join(PRECISIONS)}")
    if asked != "auto":
        return asked
    table = yaml.safe_load(PRECISION_TABLE.read_text(encoding="utf-8"))
    kinds = table.get(notebook, {}).get("kinds", {})
    return kinds.get(kind_of_device(device, cpuinfo), {"used": "float32"})["used"]


def kind_of_device(device, cpuinfo=CPUINFO):
    """Return what ``precision.yaml`` calls a device: ``GPU``, ``CPU``, or a kind of processor that was measured.

    A flag alone does not tell: with avx512_bf16, bfloat16 is faster than float32 on an AMD EPYC and slower on an Intel
    Xeon whose matrix unit (AMX) a virtual machine hides.
    """
    if device != "CPU":
        return device
    vendor, flags = cpu_facts(cpuinfo).get("vendor_id"), cpu_flags(cpuinfo)
    for maker, name, flag in (("GenuineIntel", "Intel", "amx_bf16"), ("AuthenticAMD", "AMD", "avx512_bf16")):
        if vendor == maker and flag in flags:
            return f"{name} with {flag}"
    return "CPU"


def onednn_in_use():
    """Return whether TensorFlow computes with oneDNN; None on processors other than x86.

    ``fer_utils`` asks for it when it is imported. TensorFlow by itself uses it only on processors with instructions for
    neural networks, which many laptops lack.
    """
    # No public function tells.
    from tensorflow.python.util import _pywrap_util_port

    return _pywrap_util_port.IsMklEnabled() if platform.machine() == "x86_64" else None


def onednn_came_too_late():
    """Return whether TensorFlow was imported before ``fer_utils`` and computes without oneDNN."""
    return onednn_in_use() is False and os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1"


def cpu_facts(cpuinfo=CPUINFO):
    """Return what Linux says of the first processor, field by field; an empty dict elsewhere."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = [[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]
    # The fields repeat for each processor; the first one's count.
    return dict(reversed(fields))


def cpu_name(cpuinfo=CPUINFO):
    """Return the processor's name with its widest vector instructions, for example ``"AMD EPYC with avx2"``.

    The name alone is not enough: there are several generations of an "AMD EPYC".
    """
    name = cpu_facts(cpuinfo).get("model name") or platform.processor() or platform.machine()
    flags = cpu_flags(cpuinfo)
    return " with ".join([name, *[entry for entry in INSTRUCTIONS if entry in flags][:1]])


def cpu_flags(cpuinfo=CPUINFO):
    """Return the instruction sets that Linux lists on x86 or ARM; an empty set elsewhere."""
    facts = cpu_facts(cpuinfo)
    return set((facts.get("flags") or facts.get("Features") or "").split())


def versions():
    """Return the versions of Python and of the packages that a result can depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # Without a GPU, TensorFlow comes as the smaller tensorflow-cpu.
            found[name] = metadata.version(f"{name}-cpu")
    return found


def peak_memory_mb(device="CPU"):
    """Return the most memory in MiB that this process has held, in RAM ("CPU") or on its GPU ("GPU")."""
    if device == "GPU":
        return round(tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
