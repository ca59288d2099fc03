"""The folder of prepared versions: who prepares, who waits, what is kept, and what a crash leaves."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from recsys.errors import BundleError, ConfigError
from recsys.manifest import read_manifest
from recsys.registry import Registry
from serving.prepared import child
from serving.prepared.cache import PreparedCache, key_of
from serving.prepared.child import ChildPreparer
from serving.prepared.listing import write_listing

PATIENCE_S = 60.0


class Preparer:
    """Writes one small file, and counts."""

    def __init__(self) -> None:
        self.made: list[Path] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, source: Path, target: Path, final: Path, lock: int) -> None:
        target.mkdir()
        self.made.append(final)
        assert self.may_go_on.wait(PATIENCE_S)
        (target / "numbers").write_bytes(b"12345")
        write_listing(target)
        target.rename(final)


@pytest.fixture
def source(night: Path) -> Path:
    registry = Registry(night / "runs")
    return registry.path(str(registry.current()))


@pytest.fixture
def another(source: Path, tmp_path: Path) -> Path:
    """Another version's manifest; nothing more of it is read here."""
    from recsys.manifest import version_of

    manifest = read_manifest(source).model_copy(update={"parent": "another"})
    manifest = manifest.model_copy(update={"version": version_of(manifest)})
    folder = tmp_path / manifest.version
    folder.mkdir()
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return folder


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_version_is_prepared_once_and_two_workers_at_once_wait_for_the_first(
    source, tmp_path, until
) -> None:
    preparer, found = Preparer(), []
    preparer.may_go_on.clear()
    threads = [
        threading.Thread(
            target=lambda: found.append(PreparedCache(tmp_path / "cache", preparer).open(source))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    until(lambda: preparer.made)
    assert found == [], "all wait"
    preparer.may_go_on.set()
    for thread in threads:
        thread.join()
    final = tmp_path / "cache" / key_of(read_manifest(source))
    assert preparer.made == [final]
    assert [held.path for held in found] == [final] * 3
    assert sorted(held.is_new for held in found) == [False, False, True]
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_who_waits_for_a_preparation_that_fails_gets_its_error_and_who_comes_later_tries_again(
    source, tmp_path, until, monkeypatch
) -> None:
    may_fail, made, asked, errors = threading.Event(), [], [], []

    def fail(*_) -> None:
        made.append(len(asked))
        assert may_fail.wait(PATIENCE_S)
        raise BundleError("weights.safetensors differs from its manifest")

    def read(folder):
        asked.append(folder)
        return read_manifest(folder)

    def ask() -> None:
        with pytest.raises(BundleError) as failed:
            PreparedCache(tmp_path / "cache", fail).open(source)
        errors.append(str(failed.value))

    monkeypatch.setattr("serving.prepared.cache.read_manifest", read)
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: len(asked) == 3 and made)
    time.sleep(0.02)  # the time of a file is that of the kernel's last tick, up to 10 ms ago
    may_fail.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    ask()
    assert len(made) == 2
    assert errors == ["weights.safetensors differs from its manifest"] * 4


def test_a_folder_that_is_no_good_is_prepared_again_by_one_of_those_that_use_it(source, tmp_path) -> None:
    preparer = Preparer()
    one, two = (PreparedCache(tmp_path / "cache", preparer) for _ in range(2))
    os.utime(one.open(source).path / "prepared.json", (1, 1))
    bad, also_bad = one.open(source), two.open(source)
    again = one.open(source, instead_of=bad)
    assert (bad.made_at, also_bad.made_at) == (1, 1), "of what they hold, not of what has its name now"
    assert two.open(source, instead_of=also_bad).made_at == again.made_at > 1
    assert len(preparer.made) == 2


def test_versions_in_use_stay_and_others_go_when_the_next_one_is_opened(source, another, tmp_path) -> None:
    folder = tmp_path / "cache"
    cache, worker = PreparedCache(folder, Preparer()), PreparedCache(folder, Preparer())
    mine, theirs = cache.open(source), worker.open(source)
    cache.open(another)
    assert mine.path.exists()
    mine.release()
    cache.collect()
    assert entries(folder) == [mine.path.name], "the other worker uses it; of the other version nobody holds"
    del theirs  # as when an engine is let go, or its process dies
    cache.collect()
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_left_is_removed(source, another, tmp_path) -> None:
    folder = tmp_path / "cache"
    cache = PreparedCache(folder, Preparer())
    held = cache.open(source)
    key = key_of(read_manifest(another))
    for name in (f".{key}.new", f".{key}.old", f".{held.path.name}.new"):
        (folder / name / "bundle").mkdir(parents=True)
    (folder / "note-of-a-person").touch()
    cache.collect()
    assert entries(folder) == sorted([held.path.name, "note-of-a-person"])


def test_a_folder_that_was_changed_is_prepared_again(source, tmp_path) -> None:
    preparer = Preparer()
    cache = PreparedCache(tmp_path / "cache", preparer)
    first = cache.open(source)
    mapped = (first.path / "numbers").open("rb")
    for change in (
        lambda path: (path / "numbers").write_bytes(b"54321"),
        lambda path: (path / "more").touch(),
        lambda path: (path / "numbers").unlink(),
        lambda path: (path / "prepared.json").write_text("torn"),
        lambda path: ((path / "numbers").rename(path / "n"), (path / "numbers").symlink_to("n")),
    ):
        change(first.path)
        again = cache.open(source)
        assert again.is_new
        assert (again.path / "numbers").read_bytes() == b"12345"
    assert len(preparer.made) == 6
    assert not cache.open(source).is_new
    assert mapped.read() == b"54321", "who has the old one goes on reading it"
    mapped.close()


def test_a_cache_that_others_could_change_is_refused(source, tmp_path) -> None:
    def refusal(folder: Path) -> str:
        with pytest.raises(ConfigError) as refused:
            PreparedCache(folder, Preparer()).open(source)
        return str(refused.value)

    (tmp_path / "wide").mkdir()
    (tmp_path / "wide").chmod(0o750)
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "file").touch()
    assert "can be read or changed by others (mode 750, not 700); remove it" in refusal(tmp_path / "wide")
    assert "link is a link, or no folder" in refusal(tmp_path / "link")
    assert "file is a link, or no folder" in refusal(tmp_path / "file")


def test_a_cache_of_another_user_is_refused(source, tmp_path, monkeypatch) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match=rf"belongs to user {os.getuid()}, not to {os.getuid() + 1}"):
        PreparedCache(tmp_path / "cache", Preparer()).open(source)


@pytest.fixture
def as_child(monkeypatch):
    """Let every version be prepared in a child that runs these lines: a stand-in that starts at once."""

    def use(lines: str) -> None:
        monkeypatch.setattr(child, "_SMALL_BYTES", 0)
        monkeypatch.setattr(child, "_START", f"import os, sys, time; {lines}")

    return use


def test_a_child_that_is_killed_leaves_nothing_and_the_next_one_prepares(
    source, tmp_path, as_child, until
) -> None:
    as_child("os.mkdir(sys.argv[2]); os.symlink(str(os.getpid()), f'{sys.argv[2]}/pid'); time.sleep(600)")
    cache, errors = PreparedCache(tmp_path / "cache", ChildPreparer()), []

    def open_it() -> None:
        with pytest.raises(BundleError) as refused:
            cache.open(source)
        errors.append(str(refused.value))

    thread = threading.Thread(target=open_it)
    thread.start()
    file = tmp_path / "cache" / f".{key_of(read_manifest(source))}.new" / "pid"
    until(file.is_symlink)
    os.kill(int(file.readlink().name), signal.SIGKILL)
    thread.join()
    assert (
        f"the process that prepares {source} was killed by signal 9, perhaps for want of memory" in errors[0]
    )
    assert entries(tmp_path / "cache") == []
    assert PreparedCache(tmp_path / "cache", Preparer()).open(source).is_new


def test_a_child_goes_on_and_keeps_the_lock_when_its_server_is_killed(
    source, tmp_path, as_child, monkeypatch
) -> None:
    """The next server waits for it, and finds what it made."""
    as_child("time.sleep(600)")
    preparer, running = ChildPreparer(), []
    start = subprocess.Popen

    def started(*args, **kwargs):
        running.append(start(*args, **kwargs))
        raise OSError(5, "the server is killed here")

    cache = PreparedCache(tmp_path / "cache", preparer)
    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(BundleError, match="is killed here"):
        cache.open(source)
    waiting = PreparedCache(tmp_path / "cache", Preparer())
    threading.Timer(0.2, waiting.stop).start()
    with pytest.raises(BundleError, match="the server stops"):
        waiting.open(source)
    running[0].kill()
    running[0].communicate()
    assert PreparedCache(tmp_path / "cache", Preparer()).open(source).is_new


def test_a_server_that_stops_ends_its_child(source, tmp_path, as_child, until) -> None:
    as_child("os.mkdir(sys.argv[2]); time.sleep(600)")
    preparer = ChildPreparer()
    cache = PreparedCache(tmp_path / "cache", preparer)
    temporary = tmp_path / "cache" / f".{key_of(read_manifest(source))}.new"

    def stop_soon() -> None:
        until(temporary.exists)
        preparer.stop()

    thread = threading.Thread(target=stop_soon)
    thread.start()
    with pytest.raises(BundleError, match="the server stops"):
        cache.open(source)
    thread.join()
    assert entries(tmp_path / "cache") == []


@pytest.mark.parametrize("share", ["none", "enough"])
def test_an_idle_child_that_gets_no_processor_starts_over_with_the_servers_priority(
    source, tmp_path, as_child, monkeypatch, share
) -> None:
    """On a busy host it may wait for ever, and the night that waits for the server fails."""
    idle_s, work = (600, "0") if share == "none" else (2, "sum(range(10_000_000))")
    as_child(
        "open(sys.argv[2] + '.seen', 'a').write(sys.argv[4] + ' '); os.mkdir(sys.argv[2]);"
        f"until = time.time() + ({idle_s} if sys.argv[4] == 'idle' else 0)\n"
        f"while time.time() < until: {work} or time.sleep(.01)\n"
        "from serving.prepared.listing import write_listing; from pathlib import Path;"
        "write_listing(Path(sys.argv[2])); os.rename(*sys.argv[2:4])"
    )
    monkeypatch.setattr(child, "_TINY_BYTES", 0)
    monkeypatch.setattr(child, "_PATIENCE_S", 0.8)
    monkeypatch.setattr(child, "_LEAST_SHARE", 0.05)
    preparer = ChildPreparer()
    preparer.urgent = False
    assert PreparedCache(tmp_path / "cache", preparer).open(source).is_new
    seen = (tmp_path / "cache" / f".{key_of(read_manifest(source))}.new.seen").read_text().split()
    assert seen == (["idle", "own"] if share == "none" else ["idle"])


def test_what_a_child_says_is_the_error_here(source, tmp_path, as_child) -> None:
    as_child('print(\'{"error": "weights differ", "disk": null}\'); sys.exit(3)')
    cache = PreparedCache(tmp_path / "cache", ChildPreparer())
    with pytest.raises(BundleError, match=r"^weights differ$"):
        cache.open(source)
    as_child('print(\'{"error": "x", "disk": "No space left on device"}\'); sys.exit(3)')
    with pytest.raises(BundleError, match=r"prepared in .*: No space left on device; free the disk, or name"):
        cache.open(source)
    as_child("sys.exit(1)")
    with pytest.raises(BundleError, match=r"ended with 1; see the server's log"):
        cache.open(source)
