"""Compute a published set again from its own files, without dataset and TensorFlow: ``./run_all.sh verify``.

First the files are held against their checksums and the rows of the predictions against theirs, which finds what was
changed by hand. Then metrics, tables, the data of figures and verdicts are computed in another folder and compared
cell by cell. A number may differ by rounding in its last digit, as processors do.
"""

import argparse
import dataclasses
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.batch.published import OF_DATASET, SUMS, checks, describe, recompute, sha256
from fer_utils.errors import ConfigError
from fer_utils.findings import model_figures
from fer_utils.findings.results import read_run
from fer_utils.metrics import scores
from fer_utils.paths import project_root
from fer_utils.words import duration, plural

#: How far two numbers may lie apart, as a part of them: CSV files have seven digits.
ROUNDING = 3e-6

#: How far a score counted after an epoch may lie from that of the predictions: rounding may move a rank or a threshold.
EPOCH_TOLERANCE = 0.005

#: Lines that are printed of one file.
SHOWN = 6


def same(a, b):
    """Whether two texts, or two numbers as texts, are equal but for rounding."""
    if a == b:
        return True
    try:
        return bool(np.isclose(float(a), float(b), rtol=ROUNDING, atol=1e-9, equal_nan=True))
    except (TypeError, ValueError):
        return False


def changed_files(folder):
    """Yield (file, what is wrong) for files that are not those of ``SHA256SUMS``."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {SUMS}
    for name in sorted(there | set(known)):
        if name not in there:
            yield name, "published, and missing here"
        elif name not in known:
            yield name, f"not published, but here; not in {SUMS}"
        elif sha256(folder / name) != known[name]:
            yield name, f"changed since it was published: it is not the file of {SUMS}"


def changed_rows(run):
    """Yield (file, what is wrong) for rows of predictions that do not fit their own checksum."""
    for result in run.models:
        for name in ("predictions", "predictions_last"):
            table = getattr(result, name)
            if table is not None:
                for row in table[np.asarray(checks(table)) != table.get("check", -1)].itertuples():
                    yield f"{result.place}/{name}.parquet", f"row {row.Index} ({row.id}) was changed by hand"


def compared_scores(run):
    """Yield (file, which score, published, recomputed) of each score in ``metrics.json`` that predictions give."""
    for result in run.models:
        last = dataclasses.replace(result)
        vars(last)["predictions"] = result.predictions_last
        for kind, source in (("best", result), ("last", last)):
            for part in ("public", "private", "test") if source.predictions is not None else ():
                # Nested scores by dotted names.
                both = pd.json_normalize([result.metrics[kind][part], scores(*source.select(part))]).astype(object)
                for name, (old, new) in both.where(both.notna(), None).items():
                    yield f"{result.place}/metrics.json", f"{kind}.{part}.{name}", old, new


def name_of_row(row):
    """Say which row of a table this is: its first texts that are no numbers."""
    words = [value for value in row if value and not value.replace(".", "").replace("-", "").isdigit()]
    return ", ".join(word[:40] for word in words[:4])


def changed_cells(published, recomputed):
    """Yield what differs between two CSV files, cell by cell."""
    old, new = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (published, recomputed))
    if list(old.columns) != list(new.columns):
        yield f"columns: published {', '.join(old.columns)}; recomputed {', '.join(new.columns)}"
        return
    if len(old) != len(new):
        yield f"published {plural(len(old), 'row')}, recomputed {len(new)}"
        return
    for at, (before, after) in enumerate(zip(old.to_numpy(), new.to_numpy(), strict=True), start=1):
        for column, a, b in zip(old.columns, before, after, strict=True):
            if not same(a, b):
                yield f"row {at} ({name_of_row(after)}), {column}: published {a or '–'}, recomputed {b or '–'}"


def changed_histories(run):
    """Yield (file, what differs) where a history has other scores of the best or last epoch than the predictions."""
    for result in run.models:
        if result.record["split"].get("epoch_images_per_class"):
            continue  # each epoch was scored on some of the images
        for kind in ("best", "last"):
            epoch = result.metrics[kind]["epoch"]
            row = result.history.set_index("epoch").loc[epoch]
            for part in ("public", "private", "test"):
                for name, value in result.metrics[kind][part].items():
                    seen = row.get(f"{part}_{name}")
                    if seen is not None and not abs(seen - value) <= EPOCH_TOLERANCE:
                        text = f"epoch {epoch}, {part}_{name}: published {seen:.6g}, the predictions give {value:.6g}"
                        yield f"{result.place}/history.csv", text


def draw_networks(again):
    """Draw the figures of the models' notebooks from the published files: each network, and its learning curves."""
    for result in read_run(again).first_seeds:
        names = {"model": result.model, "label": result.label, "folder": result.folder / "figures"}
        if result.architecture:
            model_figures.show_network(result.architecture, **names)
        model_figures.show_output(result.history, "", **names)


def drawn_in(folder):
    """Names of the files in a folder's ``figures/`` and in those of its trainings."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("**/figures/*")}


def changed_tables(folder, again, tables):
    """Yield (file, what differs) for verdicts, tables and data of figures, and for files that only one side has."""
    old, new = drawn_in(folder), drawn_in(again)
    for name in sorted(name for name in old - new if not OF_DATASET.match(Path(name).name)):
        yield name, "published, but not made from the published files"
    for name in sorted(new - old):
        yield name, "made from the published files, but not published"
    for name in tables:
        yield from ((name, text) for text in changed_cells(folder / name, again / name))
    if (folder / "README.md").read_text(encoding="utf-8") != describe(read_run(again)):
        yield "README.md", "its text is not the one that the published files give"


def verify(folder):
    """Compute a published set again; return the differences as (file, text), counts, and pictures that differ.

    ConfigError if the folder is no published set.
    """
    folder = Path(folder).expanduser().absolute()
    run = read_run(folder)
    if not ((folder / SUMS).exists() and run.models):
        raise ConfigError(
            f"{folder}: no published set with predictions ({SUMS}, plan.json, "
            "<model>/seed-<n>/predictions.parquet); ./run_all.sh --publish makes one in figures/"
        )
    compared = list(compared_scores(run))
    found = [*changed_files(folder), *changed_rows(run), *changed_histories(run)]
    found += [
        (file, f"{name}: published {old}, recomputed {new}") for file, name, old, new in compared if not same(old, new)
    ]
    with tempfile.TemporaryDirectory(prefix="fer-verify-") as place:
        again = Path(place, "again")
        shutil.copytree(folder, again, ignore=shutil.ignore_patterns("figures", "report.html"))
        recompute(again)
        draw_networks(again)
        names = ["claims.csv", *sorted(drawn_in(again))]
        names = [name for name in names if (folder / name).exists()]
        tables, pictures = ([n for n in names if n.endswith(".csv") is wanted] for wanted in (True, False))
        found += changed_tables(folder, again, tables)
        counted = {"tables": len(tables), "scores": len(compared), "pictures": len(pictures)}
        counted["verdicts"] = len(pd.read_csv(again / "claims.csv"))
        redrawn = [name for name in pictures if (folder / name).read_bytes() != (again / name).read_bytes()]
    return found, counted, redrawn


def main(arguments=None):
    """Verify the set that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="./run_all.sh verify", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", nargs="?", default=project_root() / "figures", help="default: figures/")
    folder = Path(parser.parse_args(arguments).folder)
    began = time.monotonic()
    found, counted, pictures = verify(folder)
    print(
        f"{folder}: computed again in {duration(time.monotonic() - began)}: {counted['tables']} tables (those behind "
        f"figures among them), {counted['verdicts']} verdicts, {counted['scores']:,} scores, {counted['pictures']} "
        f"pictures. Held against {SUMS} only: figures of the dataset and of faces, epochs of a history but "
        "the best and the last, records, scores on training images, report.html."
    )
    if pictures:
        more = " ..." * (len(pictures) > SHOWN)
        print(f"Other bytes than drawn here (their data are compared): {', '.join(pictures[:SHOWN])}{more}")
    by_file = pd.DataFrame(found, columns=["file", "text"]).groupby("file", sort=False)["text"]
    for name, texts in by_file:
        print(*(f"DIFFERS: {name}: {text}" for text in texts[:SHOWN]), sep="\n")
        if len(texts) > SHOWN:
            print(f"  and {len(texts) - SHOWN} more differences in {name}")
    print(f"{plural(len(found), 'difference')} in {plural(len(by_file), 'file')}." if found else "No differences.")
    return 1 if found else 0
