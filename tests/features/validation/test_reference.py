"""Statistics of the checks: hand-worked values, and that noise alone raises nothing."""

from datetime import date, timedelta

import numpy as np
import pytest

from features.validation.profile import ColumnProfile, DayProfile, TableProfile
from features.validation.reference import Compared, column_drift, compare, deviation, share_noise, stability

DAY = date(2026, 1, 30)


def _profile(back, requests=100):
    tables = {t: TableProfile(rows=10 * requests) for t in ("impressions", "feedback", "users", "items")}
    return DayProfile(
        day=DAY - timedelta(days=back), requests=requests, hours=(0,) * 24, tables=tables, ids={},
        received={}, outside={}, labels={}, sketch=(),
    )  # fmt: skip


@pytest.fixture
def compared(config):
    return Compared(today=_profile(0), history=(_profile(7),), recent=(), settings=config)


def _column(counts, effective=None):
    total = sum(counts.values())
    return ColumnProfile(
        rows=total, nulls=0, effective=effective or float(total), categories=counts, values=total
    )


def test_the_stability_index_by_hand():
    today, reference = np.array([199.5, 799.5]), np.array([499.5, 499.5])  # shares .2, .8 against .5, .5
    expected = (0.2 - 0.5) * np.log(0.2 / 0.5) + (0.8 - 0.5) * np.log(0.8 / 0.5)
    assert stability(today, reference).sum() == pytest.approx(expected)


def test_chance_alone_gives_the_expected_index_and_no_drift(compared):
    rng = np.random.default_rng(0)
    names, psis = [f"c{i}" for i in range(8)], []
    for _ in range(300):
        draw = [dict(zip(names, rng.multinomial(60, [1 / 8] * 8).tolist(), strict=True)) for _ in range(6)]
        drift = column_drift(_column(draw[0]), [_column(d) for d in draw[1:]], compared)
        assert drift.is_noise or drift.excess < 0.1
        psis.append(drift.psi)
    # (B-1)(1/n + 1/m), a little less because half a count is added to every bin
    assert np.mean(psis) == pytest.approx(7 * (1 / 60 + 1 / 300), rel=0.15)


def test_a_shift_is_drift_and_names_its_value(compared):
    past = [_column({"phone": 500, "tv": 500}) for _ in range(3)]
    drift = column_drift(_column({"phone": 100, "tv": 900}), past, compared)
    assert not drift.is_noise
    assert drift.excess > 0.25
    assert (drift.bins, drift.rows) == (("phone",), 100)


def test_a_value_never_seen_is_drift(compared):
    past = [_column({"phone": 500, "tv": 500}) for _ in range(3)]
    drift = column_drift(_column({"phone": 400, "tv": 400, "Phone": 200}), past, compared)
    assert drift.others
    assert (set(drift.bins), drift.rows) == ({"phone", "tv"}, 200)


def test_few_independent_draws_are_not_evaluated(compared):
    past = [_column({"phone": 500, "tv": 500}) for _ in range(3)]
    assert column_drift(_column({"tv": 900}, effective=5.0), past, compared) is None


def test_ids_are_no_categories(compared):
    ids = {f"author{i}": 1 for i in range(40)}
    column = ColumnProfile(rows=400, nulls=0, effective=400.0, categories=ids, values=400)
    assert column_drift(column, [column] * 3, compared) is None


def test_half_a_count_is_far_off_and_a_few_are_not(compared):
    history = [(1000.0, 1.0), (1020.0, 1.0), (980.0, 1.0), (1010.0, 1.0)]
    half = deviation(500, 1.0, history, compared)
    assert half.ratio == pytest.approx(500 / 1005)
    assert not half.is_noise
    assert deviation(940, 1.0, history, compared).is_noise
    assert deviation(0, 1.0, [(5.0, 1.0)] * 4, compared) is None, "too little is expected"


def test_small_counts_need_a_larger_difference(compared):
    assert deviation(15, 1.0, [(25.0, 1.0)] * 4, compared).is_noise
    assert not deviation(1_500, 1.0, [(2_500.0, 1.0)] * 4, compared).is_noise


def test_an_odd_day_in_the_history_changes_little(compared):
    history = [(1000.0, 1.0), (1020.0, 1.0), (10.0, 1.0), (980.0, 1.0), (1010.0, 1.0)]
    assert deviation(1000, 1.0, history, compared).ratio == pytest.approx(1.0, abs=0.02)


def test_shares_of_few_draws_may_be_far_off(compared):
    assert share_noise(0.1, 10_000, compared) == pytest.approx(4.89 * 0.003, rel=0.01)
    assert share_noise(0.0, 50, compared) > 0.05


def test_the_same_weekdays_come_first(config):
    earlier = [_profile(back) for back in range(60, 0, -1)]
    history = compare(_profile(0), earlier, config).history
    assert [p.day.weekday() for p in history] == [DAY.weekday()] * 8
    assert history[0].day == DAY - timedelta(days=56)


def test_with_too_few_of_them_all_recent_days_and_then_none(config):
    assert len(compare(_profile(0), [_profile(b) for b in range(13, 0, -1)], config).history) == 13
    assert compare(_profile(0), [_profile(b) for b in (2, 1)], config).history == ()


def test_days_without_rows_are_no_example(config):
    earlier = [_profile(back, requests=0 if back == 3 else 100) for back in range(6, 0, -1)]
    assert len(compare(_profile(0), earlier, config).history) == 5
