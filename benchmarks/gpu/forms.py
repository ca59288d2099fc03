"""Forms of the same computation, timed beside each other on the device: which one a GPU should have."""

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.settings import Settings
from recsys.model.row_lists import RowLists, list_sums
from recsys.model.trunks import relu_networks as networks


def compare_forms(settings: Settings) -> dict[str, Any]:
    """Time gradients of a history's items, and experts in blocks, whole, and as batched products."""
    gradients, experts = _item_gradients(settings), _experts(settings)
    return {
        "item_gradients_ms": gradients,
        "experts_ms": experts,
        "line": f"gradients of a history's items: {_listed(gradients)}; experts: {_listed(experts)}",
    }


def _item_gradients(settings: Settings) -> dict[str, float]:
    """Sum events' vectors by item: by bag sums, one list an item, as the model does; by atomic additions."""
    batch = settings.inputs.batches[max(settings.inputs.batches)][0].to(settings.device)
    index, num_rows = batch.history, batch.rows["item_id"].numel()
    dim = settings.inputs.said["model"]["attention_dim"]
    lists = RowLists(index.item_E, index.owner_E, index.start_B, index.by_item_E, num_rows)
    rows_UA = torch.randn(num_rows, dim, device=settings.device, requires_grad=True)
    weight_E = torch.rand(index.item_E.numel(), device=settings.device)
    gradient_BA = torch.randn(batch.size, dim, device=settings.device)

    def by_bags() -> Tensor:
        sums = list_sums(weight_E, rows_UA, lists)
        return torch.autograd.grad(sums, rows_UA, gradient_BA)[0]

    def by_additions() -> Tensor:
        sums = functional.embedding_bag(
            index.item_E, rows_UA, index.start_B, mode="sum", per_sample_weights=weight_E
        ).detach()
        moved_EA = gradient_BA.index_select(0, index.owner_E) * weight_E[:, None]
        return torch.zeros_like(rows_UA).index_add_(0, index.item_E, moved_EA) + 0 * sums.sum()

    both = {"bags": by_bags, "additions": by_additions}
    torch.testing.assert_close(by_bags(), by_additions().detach(), rtol=1e-3, atol=1e-3)
    return {name: 1e3 * settings.seconds_each(call) for name, call in both.items()}


def _experts(settings: Settings) -> dict[str, float]:
    """Run eight experts forward and backward."""
    num, num_in, widths, batch = (2, 16, (8, 4), 64) if settings.small else (8, 512, (256, 128), 8192)
    device = settings.device
    sizes = list(zip([num_in, *widths[:-1]], widths, strict=True))
    weights = [torch.randn(num, i, o, device=device, requires_grad=True) for i, o in sizes]
    biases = [torch.zeros(num, o, device=device, requires_grad=True) for o in widths]
    x_BI = torch.randn(batch, num_in, device=device, requires_grad=True)

    def own(rows: int) -> None:
        with patch.object(networks, "BLOCK", rows), torch.autocast(device.type, torch.bfloat16):
            networks.relu_networks(x_BI, weights, biases, 0.0).sum().backward()  # type: ignore[no-untyped-call]

    def batched() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            h_EBH = x_BI.expand(num, -1, -1)
            for weight, bias in zip(weights, biases, strict=True):
                h_EBH = torch.baddbmm(bias[:, None], h_EBH, weight).relu()
            h_EBH.sum().backward()  # type: ignore[no-untyped-call]

    calls = {"in blocks": lambda: own(networks.BLOCK), "whole": lambda: own(batch), "batched": batched}
    return {name: 1e3 * settings.seconds_each(call) for name, call in calls.items()}


def _listed(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {ms:.3f} ms" for name, ms in found.items())
