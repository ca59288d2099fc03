import base64
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from recsys.id_table import id_hash
from recsys.policy import PrefixProbability
from serving.pages.keys import PageKeys
from serving.pages.list_state import MAX_SHOWN, ListState
from serving.pages.request_hash import request_hashes
from serving.pages.tokens import MAX_TOKEN_CHARS, VALID_MS, PageTokens
from serving.request import FieldError, Filter, Pin, RankRequest

REQUEST = RankRequest(user_id="u1")
PREFIX = PrefixProbability(
    explored=True,
    log_greedy=-math.inf,
    log_drawn=-12.345678901234567,
    log_waiting=-2.5,
    log_uniform=-9.25,
    slot=7,
)
CHANGES = {
    "user_id": {"user_id": "u2"},
    "session_id": {"session_id": "s"},
    "surface": {"surface": "home"},
    "context": {"context": {"hour": 3.0}},
    "item_ids": {"item_ids": ("a",)},
    "seed_item_id": {"seed_item_id": "a"},
    "filter": {"filter": Filter(max_price=3)},
    "exclude_item_ids": {"exclude_item_ids": frozenset({"a"})},
    "head_weights": {"head_weights": {"click": 2.0}},
    "experiment_assignments": {"experiments": {"e": "B"}},
    "pins": {"pins": (Pin(item_id="a", position=3),)},
    "debug.seed": {"seed": 3},
}
FREE = {"request_id", "page_size", "page_token", "bundle_version", "explain", "log", "validate_only"}


@pytest.fixture
def tokens(tmp_path: Path) -> PageTokens:
    return PageTokens(PageKeys(tmp_path, VALID_MS))


def state(num_shown: int = 3) -> ListState:
    return ListState.begin(2**64 - 1).after([id_hash(f"i{n}") for n in range(num_shown)], PREFIX)


def read(tokens: PageTokens, token: str, now_ms: int = 1, request: RankRequest = REQUEST) -> ListState:
    return tokens.read(replace(request, page_token=token), now_ms)


def test_a_token_brings_the_list_back_to_the_bit(tokens) -> None:
    before = state()
    assert read(tokens, tokens.issue(before, REQUEST, 0)) == before
    assert before.shown == {id_hash("i0"), id_hash("i1"), id_hash("i2")}
    assert before.start == 3
    without = replace(before, prefix=replace(PREFIX, slot=None, log_waiting=-math.inf))
    assert read(tokens, tokens.issue(without, REQUEST, 0)) == without


def test_the_longest_token_has_the_length_that_is_allowed(tokens) -> None:
    token = tokens.issue(state(MAX_SHOWN), REQUEST, 0)
    assert len(token) == MAX_TOKEN_CHARS
    assert len(read(tokens, token).shown) == MAX_SHOWN


def test_a_longer_token_is_refused_not_cut(tokens) -> None:
    token = tokens.issue(state(MAX_SHOWN), REQUEST, 0)
    with pytest.raises(FieldError, match=f"it has {len(token) + 1} characters, and no token has more than"):
        read(tokens, token + "A")


def test_any_changed_byte_is_noticed(tokens) -> None:
    data = base64.urlsafe_b64decode(tokens.issue(state(), REQUEST, 0) + "==")
    for position in range(len(data)):
        forged = bytearray(data)
        forged[position] ^= 1
        with pytest.raises(FieldError, match="no server of this service issued it"):
            read(tokens, base64.urlsafe_b64encode(bytes(forged)).decode().rstrip("="))


@pytest.mark.parametrize("token", ["a", "%", "ü", "A" * 3_000, "AAAA\n"])
def test_an_unreadable_token_is_refused(tokens, token) -> None:
    with pytest.raises(FieldError, match="page_token: no server of this service issued it"):
        read(tokens, token)


def test_a_token_is_good_for_ten_minutes(tokens) -> None:
    token = tokens.issue(state(), REQUEST, 0)
    assert read(tokens, token, VALID_MS) == read(tokens, token)
    with pytest.raises(FieldError, match="it has expired; ask for the first page again"):
        read(tokens, token, VALID_MS + 1)


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_request_is_refused_by_the_field_s_name(tokens, field) -> None:
    # Other candidates, not none: with none it would be a request of the other method.
    before = replace(REQUEST, item_ids=("b",)) if field == "item_ids" else REQUEST
    token = tokens.issue(state(), before, 0)
    with pytest.raises(FieldError, match=f"page_token: {field} changed since the page before"):
        read(tokens, token, request=replace(REQUEST, **CHANGES[field]))


def test_a_token_of_the_other_method_is_said_to_be_of_it(tokens) -> None:
    rank = replace(REQUEST, item_ids=("a", "b"))
    for first, second, issuer in ((REQUEST, rank, "Recommend"), (rank, REQUEST, "Rank")):
        with pytest.raises(FieldError, match=f"it continues a list of {issuer}; send it there"):
            read(tokens, tokens.issue(state(), first, 0), request=second)


def test_every_field_of_a_request_is_hashed_or_may_change(tokens) -> None:
    assert list(request_hashes(REQUEST)) == list(CHANGES)
    hashed = {name for change in CHANGES.values() for name in change}
    assert hashed | FREE == {field.name for field in fields(RankRequest)}
    token = tokens.issue(state(), REQUEST, 0)
    free = {"page_size": 3, "bundle_version": "v2", "explain": True, "log": False, "validate_only": True}
    assert read(tokens, token, request=replace(REQUEST, **free)).start == 3
