"""One log of the simulated shop, what a night trains on it, and the requests whose lists are valued.

The log's last day has the fixed requests, and the labels that offline metrics read. No model learns it but
the one that looks back (`hindsight`). The regimes differ in the shop's own policy alone.
Legend: U requests, J items that may be listed, N rows of the last day.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.lists.true_value import TASKS
from benchmarks.speed.shop_days import last_days
from features.days import Days
from recsys.config import RunConfig
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.schema import IMPRESSION_KEY
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import write_log
from recsys.simulator.shop import Shop
from recsys.stages import Stages
from training.calibrate import fit_calibration
from training.count_item_bias import count_item_bias
from training.evaluation.audience import Audience, item_codes, shown_audience
from training.predict import ListModel, day_logits
from training.source_fit import fit_sources
from training.train import train

REGIMES: Mapping[str, Mapping[str, float]] = {
    "tastes": {},
    "ignorant": {"policy_knowledge": 0.0},
    "uniform": {"policy_taste": 0.0, "policy_popularity": 0.0, "popular_share": 0.0},
}
"""Name -> dials of the shop's policy: it knows tastes; it is as sharp but knows nothing; it draws evenly."""


def parse_regimes(text: str) -> list[str]:
    """Read names of regimes, `a,b,…`.

    Raises: ConfigError naming the known ones.
    """
    names = text.split(",")
    for name in names:
        if name not in REGIMES or names.count(name) > 1:
            wrong = "given twice" if name in REGIMES else "unknown"
            raise ConfigError(f"--regimes {text!r}: {name!r} is {wrong}; choose from {', '.join(REGIMES)}")
    return names


def check_valued(config: RunConfig) -> None:
    """Check that the shop's truth can value lists of a config, before hours of work.

    Raises: ConfigError when its tasks are not the shop's, or their sum is not the score.
    """
    names = [task.name for task in config.tasks]
    if sorted(names) != sorted(TASKS):
        raise ConfigError(
            f"--config has the tasks {', '.join(names)}; the shop's truth values {', '.join(TASKS)}: take a "
            "config of these three"
        )
    if config.fusion.formula != "additive":
        raise ConfigError(
            f"[fusion] formula = {config.fusion.formula!r}: the true value of a page is a weighted sum; take "
            "additive"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRows:
    """The last day's impressions of the audience's users [N], of items that may be listed."""

    user: np.ndarray
    """[N]: request of the audience, 0..U-1."""
    column: np.ndarray
    """[N]: item, 0..J-1."""
    request: np.ndarray
    """[N]: number of the logged list."""
    position: np.ndarray
    propensity: np.ndarray
    labels: Mapping[str, np.ndarray]
    """Float [N]; NaN: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopNight:
    """A log, its days, and the requests of its last one."""

    shop: Shop
    log: InteractionLog
    days: Days
    config: RunConfig
    audience: Audience
    columns: np.ndarray
    """[J]: rows of the catalogue that may be listed."""
    logged: LoggedRows

    @classmethod
    def simulate(
        cls, folder: Path, dials: ShopDials, seed: int, config: RunConfig, requests: int
    ) -> "ShopNight":
        """Write the log and build its days. Args: requests: at most so many, each of a user of their own."""
        shop, log = Shop.from_seed(dials, seed), InteractionLog(folder / "log")
        for _ in write_log(shop, log):
            pass
        return cls.of(shop, log, last_days(log, config, Stages(folder / "stages")), config, requests)

    @classmethod
    def of(cls, shop: Shop, log: InteractionLog, days: Days, config: RunConfig, requests: int) -> "ShopNight":
        """Take a log that is written."""
        audience = shown_audience(days, days.last, config, max_users=requests, seed=0)
        columns = np.flatnonzero(audience.available)
        return cls(
            shop=shop,
            log=log,
            days=days,
            config=config,
            audience=audience,
            columns=columns,
            logged=_logged(days, audience, columns),
        )

    @property
    def item_ids(self) -> pl.Series:
        """List the items that may be listed [J]."""
        return self.audience.catalogue["item_id"].gather(self.columns)

    @property
    def allowed(self) -> np.ndarray:
        """Tell what the policy's rules let through: bool [U, J]."""
        return self.audience.allowed(slice(0, self.audience.num_users))[:, self.columns]

    def fit(
        self, first: int, last: int, *, calibrate: int, seed: int = 0, sources: bool = False
    ) -> ListModel:
        """Train cold on some days, calibrate on another one, and give what makes lists of it.

        Args: sources: give its score the sources' part as a night does.
        """
        training = self.config.training.model_copy(update={"seed": seed})
        config = self.config.model_copy(update={"training": training})
        trained = train(self.days, {t.name: (first, last) for t in config.tasks}, config, None, 1)
        logits, rows = day_logits(trained, self.days, calibrate, config)
        frame = pl.DataFrame({"weight": rows.weight, "shown_at": rows.shown_at}).with_columns(
            pl.Series(t.label, rows.labels[t.name]).fill_nan(None) for t in config.tasks
        )
        calibration = fit_calibration(config.tasks, logits, frame, config.calibration, rows.items)
        bias = count_item_bias(trained, calibration, self.days, calibrate, config) if sources else None
        model = ListModel.of(trained, calibration, config, self.days[calibrate].table("items"), bias)
        if not sources:
            return model
        fit = fit_sources(model, self.days, calibrate, seed=seed)
        return replace(model, fusion=model.fusion.with_sources(fit.terms))


def _logged(days: Days, audience: Audience, columns: np.ndarray) -> LoggedRows:
    wanted = [*IMPRESSION_KEY, "request_id", "item_id", "position", "propensity"]
    rows = days[days.last].table("examples", columns=wanted)
    rows = rows.join(days.labels(days.last), on=IMPRESSION_KEY, how="left", maintain_order="left")
    rows = rows.with_columns(
        user=item_codes(rows["user_id"], audience.requests["user_id"]),
        column=item_codes(rows["item_id"], audience.catalogue["item_id"].gather(columns)),
    ).filter(pl.col("user") >= 0, pl.col("column") >= 0)
    return LoggedRows(
        user=rows["user"].to_numpy(),
        column=rows["column"].to_numpy(),
        request=(rows["request_id"].rank("dense").cast(pl.Int64) - 1).to_numpy(),
        position=rows["position"].cast(pl.Int64).to_numpy(),
        propensity=rows["propensity"].to_numpy(),
        labels={
            t.name: rows[t.label].cast(pl.Float64).fill_null(float("nan")).to_numpy() for t in days.tasks
        },
    )
