"""Faces of an image and a planted network: what is found, what goes in, and what every bad input is told."""

import json
import os
import shutil
import struct

import keras
import numpy as np
import pytest
from PIL import Image
from planted import plant_run

from fer_utils.constants import CLASSES
from fer_utils.data.synthetic import make_faces
from fer_utils.errors import DataError, ResultsError
from fer_utils.files import read_json, write_json
from fer_utils.paths import project_root
from fer_utils.training import faces

#: Logits of the planted network for each grey level from 0 to 1.
SLOPES = np.array([1.0, -2.0, 0.5, 3.0, 0.0, -1.0, 2.0])


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Save a network whose probabilities are those of `expected`."""
    network = keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(7, activation="softmax"),
        ]
    )
    network.layers[-1].set_weights([SLOPES[np.newaxis], np.zeros(7)])
    path = tmp_path_factory.mktemp("network") / "model.keras"
    network.save(path)
    return path


def expected(face):
    """Softmax of the slopes times the mean grey of a face, in NumPy."""
    powers = np.exp(SLOPES * np.mean(face) / 255)
    return powers / powers.sum()


@pytest.fixture
def run(tmp_path, network):
    """A run folder of two models; the second has the higher accuracy."""
    out = plant_run(tmp_path / "run", ("traditional_cnn", "vgg16"))
    for path in out.glob("*/seed-0"):
        shutil.copy(network, path)
    return out


@pytest.fixture(scope="module")
def drawn():
    """Drawn faces of 48x48 pixels."""
    return make_faces({"Training": dict.fromkeys(CLASSES, 2)})[0]


def photograph(face, side=240, margin=60):
    """A drawn face, enlarged, inside a larger picture."""
    large = np.asarray(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC))
    return Image.fromarray(np.pad(large, margin, mode="edge"))


# --- faces ----------------------------------------------------------------------------------------------------------


def test_faces_are_found_where_they_were_put(tmp_path, drawn, monkeypatch):
    one = photograph(drawn[6])
    two = Image.new("L", (one.width * 2 + 200, one.height + 100), 128)
    two.paste(one, (one.width + 200, 100))
    two.paste(one, (0, 0))
    two.save(tmp_path / "two.png")
    picture, boxes, found = faces.detect(tmp_path / "two.png")
    assert picture.size == two.size and found.shape == (2, 48, 48) and found.dtype == np.uint8
    for (left, top, right, bottom), (x, y) in zip(boxes, [(180, 180), (180 + one.width + 200, 280)], strict=True):
        assert right - left == bottom - top and 150 < right - left < 300
        assert abs((left + right) / 2 - x) < 30 and abs((top + bottom) / 2 - y) < 30
    # Looked for on a smaller copy, the same places are found, and the same faces cut out of the large one.
    monkeypatch.setattr(faces, "LOOKED_AT", two.width // 2)
    _, again, large = faces.detect(tmp_path / "two.png")
    assert again != boxes and np.abs(np.array(again) - np.array(boxes)).max() < 20
    assert np.corrcoef(found.ravel(), large.ravel())[0, 1] > 0.9


def test_a_face_of_fer2013s_size_goes_in_as_it_is(tmp_path, drawn, network):
    Image.fromarray(drawn[3]).save(tmp_path / "face.png")
    picture, boxes, found = faces.detect(tmp_path / "face.png")
    assert boxes == [(0, 0, 48, 48)] and np.array_equal(found, drawn[3:4])
    table = faces.predict(keras.saving.load_model(network), found)
    assert table.columns.tolist() == list(CLASSES) and table.index.tolist() == [1]
    np.testing.assert_allclose(table.loc[1], expected(drawn[3]), atol=1e-6)


def test_a_whole_image_is_cut_square_around_its_middle(tmp_path, drawn):
    wide = np.pad(drawn[0], ((0, 0), (30, 30)))
    Image.fromarray(wide).save(tmp_path / "wide.png")
    _, boxes, found = faces.detect(tmp_path / "wide.png", whole=True)
    assert boxes == [(30, 0, 78, 48)] and np.array_equal(found, drawn[:1])


def test_of_a_crowd_the_largest_are_kept(drawn, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(faces, "MOST_FACES", 3)
    rows = [np.hstack([photograph(face, side, 20) for face in drawn[6:10]]) for side in (120, 60)]
    Image.fromarray(np.vstack([rows[0], np.pad(rows[1], ((0, 0), (0, 240)), mode="edge")])).save(tmp_path / "crowd.png")
    _, boxes, found = faces.detect(tmp_path / "crowd.png")
    assert len(boxes) == len(found) == 3 and "the 3 largest follow" in capsys.readouterr().out
    assert boxes == sorted(boxes) and max(bottom for *_, bottom in boxes) <= 160  # in the upper row


def modes(grey):
    """The same picture in other modes, each with the largest difference that its conversion to grey may make."""
    pixels = np.asarray(grey)
    clear = np.dstack([pixels] * 3 + [np.where(np.indices(pixels.shape)[0] < 9, 0, 255).astype(np.uint8)])
    turned, exif = grey.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    white = pixels.copy()
    white[:9] = 255
    return {
        "colour.png": (grey.convert("RGB"), pixels, 0, {}),
        "alpha.png": (Image.fromarray(clear), white, 1, {}),
        "sixteen.png": (Image.fromarray(pixels.astype(np.uint16) * 257), pixels, 0, {}),
        "palette.gif": (grey.convert("P"), pixels, 0, {}),
        "print.jpg": (grey.convert("CMYK"), pixels, 40, {"quality": 98}),
        "turned.png": (turned, pixels, 0, {"exif": exif}),
        "black_and_white.png": (grey.point(lambda v: 255 * (v > 128), "1"), 255 * (pixels > 128), 0, {}),
    }


@pytest.mark.parametrize("name", modes(Image.new("L", (9, 9))))
def test_other_kinds_of_images_become_the_same_grey(tmp_path, drawn, name):
    image, pixels, most, options = modes(photograph(drawn[6]))[name]
    image.save(tmp_path / name, **options)
    found = faces.read_image(tmp_path / name)
    assert found.mode == "L" and found.size == pixels.shape[::-1]
    assert np.abs(np.asarray(found).astype(int) - pixels).max() <= most


# --- bad images -----------------------------------------------------------------------------------------------------


def broken(path, suffix):
    Image.effect_noise((99, 99), 50).save(path.with_suffix(suffix))
    return path.with_suffix(suffix).read_bytes()[:2000]


def bitmap(width, height):
    """The head of a bitmap that claims to be so large."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


BAD = {
    "nowhere.jpg": (lambda path: None, "there is no such file; expected the path of an image"),
    "folder": (lambda path: path.mkdir(), "a folder; give one image file"),
    "pipe": (lambda path: os.mkfifo(path), "neither a file nor a folder"),
    "empty.jpg": (lambda path: path.touch(), "an empty file; download it again"),
    "text.jpg": (lambda path: path.write_text("no image\n" * 9), "no image of a known form"),
    "page.jpg": (lambda path: path.write_text("<!doctype html>"), "a web page, not the file itself"),
    "code.eps": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "no image of a known form"),
    "cut.png": (lambda path: path.write_bytes(broken(path, ".bmp.png")), "cannot be read .image file is truncated"),
    "cut.jpg": (lambda path: path.write_bytes(broken(path, ".2.jpg")), "cannot be read .image file is truncated"),
    "wide.bmp": (lambda path: path.write_bytes(bitmap(10_000, 9_000)), "more than 89,478,485 pixels; save it smaller"),
    "bomb.bmp": (lambda path: path.write_bytes(bitmap(50_000, 40_000)), "more than 89,478,485 pixels; save it smaller"),
    "sparse.png": (lambda path: path.open("wb").truncate(2**28 + 1), "larger than 256 MB"),
    "deep.tif": (lambda path: Image.new("I", (9, 9)).save(path), "cannot be read .pixels of 32 bits"),
    "wall.png": (lambda path: Image.new("L", (400, 300), 90).save(path), "no face found on 400x300 pixels.*--whole"),
    "dot.png": (lambda path: Image.new("L", (1, 1)).save(path), "no face found on 1x1 pixels"),
    "line.png": (lambda path: Image.new("L", (9000, 1)).save(path), "no face found on 9000x1 pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_face_is_told_by_name(tmp_path, name):
    make, said = BAD[name]
    make(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: {said}"):
        faces.detect(tmp_path / name)


# --- runs -----------------------------------------------------------------------------------------------------------


def test_the_best_model_of_the_newest_run_is_taken(run, tmp_path, network, monkeypatch):
    monkeypatch.setattr(faces, "project_root", lambda: tmp_path)
    with pytest.raises(ResultsError, match="no finished training under results/; ./run_all.sh"):
        faces.choose()
    older = tmp_path / "results" / "older"
    shutil.copytree(run, tmp_path / "results" / "newer")
    shutil.copytree(run, older)
    for path in older.glob("*/*/run.json"):
        record = read_json(path)
        record["times"]["finished"] = "2020-01-01T00:00:00Z"
        write_json(path, record)
    best = read_json(run / "vgg16" / "seed-0" / "metrics.json")["best"]["private"]
    chosen = faces.choose()
    assert chosen.folder == tmp_path / "results" / "newer" / "vgg16" / "seed-0"
    assert (chosen.accuracy, chosen.n) == (best["accuracy"], best["n"])
    assert f"VGG-16, seed 0, of newer: it read {100 * best['accuracy']:.1f}% of {best['n']}" in chosen.about
    assert faces.choose(older, "traditional_cnn").folder == older / "traditional_cnn" / "seed-0"


def test_a_run_without_a_finished_training_is_refused(run, tmp_path):
    with pytest.raises(ResultsError, match="of model 'resnet50'; finished: traditional_cnn, vgg16"):
        faces.choose(run, "resnet50")
    (run / "vgg16" / "seed-0" / "metrics.json").write_text("{")
    assert faces.choose(run).record["model"] == "traditional_cnn"
    (run / "traditional_cnn" / "seed-0" / "model.keras").unlink()
    for place in (run, tmp_path / "nowhere"):
        with pytest.raises(ResultsError, match=f"{place.name}: no finished training in this folder; ./run_all.sh"):
            faces.choose(place)


def test_a_network_that_is_damaged_or_carries_code_is_refused(run, tmp_path):
    chosen, marker = faces.choose(run), tmp_path / "marker"
    path = chosen.folder / "model.keras"
    leave = eval(f"lambda x: open({str(marker)!r}, 'w').close() or x")  # the path has to be part of the code
    keras.Sequential([keras.Input((48, 48, 1)), keras.layers.Lambda(leave, output_shape=(7,))]).save(path)
    marker.unlink(missing_ok=True)
    with pytest.raises(ResultsError, match="model.keras: cannot be loaded .*Lambda.*train again"):
        faces.load(chosen)
    assert not marker.exists()
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ResultsError, match="model.keras: cannot be loaded"):
        faces.load(chosen)
    keras.Sequential([keras.Input((9, 9, 3)), keras.layers.Flatten()]).save(path)
    with pytest.raises(ResultsError, match=r"from \(9, 9, 3\) to \(243,\); expected 48x48 grey"):
        faces.load(chosen)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_and_draws_what_the_network_sees(run, tmp_path, drawn, capsys):
    Image.fromarray(drawn[3]).save(tmp_path / "face.png")
    assert faces.main([str(tmp_path / "face.png"), "--out", str(run)]) == 0
    said = capsys.readouterr().out
    shown = dict(line.split()[:2] for line in said.splitlines() if line.startswith("  "))
    assert shown == {name: f"{p:.2f}" for name, p in zip(CLASSES, expected(drawn[3]), strict=True)}
    assert list(shown)[0] == CLASSES[SLOPES.argmax()] and faces.WORTH in said
    with Image.open(run / "try" / "face.png.png") as picture:
        assert picture.format == "PNG" and picture.width > 500


def test_the_command_says_in_a_line_what_is_wrong(run, capsys):
    for arguments in (["nowhere.png"], [""], ["nowhere.png", "--model", "resnet50"]):
        assert faces.main([*arguments, "--out", str(run)]) == 2
        assert capsys.readouterr().err.startswith("run_all.sh: ")


def notebook(kind):
    """The cells of one kind of the notebook."""
    path = project_root() / "notebooks" / "09_try.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_the_notebook_takes_a_drawn_face_where_it_is_given_none(run, capsys):
    parameters, *code = notebook("code")
    names = {}
    exec(parameters, names)
    names |= {"out": str(run)}
    exec("\n".join(code), names)
    assert np.array_equal(names["cut"], make_faces({"Training": {"happy": 1}})[0])
    np.testing.assert_allclose(names["table"].loc[1], expected(names["cut"]), atol=1e-6)
    assert "VGG-16, seed 0, of run: it read" in capsys.readouterr().out


def test_readme_and_notebook_say_what_a_label_is_worth():
    for text in ((project_root() / "README.md").read_text(encoding="utf-8"), notebook("markdown")[0]):
        assert faces.WORTH in " ".join(text.split())
