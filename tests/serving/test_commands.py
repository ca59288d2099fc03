import json
import socket
from pathlib import Path

import pytest

import recsys
from recsys.cli import run
from recsys.errors import ConfigError
from serving.client_values import Answer, Item
from serving.commands import _context
from serving.console import print_answer

RECOMMEND = ["recommend", "--timeout", "120"]
SHOP = str(Path(recsys.__file__).with_name("shop.toml"))


def test_recommend_prints_a_table(start, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    one = start()
    asked = ["--user", "u1", "-k", "2", "--context", "device=tv"]
    assert run([*RECOMMEND, "--target", one.client.target, *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if "event" not in line and "[info" not in line]
    assert table[0].split() == ["#", "item", "title", "score", "click", "purchase", "rating", "reasons"]
    assert table[1].split()[:4] == ["1", "i39", "Thing", "39"]
    assert "2 items, v1" in table[-1]
    assert one.journal() == []  # looking is no traffic


def test_recommend_explains_when_asked(start, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    one = start()
    asked = ["--target", one.client.target, "--user", "u1", "-k", "2"]
    assert run([*RECOMMEND, *asked, "--explain"]) == 0
    printed = capsys.readouterr().out
    assert "history: none" in printed
    assert "additive score, weights: click 1, purchase 5, rating 0.02" in printed
    assert "click +0.4000" in printed
    assert "click 0.75 0.25" in printed
    assert run([*RECOMMEND, *asked]) == 0
    assert "history" not in capsys.readouterr().out


def test_reasons_of_an_item_are_told_apart_where_they_are_wrapped(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    item = Item(
        item_id="i1", title="t", position=1, score=1.0, predictions={}, sources=(), reasons=("a b", "c d"),
        propensity=1.0, propensity_kind="exact", impression_id="r:1"
    )  # fmt: skip
    print_answer(Answer(items=(item,), request_id="r", list_id="l", bundle_version="v", next_page_token="",
                        degradation=(), missing_item_ids=(), server_s=0.0), "u")  # fmt: skip
    assert " ".join(capsys.readouterr().out.split()).count("a b; c d") == 1


def test_recommend_may_be_real_traffic(start) -> None:
    one = start()
    assert run([*RECOMMEND, "--target", one.client.target, "--user", "u1", "--journal"]) == 0
    assert one.journal()


def test_recommend_says_when_the_user_is_unknown(start, capsys) -> None:
    one = start()
    assert run([*RECOMMEND, "--target", one.client.target, "--user", "stranger"]) == 0
    assert "user 'stranger' is unknown: this is the list of a new user" in capsys.readouterr().out


def test_recommend_says_first_that_the_seed_is_unknown(start, capsys) -> None:
    asked = ["--target", start().client.target, "--user", "u1", "--similar-to", "[zzz]"]
    capsys.readouterr()
    assert run([*RECOMMEND, *asked]) == 0
    printed = capsys.readouterr().out
    first = next(line for line in printed.splitlines() if "[info" not in line)
    assert first == "unknown: [zzz]; this is the list of user 'u1' instead"
    assert printed.count("zzz") == 1


def test_recommend_prints_json(start, capsys) -> None:
    one = start()
    asked = ["--user", "u1", "-k", "2", "--category", "rugs", "--json", "-"]
    capsys.readouterr()
    assert run([*RECOMMEND, "--target", one.client.target, *asked]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [item["item_id"] for item in answer["items"]] == ["i38", "i34"]


def test_a_refused_call_is_one_line(start, capsys) -> None:
    one = start()
    assert run([*RECOMMEND, "--target", one.client.target, "--user", "u1", "-k", "10000"]) == 12
    assert "INVALID_ARGUMENT: page_size: 10000 is out of range" in capsys.readouterr().err


def test_no_server_is_one_line(capsys) -> None:
    assert run(["recommend", "--target", "127.0.0.1:1", "--user", "u1", "--timeout", "0.5"]) == 12
    error = capsys.readouterr().err
    assert error.startswith("recsys recommend: 127.0.0.1:1 answered ")
    assert len(error.splitlines()) == 1
    assert error.endswith("start `recsys serve` there, or name the HOST:PORT of a running server\n")


def test_a_server_that_is_silent_is_said_to_be_so(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        assert run(["recommend", "--target", target, "--user", "u1", "--timeout", "0.3"]) == 12
    assert "DEADLINE_EXCEEDED: no answer within 0.3 s; wait longer" in capsys.readouterr().err


def test_a_list_of_no_items_is_refused(capsys) -> None:
    """The wire's 0 means the server's default."""
    assert run(["recommend", "--target", "127.0.0.1:1", "--user", "u1", "-k", "0"]) == 2
    assert "Invalid value for '-k': Input should be greater than or equal to 1" in capsys.readouterr().err


def test_context_values_are_numbers_or_text() -> None:
    assert _context(["hour=21", "device=tv", "note=a=b"]) == {"hour": 21.0, "device": "tv", "note": "a=b"}
    with pytest.raises(ConfigError, match="'device' is not name=value"):
        _context(["device"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "0.0.0.0:0"], "can be reached from other machines"),
        (["--listen", "garbage"], "--listen 'garbage' is not HOST:PORT"),
        (["--listen", ""], "--listen '' is not HOST:PORT"),
        (["--admin-listen", ""], "--admin-listen '' is not HOST:PORT"),
        (["--metrics-listen", ""], "--metrics-listen '' is not HOST:PORT"),
        (["--metrics-listen", "unix:socket"], "--metrics-listen unix:socket is a socket file"),
        (["--listen", "127.0.0.1"], "--listen '127.0.0.1' is not HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "with a port up to 65535; write one like 127.0.0.1:50051"),
        (["--admin-listen", "::1:80"], "--admin-listen '::1:80' is not HOST:PORT"),
        (["--metrics-listen", "9090"], "--metrics-listen '9090' is not HOST:PORT"),
        (["--insecure", "--listen", "no-such-host.invalid:1"], "no-such-host.invalid:1 cannot be bound: "),
        (["--listen", "h:1", "--admin-listen", "h:1"], "--listen and --admin-listen are both h:1; give each"),
        (["--listen", "h:1", "--metrics-listen", "h:1"], "--listen and --metrics-listen are both h:1"),
        (["--port-file", "no/such/ports.json"], "--port-file no/such/ports.json: no/such is not a folder"),
        (["--port-file", "."], "--port-file . is a folder; name a file in it"),
        (["--tls-cert", "x.pem"], "--tls-cert and --tls-key go together"),
        (["--tls-cert", "none.pem", "--tls-key", "none.key"], "cannot be read"),
        (["--tls-cert", "not.pem", "--tls-key", "not.pem"], "not.pem cannot be used ("),
        (["--clock-start", "noon"], "is not an instant"),
        (["--clock-start", "2026-03-01", "--clock-rate", "1e300"], "--clock-rate 1e+300 is not above 0"),
    ],
)
def test_wrong_ways_to_serve(tmp_path, capsys, arguments, message) -> None:
    (tmp_path / "empty").mkdir()
    folders = ["--log", str(tmp_path / "empty"), "--runs", str(tmp_path)]
    free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    (tmp_path / "not.pem").write_text("no certificate")
    arguments = [str(tmp_path / word) if word == "not.pem" else word for word in arguments]
    assert run(["serve", "--config", SHOP, *folders, *free, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("absent", "remedy"), [("log", "`recsys convert` or `recsys simulate`"), ("runs", "`recsys nightly`")]
)
def test_a_mistyped_folder_is_refused_and_not_made(tmp_path, capsys, absent, remedy) -> None:
    for name in {"log", "runs"} - {absent}:
        (tmp_path / name).mkdir()
    folders = ["--log", str(tmp_path / "log"), "--runs", str(tmp_path / "runs")]
    assert run(["serve", "--config", SHOP, *folders, "--listen", "garbage"]) == 2
    error = capsys.readouterr().err
    assert f"--{absent} {tmp_path / absent} is not a folder; name the one that {remedy} wrote" in error
    assert not (tmp_path / absent).exists()


def test_a_folder_that_is_no_log_is_refused(tmp_path, capsys) -> None:
    (tmp_path / "bundles").mkdir()
    folders = ["--log", str(tmp_path), "--runs", str(tmp_path)]
    serve = ["serve", "--config", SHOP, *folders, "--listen", "garbage"]
    assert run(serve) == 2
    assert f"--log {tmp_path} holds other things than an interaction log: it has" in capsys.readouterr().err
    assert [child.name for child in tmp_path.iterdir()] == ["bundles"]
    (tmp_path / "items").mkdir()
    assert run(serve) == 2
    assert "--listen 'garbage'" in capsys.readouterr().err


def test_help_of_serve_lists_the_exit_codes(capsys) -> None:
    assert run(["serve", "--help"]) == 0
    assert (
        "\n      2  a wrong option or config, or an address that cannot be bound\n" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "Invalid value for '--workers': '0' is neither auto nor a number from 1 to 256"),
        (["--workers", "2", "--listen", "garbage"], "--listen 'garbage' is not HOST:PORT"),
        (["--workers", "2", "--listen", "0.0.0.0:0"], "can be reached from other machines"),
        (
            ["--workers", "2", "--listen", "unix:/tmp/x"],
            "2 workers cannot share unix:/tmp/x; choose ",
        ),
        (["--workers", "2", "--clock-start", "noon"], "is not an instant"),
    ],
)
def test_several_workers_are_refused_before_any_is_started(tmp_path, capsys, arguments, message) -> None:
    folders = ["--log", str(tmp_path), "--runs", str(tmp_path)]
    assert run(["serve", "--config", SHOP, *folders, *arguments]) == 2
    assert message in capsys.readouterr().err
