"""Scored rows of the bundles -> every comparison of one night, and what it could tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from recsys.config import GateConfig
from recsys.fusion import Fusion
from recsys.records import Check, PowerAt, Verdict
from recsys.tasks import TaskSpec
from training.gate.calibration import check_ratios
from training.gate.decision import finding
from training.gate.heads import compare_heads, compare_with
from training.gate.list_value import NAME, compare_value, value_of
from training.gate.non_inferiority import HeadComparison, check_comparisons, check_evidence
from training.gate.power import power_of
from training.gate.segments import check_segments
from training.gate.served_order import check_served_order
from training.gate.shift import check_shift


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRows:
    """`score_rows` of the bundles that a night compares: the same impressions."""

    challenger: pl.DataFrame
    champion: pl.DataFrame | None
    anchor: pl.DataFrame | None = None
    gated: Mapping[str, date]
    """Per task, the day that is evaluated; orders are compared by all days of the rows."""
    new: tuple[str, ...] = ()
    """Heads that the champion does not have, or has with another meaning."""

    @property
    def today(self) -> pl.DataFrame:
        """Give the challenger's rows of the evaluated days, each task's labels on its own day."""
        return of_evaluated_day(self.challenger, self.gated)

    @property
    def rival(self) -> pl.DataFrame | None:
        """Give the champion's rows without what it predicts for heads of another meaning."""
        if self.champion is None:
            return None
        return self.champion.drop([f"prediction_{task}" for task in self.new], strict=False)


def of_evaluated_day(rows: pl.DataFrame, gated: Mapping[str, date]) -> pl.DataFrame:
    """Keep the days that some task is evaluated on, and on each the labels of those tasks alone.

    Args: rows: of `score_rows`; gated: task -> its day.
    """
    labels = [
        pl.when(pl.col("date") == day).then(pl.col(f"label_{task}")).alias(f"label_{task}")
        for task, day in gated.items()
    ]
    return rows.filter(pl.col("date").is_in([*set(gated.values())])).with_columns(labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What the rows say."""

    checks: tuple[Check, ...]
    list_value: float | None
    power: tuple[PowerAt, ...]


def compare_bundles(
    tasks: Sequence[TaskSpec],
    rows: GateRows,
    fusion: Fusion,
    live: Fusion | None,
    config: GateConfig,
    seed: int,
) -> Compared:
    """Compare the challenger with the champion and with the anchor, by heads and by the fused order.

    Args: fusion: the challenger's; live: the champion's, None without one.
    """
    today = rows.today
    heads, checks = compare_heads(tasks, rows.challenger, rows.rival, config, seed, today)
    value, said = _value(tasks, rows, fusion, live, config, seed)
    comparisons = [*heads, *value]
    served = check_served_order(tasks, rows.challenger, rows.champion, config, seed)
    if rows.champion is not None:
        checks += check_evidence(comparisons, config)
    return Compared(
        checks=(
            *check_comparisons(comparisons),
            *said,
            *checks,
            *served,
            *check_ratios(tasks, today, rows.rival, config),
            *check_shift(tasks, today, rows.rival, config),
            *_segments(tasks, rows, config, seed),
            *_against_anchor(tasks, rows, fusion, config, seed),
        ),
        list_value=value_of(tasks, rows.challenger, fusion),
        power=power_of(comparisons, served, today["user_id"].n_unique()),
    )


def _segments(tasks: Sequence[TaskSpec], rows: GateRows, config: GateConfig, seed: int) -> list[Check]:
    rival = rows.rival
    return [] if rival is None else check_segments(tasks, rows.challenger, rival, config, seed)


def _value(
    tasks: Sequence[TaskSpec],
    rows: GateRows,
    fusion: Fusion,
    live: Fusion | None,
    config: GateConfig,
    seed: int,
) -> tuple[list[HeadComparison], list[Check]]:
    """Compare the value of the fused orders, where both bundles want the same of them."""
    if rows.champion is None or live is None:
        return [], []
    if fusion.terms != live.terms or fusion.formula != live.formula:
        why = "other weights than the live bundle's: what a list is worth has changed; reported, not compared"
        return [], [finding(NAME, Verdict.PROMOTE, why)]
    found = compare_value(tasks, rows.challenger, rows.champion, fusion, config, seed)
    return ([] if found is None else [found]), []


def _against_anchor(
    tasks: Sequence[TaskSpec], rows: GateRows, fusion: Fusion, config: GateConfig, seed: int
) -> list[Check]:
    """Ask the same of the anchor; where nothing has the labels to decide, it only vetoes."""
    if rows.anchor is None:
        return []
    kept = [task for task in tasks if task.name not in rows.new]
    found = compare_with(kept, rows.challenger, rows.anchor, config, seed)
    value = compare_value(tasks, rows.challenger, rows.anchor, fusion, config, seed)
    comparisons = [*found, *([] if value is None else [value])]
    return [
        check.model_copy(
            update={"name": f"{check.name}, anchor", "detail": check.detail.replace("champion", "anchor", 1)}
        )
        for check in check_comparisons(comparisons, may_only_veto=True)
    ]
