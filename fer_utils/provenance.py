"""What made a number: code, packages, device, memory."""

import ast
import functools
import hashlib
import json
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from fer_utils.paths import project_root

#: The folder of this package.
PACKAGE = Path(__file__).parent

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


def now():
    """Return the time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def git():
    """Return the commit of the code and whether files differ from it.

    Returns
    -------
    dict
        ``commit`` (40 hexadecimal digits) and ``dirty`` (bool); both None outside a git checkout.
    """

    def ask(*arguments):
        command = ["git", "-C", str(project_root()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


@functools.cache
def analyse(source):
    """Return which modules of this package some Python code imports, and the code without comments and docstrings.

    The answer is kept by the text: to hash a workflow's code takes each module several times.

    Parameters
    ----------
    source : str
        Python code.

    Returns
    -------
    imported : frozenset of str
        Module names within the package.
    code : str
        The syntax tree, written out.
    """
    tree = ast.parse(source)
    names = {path.stem for path in PACKAGE.glob("*.py")}
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "fer_utils":
            imported |= {alias.name for alias in node.names} & names
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fer_utils."):
            imported.add(node.module.split(".")[1])
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                value.value = ""
    return frozenset(imported), ast.dump(tree)


def analyse_module(name):
    """Return `analyse` of one of this package's modules."""
    return analyse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))


def code_hash(modules):
    """Hash of what some of this package's modules do, whatever their comments and docstrings say.

    Parameters
    ----------
    modules : iterable of str
        Module names within the package, for example ``["training", "pipeline"]``.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    sha = hashlib.sha256()
    for name in sorted(modules):
        sha.update(f"{name}\n{analyse_module(name)[1]}\n".encode())
    return sha.hexdigest()


def modules_of(path):
    """Return which modules of this package a notebook or a module uses, directly or through others.

    Parameters
    ----------
    path : Path
        A notebook, or a Python file.

    Returns
    -------
    set of str
        Module names within the package.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
    found, waiting = set(), set(analyse(text)[0])
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= analyse_module(name)[0] - found
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
