"""The real FER2013, read once for all tests of this room."""

import pytest

from fer_utils.data.dataset import load


@pytest.fixture(scope="session")
def real_dataset(real_data, real_cache):
    """Return the real dataset; skips the test where there is none."""
    return load(real_data, real_cache, lambda message: None)
