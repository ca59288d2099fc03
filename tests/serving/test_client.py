"""The Python client: the README's example, and arguments of the wrong name or type."""

import re
from pathlib import Path

import pytest

from protos.recsys.v1 import ranking_pb2 as pb
from recsys.errors import RequestError
from serving.client import RecsysClient
from serving.client_messages import new_message, with_messages
from serving.client_values import Feedback, ItemUpdate

README = Path(__file__).parents[2] / "README.md"
ADDRESS = "127.0.0.1:50051"


def test_the_readmes_example_works(start) -> None:
    one = start()
    found = re.search(r"## The Python client\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    assert found[1].count(ADDRESS) == 1
    names: dict = {}
    exec(found[1].replace(ADDRESS, one.client.target), names)  # the README's own lines
    assert [item.position for item in names["following"].items] == [6, 7, 8, 9, 10]
    seed, similar = names["answer"].items[0], names["similar"].items
    assert len(similar) == 5
    assert seed.item_id not in [item.item_id for item in similar]
    assert names["report"].num_accepted == 1


def test_a_server_on_this_machine_is_not_asked_through_a_proxy(start, monkeypatch) -> None:
    target = start().client.target
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nobody is there
    with RecsysClient(target) as client:
        client.wait_ready(10.0)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf"), 1e12])
def test_a_deadline_that_grpc_takes_for_passed_is_an_error(timeout_s) -> None:
    with pytest.raises(RequestError, match=r"timeout_s is .*; give seconds above 0, at most 86400"):
        RecsysClient("127.0.0.1:1", timeout_s=timeout_s)


@pytest.fixture(scope="module")
def client():
    """Nobody answers: what is refused here was not sent."""
    with RecsysClient("127.0.0.1:1", timeout_s=0.001) as client:
        yield client


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"user_id": 5}, "RecommendRequest.user_id is 5 (int); give text"),
        ({"page_size": "10"}, "RecommendRequest.page_size is '10' (str); give a whole number of 32 bits"),
        (
            {"page_size": 2**40},
            "RecommendRequest.page_size is 1099511627776 (int); give a whole number of 32",
        ),
        ({"exclude_item_ids": "i1"}, "RecommendRequest.exclude_item_ids is 'i1' (str); give a list of text"),
        ({"exclude_item_ids": [1]}, "RecommendRequest.exclude_item_ids is [1] (list); give a list of text"),
        ({"head_weights": {"a": "b"}}, "head_weights is {'a': 'b'} (dict); give a dict of text to a number"),
        ({"filter": 5}, "RecommendRequest.filter is 5 (int); give Filter (categories, min_price, max_price"),
        ({"filter": {"categories": "lamps"}}, "Filter.categories is 'lamps' (str); give a list of text"),
        ({"filter": {"category": ["a"]}}, "Filter has no field 'category'; its fields are: categories, min_"),
        ({"context": {"device": ["tv"]}}, "context['device'] is ['tv'] (list); give text or a number"),
        ({"context": ["tv"]}, "context is ['tv'] (list); give a dict of text to text or a number"),
        ({"page_sise": 5}, "RecommendRequest has no field 'page_sise'; its fields are: user_id, session_id"),
        ({"pins": [{"item": "a"}]}, "pins is [{'item': 'a'}] (list); give a list of Pin (item_id, position)"),
    ],
)
def test_a_wrong_argument_is_named_with_what_fits(client, fields, message) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        client.recommend(**{"user_id": "u1", **fields})


def test_none_leaves_a_field_unset() -> None:
    more = {"exclude_item_ids": None, "filter": None, "context": None, "pins": None, "surface": None}
    assert new_message(pb.RecommendRequest, with_messages(more)) == pb.RecommendRequest()


def test_wrong_candidates_feedback_and_items_are_named_too(client) -> None:
    with pytest.raises(RequestError, match=r"RankRequest\.item_ids is 'i1' \(str\); give a list of text"):
        client.rank("u1", "i1")
    with pytest.raises(RequestError, match=r"RankRequest\.item_ids is \['i1', 2\] \(list\)"):
        client.rank("u1", (item for item in ("i1", 2)))
    with pytest.raises(RequestError, match=r"FeedbackEvent\.value is 'high' \(str\); give a number"):
        client.record_feedback([Feedback(user_id="u1", item_id="i1", kind="rating", value="high")])
    with pytest.raises(RequestError, match=r"event is \{\} \(dict\); give values of Feedback, from serving"):
        client.record_feedback([{}])
    with pytest.raises(RequestError, match=r"item is 'i1' \(str\); give values of ItemUpdate"):
        client.upsert_items(["i1"])
    with pytest.raises(RequestError, match=r"occurred_at is 'noon' \(str\); give a datetime"):
        client.record_feedback([Feedback(user_id="u1", item_id="i1", kind="click", occurred_at="noon")])
    with pytest.raises(RequestError, match=r"Item\.price is 1\.5 \(float\); give a whole number of 64 bits"):
        client.upsert_items([ItemUpdate(item_id="i1", price=1.5)])
    with pytest.raises(RequestError, match=r"FieldMask\.paths is 'title' \(str\); give a list of text"):
        client.upsert_items([ItemUpdate(item_id="i1")], update_mask="title")
