"""What is said of a copy of FER2013 once each image is compared: known, or what differs and how it was treated.

A treatment is named only where a test of it holds: undone on the copy's images, it leaves the known ones; or, where it
cannot be undone, what it does to sharpness is what was measured.
"""

import numpy as np
import pandas as pd

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import pictures
from fer_utils.words import listed, plural

#: A copy is called FER2013 when this share of its images is recognised.
RECOGNISED_SHARE = 0.1
#: Of lossless pixels, near-constant images alone survive JPEG unchanged; more than this share means a mixture.
LOSSLESS_UNCHANGED = 0.05
#: Share of a group's images for which a test must hold.
MOST = 0.9
#: Images of a group whose pixels are tried; numbers are measured on all.
SAMPLE = 64
EXAMPLES = 3


def judge(found: pd.DataFrame, images: np.ndarray, reference: pd.DataFrame) -> dict:
    """Return variant, known, description and differences; see :func:`fer_utils.data.identity.identify`."""
    kinds = found["kind"].value_counts()
    same, lossless, near = (int(kinds.get(kind, 0)) for kind in ("same", "lossless", "near"))
    recognised = int((~found["kind"].isin(["other", "named"])).sum())
    equal_counts = found.groupby(["usage", "label"]).size().equals(reference.groupby(["usage", "label"]).size())
    missing = reference.drop(index=found.loc[found["known"] >= 0, "known"])
    leak = _leak(found, reference)
    if recognised < RECOGNISED_SHARE * len(found):
        text = f"of {len(found):,} images {recognised:,} ({recognised / len(found):.1%}) are known by their pixels"
        named = int((found["kind"] == "named").sum())
        also = [f"{named:,} carry names of its images"] * (named > 0) + ["the counts are FER2013's"] * equal_counts
        text += f"; {' and '.join(also)}" if also else ""
        return _verdict("unknown", f"Not recognised as FER2013: {text}", [text, *leak])
    turned = (found["orientation"] != "") | found["inverted"]
    whole = missing.empty and same + lossless + near == len(found) and (found["place"] == "same").all()
    mixed = lossless > 0 and same > LOSSLESS_UNCHANGED * len(found)
    if whole and not mixed and not turned.any():
        return _known(found, reference, lossless)
    differences = [*leak, *_treatments(found, images, reference), *_moves(found, reference)]
    if mixed:
        differences.append(f"{same:,} images as Kaggle's JPEG files have them, {lossless:,} with lossless pixels")
    for half in ("train", "test"):
        of_half = found[found["half"] == half]
        texts = [_relabelled(of_half), *_missing(half, missing, reference), *_extra(of_half, reference)]
        differences += [f"{half}: {text}" for text in texts if text]
    first = [text.split(", e.g. ")[0] for text in differences[:3]]
    more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
    return _verdict("fer2013-modified", f"FER2013, but altered: {'; '.join(first)}{more}", differences)


def _verdict(variant, description, differences):
    known = variant not in ("unknown", "fer2013-modified")
    return {"variant": variant, "known": known, "description": f"{description}.", "differences": differences}


def _known(found, reference, lossless):
    if lossless:
        variant = "fer2013-csv-lossless"
        text = (
            f"FER2013 with the competition's lossless pixels: encoded as JPEG, all {len(found):,} images are those "
            "that Kaggle serves"
        )
    else:
        variant = "fer2013-kaggle-jpeg"
        text = f"FER2013 as Kaggle serves it (msambare/fer2013): all {len(found):,} images match"
    near = found[found["kind"] == "near"]
    recovered = reference["recovered"].to_numpy()[near["known"]]
    others = near[~recovered]
    if len(others):
        text += (
            f", {len(others):,} of them but for {_range(others['rms'])} grey levels (RMS), as another JPEG decoder "
            "or a second encoding would give"
        )
    if recovered.any():
        text += f" ({recovered.sum()} that the reference knows only approximately: {_range(near['rms'][recovered])})"
    return _verdict(variant, text, [])


def _range(values, digits=1):
    """Return ``median (least to most)``."""
    values = np.asarray(values, float)
    low, middle, high = (f"{x:.{digits}f}" for x in (values.min(), np.median(values), values.max()))
    return f"{middle} ({low} to {high})" if low != high else middle


# --- treatments ---------------------------------------------------------------------------------------------------


def _treatments(found, images, reference):
    texts = []
    for half in ("train", "test"):
        of_half = found[(found["half"] == half) & (found["picture"] >= 0)]
        n = int((found["half"] == half).sum())
        treated = of_half[of_half["kind"].isin(["near", "altered", "named"])]
        for (orientation, inverted), group in treated.groupby(["orientation", "inverted"]):
            turned = listed([orientation] * bool(orientation) + ["inverted"] * inverted)
            near, altered, named = (group[group["kind"] == kind] for kind in ("near", "altered", "named"))
            if turned and len(near):
                texts.append(f"{half}: {len(near):,} of {n:,} images {turned}")
            if len(altered):
                known = reference.loc[altered["picture"]]
                how = name_treatment(altered, images, known)
                how = how or "altered in a way not recognised"
                texts.append(
                    f"{half}: {len(altered):,} of {n:,} images {f'{turned}, and ' if turned else ''}{how}; "
                    f"{'then ' if turned else ''}RMS difference {_range(altered['rms'])} grey levels"
                )
            if len(named):
                texts.append(f"{half}: {len(named):,} of {n:,} images carry a known name but show another picture, or "
                             f"one altered beyond recognition, e.g. {_some(named)}")  # fmt: skip
    return texts


def name_treatment(altered: pd.DataFrame, images: np.ndarray, known: pd.DataFrame) -> str:
    """Name what was done to images of one orientation, once turned back, or return an empty string.

    `known` holds the reference's row of each image in `altered`.
    """
    known = known.set_axis(altered.index)
    some = altered.iloc[np.linspace(0, len(altered) - 1, min(SAMPLE, len(altered)), dtype=int)]
    raw = images[some.index]
    pixels = pictures.ORIENTATIONS[some["orientation"].iloc[0]](raw)
    pixels = 255 - pixels if some["inverted"].iloc[0] else pixels
    sample = _Sample(pixels, known.loc[some.index])
    return (
        _linear(altered, known, sample)
        or _gamma(sample)
        or _jpeg(raw)
        or _shifted(sample)
        or _noise(altered, known)
        or _focus(altered, known)
    )


class _Sample:
    """Some altered images beside the known ones."""

    def __init__(self, pixels, known):
        self.pixels, self.known = pixels, known
        self.before = self.difference(pixels)

    def difference(self, pixels):
        """Return the RMS difference of images from the known ones, once they are treated back."""
        return pictures.rms(pictures.products(pixels), pixels.mean(axis=(1, 2)), self.known)

    def is_undone(self, pixels):
        after = self.difference(pixels)
        return np.median(after) <= 1.5 and (after <= 0.5 * self.before + 0.5).mean() >= MOST


def _linear(altered, known, sample):
    """Test whether only brightness and contrast were changed."""
    valid = (known["std"] > 2) & (altered["std"] > 0)
    if not valid.any():
        return ""
    factor = (altered["std"] / known["std"])[valid]
    shift = (altered["mean"] - known["mean"])[valid]
    own = factor.reindex(sample.known.index, fill_value=1.0).to_numpy()[:, None, None]
    mean = altered["mean"].loc[sample.known.index].to_numpy()[:, None, None]
    back = (sample.pixels - mean) / own + sample.known["mean"].to_numpy()[:, None, None]
    if not sample.is_undone(back):
        return ""
    texts = []
    if (np.abs(factor - 1) > 0.02).mean() > 1 - MOST:
        change = "stretched" if factor.median() > 1 else "lowered"
        texts.append(f"contrast {change}: standard deviation {_range(factor, 2)} of the known images'")
        full = (sample.pixels.min(axis=(1, 2)) <= 2) & (sample.pixels.max(axis=(1, 2)) >= 253)
        texts[-1] += f", {full.mean():.0%} span the full range" if factor.median() > 1 else ""
    if abs(shift.median()) > 0.5:
        sign = "+" if shift.median() > 0 else ""
        texts.append(f"brightness shifted by {sign}{_range(shift)} grey levels")
    return "; ".join(texts)


def _gamma(sample):
    """Test whether grey levels were raised to a power."""
    levels = np.arange(256) / 255
    best, power = np.inf, 1.0
    for grid in (np.geomspace(0.3, 3.3, 25), np.linspace(-0.1, 0.1, 21)):
        centre = power
        for candidate in grid if best == np.inf else centre * (1 + grid):
            error = np.median(sample.difference((255 * levels ** (1 / candidate))[sample.pixels]))
            best, power = min((best, power), (error, candidate))
    if abs(power - 1) < 0.02 or not sample.is_undone((255 * levels ** (1 / power))[sample.pixels]):
        return ""
    return f"changed by a gamma of {power:.2f}"


def _jpeg(raw):
    """Test whether images were encoded as JPEG: encoding once more at that quality changes them least."""
    some = raw[:: max(1, len(raw) // 16)]

    def change(quality):
        difference = pictures.to_jpeg(some, quality).astype(np.float32) - some
        return np.sqrt((difference**2).mean(axis=(1, 2)))

    changes = {quality: change(quality) for quality in range(30, 100)}
    quality = min(range(30, 95), key=lambda q: np.median(changes[q]))
    others = np.median([changes[q] for q in range(quality + 3, 100)], axis=0)
    holds = (changes[quality] <= 0.6 * others).mean() >= MOST
    return f"encoded as JPEG of quality {quality}" if holds else ""


def _shifted(sample):
    """Test whether images were moved by up to three pixels; what left the frame is lost."""
    best, offset = np.inf, None
    padded = np.pad(sample.pixels, ((0, 0), (3, 3), (3, 3)), mode="edge")
    size = sample.pixels.shape[1]
    for down in range(-3, 4):
        for right in range(-3, 4):
            back = padded[:, 3 + down : 3 + down + size, 3 + right : 3 + right + size]
            after = sample.difference(back)
            if np.median(after) < best:
                best, offset, holds = np.median(after), (right, down), (after <= 0.5 * sample.before).mean() >= MOST
    if offset == (0, 0) or not holds:
        return ""
    moves = [
        f"{abs(n)} to the {side[n > 0]}"
        for n, side in zip(offset, (("left", "right"), ("top", "bottom")), strict=True)
        if n
    ]
    return f"shifted by {plural(max(map(abs, offset)), 'pixel')} ({' and '.join(moves)})"


def _noise(altered, known):
    """Test for white noise: it adds 20 times its variance to the Laplacian's, whatever the image."""
    added = np.sqrt(max((altered["sharpness"] - known["sharpness"]).median(), 0) / 20)
    measured = np.sqrt((altered["rms"] ** 2).mean())
    return f"noise of {measured:.1f} grey levels added" if 0.8 <= added / measured <= 1.25 else ""


def _focus(altered, known):
    """Test whether the images are softer or sharper throughout."""
    valid = (known["std"] > 2) & (altered["std"] > 0) & (known["sharpness"] > 0)
    if not valid.any():
        return ""
    ratio = (altered["sharpness"] / known["sharpness"])[valid]
    focus = ratio / (altered["std"] / known["std"])[valid] ** 2  # does not change with contrast
    text = f"sharpness {_range(ratio, 2)} of the known images'"
    # A filter that only weakens (or only strengthens) frequencies changes the variance by at least the square of the
    # RMS difference; moving parts of an image does not.
    explained = (altered["rms"] ** 2 / (altered["std"] ** 2 - known["std"] ** 2).abs())[valid].median() <= 1.2
    if not explained:
        return ""
    if (focus < 0.9).mean() >= MOST and (altered["std"] <= known["std"] + 0.25).mean() >= MOST:
        return f"blurred, or resized and back: {text}"
    return f"sharpened: {text}" if (focus > 1.1).mean() >= MOST else ""


# --- what stands where --------------------------------------------------------------------------------------------


def _some(rows):
    ids = rows["usage"] + "/" + rows["label"].map(dict(enumerate(CLASSES))) + "/" + rows["name"]
    return ", ".join(ids[:EXAMPLES])


def _per_class(labels):
    sizes = labels.value_counts()
    return ", ".join(f"{name} {sizes[i]:,}" for i, name in enumerate(CLASSES) if i in sizes.index)


def _leak(found, reference):
    """Count the test images that also appear in train, where they are more than in FER2013 itself."""
    shown = found["hash"].mask(found["picture"] >= 0, reference["pixel_hash"].reindex(found["picture"]).to_numpy())
    test = found["half"] == "test"
    n = int(shown[test].isin(shown[~test]).sum())
    known_test = reference["usage"] != "Training"
    usual = int(reference.loc[known_test, "pixel_hash"].isin(reference.loc[~known_test, "pixel_hash"]).sum())
    if n <= usual:
        return []
    return [f"data leakage: {n:,} of {test.sum():,} test images also appear in train ({usual:,} in FER2013 itself)"]


def _moves(found, reference):
    moved = found[found["place"].str.startswith("moved")]
    if moved.empty:
        return []
    halves = reference["usage"].map({"Training": "train"}).fillna("test")
    origin, sizes = halves.to_numpy()[moved["known"]], halves.value_counts()
    to_test, to_train = (
        int(((origin == a) & (moved["half"] == b)).sum()) for a, b in (("train", "test"), ("test", "train"))
    )
    within = len(moved) - to_test - to_train
    relabelled = int((moved["place"] == "moved and relabelled").sum())
    parts = (
        (to_test, f"{to_test:,} of {sizes['train']:,} training images are in test"),
        (to_train, f"{to_train:,} of {sizes.get('test', 0):,} test images are in train"),
        (within, f"{within:,} test images changed between {' and '.join(USAGES[1:])}"),
        (relabelled, f"{relabelled:,} of all these have another class"),
    )
    return ["split anew: " + ", ".join(text for n, text in parts if n)]


def _relabelled(found):
    rows = found[found["place"] == "relabelled"]
    if rows.empty:
        return ""
    have = plural(len(rows), "image has", "images have")
    return f"{have} another class ({_per_class(rows['label'])}), e.g. {_some(rows)}"


def _missing(half, missing, reference):
    missing, known = (t[(t["usage"] == "Training") == (half == "train")] for t in (missing, reference))
    if missing.empty:
        return []
    sizes, lost = known["label"].value_counts(), missing["label"].value_counts()
    gone = [name for i, name in enumerate(CLASSES) if i in lost.index and lost[i] == sizes[i]]
    text = f"{len(missing):,} of the {len(known):,} known images are missing ({_per_class(missing['label'])})"
    return [f"{text}{f', all of {listed(gone)}' if gone else ''}, e.g. {_some(missing)}"]


def _extra(found, reference):
    extra = found[found["place"] == "extra"]
    known = extra["picture"] >= 0
    turned = known & ((extra["orientation"] != "") | extra["inverted"])
    kinds = (
        (turned, "mirrored or turned copies of known ones (augmentation)"),
        (known & ~turned, "repeat known ones"),
        (~known, "not among the known ones"),
    )
    texts = []
    for chosen, text in kinds:
        rows = extra[chosen]
        if len(rows):
            verb = "" if text.startswith("repeat") else "are "
            texts.append(f"{len(rows):,} extra images {verb}{text}, e.g. {_some(rows)}")
    return texts
