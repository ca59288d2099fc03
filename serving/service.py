"""The gRPC servicer of RankingService: translates between proto messages and plain values, nothing else."""

from collections.abc import Iterable, Mapping

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from protos.recsys.v1 import ranking_pb2 as pb
from protos.recsys.v1 import ranking_pb2_grpc
from serving.answer_message import write_answer
from serving.call_log import current_call
from serving.call_queue import time_left
from serving.catalogue.items import FieldValue, ItemPatch
from serving.feedback import FeedbackOutcome, FeedbackRecorder, SentFeedback
from serving.instants import instant_ms
from serving.interceptors import is_waiting
from serving.recommender import Recommender
from serving.request import Deadline, FieldError, Filter, Pin, RankedList, RankRequest
from serving.request_checks import MAX_BATCH, Limits, check_count, check_request, page_size
from serving.session_merger import SessionMerger
from serving.stages import StageTimer
from serving.stats import ServerStats
from serving.upserts import ItemUpserter

_STATUS: Mapping[str, pb.FeedbackResult.Status.ValueType] = {
    "accepted": pb.FeedbackResult.STATUS_ACCEPTED,
    "duplicate": pb.FeedbackResult.STATUS_DUPLICATE,
    "rejected": pb.FeedbackResult.STATUS_REJECTED,
}
Context = Mapping[str, pb.ContextValue]


class RankingService(ranking_pb2_grpc.RankingServiceServicer):
    """Answers the four calls of the ranking port."""

    def __init__(
        self,
        recommender: Recommender,
        feedback: FeedbackRecorder,
        session_merger: SessionMerger,
        upserts: ItemUpserter,
        stats: ServerStats,
        limits: Limits,
        default_deadline_s: float,
    ) -> None:
        self._recommender = recommender
        self._feedback = feedback
        self._session_merger = session_merger
        self._upserts = upserts
        self._stats = stats
        self._limits = limits
        self._default_deadline_s = default_deadline_s

    def Recommend(self, request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        """Find candidates and rank them."""
        timer = StageTimer()
        checked = _request(request, self._limits, item_ids=None, seed_item_id=request.seed_item_id or None)
        timer.record("parse")
        answer = self._rank(checked, context, timer)
        response = write_answer(pb.RecommendResponse(), answer, timer)
        self._answered(timer)
        return response

    def Rank(self, request: pb.RankRequest, context: grpc.ServicerContext) -> pb.RankResponse:
        """Rank the caller's candidates."""
        timer = StageTimer()
        checked = _request(
            request, self._limits, item_ids=tuple(dict.fromkeys(request.item_ids)), seed_item_id=None
        )
        timer.record("parse")
        answer = self._rank(checked, context, timer)
        response = write_answer(pb.RankResponse(), answer, timer)
        self._answered(timer)
        return response

    def RecordFeedback(
        self, request: pb.RecordFeedbackRequest, context: grpc.ServicerContext
    ) -> pb.RecordFeedbackResponse:
        """Record what users did."""
        deadline = self._deadline(context)
        check_count("events", len(request.events), MAX_BATCH)
        sent = [_sent_feedback(event) for event in request.events]
        if not request.validate_only:
            self._session_merger.merge_within(
                [(event.user_id, event.session_id) for event in sent if event.session_id],
                _MERGE_SHARE * deadline.remaining_s(),
            )
        recorded = self._feedback.record(sent, validate_only=request.validate_only, deadline=deadline)
        self._session_merger.invalidate(event.user_id for event in sent)
        return pb.RecordFeedbackResponse(
            results=[_feedback_result(outcome) for outcome in recorded.outcomes],
            num_accepted=_count(recorded.outcomes, "accepted"),
            num_duplicate=_count(recorded.outcomes, "duplicate"),
            num_rejected=_count(recorded.outcomes, "rejected"),
            degradation=pb.Degradation(reasons=recorded.degradation),
        )

    def UpsertItems(
        self, request: pb.UpsertItemsRequest, context: grpc.ServicerContext
    ) -> pb.UpsertItemsResponse:
        """Add or change items."""
        check_count("items", len(request.items), MAX_BATCH)
        patches, unreadable = _patches(request.items)
        results = self._upserts.upsert(
            patches,
            request.update_mask.paths,
            unreadable=unreadable,
            deadline=self._deadline(context),
            validate_only=request.validate_only,
        )
        return pb.UpsertItemsResponse(
            results=[
                pb.UpsertResult(item_id=r.item_id, rejection=r.rejection, in_bundle=r.in_bundle)
                for r in results
            ],
            num_written=sum(not r.rejection for r in results) * (not request.validate_only),
        )

    def _rank(self, checked: RankRequest, context: grpc.ServicerContext, timer: StageTimer) -> RankedList:
        deadline = self._deadline(context)
        if checked.session_id is not None and checked.log and not checked.validate_only:
            self._session_merger.merge_within(
                [(checked.user_id, checked.session_id)], _MERGE_SHARE * deadline.remaining_s()
            )
            timer.record("merge")
        return self._recommender.answer(checked, deadline, timer)

    def _answered(self, timer: StageTimer) -> None:
        timer.record("response")
        self._stats.staged(timer.stage_s)

    def _deadline(self, context: grpc.ServicerContext) -> Deadline:
        remaining_s = time_left(context)
        seconds = self._default_deadline_s if remaining_s is None else remaining_s
        return Deadline.after(seconds, lambda: not is_waiting(context))


_MERGE_SHARE = 0.25  # of the time left: a call waits so long for its session to be merged


def _request(
    request: pb.RecommendRequest | pb.RankRequest,
    limits: Limits,
    item_ids: tuple[str, ...] | None,
    seed_item_id: str | None,
) -> RankRequest:
    if not request.user_id and not request.session_id:
        raise FieldError("user_id", "it is empty; send a user_id, or a session_id when nobody is logged in")
    debug, call = request.debug, current_call()
    call.user_id = request.user_id or request.session_id
    checked = RankRequest(
        request_id=call.request_id,
        user_id=request.user_id or request.session_id,
        session_id=request.session_id or None,
        surface=request.surface or None,
        context=_context(request.context, "context"),
        item_ids=item_ids,
        seed_item_id=seed_item_id,
        page_size=page_size(request.page_size, limits),
        page_token=request.page_token,
        filter=_filter(request.filter),
        exclude_item_ids=frozenset(request.exclude_item_ids),
        head_weights=dict(request.head_weights),
        bundle_version=request.bundle_version or None,
        experiments=dict(request.experiment_assignments),
        pins=tuple(Pin(item_id=pin.item_id, position=pin.position) for pin in request.pins),
        seed=debug.seed if debug.HasField("seed") else None,
        explain=debug.explain,
        log=not debug.do_not_log,
        validate_only=request.validate_only,
    )
    check_request(checked, limits)
    return checked


def _filter(sent: pb.Filter) -> Filter:
    return Filter(
        categories=frozenset(sent.categories),
        min_price=sent.min_price if sent.HasField("min_price") else None,
        max_price=sent.max_price if sent.HasField("max_price") else None,
        allow_item_ids=frozenset(sent.allow_item_ids),
        deny_item_ids=frozenset(sent.deny_item_ids),
        include_unavailable=sent.include_unavailable,
    )


def _context(values: Context, field: str) -> dict[str, str | float]:
    return {name: _value(value, f"{field}[{name[:80]!r}]") for name, value in values.items()}


def _value(value: pb.ContextValue, field: str) -> str | float:
    kind = value.WhichOneof("value")
    if kind is None:
        raise FieldError(field, "it is empty; set text or number, or leave the entry out")
    return value.text if kind == "text" else value.number


def _sent_feedback(event: pb.FeedbackEvent) -> SentFeedback:
    occurred_at_ms, unreadable = None, None
    try:
        if event.HasField("occurred_at"):
            occurred_at_ms = _milliseconds("occurred_at", event.occurred_at)
    except FieldError as error:
        unreadable = error
    return SentFeedback(
        feedback_id=event.feedback_id,
        impression_id=event.impression_id,
        user_id=event.user_id or event.session_id,
        session_id=event.session_id,
        item_id=event.item_id,
        kind=event.kind,
        value=event.value if event.HasField("value") else None,
        occurred_at_ms=occurred_at_ms,
        unreadable=unreadable,
    )


def _feedback_result(outcome: FeedbackOutcome) -> pb.FeedbackResult:
    return pb.FeedbackResult(
        feedback_id=outcome.feedback_id, status=_STATUS[outcome.status], reason=outcome.reason
    )


def _count(outcomes: Iterable[FeedbackOutcome], status: str) -> int:
    return sum(outcome.status == status for outcome in outcomes)


def _patches(items: Iterable[pb.Item]) -> tuple[list[ItemPatch], dict[int, FieldError]]:
    """Read items, and what of some (by their place) is no value of ours: that refuses no other item."""
    patches, unreadable = [], {}
    for at, item in enumerate(items):
        try:
            patches.append(_patch(item))
        except FieldError as error:
            patches.append(ItemPatch(item_id=item.item_id, fields={}))
            unreadable[at] = error
    return patches, unreadable


def _patch(item: pb.Item) -> ItemPatch:
    fields: dict[str, FieldValue] = {}
    if item.HasField("title"):
        fields["title"] = item.title
    if item.HasField("description"):
        fields["description"] = item.description
    if item.HasField("category"):
        fields["category"] = item.category
    if item.HasField("price"):
        fields["price"] = item.price
    if item.HasField("available_from"):
        fields["available_from"] = _milliseconds("available_from", item.available_from)
    if item.HasField("available_until"):
        fields["available_until"] = _milliseconds("available_until", item.available_until)
    if item.attributes:
        fields["attributes"] = _context(item.attributes, "attributes")
    return ItemPatch(item_id=item.item_id, fields=fields)


def _milliseconds(field: str, instant: Timestamp) -> int:
    return instant_ms(field, instant.seconds, instant.nanos)
