import hashlib
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import reference as known_reference
from fer_utils.data.comparison import compare, to_jpeg
from fer_utils.data.dataset import load
from fer_utils.data.fingerprint import content_hash, counts, fingerprint
from fer_utils.data.pixels import image_table, pixel_hash, sharpness, statistics
from fer_utils.data.synthetic import make_faces
from fer_utils.errors import DataError

PER_CLASS = {"Training": 12, "PublicTest": 5, "PrivateTest": 5}


def make_ids(labels, usage, names=None):
    names = [f"{part}_{31 * i}.jpg" for i, part in enumerate(usage)] if names is None else names
    return np.array([f"{u}/{CLASSES[k]}/{name}" for u, k, name in zip(usage, labels, names, strict=True)])


def row_ids(labels, usage):
    return make_ids(labels, usage, [f"row-{i:06d}" for i in range(len(labels))])


def names_of(ids):
    return [name.split("/")[-1] for name in ids]


def encode(images):
    """JPEG of quality 95 and back, by Pillow alone."""
    decoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        decoded.append(np.asarray(Image.open(buffer)))
    return np.stack(decoded)


def blur(images):
    return ndimage.gaussian_filter(images.astype(np.float32), (0, 1, 1)).round().astype(np.uint8)


@pytest.fixture(scope="module")
def lossless():
    """154 drawn faces with a little noise, which no JPEG keeps."""
    per_class = {part: dict.fromkeys(CLASSES, n) for part, n in PER_CLASS.items()}
    images, labels, usage = make_faces(per_class, seed=5)
    noise = np.random.default_rng(0).normal(0, 1.6, images.shape)
    images = np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
    labels, usage = np.asarray(labels), np.asarray(usage)
    return {"images": images, "labels": labels, "usage": usage, "ids": make_ids(labels, usage)}


@pytest.fixture(scope="module")
def faces(lossless):
    """The same faces as Kaggle's files have them. Do not change them."""
    return lossless | {"images": encode(lossless["images"])}


@pytest.fixture(scope="module")
def planted(faces):
    return known_reference.build(**faces)


def describe(copy, planted, **options):
    return fingerprint(**copy, **({"form": "zip", "decoder": "test"} | options), reference=planted)


def take(copy, rows):
    return {name: values[rows] for name, values in copy.items()}


def join(first, second):
    return {name: np.concatenate([first[name], second[name]]) for name in first}


# --- hashes and statistics ---------------------------------------------------------------------------


def test_pixel_hash_is_blake2b_of_the_pixels(faces):
    view = faces["images"][:3, :, ::-1]
    expected = [hashlib.blake2b(bytes(image.ravel().tolist()), digest_size=8).hexdigest() for image in view]
    assert pixel_hash(view).tolist() == expected


def test_sharpness_agrees_with_scipy(faces):
    images = faces["images"][:5]
    expected = [ndimage.laplace(image.astype(float))[1:-1, 1:-1].var() for image in images]
    assert sharpness(images) == pytest.approx(expected, rel=1e-4)
    assert sharpness(np.full((1, 48, 48), 200, np.uint8)) == 0


def test_statistics_of_a_half_white_image():
    image = np.zeros((1, 48, 48), np.uint8)
    image[:, :, :24] = 200
    row = statistics(image).iloc[0]
    assert (row["mean"], row["std"], row["left_right"]) == (100, 100, 200)


def test_statistics_do_not_depend_on_the_chunks(faces, monkeypatch):
    whole = statistics(faces["images"])
    monkeypatch.setattr("fer_utils.data.pixels.CHUNK", 7)
    pd.testing.assert_frame_equal(statistics(faces["images"]), whole)


def test_image_table_layout(faces):
    table = image_table(**faces)
    types = {name: str(kind) for name, kind in table.dtypes.items()}
    assert list(types) == ["id", "usage", "label", "pixel_hash", "mean", "std", "sharpness"]
    assert types["label"] == "int8" and {types[name] for name in ("mean", "std", "sharpness")} == {"float32"}
    assert table["mean"].to_numpy() == pytest.approx(faces["images"].mean(axis=(1, 2)), rel=1e-5)
    assert table["std"].to_numpy() == pytest.approx(faces["images"].std(axis=(1, 2)), rel=1e-4)


def test_content_hash_is_sha256_of_pixels_labels_usage(faces):
    few = take(faces, slice(0, 4))
    content = few["images"].tobytes() + bytes(few["labels"].tolist())
    content += bytes(USAGES.index(part) for part in few["usage"])
    assert content_hash(few["images"], few["labels"], few["usage"]) == hashlib.sha256(content).hexdigest()


def test_counts_list_every_class(faces):
    chosen = (faces["usage"] != "Training") | (faces["labels"] != 1)
    found = counts(faces["labels"][chosen], faces["usage"][chosen])
    assert found["Training"] == dict.fromkeys(CLASSES, 12) | {"disgust": 0}
    assert found["PrivateTest"] == dict.fromkeys(CLASSES, 5)


# --- the reference -----------------------------------------------------------------------------------


def test_reference_survives_saving(planted, tmp_path):
    known_reference.save(planted, tmp_path / "a.csv.gz")
    known_reference.save(planted, tmp_path / "b.csv.gz")
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    loaded = known_reference.load(tmp_path / "a.csv.gz")
    pd.testing.assert_frame_equal(loaded[planted.columns], planted, check_dtype=False)


def test_packaged_reference_is_small_and_whole():
    reference = known_reference.load()
    assert known_reference.PATH.stat().st_size < 900_000
    # The numbers of the published set: images, images by split, recovered ones.
    assert len(reference) == 35887 and reference["recovered"].sum() == 149
    assert reference["usage"].value_counts().to_dict() == {
        "Training": 28709,
        "PublicTest": 3589,
        "PrivateTest": 3589,
    }
    assert reference["pixel_hash"].str.fullmatch("[0-9a-f]{16}").all()


@pytest.mark.parametrize("content", [b"", b"no,reference\n1,2\n", b"\x1f\x8b broken"])
def test_broken_reference_is_named(tmp_path, content):
    path = tmp_path / "broken.csv.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="broken.csv.gz"):
        known_reference.load(path)


def test_command_makes_the_reference(small_set, tmp_path):
    archive = small_set.write_zip(tmp_path / "few.zip")
    names = list(small_set.files)
    (tmp_path / "recovered.txt").write_text("\n".join(names[:2]))
    out = tmp_path / "made.csv.gz"
    assert known_reference.main([str(archive), str(tmp_path / "recovered.txt"), "--out", str(out)]) == 0
    made = known_reference.load(out)
    assert sorted(made["pixel_hash"]) == sorted(pixel_hash(small_set.images))
    assert set(made["name"][made["recovered"]]) == {name.split("/")[-1][:-4] for name in names[:2]}


def test_command_refuses_names_that_are_not_there(small_set, tmp_path):
    archive = small_set.write_zip(tmp_path / "few.zip")
    (tmp_path / "recovered.txt").write_text("train/angry/Training_none.jpg\n")
    with pytest.raises(DataError, match="0 of its 1 names"):
        known_reference.main([str(archive), str(tmp_path / "recovered.txt"), "--out", str(tmp_path / "x.gz")])
    assert not (tmp_path / "x.gz").exists()


# --- known copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("jpeg", [True, False])
def test_kaggles_pixels_are_known(faces, planted, named, jpeg):
    copy = faces if named else faces | {"ids": row_ids(faces["labels"], faces["usage"])}
    result = describe(copy, planted, form="zip" if named else "csv", jpeg=jpeg, notes=["a remark"])
    assert (result["variant"], result["known"], result["differences"]) == ("fer2013-kaggle-jpeg", True, [])
    assert "all 154 images match" in result["description"] and "grey level" not in result["description"]
    assert result["n_images"] == 154 and result["notes"] == ["a remark"]
    assert json.loads(json.dumps(result)) == result


def test_names_do_not_change_the_hash(faces, planted):
    unnamed = faces | {"ids": row_ids(faces["labels"], faces["usage"])}
    assert describe(faces, planted)["sha256"] == describe(unnamed, planted)["sha256"]


@pytest.mark.parametrize("named", [True, False])
def test_lossless_pixels_are_known(lossless, planted, named):
    copy = lossless if named else lossless | {"ids": row_ids(lossless["labels"], lossless["usage"])}
    result = describe(copy, planted, form="csv")
    assert (result["variant"], result["known"]) == ("fer2013-csv-lossless", True)
    assert "lossless" in result["description"] and "all 154 images" in result["description"]


def test_to_jpeg_is_a_round_trip_at_quality_95(lossless):
    images = lossless["images"][:10]
    assert (to_jpeg(images) == encode(images)).all()


@pytest.mark.parametrize("named", [True, False])
def test_another_decoder_is_known_and_said(faces, planted, named):
    noise = np.random.default_rng(1).integers(-1, 2, faces["images"].shape)
    images = np.clip(faces["images"].astype(int) + noise, 0, 255).astype(np.uint8)
    copy = faces | {"images": images}
    if not named:
        copy["ids"] = row_ids(faces["labels"], faces["usage"])
    result = describe(copy, planted, jpeg=True)
    assert (result["variant"], result["known"]) == ("fer2013-kaggle-jpeg", True)
    assert "154 of them within about a grey level only" in result["description"]


def test_recovered_images_need_not_match_exactly(faces, planted):
    chosen = [3, 60, 100]
    recovered = {"/".join(name.split("/")[1:]) for name in faces["ids"][chosen]}
    flagged = known_reference.build(**faces, recovered=recovered)
    images = faces["images"].copy()
    images[chosen] = np.clip(images[chosen], 0, 253) + 2  # brighter than a decoder would make it
    copy = faces | {"images": images}
    unnamed = copy | {"ids": row_ids(faces["labels"], faces["usage"])}
    for result in (describe(copy, flagged, jpeg=True), describe(unnamed, flagged, form="csv")):
        assert (result["variant"], result["known"]) == ("fer2013-kaggle-jpeg", True)
        assert "(3 that the reference knows approximately" in result["description"]
    assert not describe(copy, planted, jpeg=True)["known"]
    images[chosen] = blur(images[chosen])
    assert not describe(copy, flagged, jpeg=True)["known"]


# --- altered copies ----------------------------------------------------------------------------------


def altered(copy, planted, **options):
    result = describe(copy, planted, **options)
    assert (result["variant"], result["known"]) == ("fer2013-modified", False)
    assert result["differences"] and result["description"].startswith("FER2013, but altered: ")
    return result["differences"]


@pytest.mark.parametrize("named", [True, False])
def test_blurred_training_half(faces, planted, named):
    training = faces["usage"] == "Training"
    images = faces["images"].copy()
    images[training] = blur(images[training])
    copy = faces | {"images": images}
    if not named:
        copy["ids"] = row_ids(faces["labels"], faces["usage"])
    (text,) = altered(copy, planted)
    ratio = float(text.split("sharpness ")[1].split()[0])
    expected = np.median(sharpness(images[training]) / sharpness(faces["images"][training]))
    assert text.startswith("train: 84 of 84 images blurred, or resized and back")
    assert ratio == pytest.approx(expected, abs=0.006 if named else 0.1)


def test_blurred_whole_csv_is_still_recognised(faces, planted):
    copy = faces | {"images": blur(faces["images"]), "ids": row_ids(faces["labels"], faces["usage"])}
    train, test = altered(copy, planted, form="csv")
    assert "train: 84 of 84 images blurred" in train and "test: 70 of 70 images blurred" in test


def test_resized_and_back(faces, planted):
    images = [Image.fromarray(i).resize((24, 24)).resize((48, 48), Image.BICUBIC) for i in faces["images"]]
    train, test = altered(faces | {"images": np.stack([np.asarray(i) for i in images])}, planted)
    assert "resized and back" in train and "resized and back" in test


def test_stretched_contrast(faces, planted):
    x = faces["images"].astype(float)
    flat = x.mean(axis=(1, 2), keepdims=True)
    duller = np.rint(flat + (x - flat) * 0.5).astype(np.uint8)
    reference = known_reference.build(**faces | {"images": duller})
    low, high = (f(duller.astype(float), axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    full = np.rint((duller - low) / (high - low) * 255).astype(np.uint8)
    texts = altered(faces | {"images": full}, reference)
    ratio = np.median((full.std(axis=(1, 2)) / duller.std(axis=(1, 2)))[faces["usage"] == "Training"])
    assert texts[0].startswith("train: 84 of 84 images contrast stretched")
    said = float(texts[0].split("standard deviation ")[1].split()[0])
    assert said == pytest.approx(ratio, abs=0.02) and "100% span the full range" in texts[0]
    assert "blurred" not in texts[0] and "sharpened" not in texts[0]


def test_lowered_contrast_and_brightness(faces, planted):
    images = (faces["images"] // 2 + 100).astype(np.uint8)
    texts = altered(faces | {"images": images}, planted)
    assert "contrast lowered" in texts[0] and "brightness shifted by +" in texts[0]


def test_sharpened(faces, planted):
    x = faces["images"].astype(float)
    images = np.clip(np.rint(1.5 * x - 0.5 * blur(faces["images"])), 0, 255).astype(np.uint8)
    assert "sharpened, or noise added" in altered(faces | {"images": images}, planted)[0]


@pytest.mark.parametrize("encoded", [True, False])
def test_mirrored(faces, planted, encoded):
    images = faces["images"][:, :, ::-1]
    texts = altered(faces | {"images": to_jpeg(images) if encoded else images}, planted)
    assert "mirrored" in texts[0] and "mirrored" in texts[1]
    if not encoded:
        assert texts == ["train: 84 of 84 images mirrored", "test: 70 of 70 images mirrored"]


def test_missing_images_are_counted_and_named(faces, planted):
    lost = np.flatnonzero(faces["usage"] == "Training")[[0, 1, 40]]
    (text,) = altered(take(faces, np.setdiff1d(np.arange(154), lost)), planted)
    assert text.startswith("train: 3 of the 84 known images are missing (")
    for label in set(faces["labels"][lost]):
        assert f"{CLASSES[label]} {(faces['labels'][lost] == label).sum()}" in text
    for name in faces["ids"][lost]:
        assert name.removesuffix(".jpg") in text


def test_of_two_identical_images_the_right_one_is_missing(faces):
    images = faces["images"].copy()
    images[1] = images[0]
    assert faces["labels"][0] == faces["labels"][1] and faces["usage"][0] == faces["usage"][1]
    copy = faces | {"images": images}
    for lost in (0, 1):
        kept = take(copy, np.arange(154) != lost)
        missing = compare(**kept, reference=known_reference.build(**copy)).missing
        assert missing["name"].tolist() == [names_of(faces["ids"])[lost].removesuffix(".jpg")]


def test_class_without_images(faces, planted):
    texts = altered(take(faces, faces["labels"] != 1), planted)
    assert texts[0].startswith("train: 12 of the 84 known images are missing (disgust 12), all of disgust")
    assert texts[1].startswith("test: 10 of the 70 known images are missing (disgust 10), all of disgust")


@pytest.mark.parametrize("named", [True, False])
def test_split_anew(faces, planted, named):
    usage = np.random.default_rng(2).permutation(faces["usage"])
    names = names_of(faces["ids"]) if named else None
    ids = make_ids(faces["labels"], usage, names) if named else row_ids(faces["labels"], usage)
    (text,) = altered(faces | {"usage": usage, "ids": ids}, planted)
    was, now = faces["usage"] == "Training", usage == "Training"
    swapped = (~was & ~now & (faces["usage"] != usage)).sum()
    assert text == (
        f"split anew: {(was & ~now).sum()} of 84 training images stand in test, "
        f"{(~was & now).sum()} of 70 test images stand in train, "
        f"{swapped} test images changed between PublicTest and PrivateTest"
    )


@pytest.mark.parametrize("named", [True, False])
def test_relabelled(faces, planted, named):
    labels = faces["labels"].copy()
    chosen = np.flatnonzero(faces["usage"] == "Training")[:5]
    labels[chosen] = (labels[chosen] + 1) % 7
    names = names_of(faces["ids"]) if named else None
    ids = make_ids(labels, faces["usage"], names) if named else row_ids(labels, faces["usage"])
    (text,) = altered(faces | {"labels": labels, "ids": ids}, planted)
    assert text.startswith("train: 5 images stand under another class (")


def test_moved_and_relabelled(faces, planted):
    usage, labels = faces["usage"].copy(), faces["labels"].copy()
    usage[0], labels[0] = "PublicTest", (labels[0] + 1) % 7
    copy = faces | {"usage": usage, "labels": labels, "ids": make_ids(labels, usage, names_of(faces["ids"]))}
    (text,) = altered(copy, planted)
    assert "1 of 84 training images stand in test, 1 of all these stand under another class" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x[:, :, ::-1], "mirrored copies of known ones"),
        (lambda x: to_jpeg(x[:, :, ::-1]), "mirrored copies of known ones"),
        (lambda x: x, "repeat known ones"),
        (lambda x: ndimage.rotate(x, 20, (2, 1), reshape=False), "not among the known ones"),
    ],
    ids=["mirrored", "mirrored and encoded", "repeated", "rotated"],
)
def test_augmented(faces, planted, change, expected):
    more = take(faces, np.flatnonzero(faces["usage"] == "Training")[::3])
    ids = np.array([name.replace(".jpg", "_extra.jpg") for name in more["ids"]])
    texts = altered(join(faces, more | {"images": change(more["images"]), "ids": ids}), planted)
    assert texts[0].startswith("train: ") and expected in texts[0] and ids[0] in texts[0]
    if len(texts) == 1:
        assert texts[0].startswith("train: 28 extra images")
    assert sum(int(text.split()[1]) for text in texts) == 28
    assert int(texts[0].split()[1]) >= 24


def test_mixture_of_both_known_variants(faces, lossless, planted):
    test = faces["usage"] != "Training"
    images = np.where(test[:, None, None], lossless["images"], faces["images"])
    (text,) = altered(faces | {"images": images}, planted)
    assert text == "84 images as Kaggle's JPEG files have them, 70 with lossless pixels"


def test_description_is_cut_short(faces, planted):
    images, usage = faces["images"].copy(), faces["usage"].copy()
    images[:] = blur(images)
    usage[[0, 90]] = usage[[90, 0]]
    ids = make_ids(faces["labels"], usage, names_of(faces["ids"]))
    copy = faces | {"images": images, "usage": usage, "ids": ids}
    result = describe(take(copy, np.arange(154) != 50), planted)
    assert len(result["differences"]) == 4
    assert result["description"].endswith("; and 1 more.") and "e.g." not in result["description"]


def test_other_images_are_unknown(faces, planted):
    rng = np.random.default_rng(3)
    few = take(faces, slice(0, 50))
    copy = few | {
        "images": rng.integers(0, 256, (50, 48, 48)).astype(np.uint8),
        "ids": np.array([f"Training/angry/other{i}.png" for i in range(50)]),
    }
    result = describe(copy, planted)
    assert (result["variant"], result["known"]) == ("unknown", False)
    assert "of 50 images 0.0% are known" in result["description"]


def test_synthetic_is_what_it_was_told(faces, planted):
    result = describe(faces, planted, form="synthetic")
    assert (result["variant"], result["known"]) == ("synthetic", False)
    assert result["description"].startswith("Synthetic")


# --- the real set ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_data, tmp_path_factory):
    dataset = load(real_data, cache=tmp_path_factory.mktemp("cache"), on_message=lambda text: None)
    return {name: getattr(dataset, name) for name in ("images", "labels", "usage", "ids")} | {
        "fingerprint": dataset.fingerprint
    }


def real_differences(real, **changed):
    copy = {name: real[name] for name in ("images", "labels", "usage", "ids")} | changed
    result = fingerprint(**copy, form="zip", decoder="test", jpeg=True)
    assert result["variant"] == "fer2013-modified"
    return result["differences"]


def test_real_set_is_known(real):
    assert real["fingerprint"]["variant"] == "fer2013-kaggle-jpeg" and real["fingerprint"]["known"]
    assert real["fingerprint"]["n_images"] == 35887


def test_real_set_as_csv_is_known(real):
    ids = row_ids(real["labels"], real["usage"])
    result = fingerprint(real["images"], real["labels"], real["usage"], ids, form="csv", decoder="none")
    assert (result["variant"], result["known"]) == ("fer2013-kaggle-jpeg", True)
    assert result["sha256"] == real["fingerprint"]["sha256"]


def test_real_set_blurred(real):
    images = np.array(real["images"])
    training = real["usage"] == "Training"
    images[training] = blur(images[training])
    (text,) = real_differences(real, images=images)
    assert "images blurred" in text and text.startswith("train: ")


def test_real_set_with_files_missing(real):
    kept = np.ones(35887, bool)
    kept[::400] = False
    fields = ("images", "labels", "usage", "ids")
    texts = real_differences(real, **{name: real[name][kept] for name in fields})
    assert sum(int(text.split()[1].replace(",", "")) for text in texts) == (~kept).sum()
    assert all("known images are missing" in text for text in texts)


def test_real_set_split_anew(real):
    usage = np.random.default_rng(4).permutation(real["usage"])
    ids = make_ids(real["labels"], usage, names_of(real["ids"]))
    (text,) = real_differences(real, usage=usage, ids=ids)
    # An image that stands in both halves and changes places with its twin has not moved: count contents, not
    # files.
    contents = pd.DataFrame({"label": real["labels"], "pixels": pixel_hash(real["images"])})
    before, after = (contents[part == "Training"].value_counts() for part in (real["usage"], usage))
    moved = before.sub(after, fill_value=0).clip(lower=0).sum()
    assert text.startswith(f"split anew: {moved:,.0f} of 28,709 training images stand in test")
