"""Taobao: views become clicked impressions, the rest of the funnel finds them or stays organic."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from features.sources import taobao
from recsys.errors import DataError
from recsys.log import InteractionLog

NOON = 1511668800  # 2017-11-26 12:00 in Shanghai
ROWS = [
    (1, 10, 7, "pv", NOON), (1, 10, 7, "cart", NOON + 60), (1, 10, 7, "buy", NOON + 86_400),
    (1, 11, 8, "buy", NOON), (2, 10, 7, "pv", NOON + 86_400), (2, 12, 7, "fav", NOON + 86_500),
    (2, 13, 9, "pv", NOON - 90 * 86_400),
]  # fmt: skip


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "UserBehavior.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in ROWS))
    return folder


def read_all(log: InteractionLog, table: str) -> pl.DataFrame:
    return pl.concat([log.read(table, day).with_columns(day=day) for day in log.days(table)])


def test_the_funnel(src: Path, tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log")
    summary = taobao.convert(src, log)
    assert summary.quarantined == {"events: outside first_day to last_day": 1}
    assert summary.first_day == date(2017, 11, 26)
    shown = read_all(log, "impressions")
    views = shown.filter(~pl.col("sampled"))
    assert views.select("user_id", "item_id").rows() == [("1", "10"), ("2", "10")]
    drawn = shown.filter("sampled")
    assert set(drawn["item_id"]) <= {"10", "11", "12"}, "an item outside the days is not in the catalogue"
    done = read_all(log, "feedback").sort("occurred_at", "user_id", "item_id")
    assert done.select("kind", pl.col("impression_id").is_not_null()).rows() == [
        ("click", True), ("purchase", False), ("cart", True), ("purchase", True), ("click", True),
        ("favourite", False),
    ]  # fmt: skip
    assert dict(read_all(log, "items").select("item_id", "category").rows()) == {
        "10": "7",
        "11": "8",
        "12": "7",
    }


def test_missing_and_broken_files(src: Path, tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log")
    with pytest.raises(DataError, match="is not a folder"):
        taobao.convert(src / "UserBehavior.csv", log)
    (src / "UserBehavior.csv").write_text("1,10,7,pv\n")
    with pytest.raises(DataError, match="has 4 columns"):
        taobao.convert(src, log)
    (src / "UserBehavior.csv").write_text("1,10,7,look,1511668800\n")
    with pytest.raises(DataError, match="'look': 1 rows"):
        taobao.convert(src, log)
    (src / "UserBehavior.csv").unlink()
    with pytest.raises(DataError, match="UserBehavior"):
        taobao.convert(src, log)


@pytest.mark.data
def test_the_real_files(data: Path, tmp_path: Path) -> None:
    folder = data / "taobao_userbehavior_100k"
    if not folder.is_dir():
        pytest.skip(f"RECSYS_DATA={data} has no {folder.name}")
    log = InteractionLog(tmp_path / "log")
    summary = taobao.convert(folder, log)
    assert summary.quarantined == {"events: outside first_day to last_day": 44}
    assert summary.rows["feedback"] == 100_001 - 44
    assert summary.rows["users"] == 983
    assert not summary.findings
    assert all(tally.adds_up for tally in summary.accounting.values()), summary.accounting
    done = read_all(log, "feedback")
    bought = done.filter(pl.col("kind") == "purchase")
    views = done.filter(pl.col("kind") == "click").select("user_id", "item_id").unique()
    pairs = bought.select("user_id", "item_id").unique()
    unseen = pairs.join(views, on=["user_id", "item_id"], how="anti").height / pairs.height
    assert 0.30 < unseen < 0.34, "a third of what was bought has no logged view"
    assert done.filter(pl.col("kind") == "click")["impression_id"].null_count() == 0
