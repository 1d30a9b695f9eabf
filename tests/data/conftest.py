"""The real FER2013, read once for all tests of this room."""

import pytest

from fer_utils.data.dataset import load


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory):
    """Return the folder in which the real dataset is cached."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def real_dataset(real_data, real_cache):
    """Return the real dataset; skips the test where there is none."""
    return load(real_data, real_cache, lambda message: None)
