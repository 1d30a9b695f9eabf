"""The faces shown are those of the cells and mistakes that they stand under."""

import numpy as np
import pandas as pd
import pytest
from planted import changed, plant_model, planted_record, read_model

from fer_utils.constants import CLASSES, PROBABILITY_COLUMNS
from fer_utils.data.dataset import load
from fer_utils.errors import ResultsError
from fer_utils.files import write_json
from fer_utils.findings import faces
from fer_utils.findings.results import Run


def predicted(ids, guesses, sure):
    """Predictions of test images, each with probability `sure` for its guess."""
    proba = np.full((len(ids), 7), 0.0)
    for row, (guess, value) in enumerate(zip(guesses, sure, strict=True)):
        proba[row] = (1 - value) / 6
        proba[row, CLASSES.index(guess)] = value
    labels = [CLASSES.index(name.split("/")[1]) for name in ids]
    table = pd.DataFrame({"id": ids, "usage": [name.split("/")[0] for name in ids], "label": labels})
    table[list(PROBABILITY_COLUMNS)] = proba
    return table


@pytest.fixture
def result(tmp_path, small_set):
    data = small_set.write_zip(tmp_path / "fer.zip")
    dataset = load(data, on_message=[].append)
    ids = sorted(name for name in dataset.ids if not name.startswith("Training"))
    # All right but: three of the four images of fear are taken for sad, one of disgust for angry, by far the surest.
    guesses, sure = [name.split("/")[1] for name in ids], [0.5] * len(ids)
    fear = [place for place, name in enumerate(ids) if "/fear/" in name]
    for place, value in zip(fear[:3], (0.4, 0.6, 0.5), strict=True):
        guesses[place], sure[place] = "sad", value
    disgust = next(place for place, name in enumerate(ids) if "/disgust/" in name)
    guesses[disgust], sure[disgust] = "angry", 0.9
    record = planted_record("resnet50")
    record["parameters"]["data"] = str(data)
    record["data"]["fingerprint"] = dataset.fingerprint["sha256"]
    found = read_model(plant_model(tmp_path / "run", record=record))
    return changed(found, predictions=predicted(ids, guesses, sure)), [ids[place] for place in fear[:3]], ids[disgust]


def test_the_fullest_cells_and_the_surest_mistakes_are_shown_with_their_own_images(result, small_set):
    result, fear, disgust = result
    rows = faces.pick(result, cells=2, faces=2)
    first, second, surest = (list(found["id"]) for _, found in rows.groupby("shown", sort=False))
    assert list(rows["shown"].unique()) == ["fear taken for sad, 75%", "disgust taken for angry, 25%", faces.SUREST]
    assert len(first) == 2 and set(first) < set(fear) and second == [disgust]
    assert surest == [disgust, fear[1]]
    run = Run(result.folder.parent.parent, trainings=[result])
    images = faces.images_of(run, rows["id"])
    # As Pillow decoded them, by the name within the zip.
    decoded = dict(zip((name.split("/")[-1] for name in small_set.files), small_set.images, strict=True))
    for name, image in images.items():
        np.testing.assert_array_equal(image, decoded[name.split("/")[-1]])
    figure, drawn = faces.draw(rows, images)
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == len(rows) == 5 and drawn is rows
    np.testing.assert_array_equal(shown[2].images[0].get_array(), images[disgust])


@pytest.mark.parametrize(("change", "text"), [("gone", "not on this machine"), ("other", "other ones")])
def test_without_the_data_it_says_so(result, change, text):
    result, *_ = result
    if change == "gone":
        result.record["parameters"]["data"] += ".gone"
    else:
        result.record["data"]["fingerprint"] = "0" * 64
    with pytest.raises(ResultsError, match=text):
        faces.images_of(Run(result.folder, trainings=[result]), ["x"])


def test_maps_lie_over_their_own_faces_and_the_figure_is_shown_without_the_data(result, small_set, tmp_path):
    result, fear, disgust = result
    run = Run(tmp_path / "run", trainings=[result])
    with pytest.raises(ResultsError, match="makes it at the end of a run"):
        faces.read_gradcam(run)
    heat = [[0.0, 1.0], [0.5, 0.25]]
    entry = {"true": "fear", "predicted": "fear", "confidence": 0.6, "right": True, "map": heat}
    wrong = {"id": disgust, "true": "disgust", "predicted": "angry", "confidence": 0.9, "right": False}
    content = {"label": "ResNet-50", "faces": [{"id": fear[0]} | entry, entry | wrong]}
    write_json(run.folder / "gradcam.json", content)
    found, rows = faces.read_gradcam(run)
    assert found == {"label": "ResNet-50"}
    images = faces.images_of(run, rows["id"])
    figure, tidy = faces.draw_gradcam(rows, images)
    drawn = {ax.get_title(): ax.images[0].get_array() for ax in figure.axes if ax.get_title()}
    np.testing.assert_array_equal(drawn["fear 0.60"], images[fear[0]])
    np.testing.assert_array_equal(drawn["disgust as angry 0.90"], images[disgust])
    assert tidy.set_index(["id", "row", "column"])["value"].loc[disgust].to_list() == [0.0, 1.0, 0.5, 0.25]
    names = {"number": "E8", "slug": "gradcam", "title": "T", "caption": "c", "alt": "a", "folder": tmp_path}
    before = faces.show(run, rows, faces.draw_gradcam, **names)
    assert (tmp_path / "fig-E8-gradcam.csv").exists()
    result.record["data"]["fingerprint"] = "0" * 64
    assert "other ones" in faces.show(run, rows, faces.draw_gradcam, **names).text
    run.plan["published"] = "2026-01-01T00:00:00Z"
    assert faces.show(run, rows, faces.draw_gradcam, **names).markup == before.markup
    (tmp_path / "fig-E8-gradcam.png").unlink()
    assert "other ones" in faces.show(run, rows, faces.draw_gradcam, **names).text
