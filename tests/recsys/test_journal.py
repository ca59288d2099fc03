import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import DataError
from recsys.journal import MAGIC, SYNC, Contents, Rows, decode, encode, ended_before, files, read, size, stem

FEEDBACK = Rows(
    table="feedback", same={"kind": "click"}, each={"feedback_id": ["a", "b"], "value": [None, 2.5]}
)
REQUEST = Rows(
    table="requests", same={"request_id": "r1", "degradation": ["NO_BUNDLE"], "user_id": "ü\x00\n"}
)
RECORDS = [encode(1_000 + i, [REQUEST, FEEDBACK]) for i in range(5)]
WHOLE = MAGIC + b"".join(RECORDS)


def test_what_is_written_is_read_back() -> None:
    contents = decode(WHOLE)
    assert [r.at_ms for r in contents.records] == [1_000, 1_001, 1_002, 1_003, 1_004]
    assert contents.records[0].rows == (REQUEST, FEEDBACK)
    assert (contents.torn_bytes, contents.damaged) == (0, ())


def test_rows_are_counted_by_column() -> None:
    assert (REQUEST.num_rows, FEEDBACK.num_rows) == (1, 2)


@given(st.integers(min_value=0, max_value=len(WHOLE)))
def test_a_file_cut_anywhere_gives_every_whole_record_and_a_torn_tail(cut: int) -> None:
    contents = decode(WHOLE[:cut])
    whole = max(0, cut - len(MAGIC)) // len(RECORDS[0])
    assert len(contents.records) == whole
    assert contents.damaged == ()
    assert contents.torn_bytes == max(0, cut - len(MAGIC)) - whole * len(RECORDS[0])


@given(st.integers(min_value=len(MAGIC), max_value=len(WHOLE) - 1), st.integers(min_value=1, max_value=255))
def test_one_changed_byte_costs_one_record_and_is_told(offset: int, flip: int) -> None:
    data = bytearray(WHOLE)
    data[offset] ^= flip
    contents = decode(bytes(data))
    hit = (offset - len(MAGIC)) // len(RECORDS[0])
    assert [r.at_ms for r in contents.records] == [1_000 + i for i in range(5) if i != hit]
    last = hit == len(RECORDS) - 1
    assert bool(contents.torn_bytes) == last
    assert bool(contents.damaged) != last


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(noise: bytes) -> None:
    assert isinstance(decode(MAGIC + noise), Contents)
    assert isinstance(decode(WHOLE + noise), Contents)


@given(st.text())
def test_text_never_holds_the_mark_between_records(text: str) -> None:
    assert SYNC not in text.encode("utf-8", errors="ignore")


def test_zeros_after_a_power_cut_are_a_torn_tail() -> None:
    contents = decode(WHOLE + bytes(4096))
    assert (len(contents.records), contents.torn_bytes, contents.damaged) == (5, 4096, ())


def test_another_file_is_refused(tmp_path) -> None:
    path = tmp_path / "x.journal"
    path.write_bytes(b"RECSYSJ9" + RECORDS[0])
    with pytest.raises(DataError, match="not a journal of this format"):
        read(path)


def test_an_empty_file_holds_nothing(tmp_path) -> None:
    path = tmp_path / "x.open"
    path.touch()
    assert read(path).records == ()


def test_nan_is_refused_when_written() -> None:
    with pytest.raises(ValueError):
        encode(0, [Rows(table="feedback", same={"value": float("nan")})])


def test_stems_sort_by_time_as_files_do(tmp_path) -> None:
    late, early = stem(1_700_000_000_250, "s", 1), stem(1_700_000_000_025, "s", 2)
    assert early < late
    (tmp_path / f"{late}.open").write_bytes(MAGIC + encode(2, [FEEDBACK]))
    (tmp_path / f"{early}.journal").write_bytes(MAGIC + encode(1, [FEEDBACK, REQUEST]))
    (tmp_path / "compacted.json").write_text("{}")
    (tmp_path / "bad.journal").write_text("something else")
    assert [p.stem for p in files(tmp_path)] == [early, late, "bad"]


def test_files_tell_whether_they_ended_before_an_instant(tmp_path) -> None:
    hour = 3_600_000
    noon = 1_700_000_000_000

    def write(name: str, start: int, *instants: int) -> None:
        long = Rows(table="feedback", same={"name": name, "text": "x" * 30_000})
        (tmp_path / f"{stem(start, name, 1)}.journal").write_bytes(
            MAGIC + b"".join(encode(at, [long]) for at in instants)
        )

    write("old", noon - 9 * hour, noon - 9 * hour, noon - 8 * hour)
    write("long", noon - 8 * hour, *(noon - 8 * hour + minute * 600_000 for minute in range(50)))
    write("now", noon, noon)

    def left(since: int) -> set[str]:
        return {path.stem.split("-")[1] for path in files(tmp_path) if not ended_before(path, since)}

    assert left(0) == left(noon - 8 * hour) == {"old", "long", "now"}
    assert left(noon - 6 * hour) == {"long", "now"}
    assert left(noon + 3 * hour) == set()
    torn = tmp_path / f"{stem(noon - 9 * hour, 'torn', 1)}.open"
    torn.write_bytes((tmp_path / f"{stem(noon, 'now', 1)}.journal").read_bytes()[:-1])
    assert left(noon - 6 * hour) == {"long", "now", "torn"}, "its end shows no record"


def test_a_file_sealed_after_it_was_listed_is_read_under_its_new_name(tmp_path) -> None:
    """A night lists and reads while the server rotates."""
    data = MAGIC + encode(5, [Rows(table="feedback", same={"kind": "click"})])
    (tmp_path / "a.open").write_bytes(data)
    (listed,) = files(tmp_path)
    listed.rename(tmp_path / "a.journal")
    assert read(listed).records[0].at_ms == 5
    assert size(listed) == len(data)
    (tmp_path / "a.journal").unlink()
    for look in (read, size):
        with pytest.raises(DataError, match="cannot be read"):
            look(listed)
