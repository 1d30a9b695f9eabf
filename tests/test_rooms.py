"""The rooms of the package: imports go one way, and a module can be read in one sitting."""

import pytest
from importlinter.cli import lint_imports

from fer_utils.paths import project_root


def test_imports_go_one_way(capsys, monkeypatch):
    monkeypatch.chdir(project_root())
    status = lint_imports(config_filename="pyproject.toml", no_cache=True)
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("folder", ["fer_utils", "benchmarks"])
def test_no_module_is_longer_than_400_lines(folder):
    lengths = {path: len(path.read_text().splitlines()) for path in (project_root() / folder).rglob("*.py")}
    assert lengths and {str(path): length for path, length in lengths.items() if length > 400} == {}
