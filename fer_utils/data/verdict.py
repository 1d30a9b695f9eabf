"""Which copy of FER2013 is it: known, or what differs and how it was treated.

Copies that differ silently, under the same file names, are common: blurred, contrast stretched, split anew,
augmented, incomplete. A network trained on one cannot be compared with a published result.

A treatment is named only where a test of it holds: undone on the copy's images, it leaves the known ones; or, where it
cannot be undone (a blur, noise), what it does to sharpness is what was measured.
"""

import numpy as np
import pandas as pd
from scipy import ndimage

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import identity
from fer_utils.words import listed, plural

#: A copy is called FER2013 when this share of its images is recognised.
RECOGNISED_SHARE = 0.1
#: Of lossless pixels, near-constant images alone survive JPEG unchanged; more than this share means a mixture.
LOSSLESS_UNCHANGED = 0.05
#: Share of a group's images for which a test must hold.
MOST = 0.9
#: Images of a group whose pixels are tried; numbers are measured on all.
SAMPLE = 32
#: RMS difference, in grey levels, that undoing a treatment may leave.
UNDONE = 1.5
#: What rounding to whole grey levels leaves, RMS.
ROUNDING = 0.3


def identify(images, labels, usage, names, *, jpeg, reference=None) -> tuple[np.ndarray, dict]:
    """Say which copy of FER2013 some images are, given the arrays of a :class:`~fer_utils.data.readers.Reading`.

    Returns the usage, ``"test"`` replaced by what the reference has for a known image, and a dict: ``variant``
    (``"fer2013-kaggle-jpeg"``, ``"fer2013-csv-lossless"``, ``"fer2013-modified"`` or ``"unknown"``), ``known`` (True
    for the first two: whole and unaltered), ``description`` (one sentence), ``differences`` (list of str, empty when
    known). `jpeg` says that JPEG files were decoded, which cannot hold the competition's lossless pixels.
    """
    reference = identity.load_reference(identity.REFERENCE) if reference is None else reference
    found = pd.DataFrame({"usage": usage, "label": np.asarray(labels).astype(np.int8)})
    found["half"] = found["usage"].map(identity.HALVES)
    found["name"] = [name.rsplit(".", 1)[0] for name in names]
    identity.recognise(found, images, reference, jpeg)
    identity.pair(found, reference)
    settled = (found["usage"] == "test") & found["place"].isin(["same", "relabelled"])
    found.loc[settled, "usage"] = reference["usage"].to_numpy()[found["known"][settled]]
    variant, description, differences = _judge(found, images, reference)
    known = variant not in ("unknown", "fer2013-modified")
    verdict = {"variant": variant, "known": known, "description": f"{description}.", "differences": differences}
    return found["usage"].to_numpy().astype("U11"), verdict


def _judge(found, images, reference):
    """Return variant, description and differences."""
    same, lossless, near, altered = ((found["kind"] == k).sum() for k in ("same", "lossless", "near", "altered"))
    recognised = same + lossless + near + altered
    differences = _leak(found, reference)
    if recognised < RECOGNISED_SHARE * len(found):
        named = (found["kind"] == "named").sum()
        halves = (found["half"], reference["usage"].map(identity.HALVES))
        cells = [
            table["label"].groupby([half, table["label"]]).size().tolist()
            for table, half in zip((found, reference), halves, strict=True)
        ]
        also = [f"{named:,} carry names of its images"] * bool(named)
        also += ["the counts are FER2013's"] * (cells[0] == cells[1])
        text = f"of {len(found):,} images {recognised:,} ({recognised / len(found):.1%}) are known by their pixels"
        text += f"; {' and '.join(also)}" if also else ""
        return "unknown", f"Not recognised as FER2013: {text}", [text, *differences]
    missing = reference.drop(index=found.loc[found["known"] >= 0, "known"])
    mixed = lossless > 0 and same > LOSSLESS_UNCHANGED * len(found)
    differences += _treatments(found, images, reference) + _moves(found, reference)
    if mixed:
        differences.append(f"{same:,} images as Kaggle's JPEG files have them, {lossless:,} with lossless pixels")
    for half, usages in (("train", USAGES[:1]), ("test", USAGES[1:])):
        of_half = found[found["half"] == half]
        lost, known = (t[t["usage"].isin(usages)] for t in (missing, reference))
        differences += [f"{half}: {text}" for text in _relabelled(of_half) + _missing(lost, known) + _extra(of_half)]
    if not differences:
        return *_known(found, reference, lossless), []
    first = [text.split(", e.g. ")[0] for text in differences[:3]]
    more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
    return "fer2013-modified", f"FER2013, but altered: {'; '.join(first)}{more}", differences


def _known(found, reference, lossless):
    n = f"all {len(found):,} images"
    if lossless:
        variant = "fer2013-csv-lossless"
        text = f"FER2013 with the competition's lossless pixels: encoded as JPEG, {n} are those that Kaggle serves"
    else:
        variant, text = "fer2013-kaggle-jpeg", f"FER2013 as Kaggle serves it (msambare/fer2013): {n} match"
    near = found[found["kind"] == "near"]
    recovered = reference["recovered"].to_numpy()[near["known"]]
    fast = (near["left"] < near["rms"]).to_numpy()
    for rows, cause in (
        (~recovered & ~fast, "another JPEG decoder or a second encoding would give"),
        (~recovered & fast, "a JPEG decoder's fast DCT gives, TensorFlow's default"),
    ):
        if rows.any():
            text += f", {rows.sum():,} of them but for {_range(near['rms'][rows])} grey levels (RMS), as {cause}"
    if recovered.any():
        text += f" ({recovered.sum()} that the reference knows only approximately: {_range(near['rms'][recovered])})"
    return variant, text


def _range(values, digits=1):
    """Return ``median (least to most)``."""
    low, middle, high = (f"{x:.{digits}f}" for x in np.quantile(values, [0, 0.5, 1]))
    return f"{middle} ({low} to {high})" if low != high else middle


# --- treatments ---------------------------------------------------------------------------------------------------


def _treatments(found, images, reference):
    texts = []
    treated = found[found["kind"].isin(["near", "altered", "named"])]
    for (half, orientation, inverted, kind), group in treated.groupby(["half", "orientation", "inverted", "kind"]):
        some = f"{half}: {len(group):,} of {(found['half'] == half).sum():,} images"
        turned = listed([orientation] * bool(orientation) + ["inverted"] * inverted)
        if kind == "altered":
            known = reference.loc[group["picture"]].set_axis(group.index)
            how = name_treatment(group, images, known) or "altered in a way not recognised"
            texts.append(f"{some} {f'{turned}, and then ' if turned else ''}{how}; {_measured(group, known)}")
        elif kind == "named":
            texts.append(f"{some} carry a known name but show another picture, or one altered beyond recognition, "
                         f"e.g. {_some(group)}")  # fmt: skip
        elif turned:
            texts.append(f"{some} {turned}")
    return sorted(texts, key=lambda text: not text.startswith("train"))


def _measured(altered, known):
    """Say by how much images differ from the known ones, with the range over all of them."""
    mean = np.where(altered["inverted"], 255 - altered["mean"], altered["mean"]) - known["mean"]
    text = f"RMS difference {_range(altered['rms'])} grey levels, mean changed by {_range(mean)}"
    valid = (known["std"] > 2) & (known["sharpness"] > 0)
    for name, title in (("std", "standard deviation"), ("sharpness", "sharpness")) if valid.any() else ():
        text += f", {title} {_range((altered[name] / known[name])[valid], 2)} of the known"
    return text


def name_treatment(altered: pd.DataFrame, images: np.ndarray, known: pd.DataFrame) -> str:
    """Name what was done to images of one orientation, once turned back, or return an empty string.

    `known` holds the reference's row of each image in `altered`.
    """
    some = altered.iloc[np.linspace(0, len(altered) - 1, min(SAMPLE, len(altered)), dtype=int)]
    theirs, raw = known.loc[some.index], images[some.index]
    pixels = identity.ORIENTATIONS[some["orientation"].iloc[0]](raw)
    pixels = 255 - pixels if some["inverted"].iloc[0] else pixels
    before = _difference(pixels, theirs)
    power = min(np.arange(0.3, 3.3, 0.05), key=lambda x: np.median(_difference(_gamma(pixels, x), theirs)))
    factor = (altered["std"] / known["std"])[known["std"] > 2].median()
    ways = {
        "brightness shifted": _shifted_back(pixels, theirs),
        f"contrast {'stretched' if factor > 1 else 'lowered'}": _standardised(pixels, theirs),
        f"changed by a gamma of {power:.2f}": _gamma(pixels, power),
    }
    left = {name: _difference(back, theirs) for name, back in ways.items()}
    medians = {name: np.median(rows) for name, rows in left.items()}
    # Undoing a change of contrast undoes one of brightness too, and of one image a gamma may.
    medians["brightness shifted"] -= ROUNDING
    name = min(medians, key=medians.get)
    if np.median(left[name]) <= UNDONE and (left[name] <= 0.5 * before + 0.5).mean() >= MOST:
        return name
    return (
        _jpeg(raw)
        or _shift(pixels, theirs, before)
        or _noise(altered, known)
        or _blur(altered, known)
        or _sharpening(pixels, theirs, before)
    )


def _difference(pixels, known):
    return identity.rms(identity.products(pixels), pixels.mean(axis=(1, 2)), known)


def _gamma(pixels, power):
    """Undo a gamma."""
    return (255 * (np.arange(256) / 255) ** (1 / power))[pixels]


def _shifted_back(pixels, known):
    """Give each image the mean of the known one."""
    return pixels - pixels.mean(axis=(1, 2), keepdims=True) + known["mean"].to_numpy()[:, None, None]


def _standardised(pixels, known):
    """Give each image the mean and standard deviation of the known one."""
    mean, std = (known[name].to_numpy()[:, None, None] for name in ("mean", "std"))
    centred = pixels - pixels.mean(axis=(1, 2), keepdims=True)
    return centred * std / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1) + mean


def _jpeg(raw):
    """Test whether images were encoded as JPEG: encoding once more at that quality changes them least."""
    some = raw[:: len(raw) // 8 + 1].astype(np.float32)
    qualities = np.arange(30, 100)
    again = np.stack([identity.to_jpeg(some.astype(np.uint8), int(quality)) for quality in qualities])
    changes = np.sqrt(((again - some) ** 2).mean(axis=(2, 3)))
    quality = qualities[:-5][np.median(changes[:-5], axis=1).argmin()]
    holds = changes[qualities == quality] <= 0.6 * np.median(changes[qualities > quality + 2], axis=0)
    return f"encoded as JPEG of quality {quality}" if holds.mean() >= MOST else ""


def _shift(pixels, known, before):
    """Test whether images were moved by up to three pixels; what left the frame is lost."""
    padded, size = np.pad(pixels, ((0, 0), (3, 3), (3, 3)), mode="edge"), pixels.shape[1]
    offsets = [(right, down) for right in range(-3, 4) for down in range(-3, 4)]
    after = [_difference(padded[:, 3 + y : 3 + y + size, 3 + x : 3 + x + size], known) for x, y in offsets]
    best = np.median(after, axis=1).argmin()
    x, y = offsets[best]
    if (after[best] <= 0.5 * before).mean() < MOST:
        return ""
    moves = [f"{abs(x)} to the {'right' if x > 0 else 'left'}"] * bool(x)
    moves += [f"{abs(y)} to the {'bottom' if y > 0 else 'top'}"] * bool(y)
    return f"shifted by {plural(max(abs(x), abs(y)), 'pixel')} ({' and '.join(moves)})"


def _noise(altered, known):
    """Test for white noise: it adds its variance to the image's, and 20 times that to the Laplacian's."""
    added = np.sqrt(max((altered["sharpness"] - known["sharpness"]).median(), 0) / 20)
    measured = np.sqrt((altered["rms"] ** 2).mean())
    # Sharpening adds more to the image's own; so far the stored standard deviations tell it.
    more = altered["std"] ** 2 - known["std"] ** 2 - altered["rms"] ** 2
    apart = (more <= 0.5 * altered["rms"] ** 2 + identity.STATISTIC_STEP * known["std"]).median()
    return f"noise of {measured:.1f} grey levels added" if apart and 0.8 <= added / measured <= 1.25 else ""


def _blur(altered, known):
    """Test whether the images are softer throughout.

    A filter that only weakens frequencies changes the variance by at least the square of the RMS difference; moving
    parts of an image does not.
    """
    valid = (known["std"] > 2) & (altered["std"] > 0) & (known["sharpness"] > 0)
    altered, known = altered[valid], known[valid]
    if (altered["rms"] ** 2 / (altered["std"] ** 2 - known["std"] ** 2).abs()).median() > 1.2:
        return ""
    focus = altered["sharpness"] / known["sharpness"] * (known["std"] / altered["std"]) ** 2  # whatever the contrast
    softer = (focus < 0.9).mean() >= MOST and (altered["std"] <= known["std"] + 0.25).mean() >= MOST
    return "blurred, or resized and back" if softer else ""


def _sharpening(pixels, known, before):
    """Test whether images were sharpened: some softening leaves less than half of the difference."""
    x = pixels.astype(np.float32)
    soft = [ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest") for sigma in (0.5, 0.75, 1, 1.5, 2)]
    ways = [x + weight * (blurred - x) for blurred in soft for weight in np.arange(0.1, 1, 0.1)]
    after = min((_difference(way, known) for way in ways), key=np.median)
    return "sharpened" if (after <= 0.5 * before).mean() >= MOST else ""


# --- what is where ------------------------------------------------------------------------------------------------


def _some(rows):
    ids = rows["usage"] + "/" + rows["label"].map(dict(enumerate(CLASSES))) + "/" + rows["name"]
    return ", ".join(ids[:3])


def _per_class(labels):
    sizes = labels.value_counts()
    return ", ".join(f"{name} {sizes[i]:,}" for i, name in enumerate(CLASSES) if i in sizes.index)


def _leak(found, reference):
    """Count the test images that also appear in train, where they are more than in FER2013 itself."""

    def count(picture, test):
        return int(picture[test].isin(picture[~test]).sum())

    shown = found["picture"].where(found["kind"].isin(["same", "lossless", "near"]), found["hash"])
    n = count(shown, found["half"] == "test")
    usual = count(reference["picture"], reference["usage"] != "Training")
    text = f"data leakage: {n:,} of {(found['half'] == 'test').sum():,} test images also appear in train"
    return [f"{text} ({usual:,} in FER2013 itself)"] if n > usual else []


def _moves(found, reference):
    moved = found[found["place"].str.startswith("moved")]
    halves = reference["usage"].map(identity.HALVES)
    origin, now, sizes = halves.to_numpy()[moved["known"]], moved["half"].to_numpy(), halves.value_counts()
    parts = (
        ((origin == "train") & (now == "test"), f"of {sizes['train']:,} training images are in test"),
        ((origin == "test") & (now == "train"), f"of {sizes['test']:,} test images are in train"),
        (origin == now, f"test images changed between {' and '.join(USAGES[1:])}"),
        (moved["place"] == "moved and relabelled", "of all these have another class"),
    )
    texts = [f"{rows.sum():,} {text}" for rows, text in parts if rows.any()]
    return [f"split anew: {', '.join(texts)}"] if texts else []


def _relabelled(found):
    rows = found[found["place"] == "relabelled"]
    have = plural(len(rows), "image has", "images have")
    return [f"{have} another class ({_per_class(rows['label'])}), e.g. {_some(rows)}"] if len(rows) else []


def _missing(missing, known):
    if missing.empty:
        return []
    sizes, lost = known["label"].value_counts(), missing["label"].value_counts()
    gone = [name for i, name in enumerate(CLASSES) if i in lost.index and lost[i] == sizes[i]]
    text = f"{len(missing):,} of the {len(known):,} known images are missing ({_per_class(missing['label'])})"
    return [f"{text}{f', all of {listed(gone)}' if gone else ''}, e.g. {_some(missing)}"]


def _extra(found):
    extra = found[found["place"] == "extra"]
    known = extra["picture"] >= 0
    turned = known & ((extra["orientation"] != "") | extra["inverted"])
    kinds = {
        "are mirrored or turned copies of known ones (augmentation)": turned,
        "repeat known ones": known & ~turned,
        "are not among the known ones": ~known,
    }
    return [
        f"{rows.sum():,} extra images {text}, e.g. {_some(extra[rows])}" for text, rows in kinds.items() if rows.any()
    ]
