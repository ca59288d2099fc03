from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import LogCounts, write_log
from recsys.simulator.shop import Shop


@dataclass(frozen=True)
class Simulated:
    shop: Shop
    log: InteractionLog
    counts: LogCounts

    def table(self, name: str) -> pl.DataFrame:
        return pl.concat([self.log.read(name, day) for day in self.log.days(name)])


@pytest.fixture(scope="package")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """A shop of a quarter of the default users, the same pages a user, the default catalogue."""
    dials = ShopDials(users=1_200)
    shop = Shop.from_seed(dials, seed=11)
    log = InteractionLog(Path(tmp_path_factory.mktemp("simulated")))
    counts = LogCounts()
    for _, so_far in write_log(shop, log):
        counts = so_far
    return Simulated(shop=shop, log=log, counts=counts)


@pytest.fixture(scope="package")
def small() -> Shop:
    return Shop.from_seed(ShopDials(users=100, items=120, days=4), seed=5, extra_days=10)
