"""A lock that names its holder."""

import fcntl
import os
import socket
import threading

import pytest

from recsys.errors import RegistryError
from recsys.process_lock import Holder, holder_of, process_lock


def test_who_comes_second_is_told_who_holds_it_since_when_and_with_what_command(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/recsys", "nightly", "--runs", "my runs"])
    file = tmp_path / "nightly.lock"
    with process_lock(file):
        said = r"nightly\.lock: recsys nightly --runs 'my runs', "
        said += rf"process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(RegistryError, match=said + r" since 20\d\d-\S+ \S+ UTC"):
            process_lock(file, wait=False).__enter__()
        assert holder_of(file).pid == os.getpid()
    assert holder_of(file) is None
    with process_lock(file, wait=False):
        pass


def test_a_holder_of_another_release_says_nothing(tmp_path):
    file = tmp_path / "nightly.lock"
    with process_lock(file):
        file.write_text("")
        with pytest.raises(RegistryError, match="it says nothing of itself"):
            process_lock(file, wait=False).__enter__()


def test_what_a_killed_holder_said_goes_when_another_takes_the_lock(tmp_path):
    file = tmp_path / "nightly.lock"
    gone = Holder.this().model_copy(update={"pid": 1, "command": "recsys nightly " + "x" * 200})
    file.write_text(gone.model_dump_json())
    with process_lock(file):
        assert holder_of(file).pid == os.getpid()


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path, monkeypatch):
    file, asks, has = tmp_path / "nightly.lock", threading.Event(), threading.Event()
    flock = fcntl.flock

    def wait():
        with process_lock(file):
            has.set()

    waiting = threading.Thread(target=wait)
    with process_lock(file):
        monkeypatch.setattr(fcntl, "flock", lambda stream, how: asks.set() or flock(stream, how))
        waiting.start()
        assert asks.wait(10)
        waiting.join(0.05)
        assert not has.is_set()
    waiting.join(10)
    assert has.is_set()
