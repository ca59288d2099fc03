"""The bench of `convert`: the rows it writes are the rows that a conversion accounts for."""

import json

from benchmarks.own_logs.conversion import measure_conversion, write_events
from recsys.cli import run
from recsys.log import InteractionLog


def test_every_row_it_writes_is_kept(tmp_path):
    rows = write_events(tmp_path / "src", 3_000)
    assert abs(rows - 3_000) < 100
    words = ["convert", "csv", str(tmp_path / "src" / "events.csv"), "--out", str(tmp_path / "log")]
    assert run([*words, "--map", str(tmp_path / "mapping.toml")]) == 0
    (said,) = (tmp_path / "log").rglob("conversion.csv.json")
    of = json.loads(said.read_text())["accounting"]["events"]
    assert (of["read"], of["kept"]) == (rows, rows)
    written = InteractionLog(tmp_path / "log")
    days = written.days("feedback")
    kinds = {kind for day in days for kind in written.read("feedback", day)["kind"]}
    assert kinds == {"click", "purchase"}


def test_it_times_the_code_of_the_checkout():
    found = measure_conversion(2_000, None, 1)
    assert set(found) == {"rows", "commit", "commit_before", "now"}
    assert found["now"]["seconds"] > 0
    assert found["now"]["peak_mb"] > 50
