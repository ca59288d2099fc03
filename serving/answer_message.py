"""Converts an answer to the fields of RecommendResponse and RankResponse."""

from google.protobuf.duration_pb2 import Duration

from protos.recsys.v1 import ranking_pb2 as pb
from serving.explanation import ItemExplanation, ListExplanation
from serving.journal_rows import impression_id
from serving.request import RankedItem, RankedList
from serving.stages import StageTimer

_NANOS = 1_000_000_000


def answer_fields(answer: RankedList, timer: StageTimer) -> dict[str, object]:
    """Return the fields, which both messages have alike. Args: timer: of the call, begun with it."""
    fields: dict[str, object] = {
        "results": [_item(answer.request_id, item) for item in answer.items],
        "next_page_token": answer.next_page_token,
        "request_id": answer.request_id,
        "list_id": answer.list_id,
        "bundle_version": answer.bundle_version or "",
        "degradation": pb.Degradation(reasons=answer.degradation),
        "missing_item_ids": answer.missing_item_ids,
    }
    if answer.explanation is not None:
        fields["explanation"] = _explanation(answer, answer.explanation, timer)
    fields["server_time"] = _duration(timer.elapsed_s())
    return fields


def _item(request_id: str, item: RankedItem) -> pb.RankedItem:
    return pb.RankedItem(
        item_id=item.item_id,
        position=item.position,
        score=item.score,
        predictions=item.predictions,
        sources=item.sources,
        reasons=item.reasons,
        propensity=item.propensity,
        propensity_kind=item.propensity_kind,
        impression_id=impression_id(request_id, item.position),
        title=item.title or "",
        explanation=None if item.explanation is None else _item_explanation(item.explanation),
    )


def _explanation(answer: RankedList, explained: ListExplanation, timer: StageTimer) -> pb.Explanation:
    return pb.Explanation(
        num_candidates=answer.num_candidates,
        seed=answer.seed,
        explored=answer.explored,
        stage_ms=timer.milliseconds(),
        known_user=answer.known_user,
        history=[
            pb.HistoryEvent(item_id=event.item_id, kind=event.kind, age=_duration(event.age_ms / 1000))
            for event in explained.history
        ],
        formula=explained.formula,
        weights=explained.weights,
    )


def _item_explanation(explained: ItemExplanation) -> pb.ItemExplanation:
    return pb.ItemExplanation(
        contributions=explained.contributions,
        nearest=[
            pb.SimilarItem(item_id=one.item_id, title=one.title or "", kind=one.kind, cosine=one.cosine)
            for one in explained.nearest
        ],
        gates={task: pb.GateWeights(weights=weights) for task, weights in explained.gates.items()},
    )


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int(_NANOS * (seconds - whole)))
