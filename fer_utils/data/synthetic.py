"""Faces that this module draws: a stand-in for FER2013 where the real images are not at hand.

The set has FER2013's image size, classes, parts and proportions. It serves tests and a first run without a network. A
score on it says that the software works, and nothing about people.

Each emotion is a position of brows, lids, mouth, nose and wrinkles, loosely after the action units of the
Facial Action Coding System (Ekman and Friesen, 1978). Three things keep a model from being perfect: most
faces show their emotion at less than full strength, some are mixed with a second emotion, and a share
:data:`LABEL_NOISE` of the labels is wrong.
"""

from dataclasses import dataclass, replace

import numpy as np
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


@dataclass(frozen=True)
class Expression:
    """How far each part of a face has moved; the defaults are a face at rest.

    Lengths are in units of half the face's width; heights count upwards. Wrinkles go from 0 (none) to 1.
    """

    brow_inner: float = 0.0
    brow_outer: float = 0.0
    brow_gap: float = 0.18
    eye_open: float = 0.13
    lower_lid: float = 0.0
    lid_slope: float = 0.0
    mouth_width: float = 0.36
    mouth_open: float = 0.02
    mouth_curve: float = 0.0
    upper_lip: float = 0.0
    teeth: float = 0.0
    asymmetry: float = 0.0
    frown_lines: float = 0.0
    nose_wrinkles: float = 0.0
    cheek_lines: float = 0.1
    forehead_lines: float = 0.0


#: The full-strength face of each class.
EXPRESSIONS = {
    "angry": Expression(
        brow_inner=-0.17, brow_outer=0.08, brow_gap=0.09, eye_open=0.11, lower_lid=0.04, lid_slope=-0.07,
        mouth_width=0.35, mouth_open=0.09, mouth_curve=-0.10, teeth=0.7, frown_lines=1.0, cheek_lines=0.3,
    ),
    "disgust": Expression(
        brow_inner=-0.11, brow_outer=-0.05, brow_gap=0.12, eye_open=0.06, lower_lid=0.06,
        mouth_width=0.34, mouth_open=0.10, mouth_curve=-0.15, upper_lip=0.17, teeth=0.2, asymmetry=0.10,
        frown_lines=0.4, nose_wrinkles=1.0, cheek_lines=1.0,
    ),
    "fear": Expression(
        brow_inner=0.18, brow_outer=0.03, brow_gap=0.12, eye_open=0.22,
        mouth_width=0.46, mouth_open=0.17, mouth_curve=-0.07, teeth=0.5, frown_lines=0.4, forehead_lines=0.6,
    ),
    "happy": Expression(
        brow_outer=0.03, eye_open=0.10, lower_lid=0.08,
        mouth_width=0.54, mouth_open=0.16, mouth_curve=0.24, teeth=1.0, cheek_lines=0.9,
    ),
    "neutral": Expression(),
    "sad": Expression(
        brow_inner=0.16, brow_outer=-0.12, brow_gap=0.14, eye_open=0.09, lid_slope=0.08,
        mouth_width=0.32, mouth_open=0.02, mouth_curve=-0.18, frown_lines=0.2, cheek_lines=0.5,
    ),
    "surprise": Expression(
        brow_inner=0.23, brow_outer=0.19, brow_gap=0.20, eye_open=0.25,
        mouth_width=0.23, mouth_open=0.42, forehead_lines=0.9, cheek_lines=0.0,
    ),
}  # fmt: skip


def default_counts() -> dict[str, dict[str, int]]:
    """Return ``{usage: {class: n}}`` of the default set, about 2,000 images in FER2013's proportions."""
    return {
        usage: {name: max(SMALLEST_CELL, round(n / SCALE)) for name, n in cells.items()}
        for usage, cells in FER2013_COUNTS.items()
    }


def make_faces(
    counts: dict[str, dict[str, int]] | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a set of faces.

    The result depends on `counts` and `seed` alone, and the n-th image of a usage and class does not depend on how many
    others are asked for. Another version of Pillow or NumPy may change the pixels.

    Parameters
    ----------
    counts : dict of dict of int, optional
        ``{usage: {class: n}}``; what is left out gets no images. Default: :func:`default_counts`.
    seed : int
        0 or more.

    Returns
    -------
    images : ndarray of uint8, shape (n, 48, 48)
        Ordered by usage and class; no two are alike.
    labels : ndarray of int64, shape (n,)
        Index into ``CLASSES``; wrong, on purpose, for about ``LABEL_NOISE`` of the images.
    usage : ndarray of str, shape (n,)
    """
    counts = default_counts() if counts is None else counts
    images, labels, usages = [], [], []
    for usage_index, usage in enumerate(USAGES):
        for label, name in enumerate(CLASSES):
            rng = np.random.default_rng([seed, usage_index, label])
            n = counts.get(usage, {}).get(name, 0)
            images += [draw_face(_random_expression(name, rng), rng) for _ in range(n)]
            labels += [label] * n
            usages += [usage] * n
    return (
        np.array(images, dtype=np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE),
        np.array(labels, dtype=np.int64),
        np.array(usages, dtype=f"<U{max(map(len, USAGES))}"),
    )


def draw_face(expression: Expression, rng: np.random.Generator) -> np.ndarray:
    """Draw one 48x48 face with the given expression; person, pose, light, occlusion and noise come from `rng`."""
    canvas = _Canvas(rng)
    skin = rng.uniform(110, 215)
    dark = skin * rng.uniform(0.2, 0.45)
    hair = rng.uniform(15, 150)
    _head(canvas, skin, hair, rng)
    for side in (-1, 1):
        _eye(canvas, expression, side, skin, dark)
        _brow(canvas, expression, side, min(hair, dark) * 0.9)
    _nose(canvas, skin)
    _mouth(canvas, expression, skin, dark)
    _wrinkles(canvas, expression, skin)
    _fringe(canvas, hair, rng)
    _occlusion(canvas, rng)
    return _photograph(canvas.pixels(), rng)


def _mix(first: Expression, second: Expression, share: float) -> Expression:
    """Return the expression that lies `share` of the way from `first` to `second`."""
    return Expression(**{key: (1 - share) * value + share * getattr(second, key) for key, value in vars(first).items()})


def _random_expression(label: str, rng: np.random.Generator) -> Expression:
    """Draw how strongly, how purely and with what personal habit a face shows its label."""
    shown = rng.choice([c for c in CLASSES if c != label]) if rng.random() < LABEL_NOISE else label
    strength = 0.3 + 0.7 * rng.beta(2.0, 1.3)
    expression = _mix(EXPRESSIONS["neutral"], EXPRESSIONS[shown], strength)
    if rng.random() < BLENDED:
        expression = _mix(expression, EXPRESSIONS[rng.choice(CLASSES)], rng.uniform(0.1, 0.5))
    # Many smile or scowl with closed lips, so that teeth alone don't give the emotion away.
    if rng.random() < 0.35 and shown in ("angry", "happy", "disgust"):
        expression = replace(expression, mouth_open=0.02, teeth=0.0)
    habits = rng.normal(0, 0.022, len(vars(expression)))
    return Expression(*(np.array(list(vars(expression).values())) + habits))


class _Canvas:
    """A grey picture addressed in face units: origin in the middle of the face, y upwards.

    Shapes are kept until :meth:`pixels` places all their points in one step, which is what makes drawing fast.
    """

    def __init__(self, rng: np.random.Generator):
        side = IMAGE_SIZE * OVERSAMPLING
        self.image = Image.new("L", (side, side), int(rng.uniform(20, 235)))
        self.unit = side * rng.uniform(0.33, 0.42)
        angle = rng.normal(0, 0.12)
        self.rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.centre = side * (0.5 + rng.normal(0, 0.025, 2))
        # A head turned to the side shows one half narrower than the other.
        self.turn = rng.normal(0, 0.1)
        self.shapes = []

    def fill(self, points: np.ndarray, grey: float) -> None:
        self.shapes.append((points, int(grey), None))

    def line(self, points: np.ndarray, grey: float, width: float) -> None:
        self.shapes.append((points, int(grey), max(1, round(width * self.unit))))

    def place(self, points: np.ndarray) -> list[int]:
        x, y = points[:, 0], -points[:, 1]
        turned = np.stack([x + self.turn * (1 - x * x), y], axis=1)
        pixels = (turned @ self.rotation.T) * self.unit + self.centre
        # Whole pixels, so that the last bit of a sine can't change the picture from one machine to another.
        return np.rint(pixels).astype(int).ravel().tolist()

    def pixels(self) -> np.ndarray:
        draw = ImageDraw.Draw(self.image)
        placed = self.place(np.concatenate([points for points, _, _ in self.shapes]))
        start = 0
        for points, grey, width in self.shapes:
            end = start + 2 * len(points)
            if width is None:
                draw.polygon(placed[start:end], fill=grey)
            else:
                draw.line(placed[start:end], fill=grey, width=width)
            start = end
        fine = np.asarray(self.image, dtype=np.float64)
        return fine.reshape(IMAGE_SIZE, OVERSAMPLING, IMAGE_SIZE, OVERSAMPLING).mean(axis=(1, 3))


_ANGLES = np.linspace(0, 2 * np.pi, 25)[:-1]
_CIRCLE = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_ALONG = np.linspace(-1, 1, 9)
_ARCH = 1 - _ALONG**2


def _head(canvas: _Canvas, skin: float, hair: float, rng: np.random.Generator) -> None:
    length, jaw = rng.uniform(0.0, 0.9), rng.uniform(0.86, 1.0)
    canvas.fill(_CIRCLE * [1.12, 1.2] + [0, 0.22], hair)
    canvas.fill([(-1.1, 0.2), (1.1, 0.2), (1.0, 0.2 - length), (-1.0, 0.2 - length)], hair)
    canvas.fill([(-0.45, -0.6), (0.45, -0.6), (0.5, -1.8), (-0.5, -1.8)], skin * 0.72)
    # The lower half of the face narrows towards the chin.
    outline = _CIRCLE * [0.93, 1.18] - [0, 0.05]
    outline[:, 0] *= np.where(outline[:, 1] < -0.3, jaw, 1.0)
    canvas.fill(outline, skin)


def _eye(canvas: _Canvas, e: Expression, side: int, skin: float, dark: float) -> None:
    x = side * 0.40 + _ALONG * 0.19
    tilt = -e.lid_slope * _ALONG * side
    opening = max(e.eye_open, 0.02)
    upper = 0.18 + opening * _ARCH * 0.75 + tilt * (_ARCH > 0)
    lower = 0.18 - opening * _ARCH * 0.6 + max(e.lower_lid, 0) * _ARCH + np.minimum(tilt, 0)
    lower = np.minimum(lower, upper)
    ball = np.concatenate([np.column_stack([x, upper]), np.column_stack([x, lower])[::-1]])
    canvas.fill(ball, min(250, skin + 45))
    middle = (upper[4] + lower[4]) / 2
    radius = np.array([0.095, min(0.095, max((upper[4] - lower[4]) / 2, 0.015))])
    canvas.fill(_CIRCLE * radius + [side * 0.40, middle], dark * 0.5)
    canvas.line(np.column_stack([x, upper]), dark * 0.7, 0.05)
    canvas.line(np.column_stack([x, lower]), skin * 0.7, 0.025)
    if e.lower_lid > 0.03:
        canvas.line(np.column_stack([x, 0.02 - 0.05 * _ARCH]), skin * 0.78, 0.025)


def _brow(canvas: _Canvas, e: Expression, side: int, grey: float) -> None:
    along = np.linspace(0, 1, 6)
    x = side * (max(e.brow_gap, 0.04) + along * 0.46)
    y = 0.47 + e.brow_inner * (1 - along) + e.brow_outer * along + 0.07 * np.sin(np.pi * along)
    canvas.line(np.column_stack([x, y]), grey, 0.085)


def _nose(canvas: _Canvas, skin: float) -> None:
    canvas.line([(0.06, 0.12), (0.13, -0.22), (0.0, -0.27)], skin * 0.78, 0.035)
    for side in (-1, 1):
        canvas.fill(_CIRCLE * [0.05, 0.03] + [side * 0.1, -0.27], skin * 0.5)


def _mouth(canvas: _Canvas, e: Expression, skin: float, dark: float) -> None:
    width, opening = max(e.mouth_width, 0.12), max(e.mouth_open, 0.0)
    x = _ALONG * width
    # Corners go up by the curve while the middle goes down, and a lifted upper lip shows as an arch.
    corners = e.mouth_curve * (_ALONG**2 - 0.4) + e.asymmetry * _ALONG
    middle = -0.60 + corners
    upper = middle + (0.35 * opening + max(e.upper_lip, 0)) * _ARCH
    lower = middle - 0.75 * opening * _ARCH
    lip = skin * 0.55
    if opening > 0.03:
        canvas.fill(np.concatenate([np.column_stack([x, upper]), np.column_stack([x, lower])[::-1]]), dark * 0.4)
        if e.teeth > 0.25:
            # Few faces show the whole row, so the teeth follow the upper lip and stop short of the lower one.
            depth = np.minimum(upper - lower, 0.05 + 0.09 * e.teeth)
            edge = np.concatenate([np.column_stack([x, upper]), np.column_stack([x, upper - depth])[::-1]])
            canvas.fill(edge, 235)
        canvas.line(np.column_stack([x, lower]), lip, 0.06)
    canvas.line(np.column_stack([x, upper]), lip if opening > 0.03 else dark * 0.8, 0.06)


def _wrinkles(canvas: _Canvas, e: Expression, skin: float) -> None:
    def grey(strength: float) -> float:
        return skin * (1 - 0.38 * min(max(strength, 0), 1))

    for side in (-1, 1):
        canvas.line([(side * 0.07, 0.34), (side * 0.05, 0.56)], grey(e.frown_lines), 0.04)
        canvas.line([(side * 0.2, -0.22), (side * 0.42, -0.40), (side * 0.52, -0.62)], grey(e.cheek_lines), 0.04)
        for height in (0.0, 0.1):
            canvas.line([(side * 0.04, height), (side * 0.2, height + 0.07)], grey(e.nose_wrinkles), 0.035)
    for height in (0.70, 0.82):
        line = np.column_stack([_ALONG * 0.5, height + 0.05 * _ARCH])
        canvas.line(line, grey(e.forehead_lines), 0.03)


def _fringe(canvas: _Canvas, hair: float, rng: np.random.Generator) -> None:
    top = np.column_stack([_ALONG * 0.95, rng.uniform(0.66, 0.76) + 0.55 * _ARCH])
    hairline = np.column_stack([_ALONG * 0.95, top[0, 1] + rng.uniform(0.05, 0.35) * _ARCH])
    canvas.fill(np.concatenate([top, hairline[::-1]]), hair)


def _occlusion(canvas: _Canvas, rng: np.random.Generator) -> None:
    kind = rng.random()
    if kind < 0.08:  # a hand or another head in front of one side
        side, height = rng.choice([-1, 1]), rng.uniform(-1.0, 0.3)
        canvas.fill(_CIRCLE * [0.42, 0.32] + [side * rng.uniform(0.55, 0.95), height], rng.uniform(60, 220))
    elif kind < 0.18:  # glasses
        for side in (-1, 1):
            canvas.line(_CIRCLE[[*range(24), 0]] * [0.27, 0.22] + [side * 0.40, 0.18], 30, 0.035)
        canvas.line([(-0.13, 0.2), (0.13, 0.2)], 30, 0.035)
    elif kind < 0.24:  # a cap
        canvas.fill([(-1.1, 0.7), (1.1, 0.7), (0.9, 1.5), (-0.9, 1.5)], rng.uniform(20, 230))


def _photograph(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light the face from one side, set contrast and brightness, add the camera's noise."""
    y, x = np.mgrid[-1 : 1 : IMAGE_SIZE * 1j, -1 : 1 : IMAGE_SIZE * 1j]
    gradient = rng.normal(0, 0.16, 2)
    face = face * (1 + gradient[0] * x + gradient[1] * y)
    contrast, brightness = rng.uniform(0.6, 1.1), rng.normal(0, 14)
    face = 128 + (face - 128) * contrast + brightness
    face = face + rng.normal(0, rng.uniform(3, 13), face.shape)
    return np.clip(np.rint(face), 0, 255).astype(np.uint8)
