"""One update during the day: journal -> labels that became known -> a full version -> a light gate -> live.

No row is learned twice. A version's record says up to which instant it has learned (`known_until`; a night's
version: up to the end of its day). An update goes on from the live version and learns what became known after
that instant, but for the newest share: it is compared on that (up to `compared_until`), and the next update
learns it. None is made before a label became known that the live version has neither learned nor been
compared on: run again at the same instant, it would learn what it has just been compared on. The night goes
on from the evaluated weights of the night before, as ever: they have learned nothing of the day, so it learns
the day once, and what the updates have learned ends with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from features.build import build_snapshots, remove_outdated
from features.days import Days
from features.sources.journal import ingest_journal
from recsys.bundle import CONFIG_KEYS, Bundle, load_bundle
from recsys.config import RunConfig, UpdatesConfig
from recsys.config_view import values, view
from recsys.device import resolve_device
from recsys.errors import ConfigError, DataError
from recsys.log import InteractionLog, period_end
from recsys.metrics.columns import Rows
from recsys.metrics.losses import mean_loss, row_log_loss, row_squared_error
from recsys.records import Check, NightRecord, Verdict
from recsys.snapshot import DaySnapshot
from recsys.stages import Reuse
from training.incremental.learn import any_closed, closed_between, learn_closed, places_of
from training.night.failures import told
from training.night.go_live import Pointers, go_live
from training.night.night import Night
from training.predict import BundlePredictor
from training.progress import say
from training.publish import write_bundle
from training.threads import use_threads
from training.train import TrainedModel
from training.trainer.train_log import TrainLog
from training.warm_start import Previous

DAILY = "P1D"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """How an update ended."""

    at: datetime
    live: str
    """What is live now."""
    version: str | None
    """The version that was made; None when no label became known since the last update."""
    verdict: Verdict | None
    rows: int
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the update as JSON values."""
        return {
            "at": self.at.isoformat(),
            "live": self.live,
            "version": self.version,
            "verdict": self.verdict and str(self.verdict),
            "rows": self.rows,
            "checks": [check.model_dump(mode="json") for check in self.checks],
        }


def show_update(done: Update) -> None:
    """Print the checks, and what is live."""
    for check in done.checks:
        print(f"{check.name}: {check.outcome}, {check.detail}")
    if done.version is None:
        said = f"no label became known up to {done.at:%Y-%m-%d %H:%M} UTC that {done.live} has not seen"
        print(f"nothing new: {said}; it stays live")
    else:
        print(f"{done.version}: {done.rows} rows learned, {done.verdict}; {done.live} is live")


def update(config: RunConfig, log: Path, runs: Path, at: datetime) -> Update:
    """Learn what became known since the live version was made; go live unless a head got worse.

    An update of which no head could be compared does not go live either.

    Raises:
        DataError when nothing is live, or the live version is not of the night before.
        ConfigError when the config differs from the live version's, or periods are not days.
    """
    source = InteractionLog(log)
    night = Night(config=config, log=source, runs=runs, date=at.date(), reuse=Reuse(say=say))
    use_threads(config.training.threads)
    with told("update"), night.registry.locked("nightly", wait=False):
        return _update(night, at)


def _require_same(config: RunConfig, bundle: Bundle) -> None:
    """Refuse what a night has to see first: minutes of data teach no new head and no new layer."""
    if config.period != DAILY:
        raise ConfigError(f'period = "{config.period}": updates during the day need period = "{DAILY}"')
    mine, live = (values(view(c, "an update", CONFIG_KEYS)) for c in (config, bundle.config))
    changed = sorted(key for key in mine.keys() | live.keys() if mine.get(key) != live.get(key))
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: the config differs from that of {bundle.version}, which is live; run the "
            "night first, updates go on from there"
        )


def _update(night: Night, at: datetime) -> Update:
    registry, config = night.registry, night.config
    began = Pointers.read(night)
    live = began.registry
    if live is None:
        raise DataError(f"nothing is live in {night.runs}; run `recsys nightly` first")
    record, bundle = registry.require_record(live), load_bundle(registry.require(live))
    _require_same(config, bundle)
    since = record.known_until or period_end(record.night, config.timezone)
    seen = record.compared_until
    ingest_journal(night.log, config.timezone)
    today = record.night + timedelta(days=1)
    if not since < at <= period_end(today, config.timezone):
        raise DataError(
            f"{live} has learned up to {since:%Y-%m-%d %H:%M} UTC and is updated until the end of {today}, "
            f"not at {at:%Y-%m-%d %H:%M}; run that night, or choose another instant"
        )
    days = build_snapshots(night.log, today, config, night.stages).as_known_at(at)
    remove_outdated(days, night.stages)
    nothing = Update(at=at, live=live, version=None, verdict=None, rows=0, checks=())
    if seen is not None and not any_closed(days, config, seen, at):
        return nothing
    cut = at - (at - since) * config.updates.held_out
    trained = learn_closed(days, since, cut, config, Previous.of(bundle, config))
    if trained is None:
        return nothing
    return _tried(night, record, bundle, trained, days, cut, at, began)


def _tried(
    night: Night,
    record: NightRecord,
    live: Bundle,
    trained: TrainedModel,
    days: Days,
    cut: datetime,
    at: datetime,
    began: Pointers,
) -> Update:
    """Write what was learned up to a cut as a version, compare it on what came after, let it go live.

    Args: record: of the live version.
    """
    registry, config, snapshot = night.registry, night.config, days[days.place(record.night)]
    version = write_bundle(
        registry,
        trained,
        dict(live.manifest.calibration),
        config,
        snapshot,
        live.version,
        refitted=True,
        sources=live.manifest.fusion.sources,
        item_bias=live.item_bias,
    )
    checks = compare(load_bundle(registry.require(version)), live, days, cut, at, config)
    found = {
        "index": registry.index(version),
        "version": version,
        "verdict": _verdict(checks),
        "checks": checks,
    }
    own = record.model_copy(update=found | _interval_fields(live.version, trained.log, cut, at))
    own = _gone_live(night, own, snapshot, began)
    return Update(
        at=at,
        live=registry.current() or live.version,
        version=version,
        verdict=own.verdict,
        rows=trained.log.rows,
        checks=own.checks,
    )


def _interval_fields(live: str, log: TrainLog, cut: datetime, at: datetime) -> dict[str, object]:
    """Give the fields of an update's record that say what it learned, from what, and when."""
    return {
        "champion": live,
        "start": f"update of {live}: {log.rows} rows up to {cut:%Y-%m-%d %H:%M} UTC",
        "known_until": cut,
        "compared_until": at,
        "seconds": round(log.seconds, 2),
        "rulings": (),
        "lineage": None,
        "page": None,
    }


def _gone_live(night: Night, own: NightRecord, snapshot: DaySnapshot, began: Pointers) -> NightRecord:
    """Record an update, and let it go live unless its checks held it; give the record of what came of it."""
    night.registry.write_record(own)
    if own.verdict is not Verdict.PROMOTE:
        return own
    of_night = replace(night, date=own.night)
    store = night.config.store
    ending = go_live(of_night, store, snapshot, own.version, own.champion, began, same_users=True)
    if ending.reason is None:
        return own
    check = Check(name="activation", outcome=ending.verdict, detail=ending.reason, numbers={})
    held = own.model_copy(update={"verdict": ending.verdict, "checks": (*own.checks, check)})
    night.registry.write_record(held)
    return held


def compare(
    new: Bundle,
    live: Bundle,
    days: Days,
    since: datetime,
    until: datetime,
    settings: RunConfig,
) -> tuple[Check, ...]:
    """Compare each head's loss on the labels of an interval that neither bundle has learned."""
    losses: dict[str, list[float]] = {}
    device = resolve_device(settings.training.device)
    for bundle in (new, live):
        predictor = BundlePredictor(bundle, device)
        config = new.config
        parts = [
            closed_between(days, i, predictor.encoder, config, since, until) for i in places_of(days, config)
        ]
        predictions = [predictor.predictions(rows) for rows in parts]
        for task in config.tasks:
            label = np.concatenate([rows.labels[task.name] for rows in parts])
            known = ~np.isnan(label)
            losses.setdefault(task.name, [float(known.sum())])
            if known.sum() < settings.updates.min_rows:
                continue
            columns = Rows(
                label=label[known].astype(np.float64),
                prediction=np.concatenate([p[task.name] for p in predictions])[known].astype(np.float64),
                weight=np.concatenate([rows.weight for rows in parts])[known].astype(np.float64),
            )
            row_loss = row_log_loss if task.kind.probability else row_squared_error
            losses[task.name].append(mean_loss(row_loss, columns))
    checks = [_check(name, int(count), pair, settings.updates) for name, (count, *pair) in losses.items()]
    return (*checks, *_nothing_compared(losses, settings.updates))


def _nothing_compared(losses: Mapping[str, list[float]], settings: UpdatesConfig) -> tuple[Check, ...]:
    """Refuse weights that nothing was measured of."""
    if any(len(found) > 1 for found in losses.values()):
        return ()
    why = (
        f"no head has [updates] min_rows = {settings.min_rows} labels held out; run the update later, its "
        "interval grows until it goes live"
    )
    return (Check(name="heads compared", outcome=Verdict.HOLD_UNDERPOWERED, detail=why, numbers={}),)


def _verdict(checks: Sequence[Check]) -> Verdict:
    outcomes = {check.outcome for check in checks}
    worst_first = (Verdict.HOLD, Verdict.HOLD_UNDERPOWERED)
    return next((verdict for verdict in worst_first if verdict in outcomes), Verdict.PROMOTE)


def _check(task: str, rows: int, losses: list[float], settings: UpdatesConfig) -> Check:
    if not losses:
        why = f"{rows} labels held out, {settings.min_rows} are needed: reported, not compared"
        return Check(name=f"{task} rows", outcome=Verdict.PROMOTE, detail=why, numbers={"rows": float(rows)})
    (mine, theirs), allowed = losses, 1 + settings.margin
    outcome = Verdict.PROMOTE if mine <= theirs * allowed else Verdict.HOLD
    detail = f"{mine:.4f} on {rows} labels, live {theirs:.4f}; at most {allowed:g} times that is allowed"
    numbers = {"challenger": mine, "champion": theirs, "rows": float(rows)}
    return Check(name=f"{task} loss", outcome=outcome, detail=detail, numbers=numbers)
