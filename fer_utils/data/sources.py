"""Where the data comes from: a path, ``FER2013_DATA``, the local cache, Kaggle, or the synthetic set.

Environment variables: ``FER2013_DATA`` (a copy of the data), ``FER_CACHE`` (where downloads and decoded images are
kept; by default the project's ``data/``).
"""

import difflib
import importlib.util
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

from fer_utils.data.readers import CSV_NAMES, find_root
from fer_utils.errors import DataError, redact
from fer_utils.paths import project_root

KAGGLE_SLUG = "msambare/fer2013"

#: How Kaggle's command line is called: in a process of its own, since importing ``kaggle`` logs in and may exit.
KAGGLE_COMMAND = (sys.executable, "-m", "kaggle")

#: Names under which a copy is recognised in a folder, in the order in which they are preferred; browsers and Kaggle
#: add to them (``archive (1).zip``, ``challenges-in-representation-learning-....zip``).
FILE_NAMES = ("fer2013.zip", "archive.zip", *CSV_NAMES, "fer2013.tar.gz")
OTHER_NAMES = re.compile(r"(fer-?_?2013|archive|icml_face_data|challenges-in-representation-learning).*"
                         r"\.(zip|csv|csv\.gz|tar|tar\.gz|tgz)", re.IGNORECASE)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Where the data is.

    ``path`` is None for the synthetic set; ``source`` is ``"synthetic"``, ``"kaggle:msambare/fer2013"`` (downloaded
    on request) or the base name of `path`, never a full path; ``notes`` say what was tried before and why it failed.
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
        return _from_path(source, "the path given")
    if os.environ.get("FER2013_DATA"):
        return _from_path(os.environ["FER2013_DATA"], "FER2013_DATA")
    path = find_in_folder(folder) if folder.is_dir() else None
    if path:
        return Found(path, path.resolve().name)
    tried = ["FER2013_DATA is not set", f"the folder {folder.name}/ holds no copy of FER2013"]
    try:
        return _from_kaggle(folder, on_message)
    except DataError as error:
        tried.append(str(error))
    place = folder / FILE_NAMES[0]
    remedy = f"Download https://www.kaggle.com/datasets/{KAGGLE_SLUG} and put it at {place}, or give its path."
    reasons = "; ".join(tried)
    if not allow_fallback:
        raise DataError(f"FER2013 was not found, and this run needs the real data: {reasons}. {remedy}")
    on_message(
        f"WARNING: FER2013 was not found: {reasons}. FALLING BACK TO THE SYNTHETIC SET of drawn faces: "
        f"nothing that comes of it is a result about FER2013. {remedy}"
    )
    return Found(None, "synthetic", tuple(tried))


def _from_path(source, origin):
    path = Path(source).expanduser()
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: {origin} is a link to {os.readlink(path)}, which does not exist; fetch that file")
    if not path.exists():
        hint = ""
        if re.match(r"(https?://|(www\.)?kaggle\.com)", str(source)) or str(source) == KAGGLE_SLUG:
            path, hint = source, f"; it is no file: --data kaggle downloads {KAGGLE_SLUG}"
        elif path.parent.is_dir():
            near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
            hint = f"; there is {path.with_name(near[0])}" if near else ""
        raise DataError(f"{path}: {origin} does not exist{hint}")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: {origin} cannot be read; check its permissions")
    inside = find_in_folder(path) if path.is_dir() else path
    if inside is None:
        names = sorted(_describe(entry) for entry in path.iterdir())
        holds = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"
        raise DataError(
            f"{path}: {origin} is a folder that holds neither train/ and test/ (here or up to three folders down) "
            f"nor one of {', '.join(FILE_NAMES)}, but {holds}"
        )
    return Found(inside, inside.resolve().name)


def _describe(entry):
    """Return an entry of a folder as it is listed: a link that leads nowhere with its target."""
    if entry.is_symlink() and not entry.exists():
        return f"{entry.name} (a link to {os.readlink(entry)}, which does not exist; fetch that file)"
    return entry.name + "/" * entry.is_dir()


def find_in_folder(folder: Path) -> Path | None:
    """Find one of ``FILE_NAMES``, or the folder that holds ``train/`` and ``test/``, here or some folders down."""

    def named(pattern):
        # Not in hidden folders: a download that another process is still at lies in one.
        files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        known = [path for name in FILE_NAMES for path in files if path.name == name]
        return (known or [path for path in files if OTHER_NAMES.fullmatch(path.name)] or [None])[0]

    return named("*") or find_root(folder) or named("[!.]*/*")


# --- Kaggle -------------------------------------------------------------------------------------------------


def _from_kaggle(folder, on_message):
    path = folder / "fer2013.zip"
    if path.is_file():
        on_message(f"{path} is there already; it is used, nothing is downloaded")
        return Found(path, path.resolve().name)
    return Found(download(folder, on_message), f"kaggle:{KAGGLE_SLUG}")


def download(folder: Path, on_message: Callable[[str], None] = print, timeout: float = 20) -> Path:
    """Download FER2013 from Kaggle to ``fer2013.zip``; a public dataset, so no account is needed.

    The file gets its name only when it is whole. `timeout` is the number of seconds without a new byte after which to
    give up (``kaggle`` itself would wait for ever).
    """
    if importlib.util.find_spec("kaggle") is None:
        raise DataError("Kaggle: the package kaggle is not installed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".download-*"):
            if time.time() - left.stat().st_mtime > 7200:  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
        temporary = tempfile.TemporaryDirectory(prefix=".download-", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise DataError(f"Kaggle: {folder} cannot be written: {error.strerror}") from error
    with temporary as part:
        on_message(f"Downloading {KAGGLE_SLUG} from Kaggle (about 60 MB) ...")
        _run_kaggle(Path(part), on_message, timeout)
        zips = list(Path(part).glob("*.zip"))
        if not zips or not zipfile.is_zipfile(zips[0]):
            raise DataError("Kaggle: what came is not a whole zip")
        target = folder / "fer2013.zip"
        os.replace(zips[0], target)
    on_message(f"Kaggle: {target} is there ({target.stat().st_size / 1e6:.1f} MB)")
    return target


def _run_kaggle(part, on_message, timeout):
    """Run Kaggle's command line as long as its file grows."""
    command = [*KAGGLE_COMMAND, "datasets", "download", "-q", "-d", KAGGLE_SLUG, "-p", str(part)]
    # VERBOSE makes kaggle print the Authorization header.
    environment = {name: value for name, value in os.environ.items() if name != "VERBOSE"}
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "env": environment, "start_new_session": True}
    grown = told = time.monotonic()
    size = 0
    with open(part / "output.txt", "w+b") as output:
        process = subprocess.Popen(command, stdout=output, **options)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                now, before = time.monotonic(), size
                size = sum(p.stat().st_size for p in part.glob("*") if p.name != "output.txt")
                grown = now if size != before else grown
                if now - grown > timeout:
                    raise DataError(f"Kaggle: no answer for {timeout:g} s ({size / 1e6:.1f} MB had come)")
                if now - told > 5 and size:
                    on_message(f"Kaggle: {size / 1e6:.1f} MB")
                    told = now
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its own session, so its children go too
                process.wait()
        if process.returncode:
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
            raise DataError(f"Kaggle: {_last_line(text, part) or f'ended with code {process.returncode}'}")


def _last_line(text, part):
    """Return the last line that kaggle printed, which is its error, without credentials and local paths."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "authorization" not in line.lower()]
    line = redact(lines[-1]) if lines else ""
    for folder in (part, part.parent, Path.home()):
        line = line.replace(str(folder), folder.name)
    # The cause stands deep inside requests' message: "... Max retries exceeded ... (Caused by ...)".
    cause = re.search(r"Failed to resolve '[^']*'|Connection refused|timed out|Network is unreachable", line)
    return f"{cause.group()} (no network?)" if cause else line[:300]
