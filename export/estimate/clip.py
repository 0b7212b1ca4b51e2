"""The time of a clip on the phone: the calls of its packages, counted from a config's shapes alone."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from export.coreml.compress import DEFAULT_BITS
from export.estimate.networks import empty
from export.estimate.ops import ops_of_module
from export.phone.dit import PhoneDit
from export.phone.vae import PhoneDecoder
from export.pytorch import vae as torch_vae
from export.pytorch.dit import Dit
from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.phone.ops import HALF, Op
from mobile_video_jax.cost.phone.roofline import call_seconds, seconds_by, totals
from mobile_video_jax.cost.phone.table import ASSUMED, FFN_TILES, HELD_OUT, PHONE, Assumptions, stated
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.vae.family import family_member

WEIGHT_BITS = {"fp16": 16.0, "int8": 8.0, "palette8": 8.0, "palette6": 6.0, "palette4": 4.0, "mixed": DEFAULT_BITS}
# Reported parts, by the first of these that the path of an op's module contains.
PARTS = {
    "ffn": "FFN",
    "self_attention": "self-attention",
    "cross_attention": "cross-attention",
    "blocks": "norms, modulation, residuals",
    "PhoneDecoder": "decoder",
    "": "before and after the blocks",
}


@dataclasses.dataclass(frozen=True)
class Calls:
    """The calls of one package for a clip."""

    times: int
    ops: list[Op]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A clip whose time is estimated. Raises UserError for an unknown kind of weights."""

    config: DitTraining
    decoder: str = "mobile"  # size of the VAE's decoder, one of vae.family
    clip: str = "49x384x512"  # frames x rows x columns
    steps: int = 4  # of sampling
    tiles: int = FFN_TILES  # of each product of an FFN
    weights: str = "fp16"  # one of WEIGHT_BITS

    def __post_init__(self) -> None:
        if self.weights not in WEIGHT_BITS:
            raise UserError(f"weights '{self.weights}' are unknown: use one of {', '.join(WEIGHT_BITS)}")

    @property
    def grid(self) -> tuple[int, int, int]:
        """The latent grid. Raises UserError for a clip that the config's compression does not fit."""
        return ClipShape.parse(self.clip).latent(Compression.parse(self.config.compression))

    def calls(self) -> dict[str, Calls]:
        """The packages by name."""
        return {"dit": self.transformer(), **self.decoders()}

    def transformer(self) -> Calls:
        """The transformer as one package: several chunks take no more work."""
        config, tokens = self.config, math.prod(self.grid)
        channels = Compression.parse(config.compression).channels
        with torch.device("meta"):
            mirror = Dit(config.model, (*self.grid, channels), config.text_width)
            module = PhoneDit(mirror, [self.tiles] * len(mirror.blocks)).to("meta")
        latents, features = empty(1, channels, 1, tokens), empty(1, config.model.time_features, 1, 1)
        text, mask = empty(1, config.text_width, 1, config.text_tokens), empty(1, 1, 1, config.text_tokens)
        return Calls(self.steps, self._ops(module, latents, features, text, mask))

    def decoders(self) -> dict[str, Calls]:
        """The decoder of the first latent frame, and of each later one."""
        config, (frames, *rows) = family_member(self.decoder, self.config.compression), self.grid
        calls = {}
        for name, times in (("vae_first", 1), ("vae_next", frames - 1)):
            with torch.device("meta"):
                module = PhoneDecoder(torch_vae.Decoder(config), (rows[0], rows[1]), starts=name == "vae_first")
            past = [] if module.starts else [empty(*shape) for shape in module.kept.values()]
            calls[name] = Calls(times, self._ops(module.to("meta"), empty(1, config.strides.channels, *rows), *past))
        return calls

    def _ops(self, module: nn.Module, *inputs: Tensor) -> list[Op]:
        return ops_of_module(module, *inputs, weight_bits=WEIGHT_BITS[self.weights])


def clip_estimate(plan: Plan) -> dict[str, Any]:
    """Seconds and frames a second of a clip, by call and by part, and those after single changes."""
    calls, frames = plan.calls(), ClipShape.parse(plan.clip).frames
    rows = {name: {"times": call.times, **totals(call.ops)} for name, call in calls.items()}
    seconds = clip_seconds(calls)
    rate = frames / seconds
    all_ops = [op for call in calls.values() for op in call.ops * call.times]
    changes = [{"change": name, "frames_a_second": frames / value} for name, value in _changes(plan, calls).items()]
    return {
        "phone": PHONE,
        "method": "roofline of each op, fitted to published times; nothing was measured on a phone",
        "clip": plan.clip,
        "steps": plan.steps,
        "tiles": plan.tiles,
        "weights": plan.weights,
        "decoder": plan.decoder,
        "calls": rows,
        "seconds_a_step": rows["dit"]["seconds"],
        "decoder_seconds": seconds - plan.steps * rows["dit"]["seconds"],
        "seconds": seconds,
        "frames_a_second": rate,
        "frames_a_second_range": [rate * ratio for ratio in HELD_OUT],
        "parts": seconds_by(all_ops, _part),
        "changes": sorted(changes, key=lambda row: -float(row["frames_a_second"])),
        "assumptions": [dict(zip(("what", "value", "source"), row, strict=True)) for row in stated()],
    }


def clip_seconds(calls: Mapping[str, Calls], assumptions: Assumptions = ASSUMED) -> float:
    """Seconds of all calls of a clip, one after the other."""
    return sum(call.times * call_seconds(call.ops, assumptions=assumptions) for call in calls.values())


def _part(op: Op) -> str:
    return next(name for key, name in PARTS.items() if key in op.part)


def _changes(plan: Plan, calls: Mapping[str, Calls]) -> dict[str, float]:
    """Seconds of the clip after one change: of an assumption, of what the phone does with ops, or of an option."""
    logits, bits = HALF * math.prod(plan.grid) ** 2, WEIGHT_BITS[plan.weights]

    def assuming(**values: Any) -> float:
        return clip_seconds(calls, dataclasses.replace(ASSUMED, **values))

    def ops(change: Callable[[Op], Op | None]) -> float:
        return clip_seconds(
            {name: Calls(call.times, [*filter(None, map(change, call.ops))]) for name, call in calls.items()}
        )

    def packages(changed: Mapping[str, Calls]) -> float:
        return clip_seconds({**calls, **changed})

    return {
        "assumed: a quarter more operations a second": assuming(compute=1.25 * ASSUMED.compute),
        "assumed: a quarter fewer operations a second": assuming(compute=0.75 * ASSUMED.compute),
        "assumed: a quarter more memory bytes a second": assuming(memory=1.25 * ASSUMED.memory),
        "assumed: a quarter fewer memory bytes a second": assuming(memory=0.75 * ASSUMED.memory),
        "assumed: tensors of up to 4 MB stay on the chip": assuming(on_chip=4_000_000),
        "assumed: 1 us for each op": assuming(op=1e-6),
        "element-wise ops merged into their neighbours": ops(lambda op: op if op.flops or op.reduces else None),
        "logits kept on the chip, by cutting the queries": ops(lambda op: _without(op, logits)),
        "weights of 4 bits": ops(lambda op: dataclasses.replace(op, weight_bytes=int(4 * op.weight_bytes / bits))),
        "--steps=2": packages({"dit": Calls(2, calls["dit"].ops)}),
        **{f"--tiles={n}": packages({"dit": dataclasses.replace(plan, tiles=n).transformer()}) for n in (1, 8)},
        "--decoder=phone": packages(dataclasses.replace(plan, decoder="phone").decoders()),
    }


def _without(op: Op, whole: int) -> Op:
    """The op without the traffic of tensors of so many bytes."""
    return dataclasses.replace(op, values=tuple(value for value in op.values if value.whole != whole))
