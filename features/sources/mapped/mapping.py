"""The mapping file: which file and column of a user's own logs is what. `example.toml` shows every key.

Each timed row is an *impression* (the item was shown) or *feedback* (the user did something). They come from
one `[events]` file with a kind column, or from `[feedback]` and, where there is one, `[impressions]`.
"""

import codecs
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from pydantic import model_validator as check_model

from features.relations import CheckName
from features.sources.mapped.near import near
from recsys.errors import ConfigError
from recsys.settings import explain, read_toml
from recsys.tasks import DurationS

IMPRESSION: Final = "impression"
IGNORE: Final = "ignore"
_OWN: Final = ("user", "item", "time", "kind")
"""Keys whose column says nothing else."""
UNITS: Final = ("s", "ms", "us", "ns")
EXAMPLE: Final = Path(__file__).with_name("example.toml")
_NAME: Final = r"^[a-z][a-z0-9_]*$"
Kind = Annotated[str, Field(pattern=_NAME)]
FreeName = Annotated[str, Field(pattern=_NAME)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FreeColumn(_Section):
    """Where an attribute or context column comes from, and what its values are."""

    column: str
    type: Literal["text", "number", "list"] = "text"
    separator: str = Field(default="|", min_length=1)
    """Between the values of a list (CSV only; a Parquet list column needs none)."""


def _named(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


Free = Annotated[FreeColumn, BeforeValidator(_named)]
FreeColumns = dict[FreeName, Free]


def _zone(value: str | None) -> str | None:
    try:
        return None if value is None else ZoneInfo(value).key
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{value!r} is no IANA time zone; write one like 'UTC' or 'Asia/Shanghai'") from None


Zone = Annotated[str, BeforeValidator(_zone)]


def _mark(value: str) -> str:
    if len(value.encode()) != 1 or value in "\r\n":
        raise ValueError("write one character of one byte, such as ',', ';' or a tab (\"\\t\")")
    return value


Mark = Annotated[str, AfterValidator(_mark)]


def _encoding(value: str) -> str:
    try:
        name = codecs.lookup(value).name
        "a".encode(name)
    except (LookupError, UnicodeError, ValueError):
        raise ValueError(
            f"{value!r} is no text encoding; write one like utf-8, latin-1, windows-1252 or utf-16"
        ) from None
    return "utf-8" if name in ("utf-8", "utf-8-sig", "ascii") else name


Encoding = Annotated[str, AfterValidator(_encoding)]


class Files(_Section):
    """Which files, and how they are written."""

    files: str | None = None
    """A name or pattern inside SRC; without it SRC itself, or all its files of the format."""
    separator: Mark = ","
    quote: Mark | Literal[""] = '"'
    """Around a CSV field that holds the separator; "" where quotes are letters like any other."""
    encoding: Encoding = "utf-8"
    """Of CSV files, as Python names it: utf-8, latin-1, windows-1252, utf-16."""
    decimal: Literal[".", ","] = "."
    """The mark between whole and fraction in numbers that are written as text."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a CSV file that has no header line."""
    nulls: tuple[str, ...] = ("", "NULL", "null", "NaN", "nan", "None", "\\N")
    time_format: str = "iso"
    """iso, s, ms, us or ns (since 1970), or a strptime pattern such as %d/%m/%Y %H:%M."""
    time_zone: Zone | None = None
    """Of instants written without one; default: the mapping's time zone."""
    tolerate: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the rows that may be unreadable: they are quarantined instead of ending the run."""

    @check_model(mode="after")
    def _written(self) -> Self:
        if self.quote == self.separator:
            raise ValueError(f"separator and quote are both {self.quote!r}")
        twice = [name for n, name in enumerate(self.columns) if name in self.columns[:n]]
        if twice:
            raise ValueError(f"`columns` has {twice[0]!r} twice; give each column a name of its own")
        return self

    @field_validator("time_format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in ("iso", *UNITS) and "%" not in value:
            raise ValueError("write iso, s, ms, us, ns, or a pattern like '%Y-%m-%d %H:%M:%S'")
        return value


class ItemColumns(_Section):
    """What describes an item."""

    title: str | None = None
    description: str | None = None
    category: str | None = None
    price: str | None = None
    """In the currency's main unit."""
    minor_units: int = Field(default=100, ge=1)
    """Minor units in one main unit (cents in an euro): prices are kept as whole minor units."""
    attributes: FreeColumns = {}


class UserColumns(_Section):
    """What describes a user."""

    attributes: FreeColumns = {}


class Timed(Files):
    """What every file of impressions or feedback has."""

    user: str
    item: str
    time: str
    session: str | None = None
    """Stands in for the user where that is empty, as it does at the server."""
    request: str | None = None
    """The list that was shown: joins impressions of one answer, and feedback to its impression."""
    impression: str | None = None
    """The impression's own id."""

    @check_model(mode="after")
    def _own_columns(self) -> Self:
        named: dict[str, str] = {}
        for key in ("user", "item", "time", "kind", "request", "impression", "event"):
            column = getattr(self, key, None)
            first = named.setdefault(column, key) if column is not None else key
            a_list_of_each_session = (first, key) == ("user", "request")
            if first != key and first in _OWN and not a_list_of_each_session:
                raise ValueError(f"{first} and {key} both name the column {column!r}; one of them is another")
        return self


class Impressions(Timed):
    """A file in which every row is one item shown to one user."""

    position: str | None = None
    """1 = top. Without it: the order of the rows inside a request."""
    first_position: Literal[0, 1] = 1
    """The number that `position` gives the top."""
    propensity: str | None = None
    """Probability with which the logging policy put this item there."""
    context: FreeColumns = {}


class Feedback(Timed):
    """A file in which every row is something a user did."""

    kind: str | None = None
    only_kind: Kind | None = None
    """The kind of every row, where no column says it."""
    kinds: dict[str, Kind] = {}
    """Value of the kind column -> feedback kind, "impression", or "ignore"."""
    value: str | None = None
    """Stars, money in minor units, seconds: a number that belongs to the feedback."""
    received: str | None = None
    """When the log got to know of it; default: when it happened."""
    event: str | None = None
    """The event's own id: rows with the same one are one event."""

    @check_model(mode="after")
    def _one_kind(self) -> Self:
        if (self.kind is None) == (self.only_kind is None):
            raise ValueError(
                "say what the rows are: kind = \"COLUMN\" with a [….kinds] table, or only_kind = 'rating'"
            )
        return self

    @check_model(mode="after")
    def _no_slips(self) -> Self:
        for value, kind in (*self.kinds.items(), ("only_kind", self.only_kind)):
            meant = next((word for word in (IMPRESSION, IGNORE) if kind and near(kind, word)), None)
            if meant is not None:
                raise ValueError(
                    f"{value} = {kind!r} would make a feedback kind of that name; did you mean {meant!r}?"
                )
        return self

    @property
    def joins_kinds(self) -> bool:
        """Tell whether several values are of one kind."""
        return len({*self.kinds.values()}) < len(self.kinds)


class Events(Impressions, Feedback):
    """A file in which the kind column tells impressions from feedback; rows may describe items and users."""

    item_columns: ItemColumns = ItemColumns()
    user_columns: UserColumns = UserColumns()


class Users(Files, UserColumns):
    """One row per user, or several with the instant from which each holds."""

    id: str
    known_from: str | None = None


class Items(Files, ItemColumns):
    """One row per item, or several with the instant from which each holds."""

    id: str
    known_from: str | None = None
    available_from: str | None = None
    available_until: str | None = None


class Match(_Section):
    """How feedback finds its impression."""

    window: DurationS = 86_400
    """Feedback that names no impression belongs to the latest one of its user and item, at most so old."""
    opens: tuple[Kind, ...] = ()
    """Kinds that make an impression where the log has none; default: the first feedback kind of `kinds`."""


class Negatives(_Section):
    """What is drawn where the log does not say what was shown."""

    per_positive: int = Field(default=4, ge=0)
    seed: int = 1
    taken_before: Literal["auto", "draw", "leave_out"] = "auto"
    """Whether an item that the user took on an earlier day may be drawn; "auto": where 5 % of the choices
    are of such items. A log that grows from one conversion to the next names it, so that old days stay as
    they were."""


class Checks(_Section):
    """What is known of the log, and right as it is."""

    accept: tuple[CheckName, ...] = ()
    """Findings by name that do not stop the conversion."""


class Mapping(_Section):
    """The whole file."""

    timezone: Zone = "UTC"
    """Business days are days of this time zone; the config of the nights must name the same."""
    first_day: date | None = None
    last_day: date | None = None
    """Rows outside these business days are quarantined (clocks that are wrong)."""
    events: Events | None = None
    impressions: Impressions | None = None
    feedback: Feedback | None = None
    users: Users | None = None
    items: Items | None = None
    match: Match = Match()
    negatives: Negatives = Negatives()
    checks: Checks = Checks()

    @check_model(mode="after")
    def _consistent(self) -> Self:
        if self.first_day is not None and self.last_day is not None and self.first_day > self.last_day:
            raise ValueError(
                f"first_day = {self.first_day} is after last_day = {self.last_day}; no day is between them"
            )
        if (self.events is None) == (self.feedback is None):
            raise ValueError(
                "write [events] (one file, a column says which rows are impressions) or [feedback] "
                "(and [impressions], where what was shown is logged in a file of its own)"
            )
        if self.events is not None and self.impressions is not None:
            raise ValueError("[impressions] goes with [feedback]; with [events] leave it out")
        if self.feedback is not None and IMPRESSION in self.feedback_kinds:
            raise ValueError('[feedback] has a kind mapped to "impression"; name the section [events] then')
        if self.events is not None:
            for name, told in (("items", self.items), ("users", self.users)):
                if told is not None and f"{name[:-1]}_columns" in self.events.model_fields_set:
                    raise ValueError(
                        f"[{name}] and [events.{name[:-1]}_columns] both describe {name}; keep one"
                    )
        if not any(kind != IMPRESSION for kind in self.feedback_kinds) and self.declares_kinds:
            raise ValueError('no kind is feedback; map at least one value to a kind like "click"')
        strange = [kind for kind in self.match.opens if kind not in self.feedback_kinds]
        if strange and self.declares_kinds:
            raise ValueError(f"[match] opens {strange} is among no kinds; known: {self.feedback_kinds}")
        return self

    @property
    def source(self) -> Feedback:
        """Give the section that holds the feedback."""
        section = self.events or self.feedback
        assert section is not None
        return section

    @property
    def declares_kinds(self) -> bool:
        """Tell whether the kinds are known before the file is read."""
        return bool(self.source.kinds) or self.source.only_kind is not None

    @property
    def feedback_kinds(self) -> list[str]:
        """List the kinds in the order of the file, "impression" included, "ignore" not."""
        named = [self.source.only_kind] if self.source.only_kind else list(self.source.kinds.values())
        return [kind for kind in dict.fromkeys(named) if kind is not None and kind != IGNORE]

    @property
    def logs_impressions(self) -> bool:
        """Tell whether the log says what was shown."""
        return self.impressions is not None or IMPRESSION in self.feedback_kinds

    @property
    def openers(self) -> tuple[str, ...]:
        """List the kinds that make an impression of their own; none where impressions are logged."""
        if self.logs_impressions:
            return ()
        return self.match.opens or tuple(self.feedback_kinds[:1])

    @property
    def context(self) -> FreeColumns:
        """Give the context columns of the impressions."""
        section = self.events or self.impressions
        return {} if section is None else section.context


def load_mapping(path: Path) -> Mapping:
    """Read and check a mapping file.

    Raises: ConfigError, naming the file, the key, the value and the known keys.
    """
    return parse_mapping(read_toml(path, "the mapping", "pass --map FILE, or see --example-map"), str(path))


def parse_mapping(data: dict[str, Any], where: str) -> Mapping:
    """Check a parsed mapping.

    Raises: ConfigError listing every wrong key at once.
    """
    try:
        return Mapping.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, where, Mapping)) from error
