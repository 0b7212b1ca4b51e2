"""The diffusion transformer in PyTorch, with the names and shapes of mobile_video_jax/dit.

Modules compute in the dtype of their own weights, so that a half-precision copy needs no flag. Each clip has one time,
and no token is padding: mixed shapes, which training knows, are not mirrored.
"""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.pytorch.attention import KINDS, Attention, Rope
from export.tensors import Latents, TextMask, TextStates, Tokens
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import BlockShape, DitConfig, Norms
from mobile_video_jax.dit.groups import stages
from mobile_video_jax.dit.model import grid_rope
from mobile_video_jax.nn.attention.config import ASSA

Vector = Float[Tensor, "b d"]
Modulation = Float[Tensor, "b 6 d"]


class Dit(nn.Module):
    """dit.model.Dit for latents of one shape (lt, lh, lw, c), so that positions are constants of the graph.

    Maps noisy latents x_t, times t, text states and their mask to velocities of x_t's shape. Of a layout and of causal
    attention it holds the parameters alone: the phone's form computes.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: DitConfig, latent_shape: tuple[int, int, int, int], text_width: int):
        super().__init__()
        check_form(config)
        lt, lh, lw, channels = latent_shape
        config.check_grid((lt, lh, lw))
        self.config, self.grid = config, (lt, lh, lw)
        width = config.width
        self.text_projection = nn.Sequential(
            OrderedDict({"in": nn.Linear(text_width, width), "gelu": gelu(), "out": nn.Linear(width, width)})
        )
        self.time_in = nn.Linear(config.time_features, width)
        self.time_out = nn.Linear(width, width)
        self.pooled_text = nn.Linear(width, width) if config.pooled_text else None
        self.modulation = nn.Linear(width, 6 * width)
        self.patch_in = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(
            DitBlock(width, config.head_dim, shape, config.norms, heads, config.attention_stride)
            for shape, heads in zip(config.block_shapes, config.block_rope_heads, strict=True)
        )
        for stage in stages(config):
            if (size := stage[0].shape.resolution) > 1:
                self.add_module(f"down_{stage[0].first}", Squares(size**2 * width, width))
                self.add_module(f"up_{stage[0].first}", Squares(width, size**2 * width))
        self.output = Output(width, channels, config.norm_eps, config.final_layer_norm)
        for name, part in zip(("cos", "sin"), grid_rope(config, (lt, lh, lw)), strict=True):
            # [n, d/2] or [n, h, d/2] to [1 or h, n, d/2].
            table = np.asarray(part).reshape(lt * lh * lw, -1, config.head_dim // 2)
            self.register_buffer(name, torch.tensor(table).transpose(0, 1), persistent=False)

    def rope(self, first: int, frames: int, size: int) -> Rope:
        """The tables of so many frames from position `first` on, of the first position of squares of size x size."""
        _, rows, columns = self.grid
        tables = grid_rope(self.config, (frames, rows, columns), first)
        cos, sin = (
            torch.tensor(np.asarray(part).reshape(frames, rows, columns, -1, self.config.head_dim // 2))
            for part in tables
        )
        low = (part[:, ::size, ::size].flatten(0, 2).transpose(0, 1) for part in (cos, sin))
        return next(low), next(low)

    def forward(self, x_t: Latents, t: Float[Tensor, "b"], text: TextStates, text_mask: TextMask) -> Latents:
        if self.config.layout or self.config.causal:
            raise UserError("the PyTorch mirror knows no layout and no causal attention: run the exported form")
        dtype = self.patch_in.weight.dtype
        projected = self.text_projection(text.to(dtype))
        embedding = self._time_embedding(t, projected, text_mask)
        modulation = torch.unflatten(self.modulation(functional.silu(embedding)), -1, (6, -1))
        x = self.patch_in(x_t.flatten(1, 3).to(dtype))
        rope = self.cos.to(dtype), self.sin.to(dtype)
        attended = torch.ones_like(text_mask) if self.config.attend_text_padding else text_mask
        sources, outputs = self.config.skip_sources, [x]
        for i, block in enumerate(self.blocks):
            skipped = outputs[sources[i] + 1] if i in sources else None
            outputs.append(x := block(x, modulation, projected, attended, rope, skipped))
        velocity: Tensor = self.output(x, embedding)
        return velocity.view_as(x_t)

    def _time_embedding(self, t: Float[Tensor, "b"], text: TextStates, mask: TextMask) -> Vector:
        features = time_features(t, self.time_in.in_features).to(text.dtype)
        embedding: Tensor = self.time_out(functional.silu(self.time_in(features)))
        if self.pooled_text is not None:
            weights = mask.to(text.dtype)[..., None]
            embedding = embedding + self.pooled_text((text * weights).sum(1) / weights.sum(1))
        return embedding


def lacking(config: DitConfig, *, streams: bool = False) -> str:
    """What of a transformer has no phone form yet, for whole clips or streams, in words; empty where all has one."""
    kinds = sorted({shape.kind for shape in config.block_shapes} - KINDS.keys())
    # Their shared keys would be rotated for each head of queries anew.
    shared = ["kv_heads beside positions of each head (rope_scale)"] if config.kv_heads and config.rope_scale else []
    streamed = ["streams of assa"] if streams and any(shape.kind == ASSA for shape in config.block_shapes) else []
    return ", ".join([*kinds, *shared, *streamed])


def check_form(config: object, *, streams: bool = False) -> None:
    """Raises UserError for a transformer that has no phone form yet."""
    if isinstance(config, DitConfig) and (missing := lacking(config, streams=streams)):
        raise UserError(f"a transformer with {missing} has no phone form yet: export another model")


class DitBlock(nn.Module):
    """dit.block.DitBlock: modulated self-attention, cross-attention to the text, modulated FFN."""

    def __init__(
        self, width: int, head_dim: int, shape: BlockShape, norms: Norms, rope_heads: tuple[int, ...], stride: int = 2
    ):
        super().__init__()
        self.eps, self.layer_norm, self.rope_heads = norms.eps, norms.layer, list(rope_heads)
        self.modulation = nn.Parameter(torch.zeros(6, width))
        settings = norms.qk_across_heads, norms.qk_eps, shape.kv_heads
        self.shape = shape
        strided: dict[str, Any] = {"stride": stride} if shape.kind == ASSA else {}
        self.self_attention = KINDS[shape.kind](width, shape.heads, head_dim, *settings, **strided)
        self.cross_attention = Attention(width, shape.cross_heads, head_dim, *settings)
        self.skip = nn.Linear(width, width, bias=False) if shape.skip else None
        self.cross_attention_norm = nn.LayerNorm(width, norms.eps) if norms.cross else None
        self.ffn = nn.Sequential(
            OrderedDict(up=nn.Linear(width, shape.ffn), gelu=gelu(), down=nn.Linear(shape.ffn, width))
        )

    def forward(
        self,
        x: Tokens,
        modulation: Modulation,
        text: Float[Tensor, "b s d"],
        text_mask: TextMask,
        rope: Rope,
        skipped: Tokens | None = None,
    ) -> Tokens:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation_table(self.modulation, modulation)
        own_rope = self.select_heads(rope[0]), self.select_heads(rope[1])
        normalize = layer_normalize if self.layer_norm else rms_normalize
        if self.skip is not None:
            x = x + self.skip(skipped)
        x = x + gate1 * self.self_attention(normalize(x, self.eps) * (1 + scale1) + shift1, rope=own_rope)
        queried = x if self.cross_attention_norm is None else self.cross_attention_norm(x)
        x = x + self.cross_attention(queried, text, mask=text_mask[:, None, None, :])
        y: Tensor = x + gate2 * self.ffn(normalize(x, self.eps) * (1 + scale2) + shift2)
        return y

    def select_heads(self, table: Float[Tensor, "h n half"]) -> Float[Tensor, "k n half"]:
        """The rows of a table of cosines or sines that this block's heads are rotated by."""
        return table if self.rope_heads in ([], list(range(len(table)))) else table[self.rope_heads]


class Squares(nn.Module):
    """Parameters of dit.resolution's layers between resolutions."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.squares = nn.Linear(inputs, outputs, bias=False)


class Output(nn.Module):
    """The modulated last layer, from tokens to velocities [b, n, c]."""

    def __init__(self, width: int, channels: int, eps: float, layer_norm: bool):
        super().__init__()
        self.eps, self.layer_norm = eps, layer_norm
        self.modulation = nn.Parameter(torch.zeros(2, width))
        self.velocity = nn.Linear(width, channels)

    def forward(self, x: Tokens, embedding: Vector) -> Float[Tensor, "b n c"]:
        shift, scale = modulation_table(self.modulation, torch.stack([embedding, embedding], dim=1))
        normalize = layer_normalize if self.layer_norm else rms_normalize
        x = normalize(x, self.eps) * (1 + scale) + shift
        velocity: Tensor = self.velocity(x.to(self.velocity.weight.dtype))
        return velocity


def gelu() -> nn.GELU:
    """GELU in its tanh approximation."""
    return nn.GELU(approximate="tanh")


def modulation_table(
    table: Float[Tensor, "k d"], modulation: Float[Tensor, "b k d"]
) -> tuple[Float[Tensor, "b 1 d"], ...]:
    """The sum of a module's own table and the shared modulation, as k vectors."""
    return torch.split(modulation + table, 1, dim=1)


def rms_normalize(x: Tokens, eps: float) -> Tokens:
    """x / sqrt(mean(x^2) + eps) over channels."""
    return functional.rms_norm(x, x.shape[-1:], eps=eps)


def layer_normalize(x: Tokens, eps: float) -> Tokens:
    """(x - mean(x)) / sqrt(var(x) + eps) over channels."""
    return functional.layer_norm(x, x.shape[-1:], eps=eps)


def time_features(t: Float[Tensor, "b"], width: int, max_period: float = 10_000.0) -> Float[Tensor, "b {width}"]:
    """nn.embeddings.time_features, in float32. Frequencies are no buffer: a half-precision copy would round them."""
    half = width // 2
    frequencies = max_period ** (-torch.arange(half, device=t.device) / half)
    angles = 1000.0 * t.float()[:, None] * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
