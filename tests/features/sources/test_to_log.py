"""`recsys convert`: unknown sources, folders in use, --force, what is printed."""

import tomllib
from datetime import date
from pathlib import Path

import pytest

from features.sources import SOURCES
from features.sources.conversion import Converter
from features.sources.to_log import load_source
from recsys.cli import run
from recsys.config import load_config
from recsys.log import InteractionLog

RATINGS = "userId,movieId,rating,timestamp\n1,1,4.0,1000000000\n1,2,2.5,1000000060\n2,1,5.0,1000100000\n"
MOVIES = (
    'movieId,title,genres\n1,Toy Story (1995),Comedy\n2,"Heat, The (1995)",Action\n3,Third (1996),Drama\n'
)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "raw set"
    folder.mkdir()
    (folder / "ratings.csv").write_text(RATINGS)
    (folder / "movies.csv").write_text(MOVIES)
    return folder


def convert(src: Path, out: Path, *more: str) -> int:
    return run(["convert", "movielens", str(src), "--out", str(out), *more])


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_can_be_imported(name: str) -> None:
    converter: Converter = load_source(name)
    assert callable(converter)


def test_unknown_source_lists_the_known_ones(
    src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", "kuai", str(src), "--out", str(tmp_path / "log")]) == 2
    error = capsys.readouterr().err
    assert "'kuai'" in error
    assert "kuairand, movielens" in error


def test_converts_and_prints_what_it_did(
    src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(src, tmp_path / "log") == 0
    printed = capsys.readouterr().out
    assert "impressions" in printed
    assert "2001-09-09 to 2001-09-10" in printed
    assert InteractionLog(tmp_path / "log").days("impressions") == [date(2001, 9, 9), date(2001, 9, 10)]


def test_refuses_a_folder_in_use_unless_forced(
    src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = InteractionLog(tmp_path / "log")
    assert convert(src, log.root) == 0
    assert convert(src, log.root) == 2
    assert "--force" in capsys.readouterr().err
    served = log.write(
        "impressions", date(2001, 9, 9), log.read("impressions", date(2001, 9, 9)), stem="journal"
    )
    (src / "ratings.csv").write_text("\n".join(RATINGS.splitlines()[:3]) + "\n")
    assert convert(src, log.root, "--force") == 0
    assert served.is_file(), "another writer's files stay"
    assert log.days("impressions") == [date(2001, 9, 9)], "days that are no longer in the source are gone"


def test_a_file_as_out_is_refused(src: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x")
    assert convert(src, tmp_path / "log") == 2


def test_a_failed_conversion_leaves_the_log_as_it_was(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = InteractionLog(tmp_path / "log")
    assert convert(src, log.root) == 0
    before = {p: p.read_bytes() for p in log.root.rglob("*") if p.is_file()}

    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("features.sources.movielens._write_items", interrupted)
    assert convert(src, log.root, "--force") == 130
    assert {p: p.read_bytes() for p in log.root.rglob("*") if p.is_file()} == before


def test_bad_files_are_data_errors(src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (src / "ratings.csv").write_text("userId,movieId,rating\n1,1,4.0\n")
    assert convert(src, tmp_path / "log") == 3
    assert "no column 'timestamp'" in capsys.readouterr().err
    assert run(["convert", "kuairand", str(src), "--out", str(tmp_path / "log")]) == 3
    assert "interactions_*.parquet" in capsys.readouterr().err


EVENTS = "who,what,did,at\nu,a,view,2026-01-05 10:00:00\nu,a,click,2026-01-05 10:00:05\n"
MAPPING = """
[events]
user = "who"
item = "what"
kind = "did"
time = "at"
[events.kinds]
view = "impression"
click = "click"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "mapping.toml").write_text(MAPPING)
    return tmp_path


def convert_own(own: Path, *more: str) -> int:
    mapping, out = str(own / "mapping.toml"), str(own / "log")
    return run(["convert", "csv", str(own / "events.csv"), "--map", mapping, "--out", out, *more])


def test_own_files_say_what_was_written_and_what_to_do_next(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert_own(own) == 0
    printed = capsys.readouterr().out
    assert "impressions" in printed
    assert "recsys data profile" in printed
    assert "recsys nightly --config" in printed
    assert "--date 2026-01-05" in printed
    assert load_config(own / "log" / "config.toml").tasks[0].name == "click"


def test_a_log_without_feedback_is_not_followed_by_a_night(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = EVENTS.splitlines()
    shown = [row for row in rows if ",view," in row]
    assert 0 < len(shown) < len(rows)
    (own / "events.csv").write_text("\n".join([header, *shown]))
    assert convert_own(own) == 0
    printed = capsys.readouterr().out
    assert "written · impressions" in printed
    assert "recsys nightly" not in printed


def test_without_a_mapping_the_example_is_printed(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", "csv", str(own / "events.csv"), "--out", str(own / "log")]) == 2
    printed = capsys.readouterr()
    assert "needs --map FILE" in printed.err
    assert tomllib.loads(printed.out)["events"]["user"]
    assert not (own / "log").exists()
    assert run(["convert", "parquet", "--example-map"]) == 0
    assert capsys.readouterr().out == printed.out


def test_src_and_out_must_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", "csv"]) == 2
    assert "needs SRC and --out" in capsys.readouterr().err


def test_a_mapping_is_for_own_files(src: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(src, own / "log", "--map", str(own / "mapping.toml")) == 2
    assert "--map" in capsys.readouterr().err


def test_a_second_file_joins_the_log_under_its_own_name(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert_own(own) == 0
    assert convert_own(own) == 2, "the same name again needs --force"
    assert "--force" in capsys.readouterr().err
    (own / "events.csv").write_text(EVENTS.replace("01-05", "01-06"))
    assert convert_own(own, "--name", "day-6") == 0
    log = InteractionLog(own / "log")
    assert log.days("impressions") == [date(2026, 1, 5), date(2026, 1, 6)]
    assert convert_own(own, "--name", "day-6") == 2
    assert convert_own(own, "--name", "../x") == 2
    assert "becomes a file name" in capsys.readouterr().err
