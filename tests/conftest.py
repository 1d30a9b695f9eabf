"""Fixtures that several test files share."""

import csv
import io
import os
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data.synthetic import make_faces

FER2013_DATA = os.environ.get("FER2013_DATA")

#: The competition's codes, typed from its description and not taken from the package.
EMOTION_CODE = {"angry": 0, "disgust": 1, "fear": 2, "happy": 3, "sad": 4, "surprise": 5, "neutral": 6}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One worker more than cores, since tests wait for processes; eight at most, since each may hold a TensorFlow."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, 8)


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no worker is left alone with one at the end."""
    names = "workflow training claims published notebooks identity benchmark processes fast_layers findings diagrams"
    longest = [f"test_{name}.py" for name in f"{names} report device faults".split()]
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Path of the real FER2013; skips the test where there is none."""
    if not FER2013_DATA:
        pytest.skip("FER2013_DATA is not set")
    return Path(FER2013_DATA).resolve()


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory, worker_id) -> Path:
    """Folder in which the real dataset is decoded once, by whichever worker comes first."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "real cache"


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def contrast(first, second):
    """Contrast of two ``#rrggbb`` colours (WCAG 2.2)."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@dataclass
class SmallSet:
    """A few drawn faces as JPEG files, named and laid out as in Kaggle's zip."""

    files: dict[str, bytes]  # "train/angry/Training_7.jpg": JPEG bytes
    images: np.ndarray  # what Pillow makes of them, in the order of `files`
    labels: np.ndarray
    usage: np.ndarray

    def write_zip(self, path, top="", changed=None, compression=zipfile.ZIP_STORED):
        """Write Kaggle's zip. `changed` adds or replaces files, or leaves out those that it maps to None."""
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in (self.files | (changed or {})).items():
                if content is not None:
                    archive.writestr(top + name, content)
        return path

    def write_folder(self, path, changed=None):
        for name, content in (self.files | (changed or {})).items():
            if content is not None:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(content)
        return path

    def csv_text(self, layout="fer2013"):
        """Return the competition's CSV of the decoded images: ``fer2013.csv`` or ``icml_face_data.csv``."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["emotion", "pixels", "Usage"] if layout == "fer2013" else ["emotion", " Usage", " pixels"])
        for image, label, usage in zip(self.images, self.labels, self.usage, strict=True):
            code, pixels = EMOTION_CODE[CLASSES[label]], " ".join(str(v) for v in image.ravel())
            writer.writerow([code, pixels, usage] if layout == "fer2013" else [code, usage, pixels])
        return out.getvalue()

    def write_csv(self, path, layout="fer2013"):
        path.write_text(self.csv_text(layout), encoding="utf-8")
        return path


def encode(image, form="JPEG", **options) -> bytes:
    """Encode an array or a Pillow image as a file's bytes."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def small_set() -> SmallSet:
    """56 faces: 4 of each class in Training, 2 in PublicTest and 2 in PrivateTest. Do not change it."""
    counts = dict(zip(USAGES, ({name: n for name in CLASSES} for n in (4, 2, 2)), strict=True))
    drawn, labels, usage = make_faces(counts, seed=1)
    half = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}
    files = {
        f"{half[part]}/{CLASSES[label]}/{part}_{97 * i}.jpg": encode(image, quality=95)
        for i, (image, label, part) in enumerate(zip(drawn, labels, usage, strict=True))
    }
    images = np.stack([np.asarray(Image.open(io.BytesIO(content))) for content in files.values()])
    return SmallSet(files, images, np.asarray(labels), np.asarray(usage))
