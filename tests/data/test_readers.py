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
from PIL import Image, features

from fer_utils.constants import CLASSES
from fer_utils.data import decoding, pictures, readers, reference
from fer_utils.errors import DataError

ANGRY = "train/angry/Training_0.jpg"  # the small set's first file


def content(images, labels, usage):
    """What a copy holds, whatever its order."""
    return sorted(
        (part == "Training", int(label), hashlib.md5(image.tobytes()).hexdigest())
        for image, label, part in zip(images, labels, usage, strict=True)
    )


def content_of(reading):
    return content(reading.images, reading.labels, reading.usage)


@pytest.fixture
def planted(small_set, tmp_path, monkeypatch):
    """Let the small set be the known FER2013."""
    names = np.array([name.split("/")[-1] for name in small_set.files])
    table = reference.build(small_set.images, small_set.labels, small_set.usage, names)
    reference.save(table, tmp_path / "planted.parquet")
    monkeypatch.setattr(pictures, "REFERENCE", tmp_path / "planted.parquet")


def refused(path, *parts):
    """Read `path`, expect a DataError that names the file and holds all `parts`, and return its message."""
    with pytest.raises(DataError) as caught:
        readers.read(path)
    message = str(caught.value)
    for part in (path.name, *parts):
        assert part in message
    return message


# --- every form ---------------------------------------------------------------------------------------------


def write_csv_zip(small_set, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", "emotion,pixels\n")
        archive.writestr("icml_face_data.csv", small_set.csv_text("icml"))
    return path


def write_tar(small_set, path):
    text = small_set.csv_text().encode()
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("fer2013/fer2013.csv")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    return path


FORMS = {
    "zip": lambda s, folder: s.write_zip(folder / "a.zip"),
    "deflated zip": lambda s, folder: s.write_zip(folder / "a.zip", compression=zipfile.ZIP_DEFLATED),
    "zip, one folder down": lambda s, folder: s.write_zip(folder / "a.zip", top="fer2013/"),
    "folder": lambda s, folder: s.write_folder(folder / "a"),
    "folder, one down": lambda s, folder: s.write_folder(folder / "a" / "archive").parent,
    "fer2013.csv": lambda s, folder: s.write_csv(folder / "fer2013.csv"),
    "icml_face_data.csv": lambda s, folder: s.write_csv(folder / "icml_face_data.csv", "icml"),
    "zip with csv": lambda s, folder: write_csv_zip(s, folder / "a.zip"),
    "tar.gz": lambda s, folder: write_tar(s, folder / "fer2013.tar.gz"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images_labels_and_usage(small_set, tmp_path, form):
    reading = readers.read(FORMS[form](small_set, tmp_path))
    assert content_of(reading) == content(small_set.images, small_set.labels, small_set.usage)
    assert reading.images.dtype == np.uint8 and reading.images.shape == (56, 48, 48)
    assert reading.labels.dtype == np.int64
    from_csv = "csv" in form or "tar" in form
    assert reading.form == ("csv" if from_csv else "folder" if "folder, " in form else form.split(",")[0].split()[-1])
    assert reading.jpeg is not from_csv
    assert reading.notes == ()


def test_names_are_file_names_or_row_numbers(small_set, tmp_path):
    assert set(readers.read(small_set.write_zip(tmp_path / "a.zip")).names) == {
        name.split("/")[-1] for name in small_set.files
    }
    names = readers.read(small_set.write_csv(tmp_path / "a.csv")).names
    assert names[0] == "row-000000" and names[-1] == "row-000055"


def test_decoder_names_pillow_and_its_jpeg_library():
    assert decoding.decoder().startswith(f"Pillow {Image.__version__} (libjpeg")
    assert features.version("libjpeg_turbo") is None or features.version("libjpeg_turbo") in decoding.decoder()


def test_png_is_read_and_noted(small_set, tmp_path):
    png = {name: None for name in small_set.files} | {
        name.replace(".jpg", ".png"): encode(image, "PNG")
        for name, image in zip(small_set.files, small_set.images, strict=True)
    }
    reading = readers.read(small_set.write_zip(tmp_path / "a.zip", changed=png))
    assert content_of(reading) == content(small_set.images, small_set.labels, small_set.usage)
    assert not reading.jpeg and reading.notes == ("image files are PNG (56)",)


def test_capitals_in_folder_names_do_not_matter(small_set, tmp_path):
    files = {name.title().replace(".Jpg", ".JPG"): data for name, data in small_set.files.items()}
    files = {
        name.replace("Publictest", "PublicTest").replace("Privatetest", "PrivateTest"): d for name, d in files.items()
    }
    changed = {name: None for name in small_set.files} | files
    for path in (
        small_set.write_zip(tmp_path / "a.zip", changed=changed),
        small_set.write_folder(tmp_path / "a", changed=changed),
    ):
        assert content_of(readers.read(path)) == content(small_set.images, small_set.labels, small_set.usage)


def test_litter_is_passed_over_and_other_files_are_noted(small_set, tmp_path):
    litter = dict.fromkeys(
        (".DS_Store", "__MACOSX/train/angry/._Training_0.jpg", "train/.DS_Store", "train/angry/Thumbs.db",
         "test/fear/desktop.ini"), b"x")  # fmt: skip
    for path in (
        small_set.write_zip(tmp_path / "a.zip", changed=litter | {"README.md": b"x"}),
        small_set.write_folder(tmp_path / "a", changed=litter | {"README.md": b"x"}),
    ):
        reading = readers.read(path)
        assert len(reading.labels) == 56
        assert reading.notes == ("not read, beside train/ and test/: README.md",)


def test_images_beside_train_and_test_are_noted(small_set, tmp_path):
    changed = {"validation/sad/Training_3.jpg": small_set.files[ANGRY], "about/index.html": b"x"}
    zipped = readers.read(small_set.write_zip(tmp_path / "a.zip", changed=changed))
    folder = readers.read(small_set.write_folder(tmp_path / "a", changed=changed))
    assert zipped.notes == ("not read, beside train/ and test/: about/, validation/",)
    assert folder.notes == ("not read, beside train/ and test/: validation/",)
    assert len(zipped.labels) == len(folder.labels) == 56


def test_directory_entries_in_a_zip_are_no_images(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("train/angry")
    assert len(readers.read(path).labels) == 56


# --- broken images ------------------------------------------------------------------------------------------


def test_corrupt_image(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip", changed={ANGRY: b"no image"})
    refused(path, "1 of 56 images cannot be read", ANGRY, "not a JPEG, PNG or BMP")


def test_truncated_image(small_set, tmp_path):
    path = small_set.write_folder(tmp_path / "a", changed={ANGRY: small_set.files[ANGRY][:-300]})
    refused(path, ANGRY, "truncated")


def test_empty_image(small_set, tmp_path):
    refused(small_set.write_zip(tmp_path / "a.zip", changed={ANGRY: b""}), ANGRY)


def resize(small_set, size, names=None):
    return {
        name: encode(Image.fromarray(image).resize(size))
        for name, image in zip(small_set.files, small_set.images, strict=True)
        if names is None or name in names
    }


def test_one_image_of_another_size(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip", changed=resize(small_set, (47, 50), [ANGRY]))
    assert "compared" not in refused(path, "1 of 56 images are 47x50", ANGRY, "48x48")


def test_resized_copy(small_set, tmp_path):
    refused(
        small_set.write_zip(tmp_path / "a.zip", changed=resize(small_set, (75, 75))),
        "every image is 75x75; 0 of 56 compared are images of FER2013, once made grey and 48x48: this is another set",
    )


def test_copy_in_two_sizes(small_set, tmp_path):
    changed = resize(small_set, (75, 75)) | resize(small_set, (224, 224), [ANGRY])
    refused(small_set.write_zip(tmp_path / "a.zip", changed=changed), "every image is 75x75 (55), 224x224 (1)")


def colour(small_set, convert=lambda image: image.convert("RGB"), form="JPEG"):
    return {
        name: encode(convert(Image.fromarray(image)), form)
        for name, image in zip(small_set.files, small_set.images, strict=True)
    }


def test_grey_stored_as_colour(small_set, tmp_path):
    refused(
        small_set.write_zip(tmp_path / "a.zip", changed=colour(small_set)),
        "every image is RGB, with equal channels (grey stored as colour); 0 of 56 compared",
    )


def test_real_colour(small_set, tmp_path):
    tinted = {
        n: encode(Image.merge("RGB", (Image.fromarray(i), Image.fromarray(255 - i), Image.fromarray(i))))
        for n, i in zip(small_set.files, small_set.images, strict=True)
    }
    message = refused(small_set.write_zip(tmp_path / "a.zip", changed=tinted), "every image is RGB; 0 of 56 compared")
    assert "equal channels" not in message


def test_one_colour_image(small_set, tmp_path):
    one = {ANGRY: colour(small_set)[ANGRY]}
    message = refused(small_set.write_zip(tmp_path / "a.zip", changed=one), "1 of 56 images are RGB", ANGRY)
    assert "colour copy" not in message


def test_resized_colour_copy_is_compared(small_set, tmp_path, planted):
    large = colour(small_set, lambda image: image.convert("RGB").resize((96, 96)))
    refused(
        small_set.write_zip(tmp_path / "a.zip", changed=large),
        "every image is 96x96, every image is RGB, with equal channels",
        "56 of 56 compared are images of FER2013, once made grey and 48x48: a resized and colour copy of it",
    )


def test_palette_image(small_set, tmp_path):
    name = ANGRY.replace(".jpg", ".png")
    changed = {ANGRY: None, name: encode(Image.fromarray(small_set.images[0]).convert("P"), "PNG")}
    refused(small_set.write_zip(tmp_path / "a.zip", changed=changed), "1 of 56 images are P", name)


# --- broken trees -------------------------------------------------------------------------------------------


def test_unknown_class(small_set, tmp_path):
    changed = {"train/contempt/Training_1.jpg": small_set.files[ANGRY]}
    refused(small_set.write_zip(tmp_path / "a.zip", changed=changed), "train/contempt (1 files)", "the classes are")


@pytest.mark.parametrize("half", ["train", "test"])
def test_missing_class(small_set, tmp_path, half):
    changed = {name: None for name in small_set.files if name.startswith(f"{half}/disgust/")}
    refused(
        small_set.write_zip(tmp_path / "a.zip", changed=changed),
        f"no images of class disgust in {half}; this copy is incomplete",
    )


def test_merged_classes_are_named(small_set, tmp_path, planted):
    merged = {name: None for name in small_set.files if "/disgust/" in name}
    merged |= {name.replace("/disgust/", "/angry/"): small_set.files[name] for name in merged}
    path = small_set.write_zip(tmp_path / "a.zip", changed=merged)
    refused(
        path, "no images of class disgust in train; FER2013's of that class are among angry (4): classes were merged"
    )


def test_missing_half(small_set, tmp_path):
    changed = {name: None for name in small_set.files if name.startswith("test/")}
    refused(small_set.write_zip(tmp_path / "a.zip", changed=changed), "no images in test (train 28, test 0)")
    refused(small_set.write_folder(tmp_path / "a", changed=changed), "no images in test (train 28, test 0)")


def test_file_that_is_no_image(small_set, tmp_path):
    changed = {"train/angry/labels.txt": b"x"}
    refused(small_set.write_folder(tmp_path / "a", changed=changed), "train/angry/labels.txt is not an image")


@pytest.mark.parametrize("name", ["train/angry/more/Training_1.jpg", "test/PublicTest_1.jpg"])
def test_image_out_of_place(small_set, tmp_path, name):
    changed = {name: small_set.files[ANGRY]}
    refused(small_set.write_folder(tmp_path / "a", changed=changed), f"{name} is out of place")


def test_folders_without_end(small_set, tmp_path):
    folder = small_set.write_folder(tmp_path / "a")
    (folder / "train" / "angry" / "loop").symlink_to(folder / "train", target_is_directory=True)
    refused(folder, "nested too deep")


def test_two_folders_of_one_class(small_set, tmp_path):
    changed = {ANGRY.replace("angry", "Angry"): small_set.files[ANGRY]}
    refused(small_set.write_zip(tmp_path / "a.zip", changed=changed), "two images are called train/angry/Training_0")


def test_several_copies_in_one_folder(small_set, tmp_path):
    small_set.write_folder(tmp_path / "a" / "one")
    small_set.write_folder(tmp_path / "a" / "two")
    refused(tmp_path / "a", "several copies", "one, two")


def test_several_copies_in_one_zip(small_set, tmp_path):
    others = {f"other/{name}": data for name, data in small_set.files.items()}
    path = small_set.write_zip(tmp_path / "a.zip", top="one/")
    with zipfile.ZipFile(path, "a") as archive:
        for name, data in others.items():
            archive.writestr(name, data)
    refused(path, "several copies", "one/, other/")


def test_folder_without_images(tmp_path):
    (tmp_path / "a").mkdir()
    refused(tmp_path / "a", "holds no train/ and test/")
    (tmp_path / "a" / "train").mkdir()
    refused(tmp_path / "a", "hold no images")


@pytest.mark.parametrize("name", ["a.rar", "a", "a.npz"])
def test_unknown_form(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, "not a form")


# --- broken zips --------------------------------------------------------------------------------------------


def test_empty_zip(tmp_path):
    zipfile.ZipFile(tmp_path / "a.zip", "w").close()
    refused(tmp_path / "a.zip", "an empty zip")
    (tmp_path / "b.zip").touch()
    refused(tmp_path / "b.zip", "an empty file")


def test_partial_zip(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, "truncated")


def test_zip_with_a_hole(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    at = data.find(small_set.files[ANGRY]) + 700
    data[at] ^= 0xFF
    path.write_bytes(data)
    refused(path, "1 of 56 images cannot be read", ANGRY, "Bad CRC-32")


def test_zip_of_a_newer_kind(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + 6] = 99  # the version that is needed to unpack it
    path.write_bytes(data)
    refused(path, "zip file version 9.9")


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "train/../../x.jpg", "C:/x.jpg", "..\\x.jpg"])
def test_zip_entry_that_points_outside(small_set, tmp_path, name):
    path = small_set.write_zip(tmp_path / "a.zip", changed={name: b"x"})
    refused(path, "points outside")


def test_two_dots_within_a_name_are_harmless(small_set, tmp_path):
    changed = {ANGRY: None, "train/angry/Training_0..jpg": small_set.files[ANGRY]}
    assert len(readers.read(small_set.write_zip(tmp_path / "a.zip", changed=changed)).labels) == 56


def test_encrypted_zip(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")  # the first entry of the zip's directory; byte 8 holds its flags
    data[at + 8] |= 1
    path.write_bytes(data)
    refused(path, "encrypted", ANGRY)


def test_link_in_a_zip(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip")
    link = zipfile.ZipInfo("train/angry/link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(path, "train/angry/link.jpg", "is a link")


def test_doubled_entry(small_set, tmp_path):
    path = small_set.write_zip(tmp_path / "a.zip")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(ANGRY, small_set.files[ANGRY])
    refused(path, f"{ANGRY} is in the zip more than once")


def test_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("images/0.jpg", b"x")
        archive.writestr("notes.txt", b"x")
    refused(tmp_path / "a.zip", "holds neither", "images, notes.txt")


def test_damaged_csv_in_an_archive(small_set, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fer2013.csv", small_set.csv_text())
    data = bytearray(path.read_bytes())
    at = data.find(b"Training") - 2  # the last digit of a pixel: the row stays well formed
    data[at] = ord("0") + (data[at] - ord("0") + 1) % 5
    path.write_bytes(data)
    refused(path, "fer2013.csv is damaged", "Bad CRC-32")
    path = write_tar(small_set, tmp_path / "a.tar.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5000])
    refused(path, "truncated or damaged")
    path.write_bytes(whole[:-8] + b"\0\0\0\0" + whole[-4:])  # gzip's checksum
    refused(path, "CRC check failed")


# --- made to do harm ----------------------------------------------------------------------------------------


def peak_of(action):
    """Most bytes that Python held more than before while `action` ran."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_nothing_is_written_beside_an_archive(small_set, tmp_path):
    """Archives are read and never unpacked, so that no entry can lie anywhere, whatever its name."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    small_set.write_zip(inside / "a.zip", changed={"../evil.jpg": b"x", "/tmp/evil.jpg": b"x", "..\\evil.jpg": b"x"})
    text = small_set.csv_text().encode()
    with tarfile.open(inside / "a.tar.gz", "w:gz") as archive:
        for name, kind, content in (
            ("../evil.csv", tarfile.REGTYPE, b"x"),
            ("link", tarfile.SYMTYPE, b""),
            ("link/evil.txt", tarfile.REGTYPE, b"x"),
            ("/tmp/fer2013.csv", tarfile.REGTYPE, text),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "/tmp"
            archive.addfile(info, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    refused(inside / "a.zip", "points outside")
    assert len(readers.read(inside / "a.tar.gz").labels) == 56  # its CSV is read where it stands
    assert sorted(tmp_path.rglob("*")) == before


def test_backslashes_are_no_folders(small_set, tmp_path):
    files = {name.replace("/", "\\"): content for name, content in small_set.files.items()}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    refused(tmp_path / "a.zip", "holds neither train/")


def test_entry_that_unpacks_to_too_much(small_set, tmp_path):
    bomb = small_set.write_zip(tmp_path / "a.zip", changed={ANGRY: bytes(2**24 + 1)}, compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 200_000
    assert peak_of(lambda: refused(bomb, ANGRY, "16,777,217 bytes")) < 2**22


def test_entry_that_lies_about_its_size(small_set, tmp_path):
    """It claims 700 bytes and unpacks to 64 MB."""
    bomb = small_set.write_zip(tmp_path / "a.zip", changed={ANGRY: bytes(2**26)}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(bomb.read_bytes())
    for sign, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):  # where directory and entry hold the size
        place = data.find(sign) + at
        assert int.from_bytes(data[place : place + 4], "little") == 2**26
        data[place : place + 4] = (700).to_bytes(4, "little")
    bomb.write_bytes(data)
    assert peak_of(lambda: refused(bomb, ANGRY, "1 of 56 images cannot be read")) < 2**26


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_limit(small_set, tmp_path, method):
    refused(small_set.write_zip(tmp_path / "a.zip", compression=method), "packed in an unusual way")


def test_table_that_unpacks_to_too_much(small_set, tmp_path, monkeypatch):
    path = write_csv_zip(small_set, tmp_path / "a.zip")
    size = len(small_set.csv_text("icml"))
    monkeypatch.setattr(readers, "LARGEST_TABLE", size)
    assert len(readers.read(path).labels) == 56
    monkeypatch.setattr(readers, "LARGEST_TABLE", size - 1)
    refused(path, "icml_face_data.csv", f"{size:,} bytes")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("fer2013.csv")
        info.size = 2**40
        archive.addfile(info)
    refused(tmp_path / "a.tar.gz", "fer2013.csv", "1,099,511,627,776 bytes")


def test_tar_header_without_end(tmp_path):
    """A long name is read at once: one of a terabyte must not be."""
    info = tarfile.TarInfo("name")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**40
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
    refused(tmp_path / "a.tar.gz", "truncated or damaged", "a header claims")


def test_line_without_end(small_set, tmp_path):
    path = tmp_path / "fer2013.csv"
    path.write_text("emotion,pixels,Usage\n0,")
    with open(path, "r+b") as file:
        file.truncate(2**28)  # a quarter of a gigabyte of NUL characters, which take no room on the disk
    assert peak_of(lambda: refused(path, "line 2", "longer than 1,048,576 characters")) < 2**25
    with gzip.open(tmp_path / "b.tar.gz", "wb") as file:
        info = tarfile.TarInfo("fer2013.csv")
        info.size = 2**24
        file.write(info.tobuf() + bytes(2**24))
    refused(tmp_path / "b.tar.gz", "line 1", "longer than")


def test_more_images_than_any_copy_has(small_set, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_IMAGES", 50)
    for form in ("zip", "folder", "fer2013.csv", "tar.gz"):
        assert "holds more than 50 images" in refused(FORMS[form](small_set, tmp_path))


def test_large_picture_is_not_decoded(small_set, tmp_path):
    """400 million pixels, or 4 million colours, in a small file: the size is told from its head."""
    for side, said in ((20_000, "exceeds limit"), (2_000, "2000x2000")):
        png = encode(np.zeros((1, 1, 3), "uint8"), "PNG")
        head = b"IHDR" + side.to_bytes(4) * 2 + png[24:29]
        changed = {ANGRY: png[:12] + head + zlib.crc32(head).to_bytes(4) + png[33:]}
        path = small_set.write_zip(tmp_path / f"{side}.zip", changed=changed)
        assert peak_of(lambda path=path, said=said: refused(path, said)) < 2**22


def test_large_file_among_the_images(small_set, tmp_path):
    root = small_set.write_folder(tmp_path / "a")
    with open(root / ANGRY, "r+b") as file:
        file.truncate(2**33)  # takes no room on the disk
    assert peak_of(lambda: refused(root, ANGRY, "8,589,934,592 bytes")) < 2**22


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_among_the_images(small_set, tmp_path):
    root = small_set.write_folder(tmp_path / "a", changed={ANGRY: None})
    os.mkfifo(root / ANGRY)
    refused(root, ANGRY, "not a regular file")


# --- the CSV files ------------------------------------------------------------------------------------------


def test_csv_codes_by_hand(small_set, tmp_path):
    # The competition: 0 angry, 1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral.
    expected = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    lines = ["emotion,pixels,Usage"]
    for usage in ("Training", "PublicTest", "PrivateTest"):
        lines += [f"{code},{' '.join([str(code)] * 2304)},{usage}" for code in range(7)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    reading = readers.read(tmp_path / "a.csv")
    assert [CLASSES[label] for label in reading.labels] == expected * 3
    assert [int(image[0, 0]) for image in reading.images] == list(range(7)) * 3
    assert list(reading.usage) == ["Training"] * 7 + ["PublicTest"] * 7 + ["PrivateTest"] * 7


def test_csv_pixels_run_along_rows(small_set, tmp_path):
    text = small_set.csv_text().splitlines()
    code, _, usage = text[1].split(",")
    text[1] = f"{code},{' '.join(str(i % 256) for i in range(2304))},{usage}"
    (tmp_path / "a.csv").write_text("\n".join(text))
    image = readers.read(tmp_path / "a.csv").images[0]
    assert image[0, 47] == 47 and image[1, 0] == 48 and image[47, 47] == 2303 % 256


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",Training", ", Training ").replace("emotion,pixels", " Emotion , Pixels"),
        lambda text: "".join(f'{c},"{p}",{u}\n' for c, p, u in (row.split(",") for row in text.splitlines())),
        lambda text: text + "\n\n",
        lambda text: text.rstrip("\n"),
    ],
    ids=["CRLF", "BOM", "blanks", "quotes", "blank lines at the end", "no newline at the end"],
)
def test_csv_dialects(small_set, tmp_path, change):
    (tmp_path / "a.csv").write_bytes(change(small_set.csv_text()).encode("utf-8"))
    reading = readers.read(tmp_path / "a.csv")
    assert content_of(reading) == content(small_set.images, small_set.labels, small_set.usage)


def test_csv_with_another_column(small_set, tmp_path):
    text = small_set.csv_text().replace("emotion,", "index,emotion,", 1).splitlines()
    (tmp_path / "a.csv").write_text("\n".join([text[0], *(f"7,{row}" for row in text[1:])]))
    reading = readers.read(tmp_path / "a.csv")
    assert content_of(reading) == content(small_set.images, small_set.labels, small_set.usage)
    assert reading.notes == ("columns not read: index",)


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
        (f"0,{pixels(last='x')},Training", ["'x'", "whole number"]),
        (f"0,{pixels()},Validation", ["'Validation'", "Training, PublicTest, PrivateTest"]),
        (f"0,{pixels()},", ["Usage is ''"]),
        (f"7,{pixels()},Training", ["emotion is '7'", "0 to 6"]),
        (f"happy,{pixels()},Training", ["emotion is 'happy'"]),
        (f"-1,{pixels()},Training", ["emotion is '-1'"]),
        (f"0,{pixels()}", ["2 fields, expected 3"]),
        (f"0,{pixels()},Training,1", ["4 fields, expected 3"]),
    ],
)
def test_malformed_csv_row(small_set, tmp_path, row, parts):
    lines = small_set.csv_text().splitlines()
    lines[9] = row  # line 10, as editors count
    (tmp_path / "a.csv").write_text("\n".join(lines))
    refused(tmp_path / "a.csv", "a.csv, line 10:", *parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["no column emotion, pixels, usage", "found none"]),
        ("emotion,pixels\n0,1 2\n", ["no column usage", "train.csv"]),
        ("a,b,c\n1,2,3\n", ["found a, b, c"]),
        ("emotion,pixels,Usage\n", ["no rows"]),
        ("emotion,pixels,Usage,Usage\n", ["twice in the header"]),
        ("emotion,pixels,Usage\n\xff\xfe", ["not a text file"]),
    ],
)
def test_csv_that_is_another_file(tmp_path, text, parts):
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    refused(tmp_path / "a.csv", *parts)


def test_csv_without_a_class_or_usage(small_set, tmp_path):
    lines = small_set.csv_text().splitlines()
    (tmp_path / "a.csv").write_text("\n".join(row for row in lines if not row.startswith("1,")))
    refused(tmp_path / "a.csv", "no images of class disgust in Training")
    (tmp_path / "a.csv").write_text("\n".join(row for row in lines if not row.endswith("PrivateTest")))
    refused(tmp_path / "a.csv", "no images in PrivateTest (Training 28, PublicTest 14, PrivateTest 0)")


def test_csv_cut_in_half(small_set, tmp_path):
    text = small_set.csv_text()
    rows = text.splitlines(keepends=True)
    whole = "".join(rows[:30])
    for cut in (10, 4000, len(rows[30]) - 4):
        (tmp_path / "a.csv").write_text(whole + rows[30][:cut])
        refused(tmp_path / "a.csv", "truncated: it ends within line 31, after 29 whole rows (FER2013 has 35,887)")


# --- state --------------------------------------------------------------------------------------------------


def test_stamp_changes_with_the_source(small_set, tmp_path):
    folder = small_set.write_folder(tmp_path / "a")
    before = readers.stamp(folder)
    assert len(before) == 56 and before == readers.stamp(folder)
    (folder / ANGRY).write_bytes(b"x")
    assert readers.stamp(folder) != before
    path = small_set.write_zip(tmp_path / "a.zip")
    before = readers.stamp(path)
    path.write_bytes(path.read_bytes() + b"x")
    assert readers.stamp(path) != before
