"""Simulated users of the demo: they request lists over gRPC and send their feedback over gRPC.

Requests and feedback have simulated instants and wait in one queue: requests over the evening, clicks seconds
and purchases up to hours after the list was shown. The server's clock decides what is due.
"""

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import numpy as np

from recsys.simulator.behaviour import CLICK_KIND
from recsys.simulator.population import DEVICES
from recsys.simulator.shop import Shop
from serving.client_values import Answer, CallError, Feedback, FeedbackReport
from serving.demo.click_example import ClickExample
from serving.demo.schedule import ScheduledRequest
from serving.demo.traffic_counts import BundleAnswers, TrafficCounts

OTHER_DEVICE_SHARE = 0.2
_BATCH = 100
_MAX_WAIT_S = 0.05
_MAX_EXAMPLES = 8
_EXAMPLE_DELAY = timedelta(minutes=1)
_Reply = TypeVar("_Reply")


class Clock(Protocol):
    """The server's simulated clock."""

    def now(self) -> datetime:
        """Return the simulated instant."""

    def seconds_until(self, instant: datetime) -> float:
        """Return the real seconds until a simulated instant; negative when it has passed."""


class RecommendationClient(Protocol):
    """The gRPC client, as far as simulated users need it."""

    def recommend(self, user_id: str, page_size: int = 0, **more: Any) -> Answer:
        """Request a ranked list."""

    def record_feedback(self, events: Sequence[Feedback]) -> FeedbackReport:
        """Record feedback."""


@dataclass(frozen=True, slots=True)
class PendingFeedback:
    """Feedback to send at its instant, and the item's title."""

    feedback: Feedback
    title: str


@dataclass(frozen=True, slots=True)
class RepeatedRequest:
    """A second, unlogged request of an example's user, after the click."""

    example: "ClickExample"


class SimulatedUsers:
    """Runs the users in a thread of its own until the `with` block ends.

    Args: planned: requests by instant; gap: mean simulated time between requests after the planned ones.
    """

    def __init__(
        self,
        shop: Shop,
        client: RecommendationClient,
        clock: Clock,
        planned: Sequence[tuple[datetime, ScheduledRequest]],
        gap: timedelta,
        rng: np.random.Generator,
    ) -> None:
        self.counts = TrafficCounts()
        self.examples: list[ClickExample] = []
        self.last_user = ""
        self._shop, self._client, self._clock, self._rng = shop, client, clock, rng
        self._gap = gap
        self._queue: list[tuple[datetime, int, ScheduledRequest | PendingFeedback | RepeatedRequest]] = []
        self._number = 0
        self._num_requests_queued = 0
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="simulated-users", daemon=True)
        for at, request in planned:
            self._push(at, request)

    def __enter__(self) -> "SimulatedUsers":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread after its present call."""
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Raise the error that ended the thread, if any."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.step()
        except BaseException as error:  # an error in a thread is lost: `check` raises it
            self._failure = error

    def step(self) -> None:
        """Do one thing that is due, or wait for it a moment."""
        if not self._num_requests_queued:
            self._schedule_next()
        wait_s = self._clock.seconds_until(self._queue[0][0])
        if wait_s > 0:
            self._stop.wait(min(wait_s, _MAX_WAIT_S))
            return
        entry = self._pop()
        if isinstance(entry, ScheduledRequest):
            self._request_list(entry)
        elif isinstance(entry, RepeatedRequest):
            entry.example.after = self._greedy_list(entry.example.user_id)
        else:
            self._send_feedback([entry, *self._more_due()])

    def _request_list(self, request: ScheduledRequest) -> None:
        user_id = self._shop.user_ids(np.array([request.user]))[0]
        device = self._device(request.user)
        began = time.perf_counter()
        answer = self._call(
            "Recommend",
            lambda: self._client.recommend(user_id, self._shop.dials.page_size, context={"device": device}),
        )
        if answer is None:
            return
        self.counts.latency_ms.append(1000 * (time.perf_counter() - began))
        self.last_user = user_id
        self._draw_feedback(user_id, device, answer, self.counts.add(answer))

    def _draw_feedback(self, user_id: str, device: str, answer: Answer, run: BundleAnswers) -> None:
        if not answer.items:
            return
        by_position = {item.position: item for item in answer.items}
        actions = self._shop.respond(
            user_id,
            [item.item_id for item in answer.items],
            [item.position for item in answer.items],
            self._clock.now(),
            self._rng,
            device=device,
        )
        run.clicks += sum(action.kind == CLICK_KIND for action in actions)
        for action in actions:
            item = by_position[action.position]
            feedback = Feedback(
                feedback_id=f"{item.impression_id}:{action.kind}",
                impression_id=item.impression_id,
                user_id=user_id,
                item_id=item.item_id,
                kind=action.kind,
                value=action.value,
                occurred_at=action.occurred_at,
            )
            self._push(action.occurred_at, PendingFeedback(feedback, item.title))

    def _send_feedback(self, pending: Sequence[PendingFeedback]) -> None:
        self._begin_example(pending[-1])
        events = [act.feedback for act in pending]
        report = self._call("RecordFeedback", lambda: self._client.record_feedback(events))
        if report is None:
            return
        self.counts.rejected += len(report.rejected)
        for act in pending:
            if act.feedback.feedback_id not in report.rejected:
                kind = act.feedback.kind
                self.counts.recorded[kind] = self.counts.recorded.get(kind, 0) + 1

    def _begin_example(self, act: PendingFeedback) -> None:
        if len(self.examples) >= _MAX_EXAMPLES or act.feedback.kind != CLICK_KIND:
            return
        before = self._greedy_list(act.feedback.user_id)
        if before is not None:
            example = ClickExample(user_id=act.feedback.user_id, clicked=act.title, before=before)
            self.examples.append(example)
            self._push(self._clock.now() + _EXAMPLE_DELAY, RepeatedRequest(example))

    def _greedy_list(self, user_id: str) -> Answer | None:
        size = self._shop.dials.page_size
        return self._call(
            "Recommend", lambda: self._client.recommend(user_id, size, debug={"do_not_log": True})
        )

    def _call(self, method: str, call: Callable[[], _Reply]) -> _Reply | None:
        self.counts.calls[method] = self.counts.calls.get(method, 0) + 1
        try:
            return call()
        except CallError as error:
            self.counts.fail(error)
            return None

    def _device(self, user: int) -> str:
        other = self._rng.random() < OTHER_DEVICE_SHARE
        return DEVICES[int(self._rng.integers(len(DEVICES))) if other else int(self._shop.users.device[user])]

    def _schedule_next(self) -> None:
        at = self._clock.now() + self._gap * self._rng.exponential()
        day = self._shop.dials.day_number(at.astimezone(UTC).date())
        self._push(at, ScheduledRequest(int(self._shop.draw_users(day, 1, self._rng)[0])))

    def _push(self, at: datetime, entry: ScheduledRequest | PendingFeedback | RepeatedRequest) -> None:
        self._number += 1
        self._num_requests_queued += isinstance(entry, ScheduledRequest)
        heapq.heappush(self._queue, (at, self._number, entry))

    def _pop(self) -> ScheduledRequest | PendingFeedback | RepeatedRequest:
        entry = heapq.heappop(self._queue)[2]
        self._num_requests_queued -= isinstance(entry, ScheduledRequest)
        return entry

    def _more_due(self) -> list[PendingFeedback]:
        """Take the further feedback that is due, up to the next queue entry of another kind."""
        pending: list[PendingFeedback] = []
        now = self._clock.now()
        while self._queue and len(pending) < _BATCH:
            at, _, entry = self._queue[0]
            if at > now or not isinstance(entry, PendingFeedback):
                break
            self._pop()
            pending.append(entry)
        return pending
