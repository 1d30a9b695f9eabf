"""What every room uses: durations as people say them, the commit of the code."""

import pytest

from fer_utils import provenance, words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (44.6, "45 s"), (60, "1 min"), (3599, "1 h 00 min"), (12_000, "3 h 20 min")],
)
def test_durations_read_well(seconds, text):
    assert words.duration(seconds) == text


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.git() == {"commit": None, "dirty": None}
