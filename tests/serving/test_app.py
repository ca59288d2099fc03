"""A whole server: ports, health, reflection, overload, swap under traffic, drain, kill -9, no bundle."""

import contextlib
import errno
import gc
import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import grpc
import polars as pl
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import recsys
from features.clean import clean
from features.sources.journal import ingest_journal
from features.store import StoredUser
from protos.recsys.v1 import ranking_pb2 as pb
from protos.recsys.v1 import ranking_pb2_grpc
from recsys.config import default_config
from recsys.errors import ConfigError
from recsys.journal import files, read
from recsys.log import InteractionLog
from recsys.registry import Registry
from serving.addresses import Tls
from serving.app import Server
from serving.catalogue import ItemPatch, ItemRow
from serving.client import AdminClient, RecsysClient
from serving.client_values import CallError, Feedback, ItemUpdate
from serving.clock import SystemClock
from serving.journal import AppendFile, Journal
from serving.journal_rows import item_patch_rows
from serving.journal_tail import JournalTail
from serving.processes.orders import WorkerSeat
from serving.request import Deadline, RankRequest
from serving.server_options import ServerOptions, num_ranking_threads
from serving.stats_board import StatsBoard

PATIENCE_S = 120.0
DAY_MS = 86_400_000
NOON_MS = 1_772_366_400_000
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def health(one):
    return health_pb2_grpc.HealthStub(one.client.channel)


def check(one, service=""):
    return health(one).Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S).status


def test_health_of_the_server_its_services_and_its_bundle(start) -> None:
    one = start()
    assert check(one) == check(one, "recsys.v1.RankingService") == check(one, "recsys.v1.Bundle") == SERVING
    listed = health(one).List(health_pb2.HealthListRequest(), timeout=PATIENCE_S).statuses
    assert {"", "recsys.v1.RankingService", "recsys.v1.AdminService", "recsys.v1.Bundle"} <= set(listed)


def test_a_health_watcher_is_notified_and_does_not_delay_the_drain(start, until) -> None:
    one = start()
    one.loader.scorer.gate = threading.Event()
    asking = threading.Thread(target=lambda: one.client.recommend("u1", 1))
    asking.start()
    until(lambda: one.server._pool.num_pending)
    watch = health(one).Watch(health_pb2.HealthCheckRequest(service="recsys.v1.RankingService"))
    assert next(watch).status == SERVING
    heard: list[int] = []

    def listen() -> None:
        with contextlib.suppress(grpc.RpcError):
            heard.extend(reply.status for reply in watch)

    listener = threading.Thread(target=listen)
    listener.start()
    stopping = threading.Thread(target=one.server.stop, args=(3600.0,))
    stopping.start()
    until(lambda: heard)  # while a call is under way: the drain waits for it
    one.loader.scorer.gate.set()
    for thread in (asking, stopping, listener):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()  # a watcher, which never ends by itself, would hold it up for an hour
    assert heard == [NOT_SERVING]


def test_reflection_is_off_unless_asked_for(start) -> None:
    for wanted in (False, True):
        one = start(reflection=wanted)
        stub = reflection_pb2_grpc.ServerReflectionStub(one.client.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        if not wanted:
            with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
                next(stub.ServerReflectionInfo(iter([ask])))
            continue
        (reply,) = stub.ServerReflectionInfo(iter([ask]))
        assert "recsys.v1.RankingService" in {s.name for s in reply.list_services_response.service}


def options(tmp_path: Path, **changes) -> ServerOptions:
    given = {
        "config": default_config(),
        "log": tmp_path / "log",
        "runs": tmp_path / "runs",
        "clock": SystemClock(),
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
    }
    return ServerOptions(**{**given, **changes})


def test_a_gpu_that_is_not_there_is_an_error_at_the_start(tmp_path, monkeypatch) -> None:
    """Not one of a reload, while the popular list is served."""
    config = default_config()
    serving = config.serving.model_copy(update={"device": "cuda"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r'\[serving\] device = "cuda": torch'):
        Server(options(tmp_path, config=config.model_copy(update={"serving": serving})))


def test_an_engine_that_is_not_there_is_an_error_at_the_start(tmp_path, monkeypatch) -> None:
    config = default_config()
    serving = config.serving.model_copy(update={"engine": "bfloat16"})
    monkeypatch.setattr("serving.devices.has_fast_bf16", lambda _: False)
    with pytest.raises(ConfigError, match=r'\[serving\] engine = "bfloat16": this processor does not'):
        Server(options(tmp_path, config=config.model_copy(update={"serving": serving})))


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "example.org:80"])
def test_an_open_address_needs_tls_or_insecure(tmp_path, address) -> None:
    with pytest.raises(
        ConfigError, match=r"can be reached from other machines: give --tls-cert .*--insecure"
    ):
        Server(options(tmp_path, listen=address))


def test_insecure_allows_it(tmp_path) -> None:
    assert Server(options(tmp_path, listen="0.0.0.0:0", insecure=True)).port > 0


def test_metrics_are_served_where_asked_for(tmp_path, unused_tcp_port) -> None:
    server = Server(options(tmp_path, metrics_listen=f"127.0.0.1:{unused_tcp_port}"))
    server.start()
    page = f"http://127.0.0.1:{unused_tcp_port}/metrics"
    text = urllib.request.urlopen(page, timeout=PATIENCE_S).read().decode()
    server.stop(1.0)
    assert 'recsys_bundle{version="none"} 1.0' in text
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        Server(options(tmp_path, metrics_listen="0.0.0.0:0"))


def test_callers_without_a_certificate_are_refused(tmp_path, pem) -> None:
    authority, _, issuer = pem(tmp_path, "authority")
    certificate, key, _ = pem(tmp_path, "server", issuer)
    client_certificate, client_key, _ = pem(tmp_path, "client", issuer)
    tls = Tls(certificate=certificate, key=key, client_ca=authority)
    server = Server(options(tmp_path, tls=tls))
    server.start()
    root = authority.read_bytes()
    known = grpc.ssl_channel_credentials(root, client_key.read_bytes(), client_certificate.read_bytes())
    target = f"127.0.0.1:{server.port}"
    with RecsysClient(target, PATIENCE_S, known) as client:
        assert client.recommend("u1").degradation == ("NO_BUNDLE",)
    with AdminClient(f"127.0.0.1:{server.admin_port}", PATIENCE_S, known) as admin:
        assert admin.status().degradation == ("NO_BUNDLE",)
    nobody = grpc.ssl_channel_credentials(root)
    for credentials in (nobody, None):
        with (
            RecsysClient(target, PATIENCE_S, credentials) as stranger,
            pytest.raises(CallError, match="UNAVAILABLE"),
        ):
            stranger.recommend("u1")
    server.stop(1.0)


@pytest.mark.parametrize("option", ["admin_listen", "metrics_listen"])
def test_tls_alone_opens_neither_admin_nor_metrics(tmp_path, pem, option) -> None:
    certificate, key, _ = pem(tmp_path, "server")
    tls = Tls(certificate=certificate, key=key)
    name = f"--{option.replace('_', '-')}"
    with pytest.raises(ConfigError, match=f"{name} 0.0.0.0:0 would serve anyone .*: give --tls-client-ca"):
        Server(options(tmp_path, tls=tls, listen="0.0.0.0:0", **{option: "0.0.0.0:0"}))
    assert Server(options(tmp_path, tls=tls, listen="0.0.0.0:0")).port > 0


def test_metrics_beyond_loopback_go_to_known_callers_over_https(tmp_path, pem, unused_tcp_port) -> None:
    authority, _, issuer = pem(tmp_path, "authority")
    certificate, key, _ = pem(tmp_path, "server", issuer)
    client_certificate, client_key, _ = pem(tmp_path, "client", issuer)
    tls = Tls(certificate=certificate, key=key, client_ca=authority)
    server = Server(options(tmp_path, tls=tls, metrics_listen=f"0.0.0.0:{unused_tcp_port}"))
    server.start()
    known = ssl.create_default_context(cafile=str(authority))
    page = f"https://127.0.0.1:{unused_tcp_port}/metrics"
    with pytest.raises(OSError, match=r"certificate required|Connection reset|EOF"):
        urllib.request.urlopen(page, timeout=PATIENCE_S, context=known).read()
    with pytest.raises(OSError, match=r"."):
        urllib.request.urlopen(page.replace("https", "http"), timeout=PATIENCE_S).read()
    known.load_cert_chain(client_certificate, client_key)
    text = urllib.request.urlopen(page, timeout=PATIENCE_S, context=known).read().decode()
    server.stop(1.0)
    assert 'recsys_bundle{version="none"} 1.0' in text


def test_a_taken_port_is_a_config_error(start, tmp_path) -> None:
    one = start()
    with pytest.raises(ConfigError, match=f"--listen 127.0.0.1:{one.server.port} cannot be bound: another"):
        Server(options(tmp_path, listen=f"127.0.0.1:{one.server.port}"))


def test_a_call_that_expired_while_waiting_is_never_scored(start, until) -> None:
    one = start()
    scorer = one.loader.scorer
    scorer.gate = threading.Event()
    busy = [threading.Thread(target=lambda: one.client.recommend("u1", 1)) for _ in range(8)]
    for thread in busy:
        thread.start()
    until(lambda: one.server._pool.num_pending == 8)
    with RecsysClient(f"127.0.0.1:{one.server.port}", timeout_s=0.1) as impatient:
        while one.server._pool.num_pending == 8:  # on a stalled machine a call may expire on its way
            with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
                impatient.recommend("u1", 1)
    time.sleep(0.2)  # the deadline began anew when the call arrived, which was before this
    scorer.gate.set()
    for thread in busy:
        thread.join()
    until(lambda: one.server._pool.num_pending == 0)
    assert scorer.calls <= 8 + 3  # 8 answers and the warm-up's 3, not the expired one


@pytest.mark.parametrize("cancelled", [False, True])
def test_an_answer_that_nobody_waits_for_is_no_impression(start, until, cancelled) -> None:
    """The deadline passes, or the caller hangs up, while the list is being scored."""
    one = start()
    one.loader.scorer.gate = threading.Event()
    stub = ranking_pb2_grpc.RankingServiceStub(one.client.channel)
    call = stub.Recommend.future(pb.RecommendRequest(user_id="u1"), timeout=PATIENCE_S if cancelled else 0.5)
    until(lambda: one.loader.scorer.calls > 3)  # it is being scored
    if cancelled:
        call.cancel()
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call.result()
    time.sleep(0.2)  # the server's deadline began later, and a cancellation takes its way
    one.loader.scorer.gate.set()
    until(lambda: one.server._pool.num_pending == 0)
    assert one.journal() == []
    status = one.admin.status()
    assert (status.calls["Recommend/DEADLINE_EXCEEDED"], status.num_expired) == (1, 1)
    assert len(one.client.recommend("u1").items) == 10
    assert len(one.journal()) == 11


def test_feedback_that_waits_for_the_store_does_not_hold_up_ranking(start, until, monkeypatch) -> None:
    one = start()
    free = threading.Event()
    monkeypatch.setattr(one.server._store, "append", lambda *_: free.wait(PATIENCE_S))
    click = Feedback(user_id="u1", item_id="i1", kind="click")
    threads = [
        threading.Thread(target=lambda n=n: one.client.record_feedback([replace(click, feedback_id=f"f{n}")]))
        for n in range(num_ranking_threads() + 2)
    ]
    for thread in threads:
        thread.start()
    until(lambda: one.server._write_pools["RecordFeedback"].num_pending == len(threads))
    assert len(one.client.recommend("u1").items) == 10
    assert one.client.upsert_items([ItemUpdate(item_id="i1", price=5)]) == {}
    free.set()
    for thread in threads:
        thread.join()


def test_feedback_answers_within_its_deadline_while_another_writer_holds_the_store(
    start, monkeypatch
) -> None:
    monkeypatch.setattr("serving.feedback._STORE_SHARE", 0.5 / PATIENCE_S)  # half a second
    one = start()
    with closing(sqlite3.connect(one.runs / "store" / "delta.sqlite")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        report = one.client.record_feedback([Feedback(user_id="u1", item_id="i1", kind="click")])
    assert (report.num_accepted, report.degradation) == (1, ("STORE_UNAVAILABLE",))


def test_a_session_that_cannot_be_merged_in_time_does_not_hold_up_its_user(start, until, monkeypatch) -> None:
    one = start()
    free, asked = threading.Event(), []

    def read(_: str, users: list[str]) -> list[StoredUser]:
        asked.extend(users)
        free.wait(PATIENCE_S)
        return [StoredUser(None, ()) for _ in users]

    monkeypatch.setattr(one.server._store, "get_many", read)
    monkeypatch.setattr("serving.service._MERGE_SHARE", 0.5 / PATIENCE_S)  # half a second
    assert len(one.client.recommend("u1", session_id="s1").items) == 10
    monkeypatch.setattr("serving.service._MERGE_SHARE", 1.0)
    for n in (2, 3, 2, 3):  # nobody waits for a thread that is behind
        assert len(one.client.recommend("u1", session_id=f"s{n}").items) == 10
    free.set()
    until(lambda: asked == ["s1", "s2", "s3"])  # once each, in their order


def test_swaps_under_traffic_lose_no_call_and_mix_no_versions(start, until) -> None:
    one = start()
    stop, answers, errors = threading.Event(), [], []

    def traffic() -> None:
        with RecsysClient(f"127.0.0.1:{one.server.port}", timeout_s=PATIENCE_S) as client:
            while not stop.is_set():
                try:
                    answers.append(client.recommend("u1", 3).bundle_version)
                except CallError as error:
                    errors.append(error)

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 22):
        one.publish(f"v{number}")
        until(lambda version=f"v{number}": version in answers)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(answers) <= {f"v{number}" for number in range(1, 22)}


def test_a_broken_bundle_keeps_the_old_one_and_is_reported(start, until) -> None:
    one = start()
    one.loader.broken.add("v2")
    one.publish("v2")
    until(lambda: check(one, "recsys.v1.Bundle") == NOT_SERVING)
    status = one.admin.status()
    assert status.reload_error == "v2 was not loaded: v2 differs from its manifest"
    assert (status.bundle_version, status.current_version) == ("v1", "v2")
    assert check(one) == SERVING
    assert one.client.recommend("u1").bundle_version == "v1"
    assert one.loader.loads.count("v2") == 1  # not tried again at every look
    one.publish("v3")
    assert one.server.recommender.wait_for("v3", PATIENCE_S)
    one.server.reloader.check()
    assert one.admin.status().reload_error == ""
    assert check(one, "recsys.v1.Bundle") == SERVING


def test_a_version_whose_users_were_collected_is_not_swapped_to(start, until) -> None:
    """It went live, and every answer was a new user's, degraded by STORE_UNAVAILABLE."""
    one = start()
    one.loader.collected.add("2026-02-01-old")
    one.publish("2026-02-01-old")
    until(lambda: "its users are missing" in one.admin.status().reload_error)
    error = one.admin.status().reload_error
    assert "activate a later version, or run `recsys nightly --date 2026-02-01` again" in error
    assert one.client.recommend("u1", 1).bundle_version == "v1"


def test_a_start_with_a_version_whose_users_were_collected_says_so(start, fakes, capsys) -> None:
    loader = fakes.Loader()
    loader.collected.add("v1")
    assert start(loader=loader).client.recommend("u1", 1).bundle_version == "v1"
    assert "users_missing" in capsys.readouterr().out


def test_any_error_while_loading_counts_as_a_broken_bundle(start, until) -> None:
    one = start()

    def choke(path, store):
        raise KeyError("ranker.weight")

    one.server.loader.load_model = choke
    one.publish("v2")
    until(lambda: one.server.reloader.error)
    assert "v2 cannot be loaded (KeyError: 'ranker.weight'); rebuild it" in one.server.reloader.error
    assert one.client.recommend("u1").bundle_version == "v1"


def test_a_folder_that_holds_another_version_is_loaded_once_and_reported(start, until) -> None:
    one = start()
    load = one.loader
    one.server.loader.load_model = lambda path, store: load(path.with_name("v7"), store)
    one.publish("v2")
    until(lambda: one.server.reloader.error)
    for _ in range(3):
        one.server.reloader.check()
    assert load.loads.count("v7") == 1
    assert one.server.reloader.error == (
        "v2 was not loaded: its folder holds v7; restore it from a copy, or remove it"
    )
    assert one.client.recommend("u1").bundle_version == "v1"


def test_the_lease_names_what_is_loaded(start) -> None:
    one = start()
    (lease,) = (one.runs / "registry" / "leases").glob("*.json")
    assert json.loads(lease.read_text())["version"] == "v1"
    one.publish("v2")
    assert one.server.recommender.wait_for("v2", PATIENCE_S)
    one.server.reloader.check()
    assert json.loads(lease.read_text()) == {"version": "v2", "pid": os.getpid()}
    assert Registry(one.runs).leased() == {"v1", "v2"}


def test_a_version_that_is_being_loaded_is_in_the_lease_which_is_renewed(start, until, monkeypatch) -> None:
    """A collection of old versions deleted what took longer to load than a lease lasts."""
    monkeypatch.setattr("serving.reload.LEASE_RENEWAL_S", 0.01)
    one = start()
    registry, free, load = Registry(one.runs), threading.Event(), one.loader

    def slow(path, store):
        assert free.wait(PATIENCE_S)
        return load(path, store)

    one.server.loader.load_model = slow
    one.publish("v2")
    until(lambda: registry.leased() == {"v1", "v2"})
    lease = registry.folder / "leases" / f"{one.server.server_id}.json"
    written = lease.stat().st_mtime_ns
    until(lambda: lease.stat().st_mtime_ns > written)
    free.set()
    assert one.server.recommender.wait_for("v2", PATIENCE_S)
    assert registry.leased() == {"v1", "v2"}


def test_the_version_live_before_is_kept_and_rolled_back_to_without_loading(start, until) -> None:
    one = start(policy={"name": "greedy"})
    recommender = one.server.recommender

    def make_live(version: str) -> None:
        one.publish(version)
        assert recommender.wait_for(version, PATIENCE_S)

    make_live("v2")
    one.client.upsert_items([_withdrawn("i39")])
    make_live("v1")
    assert one.loader.loads == ["v1", "v2"]
    assert one.client.recommend("u1", 1).items[0].item_id == "i38", "i39 was withdrawn meanwhile"
    make_live("v3")
    assert recommender.loaded.versions == ("v3", "v1")
    assert one.loader.loads == ["v1", "v2", "v3"]


def test_a_rollback_does_not_wait_for_a_version_that_is_being_loaded(start, until) -> None:
    one = start()
    one.publish("v2")
    assert one.server.recommender.wait_for("v2", PATIENCE_S)
    free, load = threading.Event(), one.loader

    def slow(path, store):
        assert free.wait(PATIENCE_S)
        return load(path, store)

    one.server.loader.load_model = slow
    one.publish("v3")
    until(lambda: "v3" in Registry(one.runs).leased())
    one.publish("v1")
    assert one.server.recommender.wait_for("v1", PATIENCE_S), "v3 is still being loaded"
    free.set()
    until(lambda: "v3" in load.loads)
    one.server.reloader.check()
    assert one.server.recommender.loaded.versions == ("v1", "v2")
    assert one.server.reloader.error is None


def test_a_version_that_is_live_no_more_once_it_is_loaded_is_not_swapped_to(start, until) -> None:
    """It may be what the next activation ended: it answered until that one was loaded."""
    one = start()
    load, free, wanted = one.loader, threading.Event(), []

    def overtaken(path, store):
        wanted.append(one.server.recommender.version)
        if path.name == "v2":
            one.publish("v3")
            free.set()
        return load(path, store)

    one.server.loader.load_model = overtaken
    one.publish("v2")
    assert free.wait(PATIENCE_S)
    assert one.server.recommender.wait_for("v3", PATIENCE_S)
    assert wanted == ["v1", "v1"]
    assert one.server.recommender.loaded.versions == ("v3", "v1")


def test_the_thread_that_follows_the_pointer_goes_on_after_any_error(
    start, until, monkeypatch, capsys
) -> None:
    one = start()
    monkeypatch.setattr(one.server.reloader, "_on_check", lambda _: 1 / 0)
    until(lambda: "not_checked" in capsys.readouterr().out)
    monkeypatch.undo()
    one.publish("v2")
    assert one.server.recommender.wait_for("v2", PATIENCE_S)


def test_a_request_and_a_page_may_name_any_loaded_version(start, until) -> None:
    one = start(policy={"name": "greedy"})
    one.publish("v2")
    assert one.server.recommender.wait_for("v2", PATIENCE_S)
    first = one.client.recommend("u1", 2, bundle_version="v1")
    second = one.client.recommend("u1", 2, page_token=first.next_page_token)
    third = one.client.recommend("u1", 2, page_token=second.next_page_token, bundle_version="v1")
    assert [page.bundle_version for page in (first, second, third)] == ["v1", "v2", "v1"]
    assert [item.item_id for item in third.items] == ["i35", "i34"]
    one.client.upsert_items([_withdrawn("i39")])
    until(lambda: one.client.recommend("u1", 1, bundle_version="v1").items[0].item_id == "i38")
    with pytest.raises(CallError) as refused:
        one.client.recommend("u1", bundle_version="v0")
    assert "bundle_version 'v0' is not loaded; loaded are: 'v2', 'v1'; leave" in refused.value.details


def test_page_2_is_ranked_anew_by_the_version_then_live(start) -> None:
    one = start(policy={"epsilon": 1.0, "temperature": 1.0})
    first = one.client.recommend("u1", 10)
    one.publish("v2")
    assert one.server.recommender.wait_for("v2", PATIENCE_S)
    second = one.client.recommend("u1", 10, page_token=first.next_page_token)
    third = one.client.recommend("u1", 20, page_token=second.next_page_token)
    pages = [first, second, third]
    items = [item for page in pages for item in page.items]
    assert sorted(item.item_id for item in items) == sorted(f"i{n}" for n in range(40))
    assert [item.position for item in items] == list(range(1, 41))
    assert [page.bundle_version for page in pages] == ["v1", "v2", "v2"]
    assert {page.list_id for page in pages} == {first.list_id}
    assert third.next_page_token == ""
    requests = [row for row in one.journal() if row["table"] == "requests"]
    assert [(r["request_id"], r["list_id"], r["bundle_version"]) for r in requests] == [
        (page.request_id, first.list_id, page.bundle_version) for page in pages
    ]
    assert len({page.request_id for page in pages}) == 3
    logged = [row["impression_id"] for row in one.journal() if row["table"] == "impressions"]
    assert logged == [item.impression_id for item in items]
    with pytest.raises(CallError, match="page_token: user_id changed since the page before"):
        one.client.recommend("u2", 10, page_token=first.next_page_token)


def test_one_token_with_two_page_sizes_gives_no_impression_id_twice(start) -> None:
    one = start(policy={"epsilon": 1.0, "temperature": 1.0})
    first = one.client.recommend("u1", 5)
    pages = [one.client.recommend("u1", size, page_token=first.next_page_token) for size in (3, 5, 5)]
    shown = {item.impression_id: item.item_id for page in (first, *pages) for item in page.items}
    assert len(shown) == 5 + 3 + 5 + 5
    assert [i.item_id for i in pages[1].items] == [i.item_id for i in pages[2].items], "a retry repeats it"
    assert [i.item_id for i in pages[1].items[:3]] == [i.item_id for i in pages[0].items]


def test_pages_of_the_callers_seed_repeat_and_are_not_exact(start) -> None:
    one = start(policy={"epsilon": 1.0, "temperature": 1.0})

    def two_pages() -> list[str]:
        first = one.client.recommend("u1", 5, debug={"seed": 5})
        second = one.client.recommend("u1", 5, debug={"seed": 5}, page_token=first.next_page_token)
        items = [*first.items, *second.items]
        assert {item.propensity_kind for item in items} == {"seeded"}
        return [item.item_id for item in items]

    assert two_pages() == two_pages()
    logged = [row["propensity_kind"] for row in one.journal() if row["table"] == "impressions"]
    assert logged == ["seeded"] * 20


def test_a_later_page_is_full_while_enough_items_pass(start) -> None:
    """More pages than the candidates of one retrieval."""
    one = start(policy={"name": "greedy"}, retrieval={"num_candidates": 4, "popular_candidates": 0})
    shown: list[str] = []
    page = one.client.recommend("u1", 7)
    while page.next_page_token:
        assert len(page.items) == 7
        shown += [item.item_id for item in page.items]
        page = one.client.recommend("u1", 7, page_token=page.next_page_token)
    shown += [item.item_id for item in page.items]
    assert shown == [f"i{n}" for n in reversed(range(40))]


def test_a_token_outlives_thousands_of_lists_and_pins_no_version(start) -> None:
    one = start(policy={"name": "greedy"}, serving={"keep_loaded": 1})
    model = weakref.ref(one.server.recommender.engine)
    first = one.client.recommend("u1", 3)
    request, recommender = RankRequest(user_id="u1", page_size=1, log=False), one.server.recommender
    for _ in range(2_000):
        recommender.answer(request, Deadline.after(PATIENCE_S))
    one.publish("v2")
    assert recommender.wait_for("v2", PATIENCE_S)
    second = one.client.recommend("u1", 3, page_token=first.next_page_token)
    assert [item.item_id for item in second.items] == ["i36", "i35", "i34"]
    gc.collect()
    assert model() is None


def test_a_token_is_good_on_another_worker_and_after_a_restart(start) -> None:
    one, other = start(policy={"name": "greedy"}), start(policy={"name": "greedy"})
    first = one.client.recommend("u1", 3)
    assert other.client.recommend("u1", 1, page_token=first.next_page_token).items[0].item_id == "i36"
    one.server.stop(1.0)
    again = start(policy={"name": "greedy"})
    assert again.client.recommend("u1", 1, page_token=first.next_page_token).items[0].item_id == "i36"


def _two_pages(one, size, **wanted):
    first = one.client.recommend("u1", size, **wanted)
    return first, one.client.recommend("u1", size, page_token=first.next_page_token, **wanted)


def test_pins_of_later_pages_wait_for_them(start) -> None:
    one = start(policy={"name": "greedy"}, retrieval={"num_candidates": 1, "popular_candidates": 1})
    wanted = {"pins": {2: "i0", 5: "i1", 6: "gone"}}
    first, second = _two_pages(one, 3, **wanted)
    assert [i.item_id for i in first.items] == ["i39", "i0", "i38"]
    assert [i.item_id for i in second.items] == ["i37", "i1", "i36"]
    assert [i.propensity_kind for i in second.items] == ["exact", "pinned", "exact"]
    assert first.missing_item_ids == second.missing_item_ids == ("gone",)
    third = one.client.recommend("u1", 3, page_token=second.next_page_token, **wanted)
    assert third.missing_item_ids == ()


def test_items_pinned_further_down_leave_their_places_to_others(start) -> None:
    one = start(policy={"name": "greedy"}, retrieval={"num_candidates": 1, "popular_candidates": 0})
    wanted = {"pins": {4: "i39", 5: "i38", 6: "i37"}}
    first, second = _two_pages(one, 3, **wanted)
    assert [i.item_id for i in first.items] == ["i36", "i35", "i34"]
    assert [i.item_id for i in second.items] == ["i39", "i38", "i37"]


def test_a_pin_whose_page_is_over_is_an_item_like_others(start) -> None:
    one = start(policy={"name": "greedy"})
    one.client.upsert_items([_withdrawn("i39")])
    first = one.client.recommend("u1", 2, pins={1: "i39"})
    one.client.upsert_items([ItemUpdate(item_id="i39")], update_mask=["available_until"])
    second = one.client.recommend("u1", 2, page_token=first.next_page_token, pins={1: "i39"})
    assert [i.item_id for i in first.items] == ["i38", "i37"]
    assert [(i.item_id, i.propensity_kind) for i in second.items] == [("i39", "exact"), ("i36", "exact")]


def test_a_list_ends_after_500_items(start, fakes) -> None:
    loader = fakes.Loader()
    loader.scorer.num_items = 1_200
    one = start(policy={"name": "greedy"}, loader=loader)
    page, sizes = one.client.recommend("u1", 125), []
    while page.next_page_token:
        sizes.append(len(page.items))
        page = one.client.recommend("u1", 125, page_token=page.next_page_token)
    assert [*sizes, len(page.items)] == [125] * 4
    page, positions = one.client.recommend("u1", 200), []
    while page.next_page_token:
        positions += [item.position for item in page.items]
        page = one.client.recommend("u1", 200, page_token=page.next_page_token)
    positions += [item.position for item in page.items]
    assert positions == list(range(1, 501)), "the last page is cut"
    candidates = [f"i{n}" for n in range(300)]
    ranked = one.client.rank("u1", candidates, 200)
    rest = one.client.rank("u1", candidates, 200, page_token=ranked.next_page_token)
    assert (len(rest.items), rest.next_page_token) == (100, "")


def test_an_item_withdrawn_between_pages_leaves_no_gap(start) -> None:
    one = start(policy={"name": "greedy"})
    first = one.client.recommend("u1", 3)
    one.client.upsert_items([_withdrawn("i35")])
    second = one.client.recommend("u1", 3, page_token=first.next_page_token)
    assert [(i.item_id, i.position) for i in second.items] == [("i36", 4), ("i34", 5), ("i33", 6)]
    assert {i.propensity_kind for i in second.items} == {"exact"}


def _withdrawn(item_id: str) -> ItemUpdate:
    return ItemUpdate(item_id=item_id, available_until=datetime(2026, 3, 1, 12, tzinfo=UTC))


def test_a_full_disk_degrades_answers_and_stops_exploration(start) -> None:
    one = start(policy={"epsilon": 1.0, "temperature": 10.0})
    one.server.journal._open_file = _full
    one.server.journal._file = None
    answer = one.client.recommend("u1", 5, debug={"explain": True})
    assert [i.item_id for i in answer.items] == ["i39", "i38", "i37", "i36", "i35"]
    assert answer.degradation == ("JOURNAL_UNAVAILABLE",)
    assert {i.propensity_kind for i in answer.items} == {"degraded"}
    assert not answer.explored
    assert one.admin.status().degradation == ("JOURNAL_UNAVAILABLE",)
    with pytest.raises(CallError, match="UNAVAILABLE: the server cannot write at the moment"):
        one.client.record_feedback([Feedback(user_id="u1", item_id="i1", kind="click")])


def _full(path: Path):
    return FullDisk(path)


class FullDisk(AppendFile):
    """A file that takes no byte."""

    def write(self, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_internal_error_hides_its_text(start) -> None:
    one = start()
    one.loader.scorer.predict = lambda *_: 1 / 0
    with pytest.raises(CallError, match=r"INTERNAL: internal error; the server's log has the details$"):
        one.client.recommend("u1")
    assert one.admin.status().calls["Recommend/INTERNAL"] == 1


def test_without_bundle_and_log_the_list_is_empty_and_degraded(start) -> None:
    one = start(version=None)
    answer = one.client.recommend("u1")
    assert (answer.items, answer.degradation, answer.bundle_version) == ((), ("NO_BUNDLE",), "")
    assert check(one) == SERVING
    one.publish("v1")
    assert one.server.recommender.wait_for("v1", PATIENCE_S)
    assert one.client.recommend("u1").degradation == ()


def test_without_bundle_the_popular_items_of_the_log_are_served(start, fakes, tmp_path) -> None:
    log = InteractionLog(tmp_path / "log")
    _write_log(log, fakes)
    one = start(version=None)
    answer = one.client.recommend("u1", 4, head_weights={"click": 2.0})
    assert [i.item_id for i in answer.items[:3]] == ["i7", "i3", "unlisted"]
    assert len(answer.items) == 4
    assert answer.items[0].reasons == ("popular in plants",)
    assert answer.degradation == ("NO_BUNDLE",)


def test_while_nothing_is_live_popular_items_are_those_of_the_newest_log(
    start, fakes, tmp_path, until, monkeypatch
) -> None:
    """Nights that hold add days to the log all the same: nobody has to restart the server."""
    monkeypatch.setattr("serving.reload.RECOUNT_S", 0.0)
    log = InteractionLog(tmp_path / "log")
    _write_log(log, fakes)
    one = start(version=None)
    engine = one.server.recommender.engine
    one.server.reloader.check()
    assert one.server.recommender.engine is engine, "the log has no other days"
    _write_clicks(log, date(2026, 3, 1), ["i3", "i3"])
    until(lambda: one.server.recommender.engine is not engine)
    answer = one.client.recommend("u1", 4)
    assert [i.item_id for i in answer.items[:3]] == ["i3", "i7", "unlisted"]
    assert answer.degradation == ("NO_BUNDLE",)


def test_popular_items_stay_while_a_new_day_of_the_log_cannot_be_read(start, fakes, tmp_path) -> None:
    log = InteractionLog(tmp_path / "log")
    _write_log(log, fakes)
    one = start(version=None)
    damaged = tmp_path / "log" / "feedback" / "date=2026-03-01" / "part.parquet"
    damaged.parent.mkdir()
    damaged.write_bytes(b"no Parquet")
    assert one.server.loader.popular_of_newer_log() is None
    damaged.unlink()
    _write_clicks(log, date(2026, 3, 1), ["i3", "i3"])
    newer = one.server.loader.popular_of_newer_log()
    assert newer is not None, "the day is read once it can be"
    assert newer.model.popular.shares(newer.model.catalogue.rows_of(["i3"])) == 1.0
    assert one.server.loader.popular_of_newer_log() is None


def test_a_log_that_was_unreadable_at_the_start_is_counted_once_it_can_be_read(
    start, fakes, tmp_path
) -> None:
    log = InteractionLog(tmp_path / "log")
    _write_log(log, fakes)
    (damaged,) = log.files("feedback", date(2026, 2, 28))
    damaged.write_bytes(b"no Parquet")
    one = start(version=None)
    assert one.client.recommend("u1").items == ()
    _write_log(log, fakes)
    newer = one.server.loader.popular_of_newer_log()
    assert newer is not None
    assert len(newer.model.catalogue) > 0


def test_a_folder_of_the_log_that_is_no_day_stops_no_server(start, fakes, tmp_path) -> None:
    _write_log(InteractionLog(tmp_path / "log"), fakes)
    (tmp_path / "log" / "feedback" / "date=yesterday").mkdir()
    one = start(version=None)
    assert one.client.recommend("u1").degradation == ("NO_BUNDLE",)
    assert one.server.loader.popular_of_newer_log() is None


def _write_log(log: InteractionLog, fakes) -> None:
    day = date(2026, 2, 28)
    log.write("items", day, fakes.items())
    _write_clicks(log, day, ["i7", "i7", "i7", "i3", "i3", "unlisted"])


def _write_clicks(log: InteractionLog, day: date, clicked: list[str]) -> None:
    num, at = len(clicked), datetime(day.year, day.month, day.day, tzinfo=UTC)
    feedback = pl.DataFrame(
        {
            "feedback_id": [f"f{day}-{n}" for n in range(num)],
            "impression_id": pl.Series([None] * num, dtype=pl.String),
            "user_id": ["u"] * num,
            "item_id": clicked,
            "kind": ["click"] * num,
            "value": pl.Series([None] * num, dtype=pl.Float64),
            "occurred_at": pl.Series([at] * num, dtype=pl.Datetime("ms", "UTC")),
            "received_at": pl.Series([at] * num, dtype=pl.Datetime("ms", "UTC")),
        }
    )
    log.write("feedback", day, feedback)


def test_a_restarted_server_remembers_withdrawals_feedback_and_new_items(start) -> None:
    first = start(policy={"name": "greedy"})
    event = Feedback(user_id="u1", item_id="i1", kind="click")
    first.client.record_feedback([event])
    first.client.upsert_items([_withdrawn("i39"), ItemUpdate(item_id="new", title="New", price=3_750)])
    first.server.stop(1.0)
    (first.runs / "store" / "delta.sqlite").unlink()
    second = start(policy={"name": "greedy"})
    again = second.client.recommend("u1", 2)
    assert [(item.item_id, item.title) for item in again.items] == [("i38", "Thing 38"), ("new", "New")]
    following = second.client.recommend("u1", 50, page_token=again.next_page_token)
    assert "i39" not in [item.item_id for item in following.items]
    second.client.upsert_items([ItemUpdate(item_id="i39")], update_mask=["available_until"])
    assert second.client.recommend("u1", 1).items[0].item_id == "i39"
    assert second.client.record_feedback([event]).num_duplicate == 1
    assert second.server._store._delta().execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_of_workers_that_start_together_one_gives_the_store_its_events_back(tmp_path, monkeypatch) -> None:
    given: list[bool] = []
    monkeypatch.setattr(
        "serving.app.restore_from_journal", lambda *parts, **_: given.append(parts[3] is not None)
    )
    memory = os.memfd_create("board")
    os.ftruncate(memory, StatsBoard.size(2))
    seats = [WorkerSeat(number=number, num_workers=2, board_fd=memory) for number in (0, 1)]
    boards = [Server(options(tmp_path, seat=seat)).board for seat in seats]
    boards[0].count_restart(1)
    Server(options(tmp_path, seat=seats[1]))
    os.close(memory)
    assert given == [True, False, True]


def test_what_one_server_writes_reaches_the_others_within_a_second(start, until) -> None:
    """A withdrawn item was shown by all servers but one until they started again."""
    one, two = (start(policy={"name": "greedy"}) for _ in range(2))
    lags = []
    for n in (39, 38, 37):
        assert two.client.recommend("u1", 1).items[0].item_id == f"i{n}"
        one.client.upsert_items([_withdrawn(f"i{n}")])
        written = time.monotonic()
        until(lambda top=f"i{n}": two.client.recommend("u1", 1).items[0].item_id != top)
        lags.append(time.monotonic() - written)
    assert min(lags) < 1.0, "in each of three trials"
    event = Feedback(user_id="u1", item_id="i1", kind="click")
    one.client.record_feedback([event])
    until(lambda: two.client.record_feedback([event]).num_duplicate)
    two.client.upsert_items([ItemUpdate(item_id="new", title="New", price=9_900)])
    until(lambda: [(i.item_id, i.title) for i in one.client.recommend("u1", 1).items] == [("new", "New")])


def test_feedback_sent_to_two_servers_at_once_counts_once(start) -> None:
    """The second, which has not read the first one's journal yet, accepts it too."""
    one, two = start(), start()
    event = Feedback(user_id="u1", item_id="i1", kind="click")
    with two.server._others._tail._lock:  # the second is behind
        answers = [server.client.record_feedback([event]) for server in (one, two)]
    assert [answer.num_accepted for answer in answers] == [1, 1]
    assert one.server._store._delta().execute("SELECT count(*) FROM events").fetchone() == (1,)
    for running in (one, two):
        running.server.stop(1.0)
    ingest_journal(one.log, "UTC")
    day = date(2026, 3, 1)
    raw, none = one.log.read("feedback", day), one.log.read("feedback", date(2026, 2, 28))
    cleaned = clean("feedback", raw, day, timezone="UTC", where="", daily_cap=1_000, known_keys=none)
    assert (raw.height, cleaned.good.height, cleaned.reasons) == (2, 1, {"duplicate": 1})


def test_a_start_reads_only_what_the_versions_on_disk_may_lack(start, monkeypatch) -> None:
    first = start()
    for n, days in enumerate((9, 7, 5)):
        journal = Journal(first.log.root / "journal", f"old{n}", lambda days=days: NOON_MS - days * DAY_MS)
        item = ItemRow(item_id=f"new{n}", title="New", price=100)
        journal.append(item_patch_rows([ItemPatch.of_row(item)]))
        journal.close()
    monkeypatch.setattr(Registry, "oldest_data_end_ms", lambda _, keep: NOON_MS - 6 * DAY_MS)

    def restored(one):
        return [bool(one.server._overlay.patches(f"new{n}", 0)) for n in range(3)]

    second = start()
    assert restored(second) == [False, False, True]
    monkeypatch.setattr(Registry, "oldest_data_end_ms", lambda _, keep: NOON_MS - DAY_MS)
    assert restored(start()) == [False, False, False]
    monkeypatch.setattr(Registry, "oldest_data_end_ms", lambda _, keep: None)
    assert restored(start()) == [True, True, True]


def test_an_older_version_than_the_start_foresaw_finds_its_upserts(start, fakes, monkeypatch) -> None:
    """Activated after a restart, it showed what was withdrawn since its data ended."""
    first = start(policy={"name": "greedy"})
    old = Journal(first.log.root / "journal", "old", lambda: NOON_MS - 6 * DAY_MS)
    old.append(item_patch_rows([ItemPatch(item_id="i39", fields={"available_until": NOON_MS - 6 * DAY_MS})]))
    old.close()
    first.server.stop(1.0)
    monkeypatch.setattr(Registry, "oldest_data_end_ms", lambda _, keep: NOON_MS - DAY_MS)
    loader = fakes.Loader()
    loader.as_of_ms["v0"] = NOON_MS - 8 * DAY_MS
    one = start(loader=loader, policy={"name": "greedy"})
    one.client.upsert_items([_withdrawn("i38")])
    assert one.client.recommend("u1", 1).items[0].item_id == "i39", "v1 was made from the later data"
    one.publish("v0")
    assert one.server.recommender.wait_for("v0", PATIENCE_S)
    assert one.client.recommend("u1", 1).items[0].item_id == "i37"


def test_patches_that_no_version_lacks_are_forgotten_at_a_swap_and_found_again(
    start, fakes, monkeypatch
) -> None:
    """A server kept every patch for the length of its life."""
    first = start()
    for n, days in enumerate((6, 4)):
        old = Journal(first.log.root / "journal", f"old{n}", lambda days=days: NOON_MS - days * DAY_MS)
        fields = {"available_until": NOON_MS - days * DAY_MS}
        old.append(item_patch_rows([ItemPatch(item_id=f"i{39 - n}", fields=fields)]))
        old.close()
    first.server.stop(1.0)
    oldest_days = 8
    monkeypatch.setattr(Registry, "oldest_data_end_ms", lambda _, keep: NOON_MS - oldest_days * DAY_MS)
    loader = fakes.Loader()
    loader.as_of_ms.update({"v0": NOON_MS - 8 * DAY_MS, "v1": NOON_MS - 8 * DAY_MS})
    one = start(loader=loader, policy={"name": "greedy"}, serving={"keep_loaded": 1})
    one.client.upsert_items([_withdrawn("i37")])

    def kept_after(version):
        one.publish(version)
        assert one.server.recommender.wait_for(version, PATIENCE_S)
        return [item for item in ("i39", "i38", "i37") if one.server._overlay.patches(item, 0)]

    oldest_days = 5
    assert kept_after("v2") == ["i39", "i38", "i37"], "v1 answered until the swap"
    assert kept_after("v3") == ["i38", "i37"]
    assert one.client.recommend("u1", 1).items[0].item_id == "i39", "v3 was made from later data"
    assert kept_after("v0") == ["i39", "i38", "i37"]
    assert one.client.recommend("u1", 1).items[0].item_id == "i36"


def test_each_start_of_a_server_has_a_name_of_its_own(start) -> None:
    ids = {start().admin.status().server_id for _ in range(2)}
    assert len(ids) == 2
    assert all(f"-{os.getpid()}-" in server_id for server_id in ids)


class Process:
    """`recsys serve` as a user runs it."""

    def __init__(self, tmp_path: Path, *more: str) -> None:
        self.log, runs, ports = tmp_path / "log", tmp_path / "runs", tmp_path / "ports.json"
        for folder in (self.log, runs):
            folder.mkdir(exist_ok=True)
        config = Path(recsys.__file__).with_name("shop.toml")
        command = [
            sys.executable,
            "-c",
            "import sys; from recsys.cli import main; main(sys.argv[1:])",
            "serve",
        ]
        command += ["--config", str(config), "--log", str(self.log), "--runs", str(runs)]
        command += ["--listen", "127.0.0.1:0", "--port-file", str(ports), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.ports = json.loads(ports.read_text())
        self.client = RecsysClient(f"127.0.0.1:{self.ports['port']}", timeout_s=PATIENCE_S)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.kill()
        self.process.communicate()


def test_calls_under_way_at_sigterm_are_finished(start, until) -> None:
    one = start()
    draining, end_watches = threading.Event(), one.server._health.end_watches
    one.server._health.end_watches = lambda: (draining.set(), end_watches())
    one.loader.scorer.gate = threading.Event()
    answers: list = []
    thread = threading.Thread(target=lambda: answers.append(one.client.recommend("u1", 1)))
    thread.start()
    until(lambda: one.server._pool.num_pending)
    stopping = threading.Thread(target=one.server.stop, args=(PATIENCE_S,))
    stopping.start()
    assert draining.wait(PATIENCE_S)
    with (
        RecsysClient(f"127.0.0.1:{one.server.port}", timeout_s=PATIENCE_S) as late,
        pytest.raises(CallError, match="UNAVAILABLE"),
    ):
        late.recommend("u1", 1)
    one.loader.scorer.gate.set()
    thread.join()
    stopping.join()
    assert len(answers) == 1
    assert [p.suffix for p in files(one.log.root / "journal")] == [".journal"]


def test_a_signal_that_comes_as_soon_as_the_server_is_announced_drains(tmp_path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    server = Server(options(tmp_path))
    server.start()
    try:
        signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nobody has taken the signal yet"))
        server.run_until_signalled(lambda: signal.raise_signal(signal.SIGTERM))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with pytest.raises(CallError, match="UNAVAILABLE"), RecsysClient(f"127.0.0.1:{server.port}", 60) as late:
        late.recommend("u1")


def test_the_command_prints_one_line_loses_nothing_to_kill_9_and_drains_on_sigterm(tmp_path) -> None:
    with Process(tmp_path) as served:
        assert served.line == (
            f"recsys serve: port {served.ports['port']}, admin port {served.ports['admin_port']}, "
            "no bundle: the popular list answers\n"
        )
        tail, followed = JournalTail(served.log / "journal"), []
        tail.read(followed.extend)
        sent = [Feedback(user_id="u1", item_id=f"i{n}", kind="click") for n in range(50)]
        for event in sent:
            assert served.client.record_feedback([event]).num_accepted == 1
        assert served.client.upsert_items([ItemUpdate(item_id="new", title="New")]) == {}
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait()
        (journal,) = files(served.log / "journal")
        assert journal.suffix == ".open"
        written = [record.rows[0] for record in read(journal).records]
        assert [r.each["feedback_id"][0] for r in written[:-1]] == [e.feedback_id for e in sent]
        assert written[-1].each["item_id"] == ["new"]
        tail.read(followed.extend)
        assert [rows for _, rows in followed] == written, "another server loses nothing either"
        tail.close()
    with Process(tmp_path, "--clock-start", "2036-03-01T12:00:00Z") as again:
        assert {p.suffix for p in files(again.log / "journal")} == {".journal"}
        assert again.client.record_feedback(sent).num_duplicate == 50
        with AdminClient(f"127.0.0.1:{again.ports['admin_port']}") as admin:
            assert admin.status().now.date().isoformat() == "2036-03-01"
        again.client.record_feedback([Feedback(user_id="u1", item_id="i1", kind="click")])
        again.process.send_signal(signal.SIGTERM)
        out, err = again.process.communicate(timeout=PATIENCE_S)
        assert (again.process.returncode, out) == (0, "")
        assert "u1" not in err
        journals = files(again.log / "journal")
        assert {p.suffix for p in journals} == {".journal"}
        assert max(p.name for p in journals).startswith("20360301T12")


def test_the_status_says_what_was_shown_and_how_long_each_stage_took(start) -> None:
    one = start(policy={"epsilon": 1.0})
    first = one.client.recommend("u1", 5)
    one.client.recommend("u1", 5, page_token=first.next_page_token)
    one.client.recommend("u1", 3, debug={"do_not_log": True})
    status = one.admin.status()
    assert (status.num_lists, status.num_explored_lists, status.num_impressions) == (1, 1, 10)
    assert status.exploration_share == 1.0
    assert set(status.stages_ms) == {
        "queue_wait",
        "parse",
        "features",
        "retrieval",
        "scoring",
        "policy",
        "journal",
        "response",
    }
    assert all(0 < found["p50"] <= found["p99"] for found in status.stages_ms.values())
    assert status.store["kind"] == "sqlite"
    assert status.store["status"] == "ok"
    [worker] = status.workers
    assert (worker.state, worker.num_restarts) == ("serving", 0)
    assert worker.bundle_version == "v1"
    assert worker.loaded_versions == ("v1",)
    assert worker.server_id == status.server_id


def test_degraded_answers_are_counted_by_reason(start) -> None:
    one = start(version=None)
    one.client.recommend("u1")
    assert one.admin.status().degraded_answers == {"NO_BUNDLE": 1}
