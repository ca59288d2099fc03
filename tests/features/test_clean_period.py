"""Many partitions cleaned at once: the same rows and reasons as one after the other, or not at once."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.clean_period import clean_day, clean_together
from recsys.log import InteractionLog
from recsys.schema import empty
from recsys.snapshot import ROW

LOG = InteractionLog(Path("LOG"))
NOTHING = pl.DataFrame()


@pytest.fixture
def config(make_config):
    return make_config(features={"daily_cap": 3})


@pytest.fixture
def partition(frames):
    """Give a day's partition of impressions: partition(number of the day, row, ...)"""

    def made(day, *rows):
        at = frames.noon + timedelta(days=day)
        named = [{"impression_id": f"r{day}{n}:1", "shown_at": at, **row} for n, row in enumerate(rows)]
        return frames.day + timedelta(days=day), _numbered(frames.impressions(*named))

    return made


def _numbered(frame):
    return frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW))


def _together(partitions, config, known=NOTHING):
    return clean_together("impressions", partitions, LOG, config, known)


def test_at_once_is_as_one_after_the_other(partition, config, frames):
    partitions = [
        partition(0, {}, {"sampling_rate": -1.0}, {"impression_id": "r00:1"}, {"impression_id": "old"}),
        partition(1, {"shown_at": frames.noon}, {}, {"impression_id": "old too"}),
        partition(2, *[{}] * 5),
    ]
    known = frames.impressions({"impression_id": "old"}, {"impression_id": "old too"})
    alone = [
        clean_day("impressions", rows, day, LOG, config, NOTHING if n else known)
        for n, (day, rows) in enumerate(partitions)
    ]
    found = _together(partitions, config, known)
    assert_frame_equal(found.good, pl.concat([day.good for day in alone]))
    assert_frame_equal(found.quarantine, pl.concat([day.quarantine for day in alone]))
    broken = {"sampling_rate|min_exclusive": 1}
    assert found.reasons == {"duplicate": 2, "outside_partition": 1, "over_daily_cap": 2, **broken}


def test_partitions_that_are_not_there_change_nothing(partition, config):
    day, rows = partition(1, {})
    absent = _numbered(empty("impressions"))
    found = _together([(day - timedelta(days=1), absent), (day, rows)], config)
    assert_frame_equal(found.good, rows)
    assert _together([(day, absent), (day + timedelta(days=1), absent)], config).good.is_empty()


def test_a_key_of_the_first_day_is_not_looked_for_on_the_second(partition, config, frames):
    """The first partition of the period is not there: what was known before it is two days old."""
    day, rows = partition(1, {"impression_id": "old"})
    absent = _numbered(empty("impressions"))
    known = frames.impressions({"impression_id": "old"})
    assert _together([(day - timedelta(days=1), absent), (day, rows)], config, known).reasons == {}


@pytest.mark.parametrize(
    "second",
    [{"impression_id": "r00:1"}, {"context_device": "phone"}],
    ids=["a key comes again", "another column"],
)
def test_what_needs_the_day_before_is_not_cleaned_at_once(partition, config, second):
    assert _together([partition(0, {}), partition(1, second)], config) is None


def test_a_repeat_beyond_the_cap_is_a_duplicate(partition, config):
    assert _together([partition(0, {}), partition(1, {}, {}, {}, {"impression_id": "r00:1"})], config) is None


def test_a_file_at_fault_is_left_to_be_named(partition, config):
    (day, rows), other = partition(0, {}), partition(1, {})
    broken = [(d, r.with_columns(position=pl.lit(0.5))) for d, r in ((day, rows), other)]
    assert _together(broken, config) is None
