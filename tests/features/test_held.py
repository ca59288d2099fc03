"""A day whose users' state is held: each row has what its group's first impression had, and nothing later."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.build import build_snapshots
from features.held import held_day
from recsys.log import InteractionLog
from recsys.snapshot import STATE_AT
from recsys.stages import Stages

DAY = 4


@pytest.fixture(scope="module", params=[1, 3], ids=["one part", "three parts"])
def days(request, shop_chain, split_chain):
    return shop_chain if request.param == 1 else split_chain


def _shown(days):
    """Read the day with its slices spelt out: the ids of the events that each row may see."""
    snapshot = days[DAY]
    rows, ids = snapshot.examples(), snapshot.table("events")["feedback_id"]
    seen = [ids[start:stop].to_list() for start, stop in rows.select("history_start", "history_stop").rows()]
    return rows.with_columns(seen=pl.Series(seen, dtype=pl.List(pl.String)))


def _group(days, *by):
    return days[DAY].table("examples").select(pl.struct(by).rank("dense").cast(pl.Int64)).to_series()


def test_a_held_row_has_the_state_of_its_groups_first_impression(days):
    group = _group(days, "user_id", "context_device")
    live = _shown(days).with_columns(group=group)
    state = ["seen", *(c for c in days.live_state.columns if "history" not in c)]
    first = live.sort("shown_at").unique("group", keep="first")
    with held_day(days, DAY, group) as held:
        found = _shown(held.days).with_columns(group=group.gather(held.rows))
    wanted = found.select("group").join(first, on="group", maintain_order="left")
    assert_frame_equal(found.select(state), wanted.select(state))
    assert (found[STATE_AT] == wanted["shown_at"]).all()
    changed = found["seen"] != live["seen"].gather(held.rows)
    assert changed.mean() > 0.5, "a user's later rows had seen what the earlier ones led to"


def test_only_rows_after_their_groups_first_one_are_held_and_nothing_else_of_them_changes(days):
    group = _group(days, "user_id")
    live = days[DAY].table("examples").with_columns(group=group)
    later = live["shown_at"] > live.select(pl.col("shown_at").min().over("group")).to_series()
    with held_day(days, DAY, group) as held:
        found = held.days[DAY].table("examples")
        assert held.days.num_impressions(DAY) == found.height > 100
        assert held.rows.tolist() == np.flatnonzero(later).tolist()
        kept = [c for c in found.columns if c not in (*days.live_state.columns, STATE_AT)]
        assert_frame_equal(found.select(kept), live[held.rows].select(kept))
        labels = held.days.labels(DAY)
    assert_frame_equal(labels, days.labels(DAY)[held.rows])
    assert not list(days[DAY].path.parent.glob(".held*")), "nothing is left on the disk"


def test_a_row_of_no_group_keeps_its_own_state(days):
    group = _group(days, "user_id")
    odd = pl.int_range(group.len(), eager=True) % 2
    with held_day(days, DAY, group.set(odd == 0, None)) as held:
        assert set(held.rows % 2) == {1}


def test_where_groups_are_requests_nothing_is_held(days):
    with held_day(days, DAY, _group(days, "request_id")) as held:
        assert held is None


def test_rows_of_one_request_that_were_shown_later_are_held(frames, make_config, tmp_path, at):
    """Feedback on the first row of a page comes before its second row is seen: it must not tell of it."""
    config, log = make_config(features={"ingestion_lag": "1m"}), InteractionLog(tmp_path / "log")
    frames.write(log, "items", frames.items({}))
    frames.write(log, "users", frames.users({}))
    shown = [
        {"impression_id": f"r:{n}", "position": n, "shown_at": at(minutes=minute), "context_device": "app"}
        for n, minute in ((1, 0), (2, 5), (3, 0))
    ]
    frames.write(log, "impressions", frames.impressions(*shown))
    clicks = [{"feedback_id": f"f{m}", "occurred_at": at(minutes=m)} for m in (-3, -1, 1)]
    frames.write(log, "feedback", frames.feedback(*clicks))
    days = build_snapshots(log, frames.day, config, Stages(tmp_path / "stages"))
    assert days[0].table("examples")["live_click_count"].to_list() == [1, 3, 1]
    with held_day(days, 0, pl.Series([0, 0, 0])) as held:
        found = held.days[0].table("examples")
    assert held.rows.tolist() == [1]
    assert found["live_click_count"].to_list() == [1], "received before the first row, less the lag"
    assert found["live_seconds"].to_list() == [180]
    assert found[STATE_AT].to_list() == [found["shown_at"][0] - timedelta(minutes=5)]
