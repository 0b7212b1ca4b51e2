"""The transformer for phones: static shapes, tensors [1, c, 1, s] in and out, in one piece or in chunks of blocks.

No sine is computed: the time comes as features, made outside, and places as constant tables.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layers import Rope
from export.phone.layout import PHONE, Layout
from export.phone.tiled_ffn import TiledFfn
from export.pytorch import dit as torch_dit
from export.pytorch.safe_norms import layer_normalize, rms_normalize


class PhoneDit(nn.Module):
    """Blocks `first` to `last` - 1 of a transformer, with what comes before the first block and after the last one.

    Maps the tensors of `inputs`, in order, to those of `outputs`. A whole transformer maps noisy latents [1, c, 1, s],
    time features [1, f, 1, 1], text states [1, e, 1, l] and the text's mask [1, 1, 1, l] of ones and zeros to the
    velocity [1, c, 1, s]. `tiles` are of each block's FFN.
    """

    def __init__(
        self, dit: torch_dit.Dit, tiles: Sequence[int], first: int = 0, last: int | None = None, form: Layout = PHONE
    ):
        super().__init__()
        self.form = form
        depth = len(dit.blocks)
        last = depth if last is None else last
        self.starts, self.ends = first == 0, last == depth
        self.hidden = (f"hidden_{first}", f"hidden_{last}")
        self.inputs, self.outputs = self._features()
        self.head = PhoneHead(dit, form) if self.starts else None
        rope = dit.cos, dit.sin
        self.blocks = nn.ModuleList(PhoneBlock(dit.blocks[i], tiles[i], form, rope) for i in range(first, last))
        self.output = PhoneOutput(dit.output, form) if self.ends else None

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        given = dict(zip(self.inputs, tensors, strict=True))
        mask = given.pop("text_mask")
        given = {name: self.form.turn(x) for name, x in given.items()}
        if self.head is not None:
            x, passed = self.head(**given, text_mask=self.form.turn(mask))
            given |= passed
        else:
            x = given[self.hidden[0]]
        bias = self.form.bias(mask)
        for block in self.blocks:
            x = block(x, given["modulation"], given["projected_text"], bias)
        if self.output is not None:
            x = self.output(x, given["embedding"])
        given[self.outputs[0]] = x
        found = tuple(self.form.turn(given[name]) for name in self.outputs)
        return found if len(found) > 1 else found[0]

    def _features(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of inputs and outputs; hidden_i is what comes before block i."""
        before, after = self.hidden
        inputs: tuple[str, ...] = (before, "modulation", "projected_text", "text_mask")
        outputs: tuple[str, ...] = (after,)
        if self.starts:
            inputs = ("latents", "time_features", "text", "text_mask")
            outputs = (after, "modulation", "projected_text", "embedding")
        if self.ends:
            return inputs if self.starts else (*inputs, "embedding"), ("velocity",)
        return inputs, outputs


class PhoneHead(nn.Module):
    """What comes before the blocks: the tokens, the text's projection and the modulation that all blocks share."""

    def __init__(self, dit: torch_dit.Dit, form: Layout):
        super().__init__()
        self.tokens = 4 - form.channels
        project: Any = dit.text_projection
        self.text_projection = nn.Sequential(form.linear(project[0]), project[1], form.linear(project[2]))
        self.time = nn.Sequential(form.linear(dit.time_in), nn.SiLU(), form.linear(dit.time_out))
        self.pooled_text = None if dit.pooled_text is None else form.linear(dit.pooled_text)
        self.modulation, self.patch_in = form.linear(dit.modulation), form.linear(dit.patch_in)

    def forward(
        self, latents: Tensor, time_features: Tensor, text: Tensor, text_mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The tokens, and what else all chunks take."""
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
    """dit.block.DitBlock, with the part of the RoPE tables [h, s, d/2] that its heads turn by."""

    table: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, block: Any, tiles: int, form: Layout, rope: Rope):
        super().__init__()
        self.channels, self.eps = form.channels, block.eps
        self.width = block.modulation.shape[1]
        for name, table in zip(("cos", "sin"), rope, strict=True):
            self.register_buffer(name, form.rope(block.own(table)))
        self.register_buffer("table", form.turn(_table(block.modulation, scales=(1, 4))))
        self.self_attention = form.attention(block.self_attention)
        self.cross_attention = form.attention(block.cross_attention)
        self.ffn = TiledFfn(block.ffn.up, block.ffn.down, tiles, form)

    def forward(self, x: Tensor, modulation: Tensor, text: Tensor, bias: Tensor) -> Tensor:
        rope = self.cos, self.sin
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).split(self.width, dim=self.channels)
        y = rms_normalize(x, self.channels, self.eps) * scale1 + shift1
        x = x + gate1 * self.self_attention(y, y, rope, rope)
        x = x + self.cross_attention(x, text, None, None, bias)
        return x + gate2 * self.ffn(rms_normalize(x, self.channels, self.eps) * scale2 + shift2)


class PhoneOutput(nn.Module):
    """The modulated last layer."""

    table: Tensor

    def __init__(self, output: torch_dit.Output, form: Layout):
        super().__init__()
        self.channels, self.eps = form.channels, output.eps
        self.normalize = layer_normalize if output.layer_norm else rms_normalize
        self.width = output.modulation.shape[1]
        self.register_buffer("table", form.turn(_table(output.modulation, scales=(1,))))
        self.velocity = form.linear(output.velocity)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        both = torch.cat([embedding, embedding], dim=self.channels) + self.table
        shift, scale = both.split(self.width, dim=self.channels)
        velocity: Tensor = self.velocity(self.normalize(x, self.channels, self.eps) * scale + shift)
        return velocity


def _table(modulation: Tensor, scales: tuple[int, ...]) -> Tensor:
    """A module's own table [k, d] as [1, k d, 1, 1], with the 1 of "1 + scale" in it."""
    table = modulation.detach().clone()
    table[list(scales)] += 1
    return table.reshape(1, -1, 1, 1)
