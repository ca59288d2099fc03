"""Are experts used, gates decided and units alive? Seen while a trained trunk scores rows, and what to do."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recsys.metrics.table import pooled_metric
from recsys.model.trunks.trunk import Trunk
from training.report.transfer.transfer_report import Finding, GateHealth, HeadTransfer, Health

DEAD_EXPERT = 0.1
"""An expert is dead when no gate gives it this share of an equal part."""
COLLAPSED, UNDECIDED = 0.1, 0.98
"""Normalised entropies below which a gate is reported to use one expert, and above which all alike."""
MANY_DEAD_UNITS = 0.3


@dataclass(slots=True)
class Watch:
    """Sums over the rows that passed through a trunk."""

    rows: int = 0
    weight: dict[str, Tensor] = field(default_factory=dict)
    entropy: dict[str, float] = field(default_factory=dict)
    alive: dict[str, Tensor] = field(default_factory=dict)

    def add(self, gates: dict[str, Tensor], hidden: dict[str, Tensor]) -> None:
        """Take in a batch: gate weights [B, E] and hidden vectors [B, H] by task."""
        self.rows += next(iter(hidden.values())).shape[0]
        for task, weight_BE in gates.items():
            self.weight[task] = self.weight.get(task, 0.0) + weight_BE.double().sum(dim=0)
            entropy = -torch.special.xlogy(weight_BE, weight_BE).double().sum()
            self.entropy[task] = self.entropy.get(task, 0.0) + float(entropy)
        for task, h_BH in hidden.items():
            alive_H = (h_BH != 0).any(dim=0)
            self.alive[task] = self.alive[task] | alive_H if task in self.alive else alive_H

    def gates(self) -> dict[str, GateHealth]:
        """Give each task's occupancy and its entropy over the experts that it can reach."""
        found = {}
        for task, total_E in self.weight.items():
            reachable = int((total_E > 0).sum())
            most = math.log(reachable) if reachable > 1 else 1.0
            found[task] = GateHealth(
                occupancy=tuple((total_E / self.rows).tolist()), entropy=self.entropy[task] / self.rows / most
            )
        return found

    def dead_units(self) -> dict[str, float]:
        """Give the share of each task's trunk outputs that were 0 on every row."""
        return {task: float((~alive_H).double().mean()) for task, alive_H in self.alive.items()}


@contextmanager
def watched(trunk: Trunk) -> Iterator[Watch]:
    """Watch what passes through a trunk."""
    watch = Watch()

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], hidden: dict[str, Tensor]) -> None:
        with torch.no_grad():
            watch.add(trunk.gate_weights(inputs[0]), hidden)

    handle = trunk.register_forward_hook(hook)
    try:
        yield watch
    finally:
        handle.remove()


def health_of(watches: Sequence[Watch]) -> Health:
    """Sum up the runs; gates are the first run's, because experts of two runs have no common names."""
    runs = [watch.gates() for watch in watches]
    units = [watch.dead_units() for watch in watches]
    dead = [len(_dead(gates)) / num for gates in runs if (num := _num_experts(gates))]
    return Health(
        gates=runs[0],
        dead_experts=sum(dead) / len(dead) if dead else None,
        entropy={t: sum(run[t].entropy for run in runs) / len(runs) for t in runs[0]},
        dead_units={t: sum(run[t] for run in units) / len(units) for t in units[0]},
    )


def failed_findings(heads: Mapping[str, HeadTransfer]) -> list[Finding]:
    """Name models that give every row one value: their metric is exactly that of a constant."""
    found = []
    for task, head in heads.items():
        for side, values in (("alone", head.alone), ("shared", head.shared)):
            failed = sum(value == pooled_metric(head.metric).of_constant for value in values)
            if failed:
                found.append(
                    Finding(
                        what=f"{task} {side}: {failed} of {len(values)} seeds give every row one value; "
                        "the difference counts them",
                        remedy="widen [model.trunk] hidden, or lower [training] learning_rate",
                    )
                )
    return found


def ensemble_findings(ensemble_size: int) -> list[Finding]:
    """Say that only one trunk was watched where there are several."""
    if ensemble_size == 1:
        return []
    what = f"the model has an ensemble of {ensemble_size}: experts and gates are those of its first trunk"
    return [Finding(what=what, remedy="set [model] ensemble_size = 1 to see all of a model")]


def health_findings(health: Health) -> list[Finding]:
    """Say what is unhealthy, and the remedy."""
    found = []
    if health.dead_experts:
        names = ", ".join(str(e + 1) for e in _dead(health.gates)) or "none in the first run"
        found.append(
            Finding(
                what=f"{health.dead_experts:.0%} of the experts are used by no head (first run: {names})",
                remedy="lower [model.trunk] num_experts, or raise dropout",
            )
        )
    for task, entropy in health.entropy.items():
        if entropy < COLLAPSED:
            found.append(
                Finding(
                    what=f"the gate of {task} uses one expert only (entropy {entropy:.2f}, at most 1)",
                    remedy="lower [model.trunk] num_experts, or choose a trunk with experts per task (ple)",
                )
            )
    if health.entropy and min(health.entropy.values()) > UNDECIDED:
        found.append(
            Finding(
                what="every gate weighs all experts alike, so all heads share one network",
                remedy="choose [model.trunk] name = 'shared_bottom', which costs less, or train longer",
            )
        )
    worst = max(health.dead_units, key=lambda t: health.dead_units[t])
    if health.dead_units[worst] > MANY_DEAD_UNITS:
        found.append(
            Finding(
                what=f"{health.dead_units[worst]:.0%} of the trunk's outputs for {worst} are 0 on every row",
                remedy="lower [training] learning_rate, or make the trunk's last layer narrower",
            )
        )
    return found


def _num_experts(gates: dict[str, GateHealth]) -> int:
    return len(next(iter(gates.values())).occupancy) if gates else 0


def _dead(gates: dict[str, GateHealth]) -> list[int]:
    num = _num_experts(gates)
    return [e for e in range(num) if max(g.occupancy[e] for g in gates.values()) < DEAD_EXPERT / num]
