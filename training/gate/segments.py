"""No group of users or contexts may lose much of the order that it has, whatever all others gain.

A segment with few lists says nothing and is left out. All segments of all heads share alpha, and a loss must
be shown in full: among a dozen segments one looks bad every night.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from recsys.config import GateConfig
from recsys.records import Check, Verdict
from recsys.tasks import TaskSpec
from training.gate.decision import finding
from training.gate.heads import compare_with
from training.gate.non_inferiority import HeadComparison, normal_quantile

CONTEXT = "context_"
_MOST_VALUES = 50
"""Contexts of more values are ids, no groups."""


def check_segments(
    tasks: Sequence[TaskSpec], challenger: pl.DataFrame, champion: pl.DataFrame, config: GateConfig, seed: int
) -> list[Check]:
    """Hold when some segment is shown to lose more than its share of what the champion adds in it.

    Args: challenger, champion: `score_rows`, the same impressions; contexts are columns `context_*`.
    """
    heads = [task for task in tasks if task.kind.probability]
    found: list[tuple[str, HeadComparison]] = []
    for name, rows in segments_of(challenger, config.min_segment_users):
        found += [
            (name, c) for c in compare_with(heads, rows, champion, config, seed) if c.known and c.adds > 0
        ]
    if not found:
        return []
    alpha = config.alpha / len(found)
    checks = [_check(name, comparison, alpha, config) for name, comparison in found]
    held = [check for check in checks if check.outcome is not Verdict.PROMOTE]
    if held:
        return held
    worst = min(checks, key=lambda check: check.numbers["gain"])
    detail = (
        f"{len(checks)} compared, none is shown to lose {config.max_segment_loss:.0%}; worst: {worst.name}"
    )
    return [finding("segments", Verdict.PROMOTE, detail, compared=len(checks), gain=worst.numbers["gain"])]


def segments_of(rows: pl.DataFrame, least: int) -> Iterator[tuple[str, pl.DataFrame]]:
    """Cut rows by how much is known of the user and by each context; those with fewer users are left out."""
    past = rows["user_past"] if "user_past" in rows.columns else None
    if past is not None:
        median = float(np.median(past.filter(past > 0).to_numpy())) if (past > 0).any() else 0.0
        for name, chosen in (
            ("new users", past == 0),
            ("light users", (past > 0) & (past <= median)),
            ("heavy users", past > median),
        ):
            if (part := rows.filter(chosen))["user_id"].n_unique() >= least:
                yield name, part
    for column in (c for c in rows.columns if c.startswith(CONTEXT)):
        if rows[column].n_unique() > _MOST_VALUES:
            continue
        for (value,), part in rows.partition_by(column, as_dict=True).items():
            if part["user_id"].n_unique() >= least:
                yield f"{column.removeprefix(CONTEXT)} {value}", part


def _check(name: str, compared: HeadComparison, alpha: float, config: GateConfig) -> Check:
    share = compared.gain / compared.adds
    error = compared.standard_error / compared.adds
    best = share + normal_quantile(1 - alpha) * error
    outcome = Verdict.PROMOTE if best >= -config.max_segment_loss else Verdict.HOLD
    detail = (
        f"{share:+.0%} of what the champion adds there, at best {best:+.0%}; a loss of "
        f"{config.max_segment_loss:.0%} is allowed, {compared.effect.users} users"
    )
    return finding(f"{name}: {compared.name}", outcome, detail, gain=share, best=best)
