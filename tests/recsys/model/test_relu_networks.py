"""The hand-written networks against the plain form that autograd differentiates."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from recsys.model.trunks import relu_networks as module
from recsys.model.trunks.relu_networks import relu_networks, relu_networks_beside

WIDTHS = [(4,), (6, 4), (5, 6, 3)]


def _parts(widths, dtype, rows=7, num=3, num_in=5):
    draw = torch.Generator().manual_seed(0)
    sizes = pairwise([num_in, *widths])
    weights = [torch.randn(num, i, o, generator=draw, dtype=dtype) for i, o in sizes]
    biases = [torch.randn(num, o, generator=draw, dtype=dtype) for o in widths]
    x_BI = torch.randn(rows, num_in, generator=draw, dtype=dtype)
    return [t.requires_grad_() for t in (x_BI, *weights, *biases)]


def _plain(x_BI, *parameters):
    layers = list(zip(parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :], strict=True))
    streams = [x_BI] * layers[0][0].shape[0]
    for weight, bias in layers:
        streams = [(h @ w + b).relu() for h, w, b in zip(streams, weight, bias, strict=True)]
    return torch.stack(streams, dim=1)


def _ours(x_BI, *parameters, dropout=0.0):
    half = len(parameters) // 2
    return relu_networks(x_BI, parameters[:half], parameters[half:], dropout)


@pytest.fixture(params=[2, 2048])
def block(request, monkeypatch) -> None:
    """Seven rows in several blocks, and in one."""
    monkeypatch.setattr(module, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_values_and_gradients_are_those_of_the_plain_form(widths, rows):
    parts = _parts(widths, torch.float32, rows)
    found, expected = _ours(*parts), _plain(*parts)
    torch.testing.assert_close(found, expected)
    pull = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    for ours, plain in zip(
        torch.autograd.grad((found * pull).sum(), parts),
        torch.autograd.grad((expected * pull).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain)


@pytest.mark.usefixtures("block")
def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(_ours, _parts((6, 4), torch.float64))


def test_bfloat16_stays_near_float32_and_gradients_in_float32():
    parts = _parts((32, 16), torch.float32, rows=64, num=4, num_in=24)
    exact = torch.autograd.grad(_ours(*parts).square().mean(), parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _ours(*parts)
    assert found.dtype == torch.bfloat16
    for rough, own in zip(torch.autograd.grad(found.float().square().mean(), parts), exact, strict=True):
        assert rough.dtype == torch.float32
        assert functional.cosine_similarity(rough.flatten(), own.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("widths", WIDTHS)
def test_dropout_hides_a_share_and_sends_no_gradient_there(widths):
    """A network of non-negative numbers: with nothing hidden by ReLU, what is 0 was dropped."""
    x_BI, *parameters = (p.detach().abs() + 0.1 for p in _parts(widths, torch.float32, rows=400))
    x_BI.requires_grad_()
    torch.manual_seed(0)
    found = _ours(x_BI, *parameters, dropout=0.25)
    assert 0.2 < (found == 0).float().mean() < 0.3
    torch.testing.assert_close(found.mean(), _ours(x_BI, *parameters).mean(), rtol=0.1, atol=0)
    # The same draw again, as a fixed linear map: finite differences along x.
    move = torch.rand(x_BI.shape) * 1e-2
    torch.manual_seed(0)
    moved = _ours(x_BI + move, *parameters, dropout=0.25)
    (gradient,) = torch.autograd.grad(found.sum(), x_BI)
    torch.testing.assert_close((moved - found).sum(), (gradient * move).sum(), rtol=1e-2, atol=0)


def test_each_loss_can_be_differentiated_on_its_own():
    """Balancers go backward once per loss through one forward."""
    parts = _parts((6, 4), torch.float32)
    found = _ours(*parts)
    first, again = (torch.autograd.grad(found[:, 0].sum(), parts, retain_graph=True) for _ in range(2))
    rest = torch.autograd.grad(found[:, 1:].sum(), parts)
    whole = torch.autograd.grad(_plain(*parts).sum(), parts)
    for one, same, other, both in zip(first, again, rest, whole, strict=True):
        assert torch.equal(one, same)
        torch.testing.assert_close(one + other, both)


def test_an_input_without_a_gradient_gets_none():
    x_BI, *parameters = _parts((6, 4), torch.float32)
    _ours(x_BI.detach(), *parameters).sum().backward()
    assert x_BI.grad is None
    assert all(p.grad is not None for p in parameters)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("widths", WIDTHS)
def test_a_layer_beside_is_a_linear_layer_and_columns_of_data_get_no_gradient(widths):
    x_BI, *parameters = _parts(widths, torch.float64)
    draw = torch.Generator().manual_seed(2)
    weight, bias = (torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((4, 5), (4,)))
    parts = [x_BI, weight.requires_grad_(), bias.requires_grad_(), *parameters]
    half = len(parameters) // 2
    learned = (slice(0, 1), slice(3, 4))
    ours = relu_networks_beside(x_BI, parameters[:half], parameters[half:], 0.0, weight, bias, learned)
    plain = _plain(x_BI, *parameters), functional.linear(x_BI, weight, bias)
    found, expected = (
        torch.autograd.grad([out.square().sum() for out in both], parts) for both in (ours, plain)
    )
    torch.testing.assert_close(ours, plain)
    data = [1, 2, 4]
    assert not found[0][:, data].any()
    assert expected[0][:, data].any(dim=0).all()
    torch.testing.assert_close(found[0][:, [0, 3]], expected[0][:, [0, 3]])
    torch.testing.assert_close(found[1:], expected[1:])
