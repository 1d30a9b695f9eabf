"""The rooms of the package: imports go one way, and a module can be read in one sitting."""

import subprocess
import sys

import pytest

from fer_utils.paths import project_root


def test_imports_go_one_way():
    # In a process of its own: it takes over the streams of the one that it runs in.
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
    assert done.returncode == 0 and "6 kept, 0 broken" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["fer_utils", "benchmarks"])
def test_no_module_is_longer_than_400_lines(folder):
    lengths = {path: len(path.read_text().splitlines()) for path in (project_root() / folder).rglob("*.py")}
    assert lengths and {str(path): length for path, length in lengths.items() if length > 400} == {}
