"""Requests over a real connection: what is answered, what is refused and how, what is written down."""

import math
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protos.recsys.v1 import ranking_pb2 as pb
from protos.recsys.v1 import ranking_pb2_grpc
from recsys.schema import TABLES
from serving.client_values import CallError, Feedback, ItemUpdate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATIENCE_S = 120.0


@pytest.fixture
def one(start):
    return start(policy={"name": "greedy"})


def tables(one, name):
    return [row for row in one.journal() if row["table"] == name]


def test_an_answer_names_its_version_and_is_journalled_before_it_is_sent(one) -> None:
    answer = one.client.recommend("u1", 3, surface="home", context={"device": "tv", "hour": 21})
    assert [item.item_id for item in answer.items] == ["i39", "i38", "i37"]
    assert (answer.bundle_version, answer.degradation, answer.missing_item_ids) == ("v1", (), ())
    assert 0 < answer.server_s < 5
    (request,) = tables(one, "requests")
    assert request["request_id"] == answer.request_id
    assert (request["surface"], request["page_size"], request["bundle_version"]) == ("home", 3, "v1")
    impressions = tables(one, "impressions")
    assert [i["impression_id"] for i in impressions] == [item.impression_id for item in answer.items]
    assert [i["propensity"] for i in impressions] == [item.propensity for item in answer.items]
    assert all((i["context_device"], i["context_hour"]) == ("tv", 21) for i in impressions)
    assert {i["shown_at"] - request["requested_at"] for i in impressions} == {0}


def test_journal_rows_have_the_columns_of_their_tables(one) -> None:
    one.client.recommend("u1", context={"device": "tv"}, experiment_assignments={"button": "red"})
    one.client.record_feedback([Feedback(user_id="u1", item_id="i1", kind="click")])
    one.client.upsert_items([ItemUpdate(item_id="i1", attributes={"size": 3})])
    for row in one.journal():
        table = row.pop("table")
        fixed = (
            [*TABLES["items"].column_names(), "fields"]
            if table == "item_patches"
            else TABLES[table].column_names()
        )
        assert {c for c in row if not c.startswith(("context_", "attribute_"))} <= set(fixed)


def test_page_size_0_is_the_default(one) -> None:
    assert len(one.client.recommend("u1").items) == 10
    assert len(one.client.rank("u1", [f"i{n}" for n in range(30)]).items) == 10
    assert len(one.client.rank("u1", ["i1", "i2"]).items) == 2


def test_a_session_id_replaces_a_user_id(one) -> None:
    one.client.recommend("", 1, session_id="s1")
    (request,) = tables(one, "requests")
    assert (request["user_id"], request["session_id"]) == ("s1", "s1")


def test_an_unknown_user_is_answered(one) -> None:
    assert len(one.client.recommend("nobody-knows-me").items) == 10


BAD = {
    "no user": ({"user_id": ""}, "user_id", "it is empty; send a user_id, or a session_id"),
    "page size 10,000": (
        {"page_size": 10_000},
        "page_size",
        "10000 is out of range; send 1 to 200, or 0 for 10",
    ),
    "negative page size": ({"page_size": -1}, "page_size", "-1 is out of range"),
    "NaN weight": (
        {"head_weights": {"click": math.nan}},
        "head_weights",
        "the weight nan of 'click' is not between -1e+06 and 1e+06",
    ),
    "infinite weight": ({"head_weights": {"click": math.inf}}, "head_weights", "not between"),
    "huge weight": ({"head_weights": {"click": 1e308}}, "head_weights", "send a smaller one"),
    "long head": ({"head_weights": {"x" * 100_000: 1}}, "head_weights", "has 100000 bytes; send at most 256"),
    "many heads": ({"head_weights": {f"h{n}": 1 for n in range(65)}}, "head_weights", "65 entries"),
    "long version": ({"bundle_version": "v" * 100_000}, "bundle_version", "has 100000 bytes"),
    "unknown head": ({"head_weights": {"like": 1}}, "head_weights", "no task is called 'like'"),
    "long user id": ({"user_id": "x" * 257}, "user_id", "has 257 bytes; send at most 256"),
    "control character": ({"user_id": "a\nb"}, "user_id", "contains a control character"),
    "NaN context": ({"context": {"hour": math.nan}}, "context['hour']", "nan is not a finite number"),
    "long context": ({"context": {"device": "x" * 1025}}, "context['device']", "has 1025 bytes"),
    "context name": ({"context": {"a b": 1}}, "context", "the name 'a b' is not allowed"),
    "much context": (
        {"context": {f"c{n}": 1 for n in range(65)}},
        "context",
        "65 entries are too many; send at most 64",
    ),
    "empty context value": ({"context_raw": True}, "context['device']", "it is empty; set text or number"),
    "negative price": ({"filter": {"min_price": -1}}, "filter.min_price", "-1 is negative"),
    "prices swapped": (
        {"filter": {"min_price": 5, "max_price": 1}},
        "filter.max_price",
        "1 is below min_price 5",
    ),
    "empty deny id": ({"filter": {"deny_item_ids": [""]}}, "filter.deny_item_ids", "it is empty; send an id"),
    "many excluded": (
        {"exclude_item_ids": [f"i{n}" for n in range(10_001)]},
        "exclude_item_ids",
        "at most 10000",
    ),
    "pin at 0": ({"pins": {0: "i1"}}, "pins.position", "0 is out of range"),
    "pin twice": ({"pins": {1: "i1", 2: "i1"}}, "pins.item_id", "'i1' is sent twice"),
    "forged token": ({"page_token": "bm9uc2Vuc2U"}, "page_token", "no server of this service issued it"),
    "long token": (
        {"page_token": "A" * 6_000},
        "page_token",
        "it has 6000 characters",
    ),
    "bad token": ({"page_token": "%%%"}, "page_token", "no server of this service issued it"),
    "many experiments": (
        {"experiment_assignments": {f"e{n}": "a" for n in range(65)}},
        "experiment_assignments",
        "65 entries",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("validate_only", [False, True])
def test_bad_input_is_refused_with_field_value_and_remedy(one, case, validate_only) -> None:
    fields, field, problem = BAD[case]
    fields = dict(fields)
    if fields.pop("context_raw", False):
        request = pb.RecommendRequest(user_id="u1", context={"device": pb.ContextValue()})
        with pytest.raises(grpc.RpcError) as refused:
            ranking_pb2_grpc.RankingServiceStub(one.client.channel).Recommend(request, timeout=PATIENCE_S)
        error = refused.value
    else:
        with pytest.raises(CallError) as refused:
            one.client.recommend(fields.pop("user_id", "u1"), validate_only=validate_only, **fields)
        error = refused.value.__cause__
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == f"{field}: {error.details().removeprefix(f'{field}: ')}"
    assert problem in error.details()
    violation = violations(error)[0]
    assert (violation.field, problem in violation.description) == (field, True)
    assert one.journal() == []


def violations(error: grpc.RpcError):
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    detail = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(detail)
    return detail.field_violations


@pytest.mark.parametrize(
    ("item_ids", "problem"),
    [
        ([], "item_ids: the list is empty; send the candidates"),
        ([f"i{n}" for n in range(2_001)], "2001 ids are too many; send at most 2000"),
        ([""], "item_ids: it is empty"),
        (["x" * 300], "has 300 bytes"),
    ],
)
def test_bad_candidates(one, item_ids, problem) -> None:
    with pytest.raises(CallError, match="INVALID_ARGUMENT") as refused:
        one.client.rank("u1", item_ids)
    assert problem in refused.value.details


def test_another_version_is_a_failed_precondition(one) -> None:
    with pytest.raises(CallError, match="FAILED_PRECONDITION: bundle_version 'v0' is not loaded; loaded"):
        one.client.recommend("u1", bundle_version="v0")
    assert one.client.recommend("u1", bundle_version="v1").bundle_version == "v1"


text = st.text(max_size=20)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    request=st.builds(
        pb.RecommendRequest,
        user_id=text,
        session_id=text,
        surface=text,
        page_size=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 30),
        page_token=text,
        exclude_item_ids=st.lists(text, max_size=3),
        head_weights=st.dictionaries(st.sampled_from(["click", "rating", "x"]), st.floats(), max_size=2),
        context=st.dictionaries(
            text,
            st.builds(pb.ContextValue, number=st.floats()) | st.builds(pb.ContextValue, text=text),
            max_size=2,
        ),
        pins=st.lists(st.builds(pb.Pin, item_id=text, position=st.integers(-1, 12)), max_size=3),
        filter=st.builds(
            pb.Filter,
            min_price=st.integers(-(2**63), 2**63 - 1),
            categories=st.lists(st.sampled_from(["rugs", "lamps", ""]), max_size=2),
        ),
        seed_item_id=st.sampled_from(["", "i3", "nothing"]),
    )
)
def test_no_request_is_an_internal_error(one, request) -> None:
    stub = ranking_pb2_grpc.RankingServiceStub(one.client.channel)
    answer, call = called(stub, request)
    assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT), call
    assert all(math.isfinite(item.score) and 0 < item.propensity <= 1 for item in answer.results)


def called(stub, request):
    try:
        return stub.Recommend.with_call(request, timeout=PATIENCE_S)
    except grpc.RpcError as error:
        return pb.RecommendResponse(), error


def test_validate_only_answers_nothing_and_writes_nothing(one) -> None:
    answer = one.client.recommend("u1", validate_only=True)
    assert (answer.items, answer.request_id, answer.bundle_version) == ((), "", "v1")
    assert one.loader.scorer.calls == 3  # the warm-up's
    assert one.journal() == []


def test_do_not_log_writes_nothing(one) -> None:
    assert len(one.client.recommend("u1", debug={"do_not_log": True}).items) == 10
    assert one.journal() == []


def test_explain_gives_what_is_needed_to_repeat_the_draw(start) -> None:
    one = start(policy={"epsilon": 1.0, "temperature": 1.0})
    first = one.client.recommend("u1", debug={"explain": True})
    again = one.client.recommend("u1", debug={"explain": True, "seed": first.seed})
    assert [i.item_id for i in first.items] == [i.item_id for i in again.items]
    assert first.explored
    assert first.num_candidates == {"retrieval": 40, "popular": 10}
    assert set(first.stage_ms) == {"parse", "features", "retrieval", "scoring", "policy", "journal"}


def test_a_uniformly_drawn_item_is_marked_in_answer_and_journal(start) -> None:
    one = start(policy={"name": "greedy", "uniform_share": 1.0})
    kinds = [i.propensity_kind for i in one.client.recommend("u1", 10).items]
    assert sorted(kinds) == ["exact"] * 9 + ["uniform"]
    logged = [row for row in one.journal() if row["table"] in ("requests", "impressions")]
    assert [row["propensity_kind"] for row in logged if row["table"] == "impressions"] == kinds
    assert '"uniform_share":1.0' in next(
        row["policy_parameters"] for row in logged if row["table"] == "requests"
    )
    seeded = one.client.recommend("u1", 10, debug={"seed": 3})
    assert {i.propensity_kind for i in seeded.items} == {"seeded"}


def test_feedback_is_accepted_once_and_reaches_journal_and_store(one) -> None:
    answer = one.client.recommend("u1", 2)
    event = Feedback.of(answer.items[0], "u1", "click")
    assert one.client.record_feedback([event, event]).num_duplicate == 1
    report = one.client.record_feedback([event])
    assert (report.num_accepted, report.num_duplicate, report.rejected) == (0, 1, {})
    (row,) = tables(one, "feedback")
    assert row["impression_id"] == answer.items[0].impression_id
    assert row["received_at"] >= row["occurred_at"]
    (stored,) = one.server._store._delta().execute("SELECT feedback_id, user_id, item_id FROM events")
    assert stored == (event.feedback_id, "u1", answer.items[0].item_id)


REJECTED = {
    "no id": ({"feedback_id": ""}, "feedback_id: it is empty"),
    "no user": ({"user_id": ""}, "user_id: it is empty"),
    "no item": ({"item_id": ""}, "item_id: it is empty"),
    "no kind": ({"kind": "Click!"}, "kind: 'Click!' is not a valid kind; send one like 'click'"),
    "NaN": ({"kind": "click", "value": math.nan}, "value: nan is not finite"),
    "no stars": ({"kind": "rating"}, "value: None is not a valid rating; send a number from 1 to 5"),
    "six stars": ({"kind": "rating", "value": 6.0}, "value: 6.0 is not a valid rating"),
    "tomorrow": ({"occurred_at": NOON + timedelta(days=1)}, "is not in the past"),
    "before 1990": ({"occurred_at": datetime(1970, 1, 2, tzinfo=UTC)}, "ms is no time of 1990 to 2099"),
    "unknown": (
        {"kind": "clik"},
        "kind: 'clik' is a kind that the config does not name; send one of click, purchase, rating, refund,",
    ),
}
MILLISECONDS = {"seconds": 1_767_225_600_000}
BAD_INSTANTS = {
    "milliseconds": (MILLISECONDS, "seconds: 1767225600000 looks like milliseconds; send whole seconds"),
    "microseconds": ({"seconds": 1_767_225_600_000_000}, "looks like microseconds"),
    "nanoseconds": ({"seconds": 1_767_225_600_000_000_000}, "looks like nanoseconds"),
    "most": ({"seconds": 2**63 - 1}, "ms is no time of 1990 to 2099"),
    "least": ({"seconds": -(2**63)}, "ms is no time of 1990 to 2099"),
    "1970": ({}, "0 ms is no time of 1990 to 2099"),
    "many nanos": ({"seconds": 1_767_225_600, "nanos": 1_000_000_000}, "nanos: 1000000000 is out of range"),
    "negative nanos": ({"seconds": 1_767_225_600, "nanos": -1}, "nanos: -1 is out of range"),
}


@pytest.mark.parametrize("case", BAD_INSTANTS)
def test_a_wrong_timestamp_refuses_its_event_and_its_item_alone(one, case) -> None:
    parts, problem = BAD_INSTANTS[case]
    stub, stamp = ranking_pb2_grpc.RankingServiceStub(one.client.channel), Timestamp(**parts)
    good = [pb.FeedbackEvent(feedback_id=n, user_id="u3", item_id="i4", kind="click") for n in "ab"]
    bad = pb.FeedbackEvent(feedback_id="x", user_id="u3", item_id="i4", kind="click", occurred_at=stamp)
    events = pb.RecordFeedbackRequest(events=[good[0], bad, good[1]])
    reply = stub.RecordFeedback(events, timeout=PATIENCE_S)
    assert [(r.feedback_id, bool(r.reason)) for r in reply.results] == [("a", 0), ("x", 1), ("b", 0)]
    assert (reply.num_accepted, reply.num_rejected) == (2, 1)
    assert reply.results[1].reason.startswith("occurred_at")
    assert problem in reply.results[1].reason
    assert [row["feedback_id"] for row in tables(one, "feedback")] == ["a", "b"]
    items = [
        pb.Item(item_id="i1", price=5),
        pb.Item(item_id="i2", price=5, available_until=stamp),
        pb.Item(item_id="i2", price=7),
        pb.Item(item_id="i3", attributes={"size": pb.ContextValue()}),
    ]
    written = stub.UpsertItems(pb.UpsertItemsRequest(items=items), timeout=PATIENCE_S)
    assert [bool(r.rejection) for r in written.results] == [False, True, False, True]
    assert written.results[1].rejection.startswith("available_until")
    assert problem in written.results[1].rejection
    assert "attributes['size']: it is empty" in written.results[3].rejection
    assert written.num_written == 2
    assert [(row["item_id"], row["price"]) for row in tables(one, "item_patches")] == [("i1", 5), ("i2", 7)]


def test_a_kind_that_no_head_reads_yet_is_kept_where_the_config_says_so(start) -> None:
    one = start(serving={"more_kinds": ["add_to_cart"]})
    sent = [Feedback(user_id="u1", item_id="i1", kind=kind) for kind in ("add_to_cart", "add_to_basket")]
    report = one.client.record_feedback(sent)
    assert list(report.rejected) == [sent[1].feedback_id]
    assert [row["kind"] for row in tables(one, "feedback")] == ["add_to_cart"]


@pytest.mark.parametrize("case", REJECTED)
def test_each_event_is_evaluated_on_its_own(one, case) -> None:
    changes, problem = REJECTED[case]
    good = Feedback(user_id="u1", item_id="i1", kind="purchase", value=250.0)
    bad = Feedback(**{"user_id": "u1", "item_id": "i1", "kind": "click", "feedback_id": "bad", **changes})
    report = one.client.record_feedback([bad, good])
    assert report.num_accepted == 1
    assert problem in report.rejected[bad.feedback_id]
    assert len(tables(one, "feedback")) == 1


def test_an_instant_slightly_in_the_future_counts_as_now(start, clock) -> None:
    one = start(clock=clock)
    ahead = one.admin.status().now + timedelta(seconds=3)
    event = Feedback(user_id="u1", item_id="i1", kind="click", occurred_at=ahead)
    assert one.client.record_feedback([event]).num_accepted == 1
    (row,) = tables(one, "feedback")
    assert row["occurred_at"] == row["received_at"]


def test_too_many_events_at_once(one) -> None:
    events = [Feedback(user_id="u1", item_id="i1", kind="click")] * 1_001
    with pytest.raises(CallError, match="events: 1001 entries are too many; send at most 1000"):
        one.client.record_feedback(events)


def test_validate_only_feedback_and_items(one) -> None:
    report = one.client.record_feedback(
        [Feedback(user_id="u", item_id="i", kind="click")], validate_only=True
    )
    assert report.num_accepted == 1
    stub = ranking_pb2_grpc.RankingServiceStub(one.client.channel)
    request = pb.UpsertItemsRequest(
        items=[pb.Item(item_id="i39", available_until=Timestamp())], validate_only=True
    )
    assert stub.UpsertItems(request, timeout=PATIENCE_S).num_written == 0
    assert one.journal() == []


def test_a_withdrawn_item_is_gone_at_once_and_can_be_brought_back(one) -> None:
    now = one.admin.status().now
    assert one.client.upsert_items([ItemUpdate(item_id="i39", available_until=now)]) == {}
    assert one.client.recommend("u1", 1).items[0].item_id == "i38"
    one.client.upsert_items([ItemUpdate(item_id="i39")], update_mask=["available_until"])
    assert one.client.recommend("u1", 1).items[0].item_id == "i39"
    rows = tables(one, "item_patches")
    assert [row["fields"] for row in rows] == [["available_until"], ["available_until"]]
    assert rows[1].get("available_until") is None
    item = one.server.recommender.engine.live_catalogue.item("i39")
    assert (item.title, item.attributes, item.available_until_ms) == ("Thing 39", {"colour": "red"}, None)


def test_items_are_merged_field_by_field(one) -> None:
    one.client.upsert_items([ItemUpdate(item_id="i5", price=999), ItemUpdate(item_id="new", title="New")])
    one.client.upsert_items([ItemUpdate(item_id="i5", title="Renamed", attributes={"size": 2})])
    one.client.upsert_items([ItemUpdate(item_id="i5")], update_mask=["price", "attributes"])
    one.client.upsert_items([ItemUpdate(item_id="new", category="rugs"), ItemUpdate(item_id="new", price=1)])
    live = one.server.recommender.engine.live_catalogue
    changed, new = live.item("i5"), live.item("new")
    assert (changed.title, changed.price, changed.attributes) == ("Renamed", None, {})
    assert (new.title, new.category, new.price) == ("New", "rugs", 1)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (ItemUpdate(item_id=""), "item_id: it is empty"),
        (ItemUpdate(item_id="i1", price=-1), "price: -1 is negative"),
        (ItemUpdate(item_id="i1", title="x" * 2_000), "title: "),
        (
            ItemUpdate(item_id="i1", available_from=NOON, available_until=NOON - timedelta(1)),
            "before available_from",
        ),
        (
            ItemUpdate(item_id="i1", attributes={"size": math.inf}),
            "attributes['size']: inf is not a finite number",
        ),
    ],
)
def test_bad_items_are_refused_alone_or_with_their_batch(one, item, problem) -> None:
    try:
        rejection = one.client.upsert_items([item])[item.item_id]
    except CallError as error:
        rejection = error.details
    assert problem in rejection
    assert one.journal() == []


def test_an_unknown_mask_names_the_fields(one) -> None:
    with pytest.raises(CallError, match="update_mask: 'colour' is not a field; known: title, description"):
        one.client.upsert_items([ItemUpdate(item_id="i1")], update_mask=["colour"])
