"""`./run_all.sh lab` serves this machine alone, to those who have its token."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import psutil
import pytest

from fer_utils.paths import project_root

#: In the order of the index. What differs in the notebooks 03 to 05 is run by the workflow's tests.
NOTEBOOKS = ("01_dataset", "06_methods", "02_traditional_cnn", "07_findings", "08_audit", "09_try")

#: Parameters that make a notebook short.
SHORT = {"data": "synthetic", "epochs": 1, "images_per_class": 9, "test_images_per_class": 8, "resamples": 20}

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def answers(address, port):
    """Whether a connection is taken there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def shorten(path, target, out):
    """Copy a notebook with short parameters, and a run folder as its `out`."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            for name, value in (SHORT | {"out": str(out)}).items():
                cell.source = re.sub(
                    rf"^({name}: \w+ = ).*", lambda found, v=value: f"{found[1]}{v!r}", cell.source, flags=re.M
                )
    nbformat.write(notebook, target)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder that JupyterLab serves."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(root):
    """Start JupyterLab as the script does, with the tests' own Python; return its port and token."""
    (root / "notebooks").mkdir()
    for name in NOTEBOOKS:
        shorten(project_root() / "notebooks" / f"{name}.ipynb", root / "notebooks" / f"{name}.ipynb", root / "run")
    script = (project_root() / "run_all.sh").read_text(encoding="utf-8")
    (root / "run_all.sh").write_text(script, encoding="utf-8")
    for venv, name in ((".venv", "requirements.txt"), (".venv-gpu", "requirements-gpu.txt")):
        (root / venv / "bin").mkdir(parents=True)
        (root / name).write_text("x\n")
        (root / venv / "made-from").write_text(f"x\n{root.resolve()}\n")
        python = root / venv / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    shutil.copytree(project_root() / ".jupyter", root / ".jupyter")
    folders = {name: str(root / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")}
    # What only a test needs: no browser, any free port, and root in a container.
    options = ["--no-browser", "--ServerApp.port=0", "--allow-root"]
    with subprocess.Popen(
        ["bash", str(root / "run_all.sh"), "lab", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | folders | {"HOME": str(root)},
    ) as process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if found := re.search(r"http://127\.0\.0\.1:(\d+)/\S*token=(\w+)", line):
                    break
            assert found, "".join(said)
            # It says where it is a moment before it listens there.
            deadline = time.monotonic() + 20
            while not answers("127.0.0.1", int(found[1])):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield int(found[1]), found[2]
        finally:
            process.kill()


def fetch(port, path, **headers):
    """The answer to a request."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=20)


def ask(port, **headers):
    """Status of a request for the list of files."""
    try:
        return fetch(port, "/api/contents", **headers).status
    except urllib.error.HTTPError as error:
        return error.code


def test_it_listens_on_loopback_alone(lab):
    port, _ = lab
    cards = psutil.net_if_addrs().values()
    own = {a.address.partition("%")[0] for card in cards for a in card if a.family in (socket.AF_INET, socket.AF_INET6)}
    # On Linux the whole of 127.0.0.0/8 is this machine: a server on all addresses would answer there too.
    others = (own | {"127.0.0.2", "::1"}) - {"127.0.0.1"}
    assert [address for address in sorted(others) if answers(address, port)] == []


def test_it_wants_its_token(lab):
    port, token = lab
    assert ask(port) == 403
    assert ask(port, Authorization="token 0") == 403
    assert ask(port, Authorization=f"token {token}") == 200


def test_it_answers_to_no_other_name(lab):
    """A page elsewhere could have its own name lead here."""
    port, token = lab
    assert ask(port, Authorization=f"token {token}", Host="elsewhere.example") == 403


def test_it_offers_one_kernel_and_asks_for_no_news(lab):
    port, token = lab
    said = json.load(fetch(port, "/api/kernelspecs", Authorization=f"token {token}"))
    assert said["default"] == "fer2013" and set(said["kernelspecs"]) <= {"fer2013"}
    place = "/lab/api/settings/@jupyterlab/apputils-extension:notification"
    schema = json.load(fetch(port, place, Authorization=f"token {token}"))["schema"]["properties"]
    assert (schema["fetchNews"]["default"], schema["checkForUpdates"]["default"]) == ("false", False)


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found.new_context(viewport={"width": 1300, "height": 900})  # one cache
        found.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_ends_without_an_error_and_without_a_red_box(lab, root, browser, name):
    port, token = lab
    path = root / "notebooks" / f"{name}.ipynb"
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/lab/workspaces/{name}/tree/notebooks/{path.name}?token={token}")
    page.get_by_text("Python (fer2013) | Idle").wait_for(timeout=120_000)
    assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0  # neither questions nor news
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    deadline, outputs, left = time.monotonic() + 300, [], True
    while left and not any(output.output_type == "error" for output in outputs):
        assert time.monotonic() < deadline, f"{left} cells have not run"
        page.wait_for_timeout(500)
        page.keyboard.press("Control+s")
        try:
            cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        except nbformat.reader.NotJSONError:  # half written
            continue
        left = sum(cell.execution_count is None for cell in cells)
        outputs = [output for cell in cells for output in cell.outputs]
    page.close()
    assert outputs and [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []
