"""A bundle as a predictor, and the instant at which its log ends: read-only, for all of `training`."""

import pytest

from recsys.bundle import load_bundle
from recsys.log import period_end
from training.predict import BundlePredictor


@pytest.fixture(scope="session")
def predictor(bundle_folder):
    return BundlePredictor(load_bundle(bundle_folder))


@pytest.fixture(scope="session")
def as_of(shop_chain):
    return period_end(shop_chain[-1].day, "UTC")
