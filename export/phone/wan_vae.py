"""Wan's decoder for phones, a latent frame [1, c, h, w] at a time, with 2-D convolutions alone."""

import functools
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layers import column, convolution, pointwise
from export.phone.vae import unpack
from export.pytorch.safe_norms import rms_normalize
from export.pytorch.vae import CausalState
from export.tensors import PhoneFrames
from mobile_video_jax.vae.wan.config import WanVaeConfig

# Of the mean square: the least that float16 takes here; the published 1e-24 differs for values below 1e-5 alone.
EPS = 1e-12
Weights = Mapping[str, Tensor]  # of the decoder, under the names of export.pytorch.load


class PhoneDecoder(nn.Module):
    """vae.wan.model.Decoder for latent frames of one size (rows, columns), packed as the VAE's latents are.

    Maps one latent frame, not normalised, to frames in [-1, 1] and the causal state. `kept` names the state's tensors,
    in order, with their shapes: kept_NAME of one call is past_NAME of the next. A call that `starts` a clip takes none.
    """

    def __init__(self, config: WanVaeConfig, weights: Weights, grid: tuple[int, int], *, starts: bool):
        super().__init__()
        self.config, self.starts, self.kept = config, starts, kept_shapes(config, grid)
        self.inputs = ("latents", *(() if starts else (f"past_{name}" for name in self.kept)))
        self.outputs = ("video", *(f"kept_{name}" for name in self.kept))
        conv = functools.partial(PhoneConv, starts=starts)
        self.post_quant = pointwise(*_kernel(weights, "post_quant"))
        self.parts = nn.ModuleDict({"conv_in": conv(*_kernel(weights, "conv_in"))})
        self.parts["mid_block_0"] = PhoneBlock(_under(weights, "mid_block_0"), starts)
        self.attention = PhoneAttention(_under(weights, "mid_attention"))
        self.parts["mid_block_1"] = PhoneBlock(_under(weights, "mid_block_1"), starts)
        for name in block_names(config):
            own = _under(weights, name)
            self.parts[name] = PhoneUp(own, starts) if name.endswith("upsample") else PhoneBlock(own, starts)
        self.norm_out = PhoneNorm(weights["norm_out.weight"])
        kernel, bias = (_pixel_order(x, config.pixel_patch) for x in _kernel(weights, "conv_out"))
        self.parts["conv_out"] = conv(kernel, bias)

    def forward(self, latents: PhoneFrames, *past: Float[Tensor, "_ _ _ _"]) -> tuple[Float[Tensor, "_ _ _ _"], ...]:
        state = CausalState({} if self.starts else dict(zip(self.kept, past, strict=True)), axis=0)
        x = self.parts["conv_in"](self.post_quant(unpack(latents, self.config.token_patch)), state, "conv_in")
        x = self.attention(self.parts["mid_block_0"](x, state, "mid_block_0"))
        x = self.parts["mid_block_1"](x, state, "mid_block_1")
        before = x
        for name in block_names(self.config):
            x = self.parts[name](x, state, name)
            if name.endswith("upsample"):
                if self.config.residual:
                    x = x + _duplicated(before, x.shape[1], 2 if self.parts[name].time else 1, starts=self.starts)
                before = x
        x = self.parts["conv_out"](functional.silu(self.norm_out(x)), state, "conv_out")
        video = functional.pixel_shuffle(x, self.config.pixel_patch).clamp(-1.0, 1.0)
        return video, *(state.kept[name] for name in self.kept)


def block_names(config: WanVaeConfig) -> list[str]:
    """The decoder's blocks and upsampling steps behind the middle, in order."""
    names = []
    for i in range(len(config.multipliers)):
        names += [f"up_{i}_block_{j}" for j in range(config.depth + 1)]
        names += [f"up_{i}_upsample"] if i < len(config.multipliers) - 1 else []
    return names


def kept_shapes(config: WanVaeConfig, grid: tuple[int, int]) -> dict[str, tuple[int, int, int, int]]:
    """The shapes of the last two input frames of each causal convolution, by its name, in order."""
    widths, halves_time = config.decoder_widths(), config.halves_time[::-1]
    h, w = (size * config.token_patch for size in grid)
    channels = {"conv_in": config.channels}
    channels |= {f"mid_block_{i}_conv{j}": widths[0] for i in range(2) for j in (1, 2)}
    shapes = {name: (2, count, h, w) for name, count in channels.items()}
    current = widths[0]
    for i, width in enumerate(widths):
        for j in range(config.depth + 1):
            for conv, count in (("conv1", current), ("conv2", width)):
                shapes[f"up_{i}_block_{j}_{conv}"] = (2, count, h, w)
            current = width
        if i < len(halves_time):
            if halves_time[i]:
                shapes[f"up_{i}_upsample_time_conv"] = (2, width, h, w)
            h, w, current = 2 * h, 2 * w, width if config.residual else width // 2
    return shapes | {"conv_out": (2, current, h, w)}


class PhoneConv(nn.Module):
    """vae.wan.layers.WanConv; its kernel over three frames becomes a 2-D one over the channels of all three.

    Where a clip starts there is one frame, and the two before it are zeros: only the last tap counts.
    """

    def __init__(self, weight: Float[Tensor, "o c 3 k k"], bias: Float[Tensor, "o"], *, starts: bool):
        super().__init__()
        self.conv = convolution(weight[:, :, -1] if starts else weight.transpose(1, 2).flatten(1, 2), bias)

    def forward(self, x: PhoneFrames, state: CausalState, name: str) -> Float[Tensor, "t o h w"]:
        if state.starts:
            state.kept[name] = torch.cat([torch.zeros_like(x), x])
        else:
            padded = state.with_past(name, x, 2)
            x = torch.cat([padded[:-2], padded[1:-1], padded[2:]], dim=1)
        y: Tensor = self.conv(x)
        return y


class PhoneNorm(nn.Module):
    """RMS normalisation over channels with learned scales."""

    scale: Tensor

    def __init__(self, weight: Float[Tensor, "c"]):
        super().__init__()
        self.register_buffer("scale", column(weight))

    def forward(self, x: PhoneFrames) -> PhoneFrames:
        return rms_normalize(x, epsilon=EPS) * self.scale


class PhoneBlock(nn.Module):
    """vae.wan.layers.ResBlock."""

    def __init__(self, weights: Weights, starts: bool):
        super().__init__()
        self.norm1, self.norm2 = PhoneNorm(weights["norm1.weight"]), PhoneNorm(weights["norm2.weight"])
        self.conv1, self.conv2 = (PhoneConv(*_kernel(weights, f"conv{i}"), starts=starts) for i in (1, 2))
        has_shortcut = "conv_shortcut.weight" in weights
        self.shortcut = pointwise(*_kernel(weights, "conv_shortcut")) if has_shortcut else nn.Identity()

    def forward(self, x: PhoneFrames, state: CausalState, name: str) -> Float[Tensor, "t o h w"]:
        y = self.conv1(functional.silu(self.norm1(x)), state, f"{name}_conv1")
        residual: Tensor = self.conv2(functional.silu(self.norm2(y)), state, f"{name}_conv2")
        shortcut: Tensor = self.shortcut(x)
        return shortcut + residual


class PhoneAttention(nn.Module):
    """vae.wan.layers.AttentionBlock of one frame: one head, whose width is that of the frame's channels."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.norm = PhoneNorm(weights["norm.weight"])
        self.qkv = nn.ModuleList(
            pointwise(weight, bias)
            for weight, bias in zip(*(x.chunk(3) for x in _kernel(weights, "to_qkv")), strict=True)
        )
        self.proj = pointwise(*_kernel(weights, "proj"))

    def forward(self, x: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c h w"]:
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2) for layer in self.qkv)
        weights = torch.softmax((q * x.shape[1] ** -0.5).transpose(1, 2) @ k, dim=2)
        attended: Tensor = self.proj((v @ weights.transpose(1, 2)).reshape(x.shape))
        return x + attended


class PhoneUp(nn.Module):
    """vae.wan.layers.Upsample: twice the rows and columns and, of frames behind the first, twice the frames."""

    def __init__(self, weights: Weights, starts: bool):
        super().__init__()
        self.time = "time_conv.weight" in weights
        if self.time and not starts:
            self.time_conv = PhoneConv(*_kernel(weights, "time_conv"), starts=False)
        self.resample = convolution(*_kernel(weights, "resample"))

    def forward(self, x: PhoneFrames, state: CausalState, name: str) -> Float[Tensor, "t2 o h2 w2"]:
        if self.time and state.starts:
            state.kept[f"{name}_time_conv"] = torch.zeros_like(torch.cat([x, x]))
        elif self.time:
            pairs = self.time_conv(x, state, f"{name}_time_conv")
            x = pairs.reshape(2 * x.shape[0], *x.shape[1:])
        y: Tensor = self.resample(functional.pixel_shuffle(_repeated(x, 4), 2))
        return y


def _duplicated(x: PhoneFrames, features: int, time: int, *, starts: bool) -> Float[Tensor, "t2 o h2 w2"]:
    """vae.wan.layers.duplicated for steps of two in space: channels repeated into blocks of time x 2 x 2."""
    t, c, h, w = x.shape
    blocks = _repeated(x, features * time * 4 // c)
    if time > 1:
        blocks = blocks.reshape(t, features, time, 4 * h * w).transpose(1, 2).reshape(t * time, features * 4, h, w)
    return functional.pixel_shuffle(blocks, 2)[time - 1 if starts else 0 :]


def _repeated(x: PhoneFrames, times: int) -> Float[Tensor, "t more h w"]:
    """Each channel so many times in a row."""
    t, c, h, w = x.shape
    return x.reshape(t, c, 1, h * w).expand(t, c, times, h * w).reshape(t, c * times, h, w)


def _under(weights: Weights, name: str) -> dict[str, Tensor]:
    """The weights of a module, under names inside it."""
    return {key.removeprefix(f"{name}."): x for key, x in weights.items() if key.startswith(f"{name}.")}


def _kernel(weights: Weights, name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias; a kernel of one position is a matrix."""
    weight = weights[f"{name}.weight"]
    return (weight.flatten(1) if weight[0, 0].numel() == 1 else weight), weights[f"{name}.bias"]


def _pixel_order(x: Float[Tensor, "o *i"], side: int) -> Float[Tensor, "o *i"]:
    """Output features (channel, column, row) in the order (channel, row, column) of pixel_shuffle."""
    return torch.unflatten(x.detach(), 0, (-1, side, side)).transpose(1, 2).flatten(0, 2)
