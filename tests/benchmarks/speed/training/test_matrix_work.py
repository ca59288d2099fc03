"""What the counter of matrix products finds in a real step is what the shapes say, by hand."""

from itertools import pairwise

import pytest
import torch

from benchmarks.speed.training.matrix_work import matrix_flop
from benchmarks.speed.training.product_parts import day_batches, fit_batches
from recsys.model.trunks.relu_networks import linear_relu
from training.build_model import build_model
from training.train import fit_state


def products(ranker, batch):
    """List every product of a step by hand: rows, inputs, outputs, and how many of its three are made.

    A product has a forward one and two backward ones, of the weight and of the input; text needs no gradient.
    """
    b, u, events = batch.size, batch.rows["item_id"].shape[0], batch.history
    d, a = ranker.history.key.in_features, ranker.history.key.out_features
    c = ranker.history.kind.num_embeddings + ranker.history.age.steps_ND.shape[0]
    i, e, tasks = ranker.num_trunk_in, ranker.trunk.experts.biases[0].shape[0], len(ranker.specs)
    widths = [bias.shape[1] for bias in ranker.trunk.experts.biases]
    assert events is not None
    item_layers = [*linear(ranker.item_tower), ranker.item_factor]
    layers = [*linear(ranker.user_tower), ranker.user_factor, ranker.project_id, *item_layers]
    yield from ((b, layer.in_features, layer.out_features, 3) for layer in layers)
    yield b, d, a, 3  # the item's query
    yield from [(u, d, a, 3)] * 2  # keys and values of distinct items
    yield from [(b, a, c, 3)] * 3  # query by kinds and ages; values of kinds and ages, attended and summed up
    for rows in (u, c):
        yield rows, a, 1, 2  # the event score of keys: the gradient of the matrix is no product
    if ranker.project_text is not None:
        t = ranker.project_text.in_features
        yield from [(u, t, d, 2), (b, t, d, 2)]
    wide = tasks * e + e * widths[0]  # gates beside the experts' first layers
    learned = sum(len(range(i)[columns]) for columns in ranker.trunk.learned)
    yield from [(b, i, wide, 2), (b, learned, wide, 1)]  # what is data needs no gradient
    yield from ((b, n, e * w, 3) for n, w in pairwise(widths))
    yield b, e, tasks * widths[-1], 3  # mixing
    for head in ranker.heads.heads.values():
        yield from ((b, layer.in_features, layer.out_features, 3) for layer in linear(head))
    drawn, positives = len(batch.negatives.share_M), int((batch.labels["click"] > 0.5).sum())
    yield from ((drawn, layer.in_features, layer.out_features, 3) for layer in item_layers)
    yield drawn, d, a, 1  # their query, which nobody asks
    if ranker.project_text is not None:
        yield drawn, ranker.project_text.in_features, d, 2
    yield positives, ranker.user_factor.out_features, positives + drawn, 3


def linear(module):
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_of_the_product_model_costs_what_its_shapes_say(shop_chain, config, precision):
    days, settings = shop_chain, config
    batches, _, _ = day_batches(days, settings)
    batch = batches[0]
    found = matrix_flop(lambda: fit_batches(days, settings, batches[:1], precision))
    ranker, _ = build_model(settings, fit_state(days, [days.last], settings, None), None)
    expected = sum(2.0 * rows * n * m * times for rows, n, m, times in products(ranker, batch))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_layer_inside_onednn_is_counted():
    x_BI, weight_IO = torch.randn(7, 5), torch.randn(5, 3)
    assert matrix_flop(lambda: linear_relu(x_BI, weight_IO, torch.zeros(3))) == 2 * 7 * 5 * 3


def test_products_in_place_are_counted():
    out, left, right = torch.zeros(4, 7, 3), torch.randn(4, 7, 5), torch.randn(4, 5, 3)
    assert matrix_flop(lambda: out.baddbmm_(left, right)) == 2 * 4 * 7 * 5 * 3
    assert matrix_flop(lambda: out[0].addmm_(left[0], right[0])) == 2 * 7 * 5 * 3
