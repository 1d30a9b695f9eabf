"""Faces that this module draws: a stand-in for FER2013 where the real images are not at hand.

The set has FER2013's image size, classes, parts and proportions. It serves tests and a first run without a network. A
score on it says that the software works, and nothing about people.

Each emotion is a position of brows, lids, mouth, nose and wrinkles, loosely after the action units of the
Facial Action Coding System (Ekman and Friesen, 1978). Three things keep a model from being perfect: most
faces show their emotion at less than full strength, some are mixed with a second emotion, and a share
:data:`LABEL_NOISE` of the labels is wrong.
"""

import io
import itertools

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from fer_utils.constants import CLASSES, IMAGE_SIZE, USAGES

#: Images of FER2013 for each usage and class (counted in the published files), in the order of ``CLASSES``.
FER2013_COUNTS = {
    "Training": dict(zip(CLASSES, (3995, 436, 4097, 7215, 4965, 4830, 3171), strict=True)),
    "PublicTest": dict(zip(CLASSES, (467, 56, 496, 895, 607, 653, 415), strict=True)),
    "PrivateTest": dict(zip(CLASSES, (491, 55, 528, 879, 626, 594, 416), strict=True)),
}

#: The default set holds one image for this many of FER2013, and never fewer than ``SMALLEST_CELL`` a cell.
SCALE = 18
SMALLEST_CELL = 20

#: Share of images that show another emotion than their label says.
LABEL_NOISE = 0.06

#: Share of images in which a second emotion is mixed in (up to half of the face's movement).
BLENDED = 0.25

#: Images are drawn this many times larger, then averaged down, so that lines have soft edges.
OVERSAMPLING = 3


#: How far each part of a face has moved at full strength. Lengths are in units of half the face's width, heights count
#: upwards, wrinkles go from 0 (none) to 1.
EXPRESSIONS = pd.read_csv(
    io.StringIO(
        """part angry disgust fear  happy neutral sad   surprise
        brow_inner     -0.17 -0.11  0.18  0.00  0.00  0.16  0.23
        brow_outer      0.08 -0.05  0.03  0.03  0.00 -0.12  0.19
        brow_gap        0.09  0.12  0.12  0.18  0.18  0.14  0.20
        eye_open        0.11  0.06  0.22  0.10  0.13  0.09  0.25
        lower_lid       0.04  0.06  0.00  0.08  0.00  0.00  0.00
        lid_slope      -0.07  0.00  0.00  0.00  0.00  0.08  0.00
        mouth_width     0.35  0.34  0.46  0.54  0.36  0.32  0.23
        mouth_open      0.09  0.10  0.17  0.16  0.02  0.02  0.42
        mouth_curve    -0.10 -0.15 -0.07  0.24  0.00 -0.18  0.00
        upper_lip       0.00  0.17  0.00  0.00  0.00  0.00  0.00
        teeth           0.70  0.20  0.50  1.00  0.00  0.00  0.00
        asymmetry       0.00  0.10  0.00  0.00  0.00  0.00  0.00
        frown_lines     1.00  0.40  0.40  0.00  0.00  0.20  0.00
        nose_wrinkles   0.00  1.00  0.00  0.00  0.00  0.00  0.00
        cheek_lines     0.30  1.00  0.10  0.90  0.10  0.50  0.00
        forehead_lines  0.00  0.00  0.60  0.00  0.00  0.00  0.90"""
    ),
    sep=r"\s+",
    index_col="part",
)


def default_counts() -> dict[str, dict[str, int]]:
    """Return ``{usage: {class: n}}`` of the default set, about 2,000 images in FER2013's proportions."""
    return {
        usage: {name: max(SMALLEST_CELL, round(n / SCALE)) for name, n in cells.items()}
        for usage, cells in FER2013_COUNTS.items()
    }


def make_faces(counts: dict[str, dict[str, int]] | None = None, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Draw a set of faces, `counts` (``{usage: {class: n}}``) of them: images, labels and usage, as a dataset has them.

    The result depends on `counts` and `seed` alone, and the n-th image of a usage and class does not depend on how many
    others are asked for. Another version of Pillow or NumPy may change the pixels.
    """
    counts = default_counts() if counts is None else counts
    images, labels, usages = [], [], []
    for (i, usage), (label, name) in itertools.product(enumerate(USAGES), enumerate(CLASSES)):
        rng, n = np.random.default_rng([seed, i, label]), counts.get(usage, {}).get(name, 0)
        images += [draw_face(_random_expression(name, rng), rng) for _ in range(n)]
        labels += [label] * n
        usages += [usage] * n
    images = np.array(images, dtype=np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)
    return images, np.array(labels, dtype=np.int64), np.array(usages, dtype="U11")


def _random_expression(label, rng):
    """Draw how strongly, how purely and with what personal habit a face shows its label."""
    shown = rng.choice([c for c in CLASSES if c != label]) if rng.random() < LABEL_NOISE else label
    rest, strength = EXPRESSIONS["neutral"].to_numpy(), 0.3 + 0.7 * rng.beta(2.0, 1.3)
    moved = rest + strength * (EXPRESSIONS[shown].to_numpy() - rest)
    if rng.random() < BLENDED:
        moved += rng.uniform(0.1, 0.5) * (EXPRESSIONS[rng.choice(CLASSES)].to_numpy() - moved)
    return dict(zip(EXPRESSIONS.index, moved + rng.normal(0, 0.022, len(moved)), strict=True))


_ANGLES = np.linspace(0, 2 * np.pi, 25)[:-1]
_X, _Y = np.cos(_ANGLES), np.sin(_ANGLES)
_ALONG = np.linspace(-1, 1, 9)
_ARCH = 1 - _ALONG**2


def draw_face(e: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Draw one 48x48 face with the expression `e`; person, pose, light and noise come from `rng`."""
    fine = IMAGE_SIZE * OVERSAMPLING
    image = Image.new("L", (fine, fine), int(rng.uniform(20, 235)))
    pen = ImageDraw.Draw(image)
    unit, angle, centre = fine * rng.uniform(0.33, 0.42), rng.normal(0, 0.12), fine * (0.5 + rng.normal(0, 0.025, 2))
    skin, hair, jaw = rng.uniform(110, 215), rng.uniform(15, 150), rng.uniform(0.86, 1.0)
    dark = skin * rng.uniform(0.2, 0.45)
    rotation = unit * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = rng.normal(0, 0.1)  # a head turned to the side shows one half narrower than the other

    def draw(x, y, grey, width=0.0):
        """Draw an area, or a line of some width; the origin is the middle of the face, y goes upwards."""
        x = np.asarray(x)
        points = np.empty((len(x), 2))
        points[:, 0], points[:, 1] = x + turn * (1 - x * x), np.negative(y)
        # Whole pixels, so that the last bit of a sine can't change the picture from one machine to another.
        points = np.rint(points @ rotation.T + centre).astype(int).ravel().tolist()
        if width:
            pen.line(points, fill=int(grey), width=max(1, round(width * unit)))
        else:
            pen.polygon(points, fill=int(grey))

    def between(x, upper, lower, grey):
        draw(np.append(x, x[::-1]), np.append(upper, lower[::-1]), grey)

    draw(1.12 * _X, 1.2 * _Y + 0.22, hair)
    draw([-0.45, 0.45, 0.5, -0.5], [-0.6, -0.6, -1.8, -1.8], skin * 0.72)
    chin = 1.18 * _Y - 0.05
    draw(0.93 * _X * np.where(chin < -0.3, jaw, 1), chin, skin)
    for side in (-1, 1):
        _eye(draw, between, e, side, skin, dark)
        along = np.linspace(0, 1, 6)
        height = 0.47 + e["brow_inner"] * (1 - along) + e["brow_outer"] * along + 0.07 * np.sin(np.pi * along)
        draw(side * (max(e["brow_gap"], 0.04) + along * 0.46), height, min(hair, dark) * 0.9, 0.085)
        draw(0.05 * _X + side * 0.1, 0.03 * _Y - 0.27, skin * 0.5)  # a nostril
    draw([0.06, 0.13, 0.0], [0.12, -0.22, -0.27], skin * 0.78, 0.035)
    _mouth(draw, between, e, skin, dark)
    _wrinkles(draw, e, skin)
    top = rng.uniform(0.66, 0.76)
    between(0.95 * _ALONG, top + 0.55 * _ARCH, top + rng.uniform(0.05, 0.35) * _ARCH, hair)
    face = np.asarray(image, float).reshape(IMAGE_SIZE, OVERSAMPLING, IMAGE_SIZE, OVERSAMPLING).mean(axis=(1, 3))
    return _photograph(face, rng)


def _eye(draw, between, e, side, skin, dark):
    x = side * 0.40 + _ALONG * 0.19
    tilt = -e["lid_slope"] * _ALONG * side
    opening = max(e["eye_open"], 0.02)
    upper = 0.18 + opening * _ARCH * 0.75 + tilt * (_ARCH > 0)
    lower = 0.18 - opening * _ARCH * 0.6 + max(e["lower_lid"], 0) * _ARCH + np.minimum(tilt, 0)
    lower = np.minimum(lower, upper)
    between(x, upper, lower, min(250, skin + 45))
    radius = np.clip((upper[4] - lower[4]) / 2, 0.015, 0.095)
    draw(0.095 * _X + side * 0.40, radius * _Y + (upper[4] + lower[4]) / 2, dark * 0.5)
    draw(x, upper, dark * 0.7, 0.05)
    draw(x, lower, skin * 0.7, 0.025)
    if e["lower_lid"] > 0.03:
        draw(x, 0.02 - 0.05 * _ARCH, skin * 0.78, 0.025)


def _mouth(draw, between, e, skin, dark):
    x, opening = _ALONG * max(e["mouth_width"], 0.12), max(e["mouth_open"], 0.0)
    # Corners go up by the curve while the middle goes down, and a lifted upper lip shows as an arch.
    middle = -0.60 + e["mouth_curve"] * (_ALONG**2 - 0.4) + e["asymmetry"] * _ALONG
    upper = middle + (0.35 * opening + max(e["upper_lip"], 0)) * _ARCH
    lower = middle - 0.75 * opening * _ARCH
    lip = skin * 0.55
    if opening > 0.03:
        between(x, upper, lower, dark * 0.4)
        if e["teeth"] > 0.25:
            # Few faces show the whole row, so the teeth follow the upper lip and stop short of the lower one.
            between(x, upper, upper - np.minimum(upper - lower, 0.05 + 0.09 * e["teeth"]), 235)
        draw(x, lower, lip, 0.06)
    draw(x, upper, lip if opening > 0.03 else dark * 0.8, 0.06)


def _wrinkles(draw, e, skin):
    def grey(name):
        return skin * (1 - 0.38 * min(max(e[name], 0), 1))

    for side in (-1, 1):
        draw([side * 0.07, side * 0.05], [0.34, 0.56], grey("frown_lines"), 0.04)
        draw([side * 0.2, side * 0.42, side * 0.52], [-0.22, -0.40, -0.62], grey("cheek_lines"), 0.04)
        for height in (0.0, 0.1):
            draw([side * 0.04, side * 0.2], [height, height + 0.07], grey("nose_wrinkles"), 0.035)
    for height in (0.70, 0.82):
        draw(_ALONG * 0.5, height + 0.05 * _ARCH, grey("forehead_lines"), 0.03)


def _photograph(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light the face from one side, set contrast and brightness, add the camera's noise."""
    y, x = np.mgrid[-1 : 1 : IMAGE_SIZE * 1j, -1 : 1 : IMAGE_SIZE * 1j]
    gradient = rng.normal(0, 0.16, 2)
    face = face * (1 + gradient[0] * x + gradient[1] * y)
    contrast, brightness = rng.uniform(0.6, 1.1), rng.normal(0, 14)
    face = 128 + (face - 128) * contrast + brightness
    face = face + rng.normal(0, rng.uniform(3, 13), face.shape)
    return np.clip(np.rint(face), 0, 255).astype(np.uint8)
