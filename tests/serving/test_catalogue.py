"""The catalogue as a request sees it, kept up to date by upserts; nothing grows with the number of items."""

import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import PolicyConfig, RetrievalConfig
from recsys.mapped_frame import FrameInMemory
from recsys.mask import Mask
from serving.catalogue import Allowed, Catalogue, ItemPatch, ItemRow
from serving.catalogue.base import BaseCatalogue
from serving.catalogue.live import LiveCatalogue
from serving.catalogue.overlay import ItemOverlay
from serving.catalogue.popular import Popular
from serving.engine import Engine
from serving.request import Deadline, Filter, RankRequest

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


def upserted(at_ms=0, **row) -> ItemPatch:
    """A patch that makes the item this row."""
    return ItemPatch.of_row(ItemRow(**row), at_ms)


ALL = Filter()


def passing(catalogue, conditions=ALL, forbidden=(), at_ms=0) -> str:
    allowed = catalogue.allowed(conditions, catalogue.rows_or_missing(forbidden), at_ms)
    rows = np.arange(len(catalogue))
    return "".join(catalogue.ids_of(rows[allowed.of(rows)]))


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
    assert passing(catalogue, at_ms=at_ms) == expected


def test_instants_may_be_asked_for_in_any_order(catalogue) -> None:
    instants = {0: "ac", 49: "ac", 50: "a", 99: "a", 100: "ab", 199: "ab", 200: "a"}
    for at_ms in np.random.default_rng(0).choice(list(instants), 60).tolist():
        assert passing(catalogue, at_ms=at_ms) == instants[at_ms]


def test_the_bitmap_of_the_available_items_is_made_again_only_when_it_changes(catalogue) -> None:
    availability = catalogue.base.availability
    assert availability.at(100) is availability.at(199)
    assert availability.at(100) is not availability.at(200)
    assert catalogue.allowed(Filter(), catalogue.rows_or_missing(["a"]), 150).mask is availability.at(150)


def test_an_item_without_a_price_passes_no_price_filter(catalogue) -> None:
    assert passing(catalogue, Filter(min_price=0, include_unavailable=True)) == "ac"
    assert passing(catalogue, Filter(max_price=20), at_ms=150) == "a"


def test_a_frame_with_ids_alone_is_enough() -> None:
    catalogue = Catalogue.from_frame(FRAME.select("item_id"))
    assert passing(catalogue) == "abc"
    assert catalogue.category_of(0) is None
    assert catalogue.title_of(0) is None
    assert catalogue.bundle_item("a") == ItemRow(item_id="a")


def test_the_bundles_row_is_read_back_whole(catalogue) -> None:
    assert catalogue.bundle_item("b") == ItemRow(
        item_id="b", category="y", available_from_ms=100, available_until_ms=200
    )
    assert catalogue.bundle_item("a") == ItemRow(
        item_id="a", title="A", category="x", price=10, attributes={"size": 1.5}
    )
    assert catalogue.bundle_item("z") is None


NAMES = ("w", "x", "y", None)
ROWS = st.tuples(
    st.sampled_from(NAMES),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 5),
)


def _plain(item: ItemRow, conditions: Filter, at_ms: int) -> bool:
    start, end = item.available_from_ms, item.available_until_ms
    available = (start is None or start <= at_ms) and (end is None or at_ms < end)
    low, high = conditions.min_price, conditions.max_price
    return (
        (conditions.include_unavailable or available)
        and (not conditions.categories or item.category in conditions.categories)
        and (low is None or (item.price is not None and item.price >= low))
        and (high is None or (item.price is not None and item.price <= high))
        and (not conditions.allow_item_ids or item.item_id in conditions.allow_item_ids)
    )


@settings(deadline=None, max_examples=150)
@given(
    bundle=st.lists(ROWS, max_size=150),
    upserts=st.dictionaries(st.integers(0, 170), ROWS, max_size=12),
    conditions=st.builds(
        Filter,
        categories=st.frozensets(st.sampled_from(["w", "x", "y", "z"])),
        min_price=st.none() | st.integers(0, 9),
        max_price=st.none() | st.integers(0, 9),
        allow_item_ids=st.just(frozenset()) | st.frozensets(st.integers(0, 170).map(str), min_size=1),
        include_unavailable=st.booleans(),
    ),
    forbidden=st.lists(st.integers(0, 170).map(str), max_size=8),
    at_ms=st.integers(-1, 6),
)
def test_bitmaps_say_what_the_plain_rule_says(bundle, upserts, conditions, forbidden, at_ms) -> None:
    def item(n, row):
        category, price, start, end = row
        return ItemRow(
            item_id=str(n), category=category, price=price, available_from_ms=start, available_until_ms=end
        )

    items = {str(n): item(n, row) for n, row in enumerate(bundle)}
    names = ("category", "price", "available_from_ms", "available_until_ms")
    frame = pl.DataFrame(
        {"item_id": list(items), **{name: [getattr(i, name) for i in items.values()] for name in names}},
        schema={"item_id": pl.String, "category": pl.String, **dict.fromkeys(names[1:], pl.Int64)},
    ).rename({"available_from_ms": "available_from", "available_until_ms": "available_until"})
    frame = frame.with_columns(pl.col("available_from", "available_until").cast(pl.Datetime("ms", "UTC")))
    catalogue = Catalogue.from_frame(frame)
    fresh = {str(n): item(n, row) for n, row in upserts.items()}
    for part in (list(fresh.values())[:5], list(fresh.values())[5:]):
        rows = catalogue.next_rows([i.item_id for i in part])
        catalogue = catalogue.with_items(rows, part)
    items |= fresh
    allowed = catalogue.allowed(conditions, catalogue.rows_or_missing(forbidden), at_ms)
    rows = np.arange(len(catalogue))
    assert sorted(catalogue.ids_of(rows)) == sorted(items)
    wanted = [
        row
        for row, item_id in enumerate(catalogue.ids_of(rows))
        if item_id not in forbidden and _plain(items[item_id], conditions, at_ms)
    ]
    np.testing.assert_array_equal(rows[allowed.of(rows)], wanted)
    assert allowed.mask.count == allowed.mask.bools().sum()
    np.testing.assert_array_equal(allowed.first(4), wanted[:4])
    names_of = [catalogue.category_of(row) for row in rows.tolist()]
    codes = catalogue.category_codes(rows)
    assert names_of == [items[item_id].category for item_id in catalogue.ids_of(rows)]
    assert [codes[a] == codes[b] for a in rows for b in rows] == [a == b for a in names_of for b in names_of]


def test_a_search_looks_for_as_many_more_as_are_forbidden(catalogue) -> None:
    mask = Mask.of_bools(np.array([True, True, False, True]))
    few = Allowed(mask, np.array([1, 3]))
    assert few.search(2) == (4, mask)
    k, less = few.search(1)
    assert (k, less.rows().tolist()) == (1, [0])
    assert Allowed(Mask.full(4), np.array([1])).search(2) == (3, None)


@pytest.mark.parametrize("few", [-1, 10_000])
def test_the_most_popular_allowed_items_in_their_order(few, monkeypatch, fakes) -> None:
    monkeypatch.setattr("serving.catalogue.popular._FEW", few)
    monkeypatch.setattr("serving.catalogue.popular._CHUNK", 3)
    catalogue = Catalogue.from_frame(fakes.items(40))
    catalogue = catalogue.with_items(catalogue.next_rows(["new"]), [ItemRow(item_id="new", category="rugs")])
    order = [f"i{n}" for n in (7, 2, 30, 6, 10, 1, 22)]
    popular = Popular.of(catalogue, [*order[:3], "unknown", *order[3:]], [8, 7, 6, 5, 4, 3, 2, 1])
    rugs = catalogue.allowed(Filter(categories=frozenset({"rugs"})), catalogue.rows_or_missing(["i6"]), 0)
    assert catalogue.ids_of(popular.first(3, rugs)) == ["i2", "i30", "i10"]
    assert catalogue.ids_of(popular.first(9, rugs)) == ["i2", "i30", "i10", "i22"]
    assert popular.scores(catalogue.rows_of(["i7", "i3", "new", "i22"])).tolist() == [8, 0, 0, 1]


def test_changed_items_keep_their_row_and_new_ones_follow(catalogue) -> None:
    items = [ItemRow(item_id="n", category="z", price=5), ItemRow(item_id="a", title="A2")]
    later = catalogue.with_items(catalogue.next_rows(["n", "a"]), items)
    assert later.ids_of(np.arange(4)) == ["a", "b", "c", "n"]
    assert (later.title_of(0), later.category_of(0), later.category_of(3)) == ("A2", None, "z")
    assert (later.row_of("n"), later.row_of("m"), catalogue.row_of("n")) == (3, -1, -1)
    assert (later.num_in_bundle, len(later), len(catalogue)) == (3, 4, 3)
    assert catalogue.title_of(0) == "A"


def test_what_was_prepared_but_not_shown_leaves_no_trace(model) -> None:
    live = LiveCatalogue(model, ItemOverlay())
    live.prepare([ItemRow(item_id="never shown")])
    live.publish(live.prepare([ItemRow(item_id="shown")]))
    catalogue = live.current().catalogue
    assert (catalogue.row_of("shown"), catalogue.row_of("never shown")) == (3, -1)


def test_checking_items_takes_no_memory_for_good(model) -> None:
    """Items that were only validated stayed in the lists that all versions share."""
    live = LiveCatalogue(model, ItemOverlay())
    live.publish(live.prepare([ItemRow(item_id="shown", category="new")]))
    for n in range(20):
        live.prepare([ItemRow(item_id=f"checked {n}", category=f"category {n}"), ItemRow(item_id="shown")])
    live.publish(live.prepare([ItemRow(item_id="other", category="newer")]))
    fresh = live.current().catalogue.fresh
    assert (len(fresh.slots), len(fresh.new_rows), len(fresh.category_codes)) == (2, 2, 2)
    assert [live.current().catalogue.category_of(row) for row in (3, 4)] == ["new", "newer"]


def test_patches_between_two_versions_data_become_one_and_older_ones_none() -> None:
    overlay, hour = ItemOverlay(), 3_600_000
    overlay.put(upserted(n * hour, item_id="b", title=str(n)) for n in range(1, 9))
    overlay.put([upserted(hour, item_id="a", title="1"), upserted(2 * hour, item_id="c", title="2")])
    overlay.compact([2 * hour, 4 * hour], before_ms=7 * hour)
    left = {item: [patch.at_ms // hour for patch in overlay.patches(item, 0)] for item in "abc"}
    assert left == {"a": [], "b": [3, 6, 7, 8], "c": [2]}
    assert set(overlay._patches) == {"b", "c"}


def test_a_live_catalogue_follows_the_overlay(model) -> None:
    overlay = ItemOverlay()
    overlay.put([upserted(item_id="n", title="first")])
    live = LiveCatalogue(model, overlay)
    assert live.current().catalogue.title_of(3) == "first"
    overlay.put([upserted(item_id="n", title="second")])
    assert live.current().catalogue.title_of(3) == "second"
    assert live.current() is live.current()
    assert live.item("n") == ItemRow(item_id="n", title="second")
    assert (live.in_bundle("a"), live.in_bundle("n"), live.in_bundle("z")) == (True, False, False)


def test_a_version_takes_in_what_came_while_it_was_loading(model) -> None:
    """An upsert during the catching up reaches the new version, whoever is first."""
    overlay = ItemOverlay()
    overlay.put([upserted(item_id="n", title="before")])
    encoding, go_on = threading.Event(), threading.Event()

    def encode(items):
        encoding.set()
        assert go_on.wait(20)
        return {}

    class Scorer:
        def with_items(self, rows, items):
            return self

    made = []
    loading = threading.Thread(
        target=lambda: made.append(
            LiveCatalogue(replace(model, scorer=Scorer(), encode_items=encode), overlay)
        )
    )
    loading.start()
    assert encoding.wait(20)
    overlay.put([upserted(item_id="n", title="meanwhile")])  # waits for no encoding
    go_on.set()
    loading.join(20)
    assert made[0].current().catalogue.title_of(3) == "meanwhile"


def test_a_live_catalogue_skips_upserts_that_its_bundle_has(model, catalogue) -> None:
    overlay = ItemOverlay()
    overlay.put([upserted(10, item_id="a", title="old"), upserted(20, item_id="b", title="new")])
    live = LiveCatalogue(replace(model, items_as_of_ms=20), overlay)
    assert [live.current().catalogue.title_of(row) for row in range(3)] == ["A", "new", "C"]
    assert live.item("a") == catalogue.bundle_item("a")


def test_patches_of_different_fields_are_both_kept_on_the_bundles_row(model) -> None:
    overlay = ItemOverlay()
    live = LiveCatalogue(model, overlay)
    overlay.put([ItemPatch(item_id="a", fields={"price": 11}), ItemPatch(item_id="a", fields={"title": "T"})])
    overlay.put([ItemPatch(item_id="a", fields={"attributes": {"colour": "red"}}, at_ms=10**7)])
    assert live.item("a") == ItemRow(
        item_id="a", title="T", category="x", price=11, attributes={"size": 1.5, "colour": "red"}
    )
    overlay.put([ItemPatch(item_id="a", fields={"attributes": {}}, whole_attributes=True, at_ms=10**7)])
    assert live.item("a") == ItemRow(item_id="a", title="T", category="x", price=11)


def test_an_upsert_is_encoded_once_and_by_its_row(model, fakes) -> None:
    overlay, encoded = ItemOverlay(), []

    def encode(items):
        encoded.append({row: item.title for row, item in items.items()})
        return dict.fromkeys(items, 0.0)

    live = LiveCatalogue(replace(model, scorer=fakes.Scorer(num_items=3), encode_items=encode), overlay)
    overlay.put([upserted(item_id="n", title="N"), upserted(item_id="b", title="B")])
    overlay.put([upserted(item_id="m", title="M")])
    assert live.current() is live.current()
    assert encoded == [{3: "N", 1: "B"}, {4: "M"}]


def test_warming_up_encodes_an_item_and_shows_nothing(model, fakes) -> None:
    encoded = []

    def encode(items):
        encoded.append(list(items))
        return dict.fromkeys(items, 0.0)

    live = LiveCatalogue(replace(model, scorer=fakes.Scorer(num_items=3), encode_items=encode), ItemOverlay())
    before = live.current()
    live.warm()
    assert encoded == [[0]]
    assert live.current() is before


def test_warming_up_with_an_item_that_cannot_be_encoded_is_no_fault(model, fakes) -> None:
    def refuse(items):
        raise ZeroDivisionError("no such text")

    scorer = fakes.Scorer(num_items=3)
    LiveCatalogue(replace(model, scorer=scorer, encode_items=refuse), ItemOverlay()).warm()


def test_an_item_that_cannot_be_encoded_is_left_out_and_the_others_are_shown(model, fakes, capfd) -> None:
    def encode(items):
        for item in items.values():
            if item.title == "poison":
                raise ZeroDivisionError("no such text")
        return dict.fromkeys(items, 0.0)

    overlay = ItemOverlay()
    overlay.put([upserted(item_id=f"n{n}", title="poison" if n == 5 else "fine") for n in range(9)])
    live = LiveCatalogue(replace(model, scorer=fakes.Scorer(num_items=3), encode_items=encode), overlay)
    catalogue = live.current().catalogue
    assert [n for n in range(9) if catalogue.row_of(f"n{n}") >= 0] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert len(catalogue) == 3 + 8
    assert live.current().scorer.fresh.keys() == set(range(3, 11))


NUM_MANY = 1_000_000
BITMAP = NUM_MANY // 8


@pytest.fixture(scope="module")
def many() -> Catalogue:
    """A million items of 200 categories; one in a thousand has a window."""
    rows = pl.int_range(NUM_MANY, eager=True)
    return Catalogue.from_frame(
        pl.DataFrame({"row": rows}).select(
            item_id=pl.format("item-{}", "row"),
            category=pl.format("category {}", pl.col("row") % 200),
            price=pl.col("row") * 7 % 10_007,
            available_until=pl.when(pl.col("row") % 1000 == 0).then("row").cast(pl.Datetime("ms", "UTC")),
        )
    )


def _allocated(work) -> int:
    """Return the peak of the bytes allocated, numpy's arrays and Python objects."""
    work()
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    ("conditions", "bitmaps"),
    [
        (Filter(), 0),
        (Filter(categories=frozenset({"category 3", "category 7"})), 4),
        (Filter(min_price=500, max_price=5_000), 6),
        (Filter(allow_item_ids=frozenset({"item-5"})), 4),
    ],
)
def test_a_request_allocates_bitmaps_and_nothing_else_that_grows(many, conditions, bitmaps) -> None:
    seen = [f"item-{n}" for n in range(0, 5000, 10)]

    def request():
        allowed = many.allowed(conditions, many.rows_or_missing(seen), 999_000)
        allowed.first(50)
        allowed.search(500)

    # A 64th of the items is looked at one by one: 15,625 rows of 8 bytes, and their places in the bitmap.
    assert _allocated(request) < bitmaps * BITMAP + 700_000


@pytest.mark.parametrize("conditions", [Filter(), Filter(categories=frozenset({"no such category"}))])
def test_a_whole_request_does_no_work_that_grows_with_the_catalogue(many, fakes, conditions) -> None:
    """From the filter to the scores, fallbacks included; the index's own scan is left out."""

    class Scorer(fakes.Scorer):
        def retrieve(self, user_side, k, allowed):
            return np.arange(k) if allowed is None else allowed.first(k)

    popular = [f"item-{n}" for n in range(0, NUM_MANY, 10)]
    user = fakes.User(user_id="u", known=True, seen={"purchase": frozenset(popular[:500])})
    model = replace(
        fakes.model(u=user),
        catalogue=many,
        scorer=Scorer(),
        popular=Popular.of(many, popular, np.linspace(1, 0.1, len(popular))),
    )
    engine = Engine(model, ItemOverlay(), policy=PolicyConfig(), retrieval=RetrievalConfig())
    engine.live_catalogue.publish(engine.live_catalogue.prepare([ItemRow(item_id="new")]))
    request = RankRequest(user_id="u", page_size=50, filter=conditions)
    peak = _allocated(lambda: engine.score_candidates(request, 999_000, Deadline.after(60)).page(50))
    assert peak < 6 * BITMAP + 500_000


def test_an_upsert_allocates_nothing_that_grows_with_the_catalogue(many, fakes) -> None:
    overlay = ItemOverlay()
    model = replace(fakes.model(), catalogue=many, scorer=None)
    live = LiveCatalogue(model, overlay)
    assert (
        _allocated(lambda: overlay.put([upserted(item_id="new", price=5), upserted(item_id="item-7")]))
        < 40_000
    )
    assert len(live.current().catalogue) == NUM_MANY + 1


def test_a_catalogue_is_mapped_from_its_files_and_says_the_same(tmp_path, catalogue) -> None:
    catalogue.base.write(tmp_path)
    mapped = Catalogue.of(BaseCatalogue.open_folder(tmp_path, FrameInMemory(FRAME)))
    assert isinstance(mapped.base.ids.blob.base, np.memmap)
    for conditions in (Filter(), Filter(categories=frozenset("x")), Filter(min_price=5, max_price=30)):
        for at_ms in (0, 50, 100, 150, 200):
            assert passing(mapped, conditions, at_ms=at_ms) == passing(catalogue, conditions, at_ms=at_ms)
    rows = np.arange(3)
    assert mapped.ids_of(rows) == catalogue.ids_of(rows)
    assert [mapped.item(row) for row in range(3)] == [catalogue.item(row) for row in range(3)]
    assert [mapped.category_of(row) for row in range(3)] == ["x", "y", None]
    with pytest.raises(OSError, match="ids"):
        BaseCatalogue.open_folder(tmp_path / "nothing", FrameInMemory(FRAME))


def test_an_empty_catalogue_is_mapped_too(tmp_path) -> None:
    Catalogue.from_frame(FRAME.clear()).base.write(tmp_path)
    mapped = Catalogue.of(BaseCatalogue.open_folder(tmp_path, FrameInMemory(FRAME.clear())))
    assert (len(mapped), passing(mapped), mapped.row_of("a")) == (0, "", -1)
