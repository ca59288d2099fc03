import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.readers.caserec_reader import _book, _person, read_bookcrossing, read_retailrocket
from recsys.errors import DataError

EVENTS = {
    "view_ecommerce.dat": ["visitorid\titemid\tevent", "1\t1\t1", "1\t2\t1", "2\t4\t1"],
    "add_to_cart_ecommerce.dat": ["visitorid\titemid\tevent", "1\t2\t1", "2\t1\t1"],
    "purchase_ecommerce.dat": ["visitorid\titemid\tevent", "1\t2\t1"],
}
PUBLISHER = "W. W. Norton &amp\t Company"
BOOKS = {
    "book_history.dat": ["user\titem\taccessed", "1\t1\t1", "1\t2\t1", "2\t3\t1"],
    "book_ratings.dat": ["user\titem\trating", "1\t2\t7.000000"],
    "users_info.dat": [
        "User-ID\tLocation\tAge",
        "1\tutrecht, utrecht, netherlands\t34\t",
        "2\ttimbuktu\t239\t",
    ],
    "items_info.dat": [
        "Book_ID\tISBN\tBook-Title\tBook-Author\tYear-Of-Publication\tPublisher\tImage-URL-S",
        "1\tX\tTwo Lives\tVikram Seth\t2005\tAbacus\thttp://a\thttp://b\t",
        f"2\tX\tMummies, 1999\tE. Barber\t1999\t{PUBLISHER}\thttp://a\thttp://b\t",
        "3\tX\tNames\t Brush of\tAnon\t0\tVirago\thttp://a\t",
    ],
}


def write_zip(folder: Path, name: str, files: dict[str, list[str]]) -> Path:
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member, lines in files.items():
            archive.writestr(f"Set/{member}", "\n".join(lines) + "\n")
    return folder


def write_events(folder: Path, **changed: list[str]) -> Path:
    files = EVENTS | {f"{name}_ecommerce.dat": lines for name, lines in changed.items()}
    return write_zip(folder, "Retailrocket_Ecommerce.zip", files)


def write_books(folder: Path, **changed: list[str]) -> Path:
    files = BOOKS | {f"{name}.dat": lines for name, lines in changed.items()}
    return write_zip(folder, "book_crossing.zip", files)


def test_events_of_a_pair_are_labels_of_one_row(tmp_path):
    pairs, sides = read_retailrocket(write_events(tmp_path))
    assert list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 3),
    ]
    assert pairs.labels["view"].tolist() == [1, 1, 0, 1]
    assert pairs.labels["cart"].tolist() == [0, 1, 1, 0]
    assert pairs.labels["purchase"].tolist() == [0, 1, 0, 0]
    assert sides.shape == (2, 4)
    assert sides.num_ids == 6


@pytest.fixture
def unmerged(monkeypatch):
    monkeypatch.setattr("benchmarks.quality.readers.caserec_reader.MIN_ROWS", 1)


def test_a_book_without_rating_is_observed_on_the_other_head_alone(tmp_path):
    pairs, _ = read_bookcrossing(write_books(tmp_path))
    assert pairs.labels["interaction"].tolist() == [1, 1, 1]
    assert np.array_equal(pairs.labels["rating"], np.array([np.nan, 7, np.nan], np.float32), equal_nan=True)


def test_country_and_credible_age_are_the_users_columns(tmp_path, unmerged):
    _, sides = read_bookcrossing(write_books(tmp_path))
    assert sides.user_ids.shape == (2, 3)
    other = ["User-ID\tLocation\tAge", "1\tx, netherlands\t34\t", "2\tz, netherlands\t\t"]
    folder = tmp_path / "other"
    folder.mkdir()
    _, like = read_bookcrossing(write_books(folder, users_info=other))
    country, age = like.user_ids[:, 1], like.user_ids[:, 2]
    assert country[0] == country[1]
    assert age[0] != age[1]
    assert sides.user_ids[0, 1] != sides.user_ids[1, 1]


@pytest.mark.parametrize(("age", "band"), [("34", "6"), ("239", ""), ("4", ""), ("", ""), ("old", "")])
def test_an_age_that_is_not_credible_is_unknown(age, band):
    assert _person(["1", "x, Netherlands", age]) == ("netherlands", band)


def test_columns_of_a_book_survive_stray_tabs(tmp_path, unmerged):
    rows = [line.split("\t") for line in BOOKS["items_info.dat"][1:]]
    assert _book(rows[0]) == ("vikram seth", "abacus", "401")
    assert _book(rows[1]) == ("e. barber", "w. w. norton &amp company", "399")
    assert _book(rows[2]) == ("anon", "virago", "")
    _, sides = read_bookcrossing(write_books(tmp_path))
    assert sides.item_ids.shape == (3, 4)


def test_rare_values_are_others(tmp_path):
    _, sides = read_bookcrossing(write_books(tmp_path))
    assert len(np.unique(sides.item_ids[:, 1])) == 1, "each author has one book"


@pytest.mark.parametrize("read", [read_retailrocket, read_bookcrossing])
def test_a_missing_zip_says_so(tmp_path, read):
    with pytest.raises(DataError, match=r"\.zip is missing"):
        read(tmp_path)


def test_what_is_no_zip_says_so(tmp_path):
    (tmp_path / "book_crossing.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="no zip file"):
        read_bookcrossing(tmp_path)


def test_a_missing_member_says_so(tmp_path):
    write_zip(tmp_path, "Retailrocket_Ecommerce.zip", {"view_ecommerce.dat": EVENTS["view_ecommerce.dat"]})
    with pytest.raises(DataError, match=r"has no add_to_cart_ecommerce\.dat"):
        read_retailrocket(tmp_path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["visitor\titem\tevent", "1\t1\t1"], "columns"),
        (["visitorid\titemid\tevent", "one\t1\t1"], "three numbers"),
        (["visitorid\titemid\tevent", "0\t1\t1"], "id below 1"),
        (["visitorid\titemid\tevent", "1\t\t1"], "gap"),
        (["visitorid\titemid\tevent"], "empty"),
    ],
)
def test_a_wrong_table_says_so(tmp_path, lines, said):
    with pytest.raises(DataError, match=said):
        read_retailrocket(write_events(tmp_path, purchase=lines))


def test_ratings_out_of_range_say_so(tmp_path):
    with pytest.raises(DataError, match="outside 1 to 10"):
        read_bookcrossing(write_books(tmp_path, book_ratings=["user\titem\trating", "1\t2\t0.0"]))


def _folder(name: str) -> Path:
    root = os.environ.get("RECSYS_DATA")
    if root is None or not (Path(root) / name).exists():
        pytest.skip(f"RECSYS_DATA has no {name}")
    return Path(root) / name


def test_the_published_events():
    pairs, sides = read_retailrocket(_folder("retailrocket_caserec"))
    assert sides.shape == (3_431, 8_885)
    assert pairs.size == 79_595
    assert {task: int(label.sum()) for task, label in pairs.labels.items()} == {
        "view": 78_371,
        "cart": 9_028,
        "purchase": 5_088,
    }


def test_the_published_books():
    pairs, sides = read_bookcrossing(_folder("bookcrossing_caserec"))
    assert sides.shape == (2_946, 17_384)
    rating = pairs.labels["rating"]
    assert (pairs.size, (~np.isnan(rating)).sum()) == (272_678, 62_656)
    assert np.nanmean(rating) == pytest.approx(7.95, abs=0.005)
