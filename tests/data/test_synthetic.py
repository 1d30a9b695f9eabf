import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import synthetic


@pytest.fixture(scope="module")
def faces():
    return synthetic.make_faces()


def count(labels, usage):
    return {u: {c: int(((usage == u) & (labels == i)).sum()) for i, c in enumerate(CLASSES)} for u in USAGES}


def test_default_set_is_small_and_in_proportion(faces):
    images, labels, usage = faces
    assert images.dtype == np.uint8 and images.shape[1:] == (48, 48)
    assert labels.dtype == np.int64 and usage.dtype.kind == "U"
    assert len(images) == len(labels) == len(usage) and 1500 < len(images) < 2500
    counts = count(labels, usage)
    assert counts == synthetic.default_counts()
    for usage_name, cells in counts.items():
        assert min(cells.values()) >= 20
        assert max(cells, key=cells.get) == "happy" and min(cells, key=cells.get) == "disgust"
        assert cells["happy"] == pytest.approx(synthetic.FER2013_COUNTS[usage_name]["happy"] / 18, abs=0.5)


def test_no_two_faces_are_alike_and_none_is_blank(faces):
    images = faces[0]
    assert len({image.tobytes() for image in images}) == len(images)
    assert images.reshape(len(images), -1).std(axis=1).min() > 2


def test_same_seed_same_faces_other_seed_other_faces():
    counts = {"Training": {"happy": 3, "sad": 2}}
    first, again, other = (synthetic.make_faces(counts, seed)[0] for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_asking_for_more_leaves_the_first_faces_as_they_were():
    few = synthetic.make_faces({"PublicTest": {"fear": 2}})
    many = synthetic.make_faces({"Training": {"angry": 1}, "PublicTest": {"fear": 4, "neutral": 1}})
    fear = (many[1] == CLASSES.index("fear")) & (many[2] == "PublicTest")
    np.testing.assert_array_equal(few[0], many[0][fear][:2])
    assert count(many[1], many[2])["PublicTest"] == {c: {"fear": 4, "neutral": 1}.get(c, 0) for c in CLASSES}


def test_expressions_differ_where_a_person_would_look():
    """Draw one person twice: what differs between two emotions is the part of the face that should."""

    def person(name):
        return synthetic.draw_face(synthetic.EXPRESSIONS[name].to_dict(), np.random.default_rng(5)).astype(int)

    for a, b in [("happy", "sad"), ("surprise", "neutral"), ("angry", "fear")]:
        difference = np.abs(person(a) - person(b))
        assert difference[12:44, 10:38].mean() > 4 * difference[:6].mean() + 1


def test_classes_can_be_learnt_but_not_perfectly(faces):
    images, labels, usage = faces
    x = images.reshape(len(images), -1) / 255
    train, test = usage == "Training", usage != "Training"
    model = make_pipeline(StandardScaler(), PCA(60, random_state=0), StandardScaler(), LogisticRegression(max_iter=300))
    accuracy = model.fit(x[train], labels[train]).score(x[test], labels[test])
    majority = np.bincount(labels[test]).max() / test.sum()
    assert majority + 0.1 < accuracy < 0.9
