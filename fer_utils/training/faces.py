"""A trained network tried on the faces of an image: ``09_try.ipynb`` shows it, ``./run_all.sh try IMAGE`` prints it.

FER2013's images were made like this (Goodfellow et al., 2013): OpenCV's detector found the faces, their boxes were cut
out, made 48x48 and grey. No training calls this module, so that a change here trains nothing again (`APART` in
`fer_utils.provenance`).
"""

import argparse
import io
import sys
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_utils.constants import CLASSES, IMAGE_SIZE
from fer_utils.data.decoding import UNREADABLE, stand_in
from fer_utils.data.synthetic import make_faces
from fer_utils.errors import ConfigError, DataError, FerError, ResultsError
from fer_utils.files import read_json, replacing
from fer_utils.paths import project_root

#: Read by Pillow itself; others would start programs (EPS) or need more packages (HEIC).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
LARGEST_FILE, MOST_PIXELS = 2**28, Image.MAX_IMAGE_PIXELS

CASCADE = "haarcascade_frontalface_default.xml"
#: Longest side on which faces are looked for, the smallest face there, in pixels, and how many are shown.
LOOKED_AT, SMALLEST, MOST_FACES = 1600, 30, 12

#: What a label is worth, as README says it.
WORTH = (
    'Labels such as "angry" describe how annotators read a posed or found face, not what a person feels; nothing here '
    "should be used to judge people."
)


@dataclass(frozen=True)
class Chosen:
    """A finished training: its folder, ``run.json``, and its accuracy on the `n` images of the final score."""

    folder: Path
    record: dict
    accuracy: float
    n: int

    @property
    def about(self):
        """Which network this is, how good it is, and what to know of it: a line each."""
        name = f"{self.record['label']}, seed {self.record['seed']}, of {self.folder.parents[1].name}"
        score = f"it read {self.accuracy:.1%} of {self.n:,} test images as their annotators had"
        return "\n".join([f"{name}: {score}.", *(f"*** {line}" for line in self.record.get("warnings", []))])


# --- the network --------------------------------------------------------------------------------------------------


def choose(out="", model=""):
    """Choose a finished training.

    Parameters
    ----------
    out : path
        Run folder; the newest under ``results/`` if empty.
    model : str
        Name in ``config.yaml``; the one with the highest final accuracy if empty, as among the seeds of a model.

    Raises
    ------
    ResultsError
        If there is no finished training.
    """
    root = project_root() / "results"
    runs = [Path(out).expanduser().resolve()] if out else sorted(root.glob("*")) if root.is_dir() else []
    found = [trainings for run in runs if (trainings := finished(run))]
    if not found:
        place = f"{runs[0]}: no finished training in this folder" if out else "no finished training under results/"
        raise ResultsError(f"{place}; ./run_all.sh or a model's notebook makes one, and --out names its folder")
    newest = max(found, key=lambda trainings: max(chosen.record["times"]["finished"] for chosen in trainings))
    fitting = [chosen for chosen in newest if model in ("", chosen.record["model"])]
    if not fitting:
        run, names = newest[0].folder.parents[1], sorted({chosen.record["model"] for chosen in newest})
        raise ResultsError(f"{run}: no finished training of model {model!r}; finished: {', '.join(names)}")
    return max(fitting, key=lambda chosen: chosen.accuracy)


def finished(run):
    """Return the finished trainings of a run folder; what is broken or not finished is left out."""
    found = []
    for path in sorted(run.glob("*/seed-*/run.json")):
        try:
            record, best = read_json(path), read_json(path.with_name("metrics.json"))["best"]
            score = best["private" if record["protocol"] == "sound" else "test"]
            names = {name: record[name] for name in ("model", "seed", "label")} | record["times"]
            if "finished" in names and path.with_name("model.keras").is_file():
                found.append(Chosen(path.parent, record, score["accuracy"], score["n"]))
        except (KeyError, TypeError, ValueError):
            continue
    return found


def load(chosen):
    """Load the network of a training; ResultsError if its file is damaged, or holds code and not only numbers."""
    path = chosen.folder / "model.keras"
    try:
        # In safe mode, Keras refuses layers that carry code.
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ResultsError(f"{path}: cannot be loaded ({reason}); delete {chosen.folder} and train again") from error
    shapes = (network.input_shape[1:], network.output_shape[1:])
    if shapes != ((IMAGE_SIZE, IMAGE_SIZE, 1), (len(CLASSES),)):
        raise ResultsError(f"{path}: a network from {shapes[0]} to {shapes[1]}; expected 48x48 grey to 7 classes")
    return network


def predict(network, faces):
    """Return the probabilities of faces (n, 48, 48) uint8: a row per face, numbered from 1, a column per class.

    The pixels go in as in training: float32 from 0 to 255, with a channel axis. A network scales them itself.
    """
    proba = network.predict(faces[..., np.newaxis].astype("float32"), verbose=0)
    return pd.DataFrame(proba, index=pd.RangeIndex(1, len(proba) + 1, name="face"), columns=list(CLASSES))


# --- the faces ----------------------------------------------------------------------------------------------------


def read_image(path):
    """Read an image file as a grey Pillow image of mode L, upright; DataError says what is wrong with it."""
    given = str(path)
    try:
        path = Path(given).expanduser()
        if path.is_dir():
            raise DataError(f"{given}: a folder; give one image file")
        if not path.is_file():
            what = "neither a file nor a folder" if path.exists() else "there is no such file"
            raise DataError(f"{given}: {what}; expected the path of an image")
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{given}: larger than {LARGEST_FILE >> 20} MB; save it smaller")
        with path.open("rb") as file:
            if instead := stand_in(file.read(1000)):
                raise DataError(f"{given}: {instead}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return to_grey(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise DataError(f"{given}: no image of a known form ({', '.join(FORMATS)}); save it as JPEG or PNG") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"{given}: more than {MOST_PIXELS:,} pixels; save it smaller") from None
    except UNREADABLE as error:
        raise DataError(f"{given}: cannot be read ({error}); save it anew as JPEG or PNG") from error


def to_grey(image):
    """Return a Pillow image in mode L: transparent parts on white, 16 bits shortened to 8."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits, mode {image.mode}")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("L")


def find_faces(picture, whole=False):
    """Find the faces in a grey picture with OpenCV's Haar cascade for frontal faces.

    Returns boxes ``(left, top, right, bottom)`` in pixels, from left to right, of the `MOST_FACES` largest, and how
    many faces were found. A picture of 48x48 pixels is a face itself; with `whole` any is, cut square in its middle.
    """
    if whole or picture.size == (IMAGE_SIZE, IMAGE_SIZE):
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        return [(left, top, left + side, top + side)], 1
    small = picture.copy()
    small.thumbnail((LOOKED_AT, LOOKED_AT))
    scale = max(picture.size) / max(small.size)
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
    places = cascade.detectMultiScale(
        cv2.equalizeHist(np.asarray(small)), scaleFactor=1.1, minNeighbors=5, minSize=(SMALLEST, SMALLEST)
    )
    largest = sorted(np.asarray(places, dtype=int).reshape(-1, 4).tolist(), key=lambda place: -place[2])[:MOST_FACES]
    boxes = [tuple(round(scale * edge) for edge in (x, y, x + w, y + h)) for x, y, w, h in sorted(largest)]
    return boxes, len(places)


def cut_out(picture, boxes):
    """Return the faces in boxes as the networks know them: (n, 48, 48) uint8; one of 48x48 pixels as it is."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return np.stack([np.asarray(picture.crop(box).resize(size, Image.Resampling.BILINEAR)) for box in boxes])


def detect(image, whole=False):
    """Read an image file (None: a drawn face) and find its faces: the picture, their boxes and the faces as arrays.

    Raises
    ------
    DataError
        If it is no image that can be read, or has no face.
    """
    picture = read_image(image) if image else Image.fromarray(make_faces({"Training": {"happy": 1}})[0][0])
    boxes, n = find_faces(picture, whole)
    if not boxes:
        raise DataError(
            f"{image}: no face found on {picture.width}x{picture.height} pixels; the detector knows upright faces seen "
            f"from the front, of {SMALLEST} pixels and more. If the image is a face and little else, take it whole "
            "(--whole, or whole = True in the notebook)"
        )
    if n > len(boxes):
        print(f"{n} faces found; the {len(boxes)} largest follow.")
    return picture, boxes, cut_out(picture, boxes)


# --- what is shown ------------------------------------------------------------------------------------------------


def draw(picture, boxes, faces, table):
    """Draw the picture with numbered boxes, and each face beside its probabilities; PNG bytes."""
    # A picture that is a face itself is shown once, as what the network sees.
    above = [] if boxes == [(0, 0, *picture.size)] else [min(max(6 * picture.height / picture.width, 1.5), 3.6)]
    heights = above + [1.6] * len(faces)
    figure = Figure(figsize=(6.4, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[1, 2.4])
    if above:
        ax = figure.add_subplot(grid[0, :])
        shown = picture.copy()
        shown.thumbnail((LOOKED_AT, LOOKED_AT))
        ax.imshow(shown, cmap="gray", vmin=0, vmax=255, extent=(0, picture.width, picture.height, 0))
        ax.set_axis_off()
        for number, (left, top, right, bottom) in enumerate(boxes, start=1):
            ax.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="#de8f05", linewidth=1.5)
            ax.text(left, top, f" {number} ", backgroundcolor="#de8f05", va="top", fontsize=9, clip_on=True)
    for number in table.index:
        ax_face, ax_bars = (figure.add_subplot(grid[number - len(faces) - 1, column]) for column in (0, 1))
        ax_face.imshow(faces[number - 1], cmap="gray", vmin=0, vmax=255)
        ax_face.set_title(f"Face {number}", fontsize=9)
        ax_face.set_axis_off()
        bars = ax_bars.barh(table.columns, table.loc[number], color="#0173b2")
        ax_bars.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
        ax_bars.set(xlim=(0, 1.12), xticks=[])
        ax_bars.invert_yaxis()
        ax_bars.tick_params(labelsize=8)
        ax_bars.spines[["top", "right", "bottom"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def describe(boxes, table):
    """Say in lines what the network sees in each face, the most probable class first."""
    lines = []
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        lines.append(f"Face {number}, {right - left}x{bottom - top} pixels at {left}, {top}:")
        rows = table.loc[number].sort_values(ascending=False, kind="stable")
        lines += [f"  {name:<9}{value:.2f}  {'=' * round(40 * value)}".rstrip() for name, value in rows.items()]
    return "\n".join(lines)


def main(arguments=None):
    """Run ``./run_all.sh try``; errors of ours are a line, not a traceback."""
    about = "Find the faces in an image and print what a trained network of a run sees in each."
    parser = argparse.ArgumentParser(prog="./run_all.sh try", description=about, allow_abbrev=False)
    parser.add_argument("image", metavar="IMAGE", help=f"an image file: {', '.join(FORMATS)}")
    parser.add_argument("--out", default="", metavar="DIR", help="run folder; default: the newest under results/")
    parser.add_argument("--model", default="", metavar="NAME", help="default: the run's best")
    parser.add_argument("--whole", action="store_true", help="take the image as one face, without looking for faces")
    options = parser.parse_args(arguments)
    try:
        chosen = choose(options.out, options.model)
        picture, boxes, faces = detect(Path(options.image), options.whole)
        table = predict(load(chosen), faces)
        print(chosen.about, describe(boxes, table), WORTH, sep="\n\n")
        target = chosen.folder.parents[1] / "try" / f"{Path(options.image).name}.png"
        try:
            with replacing(target, durable=False) as path:
                path.write_bytes(draw(picture, boxes, faces, table))
        except OSError as error:
            raise ConfigError(f"the picture of this could not be written to {target} ({error.strerror})") from error
        print(f"\nThe same as a picture: {target}")
    except FerError as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
