"""`recsys serve --check VERSION`: a server of its own answers with a version that need not be live.

RUNS/bundles, RUNS/store ──▶ a runs folder for the check, in which VERSION is live ──▶ server ──▶ requests

The server shares bundles and store with the others and nothing else: it writes no lease, no key, no journal
and no prepared copy where they do. Its clock starts at noon of the day after the bundle's.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from features.store import open_store
from recsys.config import RunConfig
from recsys.errors import BundleError, ConfigError, MissingUsersError, RecsysError
from recsys.log import InteractionLog
from recsys.manifest import read_manifest
from recsys.records import CHECK_FAILED
from recsys.registry import Registry
from serving.client import RecsysClient
from serving.client_values import Answer, CallError
from serving.processes.orders import ClockSetting, ServeSettings
from serving.served_model import ServedModel

NUM_USERS = 8
PAGE = 10
STRANGER = "nobody-of-this-name"
_PATIENCE_MS = 30_000
"""It is about what is answered, not how fast: a busy night's host must not fail a sound version."""
_NOON = timedelta(hours=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was tried."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionCheck:
    """What a server made of a version."""

    version: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Say whether all is well."""
        return all(finding.ok for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """Give the command's exit code."""
        return 0 if self.ok else CHECK_FAILED

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {**asdict(self), "ok": self.ok, "seconds": round(self.seconds, 2)}


def check_version(settings: ServeSettings, version: str) -> VersionCheck:
    """Load a version in a real server and ask it: base, golden requests, requests over gRPC.

    Args: settings: as a server is started; addresses, clock and folders are the check's own.
    Raises: RegistryError for an unknown version; ConfigError for a config that no server can have.
    """
    began = time.monotonic()
    registry = Registry(settings.runs)
    registry.require(version)
    findings = [_base(settings, version)]
    if findings[0].ok:
        with _checked_settings(settings, version) as own:
            asked = settings.config.serving.engine
            findings += _serve_and_ask(own, version, _requests(settings, version), asked)
    return VersionCheck(version=version, findings=tuple(findings), seconds=time.monotonic() - began)


def show_check(found: VersionCheck) -> None:
    """Print what was tried."""
    for finding in found.findings:
        print(f"{'ok' if finding.ok else 'FAILED':<7}{finding.name}: {finding.detail}")
    print(f"{found.version}: {'a server answers with it' if found.ok else 'it must not go live'}")


def _base(settings: ServeSettings, version: str) -> Finding:
    """Say whether the store has the version's users."""
    config = _patient(settings.config)
    with closing(open_store(config.store, settings.runs)) as store:
        try:
            store.get_many(version, ())
        except MissingUsersError as error:
            return Finding(name="users", ok=False, detail=f"{error}; run its night again")
        except RecsysError as error:
            return Finding(name="users", ok=False, detail=f"the store does not answer: {error}")
    return Finding(name="users", ok=True, detail="the store has the version's base")


@contextmanager
def _checked_settings(settings: ServeSettings, version: str) -> Iterator[ServeSettings]:
    """Make the check's folders; give a server's settings with them."""
    with TemporaryDirectory(prefix="recsys-check-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        runs, log = folder / "runs", folder / "log"
        (runs / "registry").mkdir(parents=True)
        log.mkdir()
        for shared in ("bundles", "store"):
            (runs / shared).symlink_to((settings.runs / shared).absolute(), target_is_directory=True)
        (runs / "registry" / "CURRENT").write_text(f"{version}\n")
        manifest = read_manifest(settings.runs / "bundles" / version)
        noon = datetime.fromtimestamp(manifest.snapshot_at_ms / 1000, UTC) + _NOON
        yield settings.model_copy(
            update={
                "config": _of_this_host(_patient(settings.config)),
                "runs": runs,
                "log": log,
                "clock": ClockSetting(start=noon.isoformat()),
                "listen": "127.0.0.1:0",
                "admin_listen": "127.0.0.1:0",
                "metrics_listen": None,
                "insecure": False,
                "tls": None,
                "reflection": False,
            }
        )


def _patient(config: RunConfig) -> RunConfig:
    """Let store and calls take their time; score on this host's device, with a cache of the check's own."""
    store = {"connect_timeout_ms": _PATIENCE_MS, "read_timeout_ms": _PATIENCE_MS}
    serving = {"device": "auto", "cache": None, "deadline_ms": _PATIENCE_MS, "drain_s": 1.0}
    return config.model_copy(
        update={
            "store": config.store.model_copy(update=store),
            "serving": config.serving.model_copy(update=serving),
        }
    )


def _of_this_host(config: RunConfig) -> RunConfig:
    """Let this host choose an engine if it lacks the one that the config names: servers may have that."""
    from serving.devices import choose_devices, with_engine

    serving = config.serving
    try:
        with_engine(choose_devices(serving.device), serving.engine)
    except ConfigError:
        return config.model_copy(update={"serving": serving.model_copy(update={"engine": "auto"})})
    return config


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    user_id: str
    context: dict[str, str | float]


def _requests(settings: ServeSettings, version: str) -> list[_Request]:
    """Take users and contexts of the log's last rows that the version may know; none of a log without any."""
    log, known_until = InteractionLog(settings.log), datetime.fromisoformat(version[:10]).date()
    for table, instant in (("impressions", "shown_at"), ("feedback", "received_at")):
        days = [day for day in log.days(table) if day <= known_until]
        rows = log.read(table, days[-1]) if days else pl.DataFrame()
        if rows.height:
            newest = rows.sort(instant).unique("user_id", keep="last", maintain_order=True).tail(NUM_USERS)
            return [_request_of(row) for row in newest.iter_rows(named=True)]
    return []


def _request_of(row: dict[str, Any]) -> _Request:
    context = {
        name.removeprefix("context_"): value
        for name, value in row.items()
        if name.startswith("context_") and isinstance(value, str | int | float)
    }
    return _Request(user_id=str(row["user_id"]), context=context)


def _serve_and_ask(
    settings: ServeSettings, version: str, requests: Sequence[_Request], engine: str
) -> list[Finding]:
    """Start the server and ask it. Args: engine: `[serving] engine` of the servers."""
    from serving.clock import clock_from
    from serving.processes.worker import make_server

    server = make_server(settings, clock_from(settings.clock.start))
    try:
        server.start()
        loaded = server.recommender.version == version
        detail = "loaded, verified, golden requests reproduced" if loaded else str(server.reloader.error)
        findings = [Finding(name="load", ok=loaded, detail=detail)]
        if loaded:
            with RecsysClient(f"127.0.0.1:{server.port}", timeout_s=_PATIENCE_MS / 1000) as client:
                findings.append(_engine(server.recommender.engine.model, engine, settings))
                page = min(PAGE, settings.config.serving.max_page_size)
                findings += _ask(client, version, requests, page)
        return findings
    finally:
        server.stop(settings.config.serving.drain_s)


def _engine(model: ServedModel, asked: str, settings: ServeSettings) -> Finding:
    """Say what computed the version here; servers on other hosts choose for themselves."""
    said = [f"{model.engine} on {model.device}"]
    if model.engines_refused:
        said.append(f"not exact enough: {model.engines_refused}")
    if settings.config.serving.engine != asked:
        said.append(f'[serving] engine = "{asked}" was not tried: this host does not score in it')
    return Finding(name="engine", ok=True, detail="; ".join(said))


def _ask(client: RecsysClient, version: str, requests: Sequence[_Request], page: int) -> list[Finding]:
    """Ask as callers do: known users, a stranger, and what is similar to an item.

    One user may get an empty list, who took all that there is; not all may.
    """
    debug = {"do_not_log": True, "explain": True}
    answers: list[Answer] = []

    def listed() -> str:
        for request in requests:
            found = client.recommend(request.user_id, page, context=request.context, debug=debug)
            _require_sound(found, version, request.user_id, least=0)
            answers.append(found)
        if requests and not any(answer.known_user for answer in answers):
            raise BundleError(
                f"none of {len(answers)} users of the log's last day is known to the version; the store has "
                "another version's users, or the night's features are of another log"
            )
        if requests and not any(answer.items for answer in answers):
            raise BundleError(f"none of {len(answers)} users of the log's last day gets an item")
        return f"{len(answers)} users of the log got lists, {sum(bool(a.known_user) for a in answers)} known"

    def cold() -> str:
        found = client.recommend(STRANGER, page, debug=debug)
        _require_sound(found, version, STRANGER)
        answers.append(found)
        return f"a stranger got {len(found.items)} items"

    def similar() -> str:
        seed = answers[-1].items[0].item_id
        found = client.recommend(STRANGER, page, seed_item_id=seed, debug=debug)
        _require_sound(found, version, f"similar to {seed}", least=0)
        return f"{len(found.items)} items similar to {seed}"

    findings: list[Finding] = []
    for name, ask in (("known users", listed), ("stranger", cold), ("similar items", similar)):
        findings.append(_tried(name, ask))
        if not findings[-1].ok:
            break
    return findings


def _tried(name: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, ok=True, detail=ask())
    except (BundleError, CallError) as error:
        return Finding(name=name, ok=False, detail=str(error))


def _require_sound(answer: Answer, version: str, who: str, least: int = 1) -> None:
    """Refuse what a caller must not get.

    Raises: BundleError naming the request and what is wrong with its answer.
    """
    numbers = [n for item in answer.items for n in (item.score, *item.predictions.values())]
    wrong = [
        said
        for said, is_wrong in (
            (f"version {answer.bundle_version!r} answered", answer.bundle_version != version),
            (f"the answer is degraded ({', '.join(answer.degradation)})", bool(answer.degradation)),
            (f"it has {len(answer.items)} items", len(answer.items) < least),
            ("an item is in it twice", len({i.item_id for i in answer.items}) < len(answer.items)),
            ("a score or prediction is no number", not all(map(math.isfinite, numbers))),
            ("a propensity is not in (0, 1]", any(not 0 < i.propensity <= 1 for i in answer.items)),
        )
        if is_wrong
    ]
    if wrong:
        raise BundleError(f"the request of {who}: {'; '.join(wrong)}")


def settings_of(config_file: Path, config: RunConfig, log: Path, runs: Path) -> ServeSettings:
    """Give the settings of a server that is only to check a version."""
    return ServeSettings(
        config_file=config_file, config=config, log=log, runs=runs,
        listen="127.0.0.1:0", admin_listen="127.0.0.1:0",
    )  # fmt: skip
