"""On a second device, ranked lists, logged candidates and the losses of a search are the processor's."""

import dataclasses

import numpy as np
import pytest
import torch

from recsys.bundle import load_bundle
from recsys.source_terms import SourceTerms
from training.evaluation.audience import find_audience
from training.evaluation.choices import read_choices
from training.evaluation.lists import _top_places, ranked_lists, top_places
from training.predict import BundlePredictor, moved
from training.tune.model.bench import ModelBench

DAY = 5


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    loaded = load_bundle(bundle_folder)
    fusion = loaded.manifest.fusion.with_sources(SourceTerms(retrieval=0.5, item_item=0.3))
    return dataclasses.replace(loaded, manifest=loaded.manifest.model_copy(update={"fusion": fusion}))


@pytest.fixture(scope="module")
def here(bundle):
    return BundlePredictor(bundle)


@pytest.fixture
def there(bundle, pretend):
    return BundlePredictor(bundle, pretend)


def test_ranked_lists(here, there, shop_chain, config, waits):
    audience = find_audience(shop_chain, DAY, config, max_users=None, seed=0)
    wanted = ranked_lists(here, audience)
    waits.clear()
    found = ranked_lists(there, audience)
    assert audience.num_users > 5
    count = len(waits)
    waits.clear()
    ranked_lists(there, find_audience(shop_chain, DAY, config, max_users=3, seed=0))
    assert len(waits) == count, "copies to and from the device do not grow with the users"
    np.testing.assert_array_equal(found.retrieved, wanted.retrieved)
    np.testing.assert_array_equal(found.ranked, wanted.ranked)


def test_logged_candidates(here, there, shop_log, shop_chain):
    wanted = read_choices(here, shop_log, shop_chain, [4, DAY]).choices
    found = read_choices(there, shop_log, shop_chain, [4, DAY]).choices
    assert wanted
    for one, other in zip(wanted, found, strict=True):
        assert one.request_id == other.request_id
        for task, values in one.predictions.items():
            np.testing.assert_allclose(other.predictions[task], values, atol=1e-6)
        assert set(one.sources) == {"retrieval", "item_item"}
        for name, values in one.sources.items():
            np.testing.assert_allclose(other.sources[name], values, atol=1e-6)


def test_losses_of_a_search(shop_chain, config, pretend, monkeypatch):
    """The retrieval loss too: model and tables are on the device while a trial trains."""
    bench, measured = ModelBench(shop_chain, config), []

    def measure(ranker, tables):
        measured.append((ranker, tables))
        return ModelBench.measure(bench, ranker, tables)

    monkeypatch.setattr(bench, "measure", measure)
    wanted = bench.train(config).losses
    found = ModelBench.measure(bench, *moved(*measured[0], pretend)).losses
    assert set(found) == {"click", "purchase", "rating", "retrieval"}
    assert found == pytest.approx(wanted, rel=1e-4)


def test_the_best_places_on_a_device(pretend):
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.9], [1.0, 2.0, 3.0, 4.0]])
    allowed = np.array([[True, True, True, True], [True, False, False, False]])
    for places in (1, 3, 6):
        found = _top_places(scores.to(pretend), torch.from_numpy(allowed), places)
        np.testing.assert_array_equal(found, top_places(scores.numpy(), allowed, places))
