"""The same aggregates written plainly in pandas, in memory: reading and writing files is not timed at all."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from features.definitions import LIFETIME
from features.tiles import LAST, measure_columns, window_columns
from recsys.config import RunConfig
from recsys.errors import ConfigError
from recsys.log import InteractionLog, latest_by_key, period_end
from recsys.tasks import TaskSpec

ENTITIES = {"user": ["user_id"], "item": ["item_id"], "cross": ["user_id", "category"]}
LATE_DAYS = 8
EVENT = ["user_id", "item_id", "kind", "value", "received_at", "feedback_id"]
Tables = dict[str, Any]


class PandasNights:
    """A chain of nights: day -> tables, of which those that later nights read are kept."""

    def __init__(self, log: InteractionLog, config: RunConfig) -> None:
        """Read users and items.

        Raises: ConfigError when pandas is not installed.
        """
        self._pd = _import_pandas()
        self.log, self.config = log, config
        self.measures = list(measure_columns(config.tasks))
        self.columns = list(window_columns(config.features.window_days, self.measures))
        self.days: dict[date, Tables] = {}
        self._read_days: dict[date, Tables] = {}
        self._entities = {
            name: self._frame(latest_by_key([log.read(name, d) for d in log.days(name)], key))
            for name, key in (("users", "user_id"), ("items", "item_id"))
        }

    def read(self, day: date) -> None:
        """Hold a day's rows as pandas frames."""
        self._read_days[day] = {t: self._frame(self.log.read(t, day)) for t in ("impressions", "feedback")}

    def night(self, day: date) -> None:
        """Build one day from its rows and the day before."""
        rows = self._read_days[day]
        group = self._entities["items"][["item_id", "category"]]
        shown = rows["impressions"].merge(group, on="item_id", how="left")
        done = rows["feedback"].merge(group, on="item_id", how="left")
        made: Tables = {"feedback": rows["feedback"]}
        self.days[day] = made
        for entity, key in ENTITIES.items():
            made[f"{entity}_tile"] = self._tile(entity, key, shown, done)
            made[entity] = self._values(day, entity, self._windows(day, entity, key))
        made |= self._history(day, rows)

    def training_rows(self, days: Sequence[date], as_of: datetime) -> list[Any]:
        """Join the training days' impressions with yesterday's values, history bounds and labels."""
        return [self._training_day(day, as_of) for day in days]

    def _frame(self, frame: pl.DataFrame) -> Any:
        columns = {}
        for name in frame.columns:
            column = frame[name]
            values = column.to_list() if column.dtype == pl.String else column.to_numpy()
            columns[name] = self._pd.Series(values, dtype="str" if column.dtype == pl.String else None)
        return self._pd.DataFrame(columns)

    def _tile(self, entity: str, key: list[str], shown: Any, done: Any) -> Any:
        counted = {"impressions": shown[~shown["sampled"]].groupby(key).size()}
        if entity == "item":
            done = done[done["merged_from"].isna()]
        named = done[done["impression_id"].notna()]
        for task in self.config.tasks:
            counted[f"{task.name}_count"] = _net(done, task, key)
            if task.kind.aggregate == "rate":
                counted[f"{task.name}_shown"] = _net(named, task, key)
            else:
                mine = done[done["kind"] == task.feedback]
                steps = mine.assign(steps=(mine["value"] / task.step).round())
                counted[f"{task.name}_steps"] = steps.groupby(key)["steps"].sum()
        tile = self._pd.concat([s.rename(n) for n, s in counted.items()], axis=1)[self.measures]
        tile = tile.fillna(0).astype("int64").join(done.groupby(key)["received_at"].max().rename(LAST))
        return tile.sort_index()

    def _windows(self, day: date, entity: str, key: list[str]) -> Any:
        days = self.config.features.window_days
        today = self.days[day][f"{entity}_tile"]
        now = {f"{m}_{w}": today[m] for w in (*days, LIFETIME) for m in self.measures}
        parts = [self._pd.DataFrame(now).assign(**{LAST: today[LAST]})]
        before = self.days.get(day - timedelta(days=1))
        if before is not None:
            parts.append(before[entity][[*self.columns, LAST]])
        for w in days:
            gone = self.days.get(day - timedelta(days=w))
            if gone is not None:
                parts.append(-gone[f"{entity}_tile"][self.measures].add_suffix(f"_{w}"))
        groups = self._pd.concat(parts).groupby(level=list(range(len(key))))
        return groups[self.columns].sum().astype("int64").join(groups[LAST].max())

    def _values(self, day: date, entity: str, rolled: Any) -> Any:
        if entity != "cross":
            own = self._entities[f"{entity}s"].set_index(f"{entity}_id")
            rolled = own.join(rolled)
            rolled[self.columns] = rolled[self.columns].fillna(0).astype("int64")
        end = self._pd.Timestamp(period_end(day, self.config.timezone)).tz_localize(None)
        rolled["hours_since_feedback"] = (end - rolled[LAST]) // self._pd.Timedelta(hours=1)
        if entity == "item":
            rolled["age_hours"] = (end - rolled["available_from"]) // self._pd.Timedelta(hours=1)
            totals = rolled.groupby("category")[self.columns].sum().add_prefix("by_category__")
            latest = rolled.groupby("category")["hours_since_feedback"].min()
            totals["by_category__hours_since_feedback"] = latest
            rolled = rolled.join(totals, on="category")
        return rolled.sort_index()

    def _history(self, day: date, rows: Tables) -> Tables:
        features = self.config.features
        feedback = rows["feedback"]
        events = feedback[feedback["kind"].isin(features.history_kinds)][EVENT]
        before = self.days.get(day - timedelta(days=1))
        if before is not None:
            events = self._pd.concat([before["tail"], events])
        events = events.sort_values(["user_id", "received_at", "feedback_id"], ignore_index=True)
        events["n"] = np.arange(1, len(events) + 1)
        events["first"] = events.groupby("user_id")["n"].transform("min")
        seen = self._pd.merge_asof(
            rows["impressions"].sort_values("shown_at"),
            events[["user_id", "received_at", "n", "first"]].sort_values(["received_at", "n"]),
            left_on="shown_at", right_on="received_at", by="user_id", allow_exact_matches=False,
        )  # fmt: skip
        stop = seen["n"].fillna(0)
        start = np.maximum(seen["first"].fillna(1) - 1, stop - features.history_length)
        tail = events.groupby("user_id").tail(features.history_length)[EVENT]
        bounds = {"history_start": start.astype("int64"), "history_stop": stop.astype("int64")}
        examples = seen.drop(columns=["received_at", "n", "first"])
        return {
            "events": events[EVENT],
            "tail": tail,
            "examples": examples.assign(**bounds),
        }

    def _training_day(self, day: date, as_of: datetime) -> Any:
        examples, before = self.days[day]["examples"], self.days[day - timedelta(days=1)]
        later = (day + timedelta(days=n) for n in range(LATE_DAYS + 1))
        feedback = self._pd.concat([self.days[d]["feedback"] for d in later if d in self.days])
        rows = examples.assign(**self._labels(examples, feedback, as_of))
        rows = rows.merge(before["user"].add_prefix("user_"), left_on="user_id", right_index=True, how="left")
        rows = rows.merge(before["item"].add_prefix("item_"), left_on="item_id", right_index=True, how="left")
        cross = before["cross"].add_prefix("cross_")
        return rows.merge(cross, left_on=["user_id", "item_category"], right_index=True, how="left")

    def _labels(self, examples: Any, feedback: Any, as_of: datetime) -> Mapping[str, Any]:
        end = self._pd.Timestamp(as_of).tz_localize(None)
        feedback = feedback[(feedback["received_at"] < end) & feedback["impression_id"].notna()]
        labels: dict[str, Any] = {}
        for task in self.config.tasks:
            credited = self._credited(examples, feedback, task)
            key = self._pd.MultiIndex.from_frame(examples[["impression_id", "user_id"]])
            value = self._pd.Series(credited.reindex(key).to_numpy(), index=examples.index)
            if task.space != "observed":
                value = value.fillna(0.0)
            open_still = examples["shown_at"] + self._pd.Timedelta(seconds=task.window) > end
            value = value.mask(open_still)
            labels[task.label] = value * labels[f"label_{task.parent}"] if task.parent else value
        return labels

    def _credited(self, examples: Any, feedback: Any, task: TaskSpec) -> Any:
        key = ["impression_id", "user_id"]
        mine = feedback[feedback["kind"] == task.feedback]
        mine = mine.merge(examples[[*key, "item_id", "shown_at"]], on=[*key, "item_id"])
        late = mine["shown_at"] + self._pd.Timedelta(seconds=task.window)
        mine = mine[mine["occurred_at"].between(mine["shown_at"], late)]
        if task.reversal is not None:
            undone = feedback[feedback["kind"] == task.reversal].groupby(key)["occurred_at"].max()
            mine = mine.join(undone.rename("undone_at"), on=key)
            mine = mine[mine["undone_at"].isna() | (mine["occurred_at"] > mine["undone_at"])]
        mine = mine.sort_values(["occurred_at", "feedback_id"])
        value = (
            self._pd.Series(1.0, mine.index)
            if task.kind.label == "event"
            else mine["value"].clip(task.low, task.high)
        )
        return mine.assign(value=value).groupby(key)["value"].last()


def _net(done: Any, task: TaskSpec, key: list[str]) -> Any:
    count = done[done["kind"] == task.feedback].groupby(key).size()
    if task.reversal is None:
        return count
    return count.sub(done[done["kind"] == task.reversal].groupby(key).size(), fill_value=0)


def _import_pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ConfigError(
            "`recsys bench features` compares with pandas, which is not installed: "
            "pip install 'recsys-mtl[bench]'"
        ) from error
    return pandas
