"""A version is answered by the engine that was chosen for it, after its golden requests were."""

from dataclasses import replace

import pytest
import torch

from features.store import open_store
from recsys.config import StoreConfig
from recsys.errors import BundleError
from recsys.model import engines
from recsys.model.engines import Engine
from serving import engine_choice
from serving.devices import ON_CPU
from serving.loading import load_model

AUTO = replace(ON_CPU, engine="auto")


@pytest.fixture
def load(bundle_folder, tmp_path, monkeypatch):
    """Load the bundle with another engine on offer, which is twice as fast."""
    monkeypatch.setattr(
        engines, "_measured", lambda right, _: {e.name: 1.0 / n for n, e in enumerate(right, 1)}
    )

    def with_offered(make, devices=AUTO):
        monkeypatch.setattr(engine_choice, "_offered", lambda scorer: [make(scorer)])
        return load_model(bundle_folder, open_store(StoreConfig(), tmp_path), devices)

    return with_offered


def test_the_faster_engine_answers(load):
    model = load(lambda scorer: Engine("other", lambda *tensors: scorer.network(*tensors) + 1e-7))
    assert model.engine == "other" == model.scorer.engine.name


def test_the_config_can_ask_for_eager(load):
    def never(scorer):
        raise AssertionError("no other engine was asked for")

    assert load(never, ON_CPU).engine == "eager"


def test_a_wrong_engine_does_not_answer(load):
    model = load(lambda scorer: Engine("other", lambda *tensors: scorer.network(*tensors) * 1.01))
    assert model.engine == "eager"


def test_golden_requests_are_answered_by_the_engine_that_was_chosen(load):
    """Right on what engines are compared on, wrong on the twenty items of a golden request."""

    def fails_on_few(*tensors, network):
        return network(*tensors) + (tensors[0].shape[0] == 20)

    with pytest.raises(BundleError, match="does not reproduce the bundle"):
        load(lambda scorer: Engine("other", lambda *tensors: fails_on_few(*tensors, network=scorer.network)))


def test_bfloat16_where_the_processor_multiplies_it(bundle_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_choice, "has_fast_bf16", lambda _: True)
    monkeypatch.setattr(
        engines, "_measured", lambda right, _: {e.name: float(e.name == "eager") for e in right}
    )
    model = load_model(bundle_folder, open_store(StoreConfig(), tmp_path), AUTO)
    assert model.engine == "bfloat16"
    assert model.scorer.engine.run.product_type == torch.bfloat16
    assert model.scorer.network.product_type == torch.float32, "the reference stays as it was"
