"""Which code made a number; and files that are whole or not there."""

import json
import os
import subprocess

import pytest

from fer_utils import files, provenance


def notebook(*cells):
    made = [{"cell_type": "code", "metadata": {"tags": tags}, "source": [text], "outputs": []} for text, tags in cells]
    return json.dumps({"cells": made})


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""Other."""\n# why\n\n\ndef f(x):\n    """Plus."""\n\n    return x + 1  # one\n', True),
        ('def f(x):\n    print("about", x)\n    return x + 1\n', True),
        ('def f(x):\n    if x < 0:\n        raise ValueError("no")\n    return x + 1\n', False),
        ("def f(x):\n    return x + 2\n", False),
        ('def f(x):\n    log("a")\n    return x + 1\n', False),
    ],
)
def test_the_hash_of_code_ignores_what_only_speaks_to_a_reader(tmp_path, text, same):
    def hashed(text):
        (tmp_path / "room").mkdir(exist_ok=True)
        (tmp_path / "room" / "m.py").write_text(text)
        return provenance.code_hash(parts=["room"], package=tmp_path)

    plain = hashed('"""Doc."""\n\n\ndef f(x):\n    """Add."""\n    print("x")\n    return x + 1\n')
    assert (hashed(text) == plain) == same


def test_the_words_of_an_error_do_not_count_but_its_kind_does():
    meaning = provenance.meaning
    assert meaning('raise ValueError("a", 1)') == meaning('raise ValueError(f"b {x}")')
    assert meaning('raise ValueError("a")') != meaning('raise KeyError("a")')


def test_tables_and_new_files_count(tmp_path):
    (tmp_path / "room").mkdir()
    empty = provenance.code_hash(parts=["room"], package=tmp_path)
    (tmp_path / "room" / "table.yaml").write_text("a: 1\n")
    first = provenance.code_hash(parts=["room"], package=tmp_path)
    (tmp_path / "room" / "table.yaml").write_text("a: 2\n")
    assert len({empty, first, provenance.code_hash(parts=["room"], package=tmp_path)}) == 3


def test_what_no_training_calls_counts_only_where_it_is_named(tmp_path):
    (tmp_path / "training").mkdir()
    for name in (*provenance.APART, "training/run.py"):
        (tmp_path / name).write_text("x = 1\n")
    before = provenance.code_hash(package=tmp_path, parts=["training"])
    apart = provenance.code_hash(package=tmp_path, parts=provenance.APART)
    (tmp_path / provenance.APART[-1]).write_text("x = 2\n")
    assert provenance.code_hash(package=tmp_path, parts=["training"]) == before
    assert provenance.code_hash(package=tmp_path, parts=provenance.APART) != apart
    (tmp_path / "training" / "run.py").write_text("x = 2\n")
    assert provenance.code_hash(package=tmp_path, parts=["training"]) != before


def test_figures_outputs_and_prose_of_a_notebook_do_not_count(tmp_path):
    path = tmp_path / "n.ipynb"

    def hashed(text):
        path.write_text(text)
        return provenance.code_hash(path, parts=[])

    plain = hashed(notebook(("x = 1", []), ("plot(x)", ["figure"])))
    # Defaults are recorded as parameters: another number of epochs must not begin a training anew.
    assert hashed(notebook(("epochs: int = 45", ["parameters"]), ("x = 1", []))) == plain
    assert hashed(notebook(("%matplotlib inline\nx = 1  # one", []), ("plot(x, 2)", ["figure"]))) == plain
    assert hashed(notebook(("x = 2", []), ("plot(x)", ["figure"]))) != plain


def test_modules_beside_a_notebook_are_its_code(tmp_path):
    files = {
        "n.ipynb": notebook(("import first\nfrom room.b import c", []), ("import painter", ["figure"])),
        "first.py": "def f():\n    import second\n    import numpy\n",
        "second.py": "x = 1\n",
        "room/__init__.py": "",
        "room/b.py": "from . import table\nc = 1\n",
        "room/table.csv": "1\n",
        "painter.py": "colour = 'red'\n",
        "stranger.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    plain = provenance.code_hash(tmp_path / "n.ipynb", parts=[])

    def changes(name, text):
        (tmp_path / name).write_text(text)
        changed = provenance.code_hash(tmp_path / "n.ipynb", parts=[]) != plain
        (tmp_path / name).write_text(files[name])
        return changed

    assert all(changes(name, files[name] + "y = 2\n") for name in list(files)[1:6])
    assert changes("room/table.csv", "2\n") and changes("second.py", "<<<<<<< HEAD\n")
    assert not changes("painter.py", "colour = 'blue'\n") and not changes("stranger.py", "x = 2\n")
    assert not changes("second.py", "# why\nx = 1\n")
    (tmp_path / "numpy.py").write_text("")
    assert provenance.code_hash(tmp_path / "n.ipynb", parts=[]) != plain


@pytest.mark.parametrize("text", ["", "<<<<<<< HEAD\n{", "[1]", '{"worksheets": []}', notebook(("x = = 1", []))])
def test_what_is_no_notebook_or_no_python_has_a_hash_too(tmp_path, text):
    """Where it would be an error, no other model could be trained either."""
    (tmp_path / "a").write_text(text)
    (tmp_path / "b").write_text(text + "x")
    assert provenance.code_hash(tmp_path / "a", parts=[]) != provenance.code_hash(tmp_path / "b", parts=[])


def test_saved_outputs_do_not_make_the_checkout_dirty(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "project_root", lambda: tmp_path)

    def run(*command):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)

    book = tmp_path / "n b.ipynb"
    book.write_text(notebook(("x = 1", [])))
    run("init")
    run("add", ".")
    run("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-m", "first")
    assert provenance.git()["dirty"] is False and len(provenance.git()["commit"]) == 40
    book.write_text(notebook(("x = 1", [])).replace('"outputs": []', '"outputs": [1]'))
    assert provenance.git()["dirty"] is False
    book.write_text(notebook(("x = 2", [])))
    assert provenance.git()["dirty"] is True
    for broken in ("half of {", '{"cells": null}', "[1]"):
        book.write_text(broken)
        assert provenance.git()["dirty"] is True
    run("checkout", "--", ".")
    (tmp_path / "new.py").write_text("")
    assert provenance.git()["dirty"] is True


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"n": 1})
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n "n": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_line_ends_of_a_clone_change_no_hash(tmp_path):
    """`core.autocrlf=true`, as on Windows: what is hashed by its bytes has the line ends of the repository."""
    if not (provenance.project_root() / ".git").exists():
        pytest.skip("no git checkout")
    clone = ["git", "-c", "core.autocrlf=true", "clone", "--quiet", str(provenance.project_root()), str(tmp_path / "c")]
    subprocess.run(clone, check=True, capture_output=True)
    for place in ("fer_utils", "figures"):
        for path in provenance.files_of(tmp_path / "c" / place):
            if path.suffix not in (".py", ".png", ".parquet", ".gz"):
                assert b"\r\n" not in path.read_bytes(), path
