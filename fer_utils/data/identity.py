"""Which picture of FER2013 each image shows, wherever it stands and whatever was done to it.

The reference (``fer2013_reference.parquet``, made by :mod:`fer_utils.data.reference`) holds for each image a hash of
the pixels, mean, standard deviation, sharpness and its products with 16 fixed random patterns. A difference of two
images changes those products by about its RMS, wherever in the image it lies, and no image can be rebuilt from
16 numbers (Johnson and Lindenstrauss, 1984).
"""

import hashlib
import io
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_utils.constants import IMAGE_SIZE
from fer_utils.errors import DataError

REFERENCE = Path(__file__).with_name("fer2013_reference.parquet")

#: Steps in which the reference stores means and standard deviations, and products with the patterns.
STATISTIC_STEP, PRODUCT_STEP = 0.5, 2.0
HASH_DIGITS = 10  # hexadecimal digits of a hash that the reference stores
JPEG_QUALITY = 95  # OpenCV's default, with which Kaggle's files were made from the competition's pixels

_SIZE = IMAGE_SIZE**2
_BITS = np.frombuffer(hashlib.shake_256(b"fer2013").digest(16 * _SIZE // 8), np.uint8)
_SIGNS = np.unpackbits(_BITS).reshape(16, _SIZE).astype(np.float32) * 2 - 1
#: 16 patterns of sum 0 (so that brightness does not count) and length 1.
PATTERNS = (_SIGNS - _SIGNS.mean(axis=1, keepdims=True)) / IMAGE_SIZE
PRODUCTS = [f"product{i}" for i in range(len(PATTERNS))]

#: What turns a copy's images back, by what had been done to them.
ORIENTATIONS = {
    "": lambda x: x,
    "mirrored": lambda x: x[:, :, ::-1],
    "upside down": lambda x: x[:, ::-1],
    "rotated by 180 degrees": lambda x: x[:, ::-1, ::-1],
    "rotated by 90 degrees clockwise": lambda x: np.rot90(x, 1, (1, 2)),
    "rotated by 90 degrees counter-clockwise": lambda x: np.rot90(x, 3, (1, 2)),
    "transposed": lambda x: x.transpose(0, 2, 1),
    "transposed along the other diagonal": lambda x: x[:, ::-1, ::-1].transpose(0, 2, 1),
}

#: Correlation of two images' products from which on they show one picture: with any of the reference, with the one of
#: the same name, and with that of the same name in an orientation that is common in the copy.
ALIKE, SAME_NAME, TRUSTED = 0.98, 0.85, 0.3
FLAT = 3.0  # a standard deviation below this leaves nothing to correlate
SAMPLE = 300

#: Images that differ by no more than this RMS (in grey levels, pooled over a half) are called near: JPEG decoders
#: differ less, and so does a second encoding at quality 95, but not one at quality 90. Single images are known to
#: about a fifth, so among many a larger estimate passes.
NEAR, NEAR_SINGLE, NEAR_MEAN = 1.25, 2.5, 0.6
#: The reference knows some images only approximately; for these the allowed difference is this many times larger.
RECOVERED_FACTOR = 3.0

#: The fast DCT of other decoders changes an image by at most this RMS; undoing it works for this share, and more.
FAST, MOST_UNDONE = 4.0, 0.95

HALVES = {"Training": "train", "PublicTest": "test", "PrivateTest": "test", "test": "test"}


# --- numbers that describe an image -------------------------------------------------------------------------------


def pixel_hash(images: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each image's pixels, as 16 hexadecimal digits: BLAKE2b over the rows.

    Among 36,000 different images the chance that any two share a hash is below 1 in 10 billion.
    """
    digests = [hashlib.blake2b(np.ascontiguousarray(image), digest_size=8).hexdigest() for image in images]
    return np.array(digests, dtype="U16")


def statistics(images: np.ndarray) -> pd.DataFrame:
    """Return ``mean`` and ``std`` of each image in grey levels, and ``sharpness``.

    That is the variance of the 4-neighbour Laplacian on the inner pixels: 0 for a flat image, about 2,000 for a sharp
    face of 48x48 pixels (Pech-Pacheco et al., 2000, Diatom autofocusing in brightfield microscopy).
    """

    def of_chunk(x):
        inner = x[:, 1:-1, 1:-1]
        laplacian = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:] - 4 * inner
        return np.column_stack([x.mean(axis=(1, 2)), x.std(axis=(1, 2)), laplacian.var(axis=(1, 2))])

    return pd.DataFrame(_in_chunks(of_chunk, images), columns=["mean", "std", "sharpness"])


def products(images: np.ndarray, patterns: np.ndarray = PATTERNS) -> np.ndarray:
    """Return the products of 48x48 images with patterns: ndarray of float32, shape (n, number of patterns)."""
    return _in_chunks(lambda x: x.reshape(-1, _SIZE) @ patterns.T, images)


def _in_chunks(function, images, size=2048):
    """Apply a function to images as float32, some at a time, since all of them take 330 MB."""
    chunks = [function(np.asarray(images[i : i + size], np.float32)) for i in range(0, max(len(images), 1), size)]
    return np.concatenate(chunks).astype(np.float32)


def products_turned(images: np.ndarray) -> np.ndarray:
    """Return the products of images turned back by each of ``ORIENTATIONS``: float32, shape (n, 8, 16).

    The patterns are turned instead of the images.
    """
    turned = np.empty((len(ORIENTATIONS), *PATTERNS.shape), np.float32)
    for patterns, turn in zip(turned, ORIENTATIONS.values(), strict=True):
        patterns[:, turn(np.arange(_SIZE).reshape(1, IMAGE_SIZE, IMAGE_SIZE)).ravel()] = PATTERNS
    return products(images, turned.reshape(-1, _SIZE)).reshape(-1, *turned.shape[:2])


def to_jpeg(images: np.ndarray, quality: int = JPEG_QUALITY) -> np.ndarray:
    """Return images as they come back from a JPEG.

    At quality 95 this turns the competition's pixels into those of Kaggle's files, since Pillow's encoder and
    OpenCV's both are libjpeg.
    """
    decoded = np.empty_like(images)
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as file:
            decoded[i] = np.asarray(file)
    return decoded


def undo_fast_dct(images: np.ndarray) -> np.ndarray:
    """Turn images that a decoder's fast DCT gave into those of the accurate one, but for half a grey level: float.

    The fast DCT of libjpeg, which TensorFlow takes by default, rounds each quantisation step times its scale factor to
    a quarter, so that coefficients come out up to 8% too large or too small (``start_pass`` in its ``jddctmgr.c``).
    """
    buffer, k = io.BytesIO(), np.arange(8)
    Image.new("L", (8, 8)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    step = np.reshape(Image.open(buffer).quantization[0], (8, 8))
    scale = np.where(k == 0, 1, np.sqrt(2) * np.cos(k * np.pi / 16))
    exact = 4 * step * np.outer(scale, scale)
    dct = np.sqrt(np.where(k == 0, 1, 2)[:, None] / 8) * np.cos((2 * k + 1) * k[:, None] * np.pi / 16)
    wrong = np.floor(exact + 0.5) / exact
    given = blocks = np.reshape(images, (-1, 6, 8, 6, 8)).swapaxes(2, 3) - 127.5  # it rounds down
    for _ in range(2):
        coefficients = np.rint(dct @ blocks @ dct.T / wrong / step) * step
        # What lay beyond black and white was cut off.
        shown = dct.T @ (coefficients * wrong) @ dct
        blocks = np.where(given < -127, np.minimum(shown, given), given)
        blocks = np.where(given > 127, np.maximum(shown, given), blocks)
    pixels = dct.T @ coefficients @ dct + 128
    return np.clip(pixels.swapaxes(2, 3).reshape(-1, IMAGE_SIZE, IMAGE_SIZE), 0, 255)


@cache
def load_reference(path: Path) -> pd.DataFrame:
    """Return the reference; its columns are those of :func:`fer_utils.data.reference.build`, as numbers."""
    try:
        table = pd.read_parquet(path)
        table["pixel_hash"] = [digest.hex() for digest in table["pixel_hash"]]
        table["name"] = table["usage"].astype(str) + "_" + table.pop("number").astype(str)
        for columns, step in ((["mean", "std"], STATISTIC_STEP), (PRODUCTS, PRODUCT_STEP)):
            table[columns] = table[columns].astype(np.float32) * step
        table["sharpness"] = (table["sharpness"].astype(np.float32) * STATISTIC_STEP) ** 2
        table["picture"] = first_rows(table).reindex(table["pixel_hash"]).to_numpy()
        return table.astype({"usage": str})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path.name}: cannot be read as the reference of the known FER2013 ({error}); install the package "
            "anew, or make the file with `python -m fer_utils.data.reference ZIP RECOVERED`"
        ) from error


def first_rows(reference: pd.DataFrame) -> pd.Series:
    """Map each hash of the reference to the first row that has it, which stands for all identical images."""
    return pd.Series(reference.index, reference["pixel_hash"])[lambda rows: ~rows.index.duplicated()]


def rms(rows: np.ndarray, means: np.ndarray, known: pd.DataFrame) -> np.ndarray:
    """Estimate the RMS difference, in grey levels, between images and their rows of the reference.

    From 16 products each (and the means), so known to about a fifth: ndarray of float, shape (n,).
    """
    rounding = PRODUCT_STEP**2 / 12
    pattern = ((rows - known[PRODUCTS].to_numpy()) ** 2).mean(axis=1) - rounding
    shift = np.maximum(np.abs(means - known["mean"].to_numpy()) - STATISTIC_STEP / 2, 0)
    return np.sqrt(np.maximum(pattern, 0) + shift**2)


def _normalised(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)


def _nearest(rows, known):
    """Return for each row of products the most similar known one, and how they correlate: negative if inverted."""
    rows, known = _normalised(rows), _normalised(known).T
    index, correlation = np.zeros(len(rows), int), np.zeros(len(rows), np.float32)
    for i in range(0, len(rows), 256):
        scores = rows[i : i + 256] @ known
        index[i : i + 256] = best = np.abs(scores).argmax(axis=1)
        correlation[i : i + 256] = scores[np.arange(len(best)), best]
    return index, correlation


# --- the images of a copy -----------------------------------------------------------------------------------------


def known_labels(images: np.ndarray) -> np.ndarray:
    """Return FER2013's label of the picture that each 48x48 image shows, -1 where it shows none of it."""
    reference = load_reference(REFERENCE)
    index, correlation = _nearest(products(images), reference[PRODUCTS].to_numpy())
    return np.where(correlation >= ALIKE, reference["label"].to_numpy()[index], -1)


def recognise(found: pd.DataFrame, images: np.ndarray, reference: pd.DataFrame, jpeg: bool) -> None:
    """Add to a table of images (``half``, ``label``, ``name``) which picture of the reference each shows.

    The columns: ``picture`` (row of the reference, the first of identical ones, or -1), ``kind`` (``"same"``;
    ``"lossless"``: the same once encoded as JPEG; ``"near"``, ``"altered"``; ``"named"``: only the name is known;
    ``"other"``), ``orientation`` (a key of ``ORIENTATIONS``), ``inverted``, ``rms`` (once turned back), ``left`` (of
    it, once the fast DCT of another decoder is undone), ``hash`` and the statistics.
    """
    found[["mean", "std", "sharpness"]] = statistics(images)
    found["hash"] = pixel_hash(images)
    first = first_rows(reference)

    def look_up(hashes):
        return first.reindex([text[:HASH_DIGITS] for text in hashes]).fillna(-1).astype(int).to_numpy()

    found["picture"] = look_up(found["hash"])
    found["kind"] = np.where(found["picture"] >= 0, "same", "other")
    found[["orientation", "inverted", "rms", "left"]] = "", False, 0.0, 0.0
    rest = np.flatnonzero(found["picture"] < 0)
    # Encoding all takes seconds; if one image in five were lossless, 60 would hold one.
    sample = rest[np.linspace(0, len(rest) - 1, min(60, len(rest)), dtype=int)]
    if not jpeg and (look_up(pixel_hash(to_jpeg(images[sample]))) >= 0).any():
        encoded = look_up(pixel_hash(to_jpeg(images[rest])))
        found.loc[rest[encoded >= 0], "picture"] = encoded[encoded >= 0]
        found.loc[rest[encoded >= 0], "kind"] = "lossless"
        rest = rest[encoded < 0]
    if len(rest):
        _match(found, rest, products_turned(images[rest]), _rows_by_name(found.iloc[rest], reference), reference)
        found["left"] = found["rms"]
        if not jpeg:
            _undo_decoder(found, images, reference)
        _call_near(found, reference)


def _rows_by_name(found, reference):
    """Return for each image the row of the reference of its class and name, else of its name, else -1."""
    rows = np.full(len(found), -1)
    for keys in (lambda t: t["name"], lambda t: t["label"].astype(str) + t["name"]):
        known = pd.Series(reference.index, keys(reference))
        hit = known[~known.index.duplicated()].reindex(keys(found)).fillna(-1).astype(int).to_numpy()
        rows = np.where(hit >= 0, hit, rows)
    return rows


def _match(found, rows, ours, named, reference):
    """Match images (`rows`, with their products `ours`) by name, the others with the picture most like them."""
    known = reference[PRODUCTS].to_numpy()
    std, label = found["std"].to_numpy()[rows], found["label"].to_numpy()[rows]
    picture, turn, sign = np.full(len(rows), -1), np.zeros(len(rows), int), np.ones(len(rows))
    some = np.flatnonzero(named >= 0)
    if len(some):
        flat = (std[some] < FLAT) & (reference["std"].to_numpy()[named[some]] < FLAT)
        hit, turn[some], sign[some] = _match_names(ours[some], known[named[some]], flat)
        picture[some[hit]] = named[some[hit]]
    known_labels = reference["label"].to_numpy()
    for orientation in range(len(ORIENTATIONS)):
        rest = np.flatnonzero((picture < 0) & (std >= FLAT))
        hit, index, correlation = _match_nearest(ours[rest, orientation], label[rest], known, known_labels)
        picture[rest[hit]], turn[rest[hit]], sign[rest[hit]] = index, orientation, np.sign(correlation)

    hit, only_named = picture >= 0, (picture < 0) & (named >= 0)
    known, mean = reference.iloc[picture[hit]], found["mean"].to_numpy()[rows[hit]]
    change = sign[hit, None] * ours[hit, turn[hit]]
    altered = {
        "kind": "altered",
        "picture": known["picture"].to_numpy(),
        "orientation": np.array(list(ORIENTATIONS))[turn[hit]],
        "inverted": sign[hit] < 0,
        "rms": rms(change, np.where(sign[hit] < 0, 255 - mean, mean), known),
    }
    for name, values in altered.items():
        found.loc[rows[hit], name] = values
    found.loc[rows[only_named], "kind"] = "named"
    found.loc[rows[only_named], "picture"] = reference["picture"].to_numpy()[named[only_named]]


def _match_names(ours, known, flat):
    """Compare images with the pictures whose names they carry: which show them, how turned, and -1 for inverted."""
    correlation = (_normalised(ours) * _normalised(known)[:, None]).sum(axis=2)
    fit, at = np.abs(correlation), np.arange(len(ours))
    fits = (fit == fit.max(axis=1, keepdims=True)) & (fit >= SAME_NAME)
    share = fits.mean(axis=0) if len(ours) >= 20 else np.zeros(len(ORIENTATIONS))
    # Many faces are almost symmetric: an orientation that is not common must fit far better.
    limit = np.where(share >= 0.4, 0, np.where(share >= 0.05, TRUSTED, [SAME_NAME] + [ALIKE] * 7))
    misfit = np.where(fit >= limit, (1 - fit) * np.where(share >= 0.05, 1, 5), np.inf)
    best = misfit.argmin(axis=1)
    hit = (misfit[at, best] < np.inf) & ~flat
    # Near-constant images correlate with nothing; they, and the sign of what hardly correlates, are taken for what
    # most others are.
    if hit.any():
        best[flat] = np.bincount(best[hit]).argmax()
    sign = np.sign(correlation[at, best])
    sign[flat | (fit[at, best] < SAME_NAME)] = 1 if not hit.any() or np.median(sign[hit]) >= 0 else -1
    return hit | flat, best, sign


def _match_nearest(ours, labels, known, known_labels):
    """Find which images show a picture of the reference, which one, and how they correlate with it."""
    some = slice(None, None, len(ours) // SAMPLE + 1)
    index, correlation = _nearest(ours[some], known)
    # Labels agree by chance for one image in five.
    agree = len(index) >= 20 and (known_labels[index] == labels[some]).mean() >= 0.8
    if len(index) < len(ours):
        if not agree and (np.abs(correlation) >= ALIKE).mean() < 0.05:  # all against all would take seconds
            return np.zeros(len(ours), bool), index[:0], correlation[:0]
        index, correlation = _nearest(ours, known)
    hit = np.abs(correlation) >= (0.8 if agree else ALIKE)
    return hit, index[hit], correlation[hit]


def _undo_decoder(found, images, reference):
    """Set ``left`` where undoing the fast DCT of a decoder brings images nearer to the known ones."""

    def numbers(x):
        pixels = undo_fast_dct(x)
        return np.column_stack([products(pixels), pixels.mean(axis=(1, 2))])

    altered = found[(found["kind"] == "altered") & (found["orientation"] == "") & ~found["inverted"]]
    # All take seconds.
    for some in (altered.iloc[:: len(altered) // 60 + 1], altered):
        rows = _in_chunks(numbers, images[some.index])
        left = rms(rows[:, :-1], rows[:, -1], reference.loc[some["picture"]])
        if not len(some) or (left <= 0.6 * some["rms"]).mean() < 0.5:
            return
    found.loc[altered.index, "left"] = np.minimum(left, altered["rms"])


def _call_near(found, reference):
    """Call images near that differ as little as two decoders do, all that were treated alike together."""
    altered = found[found["kind"] == "altered"]
    known = reference.loc[altered["picture"]].set_axis(altered.index)
    factor = np.where(known["recovered"], RECOVERED_FACTOR, 1.0)
    steady = ((altered["mean"] - known["mean"]).abs() <= NEAR_MEAN * factor) | altered["inverted"]
    steady |= altered["left"] < altered["rms"]
    alike = [altered[name] for name in ("half", "orientation", "inverted")]
    # Undoing fails where much was black or white: where it explains nearly all, the decoder is believed for the rest.
    undone = (altered["left"] <= 0.6 * altered["rms"]).groupby(alike).transform("mean") >= MOST_UNDONE
    difference = altered["left"].where(~undone | (altered["rms"] > FAST), 0) / factor
    single = altered[(steady | undone) & (difference <= NEAR_SINGLE)].assign(difference=difference)
    pooled = (single["difference"] ** 2).groupby([column[single.index] for column in alike]).transform("mean")
    found.loc[single.index[pooled**0.5 <= NEAR], "kind"] = "near"


#: How images are paired with places of the reference, in this order: the columns that agree, and what is said then.
WAYS = (
    (["part", "label", "name", "picture"], "same"),
    (["part", "label", "picture"], "same"),
    (["part", "name", "picture"], "relabelled"),
    (["label", "name", "picture"], "moved"),
    (["name", "picture"], "moved and relabelled"),
    (["part", "picture"], "relabelled"),
    (["label", "picture"], "moved"),
    (["picture"], "moved and relabelled"),
)


def pair(found: pd.DataFrame, reference: pd.DataFrame) -> None:
    """Pair each image with at most one of the reference, by picture first and by name among identical ones.

    Adds ``known`` (row of the reference, or -1) and ``place``: ``"same"``, ``"relabelled"``, ``"moved"`` (another
    half, or another usage where the copy states one), ``"moved and relabelled"``, or ``"extra"``.
    """
    found["known"], found["place"] = -1, "extra"
    halves = (found["usage"] == "test").any()  # which of the two tests, the copy does not tell
    ours = found.assign(part=found["half"] if halves else found["usage"], index=found.index)
    theirs = reference[["label", "name", "picture"]].assign(known=reference.index)
    theirs["part"] = reference["usage"].map(HALVES) if halves else reference["usage"]
    for columns, place in WAYS:
        free = [
            t.assign(nth=t.groupby(columns).cumcount())[[*columns, "nth", key]]
            for t, key in (
                (ours[found["known"] < 0], "index"),
                (theirs[~theirs["known"].isin(found["known"])], "known"),
            )
        ]
        pairs = free[0].merge(free[1], on=[*columns, "nth"])
        found.loc[pairs["index"], "known"], found.loc[pairs["index"], "place"] = pairs["known"].to_numpy(), place
