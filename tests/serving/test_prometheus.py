import re
import urllib.request

import pytest

from recsys.errors import ConfigError
from serving.client_values import CallError
from serving.prometheus import ServerCollector, serve_metrics


def test_the_counters_are_exported(start, unused_tcp_port) -> None:
    one = start()
    collector = ServerCollector(one.server.board)
    stop = serve_metrics(f"127.0.0.1:{unused_tcp_port}", collector)
    for _ in range(3):
        one.client.recommend("u1")
    with pytest.raises(CallError):
        one.client.recommend("u1", -1)
    text = urllib.request.urlopen(f"http://127.0.0.1:{unused_tcp_port}/metrics", timeout=120).read().decode()
    stop()
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
