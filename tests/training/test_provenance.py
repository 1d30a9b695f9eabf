"""What made a number: code, versions, device; and files that are whole or not there."""

import json
import os

import pytest

from fer_utils import files, provenance
from fer_utils.training import machine, state


def test_the_hash_of_code_ignores_comments_and_docstrings_only(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)

    def hashed(text):
        (tmp_path / "m.py").write_text(text)
        return provenance.code_hash(["m"])

    plain = hashed('"""Doc."""\n\n\ndef f(x):\n    """Add."""\n    return x + 1\n')
    assert hashed('"""Other."""\n# why\n\n\ndef f(x):\n    """Plus."""\n\n    return x + 1  # one\n') == plain
    assert hashed('"""Doc."""\n\n\ndef f(x):\n    """Add."""\n    return x + 2\n') != plain
    assert hashed('"""Doc."""\n\n\ndef f(x):\n    """Add."""\n    print("a")\n    return x + 1\n') != plain


def test_the_modules_of_a_notebook_are_found_through_others(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("from fer_utils.b import f\n")
    (tmp_path / "b.py").write_text("import json\n\n\ndef f():\n    from fer_utils import c, NAME\n")
    (tmp_path / "c.py").write_text("from fer_utils.a import g\n")
    (tmp_path / "d.py").write_text("")
    cells = [
        {"cell_type": "markdown", "source": ["from fer_utils import d"]},
        {"cell_type": "code", "source": ["from fer_utils import a\n", "import numpy"]},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    assert provenance.modules_of(tmp_path / "n.ipynb") == {"a", "b", "c"}


def test_versions_name_tensorflow_under_either_name():
    import keras
    import tensorflow

    found = machine.versions()
    assert (found["tensorflow"], found["keras"]) == (tensorflow.__version__, keras.__version__)


def test_memory_is_in_mebibytes():
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert 200 < machine.peak_memory_mb() < 20_000


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"n": 1})
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n "n": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_state_trees_flatten_and_unflatten():
    tree = {"a": {"b": {"kernel/0": 1}, "c": 2}}
    flat = state.flatten(tree)
    assert set(flat) == {"a//b//kernel/0", "a//c"}
    assert state.unflatten({name: int(value) for name, value in flat.items()}) == tree


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model name : AMD EPYC\nflags : fpu avx avx2 fma\n", "AMD EPYC with avx2"),
        ("model name : AMD EPYC\nflags : avx avx2 avx512f avx512_bf16 avx512_vnni\n", "AMD EPYC with avx512_bf16"),
        # A flag's name inside another's, and no flags at all.
        ("model name : Old\nflags : fpu avx2x\n", "Old"),
        ("model name : Old\n", "Old"),
    ],
)
def test_a_processor_is_named_with_its_widest_instructions(tmp_path, text, name):
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu_name(tmp_path / "cpuinfo") == name


def test_a_processor_that_the_system_does_not_describe_still_has_a_name(tmp_path):
    assert machine.cpu_name(tmp_path / "none") and machine.cpu_flags(tmp_path / "none") == set()
