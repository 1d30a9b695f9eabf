import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fer_utils.constants import CLASSES, USAGES
from fer_utils.data import audit

#: usage, label, pixels (one letter an image), standard deviation, sharpness; counted by hand below.
ROWS = [
    ("Training", 0, "a", 50.0, 100.0),
    ("Training", 0, "a", 50.0, 200.0),
    ("Training", 2, "a", 50.0, 300.0),
    ("Training", 3, "b", 1.9, 400.0),
    ("Training", 4, "c", 2.0, 500.0),
    ("PublicTest", 0, "a", 50.0, 10.0),
    ("PublicTest", 5, "b", 1.9, 30.0),
    ("PublicTest", 1, "d", 50.0, 20.0),
    ("PrivateTest", 4, "c", 2.0, 7.0),
    ("PrivateTest", 6, "e", 0.0, 7.0),
    ("PrivateTest", 6, "e", 0.0, 7.0),
]


@pytest.fixture
def table():
    usage, label, pixels, std, sharpness = zip(*ROWS, strict=True)
    ids = [f"{u}/{CLASSES[k]}/{u}_{i}.jpg" for i, (u, k) in enumerate(zip(usage, label, strict=True))]
    return pd.DataFrame(
        {
            "id": ids,
            "usage": usage,
            "label": np.array(label, np.int8),
            "pixel_hash": pixels,
            "std": np.array(std, np.float32),
            "sharpness": np.array(sharpness, np.float32),
        },
        index=range(100, 111),  # nothing may rely on a default index
    )


def test_image_table_layout(small_set):
    ids = np.array(list(small_set.files))
    types = {
        name: str(kind)
        for name, kind in audit.image_table(small_set.images, small_set.labels, small_set.usage, ids).dtypes.items()
    }
    assert list(types) == ["id", "usage", "label", "pixel_hash", "mean", "std", "sharpness"]
    assert types["label"] == "int8" and {types[name] for name in ("mean", "std", "sharpness")} == {"float32"}


def test_audit_counted_by_hand(table):
    found = audit.audit(table)
    assert {name: found[name] for name in found if name.startswith("n_")} == {
        "n_images": 11,
        "n_distinct": 5,
        "n_duplicate_groups": 4,  # a, b, c, e
        "n_conflicting_groups": 2,  # a: angry and fear; b: happy and sad
        "n_conflicting_images": 6,
        "n_groups_across_usages": 3,  # a, b, c
        "n_duplicates_within": {"Training": 2, "PublicTest": 0, "PrivateTest": 1},
        "n_test_in_train": 3,
        "n_test_in_train_public": 2,
        "n_test_in_train_private": 1,
        "n_test_in_train_other_label": 1,  # b
        "n_near_constant": 4,  # b twice, e twice; 2.0 itself is not below 2
    }
    assert found["counts"]["PrivateTest"] == dict.fromkeys(CLASSES, 0) | {"neutral": 1, "surprise": 2}
    assert found["sharpness"]["Training"] == {"lower_quartile": 200, "median": 300, "upper_quartile": 400}
    assert found["sharpness"]["PublicTest"] == {"lower_quartile": 15, "median": 20, "upper_quartile": 25}
    assert json.loads(json.dumps(found)) == found


def test_a_set_without_duplicates(table):
    found = audit.audit(table.drop_duplicates("pixel_hash"))
    assert found["n_images"] == found["n_distinct"] == 5
    assert found["n_duplicate_groups"] == found["n_conflicting_groups"] == found["n_test_in_train"] == 0


def test_duplicate_groups_say_who(table):
    groups = audit.duplicate_groups(table)
    assert groups.index[0] == "a" and groups.loc["a", "n_images"] == 4
    assert groups.loc["a", "labels"] == "angry 3, fear 1"
    assert groups.loc["a", "usages"] == "Training 3, PublicTest 1"
    assert groups.loc["c", "ids"] == sorted(table["id"][table["pixel_hash"] == "c"])
    assert set(audit.conflicting_groups(table).index) == {"a", "b"}


def test_in_training_marks_test_images_only(table):
    assert table["id"][audit.in_training(table)].tolist() == [
        "PublicTest/angry/PublicTest_5.jpg",
        "PublicTest/sad/PublicTest_6.jpg",
        "PrivateTest/neutral/PrivateTest_8.jpg",
    ]


def test_class_counts(table):
    counts = audit.class_counts(table)
    assert counts.index.tolist() == [*CLASSES, "all"]
    assert counts.columns.tolist() == [*USAGES, "all", "thesis"]
    assert counts.loc["angry"].tolist()[:4] == [2, 1, 0, 3]
    assert counts.loc["disgust"].tolist()[:4] == [0, 1, 0, 1]
    assert counts.loc["all"].tolist()[:4] == [5, 3, 3, 11]


def test_class_counts_without_a_usage(table):
    counts = audit.class_counts(table[table["usage"] == "Training"])
    assert counts["PublicTest"].tolist() == [0] * 8 and counts.loc["all", "all"] == 5


def test_thesis_counts_are_those_of_the_claims():
    text = (Path(audit.__file__).parents[1] / "claims" / "claims.yaml").read_text(encoding="utf-8")
    said = {claim["id"]: claim["thesis"].replace(",", "") for claim in yaml.safe_load(text)["claims"]}
    words = said["D02"].split()
    assert dict(zip(words[::2], map(int, words[1::2]), strict=True)) == audit.THESIS_COUNTS
    assert int(said["D01"]) == audit.THESIS_TOTAL
