"""STAGES: the night as a table. A row says which config keys a stage reads, what it takes and what it makes.

    ingest → check_files → features → validate → plan → choose → catch_up → train → bundle → evaluate
           → gate → refit → refit_bundle → check_refit → record → curves → publish → page → collect

A stage gets a view of the config with its keys alone: reading another is an error. Stages that take long keep
their result in a folder named by a hash of that view and of their inputs, and are skipped when it is there.
"""

import features.build
import features.validation.ingest
import training.curves.night
import training.night.plan
from recsys.bundle import CONFIG_KEYS
from recsys.config import RunConfig
from recsys.tasks import HEAD_KEYS, TaskSpec
from training.night import bundles, page, retention, verdict, work
from training.night.step import Stage

_TRAIN = (
    "timezone", "period", "attributes", "features", "model",
    "item_item", "policy.repeat", "policy.repeat_kinds",
    "retrieval.weight", "retrieval.task", "retrieval.temperature", "retrieval.num_uniform",
    "training.batch_size", "training.chunk_rows", "training.epochs", "training.learning_rate",
    "training.warm_scale", "training.sparse_learning_rate", "training.weight_decay", "training.seed",
    "training.balancing", "training.balancer", "training.device", "training.sharding", "training.stream_odds",
    *(f"tasks.{key}" for key in TaskSpec.model_fields if key != "fusion_weight"),
)  # fmt: skip
_INPUTS = (
    "period", "attributes", "features", "item_item.feature", "policy.repeat",
    *(f"tasks.{key}" for key in TaskSpec.model_fields),
)  # fmt: skip
"""What says which inputs a model has: the plan names those that came since, and that alone matters of it."""
_SHOWN = (
    "training.checkpoint_minutes", "training.writers", "training.write_every", "training.probe_every",
)  # fmt: skip
"""What learning may read beside these: nothing of it changes a weight."""
_WEIGHTS = ("training.seed", "training.sparse_learning_rate")
"""What building the model that weights are loaded into reads beside the bundle's own keys."""

STAGES: tuple[Stage, ...] = (
    Stage(name="ingest", keys=("timezone",), inputs=(), output=None, run=work.ingest),
    Stage(name="check_files", keys=("period",), inputs=(), output=None, run=work.check_files),
    Stage(
        name="features",
        keys=features.build.KEYS,
        inputs=(),
        output="days",
        run=work.build_features,
        passed=("execution", "tasks"),
    ),
    Stage(
        name="validate",
        keys=features.validation.ingest.KEYS,
        inputs=("days", "champion"),
        output="validation",
        run=work.validate,
    ),
    Stage(
        name="plan",
        keys=training.night.plan.KEYS,
        inputs=("days", "previous"),
        output="plan",
        run=work.plan,
        passed=_INPUTS,
    ),
    Stage(
        name="choose",
        keys=(*_TRAIN, "training.precision", "training.processes", "training.tables"),
        inputs=("days", "plan", "previous"),
        output="choice",
        run=work.choose,
    ),
    Stage(
        name="catch_up",
        keys=_TRAIN,
        inputs=("days", "plan", "previous", "choice", "user_key"),
        output="caught_up",
        run=work.catch_up,
        passed=_SHOWN,
    ),
    Stage(
        name="train",
        keys=_TRAIN,
        inputs=("days", "plan", "previous", "caught_up", "choice", "user_key"),
        output="weights",
        run=work.train_weights,
        passed=_SHOWN,
    ),
    Stage(
        name="bundle",
        keys=(*CONFIG_KEYS, *_WEIGHTS, "training.device", "fusion", "calibration"),
        inputs=("days", "plan", "previous", "weights"),
        output="evaluated",
        run=bundles.write_evaluated,
    ),
    Stage(
        name="evaluate",
        keys=("training.seed", "training.device"),
        inputs=("days", "plan", "evaluated", "previous", "anchor"),
        output="scores",
        run=verdict.evaluate_both,
        passed=("execution",),
    ),
    Stage(
        name="gate",
        keys=("gate", "calibration", "training.seed", *(f"tasks.{key}" for key in HEAD_KEYS)),
        inputs=("plan", "scores", "evaluated", "previous"),
        output="decision",
        run=verdict.gate,
    ),
    Stage(
        name="refit",
        keys=(*_TRAIN, "training.refit"),
        inputs=("days", "plan", "evaluated", "decision", "choice"),
        output="refitted",
        run=work.refit,
        passed=_SHOWN,
    ),
    Stage(
        name="refit_bundle",
        keys=(*CONFIG_KEYS, *_WEIGHTS, "fusion", "training.device"),
        inputs=("days", "plan", "evaluated", "decision", "refitted"),
        output="live",
        run=bundles.write_refitted,
    ),
    Stage(
        name="check_refit",
        keys=("gate", "training.device", "training.seed"),
        inputs=("days", "plan", "scores", "evaluated", "decision", "live"),
        output="proved",
        run=verdict.check_refitted,
    ),
    Stage(
        name="record",
        keys=("period", "tasks.name", "tasks.window", "training.seed"),
        inputs=(
            *("days", "plan", "champion", "previous", "caught_up", "weights"),
            *("scores", "evaluated", "live", "proved", "validation", "seconds"),
        ),
        output=None,
        run=work.record,
    ),
    Stage(
        name="curves",
        keys=("training.writers",),
        inputs=("weights", "refitted", "scores", "evaluated", "live", "proved"),
        output=None,
        run=training.curves.night.add_outcomes,
    ),
    Stage(
        name="publish",
        keys=("store", "publish"),
        inputs=("days", "champion", "live", "pointed", "proved"),
        output="ending",
        run=work.publish,
        passed=tuple(key for key in RunConfig.model_fields if key not in ("store", "publish")),
    ),
    Stage(
        name="page",
        keys=features.validation.ingest.KEYS,
        inputs=("days", "validation", "proved", "evaluated", "live", "ending"),
        output=None,
        run=page.write_night_page,
    ),
    Stage(
        name="collect",
        keys=("retention", "store.keep", "gate.anchor_days"),
        inputs=("days", "evaluated", "live", "anchor"),
        output=None,
        run=retention.collect,
    ),
)
"""In this order; each output is made once."""
