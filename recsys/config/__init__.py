"""The config of a run: `load_config` reads a TOML file into a `RunConfig` of sections."""

from recsys.config.features import Entity, ExecutionConfig, FeatureConfig, FeaturesConfig
from recsys.config.fusion import FusionConfig, build_fusion
from recsys.config.model import HistoryConfig, ItemItemConfig, ModelConfig, RetrievalConfig, TrunkConfig
from recsys.config.run import (
    PERIOD_S,
    Period,
    RunConfig,
    default_config,
    load_config,
    parse_config,
    period_start,
    periods_between,
)
from recsys.config.serving import (
    MAX_WORKERS,
    PolicyConfig,
    PublishConfig,
    RetentionConfig,
    ServingConfig,
    StoreConfig,
)
from recsys.config.training import BalancerConfig, Calibrators, GateConfig, TrainingConfig, UpdatesConfig
from recsys.config.tune import ChosenConfig, Dimension, TuneConfig
from recsys.config.validation import NEVER_ACCEPTED, FindingCode, Levels, Severity, ValidationConfig

__all__ = [
    "MAX_WORKERS",
    "NEVER_ACCEPTED",
    "PERIOD_S",
    "BalancerConfig",
    "Calibrators",
    "ChosenConfig",
    "Dimension",
    "Entity",
    "ExecutionConfig",
    "FeatureConfig",
    "FeaturesConfig",
    "FindingCode",
    "FusionConfig",
    "GateConfig",
    "HistoryConfig",
    "ItemItemConfig",
    "Levels",
    "ModelConfig",
    "Period",
    "PolicyConfig",
    "PublishConfig",
    "RetentionConfig",
    "RetrievalConfig",
    "RunConfig",
    "ServingConfig",
    "Severity",
    "StoreConfig",
    "TrainingConfig",
    "TrunkConfig",
    "TuneConfig",
    "UpdatesConfig",
    "ValidationConfig",
    "build_fusion",
    "default_config",
    "load_config",
    "parse_config",
    "period_start",
    "periods_between",
]
