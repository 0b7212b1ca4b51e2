"""The transformer for phones: static shapes, tensors [1, c, 1, s] in and out, in one piece or in chunks of blocks.

No sine is computed: the time enters as features, computed outside, and positions as constant tables.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.phone.layout import PHONE, LaidOut, Layout
from export.phone.steps import WHOLE, PhoneStep, feature
from export.phone.tiled_ffn import TiledFfn
from export.pytorch import dit as torch_dit
from export.pytorch.safe_norms import layer_normalize, rms_normalize
from mobile_video_jax.cost.phone.tiles import query_chunks
from mobile_video_jax.dit.step_table import BOTH, COMPUTED, MODULES

Features = dict[str, Tensor]


class PhoneDit(nn.Module):
    """Blocks `first` to `last` - 1 of a transformer; the first chunk embeds the inputs, the last gives the velocity.

    Maps the tensors of `inputs`, in order, to those of `outputs`. A whole transformer maps noisy latents [1, c, 1, s],
    time features [1, f, 1, 1], text states [1, e, 1, l] and the text's mask [1, 1, 1, l], 1 for a token and 0 for
    padding, to the velocity [1, c, 1, s]. `tiles[i]` is the count of tiles of block i's FFN,
    whose first product's input is cut too with `cut_inputs`. What `step` does without has no weights here.
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
        step: PhoneStep = WHOLE,
    ):
        super().__init__()
        self.layout = layout
        depth = len(dit.blocks)
        last = depth if last is None else last
        self.starts, self.ends = first == 0, last == depth
        self.hidden = (f"hidden_{first}", f"hidden_{last}")
        self.inputs, self.outputs = self._features()
        self.inputs += step.past(first, last)
        self.outputs += step.keeps(first, last)
        self.embed = PhoneEmbed(dit, layout) if self.starts else None
        rope = dit.cos, dit.sin
        self.blocks = nn.ModuleList(
            PhoneBlock(dit.blocks[i], i, tiles[i], layout, rope, cut_inputs, step) for i in range(first, last)
        )
        self.output = PhoneOutput(dit.output, layout) if self.ends else None

    def forward(self, *tensors: Float[Tensor, "1 _ 1 _"]) -> Tensor | tuple[Tensor, ...]:
        features = dict(zip(self.inputs, tensors, strict=True))
        mask = features.pop("text_mask")
        features = {name: self.layout.turn(x) for name, x in features.items()}
        if self.embed is not None:
            inputs = (features[name] for name in ("latents", "time_features", "text"))
            x, passed = self.embed(*inputs, self.layout.turn(mask))
            features |= passed
        else:
            x = features[self.hidden[0]]
        bias = self.layout.bias(mask)
        for block in self.blocks:
            x = block(x, features, bias)
        if self.output is not None:
            x = self.output(x, features["embedding"])
        features["velocity" if self.ends else self.hidden[1]] = x
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
    """dit.block.DitBlock, with its heads' rows of the RoPE tables as constants.

    It takes its inputs from the features by name, and adds to them the module outputs that the step keeps. A module
    that the step leaves out is the bias of its output layer.
    """

    table: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        block: Any,
        index: int,
        tiles: int,
        layout: Layout,
        rope: torch_dit.Rope,
        cut_inputs: bool,
        step: PhoneStep,
    ):
        super().__init__()
        self.index, self.channels, self.eps = index, layout.channels, block.eps
        self.width = block.modulation.shape[1]
        self.register_buffer("table", layout.turn(_table(block.modulation, scales=(1, 4))))
        self.letters = {name: step.letter(index, name) for name in MODULES}
        self.kept = [name for name in MODULES if (index, name) in step.kept]
        if self.letters["self_attention"] == COMPUTED:
            for name, table in zip(("cos", "sin"), rope, strict=True):
                self.register_buffer(name, layout.rope(block.select_heads(table)))
            tokens = rope[0].shape[-2]
            self.self_attention = layout.attention(block.self_attention, query_chunks(tokens, tokens))
        self.cross_attention = layout.attention(block.cross_attention, 1)
        if self.letters["ffn"] == COMPUTED:
            self.ffn = TiledFfn(block.ffn.up, block.ffn.down, tiles, layout, cut_inputs=cut_inputs)
        for name, bias in (("self_attention", block.self_attention.out.bias), ("ffn", block.ffn.down.bias)):
            if self.letters[name] not in (COMPUTED, BOTH):
                self.register_buffer(f"{name}_bias", layout.turn(bias.detach()[None, :, None, None]))

    def forward(self, x: LaidOut, features: Features, bias: LaidOut) -> LaidOut:
        vectors = torch.split(features["modulation"] + self.table, self.width, dim=self.channels)
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors
        x = x + gate1 * self._output("self_attention", self._attend, x, (scale1, shift1), features)
        x = x + self.cross_attention(x, features["projected_text"], None, None, bias)
        return x + gate2 * self._output("ffn", lambda z: self.ffn(z), x, (scale2, shift2), features)

    def _attend(self, z: LaidOut) -> LaidOut:
        rope = self.cos, self.sin
        attended: Tensor = self.self_attention(z, z, rope, rope)
        return attended

    def _output(
        self,
        name: str,
        compute: Callable[[LaidOut], LaidOut],
        x: LaidOut,
        scale_shift: tuple[LaidOut, LaidOut],
        features: Features,
    ) -> LaidOut:
        """A module's output: computed, that of an earlier step, or its bias."""
        if self.letters[name] == BOTH:
            return features[feature("past", self.index, name)]
        if self.letters[name] != COMPUTED:
            return self.get_buffer(f"{name}_bias")
        scale, shift = scale_shift
        y = compute(rms_normalize(x, self.channels, self.eps) * scale + shift)
        if name in self.kept:
            features[feature("kept", self.index, name)] = y
        return y


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
