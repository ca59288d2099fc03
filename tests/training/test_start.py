"""Where new rows start: items from content, ids from their bucket; what has a number keeps its row."""

import dataclasses
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from features.build import build_snapshots
from recsys.bundle import load_bundle
from recsys.calibration import Identity
from recsys.log import InteractionLog
from recsys.metrics.pointwise import auc
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.registry import Registry
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import write_log
from recsys.simulator.shop import Shop
from recsys.source_terms import NO_SOURCES
from recsys.stages import Stages
from recsys.vocabulary import Vocabulary
from training.build_model import build_model
from training.predict import BundlePredictor
from training.publish import write_bundle
from training.start import MIN_ITEMS, content_rows, start_new_rows
from training.train import train
from training.warm_start import Previous, carry_over

DIM, TEXT = 8, 5


def _planted(items=300, seed=0):
    """Make items whose rows are a linear map of their text, plus noise."""
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(items, TEXT)).astype(np.float32)
    rows = text @ rng.normal(size=(TEXT, DIM)) + 0.1 * rng.normal(size=(items, DIM))
    return torch.from_numpy(text), torch.from_numpy(rows.astype(np.float32))


def test_new_rows_are_where_their_text_says():
    text, rows = _planted()
    found = content_rows(rows, torch.ones(300), text, 250, 300)
    assert torch.nn.functional.cosine_similarity(found, rows[250:]).min() > 0.95
    shuffled = text.clone()
    shuffled[:250] = text[torch.randperm(250, generator=torch.Generator().manual_seed(0))]
    noise = content_rows(rows, torch.ones(300), shuffled, 250, 300)
    assert noise.norm() < 0.2 * found.norm(), "text that says nothing moves nothing"


def test_items_without_text_and_rows_never_trained_are_left_out():
    text, rows = _planted()
    text[[3, 260]] = 0
    state = torch.ones(300)
    state[100:200] = 0
    rows[100:200] = 1e6  # rows nobody has trained must not be fitted
    found = content_rows(rows, state, text, 250, 300)
    assert not found[10].any()
    assert torch.nn.functional.cosine_similarity(found[:10], rows[250:260]).min() > 0.9
    few = torch.zeros(300)
    few[: MIN_ITEMS - 1] = 1
    assert content_rows(rows, few, text, 250, 300) is None


def test_old_rows_stay_to_the_bit(trained, bundle_folder, config):
    """Every vocabulary grows; only the new numbers' rows are touched."""
    bundle, old = load_bundle(bundle_folder), trained.state
    grown = {
        name: Vocabulary(ids=(*v.ids, "new 1", "new 2"), hash_buckets=v.hash_buckets)
        for name, v in old.vocabularies.items()
    }
    state = dataclasses.replace(old, vocabularies=grown)
    text = torch.randn(
        grown["item_id"].size, config.features.text_dim, generator=torch.Generator().manual_seed(0)
    )
    ranker, tables = build_model(config, state)
    carry_over(ranker, tables, state, config, Previous.of(bundle, config), text)
    for name, vocabulary in old.vocabularies.items():
        weight = torch.from_numpy(bundle.weights[f"table.{name}.weight"])
        assert torch.equal(tables.weight[name][: vocabulary.size], weight)
        if vocabulary.hash_buckets:
            bucket = vocabulary.encode_one("new 1")
            assert torch.equal(tables.weight[name][vocabulary.size], weight[bucket])
    size = old.vocabularies["item_id"].size
    assert tables.weight["item_id"][size : size + 2].abs().sum() > 0


def test_a_table_that_did_not_exist_keeps_its_start(trained):
    specs = (TableSpec(name="item_id", size=trained.state.vocabularies["item_id"].size, dim=4),)
    tables = LocalTables(specs, 0.1, 0)
    before = tables.weight["item_id"].clone()
    start_new_rows(tables, trained.state, dataclasses.replace(trained.state, vocabularies={}))
    assert torch.equal(tables.weight["item_id"], before)


DAYS = 9
LAST = date(2026, 1, 30)


@pytest.fixture(scope="module")
def new_items(tmp_path_factory):
    """Simulate a shop of which every twentieth item comes two days before the end."""
    root = tmp_path_factory.mktemp("new") / "log"
    dials = ShopDials(users=500, items=400, days=DAYS, last_day=LAST)
    log = InteractionLog(root)
    for _ in write_log(Shop.from_seed(dials, 11), log):
        pass
    items = pl.concat([log.read("items", d) for d in log.days("items")])["item_id"].unique().sort()
    new = set(items.gather_every(20))
    arrival = LAST - timedelta(days=2)
    first = log.days("items")[0]
    moved = pl.concat([log.read("items", d) for d in log.days("items") if d <= arrival]).filter(
        pl.col("item_id").is_in(new)
    )
    for day in log.days("impressions"):
        for table in ("impressions", "feedback", "items"):
            rows = log.read(table, day)
            if day < arrival:
                rows = rows.filter(~pl.col("item_id").is_in(new))
            if table == "items" and day == arrival:
                rows = pl.concat([rows.filter(~pl.col("item_id").is_in(new)), moved], how="diagonal_relaxed")
            log.write(table, day, rows, stem="simulated")
    assert first < arrival
    return log, new


def _nights(log, config, folder, *, second):
    """Learn until the new items come, then, if asked, a warm night with them; score the last day by each."""
    days = build_snapshots(log, LAST, config, Stages(folder / "stages"))
    chain = days.as_known_at(days.as_of + timedelta(days=2))
    n = len(chain) - 1
    registry = Registry(folder / "runs")
    calibration = {t.name: Identity() for t in config.tasks}
    made = train(chain, {t.name: (0, n - 3) for t in config.tasks}, config, None, 1)
    version = write_bundle(
        registry, made, calibration, config, chain[n - 3], None, refitted=False, sources=NO_SOURCES
    )
    bundles = {"before": load_bundle(registry.require(version))}
    if second:
        start = Previous.of(bundles["before"], config)
        made = train(chain, {t.name: (n - 2, n - 1) for t in config.tasks}, config, start, 1)
        version = write_bundle(
            registry, made, calibration, config, chain[n - 1], version, refitted=False, sources=NO_SOURCES
        )
        bundles["after"] = load_bundle(registry.require(version))
    found = {}
    for name, bundle in bundles.items():
        predictor = BundlePredictor(bundle)
        encoded = predictor.encode_day(chain, n, config.tasks)
        rows = encoded.frame.select("item_id").with_columns(
            label=pl.Series(encoded.labels["click"]).fill_nan(None)
        )
        found[name] = rows.with_columns(score=predictor.predictions(encoded)["click"]).drop_nulls()
    return found


def _auc(rows):
    return auc(rows["label"].to_numpy(), rows["score"].to_numpy())


def test_a_night_with_new_items_costs_the_old_ones_nothing_and_text_helps_the_new(
    new_items, make_config, tmp_path
):
    """5 % of the catalogue is new. Without text columns only category and price describe a new item."""
    log, new = new_items
    wide = {"text_dim": 16, "item_id_dim": 16, "user_id_dim": 16, "history_length": 20}
    found = {}
    for name, columns in (("text", ["title", "description", "category"]), ("no text", [])):
        config = make_config(features={**wide, "text_columns": columns})
        found[name] = _nights(log, config, tmp_path / name, second=name == "text")
    new = pl.col("item_id").is_in(new)
    old = {name: _auc(rows.filter(~new)) for name, rows in found["text"].items()}
    assert old["after"] > old["before"] - 0.003
    fresh = {name: _auc(nights["before"].filter(new)) for name, nights in found.items()}
    assert fresh["text"] > fresh["no text"]
