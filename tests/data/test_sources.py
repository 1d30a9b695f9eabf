import os
import subprocess
import sys
import time
import zipfile

import pytest

from fer_utils.data import sources
from fer_utils.errors import DataError


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("FER2013_DATA", "FER_CACHE", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """Put a Python script in the place of Kaggle's command; its `folder` is where to write."""

    def install(body):
        script = tmp_path / "fake_kaggle.py"
        script.write_text(
            "import os, sys, time, zipfile\n"
            "folder = sys.argv[sys.argv.index('-p') + 1]\n"
            "assert sys.argv[1:3] == ['datasets', 'download'] and 'msambare/fer2013' in sys.argv\n" + body
        )
        monkeypatch.setattr(sources, "KAGGLE_COMMAND", (sys.executable, str(script)))

    return install


WRITE_ZIP = """
with zipfile.ZipFile(os.path.join(folder, 'fer2013.zip'), 'w') as archive:
    archive.writestr('train/angry/Training_1.jpg', b'x')
"""

OFFLINE = "print('HTTPSConnectionPool(...): Failed to resolve \\'api.kaggle.com\\' (...)'); sys.exit(1)"


# --- Kaggle -------------------------------------------------------------------------------------------------


def test_download(kaggle, tmp_path):
    kaggle(WRITE_ZIP)
    messages = []
    found = sources.find("kaggle", tmp_path / "data", messages.append)
    assert found.path == tmp_path / "data" / "fer2013.zip" and found.source == "kaggle:msambare/fer2013"
    assert zipfile.ZipFile(found.path).namelist() == ["train/angry/Training_1.jpg"]
    assert "Downloading msambare/fer2013" in messages[0]
    assert not list((tmp_path / "data").glob(".download-*"))

    # The second time it is there.
    kaggle("sys.exit('must not be called')")
    for source in ("kaggle", "auto"):
        assert sources.find(source, tmp_path / "data", messages.append) == sources.Found(found.path, "fer2013.zip")


def test_what_a_killed_download_left_is_removed_in_time(kaggle, tmp_path):
    for name, age in (("killed", 7300), ("living", 60)):
        part = tmp_path / f".download-{name}"
        part.mkdir()
        (part / "fer2013.zip").write_bytes(b"half")
        os.utime(part, (time.time() - age,) * 2)
    kaggle(WRITE_ZIP)
    sources.download(tmp_path, lambda message: None)
    assert sorted(path.name for path in tmp_path.glob(".download-*")) == [".download-living"]


def test_a_slow_download_goes_on_as_long_as_bytes_come(kaggle, tmp_path):
    kaggle(
        "for i in range(8):\n"
        "    open(os.path.join(folder, 'fer2013.zip'), 'ab').write(b'x')\n"
        "    time.sleep(0.25)\n" + WRITE_ZIP
    )
    started = time.monotonic()
    sources.download(tmp_path, lambda message: None, timeout=1)
    assert time.monotonic() - started > 1.9


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("", "no answer for 0.7 s (0.0 MB had come)"),
        ("open(os.path.join(folder, 'fer2013.zip'), 'wb').write(b'x' * 2_000_000)", "(2.0 MB had come)"),
    ],
)
def test_a_silent_download_is_ended(kaggle, tmp_path, before, reason):
    pid_file = tmp_path / "pids"
    kaggle(
        f"import subprocess\n{before}\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pid_file)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)\n"
    )
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        sources.download(tmp_path / "data", lambda message: None, timeout=0.7)
    assert reason in str(caught.value)
    assert time.monotonic() - started < 10
    assert not list((tmp_path / "data").iterdir())
    time.sleep(0.2)
    for pid in map(int, pid_file.read_text().split()):
        assert is_dead(pid)


def is_dead(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return not state.strip() or state.startswith("Z")  # a zombie that its new parent has not yet buried


def test_a_broken_download_is_not_kept(kaggle, tmp_path):
    kaggle("open(os.path.join(folder, 'fer2013.zip'), 'wb').write(b'PK half of it')")
    with pytest.raises(DataError, match="not a whole zip"):
        sources.download(tmp_path / "data", lambda message: None)
    assert not list((tmp_path / "data").iterdir())


def test_kaggles_error_is_passed_on_without_credentials(kaggle, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "abc123secret")
    monkeypatch.setenv("VERBOSE", "1")
    kaggle(
        "print('Authentication required, a long help')\n"
        "print('Authorization: Bearer abc123secret')\n"
        "print('403 for', os.environ['KAGGLE_KEY'], folder, 'verbose', os.environ.get('VERBOSE'))\n"
        "print('Authorization: Bearer abc123secret', file=sys.stderr)\n"
        "sys.exit(1)"
    )
    messages = []
    with pytest.raises(DataError) as caught:
        sources.find("kaggle", tmp_path / "data", messages.append)
    text = str(caught.value)
    assert text.startswith("Kaggle: 403 for *** .download-") and text.endswith("verbose None")
    assert "abc123secret" not in text + "".join(messages) and str(tmp_path) not in text


def test_the_real_kaggle_package_without_a_network(tmp_path, monkeypatch):
    # A port of this machine at which nobody listens stands for the network that is not there.
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(DataError, match="^Kaggle: .*(refused|proxy)"):
        sources.download(tmp_path / "data", lambda message: None)
    assert time.monotonic() - started < 15


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        sources.download(tmp_path / "file" / "data", lambda message: None)


def test_without_the_kaggle_package(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="not installed"):
        sources.download(tmp_path, lambda message: None)


def test_an_unwatched_process_would_log_in():
    """Kaggle must not be imported by this package: that logs in and may end the process."""
    code = "import sys, fer_utils.data.sources; print(sorted({'kaggle', 'tensorflow'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --- the order of sources -----------------------------------------------------------------------------------


def test_synthetic_asks_no_one(kaggle, tmp_path):
    kaggle("sys.exit('must not be called')")
    assert sources.find("synthetic", tmp_path) == sources.Found(None, "synthetic")


def test_fallback_says_what_was_tried(kaggle, tmp_path):
    kaggle(OFFLINE)
    messages = []
    found = sources.find("auto", tmp_path / "data", messages.append)
    assert found.path is None and found.source == "synthetic"
    assert found.notes == (
        "FER2013_DATA is not set",
        "the folder data/ holds no copy of FER2013",
        "Kaggle: Failed to resolve 'api.kaggle.com' (no network?)",
    )
    assert "SYNTHETIC" in messages[-1] and all(note in messages[-1] for note in found.notes)


def test_no_fallback_where_it_is_not_allowed(kaggle, tmp_path):
    kaggle(OFFLINE)
    with pytest.raises(DataError) as caught:
        sources.find("auto", tmp_path / "data", lambda message: None, allow_fallback=False)
    for part in ("FER2013_DATA is not set", "data/ holds no copy", "Failed to resolve", "fer2013.zip"):
        assert part in str(caught.value)


def test_variable_before_cache_before_kaggle(kaggle, small_set, tmp_path, monkeypatch):
    kaggle(WRITE_ZIP)
    data = tmp_path / "data"
    assert sources.find("auto", data).source == "kaggle:msambare/fer2013"
    (data / "fer2013.zip").unlink()
    small_set.write_csv(data / "icml_face_data.csv", "icml")
    assert sources.find("auto", data).path == data / "icml_face_data.csv"
    small_set.write_csv(data / "fer2013.csv")
    assert sources.find("auto", data).path == data / "fer2013.csv"
    small_set.write_zip(data / "fer2013.zip")
    assert sources.find("auto", data).path == data / "fer2013.zip"
    mine = small_set.write_zip(tmp_path / "mine.zip")
    monkeypatch.setenv("FER2013_DATA", str(mine))
    assert sources.find("auto", data) == sources.Found(mine, "mine.zip")
    assert sources.find(data / "fer2013.csv", data).source == "fer2013.csv"


def test_cache_folder(monkeypatch, tmp_path):
    assert sources.cache_folder().name == "data" and (sources.cache_folder().parent / "fer_utils").is_dir()
    monkeypatch.setenv("FER_CACHE", str(tmp_path))
    assert sources.cache_folder() == tmp_path
    assert sources.cache_folder(tmp_path / "other") == tmp_path / "other"


def fails(source, *parts):
    with pytest.raises(DataError) as caught:
        sources.find(source)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_path_that_is_given_is_never_replaced(small_set, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    fails(mine, str(mine), "the path given does not exist")
    monkeypatch.setenv("FER2013_DATA", str(mine))
    fails("auto", str(mine), "FER2013_DATA does not exist")
    mine.mkdir()
    fails(mine, "holds neither train/ and test/", "but nothing")
    (mine / "notes.txt").touch()
    (mine / "images").mkdir()
    fails(mine, "nor one of fer2013.zip", "but images/, notes.txt")


def test_hints(small_set, tmp_path):
    small_set.write_zip(tmp_path / "fer2013.zip")
    fails(tmp_path / "fer2103.zip", "does not exist; there is", "fer2013.zip")
    for source in ("msambare/fer2013", "https://www.kaggle.com/datasets/msambare/fer2013"):
        fails(
            source, f"{source}: the path given does not exist; it is no file: --data kaggle downloads msambare/fer2013"
        )
    (tmp_path / "link.zip").symlink_to("../objects/ab")
    fails(tmp_path / "link.zip", "is a link to ../objects/ab, which does not exist; fetch that file")
    (tmp_path / "annex").mkdir()
    (tmp_path / "annex" / "fer2013.csv").symlink_to("../objects/cd")
    fails(tmp_path / "annex", "but fer2013.csv (a link to ../objects/cd, which does not exist; fetch that file)")


@pytest.mark.parametrize(
    "name",
    ["archive.zip", "archive (1).zip", "challenges-in-representation-learning-facial-expression-recognition.zip",
     "icml_face_data.csv.zip", "fer2013.csv.gz", "fer2013.tar", "FER-2013.zip"],
)  # fmt: skip
def test_names_in_use_are_known(tmp_path, name):
    (tmp_path / "other.zip").touch()
    assert sources.find_in_folder(tmp_path) is None
    (tmp_path / name).touch()
    assert sources.find_in_folder(tmp_path) == tmp_path / name
    (tmp_path / "fer2013.zip").touch()
    assert sources.find_in_folder(tmp_path) == tmp_path / "fer2013.zip"


def test_what_a_folder_holds(small_set, tmp_path):
    hidden = tmp_path / ".download-x"
    hidden.mkdir()
    small_set.write_zip(hidden / "fer2013.zip")
    assert sources.find_in_folder(tmp_path) is None  # another process is still at it
    (tmp_path / "fer2013").mkdir()
    below = small_set.write_csv(tmp_path / "fer2013" / "fer2013.csv")
    assert sources.find_in_folder(tmp_path) == below
    tree = small_set.write_folder(tmp_path / "archive" / "versions" / "1")
    assert sources.find_in_folder(tmp_path) == tree
    assert sources.find(tmp_path, tmp_path) == sources.Found(tree, "1")
