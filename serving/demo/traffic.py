"""Simulated users of the demo: they ask over gRPC, and what they do with a list is recorded over gRPC.

Everything has its simulated instant and waits in one queue: requests spread over the evening, clicks seconds
and purchases up to hours after the list was shown. The server's clock says what is due.
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
from serving.demo.pace import Ask
from serving.demo.tally import AnsweredBy, Story, Tally

OTHER_DEVICE = 0.2
_BATCH = 100
_NAP_S = 0.05
_STORIES = 8
_STORY_AFTER = timedelta(minutes=1)
_Reply = TypeVar("_Reply")


class Clock(Protocol):
    """Tells the server's simulated instant."""

    def now(self) -> datetime:
        """Return the simulated instant."""

    def seconds_until(self, instant: datetime) -> float:
        """Return the real seconds until a simulated instant; negative when it has passed."""


class Asks(Protocol):
    """The client, as far as simulated users need it."""

    def recommend(self, user_id: str, page_size: int = 0, **more: Any) -> Answer:
        """Ask for a ranked list."""

    def record_feedback(self, events: Sequence[Feedback]) -> FeedbackReport:
        """Record what users did."""


@dataclass(frozen=True, slots=True)
class Act:
    """A user does something with an item of a list."""

    feedback: Feedback
    title: str


@dataclass(frozen=True, slots=True)
class AskAgain:
    """A user whose click was told asks again; nothing of it is logged."""

    story: "Story"


class SimulatedUsers:
    """Plays users in a thread of its own until told to stop.

    Args: gap: simulated time between two requests once the planned ones are over.
    """

    def __init__(
        self,
        shop: Shop,
        client: Asks,
        clock: Clock,
        planned: Sequence[tuple[datetime, Ask]],
        gap: timedelta,
        rng: np.random.Generator,
    ) -> None:
        self.tally = Tally()
        self.stories: list[Story] = []
        self.last_user = ""
        self._shop, self._client, self._clock, self._rng = shop, client, clock, rng
        self._gap = gap
        self._queue: list[tuple[datetime, int, Ask | Act | AskAgain]] = []
        self._number = 0
        self._asks_waiting = 0
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._play, name="simulated-users", daemon=True)
        for at, ask in planned:
            self._put(at, ask)

    def __enter__(self) -> "SimulatedUsers":
        """Start to play."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, after the call under way."""
        self._stop.set()
        self._thread.join()

    @property
    def num_waiting(self) -> int:
        """Count the actions whose time has not come."""
        return sum(isinstance(what, Act) for _, _, what in self._queue)

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _play(self) -> None:
        try:
            while not self._stop.is_set():
                self.step()
        except BaseException as error:  # a thread has nobody above it: `check` tells
            self._failure = error

    def step(self) -> None:
        """Do what is due, or wait a moment for it."""
        if not self._asks_waiting:
            self._ask_later()
        wait_s = self._clock.seconds_until(self._queue[0][0])
        if wait_s > 0:
            self._stop.wait(min(wait_s, _NAP_S))
            return
        what = self._pop()
        if isinstance(what, Ask):
            self._ask(what)
        elif isinstance(what, AskAgain):
            what.story.after = self._greedy(what.story.user_id)
        else:
            self._act([what, *self._more_due()])

    def _ask(self, ask: Ask) -> None:
        user_id = self._shop.user_ids(np.array([ask.user]))[0]
        device = self._device(ask.user)
        began = time.perf_counter()
        answer = self._call(
            "Recommend",
            lambda: self._client.recommend(user_id, self._shop.dials.page_size, context={"device": device}),
        )
        if answer is None:
            return
        self.tally.latency_ms.append(1000 * (time.perf_counter() - began))
        self.last_user = user_id
        self._react(user_id, device, answer, self.tally.add(answer))

    def _react(self, user_id: str, device: str, answer: Answer, run: AnsweredBy) -> None:
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
            self._put(action.occurred_at, Act(feedback, item.title))

    def _act(self, acts: Sequence[Act]) -> None:
        self._begin_story(acts[-1])
        events = [act.feedback for act in acts]
        report = self._call("RecordFeedback", lambda: self._client.record_feedback(events))
        if report is None:
            return
        self.tally.rejected += len(report.rejected)
        for act in acts:
            if act.feedback.feedback_id not in report.rejected:
                kind = act.feedback.kind
                self.tally.recorded[kind] = self.tally.recorded.get(kind, 0) + 1

    def _begin_story(self, act: Act) -> None:
        if len(self.stories) >= _STORIES or act.feedback.kind != CLICK_KIND:
            return
        before = self._greedy(act.feedback.user_id)
        if before is not None:
            story = Story(user_id=act.feedback.user_id, clicked=act.title, before=before)
            self.stories.append(story)
            self._put(self._clock.now() + _STORY_AFTER, AskAgain(story))

    def _greedy(self, user_id: str) -> Answer | None:
        size = self._shop.dials.page_size
        return self._call(
            "Recommend", lambda: self._client.recommend(user_id, size, debug={"do_not_log": True})
        )

    def _call(self, method: str, call: Callable[[], _Reply]) -> _Reply | None:
        self.tally.calls[method] = self.tally.calls.get(method, 0) + 1
        try:
            return call()
        except CallError as error:
            self.tally.fail(error)
            return None

    def _device(self, user: int) -> str:
        other = self._rng.random() < OTHER_DEVICE
        return DEVICES[int(self._rng.integers(len(DEVICES))) if other else int(self._shop.users.device[user])]

    def _ask_later(self) -> None:
        at = self._clock.now() + self._gap * self._rng.exponential()
        day = self._shop.dials.day_number(at.astimezone(UTC).date())
        self._put(at, Ask(int(self._shop.draw_users(day, 1, self._rng)[0])))

    def _put(self, at: datetime, what: Ask | Act | AskAgain) -> None:
        self._number += 1
        self._asks_waiting += isinstance(what, Ask)
        heapq.heappush(self._queue, (at, self._number, what))

    def _pop(self) -> Ask | Act | AskAgain:
        what = heapq.heappop(self._queue)[2]
        self._asks_waiting -= isinstance(what, Ask)
        return what

    def _more_due(self) -> list[Act]:
        """Take the actions that are due as well, up to the next thing of another kind."""
        acts: list[Act] = []
        now = self._clock.now()
        while self._queue and len(acts) < _BATCH:
            at, _, what = self._queue[0]
            if at > now or not isinstance(what, Act):
                break
            self._pop()
            acts.append(what)
        return acts
