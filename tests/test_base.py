"""What every room uses: durations as people say them, paths, the commit of the code."""

from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from fer_utils import provenance, words
from fer_utils.paths import project_root, resolve


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (44.6, "45 s"), (60, "1 min"), (3599, "1 h 00 min"), (12_000, "3 h 20 min")],
)
def test_durations_read_well(seconds, text):
    assert words.duration(seconds) == text


def test_relative_path_counts_from_the_root_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("results/notebooks") == project_root() / "results" / "notebooks"
    assert resolve(tmp_path / "here") == tmp_path / "here"
    assert resolve("~/there") == Path(tmp_path, "there")


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.git() == {"commit": None, "dirty": None}


def test_a_notebook_shows_an_error_of_ours_as_its_message(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell, shown = InteractiveShell(), []
    shell._showtraceback = lambda kind, value, lines: shown.append(lines)
    shell.run_cell("from fer_utils.errors import DataError\nraise DataError('photo.jpg: no image')")
    shell.run_cell("1 / 0")
    assert shown[0] == ["DataError: photo.jpg: no image"] and "Traceback" in "\n".join(shown[1])


def test_p_values_that_a_float_cannot_hold():
    assert [words.p_value(p) for p in (0.05, 1.63e-16, 0.0, float("nan"))] == ["0.05", "1.6e-16", "< 1e-300", "–"]
