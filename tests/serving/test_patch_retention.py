"""The patches that a server keeps: few, and all that a version which may go live lacks."""

from recsys.errors import RegistryError
from recsys.journal import FOLDER
from serving.catalogue.items import ItemPatch, ItemRow, patched
from serving.catalogue.overlay import ItemOverlay
from serving.journal import Journal
from serving.journal_rows import item_patch_rows
from serving.patch_retention import TIDY_EVERY_S, PatchRetention

NOON_MS = 1_772_366_400_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Shop:
    """A server's overlay with a price feed, and a registry whose oldest data ends so many days ago."""

    def __init__(self, folder) -> None:
        self.ms, self.seconds, self.oldest_days, self.loaded_days = NOON_MS, 0.0, None, [0]
        self.overlay = ItemOverlay()
        self.journal = Journal(folder / FOLDER, "s", lambda: self.ms, rotate_s=1e9)
        self.retention = PatchRetention(
            folder / FOLDER,
            self.overlay,
            self,
            keep=3,
            period_s=86_400,
            now_ms=lambda: self.ms,
            loaded_ms=lambda: [NOON_MS + day * DAY_MS for day in self.loaded_days],
            elapsed_s=lambda: self.seconds,
        )

    def oldest_data_end_ms(self, count: int) -> int | None:
        if count != 3:
            raise RegistryError("no such registry")
        return None if self.oldest_days is None else NOON_MS + self.oldest_days * DAY_MS

    def feed(self, days: int) -> None:
        """A price each hour; on the first hour of a day also a description."""
        for n in range(24 * days):
            fields = {"price": n} | ({"description": f"of hour {n}"} if n % 24 == 0 else {})
            patch = ItemPatch(item_id="a", fields=fields)
            self.ms += HOUR_MS
            at_ms = self.journal.append(item_patch_rows([patch]))
            self.overlay.put([ItemPatch(item_id="a", fields=fields, at_ms=at_ms)])

    def since(self, ms: int) -> ItemRow:
        return patched(ItemRow(item_id="a"), self.overlay.patches("a", ms))

    @property
    def num_patches(self) -> int:
        return len(self.overlay.patches("a", 0))


def test_patches_do_not_grow_while_no_version_is_live(tmp_path) -> None:
    shop = Shop(tmp_path)
    shop.loaded_days = [-20_000]  # the popular list has no data of its own
    shop.feed(10)
    row, shop.seconds = shop.since(0), TIDY_EVERY_S - 1
    shop.retention.tidy_if_due()
    assert shop.num_patches == 240
    shop.seconds += 1
    shop.retention.tidy_if_due()
    assert shop.num_patches == 1 + 3 * 24 + 1
    assert shop.since(0) == row
    shop.journal.close()


def test_patches_do_not_grow_between_swaps_and_every_version_finds_its_own(tmp_path) -> None:
    shop = Shop(tmp_path)
    shop.feed(10)
    rows = {day: shop.since(NOON_MS + day * DAY_MS) for day in range(8)}
    shop.oldest_days, shop.loaded_days = 1, [2, 3]
    shop.retention.tidy()
    assert shop.num_patches == 3 + 3 * 24 + 1
    assert shop.overlay.patches("a", 0)[0].at_ms >= NOON_MS + DAY_MS
    for day in (7, 3, 2, 1):
        shop.retention.require(NOON_MS + day * DAY_MS)
        assert shop.num_patches == 3 + 3 * 24 + 1, "nothing was read again"
        assert shop.since(NOON_MS + day * DAY_MS) == rows[day]
    shop.oldest_days = 5
    for day in (5, 0):  # folded across its end before; dropped
        shop.retention.tidy()
        shop.retention.require(NOON_MS + day * DAY_MS)
        assert shop.num_patches == 240, "they were read again"
        assert shop.since(NOON_MS + day * DAY_MS) == rows[day]
    shop.journal.close()


def test_a_registry_that_cannot_be_read_costs_no_patch(tmp_path) -> None:
    shop = Shop(tmp_path)
    shop.feed(5)
    shop.retention._keep = 0
    shop.retention.tidy()
    assert shop.num_patches == 120
    shop.journal.close()
