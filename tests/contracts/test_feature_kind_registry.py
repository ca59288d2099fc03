"""Two kinds of feature that only this file knows: declared in TOML, they are trained, bundled and served.

`cyclic` becomes two columns of numbers, `hashed_text` an id that is looked up. No other code is touched.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
import pytest
from pydantic import Field

from features.definitions import read_config
from features.encode import Encoder
from features.kinds import FEATURE_KINDS
from features.kinds.feature import FeatureKind, Fitted, IdFeature, NumberFeature, Options, identity
from features.kinds.rows import is_number
from features.store import open_store
from recsys.bundle import load_bundle
from recsys.cli import run
from recsys.config import StoreConfig
from recsys.encoding import NumberStatistics
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.model.embeddings import initial_rows
from recsys.registry import Registry
from recsys.settings import to_toml
from recsys.vocabulary import Vocabulary
from serving.loading import load_model

DAY = date(2026, 1, 28)
DECLARED = [
    {"name": "birthday", "entity": "user", "kind": "cyclic", "period": 365.25},
    {"name": "minute", "entity": "context", "kind": "cyclic", "period": 60},
    {"name": "brand", "entity": "item", "kind": "hashed_text", "dim": 3, "buckets": 5},
]


class CyclicOptions(Options):
    period: float = Field(gt=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cyclic(NumberFeature):
    """A number's place in a period, as sine and cosine; the period starts at the smallest value seen."""

    period: float
    label = "cyclic"
    width = 2

    def fit(self, rows, known):
        start = rows.frame[self.column].min()
        return Fitted(statistics=known.statistics or NumberStatistics(prior=0.0, mean=start, std=1.0))

    def encode(self, rows, state):
        angle = 2 * np.pi * (rows.numbers(self.column) - state.numbers[self.name].mean) / self.period
        return np.nan_to_num(np.stack([np.sin(angle), np.cos(angle)], axis=1))


class HashedOptions(Options):
    dim: int = Field(default=8, ge=1)
    buckets: int = Field(ge=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedText(IdFeature):
    """A text's hash bucket: no vocabulary is counted."""

    buckets: int
    label = "hashed text"

    def fit(self, rows, known):
        return Fitted(vocabulary=known.vocabulary or Vocabulary(ids=(), hash_buckets=self.buckets))

    def encode(self, rows, state):
        return rows.ids(self.column, state.vocabularies[self.vocabulary])


def _hashed_text(declared, options, features):
    named = identity(declared)
    return HashedText(**named, vocabulary=named["name"], dim=options.dim, buckets=options.buckets)


TOYS = {
    "cyclic": FeatureKind(
        options=CyclicOptions,
        define=lambda declared, options, features: Cyclic(**identity(declared), period=options.period),
        holds=is_number,
    ),
    "hashed_text": FeatureKind(
        options=HashedOptions, define=_hashed_text, holds=lambda dtype: dtype == pl.String, entities=("item",)
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _toys():
    with pytest.MonkeyPatch.context() as patch:
        for name, kind in TOYS.items():
            patch.setitem(FEATURE_KINDS, name, kind)
        yield


@pytest.fixture(scope="module")
def log(shop_log, tmp_path_factory):
    """Give four days of the shop with the columns that the toy kinds read."""
    log = InteractionLog(tmp_path_factory.mktemp("toys") / "log")
    place = pl.int_range(pl.len())
    columns = {
        "users": pl.when(place % 5 > 0).then(place * 7 % 365).alias("attribute_birthday"),
        "items": pl.when(place % 4 > 0).then(pl.format("brand {}", place % 9)).alias("attribute_brand"),
        "impressions": pl.when(place % 6 > 0).then(place % 60).alias("context_minute"),
        "feedback": [],
    }
    for table, column in columns.items():
        for day in (d for d in shop_log.days(table) if d <= DAY):
            log.write(table, day, shop_log.read(table, day).with_columns(column))
    return log


@pytest.fixture(scope="module")
def write_config(make_config, tmp_path_factory):
    """Give a writer of a config file with these features."""
    # A shop this small cannot be evaluated: every head is reported and nothing holds the night.
    data = make_config(gate={"min_rows": 100_000}, feature=[]).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )

    def write(*declared):
        path = tmp_path_factory.mktemp("config") / "toys.toml"
        path.write_text(to_toml(data | {"feature": list(declared)}))
        return path

    return write


@pytest.fixture(scope="module")
def toml(write_config):
    return write_config(*DECLARED)


@pytest.fixture(scope="module")
def runs(log, toml, tmp_path_factory):
    """Run a night as a user would."""
    runs = tmp_path_factory.mktemp("runs")
    place = ["--log", str(log.root), "--runs", str(runs)]
    assert run(["nightly", "--config", str(toml), *place, "--date", str(DAY)]) == 0
    return runs


@pytest.fixture(scope="module")
def bundle(runs):
    registry = Registry(runs)
    return load_bundle(registry.path(registry.current()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "cyclc"}, r"'cyclc' is unknown; known: .*number, cyclic, hashed_text"),
        ({"periods": 7}, r"of kind 'cyclic'.*periods: unknown key; known here: period"),
        ({"period": 0}, "period = 0: Input should be greater than 0"),
        ({"kind": "hashed_text"}, "'hashed_text' is for item only; kinds for 'user': .*cyclic"),
    ],
)
def test_the_config_refuses_what_the_kind_does_not_read(write_config, changes, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read_config(write_config(DECLARED[0] | changes))


def test_the_kind_is_listed(toml, capsys):
    assert run(["data", "features", "--config", str(toml)]) == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    for name, kind in (("user_birthday", "cyclic"), ("item_brand", "hashed"), ("context_minute", "cyclic")):
        assert kind in next(words for words in printed if name in words)


def test_what_was_fitted_and_trained_is_in_the_bundle(bundle, write_config):
    inputs, plain = bundle.manifest.inputs, read_config(write_config())
    without = Encoder.from_config(plain, bundle.encoder).features
    assert sum(width for _, width in inputs["user_numbers"]) == without.width_of("user") + 2
    assert sum(width for _, width in inputs["context_numbers"]) == without.width_of("context") + 2
    assert ["item_brand", "item_brand", 3] in inputs["item_tables"]
    assert bundle.encoder.numbers["user_birthday"].mean == 7.0, "the smallest one of the log"
    assert bundle.encoder.vocabularies["item_brand"].size == 1 + 5
    weight = bundle.weights["table.item_brand.weight"]
    start = initial_rows("item_brand", 0, 16, 3, plain.training.seed).numpy()[: len(weight)]
    assert (np.abs(weight - start).max(axis=1) > 0).all(), "every bucket is trained"


def test_many_rows_and_one_are_encoded_alike(bundle, log):
    encoder = Encoder.from_config(bundle.config, bundle.encoder)
    users, items = log.read("users", DAY), log.read("items", log.days("items")[0])
    for entity, frame, name in (
        ("user", users, "user_birthday"),
        ("item", items, "item_brand"),
        ("context", log.read("impressions", DAY).head(200), "context_minute"),
    ):
        many = encoder.encode(entity, frame)
        names = [f.name for f in (*encoder.features.ids_of(entity), *encoder.features.numbers_of(entity))]
        assert name in names
        for n, row in enumerate(frame.iter_rows(named=True)):
            one = encoder.encode_one(entity, row)
            np.testing.assert_array_equal(one.ids[0], many.ids[n])
            np.testing.assert_array_equal(one.numbers[0], many.numbers[n])


def test_the_served_predictions_read_the_feature(bundle, runs):
    model = load_model(bundle.path, open_store(StoreConfig(), runs))  # reproduces the golden requests
    at_ms = bundle.manifest.snapshot_at_ms + 60_000
    user = model.scorer.user_side(model.features.user("u000001", at_ms).inputs)

    def predicted(**context):
        found = model.scorer.predict(user, model.features.context(context, at_ms), np.arange(20))
        return np.stack(list(found.values()))

    np.testing.assert_allclose(predicted(minute=5.0), predicted(minute=65.0), atol=1e-6)
    assert np.abs(predicted(minute=5.0) - predicted(minute=35.0)).max() > 1e-4
    assert np.abs(predicted(minute=5.0) - predicted()).max() > 1e-4
