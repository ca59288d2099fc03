"""Drawn negatives: what is added to logits leaves the odds of the stream; files and memory have it alike."""

from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from features.encode import Encoder
from features.sources.negatives import sample_negatives
from training.data import EncodedDays, day_writer, encode_day, encode_learned_day, encoded_rows
from training.data.thinned import drawn_rate, log_thinned

ITEMS, DAY = 1_000, date(2026, 1, 5)
TAKEN = {"few": 1, "some": 5, "many": 40}
NOON = datetime(2026, 1, 5, 12)


class Examples:
    """A snapshot that has examples alone."""

    def __init__(self, rows):
        self.rows = rows

    def table(self, name, part=None, columns=None):
        assert name == "examples"
        return self.rows.select(columns)


def added(rows):
    return log_thinned(Examples(rows), None, drawn_rate(Examples(rows)))


@pytest.fixture(scope="module")
def drawn():
    """Users who take few and many items of a catalogue at once, with four negatives for each."""
    catalogue = pl.DataFrame({"item_id": [f"i{n:04d}" for n in range(ITEMS)], "known_day": [DAY] * ITEMS})
    taken = [(user, f"i{n:04d}", DAY, NOON) for user, count in TAKEN.items() for n in range(count)]
    positives = pl.DataFrame(taken, schema=["user_id", "item_id", "day", "shown_at"], orient="row")
    negatives = sample_negatives(positives, catalogue, per_positive=4, seed=0)
    both = pl.concat(
        [positives.with_columns(sampling_rate=1.0), negatives.select(*positives.columns, "sampling_rate")]
    )
    return both.with_columns(label=pl.col("sampling_rate") == 1, sampled=pl.col("sampling_rate") < 1).sample(
        fraction=1.0, shuffle=True, seed=0
    )


def test_a_pool_that_was_used_up_is_drawn_with_rate_one():
    """Who takes much of a small catalogue has all the rest beside it."""
    rates = {"much": [1.0, 1.0, 1.0], "little": [1.0, 0.1, 0.1]}
    rows = pl.DataFrame(
        {
            "user_id": [user for user in rates for _ in range(3)],
            "shown_at": [NOON] * 6,
            "sampling_rate": [rate for each in rates.values() for rate in each],
            "sampled": [False, True, True] * 2,
        }
    )
    day = 4 / (2 / 1.0 + 2 / 0.1)
    np.testing.assert_allclose(added(rows), np.log([day] * 3 + [day / 0.1] * 3), rtol=1e-6)


def test_what_is_left_are_the_log_odds_of_the_stream_up_to_one_constant(drawn):
    thinned = added(drawn)
    assert thinned.dtype == np.float32
    constants = []
    for user, count in TAKEN.items():
        own = (drawn["user_id"] == user).to_numpy()
        label = drawn["label"].to_numpy()[own]
        assert label.sum() / (~label).sum() == 0.25, "among the rows all users choose alike"
        (of_user,) = set(thinned[own].tolist())
        constants.append(np.log(0.25) - of_user - np.log(count / (ITEMS - count)))
    np.testing.assert_allclose(constants, constants[0], atol=1e-6)
    assert np.ptp(thinned) > 3


def test_without_drawn_negatives_there_is_nothing_and_a_row_alone_has_nothing_added(drawn):
    assert drawn_rate(Examples(drawn.filter("label"))) is None
    alone = drawn.filter((pl.col("user_id") != "few") | pl.col("label"))
    thinned = added(alone)
    assert (thinned[(alone["user_id"] == "few").to_numpy()] == 0).all()
    same = drawn.with_columns(sampling_rate=pl.when("label").then(1.0).otherwise(0.01))
    np.testing.assert_allclose(added(same), 0.0, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 3])
def test_files_have_what_memory_has(shop_chain, split_chain, trained, config, tmp_path, monkeypatch, parts):
    def by_instant(snapshot, part, of_day):
        assert of_day == 0.5
        return snapshot.table("examples", part, ["shown_at"])["shown_at"].dt.epoch("ms").to_numpy() % 1000.0

    for module in (encoded_rows, day_writer):
        monkeypatch.setattr(module, "log_thinned", by_instant)
        monkeypatch.setattr(module, "drawn_rate", lambda _: 0.5)
    encoder = Encoder.from_config(config, trained.state)
    memory = encode_learned_day(encoder, shop_chain, 3, config.tasks, stream_odds=True)
    assert encode_learned_day(encoder, shop_chain, 3, config.tasks, stream_odds=False).thinned is None
    assert encode_day(encoder, shop_chain, 3, config.tasks).thinned is None, "what is scored has none"
    days = EncodedDays(
        folder=tmp_path / "days",
        encoder=encoder,
        days=shop_chain if parts == 1 else split_chain,
        tasks=config.tasks,
        hidden=lambda _: (),
        piece_rows=64,
        stream_odds=True,
    )
    found = days(3).read(np.array([[3, 50], [200, memory.size]]))
    chosen = np.append(np.arange(3, 50), np.arange(200, memory.size))
    np.testing.assert_array_equal(found.thinned, memory.thinned[chosen])
    assert np.unique(found.thinned).size > 20
    assert memory.take(chosen[:9]).thinned.tolist() == memory.thinned[chosen[:9]].tolist()
