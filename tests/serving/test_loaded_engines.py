"""The engines that a server holds: which are kept, which are let go, and what a kept one knows."""

import gc
import weakref

import pytest

from recsys.config import default_config
from recsys.errors import BundleError
from serving.catalogue.items import ItemPatch
from serving.catalogue.overlay import ItemOverlay
from serving.engine import Engine
from serving.loaded_engines import LoadedEngines
from serving.request import VersionError


@pytest.fixture
def overlay() -> ItemOverlay:
    return ItemOverlay()


@pytest.fixture
def engine(fakes, overlay):
    config = default_config()
    return lambda version: Engine(
        fakes.model(version), overlay, policy=config.policy, retrieval=config.retrieval
    )


def test_the_latest_live_ones_are_kept_and_the_oldest_is_freed_at_once(engine) -> None:
    loaded = LoadedEngines(engine(None), keep=2)
    assert loaded.versions == ()
    first = engine("v1")
    gone = weakref.ref(first)
    loaded.make_live(first)
    del first
    loaded.make_live(engine("v2"))
    assert loaded.versions == ("v2", "v1")
    gc.disable()  # a collection would stop all requests: an engine must be in no cycle
    try:
        loaded.make_live(engine("v3"))
        loaded._catch_up()
        assert gone() is None
    finally:
        gc.enable()
    assert loaded.versions == ("v3", "v2")
    assert loaded.require(None) is loaded.require("v3") is not loaded.require("v2")
    loaded.make_live(loaded.require("v2"))
    assert loaded.versions == ("v2", "v3")


def test_a_version_that_is_not_loaded_is_refused_with_those_that_are(engine) -> None:
    loaded = LoadedEngines(engine("v1"), keep=2)
    assert loaded.require(None) is loaded.require("v1") is loaded.live
    with pytest.raises(VersionError, match=r"'v0' is not loaded; loaded are: 'v1'; leave the field empty"):
        loaded.require("v0")
    with pytest.raises(VersionError, match="loaded are: none"):
        LoadedEngines(engine(None), keep=2).require("v0")


def test_a_kept_engine_takes_upserts_in_later_many_at_a_time(engine, overlay) -> None:
    loaded = LoadedEngines(engine("v1"), keep=2)
    kept = loaded.live
    loaded.make_live(engine("v2"))
    encoded = []
    refresh = kept.live_catalogue.refresh
    kept.live_catalogue.refresh = lambda items: (encoded.append(list(items)), refresh(items))
    for item_id in ("new", "i1", "new"):
        overlay.put([ItemPatch(item_id=item_id, fields={"price": 700}, at_ms=1)])
    assert loaded.live.live_catalogue.item("new").price == 700
    assert kept.live_catalogue.item("new") is None, "the upsert did not wait for it"
    loaded._catch_up()
    assert kept.live_catalogue.item("new").price == 700
    overlay.put([ItemPatch(item_id="i2", fields={"price": 800}, at_ms=2)])
    loaded.make_live(kept)
    assert kept.live_catalogue.item("i2").price == 800, "it knows everything when it goes live"
    overlay.put([ItemPatch(item_id="i2", fields={"price": 900}, at_ms=3)])
    assert kept.live_catalogue.item("i2").price == 900
    assert encoded == [["new", "i1"], ["i2"], ["i2"]]


@pytest.mark.parametrize("is_live", [False, True])
def test_upserts_that_could_not_be_taken_in_are_tried_again(engine, overlay, monkeypatch, is_live) -> None:
    loaded = LoadedEngines(engine("v1"), keep=2)
    behind = loaded.live.live_catalogue
    if not is_live:
        loaded.make_live(engine("v2"))
    refresh = behind.refresh
    monkeypatch.setattr(behind, "refresh", lambda _: 1 / 0)
    overlay.put([ItemPatch(item_id="i2", fields={"price": 900}, at_ms=1)])
    loaded._catch_up()
    assert behind.item("i2").price == 200
    monkeypatch.setattr(behind, "refresh", refresh)
    loaded._catch_up()
    assert behind.item("i2").price == 900


def test_a_version_that_cannot_take_in_upserts_does_not_go_live(engine, overlay, monkeypatch) -> None:
    loaded = LoadedEngines(engine("v1"), keep=2)
    first = loaded.live
    loaded.make_live(engine("v2"))
    overlay.put([ItemPatch(item_id="i2", fields={"price": 900}, at_ms=1)])
    monkeypatch.setattr(first.live_catalogue, "refresh", lambda _: 1 / 0)
    with pytest.raises(BundleError, match=r"v1 cannot take in 1 upserted items \(ZeroDivisionError"):
        loaded.make_live(first)
    assert loaded.versions == ("v2", "v1")
    monkeypatch.undo()
    loaded.make_live(first)
    assert first.live_catalogue.item("i2").price == 900
