import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from conftest import encode
from PIL import Image

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import decoding, identity, readers, reference
from fer_utils.errors import DataError

ANGRY = "train/angry/Training_0.jpg"  # the small set's first file
COMPETITION = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # the meaning of 0 to 6


def content(images, labels, usage):
    """What a copy holds, whatever its order."""
    return sorted(
        (part == "Training", int(label), hashlib.md5(image.tobytes()).hexdigest())
        for image, label, part in zip(images, labels, usage, strict=True)
    )


def is_small_set(reading, small_set):
    return content(reading.images, reading.labels, reading.usage) == content(
        small_set.images, small_set.labels, small_set.usage
    )


@pytest.fixture
def planted(small_set, tmp_path, monkeypatch):
    """Let the small set be the known FER2013."""
    names = np.array([name.split("/")[-1] for name in small_set.files])
    table = reference.build(small_set.images, small_set.labels, small_set.usage, names)
    reference.save(table, tmp_path / "planted.parquet")
    monkeypatch.setattr(identity, "REFERENCE", tmp_path / "planted.parquet")


def refused(path, *parts):
    """Read `path`, expect a DataError that names the file and holds all `parts`, and return its message."""
    with pytest.raises(DataError) as caught:
        readers.read(path)
    message = str(caught.value)
    for part in (path.name, *parts):
        assert part in message
    return message


# --- every form ---------------------------------------------------------------------------------------------------


def write_csv_zip(small_set, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", "emotion,pixels\n")
        archive.writestr("icml_face_data.csv", small_set.csv_text("icml"))
    return path


def write_tar(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def csv_tar(small_set, path, mode="w:gz"):
    return write_tar(path, {"fer2013/fer2013.csv": small_set.csv_text().encode()}, mode)


def write_csv_gz(small_set, path):
    path.write_bytes(gzip.compress(small_set.csv_text().encode()))
    return path


FORMS = {
    "zip": lambda s, folder: s.write_zip(folder / "a.zip"),
    "deflated zip": lambda s, folder: s.write_zip(folder / "a.zip", compression=zipfile.ZIP_DEFLATED),
    "zip, one folder down": lambda s, folder: s.write_zip(folder / "a.zip", top="fer2013/"),
    "zip of a repository": lambda s, folder: s.write_zip(folder / "a.zip", top="fer-main/data/images/"),
    "zip without a suffix": lambda s, folder: s.write_zip(folder / "a"),
    "folder": lambda s, folder: s.write_folder(folder / "a"),
    "folder above versions/1": lambda s, folder: s.write_folder(folder / "a" / "versions" / "1").parents[1],
    "tar.gz": lambda s, folder: write_tar(folder / "a.tar.gz", s.files),
    "fer2013.csv": lambda s, folder: s.write_csv(folder / "fer2013.csv"),
    "icml_face_data.csv": lambda s, folder: s.write_csv(folder / "icml_face_data.csv", "icml"),
    "csv in a zip": lambda s, folder: write_csv_zip(s, folder / "a.zip"),
    "csv in a tar.gz": lambda s, folder: csv_tar(s, folder / "fer2013.tar.gz"),
    "csv in a tar": lambda s, folder: csv_tar(s, folder / "fer2013.tar", "w"),
    "csv in a tar named .csv": lambda s, folder: csv_tar(s, folder / "fer2013.csv", "w"),
    "csv in a tar named .tar.gz": lambda s, folder: csv_tar(s, folder / "fer2013.tar.gz", "w"),
    "csv.gz": lambda s, folder: write_csv_gz(s, folder / "fer2013.csv.gz"),
    "csv named .zip": lambda s, folder: s.write_csv(folder / "fer2013.zip"),
    "csv.gz named .zip": lambda s, folder: write_csv_gz(s, folder / "archive.zip"),
    "tar.gz named .zip": lambda s, folder: write_tar(folder / "a.zip", s.files),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images_labels_and_usage(small_set, tmp_path, form):
    reading = readers.read(FORMS[form](small_set, tmp_path))
    assert is_small_set(reading, small_set) and reading.notes == ()
    files, rows = [name.split("/")[-1] for name in small_set.files], [f"row-{i:06d}" for i in range(56)]
    assert sorted(reading.names) == sorted(rows if reading.form == "csv" else files)
    assert reading.images.dtype == np.uint8 and reading.images.shape == (56, 48, 48)
    assert reading.labels.dtype == np.int64
    expected = next(kind for kind in ("csv", "tar", "zip", "folder") if kind in form)
    assert reading.form == expected and reading.jpeg is (expected != "csv")


def test_png_is_read_and_noted(small_set, tmp_path):
    png = {name.replace(".jpg", ".png"): encode(image, "PNG")
           for name, image in zip(small_set.files, small_set.images, strict=True)}  # fmt: skip
    reading = readers.read(small_set.write_zip(tmp_path / "a.zip", changed=dict.fromkeys(small_set.files) | png))
    assert is_small_set(reading, small_set)
    assert not reading.jpeg and reading.notes == ("image files are PNG (56)",)


def renamed(small_set, rename):
    return dict.fromkeys(small_set.files) | {rename(name): data for name, data in small_set.files.items()}


ALIASES = {"angry": "Anger", "disgust": "disgusted", "fear": "FEARFUL", "happy": "Happiness", "sad": "sadness",
           "surprise": "surprised", "neutral": "Neutral"}  # fmt: skip


def alias(name):
    half, label, file = name.split("/")
    return f"{half.title()}/{ALIASES[label]}/{file.replace('.jpg', '.JPG')}"


def test_other_names_of_classes_and_capitals_are_understood(small_set, tmp_path):
    changed = renamed(small_set, alias)
    for path in (small_set.write_zip(tmp_path / "a.zip", changed=changed),
                 small_set.write_folder(tmp_path / "a", changed=changed)):  # fmt: skip
        assert is_small_set(readers.read(path), small_set)


@pytest.mark.parametrize(("order", "said"), [(CLASSES, "alphabetical"), (COMPETITION, "the competition's")])
def test_numbered_classes_mean_what_the_known_images_show(small_set, tmp_path, planted, order, said):
    changed = renamed(small_set, lambda n: n.replace(n.split("/")[1], str(order.index(n.split("/")[1])), 1))
    reading = readers.read(small_set.write_zip(tmp_path / "a.zip", changed=changed))
    assert is_small_set(reading, small_set)
    assert reading.notes == (f"class folders are numbers, whose order is {said}, as the known images show",)


def test_numbered_classes_of_other_images(small_set, tmp_path):
    changed = renamed(small_set, lambda n: n.replace(n.split("/")[1], str(CLASSES.index(n.split("/")[1])), 1))
    path = small_set.write_zip(tmp_path / "a.zip", changed=changed)
    refused(path, "class folders are numbers, and no image tells which", "rename the folders")


@pytest.mark.parametrize(
    ("names", "usages", "note"),
    [
        (("Training", "PublicTest", "PrivateTest"), USAGES,
         "read as: privatetest/ as PrivateTest, publictest/ as PublicTest, training/ as Training"),
        (("train", "val", "test"), USAGES, "read as: test/ as PrivateTest, train/ as Training, val/ as PublicTest"),
        (("train", "validation", "test"), USAGES, "validation/ as PublicTest"),
        (("train", "validation", "validation"), ("Training", "test", "test"), "validation/ as test"),
        (("Train", "eval", "testing"), USAGES, "read as: eval/ as PublicTest, testing/ as PrivateTest"),
        (("training", "Public_Test", "private-test"), USAGES, "privatetest/ as PrivateTest, publictest/ as PublicTest"),
    ],
)  # fmt: skip
def test_other_names_of_parts(small_set, tmp_path, names, usages, note):
    part = dict(zip(USAGES, names, strict=True))
    changed = renamed(small_set, lambda n: f"{part[n.split('/')[2].split('_')[0]]}/{n.split('/', 1)[1]}")
    reading = readers.read(small_set.write_folder(tmp_path / "a", changed=changed))
    assert note in reading.notes[0]
    expected = dict(zip(USAGES, usages, strict=True))
    assert [expected[name.split("_")[0]] for name in reading.names] == list(reading.usage)


def test_litter_is_passed_over_and_other_files_are_noted(small_set, tmp_path):
    changed = dict.fromkeys(
        (".DS_Store", "__MACOSX/train/angry/._Training_0.jpg", "train/.DS_Store", "train/angry/Thumbs.db",
         "test/fear/desktop.ini", "README.md", "about/index.html"), b"x")  # fmt: skip
    for path in (small_set.write_zip(tmp_path / "a.zip", changed=changed),
                 small_set.write_folder(tmp_path / "a", changed=changed)):  # fmt: skip
        reading = readers.read(path)
        assert len(reading.labels) == 56
        assert reading.notes == ("not read, beside train/ and test/: README.md, about/",)


# --- broken images ------------------------------------------------------------------------------------------------


def resize(small_set, size):
    images = (Image.fromarray(image).resize(size) for image in small_set.images)
    return {name: encode(image) for name, image in zip(small_set.files, images, strict=True)}


def colour(small_set, convert=lambda image: image.convert("RGB")):
    images = (convert(Image.fromarray(image)) for image in small_set.images)
    return {name: encode(image) for name, image in zip(small_set.files, images, strict=True)}


def tint(image):
    return Image.merge("RGB", (image, image.point(lambda value: 255 - value), image))


def one(small_set, change):
    return {ANGRY: change(small_set)[ANGRY]}


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"

BROKEN = {
    "no image": (lambda s: {ANGRY: b"no image"}, "1 of 56 images cannot be read", "not a JPEG, PNG or BMP"),
    "truncated": (lambda s: {ANGRY: s.files[ANGRY][:-300]}, "truncated"),
    "empty": (lambda s: {ANGRY: b""}, "an empty file"),
    "LFS pointer": (lambda s: {ANGRY: LFS}, "a Git LFS pointer, not the file itself; run `git lfs pull`"),
    "link's text": (lambda s: {ANGRY: b"../../objects/0.jpg"}, "the text of a link to ../../objects/0.jpg"),
    "one larger": (lambda s: one(s, lambda s: resize(s, (47, 50))), "1 of 56 images are 47x50; the first is"),
    "one in colour": (lambda s: one(s, colour), "1 of 56 images are RGB; the first is"),
    "palette": (lambda s: {ANGRY: encode(Image.fromarray(s.images[0]).convert("P"), "PNG")}, "1 of 56 images are P"),
    "too large": (lambda s: {ANGRY: bytes(2**24 + 1)}, "has more than 16,777,216 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_broken_image(small_set, tmp_path, case):
    change, *parts = BROKEN[case]
    path = small_set.write_zip(tmp_path / "a.zip", changed=change(small_set), compression=zipfile.ZIP_DEFLATED)
    assert "copy of it" not in refused(path, ANGRY, *parts)


OTHER_IMAGES = "0 of 56 compared are images of FER2013, once made grey and 48x48: this is another set of images"
CONVERTED = {
    "75x75": (lambda s: resize(s, (75, 75)), f"every image is 75x75; {OTHER_IMAGES}"),
    "two sizes": (
        lambda s: resize(s, (75, 75)) | one(s, lambda s: resize(s, (224, 224))),
        "every image is 75x75 (55), 224x224 (1)",
    ),
    "grey as colour": (colour, f"every image is RGB, with equal channels (grey stored as colour); {OTHER_IMAGES}"),
    "colour": (lambda s: colour(s, tint), f"every image is RGB; {OTHER_IMAGES}"),
    "grey with a palette": (
        lambda s: {
            name: encode(Image.fromarray(image).convert("P"), "PNG")
            for name, image in zip(s.files, s.images, strict=True)
        },
        f"every image is P, with equal channels (grey stored as colour); {OTHER_IMAGES}",
    ),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_converted_images(small_set, tmp_path, case):
    change, text = CONVERTED[case]
    refused(small_set.write_zip(tmp_path / "a.zip", changed=change(small_set)), text)


def test_resized_colour_copy_is_compared(small_set, tmp_path, planted):
    large = colour(small_set, lambda image: image.convert("RGB").resize((96, 96)))
    refused(
        small_set.write_zip(tmp_path / "a.zip", changed=large),
        "every image is 96x96, every image is RGB, with equal channels",
        "of 56 compared are images of FER2013, once made grey and 48x48: a resized and grey-as-colour copy of it",
    )


def test_large_picture_is_not_decoded(small_set, tmp_path):
    """400 million pixels, or 4 million colours, in a small file: the size is told from its head."""
    for side, said in ((20_000, "exceeds limit"), (2_000, "2000x2000")):
        png = encode(np.zeros((1, 1, 3), "uint8"), "PNG")
        head = b"IHDR" + side.to_bytes(4) * 2 + png[24:29]
        changed = {ANGRY: png[:12] + head + zlib.crc32(head).to_bytes(4) + png[33:]}
        path = small_set.write_zip(tmp_path / f"{side}.zip", changed=changed)
        assert peak_of(lambda path=path, said=said: refused(path, said)) < 2**22


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_among_the_images(small_set, tmp_path):
    root = small_set.write_folder(tmp_path / "a", changed={ANGRY: None})
    os.mkfifo(root / ANGRY)
    refused(root, ANGRY, "not a regular file")
    (root / ANGRY).unlink()
    (root / ANGRY).symlink_to(tmp_path / "gone.jpg")  # as DVC and git-annex leave it
    refused(root, ANGRY, "a link to a file that is not there")


# --- broken trees -------------------------------------------------------------------------------------------------


def without(small_set, part):
    return {name: None for name in small_set.files if part in name}


TREES = {
    "another class": (lambda s: {"train/contempt/1.jpg": b"x"}, "train/contempt (1 files)", "the classes are angry"),
    "no class in train": (lambda s: without(s, "train/disgust"), "no images of class disgust in train; this copy is"),
    "no class in test": (lambda s: without(s, "test/disgust"), "no images of class disgust in test; this copy is"),
    "no test": (lambda s: without(s, "test/"), "no images in test (train 28, test 0); FER2013 has train and test"),
    "another name of test": (
        lambda s: renamed(s, lambda n: n.replace("test/", "holdout/")),
        "no images in test (train 28, test 0)", "not read, beside train/ and test/: holdout/",
    ),
    "no image": (lambda s: {"train/angry/labels.txt": b"x"}, "train/angry/labels.txt is not an image"),
    "too deep": (lambda s: {"train/angry/more/1.jpg": b"x"}, "train/angry/more/1.jpg is out of place"),
    "without class": (lambda s: {"test/1.jpg": b"x"}, "test/1.jpg is out of place"),
    "two of a class": (
        lambda s: {ANGRY.replace("angry", "Angry"): s.files[ANGRY]}, "two images are called train/angry/Training_0.jpg"
    ),
    "several copies": (
        lambda s: renamed(s, lambda n: f"one/{n}") | {f"two/{n}": data for n, data in s.files.items()},
        "several copies",
        "one",
        "two",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", ["zip", "folder"])
@pytest.mark.parametrize("case", TREES)
def test_broken_tree(small_set, tmp_path, case, form):
    change, *parts = TREES[case]
    write = small_set.write_zip if form == "zip" else small_set.write_folder
    refused(write(tmp_path / "a", changed=change(small_set)), *parts)


def test_merged_classes_are_named(small_set, tmp_path, planted):
    merged = without(small_set, "/disgust/")
    merged |= {name.replace("/disgust/", "/angry/"): small_set.files[name] for name in merged}
    path = small_set.write_zip(tmp_path / "a.zip", changed=merged)
    refused(path, "no images of class disgust in train; FER2013's of that class are among angry (4): classes were")


def test_a_class_that_is_missing_is_not_called_merged(small_set, tmp_path, planted):
    """Though one of its pictures is among another class too, as some in FER2013 are."""
    changed = without(small_set, "/disgust/")
    changed["train/angry/Training_again.jpg"] = small_set.files[next(name for name in changed if "train" in name)]
    path = small_set.write_zip(tmp_path / "a.zip", changed=changed)
    refused(path, "no images of class disgust in train; this copy is incomplete")


def test_folders_without_end(small_set, tmp_path):
    folder = small_set.write_folder(tmp_path / "a")
    (folder / "train" / "angry" / "loop").symlink_to(folder / "train", target_is_directory=True)
    refused(folder, "nested too deep")


# --- broken files -------------------------------------------------------------------------------------------------


def zip_bytes(*files, **contents):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (dict.fromkeys(files, b"x") | contents).items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.rar", b"x", "not a form"),
        ("a", b"x", "not a form"),
        ("a.rar", b"Rar!\x1a\x07", "a RAR archive; unpack it"),
        ("a.zip", b"", "an empty file"),
        ("a.zip", b"  <!DOCTYPE html><title>Sign in</title>", "a web page, not the file itself"),
        ("fer2013.csv", b"<html>", "a web page, not the file itself"),
        ("fer2013.csv", LFS, "a Git LFS pointer"),
        ("fer2013.csv", b"../data/fer2013.csv", "the text of a link to ../data/fer2013.csv"),
        ("a.zip", b"no zip", "truncated, damaged, or no archive at all (6 bytes; File is not a zip file)"),
        ("a.zip", zip_bytes(), "an empty zip"),
        ("a.zip", zip_bytes("example_submission.csv", "fer2013.tar.gz"), "another archive, fer2013.tar.gz; unpack it"),
        ("a.zip", zip_bytes(**{"data/fer2013.csv": LFS}), "data/fer2013.csv: a Git LFS pointer, not the file itself"),
        ("a.zip", zip_bytes(**{"images.csv": b"<html>"}), "images.csv: a web page, not the file itself"),
        ("a.zip", zip_bytes("images/0.jpg", "notes.txt"), "holds no train/ and test/ folders, nor"),
        ("a.zip", zip_bytes("images/0.jpg", "notes.txt"), "but images, notes.txt; give a copy"),
        ("a.zip", zip_bytes("train\\angry\\0.jpg"), "but train\\angry\\0.jpg"),
        ("a.zip", zip_bytes("/etc/x.jpg"), "points outside"),
        ("a.zip", zip_bytes("train/../../x.jpg"), "points outside"),
        ("a.zip", zip_bytes("C:/x.jpg"), "points outside"),
        ("a.zip", zip_bytes("..\\x.jpg"), "points outside"),
        ("a.csv.gz", gzip.compress(b"emotion,pixels,Usage\n", mtime=0)[:-9], "truncated, damaged, or no"),
        ("a.csv", b"", "an empty file"),
        ("a.csv", b"emotion,pixels\n0,1 2\n", "no column usage, found emotion, pixels; this is the competition's"),
        ("a.csv", b"Usage,Image name,neutral,contempt\n", "these are FER+'s labels, which come without images"),
        ("a.csv", b"a,b,c\n1,2,3\n", "found a, b, c"),
        ("a.csv", b"emotion,pixels,Usage\n", "no rows"),
        ("a.csv", b"emotion,pixels,Usage,Usage\n", "twice in the header"),
        ("a.csv", b"emotion,pixels,Usage\n\xff\xfe", "not a text file"),
    ],
)
def test_stand_ins_and_broken_files(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    refused(tmp_path / name, said)


def damage(data, sign, at, value):
    place = data.find(sign) + at
    return data[:place] + bytes([value]) + data[place + 1 :]


ENTRY = b"PK\x01\x02"  # an entry of the zip's directory; the version that unpacks it, then its flags


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda data, image: data[:-200], ["truncated"]),
        (lambda data, image: damage(data, image, 700, 0xAA), ["1 of 56 images cannot be read", ANGRY, "Bad CRC-32"]),
        (lambda data, image: damage(data, ENTRY, 6, 99), ["zip file version 9.9"]),
        (lambda data, image: damage(data, ENTRY, 8, 1), [ANGRY, "encrypted"]),
        (lambda data, image: damage(data, ENTRY, 10, 12), [ANGRY, "packed in an unusual way"]),
    ],
    ids=["cut", "hole", "newer", "encrypted", "bzip2"],
)
def test_damaged_zip(small_set, tmp_path, change, parts):
    path = small_set.write_zip(tmp_path / "a.zip")
    path.write_bytes(change(path.read_bytes(), small_set.files[ANGRY]))
    refused(path, *parts)


def test_damaged_csv_in_an_archive(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip", changed=dict.fromkeys(small_set.files))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fer2013.csv", small_set.csv_text())
    data = bytearray(path.read_bytes())
    at = data.find(b"Training") - 2  # the last digit of a pixel: the row stays well formed
    data[at] = ord("0") + (data[at] - ord("0") + 1) % 5
    path.write_bytes(data)
    refused(path, "Bad CRC-32", "'fer2013.csv'")
    path = csv_tar(small_set, tmp_path / "a.tar.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5000])
    refused(path, "truncated, damaged")
    path.write_bytes(whole[:-8] + b"\0\0\0\0" + whole[-4:])  # gzip's checksum
    refused(path, "CRC check failed")


# --- made to do harm ----------------------------------------------------------------------------------------------


def peak_of(action):
    """Most bytes that Python held more than before while `action` ran."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_entry_that_lies_about_its_size(small_set, tmp_path):
    """It claims 700 bytes and unpacks to 64 MB."""
    bomb = small_set.write_zip(tmp_path / "a.zip", changed={ANGRY: bytes(2**26)}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(bomb.read_bytes())
    for sign, at in ((ENTRY, 24), (b"PK\x03\x04", 22)):  # where directory and entry hold the size
        place = data.find(sign) + at
        assert int.from_bytes(data[place : place + 4], "little") == 2**26
        data[place : place + 4] = (700).to_bytes(4, "little")
    bomb.write_bytes(data)
    assert peak_of(lambda: refused(bomb, ANGRY, "1 of 56 images cannot be read")) < 2**26


def test_tar_header_without_end(tmp_path):
    """A long name is read at once: one of a terabyte must not be."""
    info = tarfile.TarInfo("name")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**40
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT)))
    refused(tmp_path / "a.tar.gz", "truncated, damaged", "a header claims")


def test_line_without_end(tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels,Usage\n0,")
    with open(path, "r+b") as file:
        file.truncate(2**28)  # a quarter of a gigabyte of NUL characters, which take no room on the disk
    assert peak_of(lambda: refused(path, "line 2", "field larger than field limit")) < 2**25


@pytest.mark.parametrize("form", ["zip", "folder", "fer2013.csv", "tar.gz"])
def test_more_images_than_any_copy_has(small_set, tmp_path, monkeypatch, form):
    monkeypatch.setattr(decoding, "MOST_IMAGES", 50)
    refused(FORMS[form](small_set, tmp_path), "holds more than 50 images")


# --- the CSV files ------------------------------------------------------------------------------------------------


def test_csv_by_hand(tmp_path):
    lines = ["emotion,pixels,Usage"]
    for usage in USAGES:
        lines += [f"{code},{' '.join(str((code + i) % 256) for i in range(2304))},{usage}" for code in range(7)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    reading = readers.read(tmp_path / "a.csv")
    assert [CLASSES[label] for label in reading.labels] == list(COMPETITION) * 3
    assert [int(image[0, 0]) for image in reading.images] == list(range(7)) * 3
    assert reading.images[0][0, 47] == 47 and reading.images[0][1, 0] == 48  # row by row
    assert list(reading.usage) == ["Training"] * 7 + ["PublicTest"] * 7 + ["PrivateTest"] * 7


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",Training", ", Training ").replace("emotion,pixels", " Emotion , Pixels"),
        lambda text: "".join(f'{c},"{p}",{u}\n' for c, p, u in (row.split(",") for row in text.splitlines())),
        lambda text: text + "\n\n",
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n3,", "\nHappiness,"),
    ],
    ids=["CRLF", "BOM", "blanks", "quotes", "blank lines at the end", "no newline at the end", "names of classes"],
)
def test_csv_dialects(small_set, tmp_path, change):
    (tmp_path / "a.csv").write_bytes(change(small_set.csv_text()).encode("utf-8"))
    assert is_small_set(readers.read(tmp_path / "a.csv"), small_set)


def test_csv_with_another_column(small_set, tmp_path):
    text = small_set.csv_text().replace("emotion,", "index,emotion,", 1).splitlines()
    (tmp_path / "a.csv").write_text("\n".join([text[0], *(f"7,{row}" for row in text[1:])]))
    reading = readers.read(tmp_path / "a.csv")
    assert is_small_set(reading, small_set) and reading.notes == ("columns not read: index",)


def pixels(n=2304, last=0):
    return " ".join(["7"] * (n - 1) + [str(last)])


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (f"0,{pixels(2303)},Training", ["2303 pixels", "expected 2304"]),
        (f"0,{pixels(4096)},Training", ["4096 pixels", "64x64", "resized"]),
        ("0,,Training", ["0 pixels"]),
        (f"0,{pixels(last=256)},Training", ["256", "outside 0 to 255"]),
        (f"0,{pixels(last=-1)},Training", ["-1"]),
        (f"0,{pixels(last=10**30)},Training", ["outside 0 to 255"]),
        (f"0,{pixels(last='1.5')},Training", ["'1.5'", "whole number"]),
        (f"0,{pixels()},Validation", ["'Validation'", "Training, PublicTest, PrivateTest"]),
        (f"7,{pixels()},Training", ["emotion is '7'", "0 to 6", "CK+ and FER+ have"]),
        (f"contempt,{pixels()},Training", ["emotion is 'contempt'"]),
        (f"0,{pixels()}", ["2 fields, expected 3"]),
        (f"0,{pixels()},Training,1", ["4 fields, expected 3"]),
    ],
)
def test_malformed_csv_row(small_set, tmp_path, row, parts):
    lines = small_set.csv_text().splitlines()
    lines[9] = row  # line 10, as editors count
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert "truncated" not in refused(tmp_path / "a.csv", "a.csv, line 10:", *parts)


@pytest.mark.parametrize("row", [f"7,{pixels()},Training", f"0,{pixels(last=300)},Training", f"0,{pixels()},Test"])
def test_a_wrong_last_row_is_not_called_truncated(small_set, tmp_path, row):
    (tmp_path / "a.csv").write_text(small_set.csv_text() + row)
    assert "truncated" not in refused(tmp_path / "a.csv", "line 58: ")


def test_csv_that_is_not_whole(small_set, tmp_path):
    rows = small_set.csv_text().splitlines(keepends=True)
    (tmp_path / "a.csv").write_text("".join(row for row in rows if not row.startswith("1,")))
    refused(tmp_path / "a.csv", "no images of class disgust in Training")
    (tmp_path / "a.csv").write_text("".join(row for row in rows if "PrivateTest" not in row))
    refused(tmp_path / "a.csv", "no images in PrivateTest (Training 28, PublicTest 14, PrivateTest 0)")
    for cut in (10, 4000, len(rows[30]) - 4):
        (tmp_path / "a.csv").write_text("".join(rows[:30]) + rows[30][:cut])
        refused(tmp_path / "a.csv", "line 31: ", "it ends here, after 29 whole rows (FER2013 has 35,887): truncated?")
