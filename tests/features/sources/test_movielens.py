"""MovieLens: layouts, derived feedback, negatives and their rates, dates."""

import gzip
import os
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features.sources import movielens
from features.sources.movielens_files import GENRES_100K, read_movielens
from features.sources.negatives import sample_negatives
from recsys.errors import DataError
from recsys.log import InteractionLog, business_day
from recsys.schema import KEYS, PARTITION_INSTANT, TABLES, with_free_columns

NOON = 978_350_400  # 2001-01-01 12:00 UTC
DAY = 86_400
RATED = [  # user, film, stars, seconds
    (1, 1, 5, NOON), (1, 2, 2, NOON + 60), (1, 3, 4, NOON + DAY), (2, 1, 3, NOON), (2, 4, 4, NOON + 2 * DAY),
    (3, 5, 1, NOON + 3 * DAY),
]  # fmt: skip
FILMS = [  # film, title, genres; 4 has no year, 5 comes out in 2002 and was rated before
    (1, "Léon (1994)", "Action|Crime"), (2, "Two :: Lovers (1995)", "Comedy"), (3, "Third (1996)", "Drama"),
    (4, "Nameless", ""), (5, "Early (2002)", "War"), (6, "Future (2003)", "Drama"),
    (7, "Unseen (1950)", "Drama"),
]  # fmt: skip
USERS = [(1, "F", "1", "10", "48067"), (2, "M", "56", "16", "T8H1N"), (3, "M", "25", "15", "55117")]


def write_latest(folder: Path, *, zipped: bool = False) -> None:
    ratings = "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{r}.0,{t}\n" for u, i, r, t in RATED)
    films = "movieId,title,genres\n" + "".join(
        f'{i},"{title}",{genres or "(no genres listed)"}\n' for i, title, genres in FILMS
    )
    for name, text in (("ratings.csv", ratings), ("movies.csv", films)):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text)


def write_1m(folder: Path) -> None:
    films = [(i, title.replace("::", "-"), genres) for i, title, genres in FILMS]
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in RATED))
    (folder / "movies.dat").write_bytes(
        "".join("::".join(map(str, row)) + "\n" for row in films).encode("latin-1")
    )
    (folder / "users.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in USERS))


def write_100k(folder: Path) -> None:
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in RATED))
    lines = []
    for i, title, genres in FILMS:
        flags = "|".join("1" if g in genres.split("|") else "0" for g in GENRES_100K)
        year = title[-5:-1] if title.endswith(")") else ""
        lines.append(f"{i}|{title}|{'01-Jan-' + year if year else ''}||http://x|{flags}\n")
    (folder / "u.item").write_bytes("".join(lines).encode("latin-1"))
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n3|23|M|writer|32067\n")


def write_recbole(folder: Path) -> None:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "ml-100k.inter").write_text(header + "".join("\t".join(map(str, row)) + "\n" for row in RATED))
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    rows = []
    for i, title, genres in FILMS:
        name, year = (title[:-7], title[-5:-1]) if title.endswith(")") else (title, "V")
        rows.append(f"{i}\t{name}\t{year}\t{genres.replace('|', ' ')}\n")
    (folder / "ml-100k.item").write_text(header + "".join(rows))
    header = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    (folder / "ml-100k.user").write_text(header + "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n")


LAYOUTS = {"latest": write_latest, "1m": write_1m, "100k": write_100k, "100k (RecBole)": write_recbole}


@pytest.fixture(params=LAYOUTS)
def any_src(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make(tmp_path, request.param)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return make(tmp_path, "latest")


def make(tmp_path: Path, layout: str) -> Path:
    folder = tmp_path / "raw set"
    folder.mkdir()
    LAYOUTS[layout](folder)
    return folder


def read_all(log: InteractionLog, table: str) -> pl.DataFrame:
    return pl.concat([log.read(table, day).with_columns(day=day) for day in log.days(table)])


def check_tables(log: InteractionLog) -> None:
    """Every partition keeps its schema, its keys and its day."""
    for table in TABLES:
        for day in log.days(table):
            frame = log.read(table, day)
            schema = with_free_columns(table, dict(frame.schema))
            schema.validate(frame)
            assert set(frame.columns) == set(schema.column_names())
            if table in PARTITION_INSTANT:
                assert frame.select((business_day(PARTITION_INSTANT[table], "UTC") == day).all()).item()
        if log.days(table):
            assert not read_all(log, table).select(KEYS[table]).is_duplicated().any(), table


def test_every_layout_gives_the_same_log(any_src: Path, tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log")
    summary = movielens.convert(any_src, log)
    check_tables(log)
    assert summary.rows["feedback"] == len(RATED) * 2 + 3
    assert (summary.first_day, summary.last_day) == (date(2001, 1, 1), date(2001, 1, 4))
    items = {row["item_id"]: row for row in read_all(log, "items").iter_rows(named=True)}
    assert items["1"]["title"].startswith("Léon")
    assert items["1"]["category"] == "Action"
    assert items["1"]["attribute_genres"] == ["Action", "Crime"]
    assert items["1"]["attribute_year"] == 1994.0
    assert items["4"]["category"] is None
    assert items["4"]["attribute_year"] is None
    drawn = read_all(log, "impressions").filter("sampled")
    reference = InteractionLog(tmp_path / "reference")
    (tmp_path / "again").mkdir()
    movielens.convert(make(tmp_path / "again", "latest"), reference)
    assert drawn.equals(read_all(reference, "impressions").filter("sampled"))


def test_demographics(tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log")
    movielens.convert(make(tmp_path, "1m"), log)
    users = log.read("users", date(2000, 12, 31))
    assert users.row(1, named=True) == {
        "user_id": "2", "attribute_gender": "M", "attribute_occupation": "self-employed",
        "attribute_zip_region": "T", "attribute_age_band": "56+",
    }  # fmt: skip


def test_users_not_in_the_user_file_are_filed_on_their_first_day(tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log")
    movielens.convert(make(tmp_path, "100k (RecBole)"), log)
    assert log.read("users", date(2000, 12, 31))["attribute_age"].to_list() == [24.0, 53.0]
    assert log.read("users", date(2001, 1, 4))["user_id"].to_list() == ["3"]


def test_feedback_is_real_ratings_and_derived_clicks_and_purchases(src: Path, tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log")
    movielens.convert(src, log)
    feedback = read_all(log, "feedback")
    assert dict(feedback.group_by("kind").len().rows()) == {"rating": 6, "click": 6, "purchase": 3}
    ratings = feedback.filter(pl.col("kind") == "rating")
    assert sorted(ratings["value"].to_list()) == [1.0, 2.0, 3.0, 4.0, 4.0, 5.0]
    assert feedback.filter(pl.col("kind") != "rating")["value"].null_count() == 9
    shown = read_all(log, "impressions")
    joined = feedback.join(shown, on="impression_id", how="inner")
    assert joined.height == feedback.height, "feedback belongs to an impression"
    assert not joined["sampled"].any()
    assert (joined["received_at"] - joined["shown_at"]).unique().to_list() == [timedelta(seconds=1)]
    assert shown.filter(~pl.col("sampled"))["sampling_rate"].unique().to_list() == [1.0]
    assert shown["position"].unique().to_list() == [1], "position must not tell drawn from chosen"


def test_films_are_filed_when_they_come_out_or_are_first_rated(src: Path, tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log")
    movielens.convert(src, log)
    filed = dict(read_all(log, "items").select("item_id", "day").rows())
    eve = date(2000, 12, 31)
    assert filed == {
        "1": eve, "2": eve, "3": eve, "7": eve,
        "4": date(2001, 1, 3), "5": date(2001, 1, 4), "6": date(2003, 1, 1),
    }  # fmt: skip
    available = dict(read_all(log, "items").select("item_id", "available_from").rows())
    assert available["7"] == datetime(1950, 1, 1, tzinfo=UTC)
    assert available["6"] == datetime(2003, 1, 1, tzinfo=UTC)


def positives_and_catalogue(num_users: int = 5, num_items: int = 40) -> tuple[pl.DataFrame, pl.DataFrame]:
    rows = [
        (
            f"u{u}",
            f"i{(7 * u + 3 * day + k) % num_items}",
            date(2001, 1, 1 + day),
            datetime(2001, 1, 1 + day, 12, k),
        )
        for u in range(num_users)
        for day in range(4)
        for k in range(1 + (u + day) % 3)
    ]
    positives = pl.DataFrame(rows, schema=["user_id", "item_id", "day", "shown_at"], orient="row")
    positives = positives.unique(["user_id", "item_id"], maintain_order=True)
    known = [date(1990, 1, 1) if n < num_items - 10 else date(2001, 1, 3) for n in range(num_items)]
    return positives, pl.DataFrame({"item_id": [f"i{n}" for n in range(num_items)], "known_day": known})


def test_negatives_are_never_chosen_so_far_nor_unknown_yet() -> None:
    positives, catalogue = positives_and_catalogue()
    drawn = sample_negatives(positives, catalogue, per_positive=4, seed=1)
    earlier = drawn.join(positives, on=["user_id", "item_id"], suffix="_chosen")
    assert (earlier["day_chosen"] > earlier["day"]).all(), "only items chosen on a later day may be drawn"
    assert earlier.height > 0, "and they are: the draw does not look ahead"
    dated = drawn.join(catalogue, on="item_id")
    assert (dated["known_day"] <= dated["day"]).all()
    assert not drawn.select("user_id", "item_id", "day").is_duplicated().any()
    instants = positives.select("user_id", "day", "shown_at").unique()
    assert drawn.join(instants, on=["user_id", "day", "shown_at"], how="anti").is_empty()


def test_what_is_chosen_again_may_be_drawn_on_days_without_it() -> None:
    positives, catalogue = positives_and_catalogue()
    drawn = sample_negatives(positives, catalogue, per_positive=10_000, seed=1, again=True)
    chosen = drawn.join(positives, on=["user_id", "item_id"], suffix="_chosen")
    assert (chosen["day_chosen"] != chosen["day"]).all(), "nothing of the day itself"
    assert (chosen["day_chosen"] < chosen["day"]).any()
    for (user, day), rows in drawn.group_by("user_id", "day"):
        today = positives.filter(pl.col("user_id") == user, pl.col("day") == day)
        known = catalogue.filter(pl.col("known_day") <= day)
        assert rows.height == known.join(today, on="item_id", how="anti").height


def test_rate_is_drawn_over_pool_for_each_user_and_day() -> None:
    positives, catalogue = positives_and_catalogue()
    drawn = sample_negatives(positives, catalogue, per_positive=4, seed=1)
    for (user, day), rows in drawn.group_by("user_id", "day"):
        today = positives.filter(pl.col("user_id") == user, pl.col("day") == day).height
        chosen = positives.filter(pl.col("user_id") == user, pl.col("day") <= day).select("item_id")
        pool = catalogue.filter(pl.col("known_day") <= day).join(chosen, on="item_id", how="anti").height
        assert rows.height == min(4 * today, pool)
        assert rows["sampling_rate"].unique().to_list() == [rows.height / pool]


def test_weights_give_back_the_pool_on_average() -> None:
    positives, catalogue = positives_and_catalogue()
    everything = sample_negatives(positives, catalogue, per_positive=10_000, seed=1)
    assert everything["sampling_rate"].unique().to_list() == [1.0]
    drawn = sample_negatives(positives, catalogue, per_positive=2, seed=1)
    assert (1 / drawn["sampling_rate"]).sum() == pytest.approx(everything.height)
    draws = [sample_negatives(positives, catalogue, per_positive=2, seed=seed) for seed in range(300)]
    counts = pl.concat(draws).filter(pl.col("user_id") == "u0")
    first = counts.filter(pl.col("day") == date(2001, 1, 1))
    share = first.group_by("item_id").len()["len"] / 300
    rate = first["sampling_rate"][0]
    assert share.len() == round(first.height / 300 / rate)
    assert share.is_between(rate - 0.05, rate + 0.05).all(), "every item of the pool has the same chance"


def test_draw_is_seeded_and_later_days_change_nothing() -> None:
    positives, catalogue = positives_and_catalogue()
    drawn = sample_negatives(positives, catalogue, per_positive=4, seed=1)
    assert drawn.equals(sample_negatives(positives.reverse(), catalogue.reverse(), per_positive=4, seed=1))
    assert not drawn.equals(sample_negatives(positives, catalogue, per_positive=4, seed=2))
    until = date(2001, 1, 2)
    short = sample_negatives(positives.filter(pl.col("day") <= until), catalogue, per_positive=4, seed=1)
    assert short.equals(drawn.filter(pl.col("day") <= until))


def test_appended_days_leave_old_partitions_byte_equal(src: Path, tmp_path: Path) -> None:
    movielens.convert(src, InteractionLog(tmp_path / "long"))
    kept = [row for row in RATED if row[3] < NOON + 2 * DAY]
    text = "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{r}.0,{t}\n" for u, i, r, t in kept)
    (src / "ratings.csv").write_text(text)
    movielens.convert(src, InteractionLog(tmp_path / "short"))
    for table in ("impressions", "feedback", "users"):
        for path in (tmp_path / "short" / table).rglob("*.parquet"):
            assert (
                path.read_bytes() == (tmp_path / "long" / path.relative_to(tmp_path / "short")).read_bytes()
            )


def test_bad_ratings_are_quarantined_and_repeats_counted(src: Path, tmp_path: Path) -> None:
    with (src / "ratings.csv").open("a") as file:
        file.write(
            f"1,1,NaN,{NOON}\n1,1,,{NOON}\n1,1,9,{NOON}\n1,1,4,-5\n1,1,4,99999999999\n,1,4,{NOON}\n1,1,5.0,{NOON}\n"
        )
    summary = movielens.convert(src, InteractionLog(tmp_path / "log"))
    assert summary.quarantined == {
        "feedback: rating is missing or not a number": 2,
        "feedback: rating is not within .5 to 5 stars": 1,
        "feedback: timestamp is missing or not after 1970": 1,
        "feedback: timestamp lies in the future": 1,
        "feedback: user or film is missing": 1,
    }
    assert summary.duplicates == {"feedback: same user, film and second": 1}
    assert all(tally.adds_up for tally in summary.accounting.values()), summary.accounting
    assert summary.rows["feedback"] == len(RATED) * 2 + 3


def test_sets_without_time_are_refused(tmp_path: Path) -> None:
    (tmp_path / "fold1.csv").write_text("1,938,4\n")
    (tmp_path / "movies.dat").write_text("1::Toy Story (1995)::Comedy\n")
    with pytest.raises(DataError, match="without time never enters"):
        read_movielens(tmp_path)
    (tmp_path / "ratings.dat").write_text("1::938::4\n")
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")
    with pytest.raises(DataError, match="3 columns, expected 4"):
        read_movielens(tmp_path)


def test_missing_and_broken_files_are_named(src: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"latest-small: ratings\.csv, movies\.csv; "):
        read_movielens(tmp_path / "nothing")
    (src / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"no movies\.csv"):
        read_movielens(src)
    (src / "movies.csv.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(DataError, match=r"movies\.csv\.gz cannot be read"):
        read_movielens(src)
    (src / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    write_latest(src)
    (src / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(DataError, match="no valid rating"):
        movielens.convert(src, InteractionLog(tmp_path / "log"))


def test_gzipped_files_are_read(tmp_path: Path) -> None:
    write_latest(tmp_path, zipped=True)
    assert read_movielens(tmp_path).ratings.height == len(RATED)


@pytest.mark.data
def test_real_set(tmp_path: Path, findings_of) -> None:
    check_real_set(real_folder("ml-100k"), 100_000, tmp_path, findings_of)


@pytest.mark.data
def test_real_lines_of_half_a_year(tmp_path: Path, findings_of) -> None:
    """All films, and the ratings since 2016-06-01 as they are written."""
    full = real_folder("ml-latest-small")
    src = tmp_path / "since June"
    src.mkdir()
    shutil.copy(full / "movies.csv.gz", src)
    header, *lines = gzip.decompress((full / "ratings.csv.gz").read_bytes()).splitlines(keepends=True)
    late = [line for line in lines if int(line.rsplit(b",", 1)[1]) >= 1_464_739_200]
    (src / "ratings.csv.gz").write_bytes(gzip.compress(b"".join([header, *late])))
    check_real_set(src, len(late), tmp_path, findings_of)


@pytest.mark.slow
@pytest.mark.data
def test_real_set_of_twenty_years(tmp_path: Path, findings_of) -> None:
    check_real_set(real_folder("ml-latest-small"), 100_004, tmp_path, findings_of)


def check_real_set(src: Path, rows: int, tmp_path: Path, findings_of) -> None:
    log = InteractionLog(tmp_path / "log")
    summary = movielens.convert(src, log)
    assert not findings_of(log)
    assert all(tally.adds_up for tally in summary.accounting.values()), summary.accounting
    shown = read_all(log, "impressions")
    assert shown.filter(~pl.col("sampled")).height == rows
    assert summary.notes["impressions: negatives drawn, marked sampled"] == shown.filter("sampled").height
    assert not summary.quarantined
    assert not summary.duplicates
    last = log.days("impressions")[-1]
    for table in ("impressions", "feedback"):
        with_free_columns(table, dict(log.read(table, last).schema)).validate(log.read(table, last))
    chosen = shown.filter(~pl.col("sampled")).select("user_id", "item_id", chosen_at="shown_at")
    again = shown.filter("sampled").join(chosen, on=["user_id", "item_id"])
    assert (again["chosen_at"].dt.date() > again["day"]).all()


@pytest.mark.data
def test_real_folds_have_no_time() -> None:
    with pytest.raises(DataError, match="without time"):
        read_movielens(real_folder("ml-1m"))


def real_folder(name: str) -> Path:
    root = os.environ.get("RECSYS_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"set RECSYS_DATA to the folder that holds {name}")
    return Path(root) / name
