"""Where the data comes from: a path, ``FER2013_DATA``, the local cache, Kaggle, or the synthetic set.

Environment variables: ``FER2013_DATA`` (a copy of the data), ``FER_CACHE`` (where downloads and decoded images are
kept; by default the project's ``data/``).
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fer_utils.data.readers import CSV_NAMES, tree_root
from fer_utils.errors import DataError, redact
from fer_utils.files import write_json
from fer_utils.paths import project_root

KAGGLE_SLUG = "msambare/fer2013"

#: How Kaggle's command line is called: in a process of its own, since importing ``kaggle`` logs in and may exit.
KAGGLE_COMMAND = (sys.executable, "-m", "kaggle")

#: Names under which a copy is recognised in a folder, in the order in which they are preferred.
FILE_NAMES = ("fer2013.zip", "archive.zip", *CSV_NAMES, "fer2013.tar.gz")


@dataclass(frozen=True)
class Found:
    """Where the data is.

    ``path`` is None for the synthetic set; ``source`` is ``"synthetic"``, ``"kaggle:msambare/fer2013"`` or the base
    name of `path`, never a full path; ``notes`` say what was tried before and why it failed.
    """

    path: Path | None
    source: str
    notes: tuple[str, ...] = ()


def cache_folder(cache: str | Path | None = None) -> Path:
    """Return the folder of downloads and decoded images: `cache`, else ``FER_CACHE``, else ``data/`` of the project."""
    if cache or os.environ.get("FER_CACHE"):
        return Path(cache or os.environ["FER_CACHE"]).expanduser()
    return project_root() / "data"


def find(
    source: str | Path = "auto",
    cache: str | Path | None = None,
    on_message: Callable[[str], None] = print,
    allow_fallback: bool = True,
) -> Found:
    """Find the data, downloading it if need be; the parameters are those of :func:`fer_utils.data.dataset.load`.

    Raises
    ------
    DataError
        If a path that was given (or ``FER2013_DATA``) is missing or holds no data, if ``"kaggle"`` fails, or if
        nothing was found and `allow_fallback` is false.
    """
    folder = cache_folder(cache)
    if source == "synthetic":
        return Found(None, "synthetic")
    if source == "kaggle":
        return _from_kaggle(folder, on_message)
    if source != "auto":
        return _from_path(Path(source), "the path given")
    return _find_anywhere(folder, on_message, allow_fallback)


def _find_anywhere(folder, on_message, allow_fallback):
    if os.environ.get("FER2013_DATA"):
        return _from_path(Path(os.environ["FER2013_DATA"]), "FER2013_DATA")
    tried = ["FER2013_DATA is not set"]
    path = find_in_folder(folder) if folder.is_dir() else None
    if path:
        return Found(path, _source_of(path))
    tried.append(f"the folder {folder.name}/ holds no copy of FER2013")
    try:
        return _from_kaggle(folder, on_message)
    except DataError as error:
        tried.append(str(error))
    remedy = (
        f"Download https://www.kaggle.com/datasets/{KAGGLE_SLUG} and put it at {folder / FILE_NAMES[0]}, "
        "or give its path."
    )
    reasons = "; ".join(tried)
    if not allow_fallback:
        raise DataError(f"FER2013 was not found, and this run needs the real data: {reasons}. {remedy}")
    on_message(
        f"WARNING: FER2013 was not found: {reasons}. FALLING BACK TO THE SYNTHETIC SET of drawn faces: "
        f"nothing that comes of it is a result about FER2013. {remedy}"
    )
    return Found(None, "synthetic", tuple(tried))


def _from_path(path, origin):
    path = path.expanduser()
    if not path.exists():
        raise DataError(f"{path}: {origin} does not exist")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: {origin} cannot be read; check its permissions")
    if path.is_dir():
        inside = find_in_folder(path)
        if inside is None:
            raise DataError(
                f"{path}: {origin} is a folder that holds neither train/ and test/ (here or one folder down) "
                f"nor one of {', '.join(FILE_NAMES)}"
            )
        path = inside
    return Found(path, _source_of(path))


def find_in_folder(folder: Path) -> Path | None:
    """Find one of ``FILE_NAMES``, or the folder that holds ``train/`` and ``test/``, here or one folder down."""
    try:
        files = [folder / name for name in FILE_NAMES if (folder / name).is_file()]
        if files:
            return files[0]
        root = tree_root(folder)
        if root:
            return root
        # Not in hidden folders: a download that another process is still at lies in one.
        below = [path for name in FILE_NAMES for path in sorted(folder.glob(f"[!.]*/{name}"))]
        return below[0] if below else None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}") from error


# --- Kaggle -------------------------------------------------------------------------------------------------


def _from_kaggle(folder, on_message):
    path = folder / "fer2013.zip"
    if path.is_file():
        on_message(f"{path} is there already; it is used, nothing is downloaded")
    else:
        download(folder, on_message)
    return Found(path, _source_of(path))


def download(folder: Path, on_message: Callable[[str], None] = print, timeout: float = 20, limit: float = 3600) -> Path:
    """Download FER2013 from Kaggle to ``fer2013.zip``; a public dataset, so no account is needed.

    The file gets its name only when it is whole. `timeout` is the number of seconds without a new byte after which to
    give up (``kaggle`` itself would wait for ever), `limit` that after which to give up in any case.
    """
    if importlib.util.find_spec("kaggle") is None:
        raise DataError("Kaggle: the package kaggle is not installed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".download-*"):
            # Of a process that was killed: a living one ends, and tidies up, within its limit.
            if time.time() - left.stat().st_mtime > 2 * limit:
                shutil.rmtree(left, ignore_errors=True)
        part = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
    except OSError as error:
        raise DataError(f"Kaggle: {folder} cannot be written: {error.strerror}") from error
    try:
        on_message(f"Downloading {KAGGLE_SLUG} from Kaggle (about 60 MB) ...")
        _run_kaggle(part, on_message, timeout, limit)
        zips = list(part.glob("*.zip"))
        if not zips or not zipfile.is_zipfile(zips[0]):
            raise DataError("Kaggle: what came is not a whole zip")
        target = folder / "fer2013.zip"
        os.replace(zips[0], target)
        _mark_origin(target)
        on_message(f"Kaggle: {target} is there ({target.stat().st_size / 1e6:.1f} MB)")
        return target
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _run_kaggle(part, on_message, timeout, limit):
    command = [*KAGGLE_COMMAND, "datasets", "download", "-q", "-d", KAGGLE_SLUG, "-p", str(part)]
    # VERBOSE makes kaggle print the Authorization header.
    environment = {name: value for name, value in os.environ.items() if name != "VERBOSE"}
    with open(part / "output.txt", "w+b") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            _watch(process, part, on_message, timeout, limit)
        finally:
            _kill(process)
        if process.returncode:
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
            raise DataError(f"Kaggle: {_last_line(text, part) or f'ended with code {process.returncode}'}")


def _watch(process, part, on_message, timeout, limit):
    """Wait for the download to end, as long as its file grows."""
    started = grown = told = time.monotonic()
    size = 0
    while process.poll() is None:
        time.sleep(0.1)
        now = time.monotonic()
        new_size = sum(p.stat().st_size for p in part.glob("*") if p.name != "output.txt")
        if new_size != size:
            size, grown = new_size, now
        if now - grown > timeout:
            raise DataError(f"Kaggle: no answer for {timeout:g} s ({size / 1e6:.1f} MB had come)")
        if now - started > limit:
            raise DataError(f"Kaggle: not done after {limit:g} s ({size / 1e6:.1f} MB had come)")
        if now - told > 5 and size:
            on_message(f"Kaggle: {size / 1e6:.1f} MB")
            told = now


def _kill(process):
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # its own session, so its children go too
        else:
            process.kill()
        process.wait()


def _last_line(text, part):
    """Return the last line that kaggle printed, which is its error, without credentials and local paths."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "authorization" not in line.lower()]
    line = redact(lines[-1]) if lines else ""
    for folder in (part, part.parent, Path.home()):
        line = line.replace(str(folder), folder.name)
    # The cause stands deep inside requests' message: "... Max retries exceeded ... (Caused by ...)".
    cause = re.search(r"Failed to resolve '[^']*'|Connection refused|timed out|Network is unreachable", line)
    return f"{cause.group()} (no network?)" if cause else line[:300]


def _mark_origin(path):
    """Note beside a download where it came from, so that a later run can say so too."""
    status = path.stat()
    record = {"source": f"kaggle:{KAGGLE_SLUG}", "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    write_json(_origin_file(path), record)


def _origin_file(path):
    return path.with_name(f"{path.name}.origin.json")


def _source_of(path):
    """Return where a file came from if :func:`download` left it there and it is unchanged, else its base name."""
    try:
        record = json.loads(_origin_file(path).read_text(encoding="utf-8"))
        status = path.stat()
        if (record["size"], record["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
            return record["source"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return path.resolve().name
