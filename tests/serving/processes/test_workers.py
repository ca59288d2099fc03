"""Servers of real workers on one address: TLS, metrics, a killed worker, a second server, SIGTERM."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

import recsys
from protos.recsys.v1 import ranking_pb2 as pb
from protos.recsys.v1 import ranking_pb2_grpc
from recsys.cli import run
from recsys.journal import files
from serving import client

PATIENCE_S = 120.0
SHOP = str(Path(recsys.__file__).with_name("shop.toml"))
HEAVY = re.compile(r"torch|faiss|polars|grpc|sklearn")


@dataclass
class Served:
    """`recsys serve` as a user runs it."""

    process: subprocess.Popen[str]
    folder: Path
    line: str = ""

    @property
    def ports(self) -> dict[str, int]:
        return json.loads((self.folder / "ports.json").read_text())

    def events(self, name: str) -> list[dict]:
        lines = (self.folder / "stderr").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == name]

    def workers(self) -> list[int]:
        """Processes of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


def arguments(folder: Path, *more: str) -> list[str]:
    places = ["--log", str(folder / "log"), "--runs", str(folder / "runs")]
    return ["serve", "--config", SHOP, *places, *more]


@contextmanager
def served(folder: Path, *more: str, workers: int = 2) -> Iterator[Served]:
    for name in ("log", "runs"):
        (folder / name).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "recsys", *arguments(folder, "--workers", str(workers), *more)]
    command += ["--port-file", str(folder / "ports.json")]
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        yield Served(process, folder, process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


CLICK = pb.FeedbackEvent(feedback_id="f1", user_id="u", item_id="new", kind="click")


class Caller(threading.Thread):
    """Calls over a connection of its own until a call fails; clients retry what the server never took."""

    def __init__(self, target: str, authority: bytes) -> None:
        super().__init__()
        own = (("grpc.use_local_subchannel_pool", 1), *client._OPTIONS)
        self.channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(authority), options=own)
        self.stub = ranking_pb2_grpc.RankingServiceStub(self.channel)
        self.num_answers = 0
        self.failure: grpc.RpcError | None = None

    def run(self) -> None:
        while self.failure is None:
            try:
                self.stub.Recommend(pb.RecommendRequest(user_id="u"), timeout=PATIENCE_S)
                self.num_answers += 1
            except grpc.RpcError as error:
                self.failure = error
        self.channel.close()


def write(stub: ranking_pb2_grpc.RankingServiceStub) -> None:
    stub.UpsertItems(pb.UpsertItemsRequest(items=[pb.Item(item_id="new")]), timeout=PATIENCE_S)
    assert stub.RecordFeedback(pb.RecordFeedbackRequest(events=[CLICK]), timeout=PATIENCE_S).num_accepted == 1


def knows_what_was_written(stub: ranking_pb2_grpc.RankingServiceStub) -> bool:
    """Ask the worker behind a connection."""
    ranked = stub.Rank(pb.RankRequest(user_id="u", item_ids=["new"]), timeout=PATIENCE_S)
    again = pb.RecordFeedbackRequest(events=[CLICK], validate_only=True)
    known = stub.RecordFeedback(again, timeout=PATIENCE_S).num_duplicate == 1
    return known and not ranked.missing_item_ids


@pytest.fixture
def server(tmp_path, pem) -> Iterator[tuple[Served, bytes]]:
    certificate, key, _ = pem(tmp_path, "server")
    free = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    with served(tmp_path, *free, "--tls-cert", str(certificate), "--tls-key", str(key)) as one:
        yield one, certificate.read_bytes()


def test_two_workers_are_one_server(server, capsys, until) -> None:
    one, authority = server
    port, admin_port, metrics_port = (one.ports[n] for n in ("port", "admin_port", "metrics_port"))
    ports = f"port {port}, admin port {admin_port}"
    assert one.line == f"recsys serve: {ports}, no bundle: the popular list answers, 2 workers\n"
    assert sorted(entry["worker"] for entry in one.events("ready")) == [0, 1]
    assert not HEAVY.search(Path(f"/proc/{one.process.pid}/maps").read_text())
    page = urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=PATIENCE_S).read()
    assert b"recsys_bundle" in page

    for workers in ("1", "2"):
        taken = ["--listen", f"127.0.0.1:{port}", "--workers", workers]
        assert run(arguments(one.folder, *taken)) == 2
        assert f"--listen 127.0.0.1:{port} cannot be bound: another process" in capsys.readouterr().err

    callers = [Caller(f"127.0.0.1:{port}", authority) for _ in range(8)]
    for caller in callers:
        caller.start()
    until(lambda: all(caller.num_answers for caller in callers))
    write(callers[0].stub)
    until(lambda: all(knows_what_was_written(caller.stub) for caller in callers))
    before = one.workers()
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(one.events("ready")) == 3)
    assert before[1] in one.workers(), "the other worker was left alone"
    assert all(knows_what_was_written(caller.stub) for caller in callers), "nothing is lost with a worker"
    assert [caller.failure for caller in callers] == [None] * 8

    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(PATIENCE_S) == 0
    for caller in callers:
        caller.join()
        assert caller.failure.code() is grpc.StatusCode.UNAVAILABLE, "no call in progress was cut off"
    journals = files(one.folder / "log" / "journal")
    assert {path.suffix for path in journals} <= {".journal"}
    assert {path.stem.rsplit("-w", 1)[1][0] for path in journals} == {"0", "1"}


def test_one_worker_says_where_its_metrics_are(tmp_path) -> None:
    free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    with served(tmp_path, *free, workers=1) as one:
        address = f"http://127.0.0.1:{one.ports['metrics_port']}/metrics"
        page = urllib.request.urlopen(address, timeout=PATIENCE_S).read()
    assert b'recsys_workers{state="serving"} 1.0' in page
