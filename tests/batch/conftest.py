"""What the tests of the batch room share."""

import os

import pytest

from fer_utils.batch import processes


@pytest.fixture(autouse=True)
def _no_run(monkeypatch):
    """A test that leads a run leaves no trace of it to the next."""
    for variable in (processes.VARIABLE, processes.RUN_ID):
        monkeypatch.setenv(variable, "")
        del os.environ[variable]
