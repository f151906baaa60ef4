from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, relu

from mmkd.projectors import (
    ConvConnector,
    IdentityProjector,
    LinearProjector,
    MLPProjector,
    ProjectorEnsemble,
)
from mmkd.registry import build_part

PROJECTORS = [LinearProjector, MLPProjector, ProjectorEnsemble, ConvConnector]
every_projector = pytest.mark.parametrize("cls", PROJECTORS)
of_samples = pytest.mark.parametrize(
    "projector",
    [
        LinearProjector(3, 4),
        MLPProjector(3, 4, hidden_channels=None, num_layers=3, activate_output=True),
        LinearProjector(3, 4, bias=False),
        MLPProjector(3, 4, hidden_channels=5, num_layers=3),
        ProjectorEnsemble(3, 4),
        ProjectorEnsemble(3, 4, num_projectors=2, activation="gelu"),
        ProjectorEnsemble(3, 4, activation=None),
    ],
    ids=lambda p: f"{type(p).__name__}-{getattr(p, 'activation', '')}",
)


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W^T + b`` for ``[M, C_in]``, entry by entry."""
    rows = [[sum(x[i, k] * w[k] for k in range(len(w))) for w in weight] for i in range(len(x))]
    product = torch.stack([torch.stack(row) for row in rows])
    return product if bias is None else product + bias


# Values


@given(m=st.integers(1, 4), c_in=st.integers(1, 5), c_out=st.integers(1, 5), bias=st.booleans())
def test_linear(m: int, c_in: int, c_out: int, bias: bool) -> None:
    projector = LinearProjector(c_in, c_out, bias=bias).double()
    x = _random(m, c_in)
    expected = _affine(x, projector.linear.weight, projector.linear.bias)
    torch.testing.assert_close(projector(x), expected)


def test_linear_by_hand() -> None:
    projector = LinearProjector(2, 1)
    with torch.no_grad():
        projector.linear.weight.copy_(torch.tensor([[2.0, -1.0]]))
        projector.linear.bias.fill_(0.5)
    assert projector(torch.tensor([[3.0, 4.0]])).tolist() == [[2.5]]


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_mlp(num_layers: int) -> None:
    projector = MLPProjector(3, 4, hidden_channels=5, num_layers=num_layers).double()
    expected = x = _random(6, 3)
    for index, layer in enumerate(projector.layers):
        expected = _affine(expected.clamp(min=0) if index else expected, layer.weight, layer.bias)
    assert len(projector.layers) == num_layers
    torch.testing.assert_close(projector(x), expected)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_papers_mlp(k: int) -> None:
    """Chen et al., Figure 4: every layer as wide as the teacher, ReLU after each."""
    projector = MLPProjector(3, 4, hidden_channels=None, num_layers=k, activate_output=True)
    shapes = [tuple(layer.weight.shape) for layer in projector.layers]
    assert shapes == [(4, 3), *[(4, 4)] * (k - 1)]
    expected = x = _random(6, 3)
    for layer in projector.double().layers:
        expected = _affine(expected, layer.weight, layer.bias).clamp(min=0)
    torch.testing.assert_close(projector(x), expected)
    assert not (projector(x) < 0).any()


def test_one_activated_layer_is_an_ensemble_of_one() -> None:
    layer = MLPProjector(3, 4, num_layers=1, activate_output=True).double()
    ensemble = ProjectorEnsemble(3, 4, num_projectors=1).double()
    ensemble.linear.load_state_dict(layer.layers[0].state_dict())
    x = _random(6, 3)
    torch.testing.assert_close(layer(x), ensemble(x))


@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 4), (2, 4, 3, 3)])
def test_identity(shape: tuple[int, ...]) -> None:
    projector, x = IdentityProjector(4, 4), _random(*shape)
    assert projector(x) is x
    assert not list(projector.parameters())


def test_identity_of_other_channels() -> None:
    with pytest.raises(ValueError, match="got 3 of the student and 4 of the teacher: logits need"):
        IdentityProjector(3, 4)


def test_mlp_defaults() -> None:
    projector = MLPProjector(3, 4)
    assert not projector.activate_output
    assert [tuple(layer.weight.shape) for layer in projector.layers] == [(1024, 3), (4, 1024)]


@given(
    q=st.integers(1, 4),
    c_out=st.integers(1, 4),
    activation=st.sampled_from(["relu", "gelu", None]),
)
def test_ensemble_is_the_mean_of_its_members(q: int, c_out: int, activation: str | None) -> None:
    projector = ProjectorEnsemble(3, c_out, num_projectors=q, activation=activation).double()
    act = {"relu": relu, "gelu": gelu, None: lambda x: x}[activation]
    x = _random(5, 3)
    members = [
        act(
            _affine(
                x,
                projector.linear.weight[k * c_out :][:c_out],
                projector.linear.bias[k * c_out :][:c_out],
            )
        )
        for k in range(q)
    ]
    torch.testing.assert_close(projector(x), sum(members) / q)


def test_ensemble_members_differ() -> None:
    weight = ProjectorEnsemble(8, 6).linear.weight.unflatten(0, (3, 6))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.isclose(weight[a], weight[b]).any()


@pytest.mark.parametrize(
    ("layout", "kernels", "widths"),
    [
        ("1x1", [1], [3, 8]),
        ("3x3", [3], [3, 8]),
        ("1x1-1x1", [1, 1], [3, 4, 8]),
        ("1x1-3x3-1x1", [1, 3, 1], [3, 4, 4, 8]),
    ],
)
def test_connector(layout: str, kernels: list[int], widths: list[int]) -> None:
    connector = ConvConnector(3, 8, layout=layout, factor=2).double()
    convolutions = [m for m in connector.modules() if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size[0] for c in convolutions] == kernels
    assert [convolutions[0].in_channels, *(c.out_channels for c in convolutions)] == widths
    expected = x = _random(2, 3, 5, 4)
    for convolution, kernel in zip(convolutions, kernels, strict=True):
        assert convolution.bias is None
        expected = conv2d(expected, convolution.weight, padding=kernel // 2)
        mean = expected.mean(dim=(0, 2, 3), keepdim=True)
        var = expected.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
        expected = ((expected - mean) / (var + 1e-5).sqrt()).clamp(min=0)
    torch.testing.assert_close(connector(x), expected)


def test_a_connector_s_initial_weights() -> None:
    uniform, he = (ConvConnector(64, 32, "1x1", initial=name) for name in ("uniform", "he"))
    # U(-1/8, 1/8) of 64 inputs, N(0, 2 / 32) of 32 outputs: five standard errors.
    for connector, deviation in ((uniform, 1 / 8 / 3**0.5), (he, 1 / 4)):
        weight = connector.layers[0].weight
        assert weight.std().item() == pytest.approx(deviation, rel=5 / (2 * weight.numel()) ** 0.5)
    with pytest.raises(ValueError, match="initial must be one of"):
        ConvConnector(3, 4, initial="zero")  # type: ignore[arg-type]


def test_a_connector_of_one_image_s_single_cell() -> None:
    connector = ConvConnector(3, 8, "1x1").double()
    convolution, norm, _ = connector.layers
    norm.running_mean.fill_(0.25)
    x = torch.randn(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    found = connector(x)
    expected = (conv2d(x, convolution.weight) - 0.25) / (1 + norm.eps) ** 0.5
    torch.testing.assert_close(found, expected.relu())
    found.sum().backward()
    assert x.grad.isfinite().all()


def test_a_connector_without_norm() -> None:
    connector = ConvConnector(3, 8, layout="3x3", norm=False).double()
    convolution, _ = connector.layers
    x = _random(2, 3, 5, 4)
    expected = conv2d(x, convolution.weight, convolution.bias, padding=1).clamp(min=0)
    torch.testing.assert_close(connector(x), expected)


def test_a_connector_that_ends_without_activation() -> None:
    connector = ConvConnector(3, 8, "1x1", activate_output=False).double()
    convolution, norm = connector.layers
    x = _random(2, 3, 5, 4)
    projected = norm(conv2d(x, convolution.weight))
    torch.testing.assert_close(connector(x), projected)
    assert (projected < 0).any()


# Shapes


@of_samples
def test_maps_and_tokens_are_projected_location_by_location(projector: nn.Module) -> None:
    projector = projector.double()
    feature = _random(2, 3, 4, 5)
    projected = projector(feature)
    assert projected.shape == (2, 4, 4, 5)
    tokens = projector(feature.flatten(2).transpose(1, 2))
    assert tokens.shape == (2, 20, 4)
    torch.testing.assert_close(tokens.transpose(1, 2).view(2, 4, 4, 5), projected)
    for i in range(4):
        for j in range(5):
            torch.testing.assert_close(projector(feature[:, :, i, j]), projected[:, :, i, j])


@of_samples
def test_gradient_is_the_derivative(projector: nn.Module) -> None:
    projector = projector.double()
    inputs = (_random(3, 3).requires_grad_(), *projector.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: projector(x), inputs)


@every_projector
def test_autocast(cls: type[nn.Module]) -> None:
    projector, x = cls(3, 4), _random(2, 3, 4, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        projected = projector(x)
    torch.testing.assert_close(projected.float(), projector(x), atol=0.1, rtol=0.1)


# Initial weights


@every_projector
def test_initial_weights_come_from_the_generator(
    cls: type[nn.Module], untouched_random_state: None
) -> None:
    def weights(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return nn.utils.parameters_to_vector(cls(6, 8, generator=generator).parameters())

    assert torch.equal(weights(7), weights(7))
    assert not torch.equal(weights(7), weights(8))
    cls(6, 8)


@every_projector
def test_initial_weights_are_torch_s_default_distribution(cls: type[nn.Module]) -> None:
    for layer in cls(64, 128).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5
            assert layer.weight.abs().max() <= bound
            # A uniform distribution on (-b, b): mean 0, standard deviation b / sqrt(3).
            assert layer.weight.mean().abs() < 0.02 * bound
            assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
            if layer.bias is not None:
                assert 0 < layer.bias.abs().max() <= bound


# Errors


@every_projector
@pytest.mark.parametrize("size", [0, -1, 2.0, None])
def test_sizes_must_be_positive_integers(cls: type[nn.Module], size: object) -> None:
    with pytest.raises(ValueError, match="in_channels must be a positive integer, got"):
        cls(size, 4)
    with pytest.raises(ValueError, match="out_channels must be a positive integer, got"):
        cls(4, size)


@of_samples
def test_other_channels_are_refused(projector: nn.Module) -> None:
    for shape in ((2, 5), (2, 4, 5), (2, 5, 3, 3)):
        with pytest.raises(ValueError, match="the projector takes 3 channels, got 5"):
            projector(torch.zeros(shape))


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="num_layers must be a positive integer, got 0"):
        MLPProjector(3, 4, num_layers=0)
    with pytest.raises(ValueError, match="num_projectors must be a positive integer, got 0"):
        ProjectorEnsemble(3, 4, num_projectors=0)
    with pytest.raises(ValueError, match=r"activation must be one of \['relu', 'gelu', None\]"):
        ProjectorEnsemble(3, 4, activation="tanh")
    with pytest.raises(ValueError, match=r"layout must be one of \('1x1', .* got '5x5'"):
        ConvConnector(3, 4, layout="5x5")
    with pytest.raises(ValueError, match="factor 3 does not divide out_channels 4"):
        ConvConnector(3, 4, factor=3)


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (2, 4, 3, 3)])
def test_the_connector_takes_maps_of_its_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes a map \[N, 3, H, W\], got \(2, "):
        ConvConnector(3, 4)(torch.zeros(shape))


@every_projector
def test_projectors_are_built_from_their_config(cls: type[nn.Module]) -> None:
    assert type(build_part(dict(type=f"mmkd.{cls.__name__}"), in_channels=3, out_channels=4)) is cls
