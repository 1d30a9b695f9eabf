import hashlib
import io
import json

import numpy as np
import pytest
from conftest import encode
from PIL import Image
from scipy import fft, ndimage

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import identity, reference, verdict
from fer_utils.data.dataset import content_hash
from fer_utils.data.identity import pixel_hash, statistics, to_jpeg
from fer_utils.data.synthetic import make_faces
from fer_utils.errors import DataError


def names_for(usage):
    return np.array([f"{part}_{31 * i}.jpg" for i, part in enumerate(usage)])


def row_names(n):
    return np.array([f"row-{i:06d}" for i in range(n)])


def levels(x):
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def blur(images, sigma=1):
    return levels(ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma)))


@pytest.fixture(scope="module")
def lossless():
    """154 drawn faces with a little noise, which no JPEG keeps."""
    images, labels, usage = make_faces(
        {u: dict.fromkeys(CLASSES, n) for u, n in zip(USAGES, (12, 5, 5), strict=True)}, 5
    )
    images = levels(images + np.random.default_rng(0).normal(0, 1.6, images.shape))
    return {"images": images, "labels": labels, "usage": usage, "names": names_for(usage)}


@pytest.fixture(scope="module")
def faces(lossless):
    """The same faces as Kaggle's files have them. Do not change them."""
    return lossless | {"images": to_jpeg(lossless["images"])}


@pytest.fixture(scope="module")
def planted(faces, tmp_path_factory):
    """A reference of the faces, written and read as the package's own is."""
    path = tmp_path_factory.mktemp("reference") / "small.parquet"
    reference.save(reference.build(**faces), path)
    return identity.load_reference(path)


def identify(copy, planted, form="folder", jpeg=False):
    """Identify a copy as it comes from folders, which do not tell PublicTest from PrivateTest, or from a CSV."""
    usage = copy["usage"]
    if form == "folder":
        usage = np.where(usage == "Training", "Training", "test")
    return verdict.identify(copy["images"], copy["labels"], usage, copy["names"], jpeg=jpeg, reference=planted)


def differences(copy, planted, **options):
    usage, found = identify(copy, planted, **options)
    assert (found["variant"], found["known"]) == ("fer2013-modified", False)
    assert found["description"].startswith("FER2013, but altered: ")
    assert json.loads(json.dumps(found)) == found
    return found["differences"]


def take(copy, rows):
    return {name: values[rows] for name, values in copy.items()}


def join(first, second):
    return {name: np.concatenate([first[name], second[name]]) for name in first}


# --- numbers of an image ------------------------------------------------------------------------------------------


def test_pixel_hash_is_blake2b_of_the_pixels(faces):
    view = faces["images"][:3, :, ::-1]
    expected = [hashlib.blake2b(bytes(image.ravel().tolist()), digest_size=8).hexdigest() for image in view]
    assert pixel_hash(view).tolist() == expected


def test_statistics_agree_with_scipy(faces):
    images = faces["images"][:5]
    table = statistics(images)
    expected = [ndimage.laplace(image.astype(float))[1:-1, 1:-1].var() for image in images]
    assert table["sharpness"].to_numpy() == pytest.approx(expected, rel=1e-4)
    assert table["mean"].to_numpy() == pytest.approx(images.mean(axis=(1, 2)), rel=1e-5)
    assert table["std"].to_numpy() == pytest.approx(images.std(axis=(1, 2)), rel=1e-4)


def test_rms_is_that_of_the_pixels(faces, planted):
    """The estimate from 16 products has an error of about a fifth for one image, and less for many."""
    for sigma in (1, 4, 16):
        changed = faces["images"] + np.random.default_rng(sigma).normal(0, sigma, faces["images"].shape)
        found = identity.rms(identity.products(changed), changed.mean(axis=(1, 2)), planted)
        truth = np.sqrt(((changed - faces["images"].astype(float)) ** 2).mean(axis=(1, 2)))
        assert np.sqrt((found**2).mean()) == pytest.approx(np.sqrt((truth**2).mean()), rel=0.06)
        assert np.std(found / truth) < 0.25


def test_content_hash_is_sha256_of_pixels_labels_usage(faces):
    few = take(faces, slice(0, 4))
    content = few["images"].tobytes() + bytes(few["labels"].tolist())
    content += bytes(USAGES.index(part) for part in few["usage"])
    assert content_hash(few["images"], few["labels"], few["usage"]) == hashlib.sha256(content).hexdigest()


# --- the reference ------------------------------------------------------------------------------------------------


def test_packaged_reference_is_small_and_whole():
    table = identity.load_reference(identity.REFERENCE)
    assert identity.REFERENCE.stat().st_size < 900_000
    # The numbers of the published set: images, images by split, recovered ones.
    assert len(table) == 35887 and table["recovered"].sum() == 149
    assert [int((table["usage"] == part).sum()) for part in USAGES] == [28709, 3589, 3589]
    assert table["pixel_hash"].str.fullmatch("[0-9a-f]{10}").all()


@pytest.mark.parametrize("content", [b"", b"no,reference\n1,2\n"])
def test_broken_reference_is_named(tmp_path, content):
    (tmp_path / "broken.parquet").write_bytes(content)
    with pytest.raises(DataError, match="broken.parquet"):
        identity.load_reference(tmp_path / "broken.parquet")


def test_command_makes_the_reference(small_set, tmp_path):
    archive, out = small_set.write_zip(tmp_path / "few.zip"), tmp_path / "made.parquet"
    names = list(small_set.files)
    (tmp_path / "recovered.txt").write_text("\n".join(names[:2]))
    command = [str(archive), str(tmp_path / "recovered.txt"), "--out", str(out)]
    assert reference.main(command) == 0
    made = identity.load_reference(out)
    assert sorted(made["pixel_hash"]) == sorted(text[:10] for text in pixel_hash(small_set.images))
    assert set(made["name"][made["recovered"]]) == {name.split("/")[-1][:-4] for name in names[:2]}
    (tmp_path / "recovered.txt").write_text("train/angry/Training_none.jpg\n")
    with pytest.raises(DataError, match="0 of its 1 names"):
        reference.main(command)


# --- known copies -------------------------------------------------------------------------------------------------


KNOWN = {
    "as Kaggle serves it": (lambda f, x: f["images"], "all 154 images match."),
    "the competition's pixels": (lambda f, x: x, "lossless pixels: encoded as JPEG, all 154"),
    "another decoder": (
        lambda f, x: levels(f["images"] + np.random.default_rng(1).integers(-1, 2, x.shape)),
        "154 of them but for 0.8",
    ),
    "the fast decoder": (
        lambda f, x: decoded_fast(f["images"]),
        "grey levels (RMS), as a JPEG decoder's fast DCT gives, TensorFlow's default",
    ),
    "quality 95 again": (lambda f, x: to_jpeg(f["images"]), "as another JPEG decoder or a second encoding"),
    "progressive JPEG": (
        lambda f, x: np.stack([decoded(encode(i, quality=95, progressive=True)) for i in x]),
        "all 154 images match.",
    ),
}


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


#: ``aanscales`` of libjpeg's jddctmgr.c, its first row.
AAN = np.array([16384, 22725, 21407, 19266, 16384, 12873, 8867, 4520]) / 2**14


def decoded_fast(images):
    """What libjpeg's fast DCT makes of the files of which `images` are what the accurate one makes."""
    step, scale = np.reshape(Image.open(io.BytesIO(encode(images[0], quality=95))).quantization[0], (8, 8)), 4 * AAN
    coefficients = fft.dctn(images.reshape(-1, 6, 8, 6, 8) - 128.0, axes=(2, 4), norm="ortho").swapaxes(2, 3)
    wrong = np.rint(coefficients / step) * np.rint(step * np.outer(scale, AAN)) / np.outer(scale, AAN)
    return levels(fft.idctn(wrong.swapaxes(2, 3), axes=(2, 4), norm="ortho").reshape(images.shape) + 127.5)


@pytest.mark.parametrize(("form", "named"), [("folder", True), ("csv", False)])
@pytest.mark.parametrize("copy", KNOWN)
def test_known_copies(faces, lossless, planted, copy, form, named):
    """Whatever the images are called, their usage is the reference's."""
    make, text = KNOWN[copy]
    names = faces["names"] if named else row_names(154)
    usage, found = identify(faces | {"images": make(faces, lossless["images"]), "names": names}, planted, form)
    variant = "fer2013-csv-lossless" if "competition" in copy else "fer2013-kaggle-jpeg"
    assert (found["variant"], found["known"], found["differences"]) == (variant, True, [])
    assert text in found["description"]
    assert (usage == faces["usage"]).all()


def test_recovered_images_need_not_match_exactly(faces, planted):
    chosen = [3, 60, 100]
    keys = {f"{CLASSES[k]}/{n}" for k, n in zip(faces["labels"][chosen], faces["names"][chosen], strict=True)}
    paths = planted["label"].map(dict(enumerate(CLASSES))) + "/" + planted["name"] + ".jpg"
    images = faces["images"].copy()
    images[chosen] = levels(images[chosen] + np.random.default_rng(2).normal(0, 2.5, images[chosen].shape))
    copy = faces | {"images": images}
    found = identify(copy, planted.assign(recovered=paths.isin(keys)))[1]
    assert "(3 that the reference knows only approximately" in found["description"]
    assert found["known"] and not identify(copy, planted)[1]["known"]


# --- treatments ---------------------------------------------------------------------------------------------------

TREATMENTS = {
    "upside down": (lambda x: x[:, ::-1], "upside down"),
    "mirrored": (lambda x: x[:, :, ::-1], "mirrored"),
    "mirrored and encoded": (lambda x: to_jpeg(x[:, :, ::-1]), "mirrored"),
    "rotated by 90": (lambda x: np.rot90(x, 3, (1, 2)), "rotated by 90 degrees clockwise"),
    "rotated by 180": (lambda x: x[:, ::-1, ::-1], "rotated by 180 degrees"),
    "inverted": (lambda x: 255 - x, "inverted"),
    "quality 75": (lambda x: to_jpeg(x, 75), "encoded as JPEG of quality 75; RMS difference"),
    "quality 90": (lambda x: to_jpeg(x, 90), "encoded as JPEG of quality 90; RMS difference"),
    "gamma": (lambda x: levels(255 * (x / 255) ** 1.5), "changed by a gamma of 1.50; RMS difference"),
    "a little gamma": (lambda x: levels(255 * (x / 255) ** 1.2), "changed by a gamma of 1.20; RMS difference"),
    "noise": (lambda x: levels(x + np.random.default_rng(3).normal(0, 2, x.shape)), "noise of"),
    "shifted": (lambda x: np.roll(x, 1, 2), "shifted by 1 pixel (1 to the right); RMS difference"),
    "brighter": (lambda x: levels(x + 5.0), "brightness shifted; RMS difference"),
    "darker, some of it black": (lambda x: levels(x - 30.0), "brightness shifted; RMS difference"),
    "duller": (lambda x: levels(x / 2 + 60), "contrast lowered; RMS difference"),
    "blurred": (blur, "blurred, or resized and back; RMS difference"),
    "resized": (
        lambda x: np.stack([np.asarray(Image.fromarray(i).resize((24, 24)).resize((48, 48), 3)) for i in x]),
        "blurred, or resized and back; RMS difference",
    ),
    "sharpened": (lambda x: levels(1.5 * x - 0.5 * blur(x)), "sharpened; RMS difference"),
    "sharpened by a kernel": (
        lambda x: levels(ndimage.convolve(x.astype(float), np.reshape([0, -1, 0, -1, 9, -1, 0, -1, 0], (1, 3, 3)) / 5)),
        "sharpened; RMS difference",
    ),
    "contrast, half of it cut off": (lambda x: levels((x - 128.0) * 3 + 128), "altered in a way not recognised; RMS"),
    "turned a little": (
        lambda x: levels(ndimage.rotate(x.astype(float), 3, (2, 1), reshape=False, mode="nearest")),
        "altered in a way not recognised; RMS difference",
    ),
}


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_treatments(faces, planted, treatment):
    """Of one half and of one image of the other."""
    change, text = TREATMENTS[treatment]
    images, training = faces["images"].copy(), faces["usage"] == "Training"
    chosen = training | (np.arange(154) == 100)
    images[chosen] = change(images)[chosen]
    first, second = differences(faces | {"images": images}, planted)
    assert first.startswith(f"train: 84 of 84 images {text}")
    assert second.startswith(f"test: 1 of 70 images {text}")


@pytest.mark.parametrize("treatment", ["brighter", "upside down", "quality 75"])
def test_treatments_without_names(faces, planted, treatment):
    change, text = TREATMENTS[treatment]
    usage, found = identify(faces | {"images": change(faces["images"]), "names": row_names(154)}, planted)
    assert found["differences"][0].startswith(f"train: 84 of 84 images {text}")
    assert found["differences"][1].startswith(f"test: 70 of 70 images {text}")
    assert (usage == faces["usage"]).all()


def test_said_numbers_are_those_of_the_pixels(faces, planted):
    images = blur(faces["images"])
    text = differences(faces | {"images": images}, planted)[0]
    training = faces["usage"] == "Training"
    now, before = (statistics(x[training]) for x in (images, faces["images"]))
    rms = np.sqrt(((images.astype(float) - faces["images"]) ** 2).mean(axis=(1, 2)))[training]
    said = {name: float(text.split(f"{name} ")[1].split()[0]) for name in ("RMS difference", "deviation", "sharpness")}
    assert said["RMS difference"] == pytest.approx(np.median(rms), rel=0.1)
    assert said["deviation"] == pytest.approx(np.median(now["std"] / before["std"]), abs=0.02)
    assert said["sharpness"] == pytest.approx(np.median(now["sharpness"] / before["sharpness"]), abs=0.02)


def test_a_mark_on_a_part_of_an_image_shows(faces, planted):
    images = faces["images"].copy()
    images[40, 2:10, 2:10] = levels(images[40, 2:10, 2:10] * 0.5 + 90)
    (text,) = differences(faces | {"images": images}, planted)
    assert text.startswith("train: 1 of 84 images altered in a way not recognised; RMS difference")


def test_mixture_of_both_known_variants(faces, lossless, planted):
    test = faces["usage"] != "Training"
    images = np.where(test[:, None, None], lossless["images"], faces["images"])
    (text,) = differences(faces | {"images": images}, planted)
    assert text == "84 images as Kaggle's JPEG files have them, 70 with lossless pixels"


# --- what is where ------------------------------------------------------------------------------------------------


def test_missing_images_are_counted_and_named(faces, planted):
    lost = np.flatnonzero(faces["usage"] == "Training")[[0, 1, 40]]
    (text,) = differences(take(faces, np.setdiff1d(np.arange(154), lost)), planted)
    assert text.startswith("train: 3 of the 84 known images are missing (")
    for label in set(faces["labels"][lost]):
        assert f"{CLASSES[label]} {(faces['labels'][lost] == label).sum()}" in text
    assert all(name.removesuffix(".jpg") in text for name in faces["names"][lost])
    texts = differences(take(faces, faces["labels"] != 1), planted)
    assert texts[0].startswith("train: 12 of the 84 known images are missing (disgust 12), all of disgust")


def test_of_two_identical_images_the_right_one_is_missing(faces, tmp_path):
    images = faces["images"].copy()
    images[1] = images[0]
    copy = faces | {"images": images}
    reference.save(reference.build(**copy), tmp_path / "a.parquet")
    planted = identity.load_reference(tmp_path / "a.parquet")
    for lost in (0, 1):
        (text,) = differences(take(copy, np.arange(154) != lost), planted)
        assert text.endswith(f"e.g. Training/angry/{faces['names'][lost].removesuffix('.jpg')}")


@pytest.mark.parametrize("named", [True, False])
def test_split_anew(faces, planted, named):
    usage = np.random.default_rng(2).permutation(faces["usage"])
    copy = faces | {"usage": usage} | ({} if named else {"names": row_names(154)})
    was, now = faces["usage"] == "Training", usage == "Training"
    moved = f"split anew: {(was & ~now).sum()} of 84 training images are in test, "
    moved += f"{(~was & now).sum()} of 70 test images are in train"
    swapped = (~was & ~now & (faces["usage"] != usage)).sum()
    (text,) = differences(copy, planted, form="csv")
    assert text == f"{moved}, {swapped} test images changed between PublicTest and PrivateTest"
    (text,) = differences(copy, planted)  # folders do not tell PublicTest from PrivateTest
    assert text == moved


@pytest.mark.parametrize("named", [True, False])
def test_relabelled(faces, planted, named):
    labels = faces["labels"].copy()
    labels[:5] = (labels[:5] + 1) % 7
    copy = faces | {"labels": labels} | ({} if named else {"names": row_names(154)})
    (text,) = differences(copy, planted)
    assert text.startswith("train: 5 images have another class (")


def test_moved_and_relabelled(faces, planted):
    usage, labels = faces["usage"].copy(), faces["labels"].copy()
    usage[0], labels[0] = "PublicTest", (labels[0] + 1) % 7
    (text,) = differences(faces | {"usage": usage, "labels": labels}, planted)
    assert "1 of 84 training images are in test, 1 of all these have another class" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x[:, :, ::-1], "are mirrored or turned copies of known ones (augmentation)"),
        (lambda x: to_jpeg(x[:, :, ::-1]), "are mirrored or turned copies of known ones (augmentation)"),
        (lambda x: x, "repeat known ones"),
        (lambda x: np.roll(x, 15, 1), "are not among the known ones"),
    ],
    ids=["mirrored", "mirrored and encoded", "repeated", "rolled"],
)
def test_augmented(faces, planted, change, expected):
    more = take(faces, np.flatnonzero(faces["usage"] == "Training")[::3])
    more |= {"images": change(more["images"]), "names": np.array([f"extra{i}.jpg" for i in range(28)])}
    text = differences(join(faces, more), planted)[-1]
    assert text.startswith(f"train: 28 extra images {expected}, e.g. Training/angry/extra0")


def test_leakage_is_named(faces, planted):
    """The whole test set, copied into train."""
    test = take(faces, faces["usage"] != "Training")
    texts = differences(join(faces, test | {"usage": np.full(70, "Training")}), planted)
    assert texts[0] == "data leakage: 70 of 70 test images also appear in train (0 in FER2013 itself)"
    assert texts[-1].startswith("train: 70 extra images repeat known ones")


def test_other_images_are_unknown(faces, planted):
    rng = np.random.default_rng(3)
    copy = faces | {"images": rng.integers(0, 256, (154, 48, 48)).astype(np.uint8)}
    _, found = identify(copy, planted)
    assert (found["variant"], found["known"]) == ("unknown", False)
    assert "of 154 images 0 (0.0%) are known by their pixels; 154 carry names" in found["description"]


# --- the real set -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_dataset):
    names = np.array([name.split("/")[-1] for name in real_dataset.ids])
    return {name: getattr(real_dataset, name) for name in ("images", "labels", "usage")} | {"names": names}


def test_real_set_renamed_is_known(real):
    usage, found = identify(real | {"names": row_names(35887)}, None, jpeg=True)
    assert found["known"] and (usage == real["usage"]).all()


def test_real_set_blurred_half_upside_down_half(real):
    images, training = np.array(real["images"]), real["usage"] == "Training"
    images[training] = blur(images[training])
    images[~training] = images[~training, ::-1]
    texts = differences(real | {"images": images}, None, jpeg=True)
    assert texts[0].startswith("train: 28,") and "images blurred, or resized and back" in texts[0]
    assert texts[-1].startswith("test: 7,17") and texts[-1].endswith("images upside down")


def test_real_set_with_files_missing(real):
    kept = np.ones(35887, bool)
    kept[::400] = False
    texts = differences(take(real, kept), None, jpeg=True)
    assert sum(int(text.split()[1].replace(",", "")) for text in texts) == (~kept).sum()
    assert all("known images are missing" in text for text in texts)
