"""`recsys demo`: the whole loop on the simulated shop, by the same commands that a user types.

simulate -> three nights -> what the model is worth -> an evening of simulated users over gRPC -> the night
that learns from that evening, while users keep asking -> summary.json and a page to read.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import NoReturn

import numpy as np
from rich.progress import Progress

from features.definitions import read_config
from recsys.config import RunConfig
from recsys.simulator.dials import ShopDials
from recsys.simulator.oracle import OracleReport
from recsys.simulator.shop import Shop
from recsys.stages import write_json
from serving.client_values import ItemUpdate
from serving.demo.children import Children, ServerChild, command_prefix, on_sigterm
from serving.demo.pace import ServerTime, evening
from serving.demo.page import next_commands, print_summary
from serving.demo.quality import DayQuality, ScoredDay, day_quality, oracles_of_day
from serving.demo.setup import BARS, EVENING, OUT, Demo, InBackground, config_text, say, taken_folder
from serving.demo.summary import (
    DemoSummary,
    NightLine,
    Stopped,
    Swap,
    quality_fields,
    served_rows,
    traffic_fields,
)
from serving.demo.tally import best_story
from serving.demo.traffic import SimulatedUsers

HELD = (10, 11)
"""Exit codes of a night that kept the live bundle: a verdict, not a failure."""
EVENING_ONLY = "volume,hours,clock,feedback_rate,label_rate,drift"
"""What a night may find of a day of which only the evening was served, by another policy than before."""
NUM_NIGHTS = 3
LISTED_USERS = 500
"""Users who get ranked lists in each evaluation."""
NIGHT_SLOWDOWN = 4
"""Users ask this much less often after midnight."""
_SWAP_S = 60.0
_AFTER_SWAP_S = 2.0
_TIMEOUT_S = 10.0
Oracles = Mapping[date, InBackground[OracleReport]]


def run_demo(
    out: Path, config: Path | None, *, seed: int, dials: ShopDials, requests: int, evening_s: float
) -> None:
    """Run the loop in a folder, and print what it found.

    Args: config: default the simulated shop's; requests: that users make in the evening; evening_s: how many
    seconds the evening takes.
    Raises: ConfigError for a folder in use; StepError when one of the commands failed.
    """
    text = config_text(config)
    with taken_folder(out), Children() as children, on_sigterm(_leave):
        (out / "shop.toml").write_text(text, encoding="utf-8")
        demo = Demo(
            out=out, seed=seed, dials=dials, requests=requests, evening_s=evening_s, children=children
        )
        try:
            _run(demo, read_config(demo.config_file))
        except KeyboardInterrupt:
            print("recsys demo: stopping what it started", file=sys.stderr, flush=True)
            raise


def _run(demo: Demo, config: RunConfig) -> None:
    dials = demo.dials
    with demo.step(f"the shop's log: {dials.days} days up to {dials.last_day}, seed {demo.seed}"):
        _simulate(demo)
        shop = Shop.from_log(demo.log.root)
    last_days = [dials.last_day - timedelta(days=i) for i in reversed(range(NUM_NIGHTS))]
    oracles = {day: _oracles(demo, shop, config, day) for day in last_days[1:]}
    with demo.step(f"{NUM_NIGHTS} nights: a cold start, then warm starts"):
        nights = [_night(demo, day) for day in last_days]
    with demo.step("what the model is worth on days it had not seen"):
        quality = _quality(demo, nights, oracles)
    with ExitStack() as stack:
        with demo.step(f"users ask over gRPC: six hours of an evening in {demo.evening_s:.0f} s"):
            server = _start_server(demo)
            users, clock = stack.enter_context(_traffic(demo, server, shop))
            _wait_for_midnight(demo, users, clock)
        with demo.step(f"the night of {demo.served_day} learns from that evening, and users keep asking"):
            nights.append(_night(demo, demo.served_day, "--accept-findings", EVENING_ONLY))
            swap = _watch_swap(users, nights[-1])
    with demo.step("the server drains and stops"):
        stopped = _stop_server(server)
    summary = DemoSummary(
        **quality_fields(quality),
        **traffic_fields(users.tally),
        nights=tuple(nights),
        served=served_rows(shop, demo.log, config, demo.served_day),
        swap=swap,
        server=stopped,
        steps=demo.step_seconds,
        seed=demo.seed,
        seconds=round(time.perf_counter() - demo.began, 1),
    )
    write_json(demo.out / "summary.json", summary.model_dump(mode="json"))
    story = best_story(users.stories)
    user_id = story.user_id if story else users.last_user
    commands = next_commands(command_prefix(), demo.out, nights, user_id)
    print_summary(OUT, summary, story, demo.out, commands)


def _simulate(demo: Demo) -> None:
    size = [f"--{name}={getattr(demo.dials, name)}" for name in ("users", "items", "days")]
    done = demo.children.run(["simulate", "--seed", str(demo.seed), "--out", str(demo.log.root), *size])
    say(done.stdout)


def _oracles(demo: Demo, shop: Shop, config: RunConfig, day: date) -> InBackground[OracleReport]:
    until = _labels_until(demo, day)
    return InBackground(lambda: oracles_of_day(shop, demo.log, config, day, until))


def _labels_until(demo: Demo, day: date) -> date:
    """Return the last day whose feedback is a label of a day: ratings take their time."""
    return min(day + timedelta(days=1), demo.log.days("feedback")[-1])


def _night(demo: Demo, day: date, *options: str) -> NightLine:
    arguments = ["nightly", "--json", "-", "--config", str(demo.config_file), *demo.where, "--date", str(day)]
    done = demo.children.run([*arguments, *options], also_fine=HELD)
    night = NightLine.from_json(done.json_lines()[-1])
    say(night.line())
    return night


def _quality(demo: Demo, nights: Sequence[NightLine], oracles: Oracles) -> list[DayQuality]:
    scored = [_evaluate(demo, nights, day) for day in oracles]
    with Progress(console=BARS, transient=True, disable=not BARS.is_terminal) as progress:
        steps = progress.track(scored, description="oracles")
        found = [day_quality(one, oracles[one.day].result()) for one in steps]
    say("\n".join(f"{one.date}: {one.bundle}, feedback known until {one.labels_until}" for one in found))
    return found


def _evaluate(demo: Demo, nights: Sequence[NightLine], day: date) -> ScoredDay:
    """Score the bundle that was live on a day; if none ever was, the last one made before it."""
    before = [night for night in nights if night.date < day]
    live = [night.version for night in before if night.version]
    scored = ScoredDay(
        day=day,
        bundle=live[-1] if live else before[-1].evaluated,
        until=_labels_until(demo, day),
        report=demo.out / "evaluate" / f"{day}.json",
    )
    scored.report.parent.mkdir(exist_ok=True)
    days = ["--from", str(day), "--to", str(day), "--labels-until", str(scored.until)]
    what = ["--no-fitted", "--users", str(LISTED_USERS), "--json", str(scored.report)]
    demo.children.run(["evaluate", *demo.where, "--bundle", scored.bundle, *days, *what])
    return scored


def _start_server(demo: Demo) -> ServerChild:
    opens = demo.midnight - EVENING
    clock = ["--clock-start", opens.isoformat(), "--clock-rate", f"{demo.rate:g}"]
    arguments = ["serve", "--config", str(demo.config_file), *demo.where, "--listen", "127.0.0.1:0", *clock]
    return demo.children.serve(arguments, demo.out / "ports.json", demo.out / "server.log")


def _stop_server(server: ServerChild) -> Stopped:
    code, seconds = server.stop()
    if code != 0:
        say(f"the server ended with exit code {code}; see server.log")
    return Stopped(exit_code=code, seconds=round(seconds, 2))


@contextmanager
def _traffic(demo: Demo, server: ServerChild, shop: Shop) -> Iterator[tuple[SimulatedUsers, ServerTime]]:
    """Tell the day's news and let users ask, until the block ends."""
    from serving.client import AdminClient, RecsysClient

    rng = np.random.default_rng([demo.seed, demo.requests])
    demo.log.write("users", demo.served_day, shop.users_frame(demo.served_day), "shop")
    news = [ItemUpdate(**row) for row in shop.items_frame(demo.served_day).iter_rows(named=True)]
    with (
        RecsysClient(server.target, timeout_s=_TIMEOUT_S) as client,
        AdminClient(server.admin_target) as admin,
    ):
        rejected = client.upsert_items(news)
        clock = ServerTime(admin.status, demo.rate)
        who = shop.draw_users(demo.dials.day_number(demo.served_day), demo.requests, rng)
        planned = evening(clock.now(), demo.midnight, who, rng)
        gap = EVENING / demo.requests * NIGHT_SLOWDOWN
        with SimulatedUsers(shop, client, clock, planned, gap, rng) as users:
            users.tally.calls["UpsertItems"] = 1
            users.tally.rejected += len(rejected)
            yield users, clock
        users.check()


def _wait_for_midnight(demo: Demo, users: SimulatedUsers, clock: ServerTime) -> None:
    tally = users.tally
    with Progress(console=BARS, transient=True, disable=not BARS.is_terminal) as progress:
        task = progress.add_task("users ask", total=demo.requests)
        while clock.seconds_until(demo.midnight) > 0:
            users.check()
            progress.update(task, completed=tally.num_lists)
            time.sleep(0.1)
    said = ", ".join(f"{count:,} {kind}" for kind, count in sorted(tally.recorded.items()))
    say(f"{tally.num_lists:,} lists shown; recorded: {said or 'nothing'}")


def _watch_swap(users: SimulatedUsers, night: NightLine) -> Swap:
    """Wait until users are answered by the night's version, and a moment longer."""
    began = time.monotonic()
    with Progress(console=BARS, transient=True, disable=not BARS.is_terminal) as progress:
        progress.add_task("the server follows", total=None)
        while night.version and not _answered_by(users, night.version):
            users.check()
            if time.monotonic() - began > _SWAP_S:
                break
            time.sleep(0.05)
        waited = time.monotonic() - began
        time.sleep(_AFTER_SWAP_S)
    return Swap(version=night.version, followed=_answered_by(users, night.version), seconds=round(waited, 2))


def _answered_by(users: SimulatedUsers, version: str | None) -> bool:
    return bool(users.tally.answers) and users.tally.answers[-1].bundle == version


def _leave() -> NoReturn:
    raise SystemExit(143)
