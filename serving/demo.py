"""`recsys demo`: the whole loop on the simulated shop, by the same commands that a user types.

simulate -> three nights -> what the model is worth -> an evening of simulated users over gRPC -> the night
that learns from that evening, while users keep asking -> summary.json and a page to read.
"""

import fcntl
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, track

from recsys.config import RunConfig, load_config
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from recsys.simulator.shop import Shop
from recsys.stages import write_json
from serving.client_values import ItemUpdate
from serving.demo_children import Children, ServerChild, command_prefix, on_sigterm
from serving.demo_quality import DayQuality, ScoredDay, day_quality
from serving.demo_summary import (
    DemoSummary,
    NightLine,
    Stopped,
    Swap,
    next_commands,
    print_summary,
    quality_fields,
    served_rows,
    traffic_fields,
)
from serving.demo_traffic import Ask, ServerTime, SimulatedUsers, best_story, evening

HELD = (10, 11)
"""Exit codes of a night that kept the live bundle: a verdict, not a failure."""
NUM_NIGHTS = 3
EVENING = timedelta(hours=6)
NIGHT_SLOWDOWN = 4
"""Users ask this much less often after midnight."""
_MARKER = ".recsys-demo"
_MADE = ("log", "runs", "evaluate", "shop.toml", "server.log", "ports.json", "summary.json")
_SWAP_S = 60.0
_AFTER_SWAP_S = 1.5
_TIMEOUT_S = 10.0
# The demo's clock runs fast: a file of the journal every five simulated minutes would be one a second.
# A small shop's evening has some hundred purchases: a margin of 1 % could hardly ever be shown.
_DEMO_SETTINGS = """
[serving]
rotate = "1h"

[gate]
margin = 0.03
"""
_DIALS = ShopDials()
_OUT = Console()
_BARS = Console(stderr=True)


@dataclass(slots=True, kw_only=True)
class Demo:
    """Where a demo writes and what it was told."""

    out: Path
    seed: int
    dials: ShopDials
    requests: int
    evening_s: float
    children: Children
    began: float = field(default_factory=time.perf_counter)
    step_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def log(self) -> InteractionLog:
        """Give the interaction log."""
        return InteractionLog(self.out / "log")

    @property
    def where(self) -> list[str]:
        """Give the options that every command about this demo's log takes."""
        return ["--log", str(self.out / "log"), "--runs", str(self.out / "runs")]

    @property
    def config_file(self) -> Path:
        """Give the config that nights and server use."""
        return self.out / "shop.toml"

    @property
    def rate(self) -> float:
        """Give simulated seconds a second."""
        return EVENING.total_seconds() / self.evening_s

    @property
    def served_day(self) -> date:
        """Give the day whose evening is served: the one after the log's last."""
        return self.dials.last_day + timedelta(days=1)

    @property
    def midnight(self) -> datetime:
        """Give the instant at which the served day is over."""
        return datetime.combine(self.served_day + timedelta(days=1), datetime.min.time(), UTC)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step and take its time."""
        _OUT.print(f"[bold]{len(self.step_seconds) + 1}/6[/bold] {title}", highlight=False)
        began = time.perf_counter()
        yield
        self.step_seconds[title] = round(time.perf_counter() - began, 1)


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder of the demo; an earlier demo there is replaced.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another shop.")] = 0,
    config: Annotated[Path | None, typer.Option(help="TOML file; default: the simulated shop's.")] = None,
    users: Annotated[int, typer.Option(hidden=True, min=10)] = _DIALS.users,
    items: Annotated[int, typer.Option(hidden=True, min=100)] = _DIALS.items,
    days: Annotated[int, typer.Option(hidden=True, min=NUM_NIGHTS + 3)] = _DIALS.days,
    requests: Annotated[int, typer.Option(hidden=True, min=1)] = 1_500,
    evening_s: Annotated[float, typer.Option(hidden=True, min=1.0)] = 45.0,
) -> int:
    """Run the whole loop on the simulated shop and report what was learnt."""
    text = _config_text(config)
    with _folder(out), Children() as children, on_sigterm(_leave):
        (out / "shop.toml").write_text(text, encoding="utf-8")
        demo = Demo(
            out=out,
            seed=seed,
            dials=ShopDials(users=users, items=items, days=days),
            requests=requests,
            evening_s=evening_s,
            children=children,
        )
        try:
            _run(demo, load_config(demo.config_file))
        except KeyboardInterrupt:
            print("recsys demo: interrupted; what it started is being stopped", file=sys.stderr, flush=True)
            return 130
    return 0


def _run(demo: Demo, config: RunConfig) -> None:
    dials = demo.dials
    with demo.step(f"the shop's log: {dials.days} days up to {dials.last_day}, seed {demo.seed}"):
        _simulate(demo)
    last_days = [dials.last_day - timedelta(days=i) for i in reversed(range(NUM_NIGHTS))]
    with demo.step(f"{NUM_NIGHTS} nights: a cold start, then warm starts"):
        nights = [_night(demo, day) for day in last_days]
    with demo.step("what the model is worth on days it had not seen"):
        quality = _quality(demo, config, nights)
    with ExitStack() as stack:
        with demo.step(f"users ask over gRPC: six hours of an evening in {demo.evening_s:.0f} s"):
            server = _start_server(demo)
            users, clock = stack.enter_context(_traffic(demo, server))
            _wait_for_midnight(demo, users, clock)
        with demo.step(f"the night of {demo.served_day} learns from that evening, and users keep asking"):
            nights.append(_night(demo, demo.served_day))
            swap = _watch_swap(users, nights[-1])
    with demo.step("the server drains and stops"):
        stopped = _stop_server(server)
    summary = DemoSummary(
        **quality_fields(quality),
        **traffic_fields(users.tally),
        nights=tuple(nights),
        served=served_rows(demo.log, config, demo.served_day, dials.last_day),
        swap=swap,
        server=stopped,
        steps=demo.step_seconds,
        seed=demo.seed,
        seconds=round(time.perf_counter() - demo.began, 1),
    )
    write_json(demo.out / "summary.json", summary.model_dump(mode="json"))
    commands = next_commands(command_prefix(), demo.out, nights, users.last_user)
    print_summary(_OUT, summary, best_story(users.stories), demo.out, commands)


def _simulate(demo: Demo) -> None:
    size = [f"--{name}={getattr(demo.dials, name)}" for name in ("users", "items", "days")]
    done = demo.children.run(["simulate", "--seed", str(demo.seed), "--out", str(demo.log.root), *size])
    _say(done.stdout)


def _night(demo: Demo, day: date) -> NightLine:
    arguments = ["nightly", "--json", "--config", str(demo.config_file), *demo.where, "--date", str(day)]
    done = demo.children.run(arguments, also_fine=HELD)
    night = NightLine.from_json(done.json_lines()[-1])
    _say(night.line())
    return night


def _quality(demo: Demo, config: RunConfig, nights: Sequence[NightLine]) -> list[DayQuality]:
    scored = [_evaluate(demo, nights, night.date) for night in nights[1:]]
    shop = Shop.from_log(demo.log.root)
    steps = track(scored, "oracles", console=_BARS, transient=True)
    found = [day_quality(shop, demo.log, config, one) for one in steps]
    _say("\n".join(f"{one.date}: {one.bundle}, feedback known until {one.labels_until}" for one in found))
    return found


def _evaluate(demo: Demo, nights: Sequence[NightLine], day: date) -> ScoredDay:
    """Score the bundle that was live on a day; if none ever was, the last one made before it."""
    before = [night for night in nights if night.date < day]
    live = [night.version for night in before if night.version]
    bundle = live[-1] if live else before[-1].judged
    scored = ScoredDay(
        day=day,
        bundle=bundle,
        until=min(day + timedelta(days=1), demo.log.days("feedback")[-1]),
        report=demo.out / "evaluate" / f"{day}.json",
    )
    days = ["--from", str(day), "--to", str(day), "--labels-until", str(scored.until)]
    demo.children.run(
        ["evaluate", *demo.where, "--bundle", bundle, *days, "--no-fitted", "--json", str(scored.report)]
    )
    return scored


def _start_server(demo: Demo) -> ServerChild:
    opens = demo.midnight - EVENING
    clock = ["--clock-start", opens.isoformat(), "--clock-rate", f"{demo.rate:g}"]
    arguments = ["serve", "--config", str(demo.config_file), *demo.where, "--listen", "127.0.0.1:0", *clock]
    return demo.children.serve(arguments, demo.out / "ports.json", demo.out / "server.log")


def _stop_server(server: ServerChild) -> Stopped:
    code, seconds = server.stop()
    if code != 0:
        _say(f"the server ended with exit code {code}; see server.log")
    return Stopped(exit_code=code, seconds=round(seconds, 2))


@contextmanager
def _traffic(demo: Demo, server: ServerChild) -> Iterator[tuple[SimulatedUsers, ServerTime]]:
    """Tell the shop's news and let users ask, until the block ends."""
    from serving.client import AdminClient, RecsysClient

    shop = Shop.from_log(demo.log.root)
    rng = np.random.default_rng([demo.seed, demo.requests])
    with (
        RecsysClient(server.target, timeout_s=_TIMEOUT_S) as client,
        AdminClient(server.admin_target) as admin,
    ):
        rejected = client.upsert_items(_news(shop, demo))
        clock = ServerTime(admin.status, demo.rate)
        planned = _planned(shop, demo, clock.now(), rng)
        gap = EVENING / demo.requests * NIGHT_SLOWDOWN
        with SimulatedUsers(shop, client, clock, planned, gap, rng) as users:
            users.tally.calls["UpsertItems"] = 1
            users.tally.rejected += len(rejected)
            yield users, clock
        users.check()


def _news(shop: Shop, demo: Demo) -> list[ItemUpdate]:
    """Export the day's new users to the log, as a shop's own system would, and give its new items."""
    demo.log.write("users", demo.served_day, shop.users_frame(demo.served_day), "shop")
    return [ItemUpdate(**row) for row in shop.items_frame(demo.served_day).iter_rows(named=True)]


def _planned(shop: Shop, demo: Demo, start: datetime, rng: np.random.Generator) -> list[tuple[datetime, Ask]]:
    day = demo.dials.day_number(demo.served_day)
    return evening(start, demo.midnight, shop.draw_users(day, demo.requests, rng), rng)


def _wait_for_midnight(demo: Demo, users: SimulatedUsers, clock: ServerTime) -> None:
    with Progress(console=_BARS, transient=True) as progress:
        task = progress.add_task("users ask", total=demo.requests)
        while clock.seconds_until(demo.midnight) > 0:
            users.check()
            progress.update(task, completed=users.num_asked)
            time.sleep(0.1)
    tally = users.tally
    said = ", ".join(f"{count:,} {kind}" for kind, count in sorted(tally.recorded.items()))
    _say(f"{users.num_asked:,} lists shown, {tally.shown:,} impressions; recorded: {said or 'nothing'}")


def _watch_swap(users: SimulatedUsers, night: NightLine) -> Swap:
    """Wait until users are answered by the night's version, and a moment longer."""
    began = time.monotonic()
    wanted = night.version
    with Progress(console=_BARS, transient=True) as progress:
        progress.add_task("the server follows", total=None)
        while wanted and time.monotonic() - began < _SWAP_S:
            users.check()
            if _answered_by(users, wanted):
                break
            time.sleep(0.05)
        waited = time.monotonic() - began
        time.sleep(_AFTER_SWAP_S)
    return Swap(version=wanted, followed=_answered_by(users, wanted), seconds=round(waited, 2))


def _answered_by(users: SimulatedUsers, version: str | None) -> bool:
    runs = users.tally.versions
    return bool(runs) and runs[-1][0] == version


def _say(text: str) -> None:
    for line in text.strip().splitlines():
        _OUT.print(f"    {line.strip()}", highlight=False, markup=False, soft_wrap=True)


def _config_text(config: Path | None) -> str:
    """Read the config before anything is removed: it may lie in the folder of an earlier demo."""
    if config is None:
        return resources.files("recsys").joinpath("shop.toml").read_text(encoding="utf-8") + _DEMO_SETTINGS
    load_config(config)
    return config.read_text(encoding="utf-8")


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Take a folder for this demo alone, emptied of what an earlier one left.

    Raises: ConfigError when it holds anything else, or another demo is running in it.
    """
    marker = out / _MARKER
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; choose a folder")
    if out.is_dir() and any(out.iterdir()) and not marker.exists():
        raise ConfigError(f"--out {out} is not empty, and not an earlier demo's; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    with marker.open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another demo is running in {out}; wait, or choose another --out") from None
        for name in _MADE:
            path = out / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        yield


def _leave() -> NoReturn:
    raise SystemExit(143)
