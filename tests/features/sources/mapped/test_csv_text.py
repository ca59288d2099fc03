"""CSV as people have it: quotes astray, blank lines, other encodings, cut archives, decimal commas."""

import gzip
import io

import polars as pl
import pytest

from features.sources.mapped import csv_text
from recsys.errors import ConfigError, DataError

HEADER = "user_id,product_id,event,at,note\n"
ROWS = [f"u{n % 3},i{n % 4},view,2026-01-05 10:00:{n:02d}" for n in range(12)]
ROWS.append("u1,i1,click,2026-01-05 11:00:00")


def text(notes: dict[int, str] | None = None, header: str = HEADER) -> str:
    """Write the log with a note at some rows, counted from 1."""
    lines = [f"{row},{(notes or {}).get(n, 'ok')}" for n, row in enumerate(ROWS, start=1)]
    return header + "\n".join(lines) + "\n"


def put(bench, data: str | bytes, name: str = "log.csv") -> None:
    bench.src.mkdir(exist_ok=True)
    (bench.src / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def rows(bench, log) -> pl.DataFrame:
    return bench.read(log, "impressions").sort("shown_at").select("user_id", "item_id", "shown_at")


@pytest.fixture
def plain(bench, events) -> pl.DataFrame:
    put(bench, text())
    return rows(bench, bench.convert(events()))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("notes", "row"),
    [
        ({7: '5" pipe'}, 7),
        ({7: '5" pipe', 10: '7" pipe'}, 7),
        ({7: '"x', 10: '"y'}, 7),
        ({7: '"', 10: '"'}, 7),
        ({7: '"'}, 7),
        ({3: '"two\nlines"', 7: '"x'}, 7),
        ({13: '"x'}, 13),
        ({12: '"x', 13: '"y'}, 12),
        ({5: '5"x7"', 9: '8" 9" 10"'}, 9),
    ],
)
def test_a_stray_quote_names_its_row_and_can_be_turned_off(bench, events, plain, notes, row, packed):
    name = "log.csv.gz" if packed else "log.csv"
    (bench.src / "log.csv").unlink()
    put(bench, gzip.compress(text(notes).encode()) if packed else text(notes).rstrip("\n"), name)
    with pytest.raises(DataError, match=f'{name}: row {row} has a ".*quote = ""'):
        bench.convert(events())
    if not any("\n" in note for note in notes.values()):
        assert rows(bench, bench.convert(events(quote=""))).equals(plain)


@pytest.mark.parametrize(
    "note", ['"one\ntwo, ""three""\n"', '"\nfour\n"', '5"x7" pipe', '""', '"a ""b"" c"', '",\n,x"']
)
def test_texts_that_span_lines_and_pairs_of_quotes_are_no_strays(bench, events, plain, note):
    put(bench, text({7: note, 13: note}).rstrip("\n"))
    assert rows(bench, bench.convert(events())).equals(plain)
    assert bench.summary.accounting["events"].read == len(ROWS)


def test_strays_are_found_wherever_the_file_is_cut_into_parts(bench, events, plain, monkeypatch):
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(csv_text, "_CHUNK", size)
        put(bench, text({3: '"two\nlines"', 7: '5" pipe'}))
        with pytest.raises(DataError, match="row 7 "):
            bench.convert(events())
        put(bench, text({3: '"two\nlines"', 7: '"a ""b""\n,"'}))
        assert rows(bench, bench.convert(events())).equals(plain)


def test_a_quote_that_is_never_closed_is_found_before_the_end(bench, events, monkeypatch):
    monkeypatch.setattr(csv_text, "_CHUNK", 50)
    monkeypatch.setattr(csv_text, "_LONGEST", 100)
    put(bench, text({2: '"x'}))
    with pytest.raises(DataError, match="row 2 "):
        bench.convert(events())


@pytest.mark.parametrize(
    "changed",
    [
        lambda t: t.replace("\nu1", "\n\nu1"),
        lambda t: "\n \n,,\n" + t,
        lambda t: t + "\n\n   \n,,,,\n\t\n",
        lambda t: t.replace("\n", "\r\n") + "\r\n\r\n",
        lambda t: t.replace("\n", "\r"),
        lambda t: "\ufeff" + t,
        lambda t: "sep=,\n" + t,
        lambda t: t + t.replace("ok", "again"),
        lambda t: t + HEADER + "\n",
    ],
)
def test_blank_lines_line_ends_and_joined_files_change_nothing(bench, events, plain, changed):
    put(bench, changed(text()))
    assert rows(bench, bench.convert(events())).equals(plain)
    tally = bench.summary.accounting["events"]
    assert tally.adds_up
    assert tally.kept == len(ROWS)


def test_blank_lines_are_counted_and_rows_that_hold_something_are_not_blank(bench, events):
    put(bench, text() + "\n,,,,\n,,,,total: 13\n" + HEADER)
    with pytest.raises(DataError, match=r"1 of 17 rows .*\n  no user: 1 rows \(row 16 of log.csv\)"):
        bench.convert(events())
    bench.convert(events(tolerate=0.1))
    tally = bench.summary.accounting["events"]
    assert tally.ignored == {"blank line": 2, "the header again": 1}
    assert tally.quarantined == {"no user": 1}
    assert (tally.read, tally.kept) == (17, 13)


def test_blank_lines_of_side_tables(bench, events):
    put(bench, text())
    put(bench, "id,price,by\n\ni1,2\n,,\nid,price,by\n,,x\n", "items.csv")
    items = {"files": "items.csv", "id": "id", "price": "price"}
    with pytest.raises(DataError, match=r"items.csv: 1 of 5 rows .*the first is row 5, no id"):
        bench.convert({**events(files="log.csv"), "items": items})
    bench.convert({**events(files="log.csv"), "items": {**items, "tolerate": 0.5}})
    tally = bench.summary.accounting["items"]
    assert tally.ignored == {"blank line": 2, "the header again": 1}
    assert tally.adds_up


def test_a_row_without_a_kind_is_no_kind_to_be_named(bench, events):
    put(bench, text() + "u1,i1\nu1,i1,,2026-01-05 10:00:00\n")
    with pytest.raises(DataError, match=r"no kind: 2 rows \(row 14 of log.csv, row 15 of log.csv\)"):
        bench.convert(events())
    kinds = {"view": "impression", "click": "click", "": "ignore"}
    assert bench.convert(events(kinds=kinds))
    assert bench.summary.accounting["events"].ignored == {"kind ''": 2}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_named_and_read(bench, events, plain, encoding):
    put(bench, text({4: "é"}).encode(encoding))
    with pytest.raises(DataError, match=f'log.csv is written in {encoding.upper()}.*encoding = "{encoding}"'):
        bench.convert(events())
    assert rows(bench, bench.convert(events(encoding=encoding))).equals(plain)


@pytest.mark.parametrize(("encoding", "mark"), [("latin-1", "é"), ("windows-1252", "€")])
def test_narrow_encodings_are_named_and_read(bench, events, encoding, mark):
    put(bench, text().replace("i1", f"{mark}1").encode(encoding))
    with pytest.raises(DataError, match=r'cannot be read as csv: line 3 holds the byte 0x.*"latin-1"'):
        bench.convert(events())
    assert f"{mark}1" in rows(bench, bench.convert(events(encoding=encoding)))["item_id"].to_list()


def test_a_wrong_encoding_says_where(bench, events):
    put(bench, text().replace("i1", "é1"))
    with pytest.raises(DataError, match="it is not written in UTF-16"):
        bench.convert(events(encoding="utf-16"))
    put(bench, text({3: "é"}).encode() + "u9,é,view,2026-01-05 10:00:00,\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 15 holds the byte 0xe9, .* before is UTF-8: right this line"):
        bench.convert(events())
    put(bench, b"\x81" + text().encode())
    with pytest.raises(DataError, match="line 1 holds the byte 0x81, which is no CP1252"):
        bench.convert(events(encoding="windows-1252"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (HEADER.replace("note", "at") + ROWS[0] + ",x\n", r"2 columns are called 'at' \(columns 4, 5\)"),
        (text(header=HEADER.replace(",note", "")), "row 1 has 5 fields, and there are 4 columns: .*,ok'"),
        (
            "  \n,,\n" + text(header=HEADER.replace(",note", "")),
            "row 1 has 5 fields, and there are 4 columns",
        ),
        (text().replace(",", ";"), """no column 'user_id'.*separator = ";\""""),
        (b"PK\x03\x04" + bytes(50), "no CSV but a zip archive or an Excel sheet"),
        (b"PAR1" + bytes(50), "no CSV but Parquet: use `recsys convert parquet`"),
        (gzip.compress(text().encode())[:-20], "it is damaged or cut off"),
        (b"", "empty CSV"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(bench, events, data, said):
    put(bench, data)
    with pytest.raises(DataError, match=said):
        bench.convert(events())


def test_packed_files_are_read_like_others(bench, events, plain):
    (bench.src / "log.csv").unlink()
    for name, data in (("a.csv.gz", gzip.compress(text({4: "é"}).encode("latin-1"))), ("a.csv.zst", None)):
        if data is None:
            pl.read_csv(io.BytesIO(text().encode())).lazy().sink_csv(bench.src / name, compression="zstd")
        else:
            put(bench, data, name)
        settings = {"encoding": "latin-1"} if data else {}
        assert rows(bench, bench.convert(events(files=name, **settings))).equals(plain)


@pytest.mark.parametrize("chunk", [16, 1 << 20])
@pytest.mark.parametrize("quote", ['"', ""])
def test_a_separator_inside_a_field_nobody_reads_is_found(bench, events, monkeypatch, chunk, quote):
    """Polars drops the last field of such a row where it reads only some columns."""
    monkeypatch.setattr(csv_text, "_CHUNK", chunk)
    header, day = HEADER.replace("note", "qty,v"), "2026-01-05"
    put(bench, f"{header}u,a,view,{day},1,\nu,a,click,{day},1,5,7\nu,b,click,{day},1,5\n")
    with pytest.raises(DataError, match=r"row 2 has 7 fields, and there are 6 columns: .*,1,5,7'"):
        bench.convert(events(value="v", quote=quote))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_it_is_found_in_packed_files_and_in_other_encodings(bench, events, encoding):
    header, day = HEADER.replace("note", "qty,v"), "2026-01-05"
    written = f"{header}é,a,view,{day},1,\né,a,click,{day},1,5,7\né,b,click,{day},1,5"
    put(bench, gzip.compress(written.encode(encoding)), "log.csv.gz")
    (bench.src / "log.csv").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"log\.csv\.gz .*: row 2 has 7 fields, .*'é,a,click,"):
        bench.convert(events(files="log.csv.gz", value="v", encoding=encoding))


def test_empty_fields_at_the_end_of_a_row_move_nothing(bench, events, plain):
    put(bench, text().replace("\n", ",,\n").replace("note,,", "note", 1))
    assert rows(bench, bench.convert(events())).equals(plain)


def test_separators_inside_quotes_are_no_fields(bench, events, plain):
    put(bench, text({3: '"a,b,c"'}))
    assert rows(bench, bench.convert(events())).equals(plain)


def test_decimal_commas(bench, events):
    lines = "u,a,view,2026-01-05,0;5,\nu,b,view,2026-01-05,;25,\nu,b,click,2026-01-05,,-3;5\n"
    written = (HEADER.replace("note", "p,v") + lines).replace(",", "\t").replace(";", ",")
    put(bench, written)
    settings = {"separator": "\t", "propensity": "p", "value": "v"}
    with pytest.raises(DataError, match=r"""row 1 of log.csv: '0,5'"""):
        bench.convert(events(**settings))
    log = bench.convert(events(**settings, decimal=","))
    assert bench.read(log, "impressions").sort("item_id")["propensity"].to_list() == [0.5, 0.25]
    assert bench.read(log, "feedback")["value"].to_list() == [-3.5]
    put(bench, written.replace("-3,5", "1.234,5"))
    with pytest.raises(DataError, match="v is no number: 1 rows"):
        bench.convert(events(**settings, decimal=","))


def test_numbers_with_a_comma_suggest_it(bench, events):
    put(bench, HEADER.replace(",", ";") + "u;a;view;2026-01-05;\nu;a;click;2026-01-05;3,5\n")
    with pytest.raises(DataError, match='note is no number; with a decimal comma, say decimal = ","'):
        bench.convert(events(separator=";", value="note"))


def test_positions_from_0(bench, events):
    lines = [f"u,{item},view,2026-01-05,{n}" for n, item in enumerate("abc")]
    put(bench, HEADER + "\n".join([*lines, "u,a,click,2026-01-05,"]))
    with pytest.raises(DataError, match=r"from 1, or from 0 with first_position = 0: 1 rows \(row 1"):
        bench.convert(events(position="note"))
    log = bench.convert(events(position="note", first_position=0))
    assert bench.read(log, "impressions").sort("item_id")["position"].to_list() == [1, 2, 3]
    put(bench, HEADER + "\n".join([*lines, "u,d,view,2026-01-05,-1", "u,a,click,2026-01-05,"]))
    with pytest.raises(DataError, match="note is no whole number from 0: 1 rows"):
        bench.convert(events(position="note", first_position=0))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("encoding", "klingon", "no text encoding"),
        ("encoding", "hex", "no text encoding"),
        ("separator", "§", "one character of one byte"),
        ("quote", ",", "separator and quote are both"),
        ("columns", ["at", "a", "at"], "`columns` has 'at' twice"),
        ("decimal", ";", "decimal"),
        ("first_position", 2, "first_position"),
    ],
)
def test_settings_that_cannot_be(bench, events, key, value, said):
    with pytest.raises(ConfigError, match=said):
        bench.convert(events(**{key: value}))


def test_a_misspelt_folder_never_reads_another_one(bench, events):
    put(bench, text())
    put(bench, text(), "../log.csv")
    with pytest.raises(
        DataError, match=r"SRC .*raw filez: not found in .*did you mean 'raw files'\?; it has"
    ):
        bench.convert(events(files="*.csv"), src=bench.root / "raw filez")
