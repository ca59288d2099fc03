"""`[[feature]]`, `[features]` and `[execution]`: what the snapshot is built from, and how."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from recsys.config.section import Section
from recsys.tasks import DurationS

Entity = Literal["user", "item", "context"]


class FeatureConfig(Section):
    """Declare one `attribute_*` or `context_*` column as a model input.

    All further keys are options of the kind; `features.kinds` says which kinds there are and what they read.
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """The column's name without its prefix: `device` reads `context_device` for entity `context`."""
    entity: Entity
    kind: str

    @property
    def column(self) -> str:
        """Name the column in the canonical table."""
        return f"{'context' if self.entity == 'context' else 'attribute'}_{self.name}"

    @property
    def options(self) -> dict[str, object]:
        """Give the keys beside name, entity and kind, as they were written."""
        return dict(self.model_extra or {})


class FeaturesConfig(Section):
    """Say which standard features are built and how."""

    window_days: tuple[Annotated[int, Field(ge=1)], ...] = (1, 7, 28)
    """Windows of the aggregates, in days, beside the lifetime one."""
    aggregates: bool = True
    """Feed the model counts, rates, means and recency of users, items and item groups. They tell every head
    of every task's feedback, shared or not; crosses and live counters have switches of their own."""
    group_items_by: tuple[str, ...] = ("category",)
    """Item columns that get aggregates of their own (category, attribute_author_id, …)."""
    cross_user_by: tuple[str, ...] = ("category",)
    """Item columns by which a user's own aggregates are kept: what they did in the candidate's category. With
    `item_id`, also how often they were shown this very item and what they did then, in the longest of
    `window_days`: for shops that show an item again to those who passed it over. A user's pairs are read with
    each request, and each server process holds the ids of all items once more."""
    organic_base: str = ""
    """A kind of feedback, such as a view of an item's page. Of feedback that names no impression, each task's
    is then also counted as a share of this kind: what people do with an item that they came to by themselves.
    Empty: such feedback has counts alone."""
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


class ExecutionConfig(Section):
    """How feature building is spread over processes; rows and weights are the same in any case."""

    executor: str = "local"
    """local: this machine's processes; ray: a Ray cluster (extra `ray`) that sees the same folders."""
    shards: int = Field(default=1, ge=1, le=65_536)
    """A period is built in so many parts by user; memory holds one part a worker."""
    workers: int = Field(default=1, ge=1)
    """Parts built at once."""
    ray_address: str = ""
    """Where the Ray cluster is; empty: start one on this machine."""
