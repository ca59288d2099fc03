"""Curves for MLflow: the server of MLFLOW_TRACKING_URI, else the file RUNS/mlflow/mlflow.db.

A thread of its own sends the points: a server that is slow or away does not hold up the training. What could
not be sent is kept and tried again every minute; what is left at the end is lost, and said so.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from recsys.stages import write_json
from training.curves import Outcome, RunPlace

FOLDER = "mlflow"
EXPERIMENT = "recsys"
RETRY_S = 60.0
CLOSE_S = 60.0
"""At the end of a fit it may take so long to send what is left."""
MAX_METRICS, MAX_PARAMS, MAX_PARAM_LENGTH = 1000, 100, 6000
"""Of one call; of a value. MLflow refuses more."""
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Environment variables, where the user has not set them. The thread tries again by itself."""


@dataclass(frozen=True, slots=True)
class Point:
    """Values of one step, and when they were made, in milliseconds."""

    step: int
    values: Mapping[str, float]
    at_ms: int


class MlflowRun:
    """A writer of one run."""

    def __init__(self, place: RunPlace, first_step: int, say: Callable[[str], None]) -> None:
        """Start the thread; it connects."""
        self.place, self.going_on, self.say = place, first_step > 0, say
        self._points: list[Point] = []
        self._closing, self._failed = False, False
        self._changed = Condition()
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Leave a point to the thread."""
        with self._changed:
            self._points.append(Point(step, values, int(1000 * time.time())))
            self._changed.notify()

    def close(self, *, failed: bool) -> None:
        """Wait for the thread to send what is left, and say what it could not."""
        with self._changed:
            self._closing, self._failed = True, failed
            self._changed.notify()
        self._thread.join(CLOSE_S)
        with self._changed:
            if self._thread.is_alive() or self._points:
                self.say(f"mlflow: {len(self._points)} points of {self.place.name} are lost")

    def _work(self) -> None:
        """Send what comes, until the run is closed."""
        run: _Run | None = None
        warned = False
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._points or self._closing)
                points, closing = list(self._points), self._closing
            try:
                run = run or _Run.of(self.place, going_on=self.going_on)
                run.send(points)
                if closing:
                    run.end("FAILED" if self._failed else "FINISHED")
            except Exception as error:
                if not warned:
                    where = _without_secrets(_uri(self.place))
                    self.say(
                        f"mlflow: {where}: {_short(error)}; the training goes on, and what is not "
                        f"sent is tried again every {RETRY_S:.0f} s and at the end"
                    )
                warned = True
                with self._changed:
                    if closing:
                        return
                    self._changed.wait_for(lambda: self._closing, timeout=RETRY_S)
                continue
            with self._changed:
                del self._points[: len(points)]
            if closing:
                return


@dataclass(frozen=True, slots=True)
class _Run:
    """A run on the server."""

    client: Any
    run_id: str
    sent: Mapping[str, int]
    """Curve -> its last step on the server: a killed fit that goes on makes the same points again."""

    @classmethod
    def of(cls, place: RunPlace, *, going_on: bool) -> "_Run":
        """Begin a run, or find the one that goes on."""
        client, uri = _client(place), _without_secrets(_uri(place))
        known = _known(place, uri)
        if going_on and known is not None:
            client.update_run(known, status="RUNNING")
            metrics = client.get_run(known).data.metrics
            sent = {name: max(m.step for m in client.get_metric_history(known, name)) for name in metrics}
            return cls(client, known, sent)
        if known is not None:  # it was killed before its first checkpoint
            client.set_terminated(known, "KILLED")
        tags = {"mlflow.runName": place.name}
        run_id = str(client.create_run(_experiment(client, place), tags=tags).info.run_id)
        params = [_param(key, value) for key, value in place.about.items()]
        for some in _cut(params, MAX_PARAMS):
            client.log_batch(run_id, params=some)
        file = _file(place)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"uri": uri, "run_id": run_id})
        return cls(client, run_id, {})

    def send(self, points: Sequence[Point]) -> None:
        """Send points that the server does not have."""
        from mlflow.entities import Metric

        new = [
            Metric(name, value, point.at_ms, point.step)
            for point in points
            for name, value in point.values.items()
            if point.step > self.sent.get(name, -1)
        ]
        for some in _cut(new, MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=some)

    def end(self, status: str) -> None:
        """Say how the fit ended."""
        self.client.set_terminated(self.run_id, status)


def finish(place: RunPlace, outcome: Outcome) -> None:
    """Add what the bundle was measured at, and its tags; a run that has these tags already stays as it is.

    Raises: what MLflow raises when the server does not answer.
    """
    from mlflow.entities import Metric, RunTag

    client = _client(place)
    run_id = _known(place, _without_secrets(_uri(place)))
    if run_id is None or outcome.tags.items() <= client.get_run(run_id).data.tags.items():
        return
    now = int(1000 * time.time())
    metrics = [Metric(name, value, now, outcome.step) for name, value in outcome.values.items()]
    for some in _cut(metrics, MAX_METRICS):
        client.log_batch(run_id, metrics=some)
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in outcome.tags.items()])


def _uri(place: RunPlace) -> str:
    local = (place.runs / FOLDER / "mlflow.db").absolute()
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local}"


def _without_secrets(uri: str) -> str:
    """Leave out the user and the password that an address may hold: logs and files are read by others."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri)


def _client(place: RunPlace) -> Any:
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    (place.runs / FOLDER).mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=_uri(place))


def _experiment(client: Any, place: RunPlace) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    own = None if os.environ.get("MLFLOW_TRACKING_URI") else (place.runs / FOLDER / "artifacts").absolute()
    return str(client.create_experiment(name, artifact_location=own and own.as_uri()))


def _known(place: RunPlace, uri: str) -> str | None:
    """Give the run's id on this server, where it was begun before."""
    try:
        said = json.loads(_file(place).read_text())
    except (OSError, ValueError):
        return None
    return str(said["run_id"]) if said["uri"] == uri else None


def _file(place: RunPlace) -> Path:
    return place.runs / FOLDER / f"{place.name}.json"


def _param(key: str, value: Any) -> Any:
    from mlflow.entities import Param

    return Param(key, str(value)[:MAX_PARAM_LENGTH])


def _cut(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def _short(error: Exception) -> str:
    """Give the first line of an error: those of HTTP clients are long."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
