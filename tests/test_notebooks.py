"""The notebooks: sources without outputs, each runnable alone from where JupyterLab runs it."""

import ast
import json
import os
import re

import nbformat
import papermill
import pytest
from papermill.inspection import inspect_notebook

from fer_utils.batch.config import read_config
from fer_utils.batch.job import CHAPTERS
from fer_utils.paths import project_root
from fer_utils.training.run import REQUIRED

FOLDER = project_root() / "notebooks"
INDEX = "00_index.ipynb"  # prose alone
ALL = sorted(path.name for path in FOLDER.glob("*.ipynb"))
CODE = [name for name in ALL if name != INDEX]
MODELS = {
    "02_traditional_cnn.ipynb": "traditional_cnn",
    "03_resnet50.ipynb": "resnet50",
    "04_vgg16.ipynb": "vgg16",
    "05_mobilenet.ipynb": "mobilenet_v3",
}


def source(name):
    return nbformat.read(FOLDER / name, as_version=4)


def test_the_index_names_the_notebooks_of_the_study():
    assert set(MODELS) < set(CODE) and set(CHAPTERS.values()) < set(CODE)
    # A model that a user adds is an entry of config.yaml and nothing else.
    added = {entry["notebook"] for entry in read_config()["models"].values()} - set(MODELS)
    index = "".join(cell.source for cell in source(INDEX).cells)
    assert {cell.cell_type for cell in source(INDEX).cells} == {"markdown"}
    assert sorted(re.findall(r"\]\((\w+\.ipynb)\)", index)) == [name for name in CODE if name not in added]


@pytest.mark.parametrize("name", ALL)
def test_a_source_is_valid_and_holds_no_outputs(name):
    notebook = source(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "fer2013"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


@pytest.mark.parametrize("name", CODE)
def test_code_that_only_draws_is_folded(name):
    for cell in source(name).cells:
        draws = re.search(r"\b(publish|publish_table|show_\w+|Displayable)\(", cell.source)
        if cell.cell_type == "code" and (draws or "figure" in cell.metadata.get("tags", [])):
            assert cell.metadata.get("jupyter", {}).get("source_hidden"), cell.source


@pytest.mark.parametrize("name", CODE)
def test_every_parameter_has_a_type_and_a_comment_that_papermill_shows(name):
    cells = [c for c in source(name).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    shown = inspect_notebook(FOLDER / name)
    lines = [line for line in cells[0].source.splitlines() if line.strip() and not line.startswith("#")]
    assert len(shown) == len(lines)
    for line in lines:
        assert re.fullmatch(r"\w+: (str|int|float|bool) = \S.*  # \S.*", line), line
    for node in ast.parse(cells[0].source).body:
        assert shown[node.target.id]["inferred_type_name"] == node.annotation.id
        assert shown[node.target.id]["help"].strip()


@pytest.mark.parametrize("name", list(MODELS))
def test_a_model_is_named_as_the_configuration_names_it(name):
    shown = {key: ast.literal_eval(value["default"]) for key, value in inspect_notebook(FOLDER / name).items()}
    assert (shown["model"], shown["notebook"]) == (MODELS[name], name)
    assert read_config()["models"][MODELS[name]]["label"] == shown["label"]


@pytest.mark.parametrize("name", list(MODELS))
def test_a_models_notebook_shows_network_and_training(name):
    code = "\n".join(cell.source for cell in source(name).cells if cell.cell_type == "code")
    functions = {node.name: node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}
    # It depends on the parameters and on nothing else of the run.
    used = {node.id for node in ast.walk(functions["make_model"]) if isinstance(node, ast.Name)}
    assert "run" not in used and "training" not in used
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    assert {"network.compile", "network.fit", "Adam", "ReduceLROnPlateau", "ModelCheckpoint"} <= calls
    # Each parameter is used, by the notebook or by `begin`.
    read = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name) and type(node.ctx) is ast.Load}
    assert set(inspect_notebook(FOLDER / name)) - read <= set(REQUIRED)


@pytest.mark.parametrize("name", CODE)
def test_the_package_is_imported_before_tensorflow(name):
    # It chooses oneDNN, and TensorFlow reads the choice when it is first imported.
    packages = []
    for cell in source(name).cells:
        for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
            if isinstance(node, ast.ImportFrom):
                packages.append(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                packages += [alias.name.split(".")[0] for alias in node.names]
    assert "fer_utils" in packages
    assert not {"keras", "tensorflow"} & set(packages[: packages.index("fer_utils")])


@pytest.mark.slow
@pytest.mark.skipif("FER2013_DATA" not in os.environ, reason="FER2013_DATA is not set")
def test_the_dataset_notebook_reports_what_is_known_of_fer2013(tmp_path, real_data, real_cache, monkeypatch):
    """Reference points measured independently of this package, with Pillow and a dict of byte strings."""
    monkeypatch.setenv("FER_CACHE", str(real_cache))
    name, parameters = "01_dataset.ipynb", {"out": str(tmp_path), "data": str(real_data)}
    made = papermill.execute_notebook(FOLDER / name, tmp_path / name, parameters, cwd=FOLDER, progress_bar=False)
    outputs = [output for cell in made.cells for output in cell.get("outputs", [])]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]  # a red box in JupyterLab
    audit = json.loads((tmp_path / "dataset" / "dataset.json").read_text())["audit"]
    assert (audit["n_images"], audit["n_distinct"]) == (35_887, 34_034)
    assert (audit["n_duplicate_groups"], audit["n_conflicting_groups"]) == (1516, 57)
    assert (audit["n_test_in_train_public"], audit["n_test_in_train_private"]) == (280, 288)
    assert audit["n_test_in_train"] == 568 and audit["n_near_constant"] == 13
    assert 300 < audit["n_near_test_in_train"] < 450  # beside the 568, which the search finds too
    assert sum(audit["counts"]["Training"].values()) == 28_709 and audit["counts"]["Training"]["disgust"] == 436
    shown = str(outputs)
    assert "35,887" in shown and "34,034" in shown
