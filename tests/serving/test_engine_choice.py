"""A version is answered by the engine that was chosen for it, after its golden requests were."""

import re
from dataclasses import replace

import pytest
import structlog
import torch

from features.store import open_store
from recsys.config import StoreConfig
from recsys.errors import BundleError
from recsys.model import engines
from recsys.model.engines import Engine
from recsys.model.scorer import Scorer
from serving import devices, engine_choice
from serving.devices import ON_CPU
from serving.loading import load_model

AUTO = replace(ON_CPU, engine="auto")


@pytest.fixture
def load(bundle_folder, tmp_path, monkeypatch):
    """Load the bundle with other engines on offer, each faster than the one before."""
    monkeypatch.setattr(
        engines, "_measured", lambda right, _: {e.name: 1.0 / n for n, e in enumerate(right, 1)}
    )

    def with_offered(*makes, where=AUTO):
        monkeypatch.setattr(engine_choice, "_offered", lambda scorer: [make(scorer) for make in makes])
        return load_model(bundle_folder, open_store(StoreConfig(), tmp_path), where)

    return with_offered


def test_the_faster_engine_answers(load):
    model = load(lambda scorer: Engine("other", lambda *tensors: scorer.network(*tensors) + 1e-7))
    assert model.engine == "other" == model.scorer.engine.name


def test_the_config_can_ask_for_eager(load):
    def never(scorer):
        raise AssertionError("no other engine was asked for")

    assert load(never, where=ON_CPU).engine == "eager"


def test_a_wrong_engine_does_not_answer(load):
    model = load(lambda scorer: Engine("other", lambda *tensors: scorer.network(*tensors) * 1.01))
    assert model.engine == "eager"


def misses_golden(network, off=1.0):
    """Be right on what engines are compared on, wrong on the twenty items of a golden request."""

    def run(*tensors):
        if tensors[0].shape[0] == 20 and off is None:
            raise RuntimeError("no kernel for this shape\nat line 1")
        return network(*tensors) + (off if tensors[0].shape[0] == 20 else 0)

    return Engine("bfloat16", run, exact=False)


def test_what_misses_the_golden_requests_gives_way_to_float32_and_the_version_stays(load):
    with structlog.testing.capture_logs() as said:
        model = load(lambda scorer: misses_golden(scorer.network))
    assert model.engine == "eager" == model.scorer.engine.name
    missed = (
        r"golden request golden-000: predictions of \w+ differ by \S+ of their range \(at most 5e-03\), "
        r"100% of retrieved items agree .*: bfloat16 is not exact enough for this bundle"
    )
    assert re.fullmatch(f"bfloat16: {missed}", model.engines_refused)
    (refused,) = (line for line in said if line["event"] == "engine_refused")
    assert (refused["engine"], refused["answers_with"]) == ("bfloat16", "eager")
    assert re.fullmatch(missed, refused["reason"])


def test_the_next_fastest_answers_where_the_fastest_misses_the_golden_requests(load):
    model = load(
        lambda scorer: Engine("slower", lambda *tensors: scorer.network(*tensors) + 1e-7),
        lambda scorer: misses_golden(scorer.network),
    )
    assert model.engine == "slower" == model.scorer.engine.name
    assert model.engines_refused.startswith("bfloat16: golden request golden-000")


def test_one_that_fails_on_the_golden_requests_gives_way_too(load):
    model = load(lambda scorer: misses_golden(scorer.network, off=None))
    assert (model.engine, model.engines_refused) == ("eager", "bfloat16: it fails: no kernel for this shape")


def test_float32_is_held_to_its_own_tolerance_first(load, monkeypatch):
    """What bfloat16 may differ by is no sound bundle in float32."""
    right = Scorer.calibrated
    monkeypatch.setattr(
        Scorer, "calibrated", lambda *args: {task: values + 2e-3 for task, values in right(*args).items()}
    )
    with pytest.raises(BundleError, match=r"\(at most 1e-04\).* this host does not reproduce the bundle"):
        load(lambda scorer: Engine("bfloat16", scorer.network, exact=False))


def test_bfloat16_that_the_config_names_is_refused_if_it_misses_and_the_remedy_is_said(load, monkeypatch):
    monkeypatch.setattr(engine_choice, "bfloat16", misses_golden)
    with pytest.raises(
        BundleError,
        match=r'\[serving\] engine = "bfloat16": golden request golden-000: .*: bfloat16 is not exact enough '
        r'for this bundle; float32 reproduces it: write \[serving\] engine = "auto", or "eager"',
    ):
        load(lambda scorer: None, where=replace(ON_CPU, engine="bfloat16"))


def test_bfloat16_that_the_config_names_is_not_measured(bundle_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_measured", None)
    named = replace(ON_CPU, engine="bfloat16")
    model = load_model(bundle_folder, open_store(StoreConfig(), tmp_path), named)
    assert model.engine == "bfloat16" == model.scorer.engine.name
    assert model.engines_refused == ""


def test_bfloat16_where_the_processor_multiplies_it(bundle_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "has_fast_bf16", lambda _: True)
    monkeypatch.setattr(
        engines, "_measured", lambda right, _: {e.name: float(e.name == "eager") for e in right}
    )
    model = load_model(bundle_folder, open_store(StoreConfig(), tmp_path), AUTO)
    assert (model.engine, model.engines_refused) == ("bfloat16", "")
    assert model.scorer.engine.run.first_type == torch.bfloat16
    assert model.scorer.network.first_type == torch.float32, "the reference stays as it was"
