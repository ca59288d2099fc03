"""The key of users' hashes: made once, whole, for its owner and a group; hashes depend on it."""

import errno
import os
import stat

import polars as pl
import pytest

from recsys.errors import ConfigError
from recsys.user_key import FILE, UserKey, make_user_key, user_key_of, write_user_key

KEY = UserKey.of(bytes(range(32)))


@pytest.fixture(autouse=True)
def _drawn(monkeypatch):
    """Draw keys here, as a product does: the other tests have one."""
    monkeypatch.setattr("recsys.user_key.draw_secret", lambda: os.urandom(32))


def test_a_key_is_made_once_for_its_owner(tmp_path):
    runs = tmp_path / "runs"
    assert user_key_of(runs) is None
    key = make_user_key(runs)
    assert make_user_key(runs) == user_key_of(runs) == key
    assert stat.S_IMODE((runs / FILE).stat().st_mode) == 0o600
    assert [file.name for file in runs.iterdir()] == [FILE]
    write_user_key(runs, bytes(32))
    assert user_key_of(runs) == key, "one that is there stays"
    assert make_user_key(tmp_path / "others") != key
    assert key.secret.hex() not in repr(key)
    assert key.name not in key.secret.hex()


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o755, 0o777])
def test_a_key_that_others_can_read_or_change_is_refused(tmp_path, mode):
    make_user_key(tmp_path)
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(
        ConfigError, match=f"{FILE}, .*, has mode {mode:o}: .*; chmod it to 600 or 640, .*mount"
    ):
        make_user_key(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o660, 0o770])
def test_a_group_of_nights_and_servers_may_have_it(tmp_path, mode):
    """660: `fsGroup` of Kubernetes gives its group this mode of every file, at each mount. 770: a file system
    without modes.
    """
    key = make_user_key(tmp_path)
    (tmp_path / FILE).chmod(mode)
    assert user_key_of(tmp_path) == key


def test_a_file_system_without_links_holds_a_key(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    key = make_user_key(tmp_path)
    write_user_key(tmp_path, bytes(32))
    assert user_key_of(tmp_path) == key, "one that is there stays"
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_two_containers_with_one_process_number_make_one_whole_key(tmp_path, monkeypatch):
    """The second one begins while the first one's file has no name yet."""
    link, others = os.link, []

    def second_first(*names):
        monkeypatch.setattr(os, "link", link)
        others.append(make_user_key(tmp_path))
        link(*names)

    monkeypatch.setattr(os, "link", second_first)
    assert [make_user_key(tmp_path)] == others
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("text", ["", "secret", "00" * 31, "00" * 33])
def test_a_file_that_holds_no_key_is_named(tmp_path, text):
    make_user_key(tmp_path)
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=f"{tmp_path / FILE} is no key of 32 bytes in hexadecimal digits"):
        make_user_key(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_key_of_another_user_names_the_remedy(tmp_path):
    make_user_key(tmp_path)
    (tmp_path / FILE).chmod(0)
    with pytest.raises(ConfigError, match=r"cannot be read: Permission denied; give .* a group"):
        user_key_of(tmp_path)


def test_hashes_depend_on_id_and_key_alone():
    assert KEY.hash_all(["a", "b"]) == [KEY.hash_one("a"), KEY.hash_one("b")]
    assert (
        len({KEY.hash_one("a"), KEY.hash_one("b"), KEY.hash_one(""), UserKey.of(bytes(32)).hash_one("a")})
        == 4
    )
    assert KEY.hash_one("é") == "74832ec21188a73641a86d1c"
    hashed = KEY.hashed(pl.Series("user", ["b", None, "a", "b"]))
    assert hashed.name == "user"
    assert hashed.to_list() == [KEY.hash_one("b"), None, KEY.hash_one("a"), KEY.hash_one("b")]
    assert KEY.hashed(pl.Series("user", [], dtype=pl.String)).to_list() == []
