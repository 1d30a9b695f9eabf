from pathlib import Path

from fer_utils.paths import project_root, resolve


def test_root_holds_the_project():
    assert (project_root() / "pyproject.toml").is_file() and (project_root() / "fer_utils").is_dir()


def test_relative_path_counts_from_the_root_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("results/notebooks") == project_root() / "results" / "notebooks"
    assert resolve(tmp_path / "here") == tmp_path / "here"
    assert resolve("~/there") == Path(tmp_path, "there")
