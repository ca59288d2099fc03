"""The same aggregates written plainly in DuckDB SQL: the yardstick of `recsys bench features`.

It takes the same shortcut, yesterday's table + today's tile - the tiles that leave, because summing all days
again each night is not what anybody would compare with. It does less than a night of ours: no cleaning, no
quarantine, no live counters, no list of what was seen, no reversals in histories.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from features.definitions import LIFETIME
from features.tiles import LAST, measure_columns, window_columns
from recsys.config import RunConfig
from recsys.errors import ConfigError
from recsys.log import InteractionLog, period_end
from recsys.tasks import TaskSpec

ENTITIES = {"user": ["user_id"], "item": ["item_id"], "cross": ["user_id", "category"]}
LATE_DAYS = 8


class DuckNights:
    """A chain of nights in SQL: one folder of Parquet files per day."""

    def __init__(self, log: InteractionLog, folder: Path, config: RunConfig, threads: int) -> None:
        """Open an in-memory database; state between nights is in the files.

        Raises: ConfigError when DuckDB is not installed.
        """
        self.log, self.folder, self.config = log, folder, config
        self.measures = measure_columns(config.tasks)
        self._sql = _import_duckdb().connect(config={"threads": threads}).execute
        self._sql("SET TimeZone = 'UTC'")

    def night(self, day: date) -> None:
        """Build one day from its partitions and the day before."""
        self._folder(day).mkdir(parents=True)
        self._load(day)
        for entity, key in ENTITIES.items():
            self._write(day, f"{entity}_tile", _tile(entity, key, self.config.tasks))
            self._write(day, entity, self._windows(day, entity, key))
        self._history(day)

    def training_rows(self, days: Sequence[date], as_of: datetime, out: Path) -> None:
        """Write the training days' rows: yesterday's values, history bounds, labels."""
        for day in days:
            later = [d for n in range(LATE_DAYS + 1) if self._folder(d := day + timedelta(days=n)).is_dir()]
            self._sql(
                f"CREATE OR REPLACE TEMP TABLE known AS SELECT * FROM {self._partitions('feedback', later)}"
            )
            self._sql(f"COPY ({self._training_sql(day, as_of)}) TO '{out / f'{day}.parquet'}' {_FORMAT}")

    def table(self, day: date, name: str) -> Path:
        """Name a written table's file."""
        return self._folder(day) / f"{name}.parquet"

    def _folder(self, day: date) -> Path:
        return self.folder / str(day)

    def _write(self, day: date, name: str, query: str) -> None:
        self._sql(f"COPY ({query}) TO '{self.table(day, name)}' {_FORMAT}")

    def _partitions(self, table: str, days: Iterable[date]) -> str:
        files = [str(path) for day in days for path in self.log.files(table, day)]
        return f"read_parquet({files!r}, hive_partitioning = false)"

    def _load(self, day: date) -> None:
        """Read the day once; the item's category at that time decides what a cross counts for."""
        known = [d for table in ("users", "items") for d in self.log.days(table) if d <= day]
        items = f"""SELECT * FROM {self._partitions("items", sorted(set(known)))}"""
        users = f"""SELECT * FROM {self._partitions("users", sorted(set(known)))}"""
        self._sql(f"CREATE OR REPLACE TEMP TABLE items AS {items}")
        self._sql(f"CREATE OR REPLACE TEMP TABLE users AS {users}")
        for table, short in (("impressions", "i"), ("feedback", "f")):
            self._sql(
                f"CREATE OR REPLACE TEMP TABLE {short} AS SELECT t.*, c.category "
                f"FROM {self._partitions(table, [day])} t LEFT JOIN items c USING (item_id)"
            )

    def _windows(self, day: date, entity: str, key: list[str]) -> str:
        days, k = self.config.features.window_days, ", ".join(key)
        now = [f"{m} AS {m}_{w}" for w in (*days, LIFETIME) for m in self.measures]
        parts = [f"SELECT {k}, {', '.join(now)}, {LAST} FROM '{self.table(day, f'{entity}_tile')}'"]
        columns = window_columns(days, self.measures)
        before = self.table(day - timedelta(days=1), entity)
        if before.is_file():
            parts.append(f"SELECT {k}, {', '.join(columns)}, {LAST} FROM '{before}'")
        for w in days:
            gone = self.table(day - timedelta(days=w), f"{entity}_tile")
            if gone.is_file():
                minus = ", ".join(f"-{m} AS {m}_{w}" for m in self.measures)
                parts.append(f"SELECT {k}, {minus} FROM '{gone}'")
        sums = ", ".join(f"sum({c})::BIGINT AS {c}" for c in columns)
        rolled = (
            f"SELECT {k}, {sums}, max({LAST}) AS {LAST} "
            f"FROM ({' UNION ALL BY NAME '.join(parts)}) GROUP BY {k}"
        )
        return self._values(entity, rolled, columns, period_end(day, self.config.timezone))

    def _values(self, entity: str, rolled: str, columns: Sequence[str], as_of: datetime) -> str:
        """Add recency, and for users and items their attributes and zeros where nothing happened."""
        end = int(as_of.timestamp() * 1000)
        hours = f"(({end} - epoch_ms({LAST})) // 3600000)::BIGINT AS hours_since_feedback"
        if entity == "cross":
            return f"SELECT *, {hours} FROM ({rolled}) ORDER BY user_id, category"
        zeros = ", ".join(f"coalesce({c}, 0) AS {c}" for c in columns)
        joined = f"SELECT a.*, {zeros}, {LAST}, {hours} FROM {entity}s a LEFT JOIN r USING ({entity}_id)"
        if entity == "user":
            return f"WITH r AS ({rolled}) {joined} ORDER BY user_id"
        age = f"(({end} - epoch_ms(available_from)) // 3600000)::BIGINT AS age_hours"
        group = [f"sum({c}) OVER g ::BIGINT AS by_category__{c}" for c in columns]
        group.append("min(hours_since_feedback) OVER g AS by_category__hours_since_feedback")
        return (
            f"WITH r AS ({rolled}), v AS ({joined}) "
            f"SELECT v.*, {age}, {', '.join(group)} FROM v "
            "WINDOW g AS (PARTITION BY category) ORDER BY item_id"
        )

    def _history(self, day: date) -> None:
        """Number events per user; an impression sees those received before it, the last so many."""
        features = self.config.features
        columns = "user_id, item_id, kind, value, received_at, feedback_id"
        kinds = ", ".join(f"'{k}'" for k in features.history_kinds)
        parts = [f"SELECT {columns} FROM f WHERE kind IN ({kinds})"]
        tail = self.table(day - timedelta(days=1), "tail")
        if tail.is_file():
            parts.append(f"SELECT {columns} FROM '{tail}'")
        order = "user_id, received_at, feedback_id"
        self._sql(
            f"CREATE OR REPLACE TEMP TABLE events AS SELECT *, row_number() OVER (ORDER BY {order}) AS n "
            f"FROM ({' UNION ALL '.join(parts)})"
        )
        self._write(day, "events", f"SELECT {columns} FROM events ORDER BY n")
        newest = f"row_number() OVER (PARTITION BY user_id ORDER BY n DESC) <= {features.history_length}"
        self._write(day, "tail", f"SELECT {columns} FROM (SELECT * FROM events QUALIFY {newest}) ORDER BY n")
        self._write(
            day,
            "examples",
            "SELECT i.* EXCLUDE (category), coalesce(greatest(s.first - 1, e.n - "
            f"{features.history_length}), 0) AS history_start, coalesce(e.n, 0) AS history_stop "
            "FROM i ASOF LEFT JOIN events e "
            "ON i.user_id = e.user_id AND e.received_at < i.shown_at "
            "LEFT JOIN (SELECT user_id, min(n) AS first FROM events GROUP BY user_id) s "
            "ON e.user_id = s.user_id",
        )

    def _training_sql(self, day: date, as_of: datetime) -> str:
        before = day - timedelta(days=1)
        labels = ", ".join(t.label for t in self.config.tasks)
        return (
            f"SELECT x.*, {labels}, u.* EXCLUDE (user_id), it.* EXCLUDE (item_id), "
            f"c.* EXCLUDE (user_id, category) "
            f"FROM '{self.table(day, 'examples')}' x "
            f"LEFT JOIN ({_labels_sql(self.table(day, 'examples'), self.config.tasks, as_of)}) l "
            "USING (impression_id, user_id) "
            f"LEFT JOIN '{self.table(before, 'user')}' u USING (user_id) "
            f"LEFT JOIN '{self.table(before, 'item')}' it USING (item_id) "
            f"LEFT JOIN '{self.table(before, 'cross')}' c "
            "ON c.user_id = x.user_id AND c.category = it.category"
        )


_FORMAT = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"


def _tile(entity: str, key: list[str], tasks: Sequence[TaskSpec]) -> str:
    k = ", ".join(key)
    counted: list[str] = []
    for task in tasks:
        counted.append(f"{_net(task)} AS {task.name}_count")
        if task.kind.aggregate == "rate":
            counted.append(f"{_net(task, ' AND impression_id IS NOT NULL')} AS {task.name}_shown")
        else:
            steps = f"sum(round(value / {task.step})) FILTER (kind = '{task.feedback}')"
            counted.append(f"{steps}::BIGINT AS {task.name}_steps")
    # What a session did was its item's already, before it became a user's.
    merged = " WHERE merged_from IS NULL" if entity == "item" else ""
    shown = f"SELECT {k}, count(*) AS impressions FROM i WHERE NOT sampled GROUP BY {k}"
    done = f"SELECT {k}, {', '.join(counted)}, max(received_at) AS {LAST} FROM f{merged} GROUP BY {k}"
    zeros = ", ".join(f"coalesce({m}, 0)::BIGINT AS {m}" for m in measure_columns(tasks))
    known = " AND ".join(f"{c} IS NOT NULL" for c in key)
    both = f"({shown}) FULL JOIN ({done}) USING ({k})"
    return f"SELECT {k}, {zeros}, {LAST} FROM {both} WHERE {known} ORDER BY {k}"


def _net(task: TaskSpec, among: str = "") -> str:
    undone = f" - count(*) FILTER (kind = '{task.reversal}'{among})" if task.reversal else ""
    return f"count(*) FILTER (kind = '{task.feedback}'{among}){undone}"


def _labels_sql(examples: Path, tasks: Sequence[TaskSpec], as_of: datetime) -> str:
    """Give impression_id, user_id and one label per task: credited in its window, null while it is open.

    Reversals name their impressions in the log of the bench; others are not matched.
    """
    end = f"make_timestamptz({int(as_of.timestamp() * 1_000_000)})"
    seen = f"(SELECT * FROM known WHERE received_at < {end} AND impression_id IS NOT NULL)"
    key = "impression_id, user_id"
    names: list[str] = []
    joins: list[str] = []
    for task in tasks:
        window = f"INTERVAL {task.window} SECONDS"
        undone = f"(SELECT {key}, max(occurred_at) AS undone_at FROM {seen} "
        undone += f"WHERE kind = '{task.reversal or ''}' GROUP BY {key})"
        value = "1.0" if task.kind.label == "event" else f"least(greatest(value, {task.low}), {task.high})"
        joins.append(
            f"LEFT JOIN (SELECT {key}, arg_max({value}, (occurred_at, feedback_id)) AS value "
            f"FROM {seen} s JOIN (SELECT {key}, item_id, shown_at FROM '{examples}') e "
            f"USING ({key}, item_id) LEFT JOIN {undone} USING ({key}) "
            f"WHERE kind = '{task.feedback}' AND occurred_at BETWEEN shown_at AND shown_at + {window} "
            f"AND (undone_at IS NULL OR occurred_at > undone_at) GROUP BY {key}) "
            f"AS t_{task.name} USING ({key})"
        )
        none = "NULL" if task.space == "observed" else "0.0"
        own = f"CASE WHEN shown_at + {window} <= {end} THEN coalesce(t_{task.name}.value, {none})::FLOAT END"
        names.append(f"{own}{f' * label_{task.parent}' if task.parent else ''} AS {task.label}")
    return f"SELECT {key}, {', '.join(names)} FROM '{examples}' {' '.join(joins)}"


def _import_duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError(
            "`recsys bench features` compares with DuckDB, which is not installed: "
            "pip install 'recsys-mtl[bench]'"
        ) from error
    return duckdb
