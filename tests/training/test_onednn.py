"""oneDNN is used on x86, and it is said where it is not."""

import os
import subprocess
import sys

import pytest

from fer_utils.training import onednn

pytestmark = pytest.mark.skipif(not onednn.X86, reason="not an x86 processor")

CODE = (
    "from fer_utils.training import session, onednn; "
    "print(session.prepare_device(1, 0, False)['name'], onednn.came_too_late())"
)


def answer(code, **variables):
    """What a fresh process prints last, without the variable unless it is given."""
    environment = {name: value for name, value in os.environ.items() if name != onednn.VARIABLE} | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_it_is_used_unless_someone_says_otherwise():
    found = answer(CODE)
    assert found.endswith(" False") and "without oneDNN" not in found
    assert answer(CODE, TF_ENABLE_ONEDNN_OPTS="0").endswith(", without oneDNN False")


@pytest.mark.parametrize(
    ("used", "asked", "late"), [(False, "1", True), (True, "1", False), (False, "0", False), (None, None, False)]
)
def test_a_tensorflow_that_was_imported_too_early_is_noticed(monkeypatch, used, asked, late):
    monkeypatch.setattr(onednn, "in_use", lambda: used)
    monkeypatch.delenv(onednn.VARIABLE, raising=False)
    if asked:
        monkeypatch.setenv(onednn.VARIABLE, asked)
    assert onednn.came_too_late() == late
