"""Which code made a number: the commit, and a hash of the code that a notebook's numbers depend on."""

import ast
import hashlib
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.paths import project_root

#: What a training's numbers depend on, beside its notebook: modules and rooms of this package.
TRAINING_CODE = ("constants.py", "metrics.py", "data", "training")

#: What lies there and no training calls; the import contract holds it.
APART = ("training/faces.py", "training/gradcam.py")

#: What the findings are made by, beside their notebooks and the run's files.
FINDINGS_CODE = ("constants.py", "metrics.py", "words.py", "data", "findings", "claims", "report")


def now():
    """Return the time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def git():
    """Return the commit of the code and whether files differ from it.

    Returns
    -------
    dict
        ``commit`` (40 hexadecimal digits) and ``dirty`` (bool); both None outside a git checkout. Outputs that
        JupyterLab saved in a notebook are no change.
    """

    def ask(*arguments):
        command = ["git", "-C", str(project_root()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    try:
        commit = ask("rev-parse", "HEAD").strip()
        changed = [line[3:].strip('"') for line in ask("status", "--porcelain").splitlines()]
        return {"commit": commit, "dirty": any(differs(path, ask) for path in changed)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def differs(path, ask):
    """Return whether a changed file differs from the commit in more than a notebook's outputs."""
    if not path.endswith(".ipynb"):
        return True
    try:
        before, after = ask("show", f"HEAD:{path}"), (project_root() / path).read_text(encoding="utf-8")
        return sources(before) != sources(after)
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return True


def sources(text):
    """Return type and source of each cell of a notebook's JSON text."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]


class Silenced(ast.NodeTransformer):
    """Drop what only speaks to a reader: docstrings, calls of ``print``, and the arguments of what is raised."""

    def visit_Expr(self, node):  # noqa: N802
        """Drop a bare string and a call of ``print``."""
        value = node.value
        text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        printed = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print"
        return None if text or printed else self.generic_visit(node)

    def visit_Raise(self, node):  # noqa: N802
        """Keep what is raised, without its words."""
        if isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        return node


def parse(source):
    """Return the syntax tree of Python code (str or bytes); None if it is none: that is an error where it runs."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def meaning(source):
    """Return what Python code does, whatever its comments, docstrings, messages and layout say; else its text."""
    tree = parse(source)
    return repr(source) if tree is None else ast.dump(Silenced().visit(tree))


def notebook_code(path):
    """Return the code of a notebook's cells, without those tagged ``figure`` or ``parameters``; else its bytes.

    No number depends on a figure, and the values of parameters are recorded by themselves.
    """
    content = Path(path).read_bytes()
    try:
        cells = [cell for cell in json.loads(content)["cells"] if cell["cell_type"] == "code"]
        code = [cell for cell in cells if not {"figure", "parameters"} & set(cell["metadata"].get("tags", []))]
        # Magics are no Python.
        lines = "\n".join("".join(cell["source"]) for cell in code).splitlines()
        return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return content


def files_of(place):
    """Return a file, or the files of a folder, sorted; what Python leaves there does not count."""
    paths = sorted(place.rglob("*")) if place.is_dir() else [place]
    return [path for path in paths if path.is_file() and "__pycache__" not in path.parts]


def modules_beside(code, folder):
    """Return the files of the modules in a folder that code there imports, and of those that these import."""
    found, waiting = {}, [code]
    while waiting:
        for node in ast.walk(parse(waiting.pop()) or ast.Module([])):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            places = [folder / f"{name.split('.')[0]}{suffix}" for name in names for suffix in (".py", "")]
            new = [path for place in places if place.exists() for path in files_of(place) if path not in found]
            found |= dict.fromkeys(new)
            waiting += [path.read_bytes() for path in new if path.suffix == ".py"]
    return sorted(found)


def code_hash(notebook=None, parts=TRAINING_CODE, package=Path(__file__).parent):
    """Hash of what a notebook and parts of this package do; to mend a sentence changes nothing.

    Parameters
    ----------
    notebook : path or None
        A notebook; its cells tagged ``figure`` and ``parameters`` do not count. Modules beside it that the other cells
        import are its code.
    parts : sequence of str
        Files and folders of the package: code by its meaning, other files (tables, templates) by their bytes.
    package : Path
        Where they lie.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    code = notebook_code(notebook) if notebook else ""
    sha = hashlib.sha256(meaning(code).encode() if notebook else b"")
    files = [(path, package) for part in parts for path in files_of(package / part)]
    left_out = set(APART) - set(parts)
    files = [(path, root) for path, root in files if path.relative_to(root).as_posix() not in left_out]
    if notebook:
        files += [(path, Path(notebook).parent) for path in modules_beside(code, Path(notebook).parent)]
    for path, root in files:
        content = path.read_bytes()
        content = meaning(content).encode() if path.suffix == ".py" else content
        sha.update(f"\n{path.relative_to(root)}\n".encode() + content)
    return sha.hexdigest()


def prediction_lines(predictions):
    """Write predictions as one line of bytes per image; see `digest_predictions`."""
    probabilities = predictions[list(PROBABILITY_COLUMNS)].to_numpy(dtype=">f4")
    columns = (predictions["id"], predictions["usage"], predictions["label"], probabilities)
    for image, usage, label, row in zip(*columns, strict=True):
        yield f"{image}\t{usage}\t{label}\t{row.tobytes().hex()}\n".encode()


def digest_predictions(predictions):
    """Hash predictions by what they are and not by how they are stored, so that two people can compare theirs.

    Parameters
    ----------
    predictions : DataFrame
        As in ``predictions.parquet``.

    Returns
    -------
    str
        SHA-256 in hexadecimal, of one line per image, in order: id, usage, label and the seven probabilities as
        the hexadecimal digits of big-endian float32, with tabs between the four.
    """
    sha = hashlib.sha256()
    for line in prediction_lines(predictions):
        sha.update(line)
    return sha.hexdigest()
