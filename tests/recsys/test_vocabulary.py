"""Vocabularies: numbers never change, every id has one, and a round trip keeps them."""

from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import vocabulary as module
from recsys.errors import BundleError
from recsys.user_key import UserKey, name_alone, write_user_key
from recsys.vocabulary import UNKNOWN, Vocabulary

COUNTS = st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 9), max_size=12)


def _frame(counts):
    return pl.DataFrame(
        {"id": list(counts), "count": list(counts.values())}, schema={"id": pl.String, "count": pl.Int64}
    )


def test_numbers_are_unknown_then_buckets_then_own():
    vocabulary = Vocabulary(ids=("a", "b"), hash_buckets=3)
    assert vocabulary.encode(pl.Series(["a", "b", None])).tolist() == [4, 5, UNKNOWN]
    assert 1 <= vocabulary.encode_one("stranger") <= 3
    assert vocabulary.size == 6
    assert Vocabulary(ids=(), hash_buckets=0).encode_one("stranger") == UNKNOWN


def test_the_threshold_and_the_order():
    counts = {"rare": 1, "b": 5, "a": 5, "top": 9}
    assert Vocabulary(ids=(), hash_buckets=1).grow(_frame(counts), 2).ids == ("top", "a", "b")


def test_a_promoted_id_remembers_its_bucket():
    before = Vocabulary(ids=(), hash_buckets=5)
    after = before.grow(_frame({"a": 9}), 1)
    assert after.bucket_of(after.encode_one("a")) == before.encode_one("a")


@given(first=COUNTS, second=COUNTS, buckets=st.integers(0, 4), threshold=st.integers(1, 5))
def test_growth_is_append_only_and_deterministic(first, second, buckets, threshold):
    old = Vocabulary(ids=(), hash_buckets=buckets).grow(_frame(first), threshold)
    new = old.grow(_frame(second), threshold)
    assert new.ids[: len(old.ids)] == old.ids
    assert set(new.ids) == {i for c in (first, second) for i, n in c.items() if n >= threshold}
    assert len(set(new.ids)) == len(new.ids)
    shuffled = _frame(dict(reversed(second.items())))
    assert old.grow(shuffled, threshold) == new
    assert old.grow(shuffled, threshold).digest() == new.digest()
    for name in old.ids:
        assert new.encode_one(name) == old.encode_one(name)


@given(
    ids=st.lists(st.text(max_size=4), unique=True, max_size=8),
    asked=st.lists(st.none() | st.text(max_size=4)),
    buckets=st.integers(0, 3),
)
def test_one_and_many_encode_alike_and_in_bounds(ids, asked, buckets):
    vocabulary = Vocabulary(ids=tuple(ids), hash_buckets=buckets)
    many = vocabulary.encode(pl.Series("x", asked, dtype=pl.String)).tolist()
    assert many == [vocabulary.encode_one(value) for value in asked]
    assert all(0 <= number < vocabulary.size for number in many)
    some = [value for value in asked if value is not None]
    numbers = [vocabulary.encode_one(value) for value in some]
    assert vocabulary.encode_few(some).tolist() == numbers
    with mock.patch.object(module, "_MAX_DICT", -1):  # as with very many ids
        assert [vocabulary.encode_one(value) for value in asked] == many
        assert vocabulary.encode_few(some).tolist() == numbers


def test_the_digest_sees_ids_order_and_buckets():
    digests = {
        Vocabulary(ids=ids, hash_buckets=buckets).digest()
        for ids, buckets in [(("a", "b"), 0), (("b", "a"), 0), (("ab",), 0), (("a", "b"), 1), ((), 0)]
    }
    assert len(digests) == 5


@given(ids=st.lists(st.text(max_size=5), unique=True, max_size=6), buckets=st.integers(0, 100))
def test_a_round_trip(tmp_path_factory, ids, buckets):
    path = tmp_path_factory.mktemp("v") / "v.parquet"
    vocabulary = Vocabulary(ids=tuple(ids), hash_buckets=buckets)
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary
    assert [p.name for p in path.parent.iterdir()] == ["v.parquet"]


@pytest.mark.parametrize("content", [None, b"", b"PAR1 torn"])
def test_what_is_no_vocabulary(tmp_path, content):
    path = tmp_path / "v.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match="is not a vocabulary"):
        Vocabulary.load(path)


def test_a_parquet_file_without_our_metadata(tmp_path):
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(BundleError, match="is not a vocabulary"):
        Vocabulary.load(tmp_path / "v.parquet")


@pytest.mark.parametrize("times", [50, 500])
def test_an_unlisted_id_is_hashed_once_however_often_it_comes(monkeypatch, times):
    vocabulary, hashed = Vocabulary(ids=("a",), hash_buckets=7), []
    bucket = Vocabulary._bucket
    monkeypatch.setattr(
        Vocabulary, "_bucket", lambda self, value: hashed.append(value) or bucket(self, value)
    )
    codes = vocabulary.encode(pl.Series(["x", "a", None, "y", "x"] * times))
    assert sorted(hashed) == ["x", "y"]
    monkeypatch.undo()
    assert codes.tolist() == [vocabulary.encode_one(v) for v in ["x", "a", None, "y", "x"]] * times


KEY, OTHER = UserKey.of(bytes(range(32))), UserKey.of(bytes(32))


@given(
    ids=st.lists(st.text(max_size=4), unique=True, max_size=8),
    asked=st.lists(st.none() | st.text(max_size=4)),
    buckets=st.integers(0, 3),
)
@pytest.mark.parametrize(("most_in_dict", "few"), [(0, 0), (0, 1_000), (100, 0), (100, 1_000)])
def test_a_key_changes_no_number_however_it_is_looked_up(most_in_dict, few, ids, asked, buckets):
    clear = Vocabulary(ids=tuple(ids), hash_buckets=buckets)
    keyed = clear.keyed(KEY)
    with mock.patch.object(module, "_MAX_DICT", most_in_dict), mock.patch.object(module, "_FEW", few):
        np.testing.assert_array_equal(keyed.encode(pl.Series(ids, dtype=pl.String)), clear.encode_few(ids))
        found = keyed.encode(pl.Series(asked, dtype=pl.String)).tolist()
        assert found == [keyed.encode_one(value) for value in asked]
        assert keyed.encode_few([a for a in asked if a is not None]).tolist() == [
            number for number, a in zip(found, asked, strict=True) if a is not None
        ]
    assert keyed.keyed(KEY) is keyed


def test_users_are_listed_and_ordered_by_their_hashes():
    """By their ids, equal counts would tell which hash is whose."""
    counts = {f"user-{n:03d}": 1 for n in range(50)} | {"top": 2}
    keyed, other = (Vocabulary(ids=(), hash_buckets=2, key=k).grow(_frame(counts), 1) for k in (KEY, OTHER))
    assert keyed.ids[0] == KEY.hash_one("top")
    assert list(keyed.ids[1:]) == sorted(KEY.hash_one(user) for user in counts if user != "top")
    assert set(keyed.ids).isdisjoint(other.ids)
    assert keyed.digest() != other.digest()
    assert keyed.grow(_frame(counts | {"new": 3}), 1).encode_one("new") == keyed.size
    before = Vocabulary(ids=(), hash_buckets=5, key=KEY)
    after = before.grow(_frame({"a": 9}), 1)
    assert after.bucket_of(after.encode_one("a")) == before.encode_one("a")


def test_a_keyed_file_needs_its_key(tmp_path):
    folder = tmp_path / "runs" / "bundles" / "v1" / "vocabularies"
    folder.mkdir(parents=True)
    keyed = Vocabulary(ids=("u1", "u2"), hash_buckets=3).keyed(KEY)
    keyed.save(folder / "user_id.parquet")
    keyed.write_table(folder / "table")
    key = tmp_path / "runs" / "user_ids.key"
    for read in (
        lambda: Vocabulary.load(folder / "user_id.parquet"),
        lambda: Vocabulary.map(folder / "table"),
    ):
        with pytest.raises(
            BundleError, match=f"hashed with the key {KEY.name}, and {key} is not there; copy"
        ):
            read()
        write_user_key(tmp_path / "runs", OTHER.secret)
        with pytest.raises(BundleError, match=f"{key} is the key {OTHER.name}; copy user_ids.key there"):
            read()
        key.unlink()
        write_user_key(tmp_path / "runs", KEY.secret)
        assert (read().encode_one("u2"), read().size) == (keyed.encode_one("u2"), keyed.size)
        key.unlink()
    nameless = Vocabulary.load(folder / "user_id.parquet", name_alone)
    assert (nameless.size, nameless.digest()) == (keyed.size, keyed.digest())
    with pytest.raises(BundleError, match="restore the former"):
        keyed.keyed(OTHER)
