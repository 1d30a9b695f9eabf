"""Which copy of FER2013 is it: each image is compared with the reference of the known set.

Copies that differ silently, under the same file names, are common: blurred, contrast stretched, split anew,
augmented, incomplete. A network trained on one cannot be compared with a published result.
"""

import numpy as np
import pandas as pd

from fer_utils.constants import CLASSES
from fer_utils.data import pictures
from fer_utils.data.pictures import ORIENTATIONS, PRODUCTS, nearest, pixel_hash, products, rms, similarity, to_jpeg
from fer_utils.data.verdict import judge

#: Two images are one picture when their products correlate at least so. With the picture of the same name: upright,
#: turned, and where 5% of the others do clearly (where 40% do, the name is enough).
SAME_NAME, SAME_NAME_TURNED, SAME_NAME_TRUSTED = 0.85, 0.98, 0.3
#: With the nearest of all, the nearest of the same class, and that where the nearest of most are of their class.
ANY_CLASS, SAME_CLASS, SAME_CLASS_TRUSTED = 0.99, 0.97, 0.8
FLAT = 3.0  # a standard deviation below this leaves nothing to correlate
SAMPLE = 300

#: Images that differ by no more than this RMS (in grey levels, pooled over a half) are called near: JPEG decoders
#: differ by up to 0.6 and a second encoding at quality 95 by 0.3, but one at quality 90 by 3. Single images are
#: known to about a fifth, so that among many a larger estimate passes.
NEAR, NEAR_SINGLE, NEAR_MEAN = 1.25, 2.5, 0.6
OTHER_DECODER = 6.0
#: For images that the reference itself knows only approximately, so many times the difference is allowed.
RECOVERED_FACTOR = 3.0

HALVES = {"Training": "train", "PublicTest": "test", "PrivateTest": "test", "test": "test"}


def recognise(found: pd.DataFrame, images: np.ndarray, reference: pd.DataFrame, jpeg: bool) -> None:
    """Add to a table of images (``label``, ``name``) which picture of the reference each shows.

    The columns: ``picture`` (row of the reference, the first of identical ones, or -1), ``kind`` (``"same"``;
    ``"lossless"``: the same once encoded as JPEG; ``"near"``, ``"altered"``; ``"named"``: only the name is known;
    ``"other"``), ``orientation`` (a key of ``ORIENTATIONS``), ``inverted``, ``rms`` (once turned back), ``hash`` and
    the statistics.
    """
    found[["mean", "std", "sharpness"]] = pictures.statistics(images)
    found["hash"] = pixel_hash(images)
    first = _first(reference)
    found["picture"] = _look_up(found["hash"], first)
    found["kind"] = np.where(found["picture"] >= 0, "same", "other")
    found[["orientation", "inverted", "rms"]] = "", False, 0.0
    rest = np.flatnonzero(found["picture"] < 0)
    # Encoding all takes seconds; if one image in five were lossless, 60 would hold one.
    sample = rest[np.linspace(0, len(rest) - 1, min(60, len(rest)), dtype=int)]
    if not jpeg and (_look_up(pixel_hash(to_jpeg(images[sample])), first) >= 0).any():
        encoded = _look_up(pixel_hash(to_jpeg(images[rest])), first)
        found.loc[rest[encoded >= 0], "picture"] = encoded[encoded >= 0]
        found.loc[rest[encoded >= 0], "kind"] = "lossless"
        rest = rest[encoded < 0]
    if not len(rest):
        return
    original = first.reindex(reference["pixel_hash"]).to_numpy()  # the first of identical images
    named = _rows_by_name(found.iloc[rest], reference)
    _match_names(found, rest[named >= 0], named[named >= 0], images, reference, original)
    _match_nearest(found, images, reference, original)
    only_named = (named >= 0) & (found["picture"].to_numpy()[rest] < 0)
    found.loc[rest[only_named], "picture"] = original[named[only_named]]
    found.loc[rest[only_named], "kind"] = "named"
    _call_near(found, reference)


def _first(reference):
    """Map each hash of the reference to the first row that has it."""
    first = pd.Series(reference.index, reference["pixel_hash"])
    return first[~first.index.duplicated()]


def _look_up(hashes, first):
    """Return the row of the reference with these pixels, or -1."""
    return first.reindex([text[: pictures.HASH_DIGITS] for text in hashes]).fillna(-1).astype(int).to_numpy()


def _rows_by_name(found, reference):
    """Return for each image the row of the reference of its class and name, else of its name, else -1."""
    rows = np.full(len(found), -1)
    for keys in (lambda t: t["name"], lambda t: t["label"].astype(str) + t["name"]):
        known = pd.Series(reference.index, keys(reference))
        hit = known[~known.index.duplicated()].reindex(keys(found)).fillna(-1).astype(int).to_numpy()
        rows = np.where(hit >= 0, hit, rows)
    return rows


def _match_names(found, rows, named, images, reference, original):
    """Match images with the pictures whose names they carry, in the orientation that fits best."""
    known = reference[PRODUCTS].to_numpy()[named]
    best = np.zeros(len(rows))
    some = np.arange(0, len(rows), max(1, len(rows) // SAMPLE))
    for orientation, turn in ORIENTATIONS.items():
        tried = np.abs(similarity(products(turn(images[rows[some]])), known[some])) >= SAME_NAME
        share = tried.mean() if len(some) >= 20 else 0
        trusted = share >= 0.05
        if orientation and not trusted and len(some) < len(rows):
            continue
        ours = products(turn(images[rows]))
        correlation = similarity(ours, known)
        limit = SAME_NAME_TURNED if orientation else SAME_NAME
        if trusted:
            limit = SAME_NAME_TRUSTED if share < 0.4 else 0
        # One that is not common must fit far better: many faces are almost symmetric.
        needed = best + (0.001 if trusted else 0.8 * (1 - best))
        better = (np.abs(correlation) >= limit) & (np.abs(correlation) > needed)
        best[better] = np.abs(correlation[better])
        _set(found, rows[better], original[named[better]], orientation, correlation[better], ours[better], reference)
    # Near-constant images correlate with nothing; they are taken to be treated as most others.
    flat = (best == 0) & (found["std"].to_numpy()[rows] < FLAT) & (reference["std"].to_numpy()[named] < FLAT)
    if flat.any():
        turns = found.loc[rows[best > 0], ["orientation", "inverted"]].value_counts()
        orientation, inverted = turns.index[0] if len(turns) else ("", False)
        ours = products(ORIENTATIONS[orientation](images[rows[flat]]))
        sign = np.full(flat.sum(), -1.0 if inverted else 1.0)
        _set(found, rows[flat], original[named[flat]], orientation, sign, ours, reference)


def _match_nearest(found, images, reference, original):
    """Match the other images with the pictures that they resemble most, orientation by orientation."""
    known, known_labels = reference[PRODUCTS].to_numpy(), reference["label"].to_numpy()

    def search(rows, orientation, candidates, limit):
        if not len(rows) or not len(candidates):
            return
        ours = products(ORIENTATIONS[orientation](images[rows]))
        index, correlation = nearest(ours, known[candidates])
        hit = np.abs(correlation) >= limit
        _set(found, rows[hit], original[candidates[index[hit]]], orientation, correlation[hit], ours[hit], reference)

    for orientation, turn in ORIENTATIONS.items():
        rows = np.flatnonzero(found["picture"] < 0)
        if not len(rows):
            return
        # Some show whether the orientation occurs: all of them against all would take seconds for each.
        some = rows[:: -(-len(rows) // SAMPLE)]
        index, correlation = nearest(products(turn(images[some])), known)
        agrees = known_labels[index] == found["label"].to_numpy()[some]
        strict = np.abs(correlation) >= np.where(agrees, SAME_CLASS, ANY_CLASS)
        # Labels agree by chance for one image in five.
        trusted = len(some) >= 20 and (agrees & (np.abs(correlation) >= SAME_CLASS_TRUSTED)).mean() >= 0.8
        if len(some) < len(rows) and not trusted and strict.mean() < 0.02:
            continue
        for label in range(len(CLASSES)):
            of_class = rows[found["label"].to_numpy()[rows] == label]
            limit = SAME_CLASS_TRUSTED if trusted else SAME_CLASS
            search(of_class, orientation, np.flatnonzero(known_labels == label), limit)
        rest = rows[found["picture"].to_numpy()[rows] < 0]
        search(rest[:4000], orientation, np.arange(len(known)), ANY_CLASS)


def _set(found, rows, shown, orientation, correlation, ours, reference):
    inverted = correlation < 0
    sign, mean = np.where(inverted, -1, 1), found["mean"].to_numpy()[rows]
    found.loc[rows, "picture"] = shown
    found.loc[rows, "kind"] = "altered"
    found.loc[rows, "orientation"] = orientation
    found.loc[rows, "inverted"] = inverted
    known = reference[["mean", *PRODUCTS]].iloc[shown]
    found.loc[rows, "rms"] = rms(sign[:, None] * ours, np.where(inverted, 255 - mean, mean), known)


def _call_near(found, reference):
    """Call images near that differ as little as two decoders do, all that were treated alike together."""
    altered = found[found["kind"] == "altered"]
    factor = np.where(reference["recovered"].to_numpy()[altered["picture"]], RECOVERED_FACTOR, 1.0)
    difference = altered["rms"] / factor
    shift = np.abs(altered["mean"] - reference["mean"].to_numpy()[altered["picture"]])
    steady = (shift <= NEAR_MEAN * factor) | altered["inverted"]
    theirs = reference["pixel_hash"].to_numpy()[altered["picture"]] + altered["hash"].str[: pictures.OTHER_DIGITS]
    decoded = (altered["rms"] <= OTHER_DECODER) & theirs.isin(reference["pixel_hash"] + reference["other_decoder"])
    found.loc[altered.index[decoded], "kind"] = "near"
    altered, difference, steady = altered[~decoded], difference[~decoded], steady[~decoded]
    single = difference[(difference <= NEAR_SINGLE) & steady]
    groups = [altered[name].loc[single.index] for name in ("half", "orientation", "inverted")]
    pooled = (single**2).groupby(groups).transform("mean") ** 0.5
    found.loc[single.index[pooled <= NEAR], "kind"] = "near"


def pair(found: pd.DataFrame, reference: pd.DataFrame) -> None:
    """Pair each image with at most one of the reference, by picture first and by name among identical ones.

    Adds ``known`` (row of the reference, or -1) and ``place``: ``"same"``, ``"relabelled"``, ``"moved"`` (another
    half, or another usage where the copy states one), ``"moved and relabelled"``, or ``"extra"``.
    """
    found["known"], found["place"] = -1, "extra"
    rows = reference[["usage", "label", "name"]].assign(
        half=reference["usage"].map(HALVES),
        picture=_first(reference).reindex(reference["pixel_hash"]).to_numpy(),
        row=reference.index,
    )
    undecided = found["stated"] == ""

    def find(on, where=True):
        ours = found[(found["known"] < 0) & where][on]
        free = rows[~rows["row"].isin(found["known"])]
        ours = ours.assign(index=ours.index, nth=ours.groupby(on).cumcount())
        return ours.merge(free.assign(nth=free.groupby(on).cumcount())[[*on, "nth", "row"]], on=[*on, "nth"])

    def take(on, place, where=True):
        pairs = find(on, where)
        found.loc[pairs["index"], "known"], found.loc[pairs["index"], "place"] = pairs["row"].to_numpy(), place

    take(["usage", "label", "name", "picture"], "same")
    take(["usage", "label", "picture"], "same")
    take(["half", "label", "name", "picture"], "same", undecided)
    take(["half", "label", "picture"], "same", undecided)
    take(["usage", "name", "picture"], "relabelled")
    take(["label", "name", "picture"], "moved")
    take(["name", "picture"], "moved and relabelled")
    # Of images that occur under several usages or labels, what explains more comes first.
    ways = [(["half", "picture"], "relabelled", undecided), (["usage", "picture"], "relabelled", ~undecided),
            (["label", "picture"], "moved", True)]  # fmt: skip
    for on, place, where in sorted(ways, key=lambda way: len(find(way[0], way[2])), reverse=True):
        take(on, place, where)
    take(["picture"], "moved and relabelled")


def identify(images, labels, usage, names, *, jpeg, reference=None) -> tuple[np.ndarray, dict]:
    """Say which copy of FER2013 some images are.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    labels : ndarray of int, shape (n,)
        Index into ``CLASSES``.
    usage : ndarray of str, shape (n,)
        One of ``USAGES``, or ``"test"`` where the copy says no more.
    names : ndarray of str, shape (n,)
        File names.
    jpeg : bool
        True if the images were decoded from JPEG files, which cannot hold the competition's lossless pixels.
    reference : DataFrame, optional
        Default: the package's own.

    Returns
    -------
    usage : ndarray of str, shape (n,)
        ``"test"`` replaced by the usage that the reference has for the image, where it knows it.
    verdict : dict
        ``variant`` (``"fer2013-kaggle-jpeg"``, ``"fer2013-csv-lossless"``, ``"fer2013-modified"`` or ``"unknown"``),
        ``known`` (True for the first two: whole and unaltered), ``description`` (one sentence), ``differences``
        (list of str, empty when known).
    """
    reference = pictures.load_reference(pictures.REFERENCE) if reference is None else reference
    found = pd.DataFrame({"usage": usage, "label": np.asarray(labels).astype(np.int8)})
    found["half"] = found["usage"].map(HALVES)
    found["stated"] = found["usage"].where(found["usage"] != "test", "")
    found["name"] = [name.rsplit(".", 1)[0] for name in names]
    recognise(found, images, reference, jpeg)
    pair(found, reference)
    settled = (found["stated"] == "") & (found["place"].isin(["same", "relabelled"]))
    found.loc[settled, "usage"] = reference["usage"].to_numpy()[found["known"][settled]]
    return found["usage"].to_numpy().astype("U11"), judge(found, images, reference)


def known_labels(images: np.ndarray) -> np.ndarray:
    """Return FER2013's label of the picture that each 48x48 image shows, -1 where it shows none of it."""
    reference = pictures.load_reference(pictures.REFERENCE)
    index, correlation = nearest(products(images), reference[PRODUCTS].to_numpy())
    return np.where(correlation >= SAME_CLASS, reference["label"].to_numpy()[index], -1)
