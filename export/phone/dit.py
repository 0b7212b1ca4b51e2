"""The transformer for phones: static shapes, tensors [1, c, 1, s] in and out, in one piece or in chunks of blocks.

No sine is computed: the time enters as features, computed outside, and positions as constant tables.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layout import PHONE, LaidOut, Layout
from export.phone.tiled_ffn import TiledFfn
from export.pytorch import dit as torch_dit
from export.pytorch.safe_norms import layer_normalize, rms_normalize
from mobile_video_jax.cost.phone.tiles import query_chunks


class PhoneDit(nn.Module):
    """Blocks `first` to `last` - 1 of a transformer; the first chunk embeds the inputs, the last gives the velocity.

    Maps the tensors of `inputs`, in order, to those of `outputs`. A whole transformer maps noisy latents [1, c, 1, s],
    time features [1, f, 1, 1], text states [1, e, 1, l] and the text's mask [1, 1, 1, l], 1 for a token and 0 for
    padding, to the velocity [1, c, 1, s]. `tiles[i]` is the count of tiles of block i's FFN,
    whose first product's input is cut too with `cut_inputs`.
    """

    def __init__(
        self,
        dit: torch_dit.Dit,
        tiles: Sequence[int],
        first: int = 0,
        last: int | None = None,
        layout: Layout = PHONE,
        *,
        cut_inputs: bool = False,
    ):
        super().__init__()
        self.layout = layout
        depth = len(dit.blocks)
        last = depth if last is None else last
        self.starts, self.ends = first == 0, last == depth
        self.hidden = (f"hidden_{first}", f"hidden_{last}")
        self.inputs, self.outputs = self._features()
        self.embed = PhoneEmbed(dit, layout) if self.starts else None
        rope = dit.cos, dit.sin
        self.blocks = nn.ModuleList(
            PhoneBlock(dit.blocks[i], tiles[i], layout, rope, cut_inputs) for i in range(first, last)
        )
        self.output = PhoneOutput(dit.output, layout) if self.ends else None

    def forward(self, *tensors: Float[Tensor, "1 _ 1 _"]) -> Tensor | tuple[Tensor, ...]:
        features = dict(zip(self.inputs, tensors, strict=True))
        mask = features.pop("text_mask")
        features = {name: self.layout.turn(x) for name, x in features.items()}
        if self.embed is not None:
            x, passed = self.embed(**features, text_mask=self.layout.turn(mask))
            features |= passed
        else:
            x = features[self.hidden[0]]
        bias = self.layout.bias(mask)
        for block in self.blocks:
            x = block(x, features["modulation"], features["projected_text"], bias)
        if self.output is not None:
            x = self.output(x, features["embedding"])
        features[self.outputs[0]] = x
        outputs = tuple(self.layout.turn(features[name]) for name in self.outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def _features(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of inputs and outputs; hidden_i is the residual stream before block i."""
        before, after = self.hidden
        inputs: tuple[str, ...] = (before, "modulation", "projected_text", "text_mask")
        outputs: tuple[str, ...] = (after,)
        if self.starts:
            inputs = ("latents", "time_features", "text", "text_mask")
            outputs = (after, "modulation", "projected_text", "embedding")
        if self.ends:
            return inputs if self.starts else (*inputs, "embedding"), ("velocity",)
        return inputs, outputs


class PhoneEmbed(nn.Module):
    """The layers before the blocks: of tokens, of text states, and of the modulation that all blocks share."""

    def __init__(self, dit: torch_dit.Dit, layout: Layout):
        super().__init__()
        self.tokens = layout.tokens
        project: Any = dit.text_projection
        self.text_projection = nn.Sequential(layout.linear(project[0]), project[1], layout.linear(project[2]))
        self.time = nn.Sequential(layout.linear(dit.time_in), nn.SiLU(), layout.linear(dit.time_out))
        self.pooled_text = None if dit.pooled_text is None else layout.linear(dit.pooled_text)
        self.modulation, self.patch_in = layout.linear(dit.modulation), layout.linear(dit.patch_in)

    def forward(
        self, latents: LaidOut, time_features: LaidOut, text: LaidOut, text_mask: LaidOut
    ) -> tuple[LaidOut, dict[str, Tensor]]:
        """The tokens, and the other tensors that all chunks take, by name."""
        text = self.text_projection(text)
        embedding = self.time(time_features)
        if self.pooled_text is not None:
            # Weights that sum to one: a sum of states might overflow fp16.
            weights = text_mask / text_mask.sum(self.tokens, keepdim=True)
            embedding = embedding + self.pooled_text((text * weights).sum(self.tokens, keepdim=True))
        modulation = self.modulation(functional.silu(embedding))
        passed = {"modulation": modulation, "projected_text": text, "embedding": embedding}
        return self.patch_in(latents), passed


class PhoneBlock(nn.Module):
    """dit.block.DitBlock, with its heads' rows of the RoPE tables as constants."""

    table: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, block: Any, tiles: int, layout: Layout, rope: torch_dit.Rope, cut_inputs: bool):
        super().__init__()
        self.channels, self.eps = layout.channels, block.eps
        self.width = block.modulation.shape[1]
        for name, table in zip(("cos", "sin"), rope, strict=True):
            self.register_buffer(name, layout.rope(block.select_heads(table)))
        self.register_buffer("table", layout.turn(_table(block.modulation, scales=(1, 4))))
        tokens = rope[0].shape[-2]
        self.self_attention = layout.attention(block.self_attention, query_chunks(tokens, tokens))
        self.cross_attention = layout.attention(block.cross_attention, 1)
        self.ffn = TiledFfn(block.ffn.up, block.ffn.down, tiles, layout, cut_inputs=cut_inputs)

    def forward(self, x: LaidOut, modulation: LaidOut, text: LaidOut, bias: LaidOut) -> LaidOut:
        rope = self.cos, self.sin
        vectors = torch.split(modulation + self.table, self.width, dim=self.channels)
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors
        y = rms_normalize(x, self.channels, self.eps) * scale1 + shift1
        x = x + gate1 * self.self_attention(y, y, rope, rope)
        x = x + self.cross_attention(x, text, None, None, bias)
        hidden: Tensor = self.ffn(rms_normalize(x, self.channels, self.eps) * scale2 + shift2)
        return x + gate2 * hidden


class PhoneOutput(nn.Module):
    """The modulated last layer."""

    table: Tensor

    def __init__(self, output: torch_dit.Output, layout: Layout):
        super().__init__()
        self.channels, self.eps = layout.channels, output.eps
        self.normalize = layer_normalize if output.layer_norm else rms_normalize
        self.width = output.modulation.shape[1]
        self.register_buffer("table", layout.turn(_table(output.modulation, scales=(1,))))
        self.velocity = layout.linear(output.velocity)

    def forward(self, x: LaidOut, embedding: LaidOut) -> LaidOut:
        vectors = torch.cat([embedding, embedding], dim=self.channels) + self.table
        shift, scale = torch.split(vectors, self.width, dim=self.channels)
        velocity: Tensor = self.velocity(self.normalize(x, self.channels, self.eps) * scale + shift)
        return velocity


def _table(modulation: Float[Tensor, "k d"], scales: tuple[int, ...]) -> Float[Tensor, "1 kd 1 1"]:
    """A module's modulation table as one column, with 1 added to the rows that are scales."""
    table = modulation.detach().clone()
    table[list(scales)] += 1
    return table.reshape(1, -1, 1, 1)
