import base64

import pytest

from recsys.config import PolicyConfig, RetrievalConfig
from serving.engine import Engine
from serving.live_catalogue import ItemOverlay
from serving.page_tokens import PageTokens
from serving.request import Deadline, FieldError, RankRequest


@pytest.fixture
def scored(fakes):
    engine = Engine(fakes.model(), ItemOverlay(), policy=PolicyConfig(), retrieval=RetrievalConfig())
    request = RankRequest(user_id="u1")
    return [engine.score_candidates(request, fakes.NOON_MS, Deadline.after(60)) for _ in range(3)]


def test_a_token_leads_back_to_its_page(scored) -> None:
    tokens = PageTokens()
    token = tokens.issue(scored[0], (0, 10), "u1", 0)
    page = tokens.read(token, "u1", 1)
    assert page.scored is scored[0]
    assert page.starts == (0, 10)


def test_any_changed_byte_is_noticed(scored) -> None:
    tokens = PageTokens()
    data = base64.urlsafe_b64decode(tokens.issue(scored[0], (0, 10), "u1", 0) + "==")
    for position in range(len(data)):
        forged = bytearray(data)
        forged[position] ^= 1
        with pytest.raises(FieldError, match="this server did not issue it"):
            tokens.read(base64.urlsafe_b64encode(bytes(forged)).decode(), "u1", 1)


@pytest.mark.parametrize("token", ["", "a", "%", "ü", "A" * 10_000, "AAAA\n"])
def test_an_unreadable_token_is_refused(scored, token) -> None:
    with pytest.raises(FieldError, match="page_token"):
        PageTokens().read(token, "u1", 1)


def test_a_token_of_another_server_or_user_is_refused(scored) -> None:
    tokens = PageTokens()
    token = tokens.issue(scored[0], (0, 10), "u1", 0)
    with pytest.raises(FieldError, match="this server did not issue it"):
        PageTokens().read(token, "u1", 1)
    with pytest.raises(FieldError, match="another user's list"):
        tokens.read(token, "u2", 1)


def test_expired_and_surplus_candidates_are_forgotten(scored) -> None:
    tokens = PageTokens(max_kept=2, keep_ms=100)
    issued = [tokens.issue(one, (0, 10), "u1", at) for at, one in enumerate(scored)]
    with pytest.raises(FieldError, match="it has expired; ask for the first page again"):
        tokens.read(issued[0], "u1", 3)
    assert tokens.read(issued[2], "u1", 102).scored is scored[2]
    with pytest.raises(FieldError, match="expired"):
        tokens.read(issued[2], "u1", 103)
    tokens.issue(scored[0], (0, 10), "u1", 1_000)
    assert len(tokens._kept) == 1
