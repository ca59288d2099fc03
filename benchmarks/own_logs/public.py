"""Public sets, read as if they were somebody's own files: by a mapping, not by their converters."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl


@dataclass(frozen=True, slots=True)
class PublicLog:
    """One set: what puts its files into a folder, and the mapping that reads them there."""

    files: Callable[[Path, Path], None]
    """Takes the folder of all sets, and the one to fill."""
    mapping: str


def _copied(**files: str) -> Callable[[Path, Path], None]:
    def put(sets: Path, folder: Path) -> None:
        for name, source in files.items():
            shutil.copyfile(sets / source, folder / f"{name}.csv.gz")

    return put


def _kuairand(sets: Path, folder: Path) -> None:
    """Write each exposure as a row, and each thing that was done with it as another, as logs of events do."""
    shown = pl.read_parquet(sets / "kuairand_pure" / "interactions_0425_0430.parquet")
    done = {"view": pl.lit(value=True), "click": pl.col("is_click") == 1, "like": pl.col("is_like") == 1}
    parts = [
        shown.filter(chosen).select(
            "user_id", "video_id", "tab", at=pl.col("time_ms") + late, kind=pl.lit(kind)
        )
        for late, (kind, chosen) in enumerate(done.items())
    ]
    pl.concat(parts).sort("at").write_csv(folder / "events.csv")


PUBLIC: Final[Mapping[str, PublicLog]] = {
    "ml-100k": PublicLog(
        _copied(ratings="ml-100k/ml-100k.inter.gz", films="ml-100k/ml-100k.item.gz"),
        """timezone = "UTC"
[feedback]
files = "ratings.csv.gz"
separator = "\\t"
user = "user_id:token"
item = "item_id:token"
value = "rating:float"
time = "timestamp:float"
time_format = "s"
only_kind = "rating"
[items]
files = "films.csv.gz"
separator = "\\t"
id = "item_id:token"
title = "movie_title:token_seq"
description = "class:token_seq"
""",
    ),
    "ml-latest-small": PublicLog(
        _copied(ratings="ml-latest-small/ratings.csv.gz", films="ml-latest-small/movies.csv.gz"),
        """timezone = "UTC"
[feedback]
files = "ratings.csv.gz"
user = "userId"
item = "movieId"
value = "rating"
time = "timestamp"
time_format = "s"
only_kind = "rating"
[items]
files = "films.csv.gz"
id = "movieId"
title = "title"
description = "genres"
""",
    ),
    "taobao": PublicLog(
        _copied(events="taobao_userbehavior_100k/UserBehavior_first100001.csv.gz"),
        """timezone = "Asia/Shanghai"
first_day = 2017-11-25
last_day = 2017-12-03
[events]
files = "events.csv.gz"
columns = ["user", "item", "category", "kind", "time"]
user = "user"
item = "item"
kind = "kind"
time = "time"
time_format = "s"
tolerate = 0.01
[events.kinds]
pv = "click"
cart = "cart"
fav = "favourite"
buy = "purchase"
[events.item_columns]
category = "category"
""",
    ),
    "kuairand": PublicLog(
        _kuairand,
        """timezone = "Asia/Shanghai"
[events]
files = "events.csv"
user = "user_id"
item = "video_id"
kind = "kind"
time = "at"
time_format = "ms"
[events.kinds]
view = "impression"
click = "click"
like = "like"
[events.context]
tab = "tab"
""",
    ),
}


def write_public(name: str, sets: Path, folder: Path) -> Path:
    """Put a set's files into a folder; give its mapping's file."""
    folder.mkdir(parents=True, exist_ok=True)
    PUBLIC[name].files(sets, folder)
    mapping = folder / "mapping.toml"
    mapping.write_text(PUBLIC[name].mapping, encoding="utf-8")
    return mapping
