"""A bundle with another score and other rules, and a server's own engine that answers with it."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from features.build import item_rows
from features.online import OnlineFeatures, encode_items
from features.packing import pack_users
from features.store import StoredUser
from recsys.bundle import load_bundle
from recsys.calibration import Affine, Platt
from recsys.config import FusionConfig, build_fusion
from recsys.config.serving import PolicyConfig
from recsys.index import ItemIndex
from recsys.log import period_end
from recsys.model.scorer import Scorer
from recsys.newcomers import times_shown
from recsys.registry import Registry
from recsys.source_terms import NO_SOURCES
from recsys.user_past import UserPast
from serving.catalogue import Catalogue
from serving.catalogue.overlay import ItemOverlay
from serving.catalogue.popular import Popular
from serving.engine import Engine
from serving.loading import bias_of_bundle
from serving.served_model import ServedModel
from training.item_item import item_item_table
from training.predict import BundlePredictor
from training.publish import popular_items, verify_version, write_bundle
from training.train import train


@pytest.fixture(scope="session")
def changed():
    return _changed


@pytest.fixture(scope="session")
def engine_of():
    return _engine_of


@pytest.fixture(scope="session", params=["attention", "hstu", "sasrec"])
def reading(request, shop_chain, make_config, tmp_path_factory):
    """Train, write and load a bundle whose ranker reads what its users took, repeats too, by each encoder."""
    learn = {"repeat": "learn", "repeat_kinds": ["click"]}
    history = {"encoder": request.param, "dim": 8}
    config = make_config(
        item_item={"feature": True, "penalty": 5.0}, policy=learn, model={"history": history}
    )
    model = train(shop_chain, {t.name: (2, 3) for t in config.tasks}, config, None, 1)
    calibration = {
        t.name: Platt(a=1.0, b=0.0)
        if t.kind.probability
        else Affine(scale=1.0, offset=0.0, low=t.low, high=t.high)
        for t in config.tasks
    }
    runs = tmp_path_factory.mktemp("reading")
    registry = Registry(runs)
    version = write_bundle(
        registry, model, calibration, config, shop_chain[4], None, refitted=False, sources=NO_SOURCES
    )
    verify_version(runs, version)
    return BundlePredictor(load_bundle(registry.require(version)))


def _changed(predictor, weights=None, sources=NO_SOURCES, **sections):
    """Give a predictor of the same weights with another score, other rules, other sources."""
    bundle = predictor.bundle
    config = bundle.config.model_copy(
        update={name: getattr(bundle.config, name).model_copy(update=new) for name, new in sections.items()}
    )
    fusion = build_fusion(config.tasks, FusionConfig(weights=weights or {})).with_sources(sources)
    manifest = bundle.manifest.model_copy(update={"fusion": fusion})
    every = bundle.items.select("item_id").sort("item_id")
    bias = every.with_columns(bias=pl.Series(np.linspace(-1, 1, every.height, dtype=np.float32)))
    return BundlePredictor(
        dataclasses.replace(bundle, config=config, manifest=manifest, item_bias=bias.gather_every(2))
    )


def _engine_of(predictor, chain, i, *, events=None, policy=None, candidate_log_share=0.0):
    """Put a server's engine together as it stands on day i, every item of the catalogue open.

    Args: events: user -> what the delta of the store has of them since the day began.
    """
    bundle, previous = predictor.bundle, chain[i - 1]
    config, as_of = bundle.config, period_end(previous.day, "UTC")
    items, delta = item_rows(previous, chain[i]), {} if events is None else events
    scorer = Scorer(
        dataclasses.replace(bundle, items_in_memory=items), encode_items(predictor.encoder, items)
    )
    scorer.bundle = dataclasses.replace(scorer.bundle, index=ItemIndex.build(scorer.item_embeddings))
    packed = dict(pack_users(previous, predictor.encoder))

    def get_many(_version, users, _within):
        return [StoredUser(packed.get(users[0]), tuple(delta.get(users[0], ())))]

    store = SimpleNamespace(get_many=get_many)
    at_ms = int(as_of.timestamp() * 1000)
    never = pl.lit(None, items.schema["available_from"])
    catalogue = Catalogue.from_frame(items.with_columns(available_from=never, available_until=never))
    sources = bundle.manifest.fusion.sources
    table = item_item_table(previous, config, items["item_id"], sources)
    model = ServedModel(
        version=bundle.version,
        catalogue=catalogue,
        popular=Popular.of_bundle(catalogue, popular_items(previous.table("items"), config, as_of)),
        item_bias=bias_of_bundle(dataclasses.replace(bundle, items_in_memory=items)),
        times_shown=times_shown(items),
        past=UserPast.of(table, config, sources),
        tasks=config.tasks,
        fusion=bundle.manifest.fusion,
        scorer=scorer,
        features=OnlineFeatures(store, bundle.version, config, predictor.encoder, at_ms),
        items_as_of_ms=at_ms,
    )
    rules = PolicyConfig(
        **(policy or {"name": "greedy"}),
        max_per_category=config.policy.max_per_category,
        max_repeats=config.policy.max_repeats,
        mmr=config.policy.mmr,
        repeat=config.policy.repeat,
        repeat_kinds=config.policy.repeat_kinds,
    )
    return Engine(
        model,
        ItemOverlay(),
        policy=rules,
        retrieval=config.retrieval,
        item_item=config.item_item,
        candidate_log_share=candidate_log_share,
    )
