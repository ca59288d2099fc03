from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from serving.catalogue import Catalogue, ItemRow
from serving.live_catalogue import ItemOverlay, LiveCatalogue
from serving.request import Filter

FRAME = pl.DataFrame(
    {
        "item_id": ["a", "b", "c"],
        "title": ["A", None, "C"],
        "category": ["x", "y", None],
        "price": [10, None, 30],
        "available_from": pl.Series([None, 100, None], dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")),
        "available_until": pl.Series([None, 200, 50], dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")),
        "attribute_size": [1.5, None, 2.0],
    }
)


@pytest.fixture
def model(fakes, catalogue):
    return replace(fakes.model(), catalogue=catalogue, scorer=None)


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue.from_frame(FRAME)


@pytest.mark.parametrize(
    ("at_ms", "expected"), [(0, "ac"), (49, "ac"), (50, "a"), (99, "a"), (100, "ab"), (199, "ab"), (200, "a")]
)
def test_an_item_is_available_from_until(catalogue, at_ms, expected) -> None:
    mask = catalogue.allowed(Filter(), (), at_ms)
    assert "".join(np.array(catalogue.item_ids)[mask.bools()]) == expected


def test_an_item_without_a_price_passes_no_price_filter(catalogue) -> None:
    assert catalogue.allowed(Filter(min_price=0, include_unavailable=True), (), 0).bools().tolist() == [
        True,
        False,
        True,
    ]
    assert catalogue.allowed(Filter(max_price=20), (), 150).bools().tolist() == [True, False, False]


def test_a_frame_with_ids_alone_is_enough() -> None:
    catalogue = Catalogue.from_frame(FRAME.select("item_id"))
    assert catalogue.allowed(Filter(), (), 0).count == 3
    assert catalogue.category_of(0) is None
    assert catalogue.bundle_item("a") == ItemRow(item_id="a")


def test_the_bundles_row_is_read_back_whole(catalogue) -> None:
    assert catalogue.bundle_item("b") == ItemRow(
        item_id="b", category="y", available_from_ms=100, available_until_ms=200
    )
    assert catalogue.bundle_item("a") == ItemRow(
        item_id="a", title="A", category="x", price=10, attributes={"size": 1.5}
    )
    assert catalogue.bundle_item("z") is None


def test_changed_items_keep_their_row_and_new_ones_follow(catalogue) -> None:
    later = catalogue.with_items(
        [ItemRow(item_id="n", category="z", price=5), ItemRow(item_id="a", title="A2")]
    )
    assert later.item_ids == ("a", "b", "c", "n")
    assert (later.titles[0], later.category_of(0), later.category_of(3)) == ("A2", None, "z")
    assert np.isnan(later.prices[0])
    assert later.num_in_bundle == 3
    assert catalogue.item_ids == ("a", "b", "c")
    assert catalogue.titles[0] == "A"
    assert catalogue.with_items([]) is catalogue


def test_a_live_catalogue_follows_the_overlay(model) -> None:
    overlay = ItemOverlay()
    overlay.put([ItemRow(item_id="n", title="first")])
    live = LiveCatalogue(model, overlay)
    assert live.current().catalogue.titles[3] == "first"
    overlay.put([ItemRow(item_id="n", title="second")])
    assert live.current().catalogue.titles[3] == "second"
    assert live.current() is live.current()
    assert live.item("n") == ItemRow(item_id="n", title="second")
    assert (live.in_bundle("a"), live.in_bundle("n"), live.in_bundle("z")) == (
        True,
        False,
        False,
    )


def test_a_live_catalogue_skips_upserts_that_its_bundle_has(model, catalogue) -> None:
    overlay = ItemOverlay()
    overlay.put([ItemRow(item_id="a", title="old", at_ms=10), ItemRow(item_id="b", title="new", at_ms=20)])
    live = LiveCatalogue(replace(model, items_as_of_ms=20), overlay)
    assert live.current().catalogue.titles == ("A", "new", "C")
    assert live.item("a") == catalogue.bundle_item("a")


def test_an_upsert_is_encoded_once_and_by_its_row(model, fakes) -> None:
    overlay, encoded = ItemOverlay(), []

    def encode(items):
        encoded.append({row: item.title for row, item in items.items()})
        return dict.fromkeys(items, 7.0)

    live = LiveCatalogue(replace(model, scorer=fakes.Scorer(num_items=3), encode_items=encode), overlay)
    bare = live.current().scorer
    overlay.put([ItemRow(item_id="n", title="N"), ItemRow(item_id="b", title="B")])
    assert live.current().scorer.fresh == live.current().scorer.fresh == {3: 7.0, 1: 7.0}
    overlay.put([ItemRow(item_id="m", title="M"), ItemRow(item_id="n", title="N2")])
    assert sorted(live.current().scorer.fresh) == [1, 3, 4]
    assert encoded == [{3: "N", 1: "B"}, {4: "M", 3: "N2"}]
    assert bare.fresh == {}
