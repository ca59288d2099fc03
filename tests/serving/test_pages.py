import base64

import pytest

from recsys.config import PolicyConfig, RetrievalConfig
from serving.engine import Engine
from serving.overlay import Overlay
from serving.pages import Pages
from serving.request import Budget, FieldError, RankRequest


@pytest.fixture
def slates(fakes):
    engine = Engine(fakes.model(), Overlay(), policy=PolicyConfig(), retrieval=RetrievalConfig())
    return [engine.slate(RankRequest(user_id="u1"), fakes.NOON_MS, Budget.of(60)) for _ in range(3)]


def test_a_token_leads_back_to_its_page(slates) -> None:
    pages = Pages()
    token = pages.remember(slates[0], (0, 10), "u1", 0)
    page = pages.open(token, "u1", 1)
    assert page.slate is slates[0]
    assert page.starts == (0, 10)


def test_any_changed_byte_is_noticed(slates) -> None:
    pages = Pages()
    data = base64.urlsafe_b64decode(pages.remember(slates[0], (0, 10), "u1", 0) + "==")
    for position in range(len(data)):
        forged = bytearray(data)
        forged[position] ^= 1
        with pytest.raises(FieldError, match="no token of this server"):
            pages.open(base64.urlsafe_b64encode(bytes(forged)).decode(), "u1", 1)


@pytest.mark.parametrize("token", ["", "a", "%", "ü", "A" * 10_000, "AAAA\n"])
def test_nonsense_is_refused(slates, token) -> None:
    with pytest.raises(FieldError, match="page_token"):
        Pages().open(token, "u1", 1)


def test_a_token_of_another_server_or_user_is_refused(slates) -> None:
    pages = Pages()
    token = pages.remember(slates[0], (0, 10), "u1", 0)
    with pytest.raises(FieldError, match="no token of this server"):
        Pages().open(token, "u1", 1)
    with pytest.raises(FieldError, match="another user's list"):
        pages.open(token, "u2", 1)


def test_old_and_surplus_slates_are_forgotten(slates) -> None:
    pages = Pages(max_slates=2, keep_ms=100)
    tokens = [pages.remember(slate, (0, 10), "u1", at) for at, slate in enumerate(slates)]
    with pytest.raises(FieldError, match="it has expired; ask for the first page again"):
        pages.open(tokens[0], "u1", 3)
    assert pages.open(tokens[2], "u1", 102).slate is slates[2]
    with pytest.raises(FieldError, match="expired"):
        pages.open(tokens[2], "u1", 103)
    pages.remember(slates[0], (0, 10), "u1", 1_000)
    assert len(pages._slates) == 1
