import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recsys.errors import JournalError
from recsys.journal import Rows, read
from serving.journal import AppendFile, Journal, seal_abandoned

ROW = Rows(table="feedback", same={"feedback_id": "f1", "kind": "click"})


class Clock:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


class FullDisk(AppendFile):
    """A file that takes no byte."""

    def write(self, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def num_records(folder: Path) -> int:
    return sum(len(read(path).records) for path in folder.iterdir())


def test_a_record_is_on_disk_when_append_returns(tmp_path, clock) -> None:
    journal = Journal(tmp_path, "server", clock)
    journal.append(ROW)
    (path,) = tmp_path.iterdir()
    assert path.name == "20231114T221320000Z-server-00001.open"
    assert read(path).records[0].rows == (ROW,)
    journal.close()
    assert [p.suffix for p in tmp_path.iterdir()] == [".journal"]


def test_two_servers_of_one_name_never_share_a_file(tmp_path, clock) -> None:
    """In containers the host names and process ids may be equal, and so the millisecond of the start."""
    first, second = Journal(tmp_path, "server", clock), Journal(tmp_path, "server", clock)
    first.append(ROW)
    with pytest.raises(JournalError, match="File exists"):
        second.append(ROW)
    second.append(ROW)  # in the next file
    for journal in (first, second):
        journal.close()
    assert len(list(tmp_path.iterdir())) == num_records(tmp_path) == 2


def test_new_and_sealed_names_are_forced_onto_the_disk(tmp_path, clock, monkeypatch) -> None:
    synced = []
    for module in ("serving.journal", "recsys.files"):
        monkeypatch.setattr(f"{module}.sync_folder", lambda path: synced.append((path, os.listdir(path))))
    folder = tmp_path / "new" / "journal"
    journal = Journal(folder, "server", clock, rotate_s=60)
    journal.append(ROW)
    assert synced.pop() == (folder.parent, ["journal"])
    journal.sync()
    (path, (name,)) = synced.pop()
    assert (path, name) == (folder, "20231114T221320000Z-server-00001.open")
    journal.append(ROW)
    journal.sync()
    assert synced == []  # no new name
    clock.ms += 60_000
    journal.sync()
    (path, (name,)) = synced.pop()
    assert (path, name) == (folder, "20231114T221320000Z-server-00001.journal")
    journal.append(ROW)
    journal.close()
    assert sorted(synced[-1][1]) == sorted(os.listdir(folder))


def test_a_file_is_sealed_also_when_the_clock_was_set_back(tmp_path, clock) -> None:
    journal = Journal(tmp_path, "server", clock, rotate_s=60)
    journal.append(ROW)
    clock.ms -= 86_400_000
    journal.sync()
    assert [p.suffix for p in tmp_path.iterdir()] == [".journal"]
    journal.close()


def test_an_old_file_is_sealed_and_a_new_one_begun(tmp_path, clock) -> None:
    journal = Journal(tmp_path, "server", clock, rotate_s=60)
    journal.append(ROW)
    clock.ms += 59_999
    journal.sync()
    assert [p.suffix for p in tmp_path.iterdir()] == [".open"]
    clock.ms += 1
    journal.sync()
    journal.append(ROW)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".journal", ".open"]
    journal.close()
    assert num_records(tmp_path) == 2


def test_a_large_file_is_sealed(tmp_path, clock) -> None:
    journal = Journal(tmp_path, "server", clock, max_bytes=300)
    for _ in range(5):
        journal.append(ROW)
    journal.close()
    assert all(p.stat().st_size <= 300 for p in tmp_path.iterdir())
    assert num_records(tmp_path) == 5


def test_a_file_that_was_sealed_before_it_was_locked_is_left(tmp_path, clock, monkeypatch) -> None:
    """A server that started just then took it for a dead one's: it grew on as a sealed file."""
    flock = fcntl.flock

    def late(*arguments) -> None:
        monkeypatch.undo()
        assert len(seal_abandoned(tmp_path)) == 1
        flock(*arguments)

    monkeypatch.setattr("serving.journal.fcntl.flock", late)
    journal = Journal(tmp_path, "server", clock)
    journal.append(ROW)
    assert sorted(p.name.split("-")[-1] for p in tmp_path.iterdir()) == ["00001.journal", "00002.open"]
    assert seal_abandoned(tmp_path) == []
    journal.close()
    assert num_records(tmp_path) == 1


def test_many_threads_write_whole_records(tmp_path, clock) -> None:
    journal = Journal(tmp_path, "server", clock, max_bytes=4_000)
    journal.start()
    threads = [threading.Thread(target=lambda: [journal.append(ROW) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert num_records(tmp_path) == 800
    assert all(read(p).damaged == () and read(p).torn_bytes == 0 for p in tmp_path.iterdir())


class FillingFile(AppendFile):
    """A file on a disk with so many bytes left."""

    room = 10_000

    def write(self, data: bytes) -> int:
        taken = data[: FillingFile.room]
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        FillingFile.room -= len(taken)
        return super().write(taken)


def test_a_full_disk_is_an_error_until_there_is_room_again(tmp_path, clock) -> None:
    FillingFile.room = 150  # the header, one record, and a part of the second
    journal = Journal(tmp_path, "server", clock, open_file=FillingFile)
    journal.append(ROW)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"cannot be written: .*(full|space)"):
            journal.append(ROW)
    assert not journal.healthy
    FillingFile.room = 10_000
    journal.append(ROW)
    assert journal.healthy
    journal.close()
    (path,) = tmp_path.iterdir()
    assert len(read(path).records) == 2
    assert read(path).damaged == ()


def test_a_disk_full_from_the_start_leaves_no_files(tmp_path, clock) -> None:
    FillingFile.room = 3
    journal = Journal(tmp_path, "server", clock, open_file=FillingFile)
    for _ in range(3):
        with pytest.raises(JournalError):
            journal.append(ROW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_dev_full(tmp_path, clock) -> None:
    journal = Journal(tmp_path, "server", clock, open_file=lambda _: FullDisk(tmp_path / "full"))
    with pytest.raises(JournalError, match="No space left"):
        journal.append(ROW)


class UnsyncedFile(AppendFile):
    def sync(self) -> None:
        raise OSError(errno.EIO, "Input/output error")


def test_after_a_failed_sync_the_journal_goes_on_in_a_new_file(tmp_path, clock) -> None:
    journal = Journal(tmp_path, "server", clock, open_file=UnsyncedFile)
    journal.append(ROW)
    journal.sync()
    assert not journal.healthy
    journal.append(ROW)
    assert sorted(p.name.split("-")[-1] for p in tmp_path.iterdir()) == ["00001.open", "00002.open"]
    journal.close()
    assert num_records(tmp_path) == 2


WRITER = """
import sys
from pathlib import Path
from recsys.journal import Rows
from serving.journal import Journal
journal = Journal(Path(sys.argv[1]), "killed", lambda: 1_700_000_000_000)
journal.start()
for number in range(1_000_000):
    journal.append(Rows(table="feedback", same={"feedback_id": str(number)}))
    print(number, flush=True)
"""


def test_everything_that_was_answered_survives_kill_9(tmp_path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(200):
            answered = int(writer.stdout.readline())
        assert seal_abandoned(tmp_path) == []  # its server lives
        writer.send_signal(signal.SIGKILL)
        answered = max([answered, *(int(line) for line in writer.stdout.read().split("\n")[:-1])])
    time.sleep(0)
    (sealed,) = seal_abandoned(tmp_path)
    contents = read(sealed)
    found = [record.rows[0].same["feedback_id"] for record in contents.records]
    assert found[: answered + 1] == [str(n) for n in range(answered + 1)]
    assert contents.damaged == ()
