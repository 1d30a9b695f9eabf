"""oneDNN is used on x86, and it is said where it is not."""

import os
import subprocess
import sys

import pytest

from fer_utils import onednn

pytestmark = pytest.mark.skipif(not onednn.X86, reason="not an x86 processor")

CODE = (
    "from fer_utils import session, onednn; print(session.prepare_device(1, 0, False)['name'], onednn.came_too_late())"
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


def test_a_tensorflow_that_was_there_first_is_asked():
    alone = "from tensorflow.python.util import _pywrap_util_port as port; print(port.IsMklEnabled())"
    by_itself = answer(alone) == "True"
    found = answer(f"import keras; {CODE}")
    # Where TensorFlow switches it on by itself, nothing came too late.
    assert found.endswith(" False" if by_itself else ", without oneDNN True")
