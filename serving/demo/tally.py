"""What the demo's users met: calls and failures, which bundle answered, and one user's story."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.client_values import Answer, CallError

TOP = 3
"""So many first places of a list are told in a story."""
_KEPT_ERRORS = 5


@dataclass(slots=True, kw_only=True)
class AnsweredBy:
    """A run of answers by one bundle ("": by the popular list)."""

    bundle: str
    lists: int = 0
    shown: int = 0
    clicks: int = 0
    """What users did with these lists, sooner or later."""
    predicted: dict[str, float] = field(default_factory=dict)
    """Sum of the predictions of what was shown, by task."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What happened to the calls."""

    calls: dict[str, int] = field(default_factory=dict)
    failed_calls: int = 0
    errors: list[str] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    """Of each answered Recommend, as its caller measured it."""
    answers: list["AnsweredBy"] = field(default_factory=list)
    """Runs of answers by one bundle, in order of time."""
    degraded: int = 0
    recorded: dict[str, int] = field(default_factory=dict)
    rejected: int = 0

    def add(self, answer: Answer) -> "AnsweredBy":
        """Note which bundle answered, and what it expects; the caller adds the clicks."""
        if not self.answers or self.answers[-1].bundle != answer.bundle_version:
            self.answers.append(AnsweredBy(bundle=answer.bundle_version))
        run = self.answers[-1]
        run.lists += 1
        run.shown += len(answer.items)
        for item in answer.items:
            for task, prediction in item.predictions.items():
                run.predicted[task] = run.predicted.get(task, 0.0) + prediction
        self.degraded += bool(answer.degradation)
        return run

    def fail(self, error: CallError) -> None:
        """Note a call that got no answer."""
        self.failed_calls += 1
        if len(self.errors) < _KEPT_ERRORS:
            self.errors.append(str(error))

    @property
    def num_calls(self) -> int:
        """Count all calls."""
        return sum(self.calls.values())

    @property
    def num_lists(self) -> int:
        """Count the lists that were shown."""
        return sum(run.lists for run in self.answers)


@dataclass(slots=True, kw_only=True)
class Story:
    """One user's list without exploration before a click and a minute after it."""

    user_id: str
    clicked: str
    before: Answer
    after: Answer | None = None

    @property
    def num_named(self) -> int:
        """Count the items that are there, says the server, because of the click."""
        items = self.after.items if self.after else ()
        return sum(any(self.clicked in reason for reason in item.reasons) for item in items)

    @property
    def num_moved(self) -> int:
        """Count the places that another item holds now."""
        return self._moved(len(self.before.items))

    @property
    def num_moved_at_top(self) -> int:
        """Count those among the first places."""
        return self._moved(TOP)

    def _moved(self, places: int) -> int:
        before = [item.item_id for item in self.before.items[:places]]
        after = [item.item_id for item in self.after.items[:places]] if self.after else before
        return sum(a != b for a, b in zip(before, after, strict=False))


def best_story(stories: Sequence[Story]) -> Story | None:
    """Choose a story in which something is explained by the click and much has moved; None without any."""
    told = [story for story in stories if story.after is not None]
    return max(told, key=_interest, default=None)


def _interest(story: Story) -> tuple[bool, int, int, int]:
    return story.num_named > 0, story.num_moved_at_top, story.num_named, story.num_moved
