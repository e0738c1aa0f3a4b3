"""LKDN in PyTorch, written to be timed beside ours: NCHW, published parameter names."""
# pyright: reportMissingImports=false
# ruff: noqa: D102

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch import Tensor, nn

from lkdn_jax.models.lkdn import INPUT_COPIES, LKDN


def compile_network(network: nn.Module, *, graphs: bool = False) -> Any:
    """Compile a network for inputs of one shape.

    Args:
        network: Of `torch_network`.
        graphs: On a GPU, replay the kernels as one CUDA graph.

    Returns:
        The compiled network.
    """
    # One compilation a way; beyond its limit PyTorch would silently run eagerly.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    mode = "reduce-overhead" if graphs else None
    return torch.compile(network, dynamic=False, mode=mode)


def torch_network(model: LKDN, state: Mapping[str, np.ndarray]) -> nn.Module:
    """Build the network and load its parameters.

    Args:
        model: Our network.
        state: Its parameters by published name (`published.to_published`).

    Returns:
        A module from images [n, 3, h, w] to [n, 3, h·s, w·s], in evaluation mode.
    """
    network = Network(model)
    network.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    return network.eval()


class BSConv(nn.Module):
    """1×1 without bias, then depthwise 3×3."""

    def __init__(self, inputs: int, features: int):
        super().__init__()
        self.pw = nn.Conv2d(inputs, features, 1, bias=False)
        self.dw = _depthwise(features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dw(self.pw(x))


class BSRB(BSConv):
    """A BSConv plus its input."""

    def __init__(self, features: int):
        super().__init__(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x


class RBSB(BSConv):
    """A BSConv with the branches that folding removes."""

    def __init__(self, features: int):
        super().__init__(features, features)
        self.rep1x1 = _depthwise(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pw(x) + x
        return self.dw(y) + y + self.rep1x1(y)


class Attention(nn.Module):
    """Large kernel attention."""

    def __init__(self, features: int):
        super().__init__()
        self.pointwise = nn.Conv2d(features, features, 1)
        self.depthwise = _depthwise(features, 5)
        self.depthwise_dilated = _depthwise(features, 5, dilation=3)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.depthwise_dilated(self.depthwise(self.pointwise(x)))


class LKDB(nn.Module):
    """Large kernel distillation block."""

    def __init__(self, features: int, distilled: int, attention: int, shallow: str):
        super().__init__()
        for i in (1, 2, 3):
            refine = {
                "BSB": lambda: BSConv(features, features),
                "BSRB": lambda: BSRB(features),
                "RBSB": lambda: RBSB(features),
            }[shallow]()
            self.add_module(f"c{i}_d", nn.Conv2d(features, distilled, 1))
            self.add_module(f"c{i}_r", refine)
        self.c4 = BSConv(features, distilled)
        self.c5 = nn.Conv2d(4 * distilled, attention, 1)
        self.atten = Attention(attention)
        self.c6 = nn.Conv2d(attention, features, 1)
        self.pixel_norm = nn.LayerNorm(features)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        parts, refined = [], x
        for i in (1, 2, 3):
            parts.append(self.gelu(getattr(self, f"c{i}_d")(refined)))
            refined = self.gelu(getattr(self, f"c{i}_r")(refined))
        parts.append(self.gelu(self.c4(refined)))
        y = self.c6(self.atten(self.c5(torch.cat(parts, 1))))
        y = self.pixel_norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y + x


class RepUpsampler(nn.Module):
    """The sum of three branches; the last is padded with the bias of its 1×1."""

    def __init__(self, features: int, out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, out, 1)
        self.conv3 = nn.Conv2d(features, out, 3, padding=1)
        self.conv1x1 = nn.Conv2d(features, 2 * features, 1, padding=1)
        self.conv3x3 = nn.Conv2d(2 * features, out, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(x) + self.conv3(x) + self.conv3x3(self.conv1x1(x))


class Network(nn.Module):
    """The whole network, of the architecture of one of ours."""

    def __init__(self, model: LKDN):
        super().__init__()
        features, self.num_blocks = model.features, model.num_blocks
        distilled, attention = model.inner_features()
        self.fea_conv = BSConv(3 * INPUT_COPIES, features)
        for i in range(1, self.num_blocks + 1):
            block = LKDB(features, distilled, attention, model.shallow_block)
            self.add_module(f"B{i}", block)
        self.c1 = nn.Conv2d(features * self.num_blocks, features, 1)
        self.c2 = BSConv(features, features)
        out = 3 * model.scale**2
        if model.upsampler == "rep":
            self.upsampler = RepUpsampler(features, out)
        else:
            self.upsampler = nn.Sequential(nn.Conv2d(features, out, 3, padding=1))
        self.gelu, self.shuffle = nn.GELU(), nn.PixelShuffle(model.scale)

    def forward(self, x: Tensor) -> Tensor:
        fea = self.fea_conv(x.repeat(1, INPUT_COPIES, 1, 1))
        x, trunk = fea, []
        for i in range(1, self.num_blocks + 1):
            x = getattr(self, f"B{i}")(x)
            trunk.append(x)
        x = self.gelu(self.c1(torch.cat(trunk, 1)))
        return self.shuffle(self.upsampler(self.c2(x) + fea))


def _depthwise(features: int, kernel_size: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        features,
        features,
        kernel_size,
        padding=kernel_size // 2 * dilation,
        dilation=dilation,
        groups=features,
    )
