import threading
from pathlib import Path

import pytest

from serving.pages.keys import ROTATE_MS, PageKeys

ACCEPT_MS = 600_000


def keys(folder: Path) -> PageKeys:
    return PageKeys(folder, ACCEPT_MS)


def test_workers_and_restarts_share_one_private_key(tmp_path) -> None:
    first, second = keys(tmp_path), keys(tmp_path)
    assert first.signing(0) == second.signing(0) == keys(tmp_path).signing(1)
    (file,) = tmp_path.glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, "page_token_keys.lock"]


def test_a_day_old_key_is_replaced_and_accepted_for_ten_minutes_by_all(tmp_path) -> None:
    first, second = keys(tmp_path), keys(tmp_path)
    old = second.signing(0)
    assert first.signing(ROTATE_MS - 1) == old
    new = first.signing(ROTATE_MS)
    assert new != old
    for worker in (first, second, keys(tmp_path)):
        assert worker.signing(ROTATE_MS + 1) == new
        assert worker.accepted(ROTATE_MS + ACCEPT_MS) == [new, old]
        assert worker.accepted(ROTATE_MS + ACCEPT_MS + 1) == [new]


def test_a_removed_file_voids_every_token(tmp_path) -> None:
    worker = keys(tmp_path)
    old = worker.signing(0)
    (tmp_path / "page_token_keys.json").unlink()
    assert old not in worker.accepted(1)
    assert worker.accepted(1) == keys(tmp_path).accepted(1)


@pytest.mark.parametrize("text", ["", "{}", '{"key": "00", "made_ms": 0, "previous": null}', "\x00", "[]"])
def test_a_damaged_file_is_replaced(tmp_path, text) -> None:
    file = tmp_path / "page_token_keys.json"
    file.write_text(text)
    file.chmod(0o600)
    key = keys(tmp_path).signing(0)
    assert len(key) == 32
    assert keys(tmp_path).signing(0) == key


def test_a_key_that_others_could_read_is_used_no_more(tmp_path) -> None:
    old = keys(tmp_path).signing(0)
    (tmp_path / "page_token_keys.json").chmod(0o640)
    assert old not in keys(tmp_path).accepted(0)


def test_without_a_folder_to_write_in_the_key_is_the_process_s_own(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    worker = keys(tmp_path / "file" / "below")
    assert worker.signing(0) == worker.signing(1)
    assert worker.accepted(2) == [worker.signing(0)]


def test_workers_that_start_at_once_agree(tmp_path) -> None:
    workers, found = [keys(tmp_path) for _ in range(8)], []
    threads = [threading.Thread(target=lambda one=one: found.append(one.signing(0))) for one in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
