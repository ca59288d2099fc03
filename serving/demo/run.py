"""`recsys demo`: the whole loop on the simulated shop, with the commands that a user would type.

simulate -> three nights -> evaluate -> simulated users over gRPC for an evening -> the night that trains on
that evening, while users keep requesting -> summary.json and a printed summary.
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
from recsys.user_key import PUBLIC, write_user_key
from serving.client_values import ItemUpdate
from serving.demo.children import Children, ServerChild, command_prefix, on_sigterm
from serving.demo.click_example import best_example
from serving.demo.oracle_comparison import DayQuality, ScoredDay, day_quality, oracles_of_day
from serving.demo.printed_summary import next_commands, print_summary
from serving.demo.schedule import ServerClock, schedule_requests
from serving.demo.summary import (
    DemoSummary,
    NightLine,
    ServerStop,
    Swap,
    quality_fields,
    served_rows,
    traffic_fields,
)
from serving.demo.traffic import SimulatedUsers
from serving.demo.workspace import (
    BARS,
    EVENING,
    OUT,
    BackgroundResult,
    Demo,
    config_text,
    locked_folder,
    print_lines,
)

HELD_EXIT_CODES = (10, 11, 14, 15)
"""Exit codes of a night that kept the live bundle, of which its line gives the reasons; not failures."""
ACCEPTED_FINDINGS = "volume,hours,clock,feedback_rate,label_rate,drift"
"""Validation findings expected of a day with an evening only, served by another policy than before."""
NUM_NIGHTS = 3
NUM_EVALUATED_USERS = 500
"""Users who get ranked lists in each evaluation."""
NIGHT_SLOWDOWN = 4
"""After midnight, requests are less frequent by this factor."""
_ON_TIME_SHARE = 0.9
"""Of the planned lists; fewer before midnight, and the demo says that the machine fell behind."""
_SWAP_S = 60.0
_AFTER_SWAP_S = 2.0
_TIMEOUT_S = 10.0
Oracles = Mapping[date, BackgroundResult[OracleReport]]


def run_demo(
    out: Path, config: Path | None, *, seed: int, dials: ShopDials, requests: int, evening_s: float
) -> None:
    """Run the loop in a folder, and print the results.

    Args: config: default the simulated shop's; requests: number of them in the evening; evening_s: real
    seconds that the evening takes.
    Raises: ConfigError for a folder in use; StepError when one of the commands failed.
    """
    text = config_text(config)
    with locked_folder(out), Children() as children, on_sigterm(_exit_on_sigterm):
        (out / "shop.toml").write_text(text, encoding="utf-8")
        demo = Demo(
            out=out, seed=seed, dials=dials, requests=requests, evening_s=evening_s, children=children
        )
        try:
            _run(demo, read_config(demo.config_file))
        except KeyboardInterrupt:
            print("recsys demo: stopping its server and commands", file=sys.stderr, flush=True)
            raise


def _run(demo: Demo, config: RunConfig) -> None:
    dials = demo.dials
    with demo.step(f"simulate the shop's log: {dials.days} days up to {dials.last_day}, seed {demo.seed}"):
        _simulate(demo)
        shop = Shop.from_log(demo.log.root)
    last_days = [dials.last_day - timedelta(days=i) for i in reversed(range(NUM_NIGHTS))]
    oracles = {day: _oracles(demo, shop, config, day) for day in last_days[1:]}
    with demo.step(f"{NUM_NIGHTS} nights: a cold start, then warm starts"):
        nights = [_night(demo, day) for day in last_days]
    with demo.step("evaluate each live bundle on days after its training"):
        quality = _quality(demo, nights, oracles)
    with ExitStack() as stack:
        with demo.step(
            f"simulated users request lists over gRPC: six hours of an evening in {demo.evening_s:.0f} s"
        ):
            server = _start_server(demo)
            users, clock = stack.enter_context(_traffic(demo, server, shop))
            _wait_for_midnight(demo, users, clock)
        with demo.step(f"the night of {demo.served_day} trains on that evening, while users keep requesting"):
            nights.append(_night(demo, demo.served_day, "--accept-findings", ACCEPTED_FINDINGS))
            swap = _watch_swap(users, nights[-1])
    with demo.step("the server drains and stops"):
        stopped = _stop_server(server)
    summary = DemoSummary(
        **quality_fields(quality),
        **traffic_fields(users.counts),
        nights=tuple(nights),
        served=served_rows(shop, demo.log, config, demo.served_day),
        swap=swap,
        server=stopped,
        steps=demo.step_seconds,
        seed=demo.seed,
        seconds=round(time.perf_counter() - demo.began, 1),
    )
    write_json(demo.out / "summary.json", summary.model_dump(mode="json"))
    example = best_example(users.examples)
    user_id = example.user_id if example else users.last_user
    commands = next_commands(command_prefix(), demo.out, nights, user_id)
    print_summary(OUT, summary, example, demo.out, commands)


def _simulate(demo: Demo) -> None:
    size = [f"--{name}={getattr(demo.dials, name)}" for name in ("users", "items", "days")]
    done = demo.children.run(["simulate", "--seed", str(demo.seed), "--out", str(demo.log.root), *size])
    print_lines(done.stdout)
    write_user_key(demo.runs, PUBLIC)


def _oracles(demo: Demo, shop: Shop, config: RunConfig, day: date) -> BackgroundResult[OracleReport]:
    until = _labels_until(demo, day)
    return BackgroundResult(lambda: oracles_of_day(shop, demo.log, config, day, until))


def _labels_until(demo: Demo, day: date) -> date:
    """Return the last day whose feedback counts for a day's labels: ratings come up to a day later."""
    return min(day + timedelta(days=1), demo.log.days("feedback")[-1])


def _night(demo: Demo, day: date, *options: str) -> NightLine:
    arguments = ["nightly", "--json", "-", "--config", str(demo.config_file), *demo.where, "--date", str(day)]
    done = demo.children.run([*arguments, *options], accepted_codes=HELD_EXIT_CODES)
    night = NightLine.from_json(done.json_lines()[-1])
    print_lines(night.line())
    return night


def _quality(demo: Demo, nights: Sequence[NightLine], oracles: Oracles) -> list[DayQuality]:
    scored = [_evaluate(demo, nights, day) for day in oracles]
    with Progress(console=BARS, transient=True, disable=not BARS.is_terminal) as progress:
        steps = progress.track(scored, description="oracles")
        found = [day_quality(one, oracles[one.day].result()) for one in steps]
    print_lines(
        "\n".join(f"{one.date}: {one.bundle}, feedback known until {one.labels_until}" for one in found)
    )
    return found


def _evaluate(demo: Demo, nights: Sequence[NightLine], day: date) -> ScoredDay:
    """Evaluate the bundle that was live on a day; without one, the last bundle made before it."""
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
    what = ["--no-fitted", "--users", str(NUM_EVALUATED_USERS), "--json", str(scored.report)]
    demo.children.run(["evaluate", *demo.where, "--bundle", scored.bundle, *days, *what])
    return scored


def _start_server(demo: Demo) -> ServerChild:
    opens = demo.midnight - EVENING
    clock = ["--clock-start", opens.isoformat(), "--clock-rate", f"{demo.rate:g}"]
    arguments = ["serve", "--config", str(demo.config_file), *demo.where, "--listen", "127.0.0.1:0", *clock]
    return demo.children.serve(arguments, demo.out / "ports.json", demo.out / "server.log")


def _stop_server(server: ServerChild) -> ServerStop:
    code, seconds = server.stop()
    if code != 0:
        print_lines(f"the server ended with exit code {code}; see server.log")
    return ServerStop(exit_code=code, seconds=round(seconds, 2))


@contextmanager
def _traffic(demo: Demo, server: ServerChild, shop: Shop) -> Iterator[tuple[SimulatedUsers, ServerClock]]:
    """Upsert the day's items and run the simulated users until the block ends."""
    from serving.client import AdminClient, RecsysClient

    rng = np.random.default_rng([demo.seed, demo.requests])
    demo.log.write("users", demo.served_day, shop.users_frame(demo.served_day), "shop")
    changed_items = [ItemUpdate(**row) for row in shop.items_frame(demo.served_day).iter_rows(named=True)]
    with (
        RecsysClient(server.target, timeout_s=_TIMEOUT_S) as client,
        AdminClient(server.admin_target) as admin,
    ):
        rejected = client.upsert_items(changed_items)
        clock = ServerClock(admin.status, demo.rate)
        user_numbers = shop.draw_users(demo.dials.day_number(demo.served_day), demo.requests, rng)
        planned = schedule_requests(clock.now(), demo.midnight, user_numbers, rng)
        gap = EVENING / demo.requests * NIGHT_SLOWDOWN
        with SimulatedUsers(shop, client, clock, planned, gap, rng) as users:
            users.counts.calls["UpsertItems"] = 1
            users.counts.rejected += len(rejected)
            yield users, clock
        users.check()


def _wait_for_midnight(demo: Demo, users: SimulatedUsers, clock: ServerClock) -> None:
    counts = users.counts
    with Progress(console=BARS, transient=True, disable=not BARS.is_terminal) as progress:
        task = progress.add_task("simulated users", total=demo.requests)
        while clock.seconds_until(demo.midnight) > 0:
            users.check()
            progress.update(task, completed=counts.num_lists)
            time.sleep(0.1)
    recorded = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.recorded.items()))
    print_lines(f"{counts.num_lists:,} lists shown; recorded: {recorded or 'nothing'}")
    if advice := longer_evening(counts.num_lists, demo.requests, demo.evening_s):
        print_lines(advice)


def longer_evening(shown: int, planned: int, evening_s: float) -> str:
    """Say what a machine does that fell behind its evening, and how long one it can follow; "" if it did not.

    Lists that come after midnight are missing in the night that follows: with few labels it may hold.
    """
    if shown >= _ON_TIME_SHARE * planned:
        return ""
    enough_s = evening_s * planned / max(shown, 1)
    return (
        f"this machine fell behind: {shown:,} of {planned:,} planned lists were shown before midnight, "
        f"so the next night has fewer labels; give the evening more time (--evening-s {enough_s:.0f})"
    )


def _watch_swap(users: SimulatedUsers, night: NightLine) -> Swap:
    """Wait until the night's version answers users, and a little longer."""
    began = time.monotonic()
    with Progress(console=BARS, transient=True, disable=not BARS.is_terminal) as progress:
        progress.add_task("the server loads the new bundle", total=None)
        while night.version and not _answered_by(users, night.version):
            users.check()
            if time.monotonic() - began > _SWAP_S:
                break
            time.sleep(0.05)
        waited = time.monotonic() - began
        time.sleep(_AFTER_SWAP_S)
    return Swap(version=night.version, followed=_answered_by(users, night.version), seconds=round(waited, 2))


def _answered_by(users: SimulatedUsers, version: str | None) -> bool:
    return bool(users.counts.answers) and users.counts.answers[-1].bundle == version


def _exit_on_sigterm() -> NoReturn:
    raise SystemExit(143)
