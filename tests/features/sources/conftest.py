"""What the checks of own logs say of a set's log."""

from collections.abc import Callable

import polars as pl
import pytest

from features import relations
from features.profile.model import Finding, Requests
from recsys.log import InteractionLog


@pytest.fixture
def findings_of() -> Callable[[InteractionLog], dict[str, Finding]]:
    """Give what looks for the relations that stop a conversion, in a log that is written."""
    return _findings


def _findings(log: InteractionLog) -> dict[str, Finding]:
    both = _read(log, "impressions").filter(~pl.col("sampled")), _read(log, "feedback")
    rows = pl.concat([frame.select("user_id", "item_id", "date") for frame in both]).collect()
    users = pl.col("user_id")
    requests = both[0].group_by("request_id").agg(a=users.min(), b=users.max()).collect()
    shared = requests.filter(pl.col("a") != pl.col("b")).rows()
    top = rows["user_id"].value_counts(sort=True).row(0)
    counted = Requests(requests=requests.height, shared=len(shared), example=next(iter(shared), None))
    found = [
        relations.shared_requests(counted, rows.height),
        relations.days_apart(dict(rows["date"].value_counts().iter_rows())),
        relations.one_user(top[0], top[1] / rows.height, rows.height),
        *[
            relations.spreadsheet_ids(c, relations.id_shapes(rows[c].unique()))
            for c in ("user_id", "item_id")
        ],
    ]
    return {finding.code: finding for finding in found if finding}


def _read(log: InteractionLog, table: str) -> pl.LazyFrame:
    return pl.scan_parquet(f"{log.root}/{table}/**/*.parquet", hive_partitioning=True)
