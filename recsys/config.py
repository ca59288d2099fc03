"""TOML -> RunConfig: one frozen tree; every key known, every range checked here, once.

Modules take plain arguments; only builders and commands read this tree.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from recsys.errors import ConfigError
from recsys.fusion import Fusion, FusionConfig
from recsys.settings import explain, read_toml
from recsys.tasks import DurationS, HeadKind, TaskSpec, check_tasks
from recsys.tune import TuneConfig

Period = Literal["P1D", "P1W", "P1M"]
PERIOD_S = {"P1D": 86_400, "P1W": 7 * 86_400, "P1M": 28 * 86_400}
Entity = Literal["user", "item", "context"]
Severity = Literal["info", "warning", "error"]
FindingCode = Literal[
    "schema", "empty", "ranges", "misfiled", "duplicates", "bots", "copied_day", "volume", "hours",
    "freshness", "clock", "feedback_rate", "label_rate", "new_ids", "nulls", "drift",
]  # fmt: skip
"""The checks of a day's data; `features/validation/` says what each looks at."""
NEVER_ACCEPTED: tuple[FindingCode, ...] = ("schema", "empty")
"""Findings that leave nothing to learn from: no setting lets them through."""
Levels = tuple[Annotated[float, Field(ge=0.0)], Annotated[float, Field(ge=0.0)]]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FeatureConfig(_Section):
    """Declare one `attribute_*` or `context_*` column as a model input."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """The column's name without its prefix: `device` reads `context_device` for entity `context`."""
    entity: Entity
    kind: Literal["categorical", "multi_hot", "number"]
    """multi_hot: a list of texts; its embedding is the mean of the values' rows. Users and items only."""
    dim: int = Field(default=8, ge=1, le=256)
    log: bool = False
    """Take sign(x)·log(1+|x|) before standardising (numbers only)."""
    bins: int = Field(default=0, ge=0, le=1024)
    """Numbers only: cut into so many bins of equal mass (edges from training days) and look each up in a
    table of `dim` columns, instead of standardising; 0: standardise."""
    min_count: int | None = Field(default=None, ge=1)
    """Values seen less often share hash buckets; default: [features] min_count."""
    hash_buckets: int | None = Field(default=None, ge=0)
    """Buckets of rare and unlisted values; default: [features] hash_buckets."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind != "number" and (self.log or self.bins):
            raise ConfigError(
                f"[[feature]] {self.name!r}: log and bins are for kind 'number', not {self.kind!r}"
            )
        if self.kind == "number" and (self.min_count is not None or self.hash_buckets is not None):
            raise ConfigError(f"[[feature]] {self.name!r}: min_count and hash_buckets are not for numbers")
        if self.kind == "multi_hot" and self.entity == "context":
            raise ConfigError(
                f"[[feature]] {self.name!r}: a request's context holds texts and numbers, no lists; "
                "use kind 'categorical'"
            )
        return self

    @property
    def column(self) -> str:
        """Name the column in the canonical table."""
        return f"{'context' if self.entity == 'context' else 'attribute'}_{self.name}"


class FeaturesConfig(_Section):
    """Say which standard features are built and how."""

    window_days: tuple[Annotated[int, Field(ge=1)], ...] = (1, 7, 28)
    """Windows of the aggregates, in days, beside the lifetime one."""
    aggregates: bool = True
    """Feed the model counts, rates, means and recency of users, items and item groups. They tell every head
    of every task's feedback, shared or not; crosses and live counters have switches of their own."""
    group_items_by: tuple[str, ...] = ("category",)
    """Item columns that get aggregates of their own (category, attribute_author_id, …)."""
    cross_user_by: tuple[str, ...] = ("category",)
    """Item columns by which a user's own aggregates are kept: what they did in the candidate's category."""
    live_counters: bool = True
    """Count a user's feedback since the snapshot as a feature of each request."""
    item_id_dim: int = Field(default=32, ge=1, le=512)
    user_id_dim: int = Field(default=32, ge=0, le=512)
    """0 leaves the user's own embedding out: users are then known by history and attributes alone."""
    category_dim: int = Field(default=8, ge=1, le=256)
    text_columns: tuple[str, ...] = ("title", "description", "category")
    text_dim: int = Field(default=32, ge=0, le=1024)
    """Dimensions of the text vectors; 0 turns item text off."""
    text_model: str = ""
    """Folder of a sentence-embedding model (extra `text`); empty: TF-IDF. Servers need the same folder."""
    history_kinds: tuple[str, ...] = ("click", "purchase", "rating")
    history_length: int = Field(default=30, ge=0, le=1000)
    ingestion_lag: DurationS = 0
    """Feedback received less than this before a request is not seen by it, neither served nor in its training
    row. 0: a server shows feedback to the next request. Raise it where feedback takes a slower way."""
    min_count: int = Field(default=2, ge=1)
    """Ids of users and attribute values seen less often share hash buckets; catalogue items never do."""
    hash_buckets: int = Field(default=64, ge=1)
    daily_cap: int = Field(default=5_000, ge=1)
    """Impressions and feedback of one user beyond this a day are quarantined: bots stay out of counters."""


class ExecutionConfig(_Section):
    """How feature building is spread over processes; the result is the same whatever is written here."""

    executor: str = "local"
    """local: this machine's processes; ray: a Ray cluster (extra `ray`) that sees the same folders."""
    shards: int = Field(default=1, ge=1, le=65_536)
    """A period is built in so many parts by user; memory holds one part a worker."""
    workers: int = Field(default=1, ge=1)
    """Parts built at once."""
    ray_address: str = ""
    """Where the Ray cluster is; empty: start one on this machine."""


class TrunkConfig(_Section):
    """Shape of the shared part."""

    name: str = "mmoe"
    num_experts: int = Field(default=4, ge=1, le=256)
    """Experts that all tasks share (`mmoe`, `ple`)."""
    task_experts: int = Field(default=2, ge=1, le=256)
    """Experts of each task's own (`ple`)."""
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (128, 64)
    """Layer widths of one expert or network; `ple` makes each layer an extraction level."""


class ModelConfig(_Section):
    """Shape of the ranker."""

    trunk: TrunkConfig = TrunkConfig()
    head_hidden: int = Field(default=32, ge=1)
    tower_hidden: int = Field(default=128, ge=1)
    embedding_dim: int = Field(default=32, ge=2, le=1024)
    """Dimensions of e_user and e_item: the towers' outputs and the index."""
    attention_dim: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    id_dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of rows whose user or item id is hidden in training, so that unknown ids have a trained row."""
    position_bias: bool = True
    """Learn an additive logit per position in training; off in serving."""
    ensemble_size: int = Field(default=1, ge=1, le=32)
    """So many trunks with heads of their own on the same tables and towers, each learning from every row;
    their logits are averaged. Costs as many trunks, and takes out what differs from seed to seed."""


class RetrievalConfig(_Section):
    """The two towers' own loss, and the index built from them."""

    weight: float = Field(default=0.5, ge=0.0)
    task: str | None = None
    """The binary task whose positives are retrieved; default: the first binary task."""
    temperature: float = Field(default=0.1, gt=0.0)
    num_uniform: int = Field(default=512, ge=0)
    """Catalogue items drawn uniformly as extra negatives each step."""
    num_candidates: int = Field(default=300, ge=1)
    """Candidates per request from the index."""
    popular_candidates: int = Field(default=50, ge=0)
    """Candidates per request from the popularity list."""


class BalancerConfig(_Section):
    """Options of the balancing methods; each reads its own."""

    alpha: float = Field(default=1.5, ge=0)
    """gradnorm: how strongly a task that learns slowly is pulled; 0 makes all gradients equally long."""
    temperature: float = Field(default=2.0, gt=0)
    """dwa: large makes all weights equal."""
    window: int = Field(default=50, ge=1)
    """dwa: steps whose mean loss is compared with that of as many before."""
    learning_rate: float = Field(default=0.025, gt=0)
    """Of uncertainty's log-variances and gradnorm's log-weights."""
    c: float = Field(default=0.4, ge=0)
    """cagrad: radius around the mean gradient, in units of its length; 0 is the mean itself."""


class TrainingConfig(_Section):
    """How the weights are found."""

    batch_size: int = Field(default=2048, ge=2)
    epochs: int = Field(default=1, ge=1)
    """Passes over the data of a cold start; a warm night always makes one pass over its new days."""
    learning_rate: float = Field(default=2e-3, gt=0)
    warm_scale: float = Field(default=0.1, gt=0, le=1)
    """A warm start and `refit` use this share of the learning rate, without warm-up or decay."""
    sparse_learning_rate: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**32)
    balancing: str = "fixed"
    """How the tasks' losses become one gradient: a name of `training.balancing.BALANCERS`."""
    balancer: BalancerConfig = BalancerConfig()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Matrix products in training; `auto` takes bf16 where the processor has it. Serving always uses fp32."""
    threads: int = Field(default=1, ge=1)
    """Torch threads. One is the robust choice: beside a busy neighbour two spinning ones lose to it."""
    max_days: int = Field(default=60, ge=1)
    """A cold start looks back at most this many periods."""
    refit: bool = True
    """After PROMOTE, continue one pass over the calibration and gate days before publishing."""


class CalibrationConfig(_Section):
    """How logits become probabilities and stars; one key per head kind."""

    binary: Literal["platt", "isotonic", "auto", "none"] = "platt"
    """`auto`: Platt or isotonic, whichever fits the earlier rows and proves better on the later ones; `none`:
    what the head says, shifted only where its negatives were sampled."""
    regression: Literal["affine", "isotonic", "none"] = "affine"
    ordinal: Literal["affine", "isotonic", "none"] = "affine"

    def kind(self, head: HeadKind) -> str:
        """Give the calibrator of a head kind."""
        return {"binary": self.binary, "regression": self.regression, "ordinal": self.ordinal}[head]


class GateConfig(_Section):
    """What a challenger must show to go live."""

    margin: float = Field(default=0.01, ge=0.0)
    """Largest relative loss on a primary metric that still counts as no worse (non-inferiority margin)."""
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Error rate shared by all primary metrics (Bonferroni)."""
    replicates: int = Field(default=200, ge=20)
    min_rows: int = Field(default=500, ge=1)
    """A head with fewer labelled rows on its evaluated day is reported and not evaluated."""
    min_auc: float = Field(default=0.52, ge=0.0, le=1.0)
    max_ece: float = Field(default=0.08, gt=0.0)
    min_recall_ratio: float = Field(default=0.5, ge=0.0)
    """Retrieval recall@50 of the challenger over the champion's may not fall below this."""


class PolicyConfig(_Section):
    """How predictions become positions."""

    name: Literal["greedy", "epsilon_plackett_luce"] = "epsilon_plackett_luce"
    epsilon: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of requests that explore by Plackett-Luce sampling."""
    temperature: float = Field(default=0.1, gt=0.0)
    """Scores are divided by this in the Plackett-Luce draw."""
    max_per_category: int = Field(default=0, ge=0)
    """At most so many items of one category on a page; 0 = no cap."""
    mmr: float = Field(default=0.0, ge=0.0, le=1.0)
    """Weight of similarity to items already placed (maximal marginal relevance)."""
    exclude_seen_kinds: tuple[str, ...] = ("purchase",)
    """Items the user already gave this feedback are not shown again."""


class ServingConfig(_Section):
    """How the server behaves."""

    listen: str = "127.0.0.1:50051"
    admin_listen: str = "127.0.0.1:0"
    default_page_size: int = Field(default=10, ge=1)
    max_page_size: int = Field(default=200, ge=1)
    max_candidates: int = Field(default=2_000, ge=1)
    """Largest `Rank` request."""
    threads: int = Field(default=1, ge=1)
    """Torch threads of the scoring process."""
    max_concurrent: int = Field(default=64, ge=1)
    deadline_ms: int = Field(default=1_000, ge=1)
    """Used when the caller sets none."""
    poll_s: float = Field(default=1.0, gt=0)
    """How often CURRENT is looked at."""
    drain_s: float = Field(default=10.0, ge=0)
    reflection: bool = False
    rotate: DurationS = 300
    """Age at which a journal file is sealed."""
    candidate_log_share: float = Field(default=0.05, ge=0.0, le=1.0)


class ValidationConfig(_Section):
    """Say how far a day's data may be from the days before it. Pairs are (warning, error)."""

    history_days: int = Field(default=56, ge=1)
    """How many days (or weeks, or months, as `period` says) back the comparisons look."""
    min_weekdays: int = Field(default=3, ge=2)
    """With at least so many days of the same weekday, a day is compared with these alone."""
    min_history: int = Field(default=3, ge=2)
    """With fewer days behind it, a day is compared with nothing."""
    false_alarm: float = Field(default=1e-6, gt=0.0, lt=0.1)
    """Chance that noise alone passes for a difference; one check of one column."""
    usual_spread: float = Field(default=0.05, ge=0.0)
    """Days differ by this share (standard deviation) even where the history looks calmer."""
    min_expected: float = Field(default=20.0, ge=1.0)
    """Counts expected below this are not evaluated, nor are columns with fewer independent values."""
    bad_share: Levels = (0.01, 0.1)
    """Rows that break a rule, misfiled rows, repeated rows: share of the table above the usual one."""
    volume_low: Levels = (0.75, 0.6)
    """Requests, as a ratio to the usual number."""
    volume_high: Levels = (1.5, 3.0)
    hours_missing: Levels = (0.03, 0.15)
    """Share of a usual day's requests that falls into hours that are now (almost) empty."""
    stale_hours: Levels = (3.0, 6.0)
    """Hours between a table's last row and the end of the day, beyond the usual ones; longer periods more."""
    rate_low: Levels = (0.75, 0.5)
    """Feedback and labels per impression, as a ratio to the usual rate."""
    rate_high: Levels = (1.5, 2.5)
    new_ids: Levels = (0.1, 0.25)
    """Share of ids that no earlier day knows, above the usual share."""
    nulls: Levels = (0.05, 0.25)
    """Share of a column that is null, above the usual share."""
    psi: Levels = (0.1, 0.25)
    """Population stability index beyond sampling noise: Siddiqi's thresholds."""
    user_share: Levels = (0.03, 0.2)
    """Share of the day's impressions that one user has."""
    copied_share: Levels = (0.05, 0.2)
    """Share of the day that repeats an earlier day, instants moved along."""
    severity: dict[FindingCode, Severity] = {}
    """Gives every finding of a check this severity instead of its own."""
    accept: tuple[FindingCode, ...] = ()
    """Errors of these checks never stop a night; for one known-odd day use `--accept-findings`."""

    @model_validator(mode="after")
    def _never_accepted(self) -> Self:
        named = sorted({*self.accept, *self.severity} & {*NEVER_ACCEPTED})
        if named:
            raise ValueError(f"{', '.join(named)} cannot be softened: there is nothing to learn from then")
        return self


class StoreConfig(_Section):
    """Where the online features live."""

    url: str = "sqlite"
    """`sqlite` (in RUNS/store), `redis://user@host:port/0`, `redis+cluster://host:port`; rediss: TLS."""
    keep: int = Field(default=3, ge=1)
    """Versions kept beside those that servers have loaded."""
    events_per_user: int = Field(default=1_000, ge=1)
    """A read gives a user's newest events of the delta, at most so many; Redis keeps no more."""
    namespace: str = Field(default="recsys", pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    """What this shop's keys begin with; shops that share a server need one each."""
    password_env: str = "RECSYS_STORE_PASSWORD"
    """The environment variable that holds the password, if the server wants one."""
    tls_ca_file: Path | None = None
    """Authority that signed the server's certificate; default: the system's."""
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    connect_timeout_ms: int = Field(default=50, ge=1)
    read_timeout_ms: int = Field(default=50, ge=1)
    """Of one read or append; a user whose read takes longer is answered as an unknown one."""
    write_timeout_ms: int = Field(default=5_000, ge=1)
    """Of one step of publishing and collecting, and of waiting for another writer."""
    pool_size: int = Field(default=16, ge=1)
    breaker_failures: int = Field(default=3, ge=1)
    """After so many failures in a row the store is left alone …"""
    breaker_open_ms: int = Field(default=1_000, ge=1)
    """… for so long; then one call tries again."""
    delta_ttl: DurationS = 30 * 86_400
    """A user's events are dropped when none came for so long; it must outlast three periods."""
    memory_headroom: float = Field(default=1.2, ge=1.0)
    """A version is refused when the server has less room than its estimated size times this."""

    @field_validator("url")
    @classmethod
    def _without_password(cls, value: str) -> str:
        # Raised as it is, not as a ValueError: pydantic would print the value, and with it the password.
        if "@" in value and ":" in value.split("://", 1)[-1].rsplit("@", 1)[0]:
            raise ConfigError(
                "[store] url holds a password; take it out, write `user@host`, and put the password into the "
                "environment variable that password_env names (RECSYS_STORE_PASSWORD)"
            )
        return value


class RunConfig(_Section):
    """Everything a run is told."""

    timezone: str = "UTC"
    period: Period = "P1D"
    tasks: Annotated[tuple[TaskSpec, ...], Field(alias="task")]
    attributes: Annotated[tuple[FeatureConfig, ...], Field(alias="feature")] = ()
    features: FeaturesConfig = FeaturesConfig()
    execution: ExecutionConfig = ExecutionConfig()
    model: ModelConfig = ModelConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    training: TrainingConfig = TrainingConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    gate: GateConfig = GateConfig()
    fusion: FusionConfig = FusionConfig()
    policy: PolicyConfig = PolicyConfig()
    serving: ServingConfig = ServingConfig()
    store: StoreConfig = StoreConfig()
    validation: ValidationConfig = ValidationConfig()
    tune: TuneConfig = TuneConfig()

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f"{value!r} is no IANA time zone; write one like 'UTC' or 'Asia/Shanghai'"
            ) from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_tasks(self.tasks)
        Fusion.from_config(self)
        names = [(f.entity, f.name) for f in self.attributes]
        for pair in names:
            if names.count(pair) > 1:
                raise ConfigError(f"[[feature]] {pair[1]!r} of entity {pair[0]!r} is defined twice")
        task = self.retrieval.task
        if task is not None and task not in {t.name for t in self.tasks if t.is_binary}:
            raise ConfigError(f"[retrieval] task = {task!r} is not a binary task of this config")
        if self.store.url != "sqlite" and self.store.delta_ttl < 3 * PERIOD_S[self.period]:
            raise ConfigError(
                f"[store] delta_ttl = {self.store.delta_ttl} s: events must outlast three periods of "
                f"{self.period}; write at least {3 * PERIOD_S[self.period] // 86_400}d"
            )
        return self

    @property
    def retrieval_task(self) -> TaskSpec | None:
        """Give the task whose positives train retrieval; None when no task is binary."""
        binary = [t for t in self.tasks if t.is_binary]
        if self.retrieval.task is not None:
            return next(t for t in binary if t.name == self.retrieval.task)
        return binary[0] if binary else None


def load_config(path: Path) -> RunConfig:
    """Read and check a config file.

    Raises: ConfigError, naming the file, the key, the value and the known keys.
    """
    return parse_config(read_toml(path, "the config", "pass --config FILE"), str(path))


def parse_config(data: dict[str, object], where: str) -> RunConfig:
    """Check a parsed TOML tree.

    Raises: ConfigError listing every wrong key at once.
    """
    try:
        return RunConfig.model_validate(data)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except ValidationError as error:
        raise ConfigError(explain(error, where, RunConfig)) from error


def default_config() -> RunConfig:
    """Read the packaged config of the simulated shop."""
    return load_config(Path(__file__).with_name("shop.toml"))


def period_start(day: date, period: Period) -> date:
    """Give the first day of the period that a day lies in (weeks start on Monday)."""
    if period == "P1M":
        return day.replace(day=1)
    if period == "P1W":
        return date.fromordinal(day.toordinal() - day.weekday())
    return day
