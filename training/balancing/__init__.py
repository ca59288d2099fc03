"""How the tasks' losses become one backward: BALANCERS maps the name in TOML to a class and its options.

A balancer lives as long as one fit: its state (variances, rates, weights) belongs to that run's data and is
in no bundle. A warm start begins anew, from values of the first losses. A run that was killed goes on from
the state in its checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from recsys.errors import ConfigError
from training.balancing.gradients import Aggregated, GradNorm, build_aggregator
from training.balancing.weights import BalanceReport, DynamicWeightAverage, Fixed, Uncertainty
from training.trainer.group import ALONE, Group

if TYPE_CHECKING:
    from recsys.config import BalancerConfig


class Balancer(Protocol):
    """Turns losses into gradients of the dense parameters and of the looked-up rows (the boundary)."""

    def backward(
        self,
        losses: Mapping[str, Tensor],
        shared_parameters: Sequence[Tensor],
        boundary: Sequence[Tensor],
        group: Group = ALONE,
    ) -> BalanceReport:
        """Put gradients on the dense parameters and the boundary; the tables step once from the latter.

        Args: shared_parameters: the dense parameters; one that a single loss reaches is that task's own.
        group: of several ranks; the report says whether their gradients are still to be added up.
        """

    def state(self) -> dict[str, Any]:
        """Give what the steps so far left behind, as JSON values."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One method: what builds it from weights and options, and the keys of [training.balancer] it reads."""

    build: Callable[..., Balancer]
    options: tuple[str, ...] = ()
    reads_rows: bool = True
    """It looks at the gradients of looked-up rows, of all ranks together."""


def _aggregated(name: str, weights: Mapping[str, float], **options: float) -> Aggregated:
    return Aggregated(weights, build_aggregator(name, options))


BALANCERS: dict[str, Entry] = {
    "fixed": Entry(Fixed, reads_rows=False),
    "uncertainty": Entry(Uncertainty, ("learning_rate",), reads_rows=False),
    "dwa": Entry(DynamicWeightAverage, ("temperature", "window"), reads_rows=False),
    "gradnorm": Entry(GradNorm, ("alpha", "learning_rate")),
    # TorchJD's, on the shared parameters and the boundary
    "mgda": Entry(partial(_aggregated, "mgda")),
    "pcgrad": Entry(partial(_aggregated, "pcgrad")),
    "upgrad": Entry(partial(_aggregated, "upgrad")),
    "dual_proj": Entry(partial(_aggregated, "dual_proj")),
    "imtl_g": Entry(partial(_aggregated, "imtl_g")),
    "aligned_mtl": Entry(partial(_aggregated, "aligned_mtl")),
    "cagrad": Entry(partial(_aggregated, "cagrad"), ("c",)),
}


def build_balancer(
    name: str, weights: Mapping[str, float], options: "BalancerConfig | None" = None
) -> Balancer:
    """Build a balancer by name.

    Args: weights: loss -> how much it matters; a loss without one counts once.
    Raises: ConfigError listing the known names; for an option that was set and that the method does not
        read; and for a package it needs and that is not installed.
    """
    from recsys.config import BalancerConfig

    if name not in BALANCERS:
        raise ConfigError(f"[training] balancing = {name!r} is unknown; known: {', '.join(BALANCERS)}")
    entry = BALANCERS[name]
    given: dict[str, Any] = (options or BalancerConfig()).model_dump()
    default = BalancerConfig().model_dump()
    for key, value in given.items():
        if value != default[key] and key not in entry.options:
            reads = ", ".join(entry.options) or "nothing"
            raise ConfigError(
                f"[training.balancer] {key} = {value}: balancing = {name!r} does not read it, it reads "
                f"{reads}; take the key out or choose another method"
            )
    return entry.build(weights, **{key: given[key] for key in entry.options})
