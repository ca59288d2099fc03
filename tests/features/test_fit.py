"""Fitting: what is known stays, what is new is added; bins, vocabularies, and columns that are not there."""

import dataclasses
import shutil

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.build import build_snapshots
from features.definitions import HistoryKind, define_features
from features.encode import Encoder
from features.fit import MAX_VALUE_BINS, FitFrames, fit_encoder, fit_history, value_edges
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.snapshot import DaySnapshot, part_folder
from recsys.stages import Stages


def test_a_warm_start_freezes_what_is_known_and_fits_what_is_new(shop_chain, make_config):
    config = make_config()
    early, late = (FitFrames.read(shop_chain[n], [shop_chain[n]], config) for n in (1, 5))
    first = fit_encoder(config, early, None, 0)
    second = fit_encoder(config, late, first, 1)
    assert second.numbers == first.numbers
    assert second.text is first.text
    assert fit_encoder(config, late, None, 0).numbers != first.numbers
    for name, vocabulary in first.vocabularies.items():
        assert second.vocabularies[name].ids[: len(vocabulary.ids)] == vocabulary.ids
    assert second.vocabularies["item_id"].size > first.vocabularies["item_id"].size
    wider = fit_encoder(make_config(features={"window_days": [1, 3]}), late, first, 0)
    new = set(wider.numbers) - set(first.numbers)
    assert new
    assert all(wider.numbers[n] == first.numbers[n] for n in set(wider.numbers) & set(first.numbers))


def test_fitting_is_deterministic(shop_chain, config):
    frames = FitFrames.read(shop_chain[3], [shop_chain[3]], config)
    one, other = fit_encoder(config, frames, None, 7), fit_encoder(config, frames, None, 7)
    assert one.digest() == other.digest()
    assert one.numbers == other.numbers
    np.testing.assert_array_equal(one.text.components, other.text.components)


def test_catalogue_items_have_numbers_and_rare_users_share_buckets(shop_chain, make_config):
    config = make_config(features={"min_count": 10**6})
    frames = FitFrames.read(shop_chain[3], [shop_chain[3]], config)
    state = fit_encoder(config, frames, None, 0)
    assert state.vocabularies["user_id"].ids == ()
    assert set(state.vocabularies["item_id"].ids) == set(frames.items["item_id"])
    assert state.vocabularies["item_id"].encode_one("never seen") == 0
    assert state.vocabularies["user_id"].encode_one("never seen") > 0


@pytest.fixture(scope="module")
def organic_chain(shop_log, config, tmp_path_factory):
    """Build the shop's first two days; before, each user clicked and bought each item thrice, unshown."""
    log = InteractionLog(tmp_path_factory.mktemp("organic") / "log")
    days = shop_log.days("impressions")[:2]
    for table in ("impressions", "feedback", "users", "items"):
        for day in (d for d in shop_log.days(table) if d <= days[-1]):
            log.write(table, day, shop_log.read(table, day))
    feedback = log.read("feedback", days[0])
    one = (
        feedback.sort("received_at")
        .head(1)
        .drop("feedback_id", "user_id", "item_id", "kind", "impression_id")
    )
    found = feedback.select(pl.col("user_id").unique()).join(
        shop_log.read("items", days[0]).select("item_id"), how="cross"
    )
    organic = found.join(
        pl.DataFrame({"kind": ["click", "purchase"] * 3}).with_row_index("n"), how="cross"
    ).with_columns(
        pl.format("{}-{}-{}", "user_id", "item_id", "n").alias("feedback_id"),
        impression_id=pl.lit(None, pl.String),
    )
    log.write(
        "feedback", days[0], pl.concat([feedback, organic.join(one, how="cross").select(feedback.columns)])
    )
    return build_snapshots(log, days[-1], config, Stages(tmp_path_factory.mktemp("stages")))


def test_feedback_of_no_impression_moves_no_rate(shop_chain, organic_chain, config):
    """More purchases than impressions: the overall "rate" was above 1, and the feature one constant."""
    items = organic_chain[-1].table("items")
    assert items["purchase_count_life"].sum() > items["impressions_life"].sum()
    features = define_features(config)
    numbers = (*features.numbers, *(f for cross in features.crosses for f in cross.numbers))
    rates = [f.name for f in numbers if f.label == "number (rate)"]
    fitted, without = (
        fit_encoder(config, FitFrames.read(chain[-1], chain[-1:], config), None, 0).numbers
        for chain in (organic_chain, shop_chain[:2])
    )
    assert len(rates) > 20
    for name in rates:
        assert fitted[name].prior < 1
        assert fitted[name].prior == without[name].prior


@pytest.mark.parametrize("entity", ["user", "item"])
def test_encoded_rates_tell_rows_apart_whatever_was_found_some_other_way(organic_chain, config, entity):
    frames = FitFrames.read(organic_chain[-1], organic_chain[-1:], config)
    encoder = Encoder.from_config(config, fit_encoder(config, frames, None, 0))
    numbers = encoder.encode(entity, frames.of(entity)).numbers
    rates = numbers[:, [f.label == "number (rate)" for f in encoder.features.numbers_of(entity)]]
    assert rates.shape[1] >= 6
    assert (rates.std(axis=0) > 0.1).all()


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (
            {"name": "colour", "entity": "user", "kind": "categorical"},
            "no training day has attribute_colour; .*attribute_country",
        ),
        (
            {"name": "tab", "entity": "context", "kind": "number"},
            "no training day has context_tab; .*context_device",
        ),
        ({"name": "country", "entity": "user", "kind": "number"}, "holds String, which is no number"),
    ],
)
def test_a_feature_the_log_does_not_have(shop_chain, config, make_config, feature, message):
    frames = FitFrames.read(shop_chain[3], [shop_chain[3]], config)
    with pytest.raises(DataError, match=message):
        fit_encoder(make_config(feature=[feature]), frames, None, 0)


def test_a_base_of_organic_feedback_that_nobody_gave(shop_chain, make_config):
    frames = FitFrames.read(shop_chain[3], [shop_chain[3]], make_config())
    found = frames.items.with_columns(organic_base_life=pl.lit(0))
    with pytest.raises(DataError, match=r"organic_base = 'view': .* no feedback of this kind"):
        fit_encoder(
            make_config(features={"organic_base": "view"}), dataclasses.replace(frames, items=found), None, 0
        )


@pytest.mark.parametrize("log", [False, True])
def test_a_binned_number_is_looked_up_and_a_missing_one_is_bin_0(shop_chain, make_config, log):
    config = make_config(feature=[{"name": "age", "entity": "user", "kind": "number", "bins": 4, "log": log}])
    frames = FitFrames.read(shop_chain[3], [shop_chain[3]], config)
    ages = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in range(81)],
            "attribute_age": [-1.0, *range(1, 80), None],
            "impressions_life": 1,
        }
    )
    state = fit_encoder(config, dataclasses.replace(frames, users=ages), None, 0)
    encoder = Encoder.from_config(config, state)
    column = [f.name for f in encoder.features.ids_of("user")].index("user_age")
    bins = encoder.encode("user", ages).ids[:, column]
    assert bins[-1] == 0
    assert (np.diff(bins[:-1]) >= 0).all()
    assert np.bincount(bins).tolist() == [1, 20, 20, 20, 20]
    assert state.vocabularies["user_age"].size == 5
    again = [encoder.encode_one("user", {"attribute_age": a}).ids[0, column] for a in ages["attribute_age"]]
    assert again == bins.tolist()
    assert encoder.encode_one("user", {}).ids[0, column] == 0


@given(st.lists(st.integers(-9999, 9999).map(lambda n: n / 7), min_size=1, max_size=60))
def test_values_have_a_bin_each_where_they_are_few_and_never_more_than_ten(values):
    edges = np.array(value_edges(np.array(values)))
    bins = np.searchsorted(edges, values, side="right")
    assert (np.diff(edges) > 0).all()
    assert set(bins) == set(range(edges.size + 1)), "no bin is empty"
    assert edges.size < MAX_VALUE_BINS
    assert (np.diff(bins[np.argsort(values)]) >= 0).all()
    if np.unique(values).size <= MAX_VALUE_BINS:
        assert edges.size == np.unique(values).size - 1


def test_bins_of_values_have_equal_mass():
    skewed = np.random.default_rng(0).exponential(60, 10_000)
    bins = np.searchsorted(value_edges(skewed), skewed, side="right")
    assert np.bincount(bins) == pytest.approx([1000] * 10, abs=2)
    many_zeros = np.where(np.arange(1000) < 650, 0.0, np.arange(1000))
    bins = np.searchsorted(value_edges(many_zeros), many_zeros, side="right")
    assert np.bincount(bins)[0] == 650


def test_bins_are_of_the_kinds_own_values_inside_its_range():
    kinds = [HistoryKind(name="watch", values=(0.0, 600.0)), HistoryKind(name="rating", values=(1.0, 5.0))]
    kinds += [HistoryKind(name="click"), HistoryKind(name="unseen", values=(0.0, 1.0))]
    events = pl.DataFrame(
        {
            "kind": ["watch"] * 4 + ["rating"] * 3 + ["click"],
            "value": [10.0, 700.0, 9e9, None, 4.0, 4.5, 4.5, 1.0],
        }
    )
    assert fit_history(kinds, events) == {"watch": (305.0,), "rating": (4.25,)}


def test_the_shops_half_stars_have_a_bin_each_and_it_stays(shop_chain, config):
    frames = FitFrames.read(shop_chain[3], [shop_chain[3]], config)
    stars = np.unique(frames.events.filter(pl.col("kind") == "rating")["value"].drop_nulls().to_numpy())
    assert 5 < stars.size <= 9
    state = fit_encoder(config, frames, None, 0)
    assert state.history == {"rating": tuple((stars[1:] + stars[:-1]) / 2)}
    later = dataclasses.replace(frames, events=frames.events.with_columns(value=pl.lit(1.0)))
    assert fit_encoder(config, later, state, 0).history == state.history


def test_lists_have_one_vocabulary_and_every_value_counts(shop_chain, make_config):
    feature = {"name": "tags", "entity": "item", "kind": "multi_hot", "min_count": 2, "hash_buckets": 3}
    config = make_config(feature=[feature])
    frames = FitFrames.read(shop_chain[3], [shop_chain[3]], config)
    lists = [["a", "b"], ["a"], [], None, ["rare", "b"]]
    items = frames.items.head(5).with_columns(attribute_tags=pl.Series(lists))
    state = fit_encoder(config, dataclasses.replace(frames, items=items), None, 0)
    assert state.vocabularies["item_tags"].ids == ("a", "b")
    encoder = Encoder.from_config(config, state)
    bag = encoder.encode("item", items).bags[0]
    assert bag.offsets.tolist() == [0, 2, 3, 3, 3, 5]
    assert bag.values[:3].tolist() == [4, 5, 4]
    assert 1 <= bag.values[3] <= 3, "a rare value shares a bucket"
    for row, values in zip(range(5), lists, strict=True):
        one = encoder.encode_one("item", {"attribute_tags": values}).bags[0].values
        np.testing.assert_array_equal(one, bag.values[bag.offsets[row] : bag.offsets[row + 1]])


def test_a_single_text_is_a_list_of_one(shop_chain, make_config):
    config = make_config(feature=[{"name": "country", "entity": "user", "kind": "multi_hot"}])
    state = fit_encoder(config, FitFrames.read(shop_chain[3], [shop_chain[3]], config), None, 0)
    users = shop_chain[3].table("users")
    bag = Encoder.from_config(config, state).encode("user", users).bags[0]
    np.testing.assert_array_equal(
        np.diff(bag.offsets), users["attribute_country"].is_not_null().cast(pl.Int64)
    )


@pytest.mark.parametrize("parts", [1, 3])
def test_what_is_fitted_is_the_same_to_the_bit_however_the_days_are_read(
    shop_chain, split_chain, make_config, tmp_path, parts
):
    """Also a number of contexts, its bins, and a column that one of the days does not have."""
    chain = shop_chain if parts == 1 else split_chain
    days = [_with_hours(chain[n], tmp_path / str(n), there=n > 0) for n in range(3)]
    features = [
        {"name": "device", "entity": "context", "kind": "categorical", "dim": 4},
        {"name": "hours", "entity": "context", "kind": "number"},
        {"name": "hours_log", "entity": "context", "kind": "number", "log": True},
        {"name": "hours_bin", "entity": "context", "kind": "number", "bins": 5},
    ]
    states = []
    for chunk_rows in (100_000, 64):
        config = make_config(training={"chunk_rows": chunk_rows}, feature=features)
        frames = FitFrames.read(days[-1], days, config, days[-2])
        assert frames.contexts.in_memory == (chunk_rows > 64)
        states.append(fit_encoder(config, frames, None, 0))
    assert states[0].numbers == states[1].numbers
    assert states[0].digest() == states[1].digest()
    assert states[0].numbers["context_hours"].std > 1
    assert len(states[0].numbers["context_hours_bin"].edges) == 4


def _with_hours(day, folder, *, there):
    """Copy a day and give its examples numbers of their own, or none."""
    copied = DaySnapshot(day.day, shutil.copytree(day.path, folder))
    for part in range(copied.num_parts if there else 0):
        rows = copied.table("examples", part)
        hours = np.random.default_rng(part).normal(size=rows.height) * 10
        names = ["context_hours", "context_hours_log", "context_hours_bin"]
        rows = rows.with_columns(pl.Series(name, hours) for name in names)
        rows.write_parquet(part_folder(copied.path, part) / "examples.parquet")
    return copied
