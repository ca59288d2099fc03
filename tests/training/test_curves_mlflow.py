"""The writer for MLflow, against a server of the client's own calls; and once against MLflow itself.

MLflow needs two dozen packages that nothing else here does, so CI has the stand-in alone. It keeps what
`MlflowClient` is told, and can be out of reach.
"""

import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest

from training.curves import Outcome, RunPlace, mlflow_run
from training.curves.mlflow_run import MlflowRun, finish

NAME = "2026-01-30/train.0123abcd"
OUTCOME = Outcome(step=7, values={"auc_validation/click": 0.7}, tags={"bundle": "b", "verdict": "PROMOTE"})


@dataclass
class Kept:
    """One run of the stand-in."""

    status: str = "RUNNING"
    tags: dict = field(default_factory=dict)
    params: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=lambda: defaultdict(list))


class Server:
    """What lies behind every client."""

    def __init__(self):
        self.runs, self.experiments, self.uris, self.failures = {}, {}, [], 0

    def client(self, tracking_uri):
        self.uris.append(tracking_uri)
        return Client(self)

    def reach(self):
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no route\nand a long story")


class Client:
    """The calls of `mlflow.MlflowClient` that are used, with its limits."""

    def __init__(self, server):
        self.server = server

    def get_experiment_by_name(self, name):
        self.server.reach()
        found = self.server.experiments.get(name)
        return found and SimpleNamespace(experiment_id=found)

    def create_experiment(self, name, artifact_location):
        self.server.experiments[name] = "1"
        return "1"

    def create_run(self, experiment_id, tags):
        run_id = f"run{len(self.server.runs)}"
        self.server.runs[run_id] = Kept(tags=dict(tags))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        self.server.reach()
        assert len(metrics) <= 1000
        assert len(params) <= 100
        run = self.server.runs[run_id]
        for metric in metrics:
            run.metrics[metric.key].append((metric.step, metric.value))
        run.params |= {p.key: p.value for p in params}
        run.tags |= {t.key: t.value for t in tags}

    def get_run(self, run_id):
        self.server.reach()
        run = self.server.runs[run_id]
        last = {name: points[-1][1] for name, points in run.metrics.items()}
        return SimpleNamespace(data=SimpleNamespace(metrics=last, tags=run.tags))

    def get_metric_history(self, run_id, key):
        return [SimpleNamespace(step=step) for step, _ in self.server.runs[run_id].metrics[key]]

    def update_run(self, run_id, status):
        self.server.runs[run_id].status = status

    set_terminated = update_run


@pytest.fixture
def server(monkeypatch):
    made = Server()
    mlflow, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    mlflow.MlflowClient = made.client
    entities.Metric = lambda key, value, at, step: SimpleNamespace(key=key, value=value, step=step)
    entities.Param = entities.RunTag = lambda key, value: SimpleNamespace(key=key, value=value)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", *mlflow_run.DEFAULTS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mlflow_run, "RETRY_S", 0.01)
    return made


@pytest.fixture
def place(tmp_path):
    about = {f"key{i}": i for i in range(150)} | {"long": "x" * 10_000}
    return RunPlace(runs=tmp_path, name=NAME, about=about)


def _fit(place, first, last, said, *, failed=False):
    run = MlflowRun(place, first, said.append)
    for step in range(first, last + 1):
        run.write(step, {"loss/click": 1.0 / (step + 1)})
    run.close(failed=failed)


def test_points_settings_and_the_outcome_arrive_once(server, place):
    said = []
    _fit(place, 0, 7, said)
    finish(place, OUTCOME)
    finish(place, OUTCOME)
    (run,) = server.runs.values()
    assert run.metrics["loss/click"] == [(step, 1.0 / (step + 1)) for step in range(8)]
    assert run.metrics["auc_validation/click"] == [(7, 0.7)]
    assert len(run.params) == 151
    assert len(run.params["long"]) == 6000
    assert run.tags == {"mlflow.runName": NAME, "bundle": "b", "verdict": "PROMOTE"}
    assert run.status == "FINISHED"
    assert not said
    assert set(server.uris) == {f"sqlite:///{place.runs}/mlflow/mlflow.db"}


def test_a_run_that_goes_on_is_the_same_run_without_a_step_twice(server, place):
    _fit(place, 0, 5, [], failed=True)
    (run,) = server.runs.values()
    assert run.status == "FAILED"
    _fit(place, 4, 7, [])
    assert list(server.runs) == ["run0"]
    assert [step for step, _ in run.metrics["loss/click"]] == list(range(8))
    assert run.status == "FINISHED"


def test_one_that_begins_again_is_another_run(server, place):
    _fit(place, 0, 2, [])
    _fit(place, 0, 7, [])
    assert [run.status for run in server.runs.values()] == ["KILLED", "FINISHED"]
    assert json.loads((place.runs / "mlflow" / f"{NAME}.json").read_text())["run_id"] == "run1"


def test_a_server_that_is_away_for_a_while_loses_nothing(server, place, until):
    server.failures, said = 3, []
    fit = MlflowRun(place, 0, said.append)
    for step in range(8):
        fit.write(step, {"loss/click": 1.0})
    until(lambda: not server.failures)
    fit.close(failed=False)
    (run,) = server.runs.values()
    assert len(run.metrics["loss/click"]) == 8
    (line,) = said
    assert "mlflow.db: ConnectionError: no route; the training goes on" in line


def test_a_password_in_the_address_is_in_no_file_and_no_line(server, place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking.example:5000")
    said = []
    _fit(place, 0, 2, said)
    _fit(place, 2, 7, said)
    assert list(server.runs) == ["run0"], "it is the same server"
    assert set(server.uris) == {"http://me:secret@tracking.example:5000"}
    server.failures = 10**9
    _fit(place, 8, 8, said)
    (written,) = [file.read_text() for file in place.runs.rglob("*.json")]
    assert all("//tracking.example:5000" in text and "secret" not in text for text in (said[0], written))


def test_what_is_lost_in_the_end_is_counted(server, place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    server.failures, said = 10**9, []
    _fit(place, 0, 7, said)
    assert len(said) == 2
    assert said[0].startswith("mlflow: http://tracking.example:5000: ConnectionError: no route; ")
    assert said[1] == f"mlflow: 8 points of {NAME} are lost"
    assert set(server.uris) == {"http://tracking.example:5000"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # its own
def test_with_mlflow_itself(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install '.[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place, said = RunPlace(runs=tmp_path, name=NAME, about={"training.epochs": 1}), []
    _fit(place, 0, 3, said)
    _fit(place, 2, 5, said)
    finish(place, OUTCOME)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("recsys")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss/click")
    assert [(m.step, m.value) for m in history] == [(step, 1.0 / (step + 1)) for step in range(6)]
    assert run.data.params == {"training.epochs": "1"}
    assert run.data.tags["bundle"] == "b"
    assert run.info.status == "FINISHED"
    assert not said
