"""The parent: ready when all are, ends replaced later and later, errors passed on, nobody left behind."""

import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recsys.config import default_config
from recsys.errors import WorkerError
from serving.processes.orders import ServeSettings
from serving.processes.parent import Parent

ROOT = Path(__file__).parents[3]
# Without site packages, which a fake does not need, it starts in a tenth of the time.
CODE = "import runpy, sys; sys.path[0] = sys.argv[1]; runpy.run_path(sys.argv[2])"
FAKE = [sys.executable, "-S", "-c", CODE, str(ROOT), str(Path(__file__).with_name("fake_worker.py"))]


@dataclass
class Run:
    """A parent over fake workers; its test acts in a thread of its own, as signals come here."""

    runs: Path
    announced: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=lambda: FAKE)
    running: bool = False
    """A signal after the parent's end would end pytest."""

    def settings(self, **serving: float) -> ServeSettings:
        config = default_config()
        return ServeSettings(
            config_file=Path("shop.toml"),
            config=config.model_copy(update={"serving": config.serving.model_copy(update=serving)}),
            log=self.runs,
            runs=self.runs,
            listen="127.0.0.1:1",
            admin_listen="127.0.0.1:2",
        )

    def script(self, *workers: str) -> None:
        for number, words in enumerate(workers):
            (self.runs / f"worker-{number}").write_text("\n".join(words.split()))

    def go(self, *workers: str, beside: Callable[[], None] | None = None, **serving: float) -> None:
        self.script(*workers)
        settings = self.settings(drain_s=0.0, **serving)
        thread = threading.Thread(target=self._stop_after, args=(beside,))

        def announce(bundle: str) -> None:
            self.announced.append(bundle)
            thread.start()

        self.running = True
        try:
            Parent(settings, len(workers), announce, self.command).run_until_signalled()
        finally:
            self.running = False
            if self.announced:
                thread.join()

    def _stop_after(self, beside: Callable[[], None] | None) -> None:
        try:
            if beside is not None:
                beside()
        finally:
            if self.running:
                os.kill(os.getpid(), signal.SIGTERM)

    def starts(self) -> list[tuple[int, int, str]]:
        """Number, process and behaviour of each process that was started."""
        lines = [line for file in self.runs.glob("starts") for line in file.read_text().splitlines()]
        return [(int(n), int(pid), how) for n, pid, how in map(str.split, lines)]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Iterator[Run]:
    for name, seconds in {"SLACK_S": 0.5, "_FIRST_DELAY_S": 0.01}.items():
        monkeypatch.setattr(f"serving.processes.parent.{name}", seconds)
    before = signal.getsignal(signal.SIGTERM)
    made = Run(tmp_path)
    yield made
    assert signal.getsignal(signal.SIGTERM) is before
    assert not any(alive(pid) for _, pid, _ in made.starts())


def test_all_are_ready_then_all_drain(run) -> None:
    run.go("serve", "serve")
    assert run.announced == ["bundle v1"]
    assert sorted(number for number, _, _ in run.starts()) == [0, 1]
    assert all((run.runs / f"drained-{number}").exists() for number in (0, 1))


def test_a_killed_worker_is_replaced_and_the_other_left_alone(run, until) -> None:
    def kill() -> None:
        victim = next(pid for number, pid, _ in run.starts() if number == 1)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(run.starts()) == 3)

    run.go("serve", "serve", beside=kill)
    assert sorted(number for number, _, _ in run.starts()) == [0, 1, 1]
    assert run.announced == ["bundle v1"]


def test_a_worker_that_ends_at_once_when_it_is_replaced_does_not_end_the_server(run, until) -> None:
    def kill() -> None:
        os.kill(next(pid for number, pid, _ in run.starts() if number == 0), signal.SIGKILL)
        until(lambda: len(run.starts()) == 5)

    run.go("serve die refuse serve", "serve", beside=kill)
    assert [how for number, _, how in run.starts() if number == 0] == ["serve", "die", "refuse", "serve"]


def test_the_workers_own_error_ends_a_start(run) -> None:
    with pytest.raises(WorkerError, match=r"^the store is on fire$") as caught:
        run.go("serve", "refuse")
    assert caught.value.exit_code == 6
    assert run.announced == []


def test_a_worker_that_ends_again_and_again_ends_a_start(run) -> None:
    with pytest.raises(WorkerError, match=r"worker 1 ended 3 times before .* with code 3; the log") as caught:
        run.go("serve", "die")
    assert caught.value.exit_code == 13


def test_a_worker_that_cannot_be_started_for_a_while_is_started_later(run, until, capsys) -> None:
    python = run.runs / "python"
    python.symlink_to(sys.executable)
    run.command = [str(python), *FAKE[1:]]

    def kill() -> None:
        python.unlink()
        os.kill(next(pid for number, pid, _ in run.starts() if number == 1), signal.SIGKILL)
        until(lambda: "worker_not_started" in capsys.readouterr().out)
        python.symlink_to(sys.executable)
        until(lambda: len(run.starts()) == 3)

    run.go("serve", "serve", beside=kill)
    python.unlink()
    run.announced.clear()
    with pytest.raises(WorkerError, match="worker 0 cannot be started: No such file or directory; give"):
        run.go("serve", "serve")


def test_a_worker_that_is_never_ready_ends_a_start(run) -> None:
    with pytest.raises(WorkerError, match=r"worker [01] was not ready within 0.2 s, \[serving\] start_s"):
        run.go("hang", "hang", start_s=0.2)


def test_ctrl_c_before_all_are_ready_ends_the_start_as_interrupted(run, until) -> None:
    def interrupt() -> None:
        until(lambda: len(run.starts()) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run.go("serve", "hang")
    thread.join()
    assert run.announced == []


def test_a_worker_that_does_not_drain_is_killed_and_waiting_for_it_costs_nothing(run, monkeypatch) -> None:
    waits: list[float | None] = []
    select = selectors.DefaultSelector.select

    def counted(self, timeout=None):
        waits.append(timeout)
        return select(self, timeout)

    monkeypatch.setattr(selectors.DefaultSelector, "select", counted)
    with pytest.raises(WorkerError, match=r"^1 workers did not end in time and were killed"):
        run.go("serve", "deaf")
    assert (run.runs / "drained-0").exists()
    assert len(waits) < 20, "the signal ended every wait at once"


PARENT = """
import sys
from serving.processes.orders import ServeSettings
from serving.processes.parent import Parent
settings = ServeSettings.model_validate_json(sys.argv[1])
Parent(settings, 2, lambda bundle: print(bundle, flush=True), sys.argv[2:]).run_until_signalled()
"""


def test_workers_drain_when_their_parent_is_killed(run, until) -> None:
    run.script("serve", "serve")
    command = [sys.executable, "-c", PARENT, run.settings().model_dump_json(by_alias=True), *FAKE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"bundle v1\n"
        parent.kill()
    until(lambda: not any(alive(pid) for _, pid, _ in run.starts()))
    assert all((run.runs / f"drained-{number}").exists() for number in (0, 1))


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
