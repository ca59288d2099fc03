"""A fake model with known numbers, and real servers on port 0 that answer with it."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from features.store import FeatureStore
from features.taken_events import TakenEvents
from recsys.cli import run
from recsys.config import RunConfig, build_fusion, default_config, load_config
from recsys.errors import BundleError
from recsys.log import InteractionLog
from recsys.mask import Mask
from serving.app import Server
from serving.catalogue import Catalogue
from serving.catalogue.popular import Popular
from serving.client import AdminClient, RecsysClient
from serving.clock import Clock, SimulatedClock
from serving.served_model import ServedModel
from serving.server_options import ServerOptions

NOON_MS = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 24 * 3600 * 1000
NUM_ITEMS = 40
TINY = Path(__file__).with_name("tiny.toml")
MORNING = datetime(2026, 1, 31, 9, tzinfo=UTC)
"""Of the day after the night that `night` ran."""
PATIENCE_S = 120.0
"""Deadlines of calls: a machine that stalls for seconds neither fails a call nor degrades its answer."""
STORE = {"read_timeout_ms": 60_000, "connect_timeout_ms": 60_000, "write_timeout_ms": 120_000}
CATEGORIES = ("lamps", "chairs", "rugs", "plants")


def item_frame(num_items: int = NUM_ITEMS) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(num_items)],
            "title": [f"Thing {n}" for n in range(num_items)],
            "category": [CATEGORIES[n % 4] for n in range(num_items)],
            "price": [100 * n for n in range(num_items)],
            "available_from": pl.Series([None] * num_items, dtype=pl.Datetime("ms", "UTC")),
            "available_until": pl.Series([None] * num_items, dtype=pl.Datetime("ms", "UTC")),
            "attribute_colour": ["red"] * num_items,
        }
    )


@dataclass
class Past:
    item_id: str
    kind: str
    received_at_ms: int = NOON_MS - 3_600_000


@dataclass
class FakeUser:
    user_id: str
    known: bool
    seen: Mapping[str, frozenset[str]] = field(default_factory=dict)
    history: tuple[Past, ...] = ()
    degraded: tuple[str, ...] = ()
    live: Mapping[str, int | None] = field(default_factory=dict)
    taken: TakenEvents = field(default_factory=TakenEvents)

    @property
    def inputs(self) -> str:
        return self.user_id


@dataclass
class FakeFeatures:
    users: dict[str, FakeUser] = field(default_factory=dict)
    contexts: list[Mapping[str, Any]] = field(default_factory=list)

    def user(self, user_id: str, at_ms: int, within_s: float | None = None) -> FakeUser:
        return self.users.get(user_id, FakeUser(user_id=user_id, known=False))

    def context(
        self, values: Mapping[str, Any], at_ms: int, live: Mapping[str, int | None] | None = None
    ) -> Mapping[str, Any]:
        self.contexts.append(values)
        return values


@dataclass
class FakeScorer:
    """Item n is predicted (n + 1) / 100 for click; a tenth of it for purchase, for everybody.

    It stands at place n of its line, and costs 100 n: the place of a fresh item is its price / 100.
    """

    num_items: int = NUM_ITEMS
    gate: threading.Event | None = None
    """Scoring waits for this."""
    calls: int = 0
    gate_calls: int = 0
    obedient: bool = True
    """False: retrieval ignores its filter, as a broken index would."""

    fresh: Mapping[int, float] = field(default_factory=dict)

    def with_items(self, rows: np.ndarray, places: Mapping[int, float]) -> "FakeScorer":
        assert rows.tolist() == list(places)
        return replace(self, fresh={**self.fresh, **places})

    def places(self, rows: np.ndarray) -> np.ndarray:
        return np.array([self.fresh.get(row, float(row)) for row in rows.tolist()])

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        angles = self.places(rows) / 10
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def _rows(self) -> np.ndarray:
        return np.union1d(np.arange(self.num_items), list(self.fresh)).astype(np.int64)

    def user_side(self, inputs: Any, past: Any) -> Any:
        return inputs

    def cosines(self, user_side: Any, rows: np.ndarray) -> np.ndarray:
        """Item n is at 1 / (n + 1) of everybody."""
        return (1 / (self.places(rows) + 1)).astype(np.float32)

    def retrieve(self, user_side: Any, k: int, allowed: Mask | None) -> np.ndarray:
        rows = self._rows()[np.argsort(-self.places(self._rows()), kind="stable")]
        return (rows if allowed is None or not self.obedient else rows[allowed[rows]])[:k]

    def similar(self, row: int, k: int, allowed: Mask | None) -> np.ndarray:
        distances = np.abs(self.places(self._rows()) - self.places(np.array([row])))
        rows = self._rows()[np.argsort(distances, kind="stable")]
        return (rows if allowed is None else rows[allowed[rows]])[:k]

    def predict(self, user_side: Any, context: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += 1
        if self.gate is not None:
            assert self.gate.wait(PATIENCE_S)
        click = ((self.places(rows) + 1) / 100).astype(np.float32)
        return {"click": click, "purchase": click / 10, "rating": 1 + 4 * click}

    def gate_weights(self, user_side: Any, context: Any, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Item n takes n % 4 quarters from the first of two experts, for clicks."""
        self.gate_calls += 1
        first = (rows % 4 / 4).astype(np.float32)
        return {"click": np.stack([first, 1 - first], axis=1)}


def fake_model(
    version: str | None = "v1", scorer: FakeScorer | None = None, **users: FakeUser
) -> ServedModel:
    config = default_config()
    scorer = scorer or FakeScorer()
    catalogue = Catalogue.from_frame(item_frame(scorer.num_items))
    return ServedModel(
        version=version,
        catalogue=catalogue,
        popular=Popular.of(catalogue, [f"i{n}" for n in range(10)], [1 / (n + 1) for n in range(10)]),
        tasks=config.tasks,
        fusion=build_fusion(config.tasks, config.fusion),
        scorer=scorer,
        features=FakeFeatures(users),
        encode_items=lambda items: {row: (item.price or 0) / 100 for row, item in items.items()},
    )


class FakeLoader:
    """Loads `fake_model` for any version and publishes no users of it; `broken` ones are refused."""

    def __init__(self) -> None:
        self.scorer = FakeScorer()
        self.users: dict[str, FakeUser] = {}
        self.broken: set[str] = set()
        self.loads: list[str] = []
        self.as_of_ms: dict[str, int] = {}
        self.collected: set[str] = set()
        """Versions whose users are not in the store."""

    def __call__(self, path: Path, store: FeatureStore) -> ServedModel:
        self.loads.append(path.name)
        if path.name in self.broken:
            raise BundleError(f"{path.name} differs from its manifest")
        if path.name not in self.collected:
            store.publish(path.name, [], {}, 0)
        model = fake_model(path.name, self.scorer, **self.users)
        return replace(model, items_as_of_ms=self.as_of_ms.get(path.name, NOON_MS - DAY_MS))


@dataclass
class Running:
    """A server in this process, with its clients and folders."""

    server: Server
    client: RecsysClient
    admin: AdminClient
    log: InteractionLog
    runs: Path
    loader: FakeLoader

    def publish(self, version: str) -> None:
        """Move the live pointer, as a night would."""
        folder = self.runs / "registry"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".CURRENT.tmp").write_text(f"{version}\n")
        (folder / ".CURRENT.tmp").replace(folder / "CURRENT")

    def journal(self) -> list[dict[str, Any]]:
        from recsys.journal import files, read

        records = [record for path in files(self.log.root / "journal") for record in read(path).records]
        return [
            {"table": rows.table, **rows.same, **{k: v[i] for k, v in rows.each.items()}}
            for record in records
            for rows in record.rows
            for i in range(rows.num_rows)
        ]


def serving_config(**changes: Any) -> RunConfig:
    """The default config, with tables of the config changed: `policy={"epsilon": 0}`."""
    data = default_config().model_dump(mode="json", by_alias=True)
    for section, values in {"store": STORE, **changes}.items():
        data[section] = {**data[section], **values}
    return RunConfig.model_validate(json.loads(json.dumps(data)))


@pytest.fixture
def fakes() -> SimpleNamespace:
    """Name the fakes for tests: tests are no package, so nothing can be imported from here."""
    return SimpleNamespace(
        NOON_MS=NOON_MS,
        NUM_ITEMS=NUM_ITEMS,
        Loader=FakeLoader,
        Past=Past,
        Scorer=FakeScorer,
        User=FakeUser,
        config=serving_config,
        items=item_frame,
        model=fake_model,
    )


def write_pem(folder: Path, name: str, issuer: tuple | None = None) -> tuple[Path, Path, tuple]:
    """Write a key and a certificate for 127.0.0.1, signed by an issuer or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signer_name = issuer or (key, subject)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    pair = (folder / f"{name}.pem", folder / f"{name}.key")
    pair[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    pair[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return (*pair, (key, subject))


@pytest.fixture(scope="session")
def pem() -> Callable[..., tuple[Path, Path, tuple]]:
    return write_pem


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    """A port that nobody else is given meanwhile: it stays bound, so only who reuses addresses may listen."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        yield int(probe.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start servers; they are stopped at the end of the test."""
    running: list[Running] = []

    def go(
        version: str | None = "v1",
        loader: FakeLoader | None = None,
        reflection: bool = False,
        clock: Clock | None = None,
        **config: Any,
    ) -> Running:
        loader = loader or FakeLoader()
        log, runs = tmp_path / "log", tmp_path / "runs"
        options = ServerOptions(
            config=serving_config(**{**config, "serving": {"poll_s": 0.02, **config.get("serving", {})}}),
            log=log,
            runs=runs,
            clock=clock or SimulatedClock(NOON_MS),
            listen="127.0.0.1:0",
            admin_listen="127.0.0.1:0",
            reflection=reflection,
        )
        if version is not None:
            Running.publish(Running(None, None, None, None, runs, loader), version)  # type: ignore[arg-type]
        server = Server(options, loader)
        server.start()
        one = Running(
            server=server,
            client=RecsysClient(f"127.0.0.1:{server.port}", timeout_s=PATIENCE_S),
            admin=AdminClient(f"127.0.0.1:{server.admin_port}", timeout_s=PATIENCE_S),
            log=InteractionLog(log),
            runs=runs,
            loader=loader,
        )
        running.append(one)
        return one

    yield go
    for one in running:
        one.client.close()
        one.admin.close()
        one.server.stop(1.0)


class StandingClock:
    """A clock that moves only when it is told: everything happens in one millisecond."""

    def __init__(self) -> None:
        self.ms = int(MORNING.timestamp() * 1000)

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `log` and `runs` after one night."""
    folder = tmp_path_factory.mktemp("night")
    log, runs = str(folder / "log"), str(folder / "runs")
    assert (
        run(["simulate", "--out", log, "--seed", "3", "--days", "5", "--users", "300", "--items", "150"]) == 0
    )
    assert run(["nightly", "--config", str(TINY), "--log", log, "--runs", runs, "--date", "2026-01-30"]) == 0
    return folder


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def server(night: Path, tmp_path: Path, clock: StandingClock) -> Iterator[Server]:
    """A server in this process on a copy of the night."""
    shutil.copytree(night, tmp_path / "copy")
    config = load_config(TINY)
    config = config.model_copy(
        update={
            "serving": config.serving.model_copy(update={"poll_s": 0.02}),
            "store": config.store.model_copy(update=STORE),
            "policy": config.policy.model_copy(update={"name": "greedy"}),
        }
    )
    options = ServerOptions(
        config=config,
        log=tmp_path / "copy" / "log",
        runs=tmp_path / "copy" / "runs",
        clock=clock,
        listen="127.0.0.1:0",
        admin_listen="127.0.0.1:0",
    )
    server = Server(options)
    server.start()
    yield server
    server.stop(1.0)


@pytest.fixture
def bfloat16_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let versions that are loaded from now on choose bfloat16, which misses their golden requests."""
    from recsys.model import engines
    from serving import devices, engine_choice

    def bfloat16(network: Callable[..., Any]) -> engines.Engine:
        """Be wrong on the twenty items of a golden request alone, which engines are not compared on."""
        return engines.Engine(
            engines.BFLOAT16, lambda *given: network(*given) + (given[0].shape[0] == 20), exact=False
        )

    monkeypatch.setattr(devices, "has_fast_bf16", lambda _: True)
    monkeypatch.setattr(engine_choice, "bfloat16", bfloat16)
    monkeypatch.setattr(engine_choice, "bfloat16_trunks", lambda network: None)
    monkeypatch.setattr(
        engines, "_measured", lambda right, _: {e.name: float(e.name == engines.EAGER) for e in right}
    )


@pytest.fixture
def client(server: Server) -> Iterator[RecsysClient]:
    with RecsysClient(f"127.0.0.1:{server.port}", timeout_s=PATIENCE_S) as client:
        yield client
