"""What a server answers with: one loaded bundle version, or popularity while there is no bundle."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.fusion import Fusion
from recsys.tasks import TaskSpec
from recsys.user_past import UserPast
from serving.catalogue import Catalogue, ItemRow
from serving.catalogue.popular import Popular
from serving.protocols import Features, Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Everything that an answer may depend on; one version, never changed."""

    version: str | None
    """None: there is no bundle, and popularity is the only score."""
    catalogue: Catalogue
    popular: Popular
    past: UserPast = field(default_factory=UserPast)
    """Scores items by what a user took."""
    item_bias: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """How much oftener each item of the bundle was chosen than the heads expected [I]."""
    times_shown: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """How often each item of the bundle was shown [I]."""
    tasks: tuple[TaskSpec, ...] = ()
    fusion: Fusion = field(default_factory=lambda: Fusion(terms={}))
    scorer: Scorer | None = None
    features: Features | None = None
    encode_items: Callable[[Mapping[int, ItemRow]], Any] | None = None
    """Items by catalogue row -> inputs of `Scorer.with_items`."""
    items_as_of_ms: int = 0
    """The catalogue contains all upserts before this instant."""
    device: str = ""
    """Where requests are scored; empty: there is no bundle."""
    engine: str = ""
    """What computes the logits there, as `recsys.model.engines` names it."""
    engines_refused: str = ""
    """Engines that are not exact enough for this version here, and how they miss; empty: none was refused."""
    index_kind: str = ""
    """Type of the item index."""
    index_cutover: Mapping[str, float] = field(default_factory=dict)
    """Which way a filtered search goes on this host, as `recsys.index.Cutover`; empty: there is no bundle."""
    index_device: str = ""
    """Where items are searched."""
    files: object = None
    """What keeps the mapped files in place while this lives; None: nothing is mapped."""
