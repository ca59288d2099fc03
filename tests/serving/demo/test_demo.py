"""Pieces of the demo: who asks when, what is sent when, what is counted, what is written and printed."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from recsys.config import default_config
from recsys.errors import ConfigError
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import write_log
from recsys.simulator.oracle import read_labelled
from recsys.simulator.shop import Shop
from serving.client_values import Answer, CallError, Feedback, FeedbackReport, Item
from serving.demo.children import Children, StepError
from serving.demo.click_example import ClickExample, best_example
from serving.demo.oracle_comparison import (
    BinaryQuality,
    DayQuality,
    RatingQuality,
    RetrievalQuality,
    ScoredDay,
    day_quality,
    labelled_day,
    mean_quality,
    oracles_of_day,
    popular_click_rate,
    share_of_gain,
)
from serving.demo.printed_summary import next_commands, print_summary
from serving.demo.run import _night, longer_evening
from serving.demo.schedule import ScheduledRequest, ServerClock, schedule_requests
from serving.demo.summary import (
    DemoSummary,
    NightLine,
    Served,
    ServerStop,
    Swap,
    quality_fields,
    served_rows,
    traffic_fields,
)
from serving.demo.traffic import SimulatedUsers
from serving.demo.traffic_counts import TrafficCounts
from serving.demo.workspace import MARKER, BackgroundResult, config_text, locked_folder

START = datetime(2026, 1, 31, 18, tzinfo=UTC)
LATE = START + timedelta(days=2)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def shop() -> Shop:
    """Everybody clicks half of what they see, and buys half of that."""
    dials = ShopDials(users=30, items=100, days=3, click_base=0.0, purchase_base=0.0, rated_clicks=0.5)
    return Shop.from_seed(dials, 1)


class Clock:
    """The server's clock, set by hand."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def seconds_until(self, instant: datetime) -> float:
        return (instant - self.at).total_seconds()


class Client:
    """Shows the first items of the shop; remembers what was called and when."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.version = clock, "v1"
        self.asked: list[tuple[datetime, str, dict]] = []
        self.sent: list[tuple[datetime, Feedback]] = []
        self.down = False

    def recommend(self, user_id: str, page_size: int = 0, **more: object) -> Answer:
        self.asked.append((self.clock.at, user_id, more))
        if self.down:
            raise CallError("UNAVAILABLE", "gone", "here")
        request = f"r{len(self.asked)}"
        return answer(request, [f"i{n:06d}" for n in range(page_size)], self.version)

    def record_feedback(self, events: list[Feedback]) -> FeedbackReport:
        self.sent += [(self.clock.at, event) for event in events]
        if self.down:
            raise CallError("UNAVAILABLE", "gone", "here")
        return FeedbackReport(num_accepted=len(events), num_duplicate=0, rejected={}, degradation=())


def answer(request: str, item_ids: list[str], version: str = "v1", reason: str = "popular") -> Answer:
    items = tuple(
        Item(
            item_id=item_id,
            title=f"title {item_id}",
            position=position,
            score=0.0,
            predictions={"click": 0.25},
            sources=(),
            reasons=(reason,),
            propensity=1.0,
            propensity_kind="exact",
            impression_id=f"{request}:{position}",
        )
        for position, item_id in enumerate(item_ids, start=1)
    )
    return Answer(
        items=items,
        request_id=request,
        list_id=f"list-{request}",
        bundle_version=version,
        next_page_token="",
        degradation=(),
        missing_item_ids=(),
        server_s=0.0,
    )


def play(users: SimulatedUsers, clock: Clock, until: datetime, tick: timedelta = MINUTE) -> None:
    """Turn the clock and let the users do what is due at each tick."""
    while clock.at < until:
        clock.at += tick
        while users._queue and users._queue[0][0] <= clock.at:
            users.step()


def make_users(shop: Shop, planned: list, gap: timedelta = timedelta(days=9)) -> tuple:
    clock = Clock()
    client = Client(clock)
    return SimulatedUsers(shop, client, clock, planned, gap, np.random.default_rng(0)), client, clock


# --- who asks when


def test_an_evening_has_one_request_a_user_in_order_within_it() -> None:
    users = np.arange(200) % 7
    planned = schedule_requests(START, START + timedelta(hours=6), users, np.random.default_rng(0))
    instants = [at for at, _ in planned]
    assert instants == sorted(instants)
    assert START <= instants[0] < START + timedelta(minutes=10)
    assert START + timedelta(hours=5, minutes=50) < instants[-1] <= START + timedelta(hours=6)
    assert sorted(ask.user for _, ask in planned) == sorted(users.tolist())


def test_the_estimate_of_the_servers_time_is_never_ahead_of_it(monkeypatch) -> None:
    """Of five replies, slow on either way, the quickest counts; it is late by its way back alone."""
    passed_s = 50.0
    ways = iter([(0.5, 2.0), (0.001, 0.002), (3.0, 0.001), (0.004, 0.1), (0.002, 0.3)])
    monkeypatch.setattr(time, "monotonic", lambda: passed_s)

    def server_now() -> datetime:
        return START + timedelta(seconds=(passed_s - 50.0) * 400)

    def status() -> SimpleNamespace:
        nonlocal passed_s
        there, back = next(ways)
        passed_s += there
        now = server_now()
        passed_s += back
        return SimpleNamespace(now=now)

    clock = ServerClock(status, 400)
    for _ in range(20):
        assert (server_now() - clock.now()).total_seconds() == pytest.approx(0.002 * 400)
        passed_s += 7.0
    assert clock.seconds_until(clock.now() + timedelta(seconds=400)) == pytest.approx(1.0)


# --- what is sent when


def test_an_evening_that_the_machine_could_not_follow_is_named_with_a_longer_one() -> None:
    assert longer_evening(shown=90, planned=100, evening_s=10.0) == ""
    advice = longer_evening(shown=20, planned=100, evening_s=10.0)
    assert "20 of 100 planned lists" in advice
    assert "--evening-s 50)" in advice
    assert "0 of 100" in longer_evening(shown=0, planned=100, evening_s=10.0)


def test_actions_are_sent_once_their_time_has_come_and_not_before(shop) -> None:
    users, client, clock = make_users(
        shop, [(START + MINUTE, ScheduledRequest(3)), (START + 2 * MINUTE, ScheduledRequest(4))]
    )
    play(users, clock, START + timedelta(days=1))
    assert {user for _, user, more in client.asked if "context" in more} == {"u000003", "u000004"}
    assert len(client.sent) > 5
    for at, event in client.sent:
        assert event.occurred_at is not None
        assert START + MINUTE <= event.occurred_at <= at < event.occurred_at + MINUTE
    ids = [event.feedback_id for _, event in client.sent]
    assert len(set(ids)) == len(ids)
    assert {event.impression_id.split(":")[0] for _, event in client.sent} <= {"r1", "r2", "r3", "r4", "r5"}
    assert sum(users.counts.recorded.values()) == len(client.sent)
    kinds = [event.kind for _, event in client.sent]
    assert kinds.index("click") < kinds.index("purchase")


def test_when_the_planned_requests_are_over_others_follow_at_the_gap(shop) -> None:
    users, client, clock = make_users(shop, [(START + MINUTE, ScheduledRequest(3))], gap=10 * MINUTE)
    play(users, clock, START + timedelta(hours=10))
    real = [user for _, user, more in client.asked if "context" in more]
    assert 30 <= len(real) <= 100
    assert users.counts.num_lists == len(real) == len(users.counts.latency_ms)


def test_a_failed_call_is_counted_and_the_rest_goes_on(shop) -> None:
    users, client, clock = make_users(
        shop, [(START + MINUTE, ScheduledRequest(3)), (START + 30 * MINUTE, ScheduledRequest(4))]
    )
    client.down = True
    play(users, clock, START + 10 * MINUTE)
    assert users.counts.failed_calls == 1
    assert users.counts.errors == ["here answered UNAVAILABLE: gone"]
    client.down = False
    play(users, clock, START + 40 * MINUTE)
    assert users.counts.num_lists == 1
    assert users.counts.failed_calls == 1


def test_versions_are_counted_in_order(shop) -> None:
    planned = [(START + n * MINUTE, ScheduledRequest(3)) for n in range(1, 5)]
    users, client, clock = make_users(shop, planned)
    play(users, clock, START + 2 * MINUTE)
    client.version = "v2"
    play(users, clock, START + 4 * MINUTE)
    assert [(run.bundle, run.lists, run.shown) for run in users.counts.answers] == [
        ("v1", 2, 20),
        ("v2", 2, 20),
    ]
    assert all(0 < run.clicks < 20 for run in users.counts.answers)


def test_an_error_in_the_users_thread_is_raised_by_check(shop) -> None:
    users, client, _ = make_users(shop, [(START, ScheduledRequest(3))])
    done = threading.Event()

    def fail(*_: object, **__: object) -> Answer:
        done.set()
        raise ValueError("a bug")

    client.recommend = fail
    with users:
        assert done.wait(120)
    with pytest.raises(ValueError, match="a bug"):
        users.check()


# --- the example


def test_an_example_has_the_list_before_and_after_a_click(shop) -> None:
    users, client, clock = make_users(shop, [(START + MINUTE, ScheduledRequest(3))])
    play(users, clock, START + timedelta(hours=1), tick=timedelta(seconds=10))
    example = best_example(users.examples)
    assert example is not None
    assert example.user_id == "u000003"
    assert example.after is not None
    assert example.num_changed == 0
    told = [at for at, _, more in client.asked if more.get("debug") == {"do_not_log": True}]
    assert len(told) == 2 * len(users.examples)


def test_the_best_example_is_the_one_that_the_click_explains() -> None:
    before = answer("r1", ["a", "b"])
    plain = ClickExample(user_id="u", clicked="title b", before=before, after=answer("r2", ["b", "a"]))
    named = replace(plain, after=answer("r3", ["a", "b"], reason="similar to title b you clicked"))
    untold = replace(plain, after=None)
    assert (plain.num_changed, plain.num_explained, untold.num_changed) == (2, 0, 0)
    assert named.num_explained == 2
    assert best_example([untold, plain, named]) is named
    assert best_example([untold]) is None


# --- quality


def test_a_days_labels_are_null_where_a_window_is_open(tmp_path) -> None:
    shop, log = small_log(tmp_path)
    config, last = default_config(), shop.dials.last_day
    closed = labelled_day(log, config, last, last + timedelta(days=1))
    open_at_night = labelled_day(log, config, last, last)
    assert closed["click"].null_count() == 0
    assert open_at_night["rating"].count() == 0 < closed["rating"].count()
    late = open_at_night["click"].is_null()
    assert open_at_night.filter(late)["shown_at"].dt.hour().unique().to_list() == [23]
    # The library's labels, refunds aside, are the shop's own account of the day.
    oracle = read_labelled(log, last, last)
    assert (open_at_night["click"].fill_null(0.0) <= oracle["click"]).all()


def test_a_day_is_scored_beside_the_oracles(tmp_path) -> None:
    shop, log = small_log(tmp_path)
    last = shop.dials.last_day
    report = tmp_path / "e.json"
    heads = {
        "click": {"values": {"list_auc": 0.7}, "rows": 9},
        "purchase": {"values": {"list_auc": None}, "rows": 9},
        "rating": {"values": {"rmse": 0.9}, "rows": 2},
    }
    simple = {"heads": {"click": {"values": {"list_auc": 0.6}}}, "ranking": {"values": {"recall_at_50": 0.2}}}
    mean = {"heads": {"rating": {"values": {"rmse": 1.1}}}, "ranking": None}
    baselines = {"popular": simple, "global_mean": mean}
    ranking = {"values": {"recall_at_50": 0.5}}
    report.write_text(json.dumps({"heads": heads, "ranking": ranking, "baselines": baselines}))
    scored = ScoredDay(day=last, bundle="v", until=last + timedelta(days=1), report=report)
    found = day_quality(scored, oracles_of_day(shop, log, default_config(), last, scored.until))
    assert found.click.list_auc == 0.7
    assert found.click.popularity_list_auc == 0.6
    assert found.click.best_list_auc is not None
    assert found.click.best_list_auc > 0.6
    assert found.purchase.list_auc is None
    assert found.rating.mean_rmse == 1.1
    assert found.rating.noise_rmse is not None
    assert found.retrieval == RetrievalQuality(recall_at_50=0.5, popularity_recall_at_50=0.2)


def small_log(path) -> tuple:
    from recsys.log import InteractionLog

    dials = ShopDials(
        users=60, items=100, days=3, requests_per_user_day=3.0, click_base=-2.0, rated_clicks=0.5
    )
    shop, log = Shop.from_seed(dials, 2), InteractionLog(path / "log")
    for _ in write_log(shop, log):
        pass
    return shop, log


def test_popular_items_would_get_fewer_clicks_than_the_shops_own_choice(tmp_path) -> None:
    shop, log = small_log(tmp_path)
    rows = log.read("impressions", shop.dials.last_day)
    own = shop.true_predictions(rows)["p_click"].mean()
    assert 0 < popular_click_rate(shop, log, rows) < own


def test_work_in_the_background_gives_its_result_or_its_error() -> None:
    assert BackgroundResult(lambda: 3).result() == 3
    with pytest.raises(ZeroDivisionError):
        BackgroundResult(lambda: 1 // 0).result()


def test_means_are_over_the_days_a_figure_is_defined_on() -> None:
    means = mean_quality([day(0.7, 0.9), day(0.8, None)])
    assert means["click"]["list_auc"] == pytest.approx(0.75)
    assert means["rating"]["rmse"] == pytest.approx(0.9)
    assert means["purchase"]["list_auc"] is None


@pytest.mark.parametrize(
    ("value", "informed", "start", "way"),
    [(0.7, 0.75, 0.5, 0.8), (0.9, 0.8, 1.0, 0.5), (None, 0.8, 0.5, None), (0.7, 0.5, 0.5, None)],
)
def test_the_share_of_the_oracles_gain(value, informed, start, way) -> None:
    found = share_of_gain(value, informed, start)
    assert found == (pytest.approx(way) if way is not None else None)


def day(auc: float | None, rmse: float | None) -> DayQuality:
    return DayQuality(
        date="2026-01-30",
        bundle="v",
        labels_until="2026-01-31",
        rows={"click": 1},
        click=BinaryQuality(list_auc=auc, informed_list_auc=0.75, best_list_auc=0.8, popularity_list_auc=0.6),
        purchase=BinaryQuality(),
        rating=RatingQuality(rmse=rmse, mean_rmse=1.0, informed_rmse=0.8, noise_rmse=0.6),
        retrieval=RetrievalQuality(recall_at_50=0.4, popularity_recall_at_50=0.1),
    )


# --- the summary


def a_night(verdict: str = "PROMOTE", reasons: tuple[str, ...] = (), at: str = "2026-01-31") -> NightLine:
    return NightLine(
        date=date.fromisoformat(at),
        verdict=verdict,
        seconds=12.3,
        version=f"{at}-v" if verdict == "PROMOTE" else None,
        evaluated=f"{at}-j",
        reasons=reasons,
    )


def a_summary(last: NightLine | None = None) -> DemoSummary:
    last = last or a_night()
    counts = TrafficCounts(calls={"Recommend": 3}, latency_ms=[1.0, 2.0, 9.0])
    for version in ("v1", "v1", "v2"):
        counts.add(answer("r", ["a", "b"], version)).clicks += 1
    return DemoSummary(
        **quality_fields([day(0.7, 0.9)]),
        **traffic_fields(counts),
        nights=(a_night(at="2026-01-29"), a_night(at="2026-01-30"), last),
        served=Served(
            date=date(2026, 1, 31),
            requests=3,
            impressions=30,
            labelled={"click": 20, "purchase": 10, "rating": 0},
            positives={"click": 4, "purchase": 1, "rating": 0},
            click_rate=0.2,
            logged_click_rate=0.1,
            popular_click_rate=0.05,
        ),
        swap=Swap(version=last.version, followed=True, seconds=1.5),
        server=ServerStop(exit_code=0, seconds=0.4),
        steps={"one": 1.0},
        seed=0,
        seconds=99.0,
    )


def test_the_summary_has_the_promised_keys() -> None:
    said = a_summary().model_dump(mode="json")
    binary = {"list_auc", "popularity_list_auc", "best_list_auc", "informed_list_auc", "auc"}
    assert set(said["quality"]["click"]) == binary
    assert set(said["quality"]["purchase"]) == binary
    assert set(said["quality"]["rating"]) == {"rmse", "mean_rmse", "noise_rmse", "informed_rmse"}
    assert set(said["retrieval"]) == {"recall_at_50", "popularity_recall_at_50"}
    assert set(said["latency_ms"]) == {"p50", "p99"}
    assert {"date", "verdict", "seconds"} <= set(said["nights"][0])
    assert {"calls", "failed_calls", "seconds"} <= set(said)
    assert json.loads(json.dumps(said)) == said
    assert DemoSummary.model_validate(said) == a_summary()
    assert said["answers"][0] == {
        "bundle": "v1",
        "lists": 2,
        "impressions": 4,
        "click_rate": 0.5,
        "predicted_click_rate": 0.25,
    }


def test_counts_without_an_answer_has_no_latency() -> None:
    assert traffic_fields(TrafficCounts())["latency_ms"].p50 is None


def printed(summary: DemoSummary, example: ClickExample | None = None) -> str:
    out = io.StringIO()
    print_summary(Console(file=out, width=110), summary, example, Path("out"), ["recsys bundle list"])
    return out.getvalue()


def test_the_printed_page_has_the_figures() -> None:
    example = ClickExample(
        user_id="u7", clicked="title b", before=answer("r1", ["a", "b"]), after=answer("r2", ["b", "a"])
    )
    text = printed(a_summary(), example)
    for part in (
        "80%",
        "50%",
        "recall@50: 0.400",
        "failed 0",
        "v1 (2) -> v2 (1)",
        "u7 clicked",
        "bundle list",
    ):
        assert part in text


def test_a_night_that_held_is_printed_with_its_reasons() -> None:
    night = a_night("HOLD_UNDERPOWERED", ("purchase auc: too few",))
    assert (
        night.line() == "2026-01-31: HOLD_UNDERPOWERED, the live bundle stays (12 s) (purchase auc: too few)"
    )
    text = " ".join(printed(a_summary(night)).split())
    assert "No swap: the night ended HOLD_UNDERPOWERED (purchase auc: too few)" in text


@pytest.mark.parametrize("code", [10, 11, 14, 15])
def test_the_demo_goes_on_after_a_night_that_kept_the_live_bundle(code, capsys) -> None:
    """Only the JSON says why: `nightly --json -` prints no table above it."""
    night = {**a_night("CHECK_FAILED", ("no server took it",)).model_dump(mode="json"), "version": None}
    script = f"import sys; print({json.dumps(json.dumps(night))}); sys.exit({code})"

    class Nights(Children):
        def _start(self, arguments, stdout, stderr):
            child = subprocess.Popen([sys.executable, "-c", script], stdout=stdout, encoding="utf-8")
            self.running.append(child)
            return child

    demo = SimpleNamespace(children=Nights(), config_file="c", where=[])
    assert _night(demo, date(2026, 1, 31)).verdict == "CHECK_FAILED"
    assert "CHECK_FAILED, the live bundle stays (12 s) (no server took it)" in capsys.readouterr().out


def test_the_next_commands_survive_a_space_in_the_path() -> None:
    nights = [a_night(at=f"2026-01-{n}") for n in (28, 29, 30, 31)]
    commands = next_commands("recsys", Path("my runs/demo"), nights, "u000001")
    assert commands[1] == "recsys bundle list --runs 'my runs/demo/runs'"
    assert "--a 2026-01-29-j --b 2026-01-30-j --from 2026-01-30 --to 2026-01-30" in commands[2]
    assert commands[0].endswith("--clock-start 2026-02-01T18:00:00Z &")
    assert "--user u000001" in commands[3]


def test_served_rows_are_counted_by_label(tmp_path) -> None:
    shop, log = small_log(tmp_path)
    last = shop.dials.last_day
    served = served_rows(shop, log, default_config(), last)
    assert served.impressions == log.read("impressions", last).height
    assert served.labelled["rating"] == served.positives["rating"] == 0
    assert 0 < served.positives["purchase"] < served.positives["click"] < served.labelled["click"]
    assert served.click_rate == pytest.approx(served.positives["click"] / served.labelled["click"], abs=1e-4)


# --- the folder


def test_an_earlier_demo_is_cleared_with_a_word_and_other_files_stay(tmp_path, capsys) -> None:
    out = tmp_path / "demo"
    with locked_folder(out):
        (out / "log").mkdir()
        (out / "log" / "x").write_text("x")
        (out / "notes.txt").write_text("mine")
        (out / "summary.json").write_text("{}")
    assert not capsys.readouterr().out
    with locked_folder(out):
        assert capsys.readouterr().out == f"removes the earlier demo in {out}: log, summary.json\n"
        assert sorted(p.name for p in out.iterdir()) == [MARKER, "notes.txt"]


def test_a_folder_of_something_else_is_refused(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not an earlier demo's"), locked_folder(tmp_path):
        pass
    with pytest.raises(ConfigError, match="is a file"), locked_folder(tmp_path / "thesis.txt"):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_two_demos_cannot_share_a_folder(tmp_path) -> None:
    with (
        locked_folder(tmp_path / "demo"),
        pytest.raises(ConfigError, match="another demo is running"),
        locked_folder(tmp_path / "demo"),
    ):
        pass


def test_the_packaged_config_with_the_demos_settings_is_valid(tmp_path) -> None:
    from recsys.config import load_config

    (tmp_path / "shop.toml").write_text(config_text(None))
    config = load_config(tmp_path / "shop.toml")
    assert [task.name for task in config.tasks] == ["click", "purchase", "rating"]


# --- the children


def test_a_command_that_fails_ends_the_demo_with_its_code(tmp_path, capfd) -> None:
    arguments = ["simulate", "--out", str(tmp_path), "--days", "0"]
    with Children() as children:
        with pytest.raises(StepError, match="ended with exit code 2") as raised:
            children.run(arguments)
        assert children.running == []
        assert children.run(arguments, accepted_codes=[2]).code == 2
    assert raised.value.exit_code == 2
    assert "--days 0" in capfd.readouterr().err


def test_a_server_that_does_not_start_is_an_error(tmp_path) -> None:
    with Children() as children, pytest.raises(StepError, match=r"server\.log"):
        children.serve(
            ["serve", "--config", str(tmp_path / "no.toml"), "--log", "l", "--runs", "r"],
            tmp_path / "ports.json",
            tmp_path / "server.log",
        )
    assert "cannot read the config" in (tmp_path / "server.log").read_text()


def test_no_child_is_left_behind() -> None:
    with Children() as children:
        endless = "import time; print('up', flush=True); time.sleep(3600)"
        child = subprocess.Popen([sys.executable, "-c", endless], stdout=subprocess.PIPE, encoding="utf-8")
        children.running.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"  # an interpreter that is still starting may end otherwise
    assert child.returncode == -signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
