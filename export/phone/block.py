"""A block of the transformer for phones, in the form that a sampling step and a call of a stream need."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from export.phone.attention.call import Call
from export.phone.attention.kinds import phone_attention
from export.phone.layout import LaidOut, Layout
from export.phone.steps import PhoneStep, feature
from export.phone.tiled_ffn import TiledFfn
from export.pytorch.attention import Rope
from export.pytorch.safe_norms import layer_normalize, rms_normalize
from mobile_video_jax.cost.phone.tiles import query_chunks
from mobile_video_jax.dit.step_table import BOTH, COMPUTED, MODULES

Features = dict[str, Tensor]


class PhoneBlock(nn.Module):
    """dit.block.DitBlock, with its heads' rows of the full RoPE tables as constants.

    It takes its inputs from the features by name, and adds to them the module outputs that the step keeps. A module
    that the step leaves out is the bias of its output layer. Norms, modulation, residuals and the FFN run on as many
    tokens at a time as stay on the chip.
    """

    table: Tensor

    def __init__(
        self,
        block: Any,
        index: int,
        tiles: int,
        layout: Layout,
        rope: Rope,
        cut_inputs: bool,
        step: PhoneStep,
        call: Call | None,
    ):
        super().__init__()
        self.index, self.layout, self.channels, self.eps = index, layout, layout.channels, block.eps
        self.width = block.modulation.shape[1]
        self.register_buffer("table", layout.turn(table_column(block.modulation, scales=(1, 4))))
        self.letters = {name: step.letter(index, name) for name in MODULES}
        self.kept = [name for name in MODULES if (index, name) in step.kept]
        self.states: dict[str, tuple[int, ...]] = {}
        self.has_kind = call is not None and self.letters["self_attention"] == COMPUTED
        if call is not None and self.has_kind:
            kind = phone_attention(block.self_attention, block.shape.kind, call)
            self.self_attention: Any = kind
            self.states = {f"{index}_{name}": shape for name, shape in kind.shapes.items()}
        elif self.letters["self_attention"] == COMPUTED:
            own = layout.rope(block.select_heads(rope[0])), layout.rope(block.select_heads(rope[1]))
            tokens = rope[0].shape[-2]
            self.self_attention = layout.attention(block.self_attention, query_chunks(tokens, tokens), (own, own))
        self.skip = None if block.skip is None else layout.linear(block.skip)
        self.normalize = layer_normalize if block.layer_norm else rms_normalize
        self.cross_attention = layout.attention(block.cross_attention, 1, None)
        norm = block.cross_attention_norm
        self.cross_attention_norm = None if norm is None else PhoneLayerNorm(norm, layout)
        if self.letters["ffn"] == COMPUTED:
            self.ffn = TiledFfn(block.ffn.up, block.ffn.down, tiles, layout, cut_inputs=cut_inputs)
        for name, bias in (("self_attention", block.self_attention.out.bias), ("ffn", block.ffn.down.bias)):
            if self.letters[name] not in (COMPUTED, BOTH):
                self.register_buffer(f"{name}_bias", layout.turn(bias.detach()[None, :, None, None]))

    def forward(self, x: LaidOut, features: Features, bias: LaidOut, skipped: LaidOut | None = None) -> LaidOut:
        vectors = torch.split(features["modulation"] + self.table, self.width, dim=self.channels)
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors
        piecewise = self.layout.piecewise

        def modulated(z: LaidOut) -> LaidOut:
            return self._normalize(z) * scale1 + shift1

        if self.skip is not None:
            x = x + self.skip(skipped)
        attended = self._output("self_attention", lambda: self._attend(piecewise(modulated, x), features), features)
        x = piecewise(lambda x, y: x + gate1 * y, x, attended)
        queried = x if self.cross_attention_norm is None else piecewise(self.cross_attention_norm, x)
        crossed = self.cross_attention(queried, features["projected_text"], bias)

        def hidden(z: LaidOut) -> LaidOut:
            computed: LaidOut = self.ffn(self._normalize(z) * scale2 + shift2)
            return computed

        def with_ffn(x: LaidOut, y: LaidOut) -> LaidOut:
            x = x + y
            return x + gate2 * hidden(x)

        if self.letters["ffn"] == COMPUTED and "ffn" not in self.kept:
            return piecewise(with_ffn, x, crossed)
        x = x + crossed
        return x + gate2 * self._output("ffn", lambda: piecewise(hidden, x), features)

    def _attend(self, z: LaidOut, features: Features) -> LaidOut:
        attended: Tensor
        if not self.has_kind:
            attended = self.self_attention(z, z)
            return attended
        prefix = f"past_{self.index}_"
        past = {name.removeprefix(prefix): x for name, x in features.items() if name.startswith(prefix)}
        if "frames_before" in features:
            past["frames_before"] = features["frames_before"]
        attended, kept = self.self_attention(z, past)
        features |= {f"kept_{self.index}_{name}": x for name, x in kept.items()}
        return attended

    def _normalize(self, x: LaidOut) -> LaidOut:
        return self.normalize(x, self.channels, self.eps)

    def _output(self, name: str, compute: Callable[[], LaidOut], features: Features) -> LaidOut:
        """A module's output: computed, that of an earlier step, or its bias."""
        if self.letters[name] == BOTH:
            return features[feature("past", self.index, name)]
        if self.letters[name] != COMPUTED:
            return self.get_buffer(f"{name}_bias")
        y = compute()
        if name in self.kept:
            features[feature("kept", self.index, name)] = y
        return y


class PhoneLayerNorm(nn.Module):
    """Layer normalisation with a learned scale and bias for each channel."""

    scale: Tensor
    bias: Tensor

    def __init__(self, norm: nn.LayerNorm, layout: Layout):
        super().__init__()
        self.channels, self.eps = layout.channels, norm.eps
        for name, vector in (("scale", norm.weight), ("bias", norm.bias)):
            self.register_buffer(name, layout.turn(vector.detach()[None, :, None, None]))

    def forward(self, x: LaidOut) -> LaidOut:
        return layer_normalize(x, self.channels, self.eps) * self.scale + self.bias


def table_column(modulation: Float[Tensor, "k d"], scales: tuple[int, ...]) -> Float[Tensor, "1 kd 1 1"]:
    """A module's modulation table as one column, with 1 added to the rows that are scales."""
    table = modulation.detach().clone()
    table[list(scales)] += 1
    return table.reshape(1, -1, 1, 1)
