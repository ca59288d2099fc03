"""Weeks of nights: the script of what goes wrong, what is looked at after each, the page. No night is run."""

from contextlib import closing
from datetime import date
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from benchmarks.loop.loop import ServedDay
from benchmarks.nightly.long_page import long_curves, long_page
from benchmarks.nightly.long_run import NOT_RUN, Script, _Damaged, _problems, _row, long_config, long_dials
from features.store import open_store
from recsys.registry import Registry
from recsys.simulator.shop import Shop

NIGHT = date(2026, 1, 30)
VERSION = "2026-01-30-0123456789ab"


@pytest.fixture
def world(config, tmp_path):
    return SimpleNamespace(config=config, runs=tmp_path, registry=Registry(tmp_path))


def test_a_night_ends_as_the_script_says_or_with_a_verdict():
    script = Script.of(28)
    assert (script.expected(7), script.expected(14)) == ({NOT_RUN}, {"StoreError"})
    assert script.expected(21) == {"DataError"}
    assert script.expected(8) == {"PROMOTE", "HOLD", "HOLD_UNDERPOWERED", "CHECK_FAILED"}


def test_a_damaged_day_is_whole_again_afterwards(tmp_path):
    day = tmp_path / f"date={NIGHT}"
    day.mkdir()
    rows = pl.DataFrame({"item_id": [f"i{n}" for n in range(8)]})
    rows.write_parquet(day / "part.parquet")
    with _Damaged(day):
        assert pl.read_parquet(day / "part.parquet", hive_partitioning=False)["item_id"].null_count() == 6
    assert [path.name for path in tmp_path.iterdir()] == [day.name]
    assert pl.read_parquet(day / "part.parquet", hive_partitioning=False).equals(rows)


def test_what_would_keep_a_server_from_going_on_is_said(world):
    assert _problems(world) == ["None is live and not there"]
    folder = world.registry.path(VERSION)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    world.registry.folder.mkdir()
    (world.registry.folder / "CURRENT").write_text(f"{VERSION}\n")
    (problem,) = _problems(world)
    assert VERSION in problem
    with closing(open_store(world.config.store, world.runs)) as store:
        store.publish(VERSION, [], {}, 0)
    assert _problems(world) == []
    (folder / ".half.tmp").touch()
    assert _problems(world) == ["left over: .half.tmp"]


def test_the_page_has_a_line_a_world_and_a_row_a_night():
    def of(value):
        return ServedDay(
            day=NIGHT,
            value=np.array([value, value + 1]),
            expected_click=0.1,
            observed_click=0.1,
            true_click=0.1,
            new_shown=0.0,
            new_offered=0.1,
        )

    rows = [
        _row(NIGHT, "PROMOTE", 3.0, [], [of(2.0), of(1.0), of(1.5)]),
        _row(date(2026, 1, 31), NOT_RUN, 0.0, ["a < b"], [of(2.0), of(1.0), of(1.5)]),
    ]
    assert rows[0]["above_never_retrained"]["mean"] == pytest.approx(1 / 1.5)
    assert rows[0]["above_always_published"]["mean"] == pytest.approx(0.5 / 2.0)
    html = long_page({"nights": rows, "seed": 3})
    assert html.count('class="curve pair') == 6, "three lines and their legend"
    assert "a &lt; b" in html
    assert html.count("<tr>") == 3
    drawing = long_curves({"nights": rows, "seed": 3})
    assert drawing.count("<path") == 3
    assert all(f">{name}</text>" in drawing for name in ("gated", "never retrained", "always published"))


def test_the_shop_changes_and_its_heads_are_those_of_the_truth():
    dials = long_dials(60)
    assert (dials.drift, dials.new_item_rate) == (0.05, 0.05)
    assert [task.name for task in long_config().tasks] == ["click", "purchase", "rating"]
    assert Shop.from_seed(dials, 0, extra_days=30).horizon == 36
