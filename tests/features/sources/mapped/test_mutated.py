"""Damaged files: a person reads a sentence, or gets a log in which every row is accounted for."""

import io
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.cli import run
from recsys.log import InteractionLog
from recsys.schema import TABLES

MAP = """
[events]
files = "log"
user = "user"
item = "item"
kind = "kind"
time = "time"
request = "list"
position = "rank"
value = "value"
tolerate = {tolerate}
encoding = "{encoding}"
[events.kinds]
view = "impression"
click = "click"
order = "purchase"
[events.item_columns]
title = "title"
"""
HEADER = b"user,item,kind,time,list,rank,value,title\n"
SENTENCES = (2, 3)
"""Exit codes of a wrong setting and of wrong data."""


def original(*, quoted: bool) -> bytes:
    rng = random.Random(3)
    rows = []
    for n in range(30):
        user, item, at = f"u{n % 7}", f"i{n % 5}", f"2026-01-0{1 + n // 20} 10:{n:02d}:00"
        title = rng.choice(["Müsli", '"Tea, ""green"""' if quoted else "Tea", "Café crème", ""])
        rows.append(f"{user},{item},view,{at},r{n},{1 + n % 3},,{title}")
        if n % 3 == 0:
            kind, value = rng.choice([("click", ""), ("order", "2.5")])
            rows.append(f"{user},{item},{kind},{at[:-2]}30,r{n},,{value},{title}")
    return HEADER + ("\n".join(rows) + "\n").encode()


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.sample(range(len(data)), 2))
    return rng.choice([data[:stop], data[start:], data[:start] + data[stop:]])


def stammered(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    stop = start + rng.randrange(1, 200)
    return data[:stop] + data[start:]


def salted(data: bytes, rng: random.Random) -> bytes:
    changed = data
    for _ in range(rng.choice([1, 2, 5])):
        at = rng.randrange(len(changed))
        mark = rng.choice([b'"', b",", b"\n", b"\r", b"\0", b"\xff", b'"\n', b",,", b"\xe2\x82"])
        changed = changed[:at] + mark + changed[at:]
    return changed


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def blank_lines(data: bytes, rng: random.Random) -> bytes:
    lines = _lines(data)
    for _ in range(rng.randrange(1, 6)):
        lines.insert(
            rng.randrange(len(lines) + 1), rng.choice([b"\n", b"\r\n", b"  \n", b",,,,,,,\n", b"\n\n"])
        )
    return b"".join(lines)


def repeated_lines(data: bytes, rng: random.Random) -> bytes:
    head, *lines = _lines(data)
    again = rng.sample(lines, rng.randrange(1, len(lines)))
    return head + b"".join([*lines, *again]) + rng.choice([b"", head + b"".join(lines)])


def other_line_ends(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"", b"\xef\xbb\xbf"]) + data.replace(b"\n", rng.choice([b"\r\n", b"\r"]))


def encoded(name: str) -> Callable[[bytes, random.Random], bytes]:
    return lambda data, _: data.decode().encode(name)


ANYTHING = {"flipped": flipped, "cut": cut, "stammered": stammered, "salted": salted}
HARMLESS = {"blank lines": blank_lines, "repeated": repeated_lines, "line ends": other_line_ends}
ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "windows-1252")


class Press:
    """Convert one file after the other, in this process."""

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.root, self.capture = root, capture
        (root / "raw").mkdir()

    def convert(
        self, data: bytes, encoding: str = "utf-8", tolerate: float = 0.0, form: str = "csv"
    ) -> tuple[int, str]:
        """Give the exit code and what is printed on stderr."""
        shutil.rmtree(self.root / "log", ignore_errors=True)
        (self.root / "raw" / "log").write_bytes(data)
        (self.root / "map.toml").write_text(MAP.format(encoding=encoding, tolerate=tolerate))
        where = [str(self.root / name) for name in ("raw", "map.toml", "log")]
        code = run(["convert", form, where[0], "--map", where[1], "--out", where[2]])
        return code, self.capture.readouterr().err.strip()

    def tables(self) -> dict[str, pl.DataFrame]:
        """Read the log."""
        log = InteractionLog(self.root / "log")
        return {
            table: pl.concat([log.read(table, day).with_columns(day=day) for day in log.days(table)])
            for table in TABLES
            if log.days(table)
        }

    def accounting(self, form: str = "csv") -> dict[str, dict]:
        """Read the accounting, which must add up."""
        tables = json.loads((self.root / "log" / f"conversion.{form}.json").read_text())["accounting"]
        for name, tally in tables.items():
            out = sum(sum(tally[part].values()) for part in ("repeats", "quarantined", "ignored"))
            assert tally["read"] == tally["kept"] + out, (name, tally)
        return tables


@pytest.fixture
def press(tmp_path, capfd):
    return Press(tmp_path, capfd)


def rows_of(data: bytes) -> int:
    """Count the lines after the header; blank ones before it are no rows."""
    lines = data.removesuffix(b"\n").split(b"\n")
    while not lines[0].strip(b", \t\r\n"):
        del lines[0]
    return len(lines) - 1


def require_sentence(code: int, said: str, root: Path) -> None:
    assert code in SENTENCES, said
    assert said.startswith("recsys convert: ")
    for word in ("Traceback", "panicked", "polars", "PyErr", "Error("):
        assert word not in said, said
    assert len(said) < 2_500
    assert not (root / "log").exists(), "nothing half written"


def test_two_hundred_mutated_files(press, capsys_disabled_report):
    rng, data, outcomes = random.Random(13), original(quoted=True), Counter()
    plain = original(quoted=False)
    code, said = press.convert(data)
    assert (code, said) == (0, "")
    whole = press.tables()
    started = time.process_time()
    for n in range(140):
        kind = list(ANYTHING)[n % len(ANYTHING)]
        changed = ANYTHING[kind](data if n % 8 < 4 else plain, rng)
        code, said = press.convert(changed, tolerate=0.3 * (n % 16 < 8))
        outcomes[kind, "log" if code == 0 else "sentence"] += 1
        if code == 0:
            read = press.accounting()["events"]["read"]
            assert b'"' in changed or read == rows_of(changed)
        else:
            require_sentence(code, said, press.root)
    for n in range(36):
        kind = list(HARMLESS)[n % len(HARMLESS)]
        assert press.convert(HARMLESS[kind](data, rng)) == (0, ""), kind
        press.accounting()
        same(press.tables(), whole, kind)
        outcomes[kind, "the same log"] += 1
    for n in range(24):
        name = ENCODINGS[n % len(ENCODINGS)]
        changed = encoded(name)(data if n < 12 else blank_lines(data, rng), rng)
        if n >= 18:
            code, said = press.convert(changed)
            require_sentence(code, said, press.root)
            assert "encoding = " in said
            outcomes["re-encoded", "sentence naming the encoding"] += 1
            continue
        assert press.convert(changed, encoding=name) == (0, ""), name
        same(press.tables(), whole, name)
        outcomes["re-encoded, encoding named", "the same log"] += 1
    assert outcomes.total() == 200
    assert outcomes.keys() >= {(kind, end) for kind in ANYTHING for end in ("log", "sentence")}
    capsys_disabled_report(outcomes, time.process_time() - started)


def test_damaged_parquet(press, tmp_path):
    table = pl.read_csv(io.BytesIO(original(quoted=True))).with_columns(pl.col("user").cast(pl.Categorical))
    rng = random.Random(7)
    for n in range(32):
        table.write_parquet(tmp_path / "x", compression=("zstd", "snappy", "gzip", "uncompressed")[n % 4])
        data = (flipped, flipped, cut, stammered)[n // 4 % 4]((tmp_path / "x").read_bytes(), rng)
        code, said = press.convert(data, form="parquet")
        if code == 0:
            press.accounting("parquet")
        else:
            require_sentence(code, said, press.root)


def same(tables: dict[str, pl.DataFrame], whole: dict[str, pl.DataFrame], kind: str) -> None:
    assert tables.keys() == whole.keys()
    for table, frame in whole.items():
        assert tables[table].equals(frame), (kind, table)


@pytest.fixture
def capsys_disabled_report(capfd):
    def report(outcomes: Counter, seconds: float) -> None:
        with capfd.disabled():
            for (kind, outcome), files in sorted(outcomes.items()):
                print(f"\n{kind:28} {outcome:30} {files:4}", end="")
            print(f"\n{seconds:.1f} processor seconds")

    return report
