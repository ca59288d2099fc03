"""Counts of the demo's traffic: calls and failures, and the answers of each bundle."""

from dataclasses import dataclass, field

from serving.client_values import Answer, CallError

_KEPT_ERRORS = 5


@dataclass(slots=True, kw_only=True)
class BundleAnswers:
    """Consecutive answers by one bundle ("": by the popular list)."""

    bundle: str
    lists: int = 0
    shown: int = 0
    clicks: int = 0
    """Clicks on these lists, whenever they come."""
    predicted: dict[str, float] = field(default_factory=dict)
    """Sum of the shown items' predictions, by task."""


@dataclass(slots=True, kw_only=True)
class TrafficCounts:
    """Counts of calls, answers and feedback."""

    calls: dict[str, int] = field(default_factory=dict)
    failed_calls: int = 0
    errors: list[str] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    """Of each answered Recommend, measured by the caller."""
    answers: list["BundleAnswers"] = field(default_factory=list)
    """In order of time."""
    degraded: int = 0
    recorded: dict[str, int] = field(default_factory=dict)
    rejected: int = 0

    def add(self, answer: Answer) -> "BundleAnswers":
        """Count an answer and its predictions; the caller adds the clicks to the returned counts."""
        if not self.answers or self.answers[-1].bundle != answer.bundle_version:
            self.answers.append(BundleAnswers(bundle=answer.bundle_version))
        run = self.answers[-1]
        run.lists += 1
        run.shown += len(answer.items)
        for item in answer.items:
            for task, prediction in item.predictions.items():
                run.predicted[task] = run.predicted.get(task, 0.0) + prediction
        self.degraded += bool(answer.degradation)
        return run

    def fail(self, error: CallError) -> None:
        """Count a call without an answer."""
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
