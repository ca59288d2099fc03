"""HetRec Last.fm: dated tags are events; what has no date is filed where no earlier day can see it."""

import gzip
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from features.sources import hetrec
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.schema import TABLES, with_free_columns

FILES = {
    "artists.dat": "id\tname\turl\tpictureURL\n1\tMålin \"x\t\t\n2\tB\t\t\n3\tC\t\t\n",
    "tags.dat": "tagID\ttagValue\n1\tmetal\n2\tcafé\n",
    "user_artists.dat": "userID\tartistID\tweight\n5\t1\t100\n5\t2\t7\n6\t3\t0\n",
    "user_friends.dat": "userID\tfriendID\n5\t6\n6\t5\n5\t9\n",
    "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\n"
    "5\t1\t1\t1\t4\t2009\n5\t1\t2\t1\t4\t2009\n6\t1\t2\t1\t5\t2009\n6\t2\t1\t1\t5\t2009\n"
    "6\t3\t1\t1\t5\t1956\n6\t3\t1\t31\t2\t2009\n5\t4\t1\t1\t6\t2009\n",
}  # fmt: skip


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, text in FILES.items():
        encoding = "latin-1" if name == "tags.dat" else "utf-8"
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode(encoding)))
    return folder


def read_all(log: InteractionLog, table: str) -> pl.DataFrame:
    return pl.concat([log.read(table, day).with_columns(day=day) for day in log.days(table)])


def test_taggings_plays_and_what_is_known_when(src: Path, tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log")
    summary = hetrec.convert(src, log)
    for table in TABLES:
        for day in log.days(table):
            frame = log.read(table, day)
            with_free_columns(table, dict(frame.schema)).validate(frame)
    assert sum(summary.quarantined.values()) == 3, "1956, 31 February, no plays"
    assert all(tally.adds_up for tally in summary.accounting.values()), summary.accounting
    done = read_all(log, "feedback").sort("day", "user_id", "item_id")
    assert done.select("kind", "day", "user_id", "item_id", "value").rows() == [
        ("tag", date(2009, 4, 1), "5", "1", None),
        ("tag", date(2009, 5, 1), "6", "1", None),
        ("tag", date(2009, 5, 1), "6", "2", None),
        ("tag", date(2009, 6, 1), "5", "4", None),
        ("play", date(2009, 6, 2), "5", "1", 100.0),
        ("play", date(2009, 6, 2), "5", "2", 7.0),
    ]
    assert done.filter(pl.col("kind") == "tag")["impression_id"].null_count() == 0
    items = read_all(log, "items").filter(pl.col("item_id") == "1").sort("day")
    assert items.select("day", "title", "attribute_tags").rows() == [
        (date(2009, 3, 31), 'Målin "x', None),
        (date(2009, 5, 1), 'Målin "x', ["café", "metal"]),
        (date(2009, 6, 1), 'Målin "x', ["café", "metal"]),
    ]
    users = read_all(log, "users").filter(pl.col("user_id") == "5").sort("day")
    assert users.select("day", "attribute_friends", "attribute_num_friends").rows() == [
        (date(2009, 4, 1), None, None), (date(2009, 6, 2), ["6", "9"], 2.0)
    ]  # fmt: skip
    drawn = read_all(log, "impressions").filter("sampled")
    assert drawn.height
    chosen = read_all(log, "impressions").filter(~pl.col("sampled"))
    assert drawn.join(chosen, on=["user_id", "item_id", "day"]).is_empty()


@pytest.mark.parametrize("name", FILES)
def test_missing_files_are_named(src: Path, tmp_path: Path, name: str) -> None:
    (src / f"{name}.gz").unlink()
    with pytest.raises(DataError, match=f"has no {name}"):
        hetrec.convert(src, InteractionLog(tmp_path / "log"))
    (src / name).write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match=f"{name}: no column"):
        hetrec.convert(src, InteractionLog(tmp_path / "log"))


@pytest.mark.data
def test_the_real_files(data: Path, tmp_path: Path, findings_of) -> None:
    folder = data / "lastfm_hetrec"
    if not folder.is_dir():
        pytest.skip(f"RECSYS_DATA={data} has no {folder.name}")
    log = InteractionLog(tmp_path / "log")
    summary = hetrec.convert(folder, log)
    assert sum(summary.quarantined.values()) == 5
    assert all(tally.adds_up for tally in summary.accounting.values()), summary.accounting
    assert not findings_of(log)
    done = read_all(log, "feedback")
    assert dict(done.group_by("kind").len().rows()) == {"play": 92_834, "tag": 85_011}
    assert summary.last_day == date(2011, 5, 9)
