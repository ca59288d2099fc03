"""No training row sees what production would not have had: events planted in its future change nothing.

Three days by hand; hypothesis plants late, reversed, repeated and future feedback, and other impressions, at
or after an instant T of the last day. Whatever it plants, every row shown up to T is encoded as without it.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.build import build_snapshots
from features.encode import Encoder
from features.fit import FitFrames, fit_encoder
from features.sequences import history_slices
from recsys.log import InteractionLog
from recsys.schema import INSTANT
from recsys.stages import Stages
from training.crosses import cross_numbers
from training.data import encode_day

LAG_S = 60
DAY = datetime(2026, 1, 5, tzinfo=UTC)
T = DAY + timedelta(days=2, hours=12)
KINDS = ("click", "purchase", "refund", "rating")
PLANTED = st.tuples(
    st.sampled_from(KINDS),
    st.sampled_from(["u", "v", "w"]),
    st.sampled_from(["i0", "i1", "i2"]),
    st.integers(0, 600),  # minutes after T at which it is received
    st.integers(0, 4_000),  # minutes before that at which it occurred: late by days
)


@pytest.fixture(scope="module")
def lag_config(make_config):
    return make_config(
        feature=[], features={"ingestion_lag": f"{LAG_S}s", "history_length": 4, "window_days": [1, 2]}
    )


@pytest.fixture(scope="module")
def base(frames, lag_config, tmp_path_factory):
    """Build the days without anything planted."""
    rng = np.random.default_rng(5)
    shown, done = [], []
    for n in range(240):
        at = DAY + timedelta(minutes=int(rng.integers(0, 3 * 1440)))
        user, item = str(rng.choice(["u", "v"])), f"i{rng.integers(0, 3)}"
        shown.append({"impression_id": f"r{n}:1", "user_id": user, "item_id": item, "shown_at": at})
        for kind in rng.choice(KINDS, rng.integers(0, 3), replace=False):
            late = at + timedelta(minutes=int(rng.exponential(90)))
            if late < T:
                event = {
                    "kind": str(kind),
                    "user_id": user,
                    "item_id": item,
                    "occurred_at": at,
                    "received_at": late,
                }
                rated = {"value": 4.0} if kind == "rating" else {}
                done.append({"feedback_id": f"f{n}{kind}", "impression_id": f"r{n}:1", **event, **rated})
    shown += [
        {"impression_id": f"edge{s}:1", "user_id": "u", "shown_at": T + timedelta(seconds=s)}
        for s in (0, LAG_S - 1, LAG_S)
    ]
    tables = {
        "impressions": frames.impressions(*shown),
        "feedback": frames.feedback(*done),
        "items": frames.items(*({"item_id": f"i{n}", "category": f"c{n % 2}"} for n in range(3))),
    }
    return tables, _encoded(frames, tables, lag_config, tmp_path_factory.mktemp("base"), None)


def _encoded(frames, tables, config, folder, encoder):
    """Build the chain and give the last day's rows shown up to T + lag, with all their values."""
    log = InteractionLog(folder / "log")
    for name, frame in tables.items():
        frames.write(log, name, frame)
    chain = build_snapshots(log, (DAY + timedelta(days=2)).date(), config, Stages(folder / "stages"))
    if encoder is None:
        state = fit_encoder(config, FitFrames.read(chain[1], chain[:2], config), None, 0)
        encoder = Encoder.from_config(config, state)
    encoded = encode_day(encoder, chain, chain.last, config.tasks)
    visible = (encoded.frame["shown_at"] <= T + timedelta(seconds=LAG_S)).to_numpy()
    own = ~encoded.frame["impression_id"].str.starts_with("planted").to_numpy()
    rows = np.flatnonzero(visible & own)
    rows = rows[np.argsort(encoded.frame["impression_id"].gather(rows).to_numpy())]
    users, contexts = encoded.users.take(encoded.user_row[rows]), encoded.contexts.take(rows)
    history = history_slices(
        encoded.start[rows], encoded.stop[rows], config.features.history_length, encoded.shown_at[rows],
        1000 * LAG_S, encoded.events,
    )  # fmt: skip
    values = {
        "users": users.numbers,
        "user_ids": users.ids,
        "items": encoded.items.take(encoded.item_row[rows]).numbers,
        "contexts": contexts.numbers,
        "crosses": cross_numbers(encoded.crosses, encoded.user_row[rows], encoded.item_row[rows]),
        "history_items": history.items,
        "history_kinds": history.kinds,
        "history_ages": history.ages,
        "history_offsets": history.offsets,
    }
    return encoder, encoded.frame["impression_id"].gather(rows), values


def _plant(frames, tables, planted):
    events, shown = [], []
    for n, (kind, user, item, after, before) in enumerate(planted):
        received = T + timedelta(minutes=after)
        rated = {"value": 1.0} if kind == "rating" else {}
        events.append(
            {
                "feedback_id": f"planted{n}",
                "kind": kind,
                "user_id": user,
                "item_id": item,
                "received_at": received,
                "occurred_at": received - timedelta(minutes=before),
                **rated,
            }
        )
        later = received + timedelta(milliseconds=1)
        shown.append({"impression_id": f"planted{n}:1", "user_id": user, "item_id": item, "shown_at": later})
    more = {"feedback": frames.feedback(*events), "impressions": frames.impressions(*shown)}
    return {name: pl.concat([frame, more[name]]) if name in more else frame for name, frame in tables.items()}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(planted=st.lists(PLANTED, min_size=1, max_size=12))
def test_what_comes_later_changes_no_row(frames, base, lag_config, tmp_path_factory, planted):
    tables, (encoder, names, expected) = base
    folder = tmp_path_factory.mktemp("planted")
    _, found_names, found = _encoded(frames, _plant(frames, tables, planted), lag_config, folder, encoder)
    assert found_names.equals(names)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_the_rows_would_see_it_a_millisecond_earlier(frames, base, lag_config, tmp_path):
    """The check can fail: received just before T, the same event reaches the row that stands lag after T."""
    tables, (encoder, _, expected) = base
    event = {"feedback_id": "planted", "kind": "purchase", "occurred_at": T - timedelta(milliseconds=1)}
    seen = {
        **tables,
        "feedback": pl.concat([tables["feedback"], frames.feedback({**event, "item_id": "i1"})]),
    }
    _, names, found = _encoded(frames, seen, lag_config, tmp_path, encoder)
    changed = {name for name, value in expected.items() if not np.array_equal(found[name], value)}
    assert changed == {"contexts", "history_items", "history_kinds", "history_ages"}
    rows = np.flatnonzero((found["contexts"] != expected["contexts"]).any(axis=1))
    assert names.gather(rows).to_list() == [f"edge{LAG_S}:1"]


def test_what_is_not_known_yet_has_no_label(frames, base, lag_config, tmp_path):
    """At the day's end a rating is open whether or not one has come; a closed window has a label."""
    tables, _ = base
    log = InteractionLog(tmp_path / "log")
    for name, frame in tables.items():
        frames.write(log, name, frame)
    chain = build_snapshots(log, (DAY + timedelta(days=2)).date(), lag_config, Stages(tmp_path / "stages"))
    for i, snapshot in enumerate(chain):
        frame = snapshot.table("examples").hstack(chain.labels(i).drop("impression_id", "user_id"))
        for task in lag_config.tasks:
            is_open = frame["shown_at"] + timedelta(seconds=task.window) > pl.Series(
                [chain.as_of], dtype=INSTANT
            )
            assert frame.filter(is_open)[task.label].null_count() == is_open.sum()
            if task.space == "impressions":
                assert frame.filter(~is_open)[task.label].null_count() == 0
