"""bench nightly --part scale: each stage is really run, on a log of the size that was asked for."""

import pytest

from benchmarks.nightly import scale
from benchmarks.nightly.scale import Scale, measure_scale, parse_rows
from benchmarks.speed.command_cost import command_cost
from benchmarks.speed.features.large_log import LogDials, write_log
from recsys.config import default_config
from recsys.errors import ConfigError, DataError
from recsys.log import InteractionLog


def test_sizes_are_read_as_people_write_them():
    assert parse_rows("250000, 500k,20M") == (250_000, 500_000, 20_000_000)
    for text in ("20m", "1.5M", "", "9999"):
        with pytest.raises(ConfigError, match="write 10000 or more"):
            parse_rows(text)


def test_the_log_has_what_the_shops_config_reads(tmp_path):
    """A feature without a value on any day ends the first night."""
    log = InteractionLog(tmp_path)
    (day,) = write_log(LogDials(rows=10_000, days=1), log)
    tables = {"user": ("users", "attribute_"), "context": ("impressions", "context_")}
    for feature in default_config().attributes:
        table, prefix = tables[feature.entity]
        assert log.read(table, day)[f"{prefix}{feature.name}"].null_count() == 0


def test_a_night_is_run_and_measured():
    found = measure_scale(Scale(rows=(10_000,), days=5, learned_days=1, stages=()))
    start = found["stages"]["10000"][scale.START]
    assert start["seconds"] > 0.1, "it began Python and read the code"
    assert start["peak_mb"] > 50


def test_a_night_that_fails_is_an_error_with_its_words(tmp_path):
    words = ["nightly", "--log", str(tmp_path), "--runs", str(tmp_path), "--date", "2026-01-30"]
    with pytest.raises(DataError, match=r"ended with \d+: .*no impressions in the log"):
        command_cost(words, scale.CHECKOUT)
