"""A copy of FER2013 held against the reference, image by image.

Each image of the copy is paired with at most one image of the reference, first by its pixels, then by its
name, last by its statistics. What is left on either side is extra or missing.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import KDTree

from fer_utils.data.pixels import pixel_hash, statistics
from fer_utils.data.reference import split_ids

#: Quality of OpenCV's default JPEG, with which Kaggle's files were made from the competition's pixels.
JPEG_QUALITY = 95

#: So many images of a usage are tried before all of them are encoded: one in five lossless ones would be
#: noticed.
SAMPLE = 60

#: How far two images may lie apart and still count as one image decoded twice: 0.75 grey levels of mean and
#: standard deviation, 1.25 of left-right balance (the reference rounds it to whole levels), 3% of sharpness
#: and 24 besides. One grey level of noise on every pixel stays within; JPEG at quality 90, a resize and a
#: blur do not.
MEAN_TOLERANCE, BALANCE_TOLERANCE, SHARPNESS_TOLERANCE, SHARPNESS_OFFSET = 0.75, 1.25, 0.03, 800.0

#: Recovered images of the reference are known less exactly: so many times the distance is allowed.
RECOVERED_FACTOR = 3.0

#: An extra image is taken for a known one, encoded anew, only this near to it, and only if this share of the
#: extra images are: among 36,000 some lie that near by chance (0.6% of copies rotated by 10 degrees did).
EXTRA_RADIUS, EXTRA_SHARE = 0.5, 0.05

#: A class of a copy without names is taken to hold the reference's images, altered, when it has this share of
#: them.
UNNAMED_SHARE = 0.5


@dataclass(frozen=True)
class Comparison:
    """What became of each image.

    Attributes
    ----------
    found : DataFrame
        One row an image of the copy, in the copy's order: ``id``, ``usage``, ``label``, ``name``,
        ``pixel_hash``, the statistics of :func:`fer_utils.data.pixels.statistics`, and

        - ``known`` (int): row of the reference, or -1.
        - ``pixels``: ``"same"``, ``"lossless"`` (the same once encoded as JPEG), ``"mirrored"`` (the same
          once mirrored), ``"close"`` (within about a grey level, by statistics), ``"altered"``, ``"other"``.
        - ``place``: ``"same"``, ``"relabelled"``, ``"moved"`` (another usage), ``"moved and relabelled"``, or
          ``"extra"``.
        - ``copy_of`` (int): for an extra image, the row of the reference that it repeats, or -1.
    missing : DataFrame
        Rows of the reference that no image of the copy was paired with.
    """

    found: pd.DataFrame
    missing: pd.DataFrame


def to_jpeg(images: np.ndarray) -> np.ndarray:
    """Return images as they come back from a JPEG of quality 95.

    Pillow's encoder gives OpenCV's pixels exactly (both use libjpeg), so this turns the competition's pixels
    into those of Kaggle's files.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)
    """
    decoded = np.empty_like(images)
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
        with Image.open(buffer) as file:
            decoded[i] = np.asarray(file)
    return decoded


def mirror(images: np.ndarray) -> np.ndarray:
    """Return images with left and right exchanged."""
    return images[:, :, ::-1]


def compare(
    images: np.ndarray,
    labels: np.ndarray,
    usage: np.ndarray,
    ids: np.ndarray,
    reference: pd.DataFrame,
    jpeg: bool = False,
) -> Comparison:
    """Hold a copy against the reference.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, 48, 48)
    labels : ndarray of int, shape (n,)
    usage, ids : ndarray of str, shape (n,)
    reference : DataFrame
        As :func:`fer_utils.data.reference.build` makes it.
    jpeg : bool
        True if the images were decoded from JPEG files, which cannot hold the competition's lossless pixels.

    Returns
    -------
    Comparison
    """
    found = pd.DataFrame(
        {
            "id": np.asarray(ids).astype(str),
            "usage": np.asarray(usage).astype(str),
            "label": np.asarray(labels).astype(np.int8),
            "name": split_ids(ids).astype(str),
            "pixel_hash": pixel_hash(images),
        }
    ).join(statistics(images))
    found = found.assign(known=-1, pixels="other", place="extra", copy_of=-1)
    _recognise(found, images, reference, jpeg)
    for kinds in (("same", "lossless"), ("mirrored",)):
        _pair_by_pixels(found, reference, kinds)
    _pair_by_name(found, reference)
    _pair_by_statistics(found, reference)
    _pair_unnamed(found, reference)
    _trace_extra(found, reference)
    taken = found.loc[found["known"] >= 0, "known"]
    return Comparison(found.drop(columns="key"), reference.drop(index=taken))


def _recognise(found: pd.DataFrame, images: np.ndarray, reference: pd.DataFrame, jpeg: bool) -> None:
    """Set ``key`` to a hash of the reference that the pixels give: as they are, encoded or mirrored."""
    known = set(reference["pixel_hash"])
    found["key"] = found["pixel_hash"]
    found.loc[found["key"].isin(known), "pixels"] = "same"
    _try_view(found, images, known, "mirrored", mirror)
    if not jpeg:
        _try_view(found, images, known, "lossless", to_jpeg)
        _try_view(found, images, known, "mirrored", lambda x: to_jpeg(mirror(x)))


def _try_view(
    found: pd.DataFrame,
    images: np.ndarray,
    known: set[str],
    kind: str,
    view: Callable[[np.ndarray], np.ndarray],
) -> None:
    for _, group in found[found["pixels"] == "other"].groupby("usage"):
        rows = group.index.to_numpy()
        sample = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows)), dtype=int)]
        if not np.isin(pixel_hash(view(images[sample])), list(known)).any():
            continue
        hashes = pixel_hash(view(images[rows]))
        hit = np.isin(hashes, list(known))
        found.loc[rows[hit], "key"] = hashes[hit]
        found.loc[rows[hit], "pixels"] = kind


def _free(found: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    return reference.drop(index=found.loc[found["known"] >= 0, "known"])


def _find_pairs(found: pd.DataFrame, rows: pd.Series, reference: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """Pair the chosen rows with free rows of the reference that agree in `on`, equal ones in their order."""
    left = found.loc[rows & (found["known"] < 0), ["usage", "label", "name", "key"]]
    right = _free(found, reference).rename(columns={"pixel_hash": "key"})
    left = left.assign(nth=left.groupby(on).cumcount(), row=left.index)
    right = right.assign(nth=right.groupby(on).cumcount(), known=right.index)
    return left.merge(right[[*on, "nth", "known"]], on=[*on, "nth"])


def _pair(found: pd.DataFrame, rows: pd.Series, reference: pd.DataFrame, on: list[str], place: str) -> None:
    pairs = _find_pairs(found, rows, reference, on)
    found.loc[pairs["row"], "known"] = pairs["known"].to_numpy()
    found.loc[pairs["row"], "place"] = place


def _pair_by_pixels(found: pd.DataFrame, reference: pd.DataFrame, kinds: tuple[str, ...]) -> None:
    rows = found["pixels"].isin(kinds)
    # The name first, so that of identical images the right one is called missing or moved.
    for on, place in (
        (["usage", "label", "name", "key"], "same"),
        (["usage", "label", "key"], "same"),
        (["usage", "name", "key"], "relabelled"),
        (["label", "name", "key"], "moved"),
        (["name", "key"], "moved and relabelled"),
    ):
        _pair(found, rows, reference, on, place)
    # Without names, of images that occur under several usages or labels, what explains more comes first.
    ways = [(["usage", "key"], "relabelled"), (["label", "key"], "moved")]
    ways.sort(key=lambda way: len(_find_pairs(found, rows, reference, way[0])), reverse=True)
    for on, place in (*ways, (["key"], "moved and relabelled")):
        _pair(found, rows, reference, on, place)


def _pair_by_name(found: pd.DataFrame, reference: pd.DataFrame) -> None:
    """Pair images whose pixels are not the reference's but whose names are."""
    rows = found["pixels"] == "other"
    for on, place in (
        (["usage", "label", "name"], "same"),
        (["usage", "name"], "relabelled"),
        (["label", "name"], "moved"),
        (["name"], "moved and relabelled"),
    ):
        _pair(found, rows, reference, on, place)
    rows &= found["known"] >= 0
    pairs = reference.loc[found.loc[rows, "known"]]
    distance = np.abs(signature(found[rows]) - signature(pairs)).max(axis=1)
    close = distance <= np.where(pairs["recovered"], RECOVERED_FACTOR, 1.0)
    found.loc[rows, "pixels"] = np.where(close, "close", "altered")


def signature(table: pd.DataFrame) -> np.ndarray:
    """Return the statistics in units of their tolerance, shape (n, 4), float64.

    Two images that differ by at most 1 in each column are the same but for about a grey level.
    """
    return np.column_stack(
        [
            table["mean"] / MEAN_TOLERANCE,
            table["std"] / MEAN_TOLERANCE,
            table["left_right"] / BALANCE_TOLERANCE,
            np.log(table["sharpness"] + SHARPNESS_OFFSET) / SHARPNESS_TOLERANCE,
        ]
    ).astype(np.float64)


def _pair_by_statistics(found: pd.DataFrame, reference: pd.DataFrame) -> None:
    """Pair images without a known name with free ones of their usage and label within about a grey level."""
    free = _free(found, reference)
    loose = found[found["known"] < 0]
    groups = loose.groupby(["usage", "label"])
    for radius, candidates in ((1.0, free), (RECOVERED_FACTOR, free[free["recovered"]])):
        for key, known in candidates.groupby(["usage", "label"]):
            if key not in groups.groups:
                continue
            rows = groups.get_group(key)
            rows = rows[found.loc[rows.index, "known"] < 0]
            known = known[~known.index.isin(found["known"])]
            if rows.empty or known.empty:
                continue
            near = KDTree(signature(rows)).query_ball_tree(KDTree(signature(known)), radius, p=np.inf)
            lengths = [len(columns) for columns in near]
            indices = np.concatenate([np.asarray(columns, dtype=np.int32) for columns in near])
            graph = csr_array(
                (np.ones(len(indices), dtype=np.int8), indices, np.cumsum([0, *lengths])),
                shape=(len(rows), len(known)),
            )
            match = maximum_bipartite_matching(graph, perm_type="column")
            hit = rows.index[match >= 0]
            found.loc[hit, "known"] = known.index[match[match >= 0]]
            found.loc[hit, "pixels"] = "close"
            found.loc[hit, "place"] = "same"


def _pair_unnamed(found: pd.DataFrame, reference: pd.DataFrame) -> None:
    """Pair altered images without names, as in a CSV, with the reference's by order of brightness.

    Such a pair need not be one image: it serves to compare the statistics of many.
    """
    free = _free(found, reference)
    loose = found[(found["known"] < 0) & (found["pixels"] == "other")]
    sizes = reference.groupby(["usage", "label"]).size()
    for key, rows in loose.groupby(["usage", "label"]):
        known = free[(free["usage"] == key[0]) & (free["label"] == key[1])]
        n = min(len(rows), len(known))
        if n == 0 or n < UNNAMED_SHARE * sizes[key]:
            continue
        index = rows.sort_values("mean").index[:n]
        found.loc[index, "known"] = known.sort_values("mean").index[:n]
        found.loc[index, ["pixels", "place"]] = ["altered", "same"]


def _trace_extra(found: pd.DataFrame, reference: pd.DataFrame) -> None:
    """Find the image of the reference that an extra one repeats: by its pixels, else by its statistics."""
    extra = found[found["place"] == "extra"]
    if extra.empty:
        return
    first = reference.drop_duplicates("pixel_hash").reset_index().set_index("pixel_hash")["index"]
    traced = extra["key"].map(first).fillna(-1).astype(int)
    found.loc[extra.index, "copy_of"] = traced
    rest = extra[traced < 0]
    if rest.empty:
        return
    tree = KDTree(signature(reference))
    distance, nearest = tree.query(signature(rest), p=np.inf)
    flipped_distance, flipped_nearest = tree.query(signature(rest.assign(left_right=-rest["left_right"])), p=np.inf)
    flipped = flipped_distance < distance
    hit = np.minimum(distance, flipped_distance) <= EXTRA_RADIUS
    if hit.mean() < EXTRA_SHARE:
        return
    found.loc[rest.index[hit], "copy_of"] = reference.index[np.where(flipped, flipped_nearest, nearest)[hit]]
    found.loc[rest.index[hit], "pixels"] = np.where(flipped, "mirrored", "close")[hit]
