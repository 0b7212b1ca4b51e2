"""The time of a clip on the phone: the calls of its packages, counted from a config's shapes alone."""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from export.coreml.compress import DEFAULT_BITS
from export.estimate.decoders import phone_decoder
from export.estimate.layout import layout_ops, stream_ops
from export.estimate.networks import empty
from export.estimate.ops import ops_and_peak
from export.estimate.tiles import TILES, fastest_tiles
from export.mil import axes
from export.phone.attention.call import FIRST, NEXT, WHOLE_CLIP
from export.phone.denoisers import FORMS, PhoneForm
from export.phone.steps import REUSING, WHOLE, PhoneStep, phone_steps, step_functions, stream_functions
from export.pytorch.dit import lacking
from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.phone.ops import Op
from mobile_video_jax.cost.phone.roofline import call_seconds, seconds_by, totals
from mobile_video_jax.cost.phone.table import (
    ASSUMED,
    CHIPS,
    DEVICE,
    HELD_OUT,
    PHONE,
    Assumptions,
    Device,
    stated,
)
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.step_table import check_step_table
from mobile_video_jax.models.config import DenoiserConfig

WEIGHT_BITS = {"fp16": 16.0, "int8": 8.0, "palette8": 8.0, "palette6": 6.0, "palette4": 4.0, "mixed": DEFAULT_BITS}
# Reported parts, by the first of these that the path of an op's module contains.
PARTS = {
    "PhoneDecoder": "decoder",
    "ffn": "FFN",
    "self_attention": "self-attention",
    "cross_attention": "cross-attention",
    "blocks": "norms, modulation, residuals",
    "residual": "residual blocks",
    "block_": "norms, modulation, residuals",
    "sample_": "resampling",
    "": "before and after the blocks",
}


@dataclasses.dataclass(frozen=True)
class Calls:
    """The calls of one package for a clip."""

    times: int
    ops: list[Op]
    peak_activation_bytes: int = 0  # of one call


@dataclasses.dataclass(frozen=True)
class Plan:
    """A clip whose time is estimated. Raises UserError for an unknown kind of weights."""

    config: DenoiserConfig
    decoder: str = "mobile"  # the VAE's decoder: a size of vae.family, or wan
    clip: str = "49x384x512"  # frames x rows x columns
    steps: int = 4  # of sampling
    tiles: int = 0  # of an FFN; 0: as many as the estimate is fastest with
    weights: str = "fp16"  # one of WEIGHT_BITS
    table: tuple[str, ...] = ()  # what each step computes (dit/step_table.py); none: all

    def __post_init__(self) -> None:
        if self.weights not in WEIGHT_BITS:
            raise UserError(f"weights '{self.weights}' are unknown: use one of {', '.join(WEIGHT_BITS)}")
        if self.table and len(self.table) != self.steps:
            raise UserError(f"this model has a table of {len(self.table)} steps, not {self.steps}: leave the steps out")
        if self.table:
            check_step_table(self.table, len(self.config.transformer.block_shapes))

    @property
    def grid(self) -> tuple[int, int, int]:
        """The latent grid. Raises UserError for a clip that the config's compression does not fit."""
        return ClipShape.parse(self.clip).latent(Compression.parse(self.config.compression))

    @property
    def chosen_tiles(self) -> int:
        """Tiles of every FFN, 1 where they are not cut: the largest decides, on the tokens of a call."""
        sizes, frames = self._form.largest_ffn(self.config.model), self.config.model.stream_chunk or self.grid[0]
        return self.tiles or (fastest_tiles(*sizes, frames * math.prod(self.grid[1:])) if sizes else 1)

    @property
    def possible_tiles(self) -> tuple[int, ...]:
        """The numbers of tiles that FFNs may be cut into; none where the network's are not cut."""
        return TILES if self._form.largest_ffn(self.config.model) else ()

    @property
    def _form(self) -> PhoneForm:
        return FORMS[type(self.config.model)]

    def calls(self) -> dict[str, Calls]:
        """The packages by name."""
        return {**self.denoisers(), **self.decoders()}

    def denoisers(self) -> dict[str, Calls]:
        """The network; where steps do without modules each distinct step; of a stream the first chunk and the later."""
        size = self.config.model.stream_chunk
        if self.table and not size:
            steps = collections.Counter(zip(step_functions(self.table), phone_steps(self.table), strict=True))
            return {f"dit_{name}": self._denoiser(count, step) for (name, step), count in steps.items()}
        if not size:
            return {"dit": self.denoiser()}
        chunks, passes = (self.grid[0] - 1) // size, self.steps + 1  # the last pass renews the state
        if self._lacks_form:
            first, later = stream_ops(self.config, self.grid, self.chosen_tiles)
            calls = {"dit": (passes * chunks, later), "dit_first": (passes, first)}
            return {name: Calls(times, self._weighed(ops)) for name, (times, ops) in calls.items()}
        if self.table:
            return self._stream_steps(chunks)
        return {"dit": self._denoiser(passes * chunks, call=NEXT), "dit_first": self._denoiser(passes, call=FIRST)}

    def _stream_steps(self, chunks: int) -> dict[str, Calls]:
        """The calls of a stream's steps by its table, and of the whole network that renews the state."""
        counts: collections.Counter[tuple[str, PhoneStep, str]] = collections.Counter()
        times = {FIRST: 1, NEXT: (chunks + 1) // 2, REUSING: chunks // 2}
        for chunk, named in stream_functions(self.table).items():
            for name, step in named:
                counts[name, step, FIRST if chunk == FIRST else NEXT] += times[chunk]
        calls = {f"dit_{name}": self._denoiser(n, step, call) for (name, step, call), n in counts.items() if n}
        return {"dit": self._denoiser(chunks, call=NEXT), "dit_first": self._denoiser(1, call=FIRST), **calls}

    def denoiser(self) -> Calls:
        """The transformer or U-Net as one package: several chunks take no more work."""
        if self.config.model.stream_chunk:
            return self.denoisers()["dit"]
        if self._lacks_form:
            return Calls(self.steps, self._weighed(layout_ops(self.config, self.grid, self.chosen_tiles)))
        return self._denoiser(self.steps)

    @property
    def _lacks_form(self) -> bool:
        """True where the network's ops are counted in JAX, as its phone form lacks some of it."""
        return isinstance(self.config.model, DitConfig) and bool(
            lacking(self.config.model, streams=bool(self.config.model.stream_chunk))
        )

    def _weighed(self, ops: list[Op]) -> list[Op]:
        """The ops with weights of the plan's size, in place of 16 bits."""
        share = WEIGHT_BITS[self.weights] / 16
        return [dataclasses.replace(op, weight_bytes=int(share * op.weight_bytes)) for op in ops]

    def _denoiser(self, times: int, step: PhoneStep = WHOLE, call: str = WHOLE_CLIP) -> Calls:
        config, channels = self.config, Compression.parse(self.config.compression).channels
        with torch.device("meta"):
            shape = (*self.grid, channels)
            module: Any = self._form.module(config.model, shape, config.text_width, self.chosen_tiles, step, call)
        frames = {WHOLE_CLIP: self.grid[0], FIRST: 1, NEXT: config.model.stream_chunk}[call]
        latents = empty(1, channels, 1, frames * math.prod(self.grid[1:]))
        text, mask = empty(1, config.text_width, 1, config.text_tokens), empty(1, 1, 1, config.text_tokens)
        past = [empty(*shape) for shape in getattr(module, "past_shapes", {}).values()]
        features = empty(1, config.model.time_features, 1, 1)
        return self._calls(times, module.to("meta"), latents, features, text, mask, *past)

    def decoders(self) -> dict[str, Calls]:
        """The decoder of the first latent frame, and of each later one."""
        compression, (frames, *rows), calls = self.config.compression, self.grid, {}
        for name, times in (("vae_first", 1), ("vae_next", frames - 1)):
            module = phone_decoder(self.decoder, compression, (rows[0], rows[1]), starts=name == "vae_first")
            past = [] if module.starts else [empty(*shape) for shape in module.kept.values()]
            calls[name] = self._calls(times, module, empty(1, Compression.parse(compression).channels, *rows), *past)
        return calls

    def _calls(self, times: int, module: nn.Module, *inputs: Tensor) -> Calls:
        return Calls(times, *ops_and_peak(module, *inputs, weight_bits=WEIGHT_BITS[self.weights]))


def clip_estimate(plan: Plan) -> dict[str, Any]:
    """Seconds and frames a second of a clip, by call and by part, and those after single changes."""
    calls, frames = plan.calls(), ClipShape.parse(plan.clip).frames
    rows = {
        name: {"times": call.times, **totals(call.ops), "peak_activation_bytes": call.peak_activation_bytes}
        for name, call in calls.items()
    }
    seconds = clip_seconds(calls)
    rate = frames / seconds
    all_ops = [op for call in calls.values() for op in call.ops * call.times]
    changes = [{"change": name, "frames_a_second": frames / value} for name, value in _changes(plan, calls).items()]
    return {
        "phone": PHONE,
        "method": "roofline of each op, fitted to published times; nothing was measured on a phone",
        "clip": plan.clip,
        "steps": plan.steps,
        "tiles": plan.chosen_tiles,
        "by_tiles": [_by_tiles(dataclasses.replace(plan, tiles=tiles)) for tiles in plan.possible_tiles],
        "by_chip": {chip: frames / clip_seconds(calls, device=device) for chip, device in CHIPS.items()},
        "weights": plan.weights,
        "decoder": plan.decoder,
        "calls": rows,
        "seconds_a_step": rows["dit"]["seconds"] if "dit" in rows else _mean_step(rows, plan.steps),
        "decoder_seconds": sum(row["times"] * row["seconds"] for name, row in rows.items() if "dit" not in name),
        "seconds": seconds,
        "frames_a_second": rate,
        "frames_a_second_range": [rate * ratio for ratio in HELD_OUT],
        "parts": seconds_by(all_ops, _part),
        "changes": sorted(changes, key=lambda row: -float(row["frames_a_second"])),
        "warnings": [f"warning: {line}" for line in _axis_warnings(math.prod(plan.grid))],
        "assumptions": [dict(zip(("what", "value", "source"), row, strict=True)) for row in stated()],
    }


def clip_seconds(calls: Mapping[str, Calls], assumptions: Assumptions = ASSUMED, device: Device = DEVICE) -> float:
    """Seconds of all calls of a clip, one after the other."""
    return sum(call.times * call_seconds(call.ops, device, assumptions) for call in calls.values())


def _mean_step(rows: Mapping[str, Any], steps: int) -> float:
    """Seconds of a step where steps differ: their mean."""
    return sum(float(row["times"] * row["seconds"]) for name, row in rows.items() if "dit" in name) / steps


def _by_tiles(plan: Plan) -> dict[str, Any]:
    """Seconds and peak memory of a step; more tiles pay where both fall."""
    calls = plan.denoiser()
    seconds = call_seconds(calls.ops)
    return {"tiles": plan.tiles, "seconds_a_step": seconds, "peak_activation_bytes": calls.peak_activation_bytes}


def _axis_warnings(tokens: int) -> list[str]:
    """One line where the axis of tokens is longer than the neural engine takes: another unit would run it."""
    limit = axes.LONGEST
    return [f"{tokens:,} tokens, the neural engine takes {limit:,}: the times are too short"] if tokens > limit else []


def _with_steps(steps: int, plan: Plan, calls: Mapping[str, Calls]) -> dict[str, Calls]:
    """The transformer's calls for another number of steps."""
    streams = int(plan.config.model.stream_chunk > 0)
    return {
        name: dataclasses.replace(call, times=call.times * (steps + streams) // (plan.steps + streams))
        for name, call in calls.items()
        if "dit" in name
    }


def _part(op: Op) -> str:
    return next(name for key, name in PARTS.items() if key in op.part)


def _changes(plan: Plan, calls: Mapping[str, Calls]) -> dict[str, float]:
    """Seconds of the clip after one change: of an assumption, of what the phone does with ops, or of an option."""
    bits = WEIGHT_BITS[plan.weights]

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
        "assumed: tensors of up to 1 MB alone stay on the chip": assuming(on_chip=1_000_000),
        "assumed: 1 us for each op": assuming(op=1e-6),
        "element-wise ops merged into their neighbours": ops(lambda op: op if op.flops or op.reduces else None),
        "8-bit numbers in all products, at twice the operations a second": clip_seconds(
            {
                name: Calls(call.times, [dataclasses.replace(op, flops=op.flops // 2) for op in call.ops])
                for name, call in calls.items()
            }
        ),
        "weights of 4 bits": ops(lambda op: dataclasses.replace(op, weight_bytes=int(4 * op.weight_bytes / bits))),
        **({} if plan.table else {"--steps=2": packages(_with_steps(2, plan, calls))}),
        "--decoder=phone": packages(dataclasses.replace(plan, decoder="phone").decoders()),
    }
