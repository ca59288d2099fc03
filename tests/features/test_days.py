from datetime import timedelta

import pytest

import features.days
from features.build import build_snapshots
from features.days import Days
from features.labels import make_labels
from recsys.log import InteractionLog
from recsys.stages import Stages


def test_labels_see_late_feedback_of_later_days_up_to_the_night(shop_chain, config):
    same, later = (shop_chain.as_known_at(shop_chain.end_of(n)).labels(2) for n in (2, 5))
    assert later["label_click"].drop_nulls().sum() > same["label_click"].drop_nulls().sum()
    assert same["label_rating"].drop_nulls().len() < later["label_rating"].drop_nulls().len()
    alone = Days.of(shop_chain[:3], config)
    assert alone.labels(2).equals(same), "snapshots after the night change nothing"


def test_a_days_labels_are_made_once(shop_chain, config, monkeypatch):
    days, made = Days.of(shop_chain, config), []
    monkeypatch.setattr(features.days, "make_labels", lambda *a: made.append(a) or make_labels(*a))
    assert days.labels(1) is days.labels(1)
    assert len(made) == 1
    later = days.as_known_at(days.end_of(1))
    assert not later.labels(1).equals(days.labels(1)), "another instant has labels of its own"
    made.clear()
    assert later.apart().labels(2).equals(later.labels(2))
    assert len(made) == 2, "of days apart nothing is kept"


def test_other_tasks_have_other_labels(shop_chain, config):
    click = next(t for t in config.tasks if t.name == "click")
    assert shop_chain.labelled_for([click]).labels(1).columns == ["impression_id", "user_id", "label_click"]
    assert shop_chain.labelled_for(config.tasks) is shop_chain


def test_days_have_places(shop_chain):
    first, second = shop_chain[0], shop_chain[1]
    assert shop_chain.before(0) is None
    assert shop_chain.before(1) is first
    assert shop_chain.place(second.day) == 1
    assert shop_chain.between(first.day, second.day) == [0, 1]
    assert shop_chain.dates_of([1, 0]) == [second.day, first.day]
    assert shop_chain.end_of(shop_chain.last) == shop_chain.as_of
    assert shop_chain.num_impressions(1) == second.table("examples").height
    with pytest.raises(ValueError, match="2020"):
        shop_chain.place(first.day.replace(year=2020))


@pytest.mark.parametrize(
    ("last_hours", "ends_with_log"),
    [
        ((23, 22, 23, 12), True),
        ((23, 22, 23, 22), False),
        ((23, 22, 23, 21), False),  # an evening that is an hour quieter
        ((0, 0, 0, 0), False),  # dates without a time
        ((12,), False),
        ((23, 22, None, 12), True),
        ((23, 22, 23, None), False),
    ],
)
def test_labels_are_known_until_the_log_ends(frames, make_config, tmp_path, last_hours, ends_with_log):
    """An impression of which the log has no full window has no label, also if its day should be over."""
    log, day = InteractionLog(tmp_path / "log"), timedelta(days=1)
    first = frames.noon.replace(hour=0)
    shown, clicked = [], []
    for n, hour in enumerate(last_hours):
        at = [] if hour is None else [first + n * day, first + n * day + timedelta(hours=hour)]
        shown += [{"impression_id": f"r{n}{i}:1", "shown_at": instant} for i, instant in enumerate(at)]
        clicked += [{"impression_id": f"r{n}0:1", "occurred_at": instant} for instant in at[:1]]
    frames.write(log, "impressions", frames.impressions(*shown))
    frames.write(log, "feedback", frames.feedback(*clicked))
    frames.write(log, "items", frames.items({}))
    last = (first + (len(last_hours) - 1) * day).date()
    days = build_snapshots(log, last, make_config(), Stages(tmp_path / "stages"))
    over = days.end_of(days.last)
    event = max(row["shown_at"] for row in shown)
    assert days.as_of == (event + timedelta(milliseconds=1) if ends_with_log else over)
    if ends_with_log:
        assert days.labels(days.last)["label_click"].to_list() == [1.0, None]
        assert days.as_known_at(over).labels(days.last)["label_click"].to_list() == [1.0, 0.0]
    assert days.labelled_for(days.tasks[:1]).as_of == days.as_of
