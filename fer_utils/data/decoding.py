"""Image files to pixels with one named decoder, Pillow: JPEG decoders differ by a grey level here and there."""

import io
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from fer_utils.constants import IMAGE_SIZE
from fer_utils.errors import DataError

IMAGE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP"}


# A colour image is decoded only to see whether its channels are equal; larger ones are not worth the time.
_LARGEST_CHECKED = 512 * 512


UNREADABLE = (
    OSError,
    SyntaxError,  # Pillow raises it for broken PNG chunks
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,  # a compression that zipfile does not know
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)


class Flaw(NamedTuple):
    """Why an image cannot be used: it is unreadable, or of another size or mode."""

    path: str
    reason: str | None = None
    size: tuple[int, int] | None = None
    mode: str | None = None
    equal_channels: bool = False


def decoder() -> str:
    """Name the one decoder that this package uses, e.g. ``"Pillow 12.0.0 (libjpeg-turbo 3.1)"``."""
    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"Pillow {PIL.__version__} ({library})"


def decode_all(paths: list[str], read_bytes: Callable[[str], bytes], where: str) -> tuple[np.ndarray, list[str]]:
    """Decode every image, in threads (Pillow lets go of Python's lock while it decodes)."""
    images = np.empty((len(paths), IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)

    def decode_range(start: int) -> tuple[list[str], list[Flaw]]:
        formats, flaws = [], []
        for i in range(start, min(start + 512, len(paths))):
            result = _decode(paths[i], read_bytes)
            if isinstance(result, Flaw):
                flaws.append(result)
            else:
                images[i], kind = result
                formats.append(kind)
        return formats, flaws

    with ThreadPoolExecutor(_cores()) as pool:
        results = list(pool.map(decode_range, range(0, len(paths), 512)))
    flaws = [flaw for _, part in results for flaw in part]
    if flaws:
        raise DataError(f"{where}: {_describe(flaws, len(paths))}")
    return images, [kind for part, _ in results for kind in part]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decode(path: str, read_bytes: Callable[[str], bytes]) -> tuple[np.ndarray, str] | Flaw:
    try:
        with Image.open(io.BytesIO(read_bytes(path)), formats=tuple(set(IMAGE_FORMATS.values()))) as image:
            if image.size == (IMAGE_SIZE, IMAGE_SIZE) and image.mode == "L":
                return np.asarray(image), image.format
            equal = False
            if image.mode in ("RGB", "RGBA") and image.width * image.height <= _LARGEST_CHECKED:
                pixels = np.asarray(image)[..., :3]
                equal = bool((pixels == pixels[..., :1]).all())
            return Flaw(path, size=image.size, mode=image.mode, equal_channels=equal)
    except UnidentifiedImageError:
        return Flaw(path, reason="not a JPEG, PNG or BMP image")
    except UNREADABLE as error:
        return Flaw(path, reason=str(error) or type(error).__name__)


def _describe(flaws: list[Flaw], n: int) -> str:
    """Say in one sentence what is wrong with the images of a copy, the gravest first."""
    unreadable = [f for f in flaws if f.reason]
    if unreadable:
        first = unreadable[0]
        return f"{len(unreadable)} of {n} images cannot be read; {first.path}: {first.reason}; replace the copy"
    sizes = Counter("{}x{}".format(*f.size) for f in flaws if f.size != (IMAGE_SIZE, IMAGE_SIZE))
    modes = Counter(f.mode for f in flaws if f.mode != "L")
    found = [_tally(kinds, n) for kinds in (sizes, modes) if kinds]
    if modes and all(f.equal_channels for f in flaws if f.mode != "L"):
        found.append("with equal channels (grey stored as colour)")
    kind = " and ".join(["resized"] * (sizes.total() == n) + ["colour"] * (modes.total() == n))
    verdict = f"a {kind} copy of FER2013" if kind else f"the first is {flaws[0].path}"
    return (
        f"{', '.join(found)}: {verdict}; FER2013's images are {IMAGE_SIZE}x{IMAGE_SIZE} 8-bit greyscale (L); "
        "use the original, since what a conversion did to the pixels cannot be undone"
    )


def _tally(kinds: Counter, n: int) -> str:
    """Return e.g. ``"every image is 75x75"`` or ``"3 of 40 images are 75x75 (2), 96x96 (1)"``."""
    listed = ", ".join(f"{kind} ({k})" for kind, k in kinds.most_common(5)) if len(kinds) > 1 else next(iter(kinds))
    return f"every image is {listed}" if kinds.total() == n else f"{kinds.total()} of {n} images are {listed}"
