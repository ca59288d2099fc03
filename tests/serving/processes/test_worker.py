"""One process serves alone: what it does when it is ready."""

from types import SimpleNamespace

from recsys.config import default_config
from serving.processes import worker
from serving.processes.orders import ClockSetting, ServeSettings

NOON_MS = 1_772_366_400_000


class _SlowServer:
    """Takes simulated hours to become ready."""

    ports = SimpleNamespace()
    bundle_line = "no bundle"
    reloader = SimpleNamespace(ended_within=lambda _seconds: True)

    def __init__(self, passed_ns: list[int]) -> None:
        self._passed_ns = passed_ns

    def start(self) -> None:
        self._passed_ns[0] += 20_000_000_000

    def run_until_signalled(self, ready) -> None:
        ready()


def test_a_slow_start_takes_nothing_of_the_simulated_time(tmp_path, monkeypatch) -> None:
    passed_ns, announced = [0], []
    monkeypatch.setattr("serving.clock.time.monotonic_ns", lambda: passed_ns[0])
    clocks = []

    def make(_settings, clock, _seat=None) -> _SlowServer:
        clocks.append(clock)
        return _SlowServer(passed_ns)

    monkeypatch.setattr(worker, "make_server", make)
    monkeypatch.setattr(worker, "configure_logs", lambda: None)
    monkeypatch.setattr(worker, "announce", lambda *_: announced.append(clocks[0].now_ms()))
    settings = ServeSettings(
        config_file=tmp_path / "shop.toml",
        config=default_config(),
        log=tmp_path,
        runs=tmp_path,
        clock=ClockSetting(start="2026-03-01T12:00:00Z", rate=2_000.0),
        listen="127.0.0.1:0",
        admin_listen="127.0.0.1:0",
    )
    worker.serve_here(settings, None)
    assert announced == [NOON_MS]
