import functools
import hashlib
import io
import json
import time

import numpy as np
import pytest
from conftest import encode
from PIL import Image

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import dataset as data
from fer_utils.data import decoding, identity, readers, reference
from fer_utils.data.synthetic import make_faces
from fer_utils.errors import DataError

FEW = {usage: dict.fromkeys(CLASSES, 1) for usage in USAGES}


@pytest.fixture(scope="session")
def other_reference(tmp_path_factory):
    """Return a reference of other images than the small set's."""
    images, labels, usage = make_faces({usage: dict.fromkeys(CLASSES, 2) for usage in USAGES}, seed=9)
    path = tmp_path_factory.mktemp("reference") / "other.parquet"
    reference.save(reference.build(images, labels, usage, [f"{u}_{i}.jpg" for i, u in enumerate(usage)]), path)
    return path


@pytest.fixture(autouse=True)
def elsewhere(request, monkeypatch, tmp_path, other_reference):
    """Keep these tests away from the user's data and cache, and spare the comparison with 35,887 known images."""
    if "real_dataset" not in request.fixturenames:
        monkeypatch.setattr(identity, "REFERENCE", other_reference)
    monkeypatch.delenv("FER2013_DATA", raising=False)
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))


def quiet(message):
    pass


def entries(tmp_path):
    return sorted((tmp_path / "cache" / "decoded").iterdir())


# --- the dataset --------------------------------------------------------------------------------------------


def test_zip_folder_and_both_csvs_are_one_dataset(small_set, tmp_path):
    sources = [
        small_set.write_zip(tmp_path / "a.zip", top="fer2013/"),
        small_set.write_folder(tmp_path / "c"),
        small_set.write_csv(tmp_path / "fer2013.csv"),
    ]
    sets = [data.load(source, on_message=quiet) for source in sources]
    for other in sets[1:]:
        assert np.array_equal(sets[0].images, other.images)
        assert np.array_equal(sets[0].labels, other.labels)
        assert np.array_equal(sets[0].usage, other.usage)
        assert sets[0].fingerprint["sha256"] == other.fingerprint["sha256"]
        assert sets[0].fingerprint["counts"] == other.fingerprint["counts"]
    assert [s.fingerprint["form"] for s in sets] == ["zip", "folder", "csv"]
    assert [s.source for s in sets] == ["a.zip", "c", "fer2013.csv"]
    assert list(sets[0].ids) == list(sets[1].ids)


def test_canonical_order(small_set, tmp_path):
    loaded = data.load(small_set.write_zip(tmp_path / "a.zip"), on_message=quiet)
    expected = sorted(
        (
            USAGES.index(u),
            int(k),
            hashlib.sha256(i.tobytes()).hexdigest(),
            f"{u}/{CLASSES[k]}/{name.split('/')[-1]}",
        )
        for name, i, k, u in zip(small_set.files, small_set.images, small_set.labels, small_set.usage, strict=True)
    )
    assert [row[3] for row in expected] == list(loaded.ids)
    assert [USAGES[row[0]] for row in expected] == list(loaded.usage)
    assert [row[1] for row in expected] == list(loaded.labels)
    assert [row[2] for row in expected] == [hashlib.sha256(i.tobytes()).hexdigest() for i in loaded.images]
    assert loaded.images.dtype == np.uint8 and loaded.labels.dtype == np.int64


def test_identical_images_are_ordered_by_name():
    usage, names = np.array(["Training"] * 3), np.array(["b", "c", "a"])
    arrays = data.sort(np.zeros((3, 48, 48), np.uint8), np.zeros(3, int), usage, names)
    assert list(arrays["ids"]) == [f"Training/angry/{name}" for name in "abc"]


def test_arrays_are_read_only_and_fingerprint_is_json(small_set, tmp_path):
    loaded = data.load(small_set.write_zip(tmp_path / "a.zip"), on_message=quiet)
    for array in (loaded.images, loaded.labels, loaded.usage, loaded.ids):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    assert json.loads(json.dumps(loaded.fingerprint)) == loaded.fingerprint
    assert loaded.fingerprint["known"] is False and loaded.fingerprint["decoder"] == decoding.decoder()


def renamed(small_set, rename):
    return {name: None for name in small_set.files} | {rename(name): d for name, d in small_set.files.items()}


def test_known_images_keep_their_usage_whatever_they_are_called(small_set, tmp_path, monkeypatch):
    names = np.array([name.split("/")[-1] for name in small_set.files])
    reference.save(reference.build(small_set.images, small_set.labels, small_set.usage, names), tmp_path / "r.parquet")
    monkeypatch.setattr(identity, "REFERENCE", tmp_path / "r.parquet")
    genuine = data.load(small_set.write_zip(tmp_path / "a.zip"), on_message=quiet)
    changed = renamed(small_set, lambda n: f"{n.rsplit('/', 1)[0]}/{hashlib.md5(n.encode()).hexdigest()}.jpg")
    other = data.load(small_set.write_zip(tmp_path / "b.zip", changed=changed), on_message=quiet)
    assert genuine.fingerprint["known"] and other.fingerprint["known"] and other.notes == ()
    assert genuine.fingerprint["sha256"] == other.fingerprint["sha256"]


def test_unknown_test_images_are_shared_out_by_content(small_set, tmp_path):
    by_number = renamed(small_set, lambda name: name.replace("_", "").replace("Test", "").lower())
    by_hash = renamed(small_set, lambda n: f"{n.rsplit('/', 1)[0]}/{hashlib.md5(small_set.files[n]).hexdigest()}.jpg")
    one = data.load(small_set.write_zip(tmp_path / "one.zip", changed=by_number), on_message=quiet)
    two = data.load(small_set.write_folder(tmp_path / "two", changed=by_hash), on_message=quiet)
    assert one.fingerprint["sha256"] == two.fingerprint["sha256"]
    for label in range(len(CLASSES)):  # four distinct test images of each class
        parts = list(one.usage[one.labels == label])
        assert (parts.count("Training"), parts.count("PublicTest"), parts.count("PrivateTest")) == (4, 2, 2)
    for loaded in (one, data.load(tmp_path / "one.zip", on_message=quiet)):  # from the cache too
        assert loaded.notes[0].startswith("28 test images that are not FER2013's")
        assert loaded.fingerprint["notes"] == list(loaded.notes)


def test_identical_images_fall_to_the_same_usage():
    distinct = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    images, names = distinct[[0, 1, 2, 3, 4] * 2], np.array([f"{i}.jpg" for i in range(10)])
    usage = np.full(10, "test")
    reading = readers.Reading(images, np.zeros(10, int), usage, names, "zip", "", True)
    usage, notes = data._share_out(usage, reading)
    assert list(usage[:5]) == list(usage[5:]) and len(notes) == 1
    # By hand: in the order of their hashes the distinct images go to the two in turn.
    order = sorted(range(5), key=lambda i: hashlib.sha256(distinct[i].tobytes()).hexdigest())
    assert [usage[i] for i in order] == ["PublicTest", "PrivateTest"] * 2 + ["PublicTest"]


# --- synthetic ----------------------------------------------------------------------------------------------


def test_synthetic_set(monkeypatch):
    monkeypatch.setattr(data, "make_faces", functools.partial(make_faces, FEW))
    messages = []
    loaded = data.load("synthetic", on_message=messages.append)
    assert loaded.source == "synthetic" and loaded.fingerprint["variant"] == "synthetic"
    assert not loaded.fingerprint["known"] and loaded.notes == ()
    assert set(loaded.usage) == set(USAGES) and set(loaded.labels) == set(range(7))
    assert len(set(loaded.ids)) == len(loaded.ids)
    assert "synthetic" in messages[-1].lower()


def test_fallback_is_kept_in_the_notes(monkeypatch):
    monkeypatch.setattr(data, "make_faces", functools.partial(make_faces, FEW))
    monkeypatch.setattr(data.sources, "KAGGLE_COMMAND", ("false",))
    messages = []
    loaded = data.load("auto", on_message=messages.append)
    assert loaded.source == "synthetic"
    assert [note.split()[0] for note in loaded.notes] == ["FER2013_DATA", "the", "Kaggle:"]
    assert any("FALLING BACK" in message for message in messages)
    with pytest.raises(DataError, match="needs the real data"):
        data.load("auto", on_message=quiet, allow_fallback=False)


def test_a_damaged_copy_in_the_cache_folder_is_an_error_and_no_reason_to_fall_back(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "fer2013.zip").write_bytes(b"PK half")
    with pytest.raises(DataError, match="truncated"):
        data.load("auto", on_message=quiet)


# --- the cache ----------------------------------------------------------------------------------------------


@pytest.fixture
def quick_identity(monkeypatch):
    """Spare the comparison with known images, which is not what these tests are about."""
    monkeypatch.setattr(data.verdict, "identify", lambda images, labels, usage, *_, **__: (usage, {"description": ""}))


@pytest.fixture
def reads(monkeypatch, quick_identity):
    """Count how often a source is read."""
    calls = []
    read = readers.read

    def counting(path):
        calls.append(path)
        return read(path)

    monkeypatch.setattr(readers, "read", counting)
    return calls


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_second_load_maps_the_first(small_set, tmp_path, reads, form):
    path = small_set.write_zip(tmp_path / "a.zip") if form == "zip" else small_set.write_folder(tmp_path / "a")
    first = data.load(path, on_message=quiet)
    second = data.load(path, on_message=quiet)
    assert len(reads) == 1
    assert isinstance(first.images, np.memmap) and isinstance(second.images, np.memmap)
    for name in ("images", "labels", "usage", "ids"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert (first.source, first.fingerprint, first.notes) == (second.source, second.fingerprint, second.notes)
    assert len(entries(tmp_path)) == 1


def test_another_source_of_that_name_is_read_anew(small_set, tmp_path, reads):
    path = small_set.write_zip(tmp_path / "a.zip")
    data.load(path, on_message=quiet)
    negative = encode(255 - small_set.images[0])
    small_set.write_zip(path, changed={"train/angry/Training_0.jpg": negative})
    loaded = data.load(path, on_message=quiet)
    assert len(reads) == 2
    expected = np.asarray(Image.open(io.BytesIO(negative)))
    assert sum(np.array_equal(image, expected) for image in loaded.images) == 1


def test_a_changed_file_in_a_folder_is_noticed(small_set, tmp_path, reads):
    path = small_set.write_folder(tmp_path / "a")
    data.load(path, on_message=quiet)
    (path / "train/angry/Training_0.jpg").write_bytes(b"damaged since")
    with pytest.raises(DataError, match="Training_0.jpg"):
        data.load(path, on_message=quiet)
    assert len(reads) == 2


def flip_byte(file):
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "a pixel changed": lambda entry: flip_byte(entry / "images.npy"),
    "images cut": lambda entry: (entry / "images.npy").write_bytes((entry / "images.npy").read_bytes()[:5000]),
    "images gone": lambda entry: (entry / "images.npy").unlink(),
    "names changed": lambda entry: flip_byte(entry / "ids.npy"),
    "labels empty": lambda entry: (entry / "labels.npy").write_bytes(b""),
    "meta empty": lambda entry: (entry / "meta.json").write_text(""),
    "meta of another kind": lambda entry: (entry / "meta.json").write_text("[]"),
    "meta without sum": lambda entry: (entry / "meta.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_anew(small_set, tmp_path, reads, damage):
    path = small_set.write_zip(tmp_path / "a.zip")
    first = data.load(path, on_message=quiet)
    expected = first.images.copy()
    (entry,) = entries(tmp_path)
    DAMAGE[damage](entry)
    again = data.load(path, on_message=quiet)
    assert len(reads) == 2
    assert np.array_equal(again.images, expected) and again.fingerprint == first.fingerprint
    data.load(path, on_message=quiet)
    assert len(reads) == 2 and entries(tmp_path) == [entry]


def test_a_cache_that_cannot_be_written(small_set, tmp_path, monkeypatch, quick_identity):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "file"))
    messages = []
    loaded = data.load(small_set.write_zip(tmp_path / "a.zip"), on_message=messages.append)
    assert len(loaded.labels) == 56 and not loaded.images.flags.writeable
    assert any("without a cache" in message for message in messages)


def test_only_the_last_entries_are_kept(small_set, tmp_path, quick_identity):
    paths = [small_set.write_zip(tmp_path / f"{i}.zip") for i in range(data.CACHE_ENTRIES + 2)]
    for path in paths:
        data.load(path, on_message=quiet)
        data.load(paths[0], on_message=quiet)  # stays in use
        time.sleep(0.02)
    assert len(entries(tmp_path)) == data.CACHE_ENTRIES
    kept = {entry.name for entry in entries(tmp_path)}
    assert {data._key(paths[0]), data._key(paths[-1])} <= kept and data._key(paths[1]) not in kept


def test_what_cannot_be_read_is_an_error(small_set, tmp_path, quick_identity):
    root = small_set.write_folder(tmp_path / "a")
    (root / "test" / "sad" / "PublicTest_1.jpg").symlink_to(tmp_path / "gone.jpg")  # as DVC and git-annex leave it
    with pytest.raises(DataError, match=r"PublicTest_1.jpg: cannot be read: .*; it is a link to .*gone.jpg: fetch"):
        data.load(root, on_message=quiet)


# --- the real data ------------------------------------------------------------------------------------------------


def test_real_data(real_dataset):
    # Counted from the file names with other tools.
    train = [3995, 436, 4097, 7215, 4965, 4830, 3171]
    test = [958, 111, 1024, 1774, 1233, 1247, 831]
    assert np.bincount(real_dataset.labels[real_dataset.usage == "Training"]).tolist() == train
    assert np.bincount(real_dataset.labels[real_dataset.usage != "Training"]).tolist() == test
    assert [int((real_dataset.usage == part).sum()) for part in USAGES] == [28709, 3589, 3589]
    assert len(set(real_dataset.ids)) == 35887
    assert len({image.tobytes() for image in real_dataset.images}) == 34034
    assert real_dataset.fingerprint["known"] and real_dataset.notes == ()


def test_real_data_loads_fast_from_the_cache(real_dataset, real_cache):
    started = time.process_time()
    data.load(real_dataset.path, real_cache, quiet)
    assert time.process_time() - started < 1
