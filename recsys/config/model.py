"""`[model]` and `[retrieval]`: the shape of the ranker, the towers' own loss and the index."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.config.section import Section


class TrunkConfig(Section):
    """Shape of the shared part."""

    name: str = "mmoe"
    num_experts: int = Field(default=4, ge=1, le=256)
    """Experts that all tasks share (`mmoe`, `ple`)."""
    task_experts: int = Field(default=2, ge=1, le=256)
    """Experts of each task's own (`ple`)."""
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (128, 64)
    """Layer widths of one expert or network; `ple` makes each layer an extraction level."""


class HistoryConfig(Section):
    """What reads a user's last events."""

    encoder: str = "attention"
    """`attention` weighs each event on its own; `sasrec` and `hstu` read them as a sequence, in one pass."""
    dim: int = Field(default=64, ge=2, le=1024)
    """Width of an event's state in a sequence."""
    num_layers: int = Field(default=1, ge=1, le=16)
    num_heads: int = Field(default=2, ge=1, le=32)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of a state's numbers hidden in training."""
    weight: float = Field(default=0.2, ge=0.0)
    """Of the loss that every event's state names the event after it, beside the retrieval loss."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"dim = {self.dim} cannot be cut into num_heads = {self.num_heads} equal parts")
        return self


class ModelConfig(Section):
    """Shape of the ranker."""

    trunk: TrunkConfig = TrunkConfig()
    history: HistoryConfig = HistoryConfig()
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


class RetrievalConfig(Section):
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
    repeat_candidates: int = Field(default=100, ge=0)
    """Candidates per request from what the user took before, where `[policy] repeat` is `learn`."""
    fresh_candidates: int = Field(default=10, ge=0)
    """Candidates per request from the items upserted since the bundle: the newest, near the user or not."""
    exact_items: int = Field(default=50_000, ge=0)
    """Up to so many items are searched exactly; the index of more is compressed."""
    index_min_recall: float = Field(default=0.95, ge=0.0, le=1.0)
    """A compressed index that finds less of the `num_candidates` nearest items than this is not published,
    without a filter or with one that passes 50, 10, 1 or .1 % of the items."""


Switch = Literal["auto", "on", "off"]


class ItemItemConfig(Section):
    """What goes with what: a table of items' neighbours, from users' histories, made every night."""

    candidates: int = Field(default=50, ge=0)
    """Candidates per request from the neighbours of what the user took; 0: no table is made."""
    history: int = Field(default=500, ge=0, le=5000)
    """Events that took an item, kept of each user: the newest. The newest 200 items speak for neighbours."""
    neighbours: int = Field(default=200, ge=1, le=200)
    """Kept of each item; fewer in a catalogue of more than 200,000 items (`MOST_CELLS`)."""
    ease_items: int = Field(default=10_000, ge=0, le=20_000)
    """Up to so many items the table is EASE's (in closed form; memory grows with the square, time with the
    cube); in larger catalogues shrunk cosines."""
    penalty: float = Field(default=200.0, gt=0)
    """EASE's: what holds weights down."""
    order: Switch = "auto"
    """Whether the table counts what was taken before an item, beside what is taken with it. auto: a night
    asks the lists of its calibration day and of days before it; the interval of the gain must lie above 0."""
    attributes: Switch = "auto"
    """The same of what items have in common: categories, groups, `[[feature]]` of items by name or list."""
    walks: Switch = "auto"
    """The same of walks from item to user to item, a share of which is added to the table's weights."""
    positive: Switch = "auto"
    """The same of a cut that keeps EASE's weights above 0 alone: in a large catalogue most weights below 0
    are cut, and the few that stay put their items behind ones that are no better."""
    feature: bool = False
    """Whether the ranker reads of each candidate its score by the table, its place by that score, and where
    repeats are learned how often its user took it. Each night's table must then be of one form, so `auto` of
    the four switches above counts as off."""

    @model_validator(mode="after")
    def _feature_has_a_table(self) -> Self:
        if self.feature and not self.candidates:
            raise ValueError(
                "[item_item] feature = true, candidates = 0: without candidates there is no table to read; "
                "give candidates, or feature = false"
            )
        return self
