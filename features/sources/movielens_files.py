"""MovieLens on disk: four layouts, told apart by their files, read into one form."""

import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from features.sources.conversion import find_file, read_csv, require_columns
from recsys.errors import DataError

GENRES_100K: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
OCCUPATIONS_1M: Final = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer",
    "programmer", "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer",
    "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip
AGES_1M: Final = {
    "1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+",
}  # fmt: skip
NO_GENRE: Final = ("", "(no genres listed)", "unknown")


@dataclass(frozen=True, slots=True)
class MovieLens:
    """One data set in one form, every value still unchecked.

    ratings: user_id, item_id (text), stars (Float64), seconds (Int64, since 1970).
    items: item_id, title (text), year (Int32), genres (List[String]).
    users: user_id and attribute_* columns, or None where the set has none.
    """

    layout: str
    ratings: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame | None


def read_movielens(src: Path) -> MovieLens:
    """Read a folder in whichever layout its files have.

    Raises: DataError naming the layouts when none fits, or when the set has no times.
    """
    for files, reader in _LAYOUTS.values():
        if find_file(src, files[:1]) is not None or any(src.glob(files[0])):
            return reader(src)
    if any(src.glob("fold*.csv*")) or find_file(src, ("u1.base", "train.csv")):
        raise DataError(
            f"{src} holds folds of ratings without timestamps; a set without time never enters a log, "
            "because features must be cut at an instant. Benchmarks read such a set with its published split"
        )
    known = "; ".join(f"{name}: {', '.join(files)}" for name, (files, _) in _LAYOUTS.items())
    raise DataError(f"{src} has none of the MovieLens layouts (each file plain or .gz): {known}")


def _latest(src: Path) -> MovieLens:
    ratings = _table(src, "ratings.csv", ("userId", "movieId", "rating", "timestamp"))
    movies = _table(src, "movies.csv", ("movieId", "title", "genres"))
    return MovieLens("latest", _ratings(ratings), _items(movies, year=_year_in_title()), None)


def _recbole(src: Path) -> MovieLens:
    ratings = _atomic(src, "inter", ("user_id", "item_id", "rating", "timestamp"))
    movies = _atomic(src, "item", ("item_id", "movie_title", "release_year", "class"))
    year = pl.col("release_year").str.extract(r"^(\d{4})$").cast(pl.Int32)
    items = _items(movies.with_columns(pl.col("class").str.replace_all(" ", "|")), year=year)
    users = None
    if any(src.glob("*.user")) or any(src.glob("*.user.gz")):
        table = _atomic(src, "user", ("user_id", "age", "gender", "occupation", "zip_code"))
        users = _users(table, attribute_age=_number("age"))
    return MovieLens("100k (RecBole)", _ratings(ratings), items, users)


def _hundred_k(src: Path) -> MovieLens:
    ratings = _plain(src, "u.data", "\t", ("user", "item", "rating", "timestamp"))
    flags = tuple(f"genre {name}" for name in GENRES_100K)
    movies = _plain(src, "u.item", "|", ("item", "title", "released", "video", "url", *flags))
    named = [pl.when(pl.col(flag) == "1").then(pl.lit(flag.removeprefix("genre "))) for flag in flags]
    movies = movies.select(
        "item", "title", "released", genres=pl.concat_str(named, separator="|", ignore_nulls=True)
    )
    year = pl.coalesce(pl.col("released").str.extract(r"(\d{4})$").cast(pl.Int32), _year_in_title())
    users = _plain(src, "u.user", "|", ("user", "age", "gender", "occupation", "zip_code"))
    return MovieLens(
        "100k",
        _ratings(ratings),
        _items(movies.select("item", "title", "genres", "released"), year=year),
        _users(users, attribute_age=_number("age")),
    )


def _one_m(src: Path) -> MovieLens:
    ratings = _plain(src, "ratings.dat", "::", ("user", "item", "rating", "timestamp"))
    movies = _plain(src, "movies.dat", "::", ("item", "title", "genres"))
    users = _plain(src, "users.dat", "::", ("user", "gender", "age", "occupation", "zip_code"))
    names = {str(n): name for n, name in enumerate(OCCUPATIONS_1M)}
    users = users.with_columns(pl.col("occupation").replace_strict(names, default=None))
    band = pl.col("age").replace_strict(AGES_1M, default=None)
    return MovieLens(
        "1m", _ratings(ratings), _items(movies, year=_year_in_title()), _users(users, attribute_age_band=band)
    )


# layout -> (its files, the first one telling it from the others; reader)
_LAYOUTS: Final[dict[str, tuple[tuple[str, ...], Callable[[Path], MovieLens]]]] = {
    "latest-small": (("ratings.csv", "movies.csv"), _latest),
    "100k (RecBole)": (("*.inter*", "*.item*", "*.user*"), _recbole),
    "100k": (("u.data", "u.item", "u.user"), _hundred_k),
    "1m": (("ratings.dat", "movies.dat", "users.dat"), _one_m),
}


def _ratings(table: pl.DataFrame) -> pl.DataFrame:
    user, item, stars, seconds = table.columns[:4]
    return table.select(
        user_id=user,
        item_id=item,
        stars=_number(stars),
        seconds=_number(seconds).cast(pl.Int64, strict=False),
    )


def _items(table: pl.DataFrame, year: pl.Expr) -> pl.DataFrame:
    """Read identifier, title and the genres joined by |, the columns in this order by name or place."""
    item, title = table.columns[:2]
    genres = "class" if "class" in table.columns else "genres"
    listed = pl.col(genres).fill_null("").str.split("|").list.eval(
        pl.element().filter(~pl.element().is_in(list(NO_GENRE)))
    )  # fmt: skip
    plausible = pl.when(year.is_between(1870, 2100)).then(year)
    return table.with_columns(title=pl.col(title)).select(
        item_id=item, title="title", year=plausible, genres=listed
    )


def _users(table: pl.DataFrame, **attributes: pl.Expr) -> pl.DataFrame:
    """Keep demographics; of the zip code only its first character, the region."""
    zip_code = pl.col("zip_code").str.strip_chars().str.slice(0, 1)
    return table.select(
        pl.col(table.columns[0]).alias("user_id"),
        pl.col("gender").alias("attribute_gender"),
        pl.col("occupation").alias("attribute_occupation"),
        zip_code.alias("attribute_zip_region"),
        **attributes,
    )


def _year_in_title() -> pl.Expr:
    return pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32)


def _number(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64, strict=False)


def _table(src: Path, name: str, required: Sequence[str]) -> pl.DataFrame:
    path = _require(src, name)
    table = read_csv(path)
    require_columns(path, table.columns, required)
    return table.select(required)


def _atomic(src: Path, suffix: str, required: Sequence[str]) -> pl.DataFrame:
    """Read a RecBole file: tab separated, header names carry types (`user_id:token`)."""
    paths = sorted([*src.glob(f"*.{suffix}"), *src.glob(f"*.{suffix}.gz")])
    if len(paths) != 1:
        raise DataError(f"{src} has {len(paths)} files *.{suffix}[.gz]; RecBole's layout has exactly one")
    table = read_csv(paths[0], separator="\t", quote_char=None)
    table = table.rename({name: name.split(":")[0] for name in table.columns})
    require_columns(paths[0], table.columns, required)
    return table.select(required)


def _plain(src: Path, name: str, separator: str, columns: Sequence[str]) -> pl.DataFrame:
    """Read a file without header, latin-1, whose separator may be longer than one character."""
    path = _require(src, name)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch the file again") from error
    text = raw.decode("latin-1").replace("\x1f", " ").replace(separator, "\x1f").encode()
    options = {"separator": "\x1f", "quote_char": None, "has_header": False, "infer_schema": False}
    try:
        table = pl.read_csv(io.BytesIO(text), **options)  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path} cannot be read ({error}); expected {separator.join(columns)} a line"
        ) from error
    if table.width != len(columns):
        raise DataError(
            f"{path} has {table.width} columns, expected {len(columns)}: {separator.join(columns)}; "
            "a rating without a timestamp cannot enter a log"
        )
    return table.rename(dict(zip(table.columns, columns, strict=True)))


def _require(src: Path, name: str) -> Path:
    path = find_file(src, (name,))
    if path is None:
        raise DataError(f"{src} has no {name} (nor {name}.gz), which this MovieLens layout has")
    return path
