"""Publishing a run, verifying what was published, and comparing runs."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat import v4
from planted import change_plan, edit_json, plant_run, planted_record, read_model
from sklearn.metrics import accuracy_score

from fer_utils.batch import processes, published, run, verify
from fer_utils.constants import PROBABILITY_COLUMNS
from fer_utils.errors import ConfigError, ResultsError
from fer_utils.findings import model_figures
from fer_utils.findings.results import read_run
from fer_utils.metrics import METRICS
from fer_utils.paths import project_root

FIGURES = project_root() / "figures"
CHAPTERS = published.CHAPTERS  # all of them
SECRET = "/home/someone/data"


def plant(folder):
    """Plant a run of two models with weights, figures of the dataset and the table of its images."""
    plant_run(folder, models=("traditional_cnn", "resnet50"))
    command = f"./run_all.sh --profile paper --data {SECRET}/fer2013.zip"
    change_plan(folder, about="planted", command=command, data_variant="fer2013-kaggle-jpeg", data_sha256="ab" * 32)
    for place in folder.glob("*/seed-0"):
        # The scores after the third epoch are those of the predictions, which are planted as of that epoch.
        history, best = pd.read_csv(place / "history.csv"), json.loads((place / "metrics.json").read_text())["best"]
        for part in ("public", "private", "test"):
            for name in METRICS:
                history.loc[history["epoch"] == best["epoch"], f"{part}_{name}"] = best[part][name]
        history.to_csv(place / "history.csv", index=False)
        result = read_model(place)
        names = {"model": result.model, "label": result.label, "folder": place / "figures"}
        model_figures.show_output(result.history, "", **names)
    predictions = pd.read_parquet(folder / "resnet50" / "seed-0" / "predictions.parquet")
    images = predictions[["id", "usage", "label"]].assign(std=40.0, mean=1.0, sharpness=1.0)
    # Images 0 to 9 of each part show the same ten pictures.
    order = images.groupby("usage").cumcount()
    images["pixel_hash"] = np.where(order < 10, order.astype(str), images["id"])
    (folder / "dataset").mkdir()
    images.to_parquet(folder / "dataset" / "images.parquet", index=False)
    (folder / "figures").mkdir()
    (folder / "figures" / "fig-3.2-class-distribution.csv").write_text("class,n\nhappy,7\n")
    (folder / "figures" / "fig-9.9-of-an-earlier-run.csv").write_text("a\n1\n")
    (folder / "resnet50" / "seed-0" / "model.keras").write_bytes(b"planted weights")
    notebook = v4.new_notebook(cells=[v4.new_code_cell(f'data = "{SECRET}/fer2013.zip"')])
    notebook.metadata["papermill"] = {"parameters": {"data": f"{SECRET}/fer2013.zip"}}
    nbformat.write(notebook, folder / "resnet50" / "seed-0" / "notebook.ipynb")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project that has published a planted run over an older set."""
    root = tmp_path_factory.mktemp("project")
    plant(root / "run")
    (root / "figures").mkdir()
    (root / "figures" / "fig-9.9-old.svg").write_text("<svg/>")
    (root / "README.md").write_text("# Head\n\n" + "\n".join(published.MARKERS) + "\nTail\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "project_root", lambda: root)
        # The cheapest of the three; the others are executed where figures/ is verified.
        patch.setattr(published, "CHAPTERS", ("audit",))
        # As after a run that has just ended, whose folder is another one.
        patch.setenv(processes.RUN_ID, "of the run")
        published.publish(read_run(root / "run"))
        yield root


def test_the_published_set_is_a_run_folder_in_small(project):
    folder = project / "figures"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", "SHA256SUMS", "claims.csv", "plan.json", "report.html", "dataset/images.parquet"} <= names
    assert {"figures/fig-E3-reliability.svg", "figures/table-E7-mcnemar.csv"} <= names
    assert "figures/fig-3.2-class-distribution.csv" in names
    assert not [name for name in names if re.search(r"9\.9|ipynb|keras|\.lock|\.training", name)]
    assert not list(project.glob(".figures*"))
    whole, small = read_run(project / "run"), read_run(folder)
    assert [(m.model, m.networks) for m in small.models] == [(m.model, m.networks) for m in whole.models]
    assert small.models[1].record["left_out"]["model.keras"]["bytes"] == len(b"planted weights")
    for mine, theirs in zip(whole.models, small.models, strict=True):
        for part in ("public", "private", "test"):
            for a, b in zip(mine.select(part), theirs.select(part), strict=True):
                np.testing.assert_array_equal(a, b)
        # Of the training images those ten that are also test images.
        assert theirs.mask("train").sum() == 10 < mine.mask("train").sum()
    assert SECRET not in "".join(path.read_text(errors="ignore") for path in folder.rglob("*") if path.is_file())


def test_the_tables_of_both_readmes_come_from_the_predictions(project):
    note, readme = ((project / name).read_text() for name in ("figures/README.md", "README.md"))
    result = read_run(project / "run").by_name("resnet50")[0]
    tested = result.predictions[result.predictions["usage"] != "Training"]
    accuracy = accuracy_score(tested["label"], tested[list(PROBABILITY_COLUMNS)].to_numpy().argmax(axis=1))
    for text in (note, readme):
        (row,) = re.findall(r"\| ResNet-50 .*", text)
        assert row.split(" | ")[3].startswith(f"{accuracy:.3f} [") and row.endswith("| 45 | 58 min |")
    assert "--data fer2013.zip` " not in note and "`./run_all.sh --profile paper --data fer2013.zip`" in note
    assert "ab" * 32 in note and "0" * 12 in note and "CPU planted, 2 threads" in note
    assert all("Not trained yet: VGG-16 and MobileNet-V3." in text for text in (note, readme))
    assert readme.startswith("# Head\n") and readme.endswith("Tail\n")


def test_both_readmes_say_how_many_verdicts_there_are_of_each_kind(project):
    note, readme = ((project / name).read_text() for name in ("figures/README.md", "README.md"))
    verdicts = pd.read_csv(project / "figures" / "claims.csv", keep_default_na=False)
    (said,) = re.findall(r"(\d+) statements of the thesis, (\d+) verdicts: (.*?)\.", readme)
    assert said[:2] == (str(len(set(verdicts["id"]))), str(len(verdicts)))
    counts = {verdict: int(n) for n, verdict in (text.split(" ", 1) for text in said[2].split(", "))}
    assert counts == {verdict: list(verdicts["verdict"]).count(verdict) for verdict in counts}
    assert sum(counts.values()) == len(verdicts)
    columns = note.partition("| group | reading | ")[2].split("\n")[0].strip(" |").split(" | ")
    (row,) = re.findall(r"\| results \| from scratch \| (.*) \|", note)
    mine = verdicts[(verdicts["group"] == "results") & (verdicts["reading"] == "from scratch")]["verdict"]
    assert dict(zip(columns, map(int, row.split(" | ")), strict=True)) == {c: (mine == c).sum() for c in columns}


def test_a_published_set_is_verified(project, capsys):
    assert verify.main([str(project / "figures")]) == 0
    printed = capsys.readouterr().out
    assert "No differences." in printed
    tables, verdicts, scores, pictures = map(int, re.findall(r"(\d+) (?:tables|verdicts|scores|pictures)", printed))
    # Two trainings, three parts, the best epoch: nine scores and five of each class and the number of images.
    assert scores == 2 * 3 * (1 + 9 + 7 * 5) and verdicts == len(pd.read_csv(project / "figures" / "claims.csv"))
    assert tables == len(list((project / "figures").glob("**/figures/*.csv")))  # claims.csv instead of fig-3.2
    assert pictures == len(list((project / "figures").glob("**/figures/*.[sp][vn]g")))
    # On one machine pictures are drawn to the same bytes.
    assert "Other bytes" not in printed


def test_what_was_changed_by_hand_is_named(project, tmp_path, monkeypatch):
    folder = shutil.copytree(project / "figures", tmp_path / "figures")
    table = folder / "figures" / "table-E9-threshold.csv"
    rows = pd.read_csv(table, dtype=str)
    was = rows.at[1, "recall"]
    rows.loc[1, "recall"] = "0.99"
    rows.to_csv(table, index=False)
    claims = pd.read_csv(folder / "claims.csv", dtype=str, keep_default_na=False)
    judged = claims.at[0, "verdict"]
    claims.loc[0, "verdict"] = "better"
    claims.to_csv(folder / "claims.csv", index=False)
    place = folder / "traditional_cnn" / "seed-0"
    metrics = json.loads((place / "metrics.json").read_text())
    metrics["best"]["public"]["per_class"]["fear"]["recall"] += 0.001
    (place / "metrics.json").write_text(json.dumps(metrics))
    predictions = pd.read_parquet(place / "predictions.parquet")
    row = int(np.flatnonzero(predictions["usage"] == "PrivateTest")[3])
    predictions.loc[row, ["p_angry", "p_happy"]] = predictions.loc[row, ["p_happy", "p_angry"]].to_numpy()
    predictions.to_parquet(place / "predictions.parquet", index=False)
    history = pd.read_csv(place / "history.csv")
    history.loc[history["epoch"] == 3, "public_macro_f1"] += 0.01
    history.loc[history["epoch"] == 4, "val_loss"] += 0.01
    history.to_csv(place / "history.csv", index=False)
    (folder / "extra.csv").write_text("1\n")
    # The test above shows that these are what is computed again.
    made = {path.name: path.read_bytes() for path in (project / "figures" / "figures").glob("*-E*")}

    def recompute(again):
        (again / "figures").mkdir()
        for name, content in made.items():
            (again / "figures" / name).write_bytes(content)
        shutil.copyfile(project / "figures" / "claims.csv", again / "claims.csv")

    monkeypatch.setattr(verify, "recompute", recompute)
    found, _, _ = verify.verify(folder)
    texts = [f"{name}: {text}" for name, text in found]

    def told(*words):
        return [text for text in texts if all(word in text for word in words)]

    assert told("table-E9-threshold.csv", "changed since it was published")
    assert told("table-E9-threshold.csv: row 2 (resnet50, ResNet-50), recall", f"published 0.99, recomputed {was}")
    assert told("claims.csv: row 1 (D01", f"verdict: published better, recomputed {judged}")
    assert told("traditional_cnn/seed-0/predictions.parquet", f"row {row} ({predictions.at[row, 'id']})")
    assert len([text for text in texts if "was changed by hand" in text]) == 1
    assert told("traditional_cnn/seed-0/metrics.json", "best.public.per_class.fear.recall: published")
    assert told("traditional_cnn/seed-0/metrics.json", "best.private.")
    assert not told("traditional_cnn/seed-0/metrics.json", "best.public.per_class.happy")
    assert len(told("traditional_cnn/seed-0/history.csv: epoch 3, public_macro_f1: published")) == 2  # best and last
    assert told("traditional_cnn/seed-0/figures/fig-3.12-output-traditional_cnn.csv: row", "(loss, validation), value")
    assert told("extra.csv", "not published")
    files = ("extra.csv", "claims.csv", "figures/table-E9", "README.md")
    files += tuple(
        f"traditional_cnn/seed-0/{name}" for name in ("predictions", "metrics", "history", "figures/fig-3.12")
    )
    assert all(text.startswith(files) for text in texts)


def test_a_failed_publish_leaves_the_old_set(project, tmp_path, monkeypatch):
    shutil.copytree(project / "run", tmp_path / "run")
    shutil.copytree(project / "figures", tmp_path / "figures")
    before = (tmp_path / "figures" / "SHA256SUMS").read_text()
    # As a publish that was killed with the old set already moved aside.
    (tmp_path / ".figures-x.unfinished").mkdir()
    (tmp_path / "figures").rename(tmp_path / ".figures-x.unfinished" / "old")
    monkeypatch.setattr(published, "project_root", lambda: tmp_path)
    monkeypatch.setattr(published, "CHAPTERS", ("no such notebook",))
    with pytest.raises(ResultsError, match="cannot be computed"):
        published.publish(read_run(tmp_path / "run"))
    assert (tmp_path / "figures" / "SHA256SUMS").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures", "run"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_variant": "synthetic"}, "drawn faces"),
        ({"profile": "smoke"}, "a smoke run"),
        ({"models": [{"model": "vgg16", "seed": 0, "label": "VGG-16"}]}, "lacks VGG-16, seed 0"),
    ],
)
def test_what_is_not_worth_publishing_is_refused(tmp_path, changes, words):
    change_plan(plant_run(tmp_path, models=("resnet50",)), **changes)
    with pytest.raises(ConfigError, match=f"{words}.*Nothing was published"):
        published.publish(read_run(tmp_path))


def test_drawn_faces_are_refused_before_they_are_trained_on(tmp_path, capsys, monkeypatch):
    plan = {"profile": "quick", "data_variant": "synthetic", "models": []}
    monkeypatch.setattr(run, "make_plan", lambda *_, **__: (plan, tmp_path / "run"))
    assert run.main(["--publish"]) == 2
    assert "drawn faces" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_two_runs_are_compared_on_the_command_line(tmp_path, capsys):
    for name in ("a", "b"):
        plant_run(tmp_path / name, models=("resnet50",))
    path = tmp_path / "b" / "resnet50" / "seed-0" / "run.json"
    edit_json(path, parameters=planted_record()["parameters"] | {"batch_size": 32})
    assert run.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "One condition differs: batch_size (64 against 32)." in printed
    plant_run(tmp_path / "c", models=("vgg16",))
    assert run.main(["compare", str(tmp_path / "a"), str(tmp_path / "c")]) == 2
    assert run.main(["compare", str(tmp_path / "a"), str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert "no model is in both (resnet50; vgg16)" in error and "no finished training there" in error


# --- what this checkout publishes -------------------------------------------------------------------------------


def test_the_published_figures_are_what_their_predictions_give(capsys, monkeypatch):
    if not (FIGURES / published.SUMS).exists():
        pytest.skip("figures/ holds an older set, without predictions")
    monkeypatch.setattr(published, "CHAPTERS", CHAPTERS)
    assert verify.main([]) == 0, capsys.readouterr().out


def test_the_table_of_the_readme_is_that_of_figures():
    begin, end = published.MARKERS
    text = Path(project_root() / "README.md").read_text(encoding="utf-8")
    assert text.count(begin) == text.count(end) == 1
    assert text.partition(begin)[2].partition(end)[0].strip("\n") == published.readme_block(FIGURES).strip("\n")


def test_no_path_of_the_machine_that_trained_is_published():
    """Only the places that every system has may be named."""
    path = re.compile(rb"(?<![\w.:/~-])/(?:home|root|work|tmp|Users|mnt|data)/[\w./-]+")
    found = {
        p.name: path.findall(p.read_bytes())
        for p in FIGURES.rglob("*")
        if p.suffix in (".html", ".json", ".csv", ".md")
    }
    assert not {name: paths for name, paths in found.items() if paths}
