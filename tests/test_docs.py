"""What README and docs point at exists."""

import ast
import re

import pytest

from fer_utils.batch.config import read_config
from fer_utils.paths import project_root

ROOT = project_root()
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]


def functions(path):
    return [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("page", PAGES)
def test_the_tests_that_a_page_names_exist(page):
    for file, node, words in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+)| -k ([^`]+))?`", (ROOT / page).read_text()):
        path = ROOT / file
        assert path.is_file(), file
        if node:
            assert node in functions(path), f"{file}::{node}"
        for word in re.findall(r"\w+", words.replace(" or ", " ")):
            assert any(word in name for name in functions(path)), f"{file} -k {word}"


@pytest.mark.parametrize("page", PAGES)
def test_the_files_and_links_of_a_page_exist(page):
    text = (ROOT / page).read_text()
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (folder / link).exists(), link
    folders, endings = "fer_utils|notebooks|benchmarks|tests|docs", r"\.py|\.ipynb|\.yaml|\.md|/"
    for name in re.findall(rf"`((?:{folders})/(?:[\w./]*(?:{endings}))?)`", text):
        assert (ROOT / name).exists(), name


def test_every_notebook_of_the_study_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    models = {entry["notebook"] for entry in read_config()["models"].values()}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        # A model that a user adds is an entry of config.yaml and nothing else.
        assert f"`{path.stem}`" in text or path.name in models, path.stem
