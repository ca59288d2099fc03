"""A lock that names its holder."""

import os
import socket

import pytest

from recsys.errors import RegistryError
from recsys.process_lock import holder_of, process_lock


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
