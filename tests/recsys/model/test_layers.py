"""Layers by hand give what autograd makes of their plain forms, to float64."""

import pytest
import torch
from torch.nn import functional

from recsys.model.joined import joined_with_products
from recsys.model.layers import unit_length


def _gradients(made, inputs, weight):
    return torch.autograd.grad((made * weight).sum(), inputs)


def _drawn(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def _assert_equal(own, plain):
    for one, other in zip(own, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-13, 0.0])
def test_unit_length_and_its_gradient_are_normalizes(scale):
    x, weight = _drawn((5, 3), (5, 3))
    x = (x.detach() * torch.tensor([[1.0], [scale], [1.0], [scale], [2.0]])).requires_grad_()
    own, plain = unit_length(x), functional.normalize(x, dim=1)
    assert torch.equal(own, plain)
    _assert_equal(_gradients(own, x, weight), _gradients(plain, x, weight))


def test_joined_parts_products_and_sums_have_the_gradients_of_their_plain_forms():
    part, a, b, c, d, weight = _drawn((4, 2), (4, 3), (4, 3), (4, 5), (4, 5), (4, 2 + 3 + 3 + 5 + 2))
    own = joined_with_products([part, a], [(a, b), (c, d)])
    sums = [(c * d).sum(dim=1, keepdim=True), (a * b).sum(dim=1, keepdim=True)]
    plain = torch.cat([part, a, a * b, c * d, *sums], dim=1)
    assert torch.equal(own, plain)
    inputs = [part, a, b, c, d]
    _assert_equal(_gradients(own, inputs, weight), _gradients(plain, inputs, weight))
