"""A log on disk and a config -> ModelReport: a better config, searched on validation days."""

from datetime import date
from pathlib import Path

from recsys.config import RunConfig
from training.night.days import night_days
from training.progress import bar
from training.tune.model.bench import ModelBench
from training.tune.model.search import ModelReport, tune_model
from training.tune.study import Budget


def tune_model_on_log(
    config: RunConfig,
    log: Path,
    night: date | None,
    storage: Path,
    *,
    trials: int,
    seconds: float | None,
    objective: str,
    runs: Path | None,
) -> ModelReport:
    """Search a better config on the validation days of a night, with progress bars.

    Args: night: default the log's last day; storage: the search's SQLite file; runs: its stages are used.
    Raises: ConfigError or DataError.
    """
    budget = Budget.of(trials, seconds)
    with night_days(config, log, night, runs) as days, bar("trials") as on_trial:
        return tune_model(ModelBench(days, config), objective, storage, budget, on_trial)
