"""What a copy of FER2013 is: one of the two known variants, or what about it differs.

Copies that differ silently, under the same file names, are common: blurred, contrast stretched, split anew,
augmented, incomplete. A network trained on one cannot be compared with a published result.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from fer_utils.data import reference as known_reference
from fer_utils.data.comparison import Comparison, compare
from fer_utils.constants import CLASSES, USAGES
from fer_utils.data.pixels import image_table, pixel_hash, sharpness

__all__ = ["content_hash", "counts", "fingerprint", "image_table", "pixel_hash", "sharpness"]

#: A copy is called FER2013 when this share of its images are the reference's, by pixels, name or statistics.
RECOGNISED_SHARE = 0.1

#: Medians over a half's altered images, relative to the reference's, that count as a treatment.
BLURRED, SHARPENED = 0.9, 1.1
STRETCHED, FLATTENED = 1.03, 0.97
BRIGHTNESS_SHIFT = 3.0  # grey levels
#: A blur takes contrast with it; only less than this beside a blur is called lower contrast.
FLATTENED_BESIDE_BLUR = 0.8
#: Left-right balances below this, in grey levels, say nothing about mirroring.
BALANCED = 5.0
#: Of lossless pixels, near-constant images alone survive JPEG unchanged; more than this share means a
#: mixture.
LOSSLESS_UNCHANGED = 0.05

EXAMPLES = 3
HALVES = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}


def content_hash(images: np.ndarray, labels: np.ndarray, usage: np.ndarray) -> str:
    """Return the sha256 of what a network sees: pixels, labels and usage, not the names.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
        In the canonical order (usage, label, sha256 of the pixels), so that the form of the source does not
        matter.
    labels : ndarray of int, shape (n,)
    usage : ndarray of str, shape (n,)

    Returns
    -------
    str
        64 hexadecimal digits, over three blocks of bytes one after the other: the pixels of all images, row
        by row (2,304 n bytes); the labels (n bytes); each usage's index in ``USAGES`` (n bytes).
    """
    digest = hashlib.sha256(np.ascontiguousarray(images, dtype=np.uint8))
    digest.update(np.asarray(labels).astype(np.uint8).tobytes())
    digest.update(np.array([USAGES.index(part) for part in usage], dtype=np.uint8).tobytes())
    return digest.hexdigest()


def counts(labels: np.ndarray, usage: np.ndarray) -> dict[str, dict[str, int]]:
    """Return the number of images per usage and class, zeros included."""
    labels, usage = np.asarray(labels), np.asarray(usage)
    return {
        part: {name: int(((usage == part) & (labels == i)).sum()) for i, name in enumerate(CLASSES)} for part in USAGES
    }


def fingerprint(
    images: np.ndarray,
    labels: np.ndarray,
    usage: np.ndarray,
    ids: np.ndarray,
    *,
    form: str,
    decoder: str,
    notes: Iterable[str] = (),
    jpeg: bool = False,
    reference: pd.DataFrame | None = None,
) -> dict:
    """Say what a copy of FER2013 is.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
        In the canonical order: usage, label, sha256 of the pixels.
    labels : ndarray of int, shape (n,)
        Index into ``CLASSES``.
    usage, ids : ndarray of str, shape (n,)
    form : {"zip", "folder", "csv", "synthetic"}
    decoder : str
        What turned files into pixels.
    notes : iterable of str
        The reader's remarks; kept as they are.
    jpeg : bool
        True if the images were decoded from JPEG files.
    reference : DataFrame, optional
        What to compare with; default: the package's own (see :mod:`fer_utils.data.reference`).

    Returns
    -------
    dict
        JSON-able: ``variant`` (``"fer2013-kaggle-jpeg"``, ``"fer2013-csv-lossless"``, ``"fer2013-modified"``,
        ``"synthetic"`` or ``"unknown"``), ``known`` (True for the first two: whole and unaltered),
        ``description`` (one sentence), ``differences`` (list of str, empty when known), ``sha256`` (see
        :func:`content_hash`), ``counts``, ``n_images``, ``decoder``, ``form``, ``notes``.
    """
    if form == "synthetic":
        verdict = {
            "variant": "synthetic",
            "known": False,
            "description": "Synthetic faces drawn by this package; no result from them is one on FER2013.",
            "differences": ["drawn, not photographed"],
        }
    else:
        reference = known_reference.load() if reference is None else reference
        verdict = _judge(compare(images, labels, usage, ids, reference, jpeg=jpeg), reference, images)
    return verdict | {
        "sha256": content_hash(images, labels, usage),
        "counts": counts(labels, usage),
        "n_images": len(labels),
        "decoder": decoder,
        "form": form,
        "notes": list(notes),
    }


def _judge(comparison: Comparison, reference: pd.DataFrame, images: np.ndarray) -> dict:
    found, missing = comparison.found, comparison.missing
    share = _share_recognised(found, reference)
    if share < RECOGNISED_SHARE and not _has_equal_counts(found, reference):
        return {
            "variant": "unknown",
            "known": False,
            "description": f"Not recognised as FER2013: of {len(found):,} images {share:.1%} are known.",
            "differences": [f"{len(found):,} images, {share:.1%} of them known from FER2013"],
        }
    pixels = found["pixels"].value_counts()
    same, lossless, close = (int(pixels.get(kind, 0)) for kind in ("same", "lossless", "close"))
    whole = missing.empty and same + lossless + close == len(found) and (found["place"] == "same").all()
    mixed = lossless > 0 and same > LOSSLESS_UNCHANGED * len(found)
    if whole and not mixed:
        return _known(found, reference, lossless, close)
    differences = _differences(found, missing, reference, images)
    if mixed:
        differences.append(f"{same:,} images as Kaggle's JPEG files have them, {lossless:,} with lossless pixels")
    first = [text.split(", e.g. ")[0] for text in differences[:3]]
    more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
    return {
        "variant": "fer2013-modified",
        "known": False,
        "description": f"FER2013, but altered: {'; '.join(first)}{more}.",
        "differences": differences,
    }


def _share_recognised(found: pd.DataFrame, reference: pd.DataFrame) -> float:
    # A pair of altered images without names is a guess, and no evidence.
    by_name = reference["name"].reindex(found["known"]).to_numpy() == found["name"].to_numpy()
    return float(((found["known"] >= 0) & ((found["pixels"] != "altered") | by_name)).mean())


def _has_equal_counts(found: pd.DataFrame, reference: pd.DataFrame) -> bool:
    # 21 numbers that agree are no accident, even where every image was altered and no name is left.
    return found.groupby(["usage", "label"]).size().equals(reference.groupby(["usage", "label"]).size())


def _known(found: pd.DataFrame, reference: pd.DataFrame, lossless: int, close: int) -> dict:
    recovered = int((reference["recovered"].reindex(found["known"]).to_numpy() & (found["pixels"] == "close")).sum())
    if lossless:
        variant = "fer2013-csv-lossless"
        description = (
            f"FER2013 with the competition's lossless pixels: encoded as JPEG, all {len(found):,} images "
            "are those that Kaggle serves"
        )
    else:
        variant = "fer2013-kaggle-jpeg"
        description = f"FER2013 as Kaggle serves it (msambare/fer2013): all {len(found):,} images match"
    if close > recovered:
        near = f"{close - recovered:,} of them within about a grey level only"
        description += f", {near}, as another JPEG decoder would give"
    if recovered:
        description += f" ({recovered} that the reference knows approximately were compared by their statistics)"
    return {"variant": variant, "known": True, "description": f"{description}.", "differences": []}


# --- what differs, in words ---------------------------------------------------------------------------


def _differences(found: pd.DataFrame, missing: pd.DataFrame, reference: pd.DataFrame, images: np.ndarray) -> list[str]:
    found = found.assign(half=found["usage"].map(HALVES))
    differences = []
    for half in ("train", "test"):
        of_half = found[found["half"] == half]
        differences += [f"{half}: {text}" for text in _treatments(of_half, reference, images)]
    differences += _moves(found, reference)
    for half in ("train", "test"):
        of_half = found[found["half"] == half]
        known, lost = (table[table["usage"].map(HALVES) == half] for table in (reference, missing))
        texts = [_relabelled(of_half), _missing(lost, known), *_extra(of_half)]
        differences += [f"{half}: {text}" for text in texts if text]
    return differences


def _some(ids: Iterable[str]) -> str:
    return ", ".join(list(ids)[:EXAMPLES])


def _per_class(labels: pd.Series) -> str:
    sizes = labels.value_counts()
    return ", ".join(f"{name} {sizes[i]:,}" for i, name in enumerate(CLASSES) if i in sizes.index)


def _treatments(found: pd.DataFrame, reference: pd.DataFrame, images: np.ndarray) -> list[str]:
    """Name what was done to the pixels of a half."""
    texts = []
    mirrored = int(((found["pixels"] == "mirrored") & (found["known"] >= 0)).sum())
    if mirrored:
        texts.append(f"{mirrored:,} of {len(found):,} images mirrored")
    altered = found[(found["pixels"] == "altered") & (found["known"] >= 0)]
    if altered.empty:
        return texts
    known = reference.loc[altered["known"]]
    # A constant image says nothing about contrast or sharpness.
    valid = (known["std"].to_numpy() > 2) & (altered["std"].to_numpy() > 0)
    ratio = {
        name: float(np.median(altered[name].to_numpy()[valid] / known[name].to_numpy()[valid])) if valid.any() else 1.0
        for name in ("std", "sharpness")
    }
    shift = float(np.median(altered["mean"].to_numpy() - known["mean"].to_numpy()))
    focus = ratio["sharpness"] / ratio["std"] ** 2  # does not change with contrast
    treatments = []
    if focus < BLURRED:
        treatments.append(f"blurred, or resized and back: sharpness {ratio['sharpness']:.2f} of the known images'")
    elif focus > SHARPENED:
        treatments.append(f"sharpened, or noise added: sharpness {ratio['sharpness']:.2f} of the known images'")
    if ratio["std"] > STRETCHED:
        chosen = images[altered.index]
        full = ((chosen.min(axis=(1, 2)) <= 2) & (chosen.max(axis=(1, 2)) >= 253)).mean()
        treatments.append(
            f"contrast stretched: standard deviation {ratio['std']:.2f} of the known images', "
            f"{full:.0%} span the full range"
        )
    elif ratio["std"] < (FLATTENED_BESIDE_BLUR if focus < BLURRED else FLATTENED):
        treatments.append(f"contrast lowered: standard deviation {ratio['std']:.2f} of the known images'")
    if abs(shift) > BRIGHTNESS_SHIFT:
        treatments.append(f"brightness shifted by {shift:+.1f} grey levels")
    if _is_mirrored(altered, known):
        treatments.append("mirrored")
    if not treatments:
        treatments.append(
            f"pixels altered slightly: sharpness {ratio['sharpness']:.2f}, standard deviation "
            f"{ratio['std']:.2f} of the known images', brightness {shift:+.1f}"
        )
    return [*texts, f"{len(altered):,} of {len(found):,} images {'; '.join(treatments)}"]


def _is_mirrored(altered: pd.DataFrame, known: pd.DataFrame) -> bool:
    ours, theirs = altered["left_right"].to_numpy(), known["left_right"].to_numpy()
    clear = np.abs(theirs) > BALANCED
    return bool(clear.any() and np.median(np.sign(ours[clear]) * np.sign(theirs[clear])) < 0)


def _moves(found: pd.DataFrame, reference: pd.DataFrame) -> list[str]:
    moved = found[found["place"].str.startswith("moved")]
    if moved.empty:
        return []
    origin = reference["usage"].reindex(moved["known"]).map(HALVES).to_numpy()
    sizes = reference["usage"].map(HALVES).value_counts()
    to_test = int(((origin == "train") & (moved["half"] == "test")).sum())
    to_train = int(((origin == "test") & (moved["half"] == "train")).sum())
    within = len(moved) - to_test - to_train
    relabelled = int((moved["place"] == "moved and relabelled").sum())
    parts = (
        (to_test, f"{to_test:,} of {sizes['train']:,} training images stand in test"),
        (to_train, f"{to_train:,} of {sizes['test']:,} test images stand in train"),
        (within, f"{within:,} test images changed between PublicTest and PrivateTest"),
        (relabelled, f"{relabelled:,} of all these stand under another class"),
    )
    return ["split anew: " + ", ".join(text for n, text in parts if n)]


def _relabelled(found: pd.DataFrame) -> str:
    rows = found[found["place"] == "relabelled"]
    if rows.empty:
        return ""
    classes = _per_class(rows["label"])
    return f"{len(rows):,} images stand under another class ({classes}), e.g. {_some(rows['id'])}"


def _missing(missing: pd.DataFrame, known: pd.DataFrame) -> str:
    if missing.empty:
        return ""
    text = f"{len(missing):,} of the {len(known):,} known images are missing ({_per_class(missing['label'])})"
    sizes, lost = known["label"].value_counts(), missing["label"].value_counts()
    gone = [name for i, name in enumerate(CLASSES) if i in lost.index and lost[i] == sizes[i]]
    if gone:
        text += f", all of {', '.join(gone)}"
    named = missing.head(EXAMPLES)
    classes = named["label"].map(dict(enumerate(CLASSES)))
    return f"{text}, e.g. {_some(named['usage'] + '/' + classes + '/' + named['name'])}"


def _extra(found: pd.DataFrame) -> list[str]:
    extra = found[found["place"] == "extra"]
    copies = extra[extra["copy_of"] >= 0]
    flipped = copies["pixels"] == "mirrored"
    kinds = (
        (copies[flipped], "extra images are mirrored copies of known ones (augmentation)"),
        (copies[~flipped], "extra images repeat known ones"),
        (extra[extra["copy_of"] < 0], "extra images are not among the known ones"),
    )
    return [f"{len(rows):,} {text}, e.g. {_some(rows['id'])}" for rows, text in kinds if len(rows)]
