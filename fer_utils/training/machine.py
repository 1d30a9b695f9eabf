"""The machine that a number was made on: packages, processor, memory."""

import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

#: Where Linux describes the processor.
CPUINFO = Path("/proc/cpuinfo")

#: Sets of vector instructions, by which speed and last digits differ; the first that a processor has is named.
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "avx", "asimd")

#: The packages whose version a result can depend on.
PACKAGES = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn", "scipy", "pillow", "matplotlib")


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


def cpu_facts(cpuinfo=CPUINFO):
    """Return what Linux says of the first processor, field by field; empty elsewhere.

    Parameters
    ----------
    cpuinfo : Path
        Where Linux describes the processors.

    Returns
    -------
    dict of str to str
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = [[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]
    # Of a field that comes again, the first stays.
    return dict(reversed(fields))


def cpu_name(cpuinfo=CPUINFO):
    """Return the processor's name as the system gives it, with its widest vector instructions.

    The name alone does not do: there are several generations of an "AMD EPYC". For example ``"AMD EPYC with avx2"``;
    without the instructions where the system does not list them.
    """
    name = cpu_facts(cpuinfo).get("model name") or platform.processor() or platform.machine()
    flags = cpu_flags(cpuinfo)
    return " with ".join([name, *[entry for entry in INSTRUCTIONS if entry in flags][:1]])


def cpu_flags(cpuinfo=CPUINFO):
    """Return the names of what the processor can do, as Linux lists them on x86 or ARM; an empty set elsewhere."""
    facts = cpu_facts(cpuinfo)
    return set((facts.get("flags") or facts.get("Features") or "").split())


def peak_memory_mb():
    """Return the most memory that this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
