"""Two cleaned sets without time, packed as one zip each: Retailrocket's events, Book-Crossing's readers.

Ids in the files count from 1; here users and items count from 0, in the files' order.
Source: the collection "Datasets for Recommender Systems" of the Case Recommender project.
"""

import io
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.models.pair_data import Pairs, Sides, number_sides
from benchmarks.quality.readers.published_files import published
from recsys.errors import DataError

EVENTS = {"view": "view", "cart": "add_to_cart", "purchase": "purchase"}
"""Task -> its file's name in the zip, before "_ecommerce.dat"."""
AGES = (10, 90)
"""Ages outside are junk (they run to 239): unknown, as a missing one is."""
MIN_ROWS = 5
"""A country, author or publisher of fewer users or books is one of "others"."""
YEARS = (1900, 2006)
_YEAR = re.compile(r"\d{1,4}")


def read_retailrocket(folder: Path) -> tuple[Pairs, Sides]:
    """Read the distinct pairs that have any event, in order of user and item; the labels say which events.

    Raises: DataError when the zip or a file in it is missing or is not of the published form.
    """
    found = {}
    with _opened(folder / "Retailrocket_Ecommerce.zip") as archive:
        for task, name in EVENTS.items():
            frame = _table(archive, f"{name}_ecommerce.dat", ("visitorid", "itemid", "event"))
            found[task] = frame.select("user", "item", pl.lit(1.0).cast(pl.Float32).alias(task)).unique()
    pairs = pl.concat([f.select("user", "item") for f in found.values()]).unique().sort("user", "item")
    for frame in found.values():
        pairs = pairs.join(frame, on=["user", "item"], how="left", maintain_order="left")
    user, item = pairs["user"].to_numpy(), pairs["item"].to_numpy()
    labels = {task: pairs[task].fill_null(0.0).to_numpy() for task in EVENTS}
    own = [np.arange(int(ids.max()) + 1) for ids in (user, item)]
    return Pairs(user=user, item=item, labels=labels), number_sides(own[:1], own[1:])


def read_bookcrossing(folder: Path) -> tuple[Pairs, Sides]:
    """Read who had which book, distinct and in order, and the rating 1 to 10 of the pairs that have one.

    User columns: country, age band; item columns: author, publisher, band of years.
    Raises: DataError when the zip or a file in it is missing or is not of the published form.
    """
    with _opened(folder / "book_crossing.zip") as archive:
        history = _table(archive, "book_history.dat", ("user", "item", "accessed")).select("user", "item")
        rated = _table(archive, "book_ratings.dat", ("user", "item", "rating"))
        people, books = _lines(archive, "users_info.dat"), _lines(archive, "items_info.dat")
    rated = rated.rename({"value": "rating"}).unique(["user", "item"])
    pairs = pl.concat([history, rated.select("user", "item")]).unique().sort("user", "item")
    pairs = pairs.join(rated, on=["user", "item"], how="left", maintain_order="left")
    user, item = pairs["user"].to_numpy(), pairs["item"].to_numpy()
    rating = pairs["rating"].to_numpy().astype(np.float32)
    if not ((rating >= 1) & (rating <= 10) | np.isnan(rating)).all():
        raise DataError(f"{folder}: book_ratings.dat has ratings outside 1 to 10; take the published file")
    about_users = _placed([(p[0], *_person(p)) for p in people], int(user.max()) + 1, 2, "users_info.dat")
    about_items = _placed([(b[0], *_book(b)) for b in books], int(item.max()) + 1, 3, "items_info.dat")
    labels = {"interaction": np.ones(user.size, np.float32), "rating": rating}
    users, items = _merged(about_users, (0,)), _merged(about_items, (0, 1))
    sides = number_sides([np.arange(len(users)), *users.T], [np.arange(len(items)), *items.T])
    return Pairs(user=user, item=item, labels=labels), sides


def _person(fields: list[str]) -> tuple[str, str]:
    """Give country and age band (five years); "" where not said or not credible."""
    country = fields[1].rsplit(",", 1)[-1].strip().lower()
    age = int(fields[2]) if fields[2].strip().isdigit() else 0
    return country, str(age // 5) if AGES[0] <= age <= AGES[1] else ""


def _book(fields: list[str]) -> tuple[str, str, str]:
    """Give author, publisher and band of years (five): counted from the right, where images' addresses are.

    Stray tabs split some titles and publishers in two.
    """
    before = [f.strip() for f in fields if not f.strip().startswith("http")]
    year = next((i for i in range(len(before) - 1, 3, -1) if _YEAR.fullmatch(before[i])), None)
    if year is None:
        return "", "", ""
    published = int(before[year])
    band = str(published // 5) if YEARS[0] <= published <= YEARS[1] else ""
    return before[year - 1].lower(), " ".join(f for f in before[year + 1 :] if f).lower(), band


def _placed(rows: list[tuple[str, ...]], num: int, width: int, name: str) -> np.ndarray:
    """Put each row's columns at its id (from 1): strings [num, width]; "" for ids without a row."""
    found = [("",) * width] * num
    for row in rows:
        if not row[0].isdigit():
            raise DataError(f"{name}: id {row[0]!r} is no number; take the published file")
        if 1 <= int(row[0]) <= num:
            found[int(row[0]) - 1] = row[1:]
    return np.array(found, dtype=object).reshape(num, width)


def _merged(columns: np.ndarray, rare_in: tuple[int, ...]) -> np.ndarray:
    """Put values of few rows together, in the columns named."""
    merged = columns.copy()
    for column in rare_in:
        counts = Counter(columns[:, column].tolist())
        values = [v if not v or counts[v] >= MIN_ROWS else "others" for v in columns[:, column].tolist()]
        merged[:, column] = values
    return merged.astype(str)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(published(path))
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is no zip file; take the published one") from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    path = next((n for n in archive.namelist() if n.rsplit("/", 1)[-1] == name), None)
    if path is None:
        raise DataError(f"{archive.filename} has no {name}; take the published zip")
    return archive.read(path)


def _table(archive: zipfile.ZipFile, name: str, header: tuple[str, str, str]) -> pl.DataFrame:
    """Read user, item, value; ids from 0.

    Raises: DataError on another header, on what is no number and on ids below 1.
    """
    try:
        frame = pl.read_csv(io.BytesIO(_member(archive, name)), separator="\t")
        if tuple(frame.columns) != header:
            raise DataError(
                f"{archive.filename}: {name} has columns {frame.columns}, expected {list(header)}"
            )
        frame.columns = ["user", "item", "value"]
        frame = frame.select(pl.col("user", "item").cast(pl.Int64) - 1, pl.col("value").cast(pl.Float64))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{archive.filename}: {name} is no table of three numbers a line: {error}") from error
    bad = frame.filter(pl.any_horizontal(pl.all().is_null(), pl.col("user") < 0, pl.col("item") < 0))
    if frame.is_empty() or not bad.is_empty():
        raise DataError(
            f"{archive.filename}: {name} is empty or has a gap or an id below 1; take the published zip"
        )
    return frame


def _lines(archive: zipfile.ZipFile, name: str) -> list[list[str]]:
    """Split the lines below the header at tabs."""
    lines = _member(archive, name).decode("utf-8", errors="replace").split("\n")[1:]
    return [line.split("\t") for line in lines if line.count("\t") >= 2]
