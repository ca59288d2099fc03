"""Wrong options of `recsys bench serve` are a sentence, said before anything is made or measured."""

import pytest

from recsys.cli import run


@pytest.fixture(autouse=True)
def _nothing_is_made(monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.speed.serve.serve_bench.synthetic_shop", None)
    monkeypatch.setattr("benchmarks.speed.serve.live.measure_live", None)


LIVE = ["--runs", "runs", "--config", "shop.toml", "--log", "log"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*LIVE, "--clients", "a,b"], "'--clients': 'a' is not a number from 1 to 1000; write A,B,"),
        ([*LIVE, "--clients", "4,"], "'' is not a number from 1 to 1000"),
        ([*LIVE, "--clients", "0"], "'0' is not a number"),
        ([*LIVE, "--clients", "-1"], "'-1' is not a number"),
        ([*LIVE, "--page-size", "0"], "Invalid value for '--page-size'"),
        ([*LIVE, "--new-items", "-1"], "Invalid value for '--new-items'"),
        (["--runs", "runs", "--config", "shop.toml"], "--runs needs --config and --log"),
        ([*LIVE, "--part", "swaps"], "--part is read without --runs only; leave it out"),
        ([*LIVE, "--workers", "2"], "--workers is read without --runs only"),
        (["--clients", "4"], "--clients is read with --runs only; leave it out"),
        (["--page-size", "10"], "--page-size is read with --runs only"),
        (["--workers", "two"], "'--workers': 'two' is neither auto nor a number from 1 to 256"),
        (["--rate", "-5"], "Invalid value for '--rate'"),
        (["--rate", "nan"], "Invalid value for '--rate'"),
        (["--seconds", "inf"], "Invalid value for '--seconds'"),
        (["--minutes", "nan"], "Invalid value for '--minutes'"),
        (["--connections", "0"], "Invalid value for '--connections'"),
        (["--part", "speed"], "--part 'speed' is not known; choose of: latency, max-rate"),
        (["--add"], "--add needs --json FILE"),
        (["--add", "--json", "-"], "--add needs --json FILE"),
    ],
)
def test_wrong_options(capsys, arguments, message) -> None:
    assert run(["bench", "serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"runs": 3}', "\x00\xff"])
def test_figures_are_added_to_those_of_this_bench_only(tmp_path, capsys, text) -> None:
    file = tmp_path / "figures.json"
    file.write_text(text)
    assert run(["bench", "serve", "--add", "--json", str(file)]) == 2
    assert f"--add: {file} is no result of `recsys bench serve`; name another" in capsys.readouterr().err
    assert file.read_text() == text


def test_a_cache_that_is_a_file_is_refused(tmp_path, capsys) -> None:
    file = tmp_path / "cache"
    file.touch()
    assert run(["bench", "serve", "--cache", str(file)]) == 2
    assert "Invalid value for '--cache'" in capsys.readouterr().err
