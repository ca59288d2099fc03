"""Held scores: inputs are those of the list's first impression, and only rows that change are scored."""

import numpy as np
import polars as pl
import pytest

from features.encode import Encoder
from training.data import (
    Batcher,
    encode_day,
    held_scores,
    opened_day,
    scoring,
    scoring_batches,
    text_by_number,
)
from training.predict import scoring_settings

DAY = 4
DEVICE = "context_device"
CONTEXT = ("hour", "weekday", DEVICE)


@pytest.fixture(scope="module")
def encoder(config, trained):
    return Encoder.from_config(config, trained.state)


@pytest.fixture(scope="module")
def shown(shop_chain):
    """The day's rows with a list each: a user's day."""
    rows = shop_chain[DAY].table("examples")
    return rows.with_columns(list_group=pl.col("user_id").rank("dense").cast(pl.Int64))


@pytest.fixture(scope="module")
def batcher(encoder, shop_chain, config):
    return Batcher(encoder, text_by_number(encoder, shop_chain[DAY].table("items")), scoring_settings(config))


def _inputs(batcher, day):
    """Give what batches hold of users' state and the clock, a row each; histories as text."""
    batches = list(scoring_batches(batcher, day))
    found = {name: np.concatenate([_looked_up(batch, name) for batch in batches]) for name in CONTEXT}
    found["numbers"] = np.concatenate([batch.context_numbers_BF.numpy() for batch in batches])
    for name in ("item", "kind", "age"):
        found[f"history {name}s"] = np.concatenate([_histories(batch, name) for batch in batches])
    return found


def _looked_up(batch, name):
    return batch.rows[name][batch.index[name]].numpy()


def _histories(batch, name):
    values = getattr(batch.history, f"{name}_E")
    values = batch.rows["item_id"][values] if name == "item" else values
    split = np.split(values.numpy(), batch.history.start_B.numpy()[1:])
    return np.array([str(own.tolist()) for own in split], np.object_)


@pytest.mark.parametrize("piece_rows", [100_000, 64], ids=["in memory", "in files"])
def test_inputs_are_those_of_the_lists_first_impression(
    encoder, batcher, shop_chain, config, shown, tmp_path, monkeypatch, piece_rows
):
    monkeypatch.setattr(scoring, "PIECE_ROWS", piece_rows)

    def inputs(days):
        with opened_day(encoder, days, DAY, config.tasks, tmp_path) as day:
            return _inputs(batcher, day)

    live = inputs(shop_chain)
    held = held_scores(live, inputs, shop_chain, DAY, shown["list_group"], tmp_path)
    first = shown.with_row_index("place").sort("shown_at").unique("list_group", keep="first")
    of = shown.select("list_group").join(first, on="list_group", maintain_order="left")["place"].to_numpy()
    for name, values in live.items():
        wanted = values if name == DEVICE else values[of]  # the device is of the request
        np.testing.assert_array_equal(held[name], wanted, err_msg=name)
        assert name in (DEVICE, "weekday") or (values != wanted).any(), f"{name} moves during a day"


def test_what_is_not_of_the_instant_stays_the_rows_own(encoder, shop_chain, config, shown, tmp_path):
    def own(days):
        rows = encode_day(encoder, days, DAY, config.tasks)
        return {
            "item": rows.items.ids[rows.item_row],
            "user": rows.users.numbers[rows.user_row],
            "shown_at": rows.shown_at,
            "position": rows.position,
            "label": rows.labels["click"],
        }

    live = own(shop_chain)
    held = held_scores(live, own, shop_chain, DAY, shown["list_group"], tmp_path)
    for name, values in live.items():
        np.testing.assert_array_equal(held[name], values, err_msg=name)


def test_rows_of_one_instant_are_not_scored_again(shop_chain, shown, tmp_path):
    def score(_days):
        raise AssertionError("scored again")

    request = shown["request_id"].rank("dense").cast(pl.Int64)
    assert request.n_unique() < request.len()
    live = {"click": np.arange(shown.height)}
    assert held_scores(live, score, shop_chain, DAY, request, tmp_path) == live
