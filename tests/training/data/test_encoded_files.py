"""Encoded days in files: the rows of memory, whatever the parts and pieces; whole days survive a kill."""

import errno
from dataclasses import fields

import numpy as np
import polars as pl
import pytest

from features.encode import Encoder
from features.sequences import history_slices
from recsys.errors import DataError
from recsys.snapshot import DaySnapshot
from training.crosses import cross_numbers
from training.data import EncodedDays, encode_day
from training.data.array_files import ArrayWriter
from training.data.day_writer import DayWriter
from training.train import train

DAY = 3


@pytest.fixture(scope="module")
def encoder(trained, config):
    return Encoder.from_config(config, trained.state)


@pytest.fixture(scope="module")
def encoded(shop_chain, encoder, config):
    return encode_day(encoder, shop_chain, DAY, config.tasks)


@pytest.fixture
def make_days(encoder, config, tmp_path):
    def make(days, hidden=(), piece_rows=100_000):
        return EncodedDays(
            folder=tmp_path / "days",
            encoder=encoder,
            days=days,
            tasks=config.tasks,
            hidden=lambda _: hidden,
            piece_rows=piece_rows,
        )

    return make


def _gathered(rows, chosen):
    """Give all that batches gather of some rows."""
    user, item = rows.users.take(rows.user_row[chosen]), rows.items.take(rows.item_row[chosen])
    bounds = rows.start[chosen], rows.stop[chosen]
    history = history_slices(*bounds, 5, rows.state_at[chosen], 0, rows.events)
    return [
        user.ids, user.numbers, item.ids, item.numbers, item.text,
        *(getattr(history, part.name) for part in fields(history) if part.name != "events"),
        rows.events.at[history.events],  # a day in parts numbers its events otherwise
        *(array for bag in (*user.bags, *item.bags) for array in (bag.values, bag.offsets)),
        rows.contexts.ids[chosen], rows.contexts.numbers[chosen], rows.user_key[chosen],
        cross_numbers(rows.crosses, rows.user_row[chosen], rows.item_row[chosen]),
        rows.position[chosen], rows.weight[chosen], *(label[chosen] for label in rows.labels.values()),
    ]  # fmt: skip


@pytest.mark.parametrize(("parts", "piece_rows"), [(1, 100_000), (1, 64), (3, 64)])
def test_rows_are_those_of_memory(shop_chain, split_chain, encoded, make_days, parts, piece_rows):
    days = shop_chain if parts == 1 else split_chain
    assert days[DAY].num_parts == parts
    files = make_days(days, piece_rows=piece_rows)(DAY)
    assert files.size == encoded.size > 300
    bounds = np.array([[3, 50], [120, 121], [200, encoded.size]])
    chosen = np.concatenate([np.arange(*bound) for bound in bounds])
    found = files.read(bounds)
    assert (encoded.start[chosen] < encoded.stop[chosen]).mean() > 0.2, "histories must be compared"
    assert (encoded.user_row == encoded.users.ids.shape[0] - 1).any(), "and users that nobody knows yet"
    for mine, theirs in zip(_gathered(found, np.arange(found.size)), _gathered(encoded, chosen), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("parts", [1, 3])
def test_labels_in_pieces_are_those_of_the_day(shop_chain, split_chain, parts):
    """Also as they were known earlier: most windows of the day were open then."""
    days = shop_chain if parts == 1 else split_chain
    nulls = []
    for as_of in (days.as_of, days.end_of(DAY)):
        known = days.as_known_at(as_of)
        pieces = list(known.labels_in_pieces(DAY, 64))
        assert len(pieces) > 3
        whole = known.labels(DAY)
        assert pl.concat(pieces).sort("impression_id").equals(whole.sort("impression_id"))
        nulls.append(whole.null_count().sum_horizontal().item())
    assert nulls[0] < nulls[1]


def test_feedback_is_read_once_however_many_pieces_a_day_has(shop_chain, make_days, monkeypatch):
    read = {"feedback": 0, "examples": 0}
    slices = DaySnapshot.slices

    def counted(self, name, part, num_rows):
        for rows in slices(self, name, part, num_rows):
            read[name] = read.get(name, 0) + rows.height
            yield rows

    monkeypatch.setattr(DaySnapshot, "slices", counted)
    make_days(shop_chain, piece_rows=32)(DAY)
    assert read["feedback"] == sum(day.table("feedback").height for day in shop_chain[DAY:])
    assert read["examples"] == shop_chain.num_impressions(DAY) > 300


def test_the_labels_of_tasks_that_are_not_trained_are_hidden(shop_chain, make_days, encoded):
    files = make_days(shop_chain, hidden=["click"])(DAY)
    found = files.read(np.array([[0, files.size]]))
    assert np.isnan(found.labels["click"]).all()
    np.testing.assert_array_equal(found.labels["rating"], encoded.labels["rating"])


def test_the_first_day_has_no_values_of_the_day_before(shop_chain, make_days, encoder, config):
    files = make_days(shop_chain)(0)
    found = files.read(np.array([[0, files.size]]))
    first = encode_day(encoder, shop_chain, 0, config.tasks)
    for mine, theirs in zip(*(_gathered(r, np.arange(first.size)) for r in (found, first)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_killed_run_leaves_whole_days_and_they_are_used_again(shop_chain, make_days, tmp_path, monkeypatch):
    days = make_days(shop_chain)
    days(1)

    def killed(self, hidden, piece_rows):
        self.arrays.append("item_ids", np.zeros((1, 1)))
        raise KeyboardInterrupt

    monkeypatch.setattr(DayWriter, "write", killed)
    assert days(1).size == shop_chain.num_impressions(1), "read, not written again"
    with pytest.raises(KeyboardInterrupt):
        days(2)
    assert [p.name for p in (tmp_path / "days").iterdir()] == [f"day-{shop_chain[1].day}"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_full_disk_names_what_is_needed_and_leaves_nothing_half_written(
    shop_chain, make_days, encoded, tmp_path, monkeypatch, seed
):
    """At any write: the next run writes the day anew."""
    write, calls = ArrayWriter.__dict__, []

    def patched(name, fail_at):
        def call(self, *args):
            calls.append(name)
            if len(calls) == fail_at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_of[name](self, *args)

        return call

    write_of = {name: write[name] for name in ("append", "place")}
    days = make_days(shop_chain)

    def fail_at(number):
        calls.clear()
        for name in write_of:
            monkeypatch.setattr(ArrayWriter, name, patched(name, number))

    fail_at(None)
    days(1)
    drawn = int(np.random.default_rng(seed).integers(1, len(calls)))
    fail_at(drawn)
    with pytest.raises(
        DataError, match=r"into .*days: No space left.* need about [\d.,]+ MB and .* are free"
    ):
        days(DAY)
    assert [p.name for p in (tmp_path / "days").iterdir()] == [f"day-{shop_chain[1].day}"]
    fail_at(None)
    again = days(DAY)
    found = again.read(np.array([[0, again.size]]))
    for mine, theirs in zip(*(_gathered(r, np.arange(again.size)) for r in (found, encoded)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_bytes_that_a_day_is_said_to_need_are_those_of_its_files(shop_chain, encoder, config, tmp_path):
    writer = DayWriter(encoder, shop_chain, DAY, config.tasks, tmp_path)
    writer.write((), 64)
    assert writer.num_bytes == sum(file.stat().st_size for file in tmp_path.glob("*.bin"))


def test_training_from_files_gives_the_weights_of_memory(shop_chain, split_chain, make_config, tmp_path):
    config = make_config(
        training={"chunk_rows": 128, "batch_size": 100},
        feature=[{"name": "country", "entity": "user", "kind": "multi_hot", "dim": 4}],
    )
    periods = {t.name: (1, 2) for t in config.tasks} | {"rating": (1, 1)}
    trained = [
        train(days, periods, config, None, 2, folder=folder).weights()
        for days, folder in ((shop_chain, None), (split_chain, tmp_path))
    ]
    for name, values in trained[0].items():
        np.testing.assert_array_equal(values, trained[1][name], err_msg=name)
