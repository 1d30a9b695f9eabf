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

import psutil
import pytest

from fer_utils.paths import project_root


def answers(address, port):
    """Whether a connection is taken there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Start JupyterLab as the script does, with the tests' own Python; return its port and token."""
    root = tmp_path_factory.mktemp("lab")
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
