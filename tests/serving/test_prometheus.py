import contextlib
import re
import socket
import ssl
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from recsys.errors import ConfigError
from serving.addresses import Tls
from serving.client_values import CallError
from serving.prometheus import ServerCollector, serve_metrics
from serving.stats_board import StatsBoard
from serving.worker_facts import WorkerFacts


def test_the_counters_are_exported(start) -> None:
    one = start()
    collector = ServerCollector(one.server.board)
    metrics = serve_metrics("127.0.0.1:0", collector)
    for _ in range(3):
        one.client.recommend("u1")
    with pytest.raises(CallError):
        one.client.recommend("u1", -1)
    text = urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=120).read().decode()
    metrics.stop()
    assert 'recsys_calls_total{method="Recommend",status="OK"} 3.0' in text
    assert 'recsys_calls_total{method="Recommend",status="INVALID_ARGUMENT"} 1.0' in text
    assert 'recsys_bundle{version="v1"} 1.0' in text
    assert "recsys_journal_healthy 1.0" in text
    name = 'recsys_call_duration_seconds_%s{%smethod="Recommend",status="OK"} (.*)'
    buckets = [float(n) for n in re.findall(name % ("bucket", 'le=".*",'), text)]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3
    assert re.findall(name % ("count", ""), text) == ["3.0"]
    assert 0 < float(re.findall(name % ("sum", ""), text)[0]) < 3 * 120
    assert 'recsys_workers{state="serving"} 1.0' in text


@pytest.mark.parametrize("address", ["127.0.0.1:x", "127.0.0.1:99999999", "nowhere"])
def test_a_wrong_address_is_a_config_error(start, address) -> None:
    one = start()
    with pytest.raises(ConfigError, match="cannot be bound"):
        serve_metrics(address, ServerCollector(one.server.board))


def test_a_worker_that_has_died_answers_with_no_version() -> None:
    board = StatsBoard(bytearray(StatsBoard.size(2)), 2)
    for number in range(2):
        own = board.own(number)
        facts = WorkerFacts(version="v1", engine="eager", journal_healthy=number == 0, journal_bytes=7)
        own.publish(facts)
        board.enter(number, "serving")
    board.enter(1, "restarting")
    text = exported(board)
    assert 'recsys_bundle{version="v1"} 1.0' in text
    assert 'recsys_engine{engine="eager"} 1.0' in text
    assert "recsys_journal_healthy 1.0" in text
    assert "recsys_journal_bytes 7.0" in text


def exported(board: StatsBoard) -> str:
    registry = CollectorRegistry()
    registry.register(ServerCollector(board))
    return generate_latest(registry).decode()


def test_who_connects_and_says_nothing_holds_up_no_scrape(tmp_path, pem, capfd) -> None:
    certificate, key, _ = pem(tmp_path, "server")
    collector = ServerCollector(StatsBoard.for_one())
    metrics = serve_metrics("127.0.0.1:0", collector, Tls(certificate=certificate, key=key))
    with socket.create_connection(("127.0.0.1", metrics.port)) as silent:
        trusting = ssl.create_default_context(cafile=str(certificate))
        trusting.check_hostname = False
        page = f"https://127.0.0.1:{metrics.port}/metrics"
        text = urllib.request.urlopen(page, timeout=5, context=trusting).read().decode()
        silent.sendall(b"no TLS")
        with contextlib.suppress(ConnectionError):  # it is hung up on, and gets no more than an alert
            silent.recv(100)
    metrics.stop()
    assert "recsys_workers" in text
    assert "Traceback" not in capfd.readouterr().err
