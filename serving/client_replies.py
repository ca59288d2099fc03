"""Reads a server's replies into the client's plain values."""

from datetime import UTC

from protos.recsys.v1 import admin_pb2
from protos.recsys.v1 import ranking_pb2 as pb
from serving.client_values import Answer, Item, ServerStatus, Worker
from serving.explanation import HistoryEvent, ItemExplanation, SimilarItem


def read_status(reply: admin_pb2.GetStatusResponse) -> ServerStatus:
    """Read a server's status."""
    return ServerStatus(
        server_id=reply.server_id,
        bundle_version=reply.bundle_version,
        current_version=reply.current_version,
        reload_error=reply.reload_error,
        degradation=tuple(reply.degradation),
        calls=dict(reply.calls),
        num_expired=reply.num_expired,
        num_shed=reply.num_shed,
        latency_ms=dict(reply.latency_ms),
        now=reply.now.ToDatetime(tzinfo=UTC),
        device=reply.device,
        index_device=reply.index_device,
        stages_ms={
            stage: {"p50": found.p50_ms, "p99": found.p99_ms} for stage, found in reply.stages.items()
        },
        index_kind=reply.index_kind,
        engine=reply.engine,
        engines_refused=reply.engines_refused,
        store=dict(reply.store),
        num_impressions=reply.num_impressions,
        num_lists=reply.num_lists,
        num_explored_lists=reply.num_explored_lists,
        degraded_answers=dict(reply.degraded_answers),
        workers=tuple(_worker(worker) for worker in reply.workers),
    )


def read_answer(reply: pb.RecommendResponse | pb.RankResponse) -> Answer:
    """Read a page of a ranked list."""
    explained = reply.HasField("explanation")
    return Answer(
        items=tuple(
            Item(
                item_id=r.item_id,
                title=r.title,
                position=r.position,
                score=r.score,
                predictions=dict(r.predictions),
                sources=tuple(r.sources),
                reasons=tuple(r.reasons),
                propensity=r.propensity,
                propensity_kind=r.propensity_kind,
                impression_id=r.impression_id,
                explanation=_item_explanation(r.explanation) if r.HasField("explanation") else None,
            )
            for r in reply.results
        ),
        request_id=reply.request_id,
        list_id=reply.list_id,
        bundle_version=reply.bundle_version,
        next_page_token=reply.next_page_token,
        degradation=tuple(reply.degradation.reasons),
        missing_item_ids=tuple(reply.missing_item_ids),
        server_s=reply.server_time.ToNanoseconds() / 1e9,
        seed=reply.explanation.seed if explained else None,
        explored=reply.explanation.explored if explained else None,
        num_candidates=dict(reply.explanation.num_candidates),
        stage_ms=dict(reply.explanation.stage_ms),
        known_user=reply.explanation.known_user if explained else None,
        history=tuple(
            HistoryEvent(item_id=e.item_id, kind=e.kind, age_s=e.age.ToNanoseconds() / 1e9)
            for e in reply.explanation.history
        ),
        formula=reply.explanation.formula,
        weights=dict(reply.explanation.weights),
    )


def _item_explanation(explained: pb.ItemExplanation) -> ItemExplanation:
    return ItemExplanation(
        contributions=dict(explained.contributions),
        nearest=tuple(
            SimilarItem(item_id=one.item_id, title=one.title, kind=one.kind, cosine=one.cosine)
            for one in explained.nearest
        ),
        gates={task: tuple(gate.weights) for task, gate in explained.gates.items()},
    )


def _worker(worker: admin_pb2.WorkerStatus) -> Worker:
    return Worker(
        number=worker.number,
        state=worker.state,
        num_restarts=worker.num_restarts,
        server_id=worker.server_id,
        pid=worker.pid,
        bundle_version=worker.bundle_version,
        loaded_versions=tuple(worker.loaded_versions),
        reload_error=worker.reload_error,
        journal_healthy=worker.journal_healthy,
        device=worker.device,
        engine=worker.engine,
        engines_refused=worker.engines_refused,
    )
