"""The transformer for phones: static shapes, tensors [1, c, 1, s] in and out, in one piece or in chunks of blocks.

No sine is computed: the time enters as features, computed outside, and positions as constant tables.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from export.phone.attention.call import FIRST, NEXT, WHOLE_CLIP, Call
from export.phone.block import PhoneBlock, table_column
from export.phone.layout import PHONE, LaidOut, Layout
from export.phone.resolution import PhoneDown, PhoneUp
from export.phone.steps import WHOLE, PhoneStep
from export.phone.turn import full_tables
from export.pytorch import dit as torch_dit
from export.pytorch.attention import Rope
from export.pytorch.safe_norms import layer_normalize, rms_normalize
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.groups import stages


class PhoneDit(nn.Module):
    """Blocks `first` to `last` - 1 of a transformer; the first chunk embeds the inputs, the last gives the velocity.

    Maps the tensors of `inputs`, in order, to those of `outputs`. A whole transformer maps noisy latents [1, c, 1, s],
    time features [1, f, 1, 1], text states [1, e, 1, l] and the text's mask [1, 1, 1, l], 1 for a token and 0 for
    padding, to the velocity [1, c, 1, s]. `tiles[i]` is the count of tiles of block i's FFN,
    whose first product's input is cut too with `cut_inputs`. What `step` does without has no weights here.

    A causal transformer may stream: `call` is then `first`, of a clip's first frame, or `next`, of each later chunk.
    Outputs kept_BLOCK_NAME of a call are inputs past_BLOCK_NAME of the next one, which also takes the number of
    `frames_before` [1, 1, 1, 1]; `states` holds their shapes. What a `step` of a table keeps is no state: the function
    of the whole network renews it.
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
        call: str = WHOLE_CLIP,
    ):
        super().__init__()
        config = dit.config
        if (config.layout or config.causal) and layout is not PHONE:
            raise UserError("a layout and causal attention have the phone's form alone: leave out --form=gpu")
        self.layout, self.attends_padding = layout, config.attend_text_padding
        self.skip_sources = config.skip_sources
        depth = len(dit.blocks)
        last = depth if last is None else last
        self.starts, self.ends = first == 0, last == depth
        self.hidden = (f"hidden_{first}", f"hidden_{last}")
        self.inputs, self.outputs = self._features()
        self.inputs += step.past(first, last)
        self.outputs += step.keeps(first, last)
        frames = {WHOLE_CLIP: dit.grid[0], FIRST: 1, NEXT: config.chunk_frames}[call]
        self.embed = PhoneEmbed(dit, layout) if self.starts else None
        rope = full_tables((dit.cos, dit.sin))  # once, as no table of all heads is small
        self.blocks = nn.ModuleList(
            PhoneBlock(dit.blocks[i], i, tiles[i], layout, rope, cut_inputs, step, _call_of(dit, i, frames, call))
            for i in range(first, last)
        )
        self.stages = nn.ModuleDict(
            {
                f"{name}_{i}": form(dit.get_submodule(f"{name}_{begin}"), (frames, *dit.grid[1:]), size)
                for begin, end, size in low_stages(config)
                for name, i, form in (("down", begin, PhoneDown), ("up", end - 1, PhoneUp))
                if first <= begin and end <= last
            }
        )
        self.states: dict[str, tuple[int, ...]] = {}
        for block in self.blocks:
            assert isinstance(block, PhoneBlock)
            self.states |= block.states
        if call == NEXT and self.states:
            self.inputs += ("frames_before", *(f"past_{name}" for name in self.states))
        if not step.letters:
            self.outputs += tuple(f"kept_{name}" for name in self.states)
        tokens = frames * dit.grid[1] * dit.grid[2]
        reused = {name: _reused_shape(config, name, tokens) for name in step.past(first, last)}
        stream = {"frames_before": (1, 1, 1, 1)} | {f"past_{name}": shape for name, shape in self.states.items()}
        self.past_shapes = reused | (stream if call == NEXT and self.states else {})  # of all inputs from before
        self.output = PhoneOutput(dit.output, layout) if self.ends else None

    def forward(self, *tensors: Float[Tensor, "_ _ 1 _"]) -> Tensor | tuple[Tensor, ...]:
        features = dict(zip(self.inputs, tensors, strict=True))
        mask = features.pop("text_mask")
        features = {name: self.layout.turn(x) for name, x in features.items()}
        if self.embed is not None:
            inputs = (features[name] for name in ("latents", "time_features", "text"))
            x, passed = self.embed(*inputs, self.layout.turn(mask))
            features |= passed
        else:
            x = features[self.hidden[0]]
        bias = self.layout.bias(mask.clamp(min=1.0) if self.attends_padding else mask)
        whole = low = x
        kept: dict[int, Tensor] = {}
        for block in self.blocks:
            assert isinstance(block, PhoneBlock)
            if (down := f"down_{block.index}") in self.stages:
                whole, x = x, self.stages[down](x)
                low = x
            source = self.skip_sources.get(block.index)
            x = kept[block.index] = block(x, features, bias, None if source is None else kept[source])
            if (up := f"up_{block.index}") in self.stages:
                x = whole + self.stages[up](x - low)
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


def low_stages(config: DitConfig) -> list[tuple[int, int, int]]:
    """The first block, the one behind the last, and the resolution of each stage of lower resolution."""
    return [
        (stage[0].first, stage[-1].stop, stage[0].shape.resolution)
        for stage in stages(config)
        if stage[0].shape.resolution > 1
    ]


def _reused_shape(config: DitConfig, name: str, tokens: int) -> tuple[int, ...]:
    block = int(name.rpartition("_")[2])
    return 1, config.width, 1, tokens // config.block_shapes[block].resolution ** 2


def _call_of(dit: torch_dit.Dit, index: int, frames: int, kind: str) -> Call | None:
    """The call of a block whose kind, resolution or causality the plain form does not have."""
    config: Any = dit.config
    if not (config.layout or config.causal):
        return None
    block: Any = dit.blocks[index]
    size = block.shape.resolution

    def rope(first: int, count: int, stride: int) -> Rope:
        cos, sin = full_tables(dit.rope(first, count, size * stride))
        return block.select_heads(cos), block.select_heads(sin)

    return Call((frames, dit.grid[1] // size, dit.grid[2] // size), config.chunks, kind, rope)


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


class PhoneOutput(nn.Module):
    """The modulated last layer."""

    table: Tensor

    def __init__(self, output: torch_dit.Output, layout: Layout):
        super().__init__()
        self.layout, self.channels, self.eps = layout, layout.channels, output.eps
        self.normalize = layer_normalize if output.layer_norm else rms_normalize
        self.width = output.modulation.shape[1]
        self.register_buffer("table", layout.turn(table_column(output.modulation, scales=(1,))))
        self.velocity = layout.linear(output.velocity)

    def forward(self, x: LaidOut, embedding: LaidOut) -> LaidOut:
        vectors = torch.cat([embedding, embedding], dim=self.channels) + self.table
        shift, scale = torch.split(vectors, self.width, dim=self.channels)
        modulated = self.layout.piecewise(lambda x: self.normalize(x, self.channels, self.eps) * scale + shift, x)
        velocity: Tensor = self.velocity(modulated)
        return velocity
