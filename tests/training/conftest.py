"""A bundle as a predictor: read-only, for all of `training`."""

import pytest

from recsys.bundle import load_bundle
from training.predict import BundlePredictor


@pytest.fixture(scope="session")
def predictor(bundle_folder):
    return BundlePredictor(load_bundle(bundle_folder))
