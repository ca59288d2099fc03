"""`[training]`, `[calibration]`, `[gate]`, `[updates]`: how weights are found, and what lets them go live."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from recsys.config.section import Section
from recsys.head_kinds import HEAD_KINDS


class BalancerConfig(Section):
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


class TrainingConfig(Section):
    """How the weights are found."""

    batch_size: int = Field(default=2048, ge=2)
    chunk_rows: int = Field(default=262_144, ge=64)
    """Rows of a day that are in memory, and shuffled, together; each chunk is drawn from the whole day."""
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
    """Matrix products in training; `auto`: what a night measures to be faster. Serving always uses fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where training and evaluation run; `auto` takes a GPU where there is one. Golden requests are made on
    the CPU; [serving] has a device of its own."""
    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """How many processes share each step of a night's learning, on the CPU, or each with a GPU of its own;
    `auto`: what a night measures to be faster. Nights of few steps measure nothing: `auto` is then fp32 and
    one process."""
    tables: Literal["auto", "replicated", "sharded"] = "auto"
    """Embedding tables of several processes: a copy in each, or each with a share of the rows (TorchRec);
    `auto`: copies while tables and their optimiser's state take at most half of a process's memory."""
    sharding: dict[str, Literal["table_wise", "row_wise", "column_wise"]] = Field(default_factory=dict)
    """`[training.sharding]`, of sharded tables: table -> how it is cut. TorchRec's planner chooses for the
    others, whole or by rows. A table cut by columns has an accumulator of Adagrad per row and block of
    columns, and so another learning curve."""
    threads: int = Field(default=1, ge=1)
    """Torch threads of a single process; each of several has one. One is the robust choice: beside another
    busy process two threads are slower than one."""
    checkpoint_minutes: float = Field(default=10.0, ge=0)
    """How often a training saves all it goes on from when it is killed; 0 never. A checkpoint has the size of
    the weights and the optimisers' state, and is removed when the training is done.
    """
    writers: tuple[str, ...] = ()
    """Where a fit's curves go: names of `training.curves.WRITERS`, each with an extra of its own."""
    write_every: int = Field(default=50, ge=1)
    """Steps from one point of the curves to the next; each point is of the steps since the one before."""
    probe_every: int = Field(default=500, ge=0)
    """Every so many steps the writers also get the gradients' norms and cosines and the gates' entropy; 0:
    never. A look takes as long as two or three steps (docs/curves.md)."""
    max_days: int = Field(default=60, ge=1)
    """A cold start looks back at most this many periods."""
    cold_restart: int = Field(default=0, ge=0)
    """Every so many nights (7: weekly) a night starts from scratch, not from the live weights; 0: none does.
    Periods are counted from the last cold start; where the log or the schedule leaves that night out, the
    next chance is as many later. The gate compares a restart with the live version as on any other night."""
    stream_odds: bool = False
    """Where negatives are drawn: heads learn the odds of what they are drawn from, which tells who takes much
    from who takes little (docs/decisions.md, 86). False: those of the rows, alike for all users."""
    refit: bool = True
    """After PROMOTE, continue one pass over the calibration and gate days before publishing."""

    @model_validator(mode="after")
    def _has_something_to_cut(self) -> Self:
        """Refuse a cut of tables that every process has whole."""
        if self.tables == "replicated" and self.sharding:
            cut = ", ".join(self.sharding)
            raise ValueError(
                f'sharding says how {cut} is cut, and tables = "replicated" cuts none; take "sharded"'
            )
        return self


def _known_calibrators(chosen: dict[str, str]) -> dict[str, str]:
    """Check the names, and give head kinds that are not mentioned their first calibrator."""
    for head, name in chosen.items():
        if head not in HEAD_KINDS:
            raise ValueError(f"{head!r} is no head kind; known: {', '.join(HEAD_KINDS)}")
        known = HEAD_KINDS[head].calibrators
        if name not in known:
            raise ValueError(f"{name!r} is no calibrator of {head} heads; known: {', '.join(known)}")
    return {head: next(iter(kind.calibrators)) for head, kind in HEAD_KINDS.items()} | chosen


Calibrators = Annotated[dict[str, str], AfterValidator(_known_calibrators)]
"""`[calibration]`: head kind -> what makes predictions of its heads' logits; default: the kind's first.

platt, affine: a sigmoid, a line; a child's sigmoid reads its parent's logit beside its own, which changes
the order. platt_items: a sigmoid of the head's own logit and a small linear term of the item's lifetime rates
and means, which changes it, too. isotonic: a never-falling map. auto: platt or isotonic, whichever, fitted on
the earlier rows, is better on the later ones. none: what the head says; a probability is shifted where its
negatives were sampled.
"""


class GateConfig(Section):
    """What a challenger must show to go live."""

    margin: float = Field(default=0.1, ge=0.0)
    """Largest loss on a primary metric that still counts as no worse (non-inferiority margin), as a share of
    what the live bundle adds to predicting the same for every row: AUC inside lists less .5, or RMSE below
    that of the mean label."""
    alpha: float = Field(default=0.05, gt=0.0, lt=0.5)
    """Error rate of each head whose labels are many enough to decide, all of which must pass; heads that can
    only veto share it."""
    replicates: int = Field(default=200, ge=20)
    underpowered: Literal["hold", "promote"] = "hold"
    """What becomes of a night that has too few labels to show that it is no worse than the live bundle.
    `promote`: it goes live unless something shows that it is worse."""
    anchor_days: int = Field(default=28, ge=0)
    """A bundle must be no worse either than the best one, by the value of its lists, of so many days before;
    0: it is compared with the live one alone."""
    min_rows: int = Field(default=500, ge=1)
    """A head with fewer labelled rows on its evaluated day is reported and not evaluated."""
    min_list_auc: float = Field(default=0.51, ge=0.0, le=1.0)
    """The least AUC inside lists of a binary head without a live bundle to compare with; chance is .5."""
    max_ece: float = Field(default=0.08, gt=0.0)
    min_recall_ratio: float = Field(default=0.5, ge=0.0)
    """Retrieval recall@50 of the challenger over the champion's may not fall below this."""
    min_calibration_ratio: float = Field(default=0.8, gt=0.0, le=1.0)
    max_calibration_ratio: float = Field(default=1.25, ge=1.0)
    """Mean predicted over mean observed of a probability: held where its interval lies outside these."""
    max_prediction_shift: float = Field(default=1.0, gt=0.0)
    """The largest stability index of a head's predictions against the live bundle's on the same rows."""
    min_segment_users: int = Field(default=200, ge=1)
    """Segments of fewer users are left out."""
    max_segment_loss: float = Field(default=0.3, ge=0.0)
    """A segment is held where it is shown to lose more than this share of what the live bundle adds in it."""
    min_overlap: float = Field(default=0.02, ge=0.0, le=1.0)
    """The least share of a user's first page that is on the live bundle's page, mean over users."""
    min_coverage_ratio: float = Field(default=0.3, ge=0.0)
    """The least number of different items on first pages, in units of the live bundle's."""
    max_size_ratio: float = Field(default=3.0, gt=0.0)
    max_time_ratio: float = Field(default=3.0, gt=0.0)
    """The most bytes, and processor time of a request, in units of the live bundle's."""
    min_served_share: float = Field(default=0.5, ge=0.0, le=1.0)
    """Of what the live bundle's fused score has over chance, inside the lists of a binary head, the
    challenger's must keep this share: it holds weights of the wrong sign, and allows other ones."""


class UpdatesConfig(Section):
    """What `recsys train --incremental` learns during the day, and what its version must show to go live."""

    held_out: float = Field(default=0.25, gt=0.0, lt=1.0)
    """Of the time since the last update the newest share is held out; the next update learns it."""
    margin: float = Field(default=0.02, gt=-1.0)
    """A head's loss on what is held out may be larger than the live version's by this share; below 0, it must
    be smaller by so much."""
    min_rows: int = Field(default=100, ge=1)
    """A head with fewer labels held out is reported and not compared; without any that is compared, the live
    version stays."""
