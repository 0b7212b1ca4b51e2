"""The parts of a run that become packages: text encoder, transformer (in chunks where it is large), VAE decoder.

Each is a PyTorch module with its inputs, and the outputs of JAX for them.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from export.app import golden, golden_stream
from export.app.golden_clip import noise as noise_of
from export.app.settings import Settings
from export.app.widths import WidthFamily
from export.part import FIRST_FUNCTION, FP16, Part, Tensors
from export.phone import ltx_vae as phone_ltx_vae
from export.phone import wan_vae as phone_wan_vae
from export.phone.attention.call import FIRST, NEXT
from export.phone.dit import PhoneDit, low_stages
from export.phone.staircase import in_blocks
from export.phone.steps import phone_steps, step_functions, stream_functions
from export.phone.text import PhoneText
from export.phone.unet import PhoneUnet
from export.phone.vae import PhoneDecoder
from export.pytorch import dit as torch_dit
from export.pytorch import ltx_vae as torch_ltx_vae
from export.pytorch import text as torch_text
from export.pytorch import vae as torch_vae
from export.pytorch.load import load_params, state_dict
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.vae import VaeBundle
from mobile_video_jax.text.encoder import TextEncoder, pad
from mobile_video_jax.text.encoder_name import EncoderName
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.vae.ltx.model import LtxVae
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.wan.model import WanVae

STARTS = {"vae_first": True, "vae_next": False}  # parts of a decoder that streams, and whether they start a clip


def text_part(encoder: TextEncoder, source: EncoderName, settings: Settings, tokens: int, out: Path) -> Part:
    """The text encoder for captions of at most `tokens` tokens; its weights are read from `source`."""
    mirror, prompt = torch_text.load(source, in_fp16=settings.text_precision == FP16), settings.prompt
    write_weights(mirror, mirror.config, out / "text.safetensors")
    states, mask = pad(encoder.encode([prompt]), tokens)
    ids = np.zeros((1, tokens), np.int32)
    ids[mask] = encoder.tokenizer.encode(prompt).ids
    inputs = {"ids": ids, "text_mask": mask.astype(np.float32)[:, None, None]}
    module = PhoneText(mirror, encoder.padded_to - tokens if encoder.padded_to else None)
    outputs = {"text": states.swapaxes(1, 2)[:, :, None]}
    return Part("text", module, inputs, outputs, precision=settings.text_precision)


def dit_parts(generator: Generator, settings: Settings, out: Path, family: WidthFamily | None = None) -> Iterator[Part]:
    """The transformer at a clip's first step, in chunks of whole blocks.

    One width of a `family` is cut as the widest, and its layers are in the blocks that all share.

    Where the steps of the run's table do without modules, each chunk is a function for each distinct step; of a stream
    it is one for the first frame, and one for each later chunk of frames, with a table beside those of their steps.
    """
    config, denoiser = generator.denoiser.config, generator.denoiser
    shape = denoiser.latent_shape_of(generator.clip)
    mirror = torch_dit.Dit(config.transformer, shape, config.text_width)
    load_params(mirror, generator.params)
    suffix = f"_{config.transformer.width}" if family and config.transformer != family.configs[-1] else ""
    write_weights(mirror, config.transformer, out / f"dit{suffix}.safetensors")
    functions = _functions(generator, settings)
    ends = chunk_ends(family.widest if family else mirror, int(1e6 * settings.chunk_megabytes))
    tiles = settings.tiles_of(config.transformer, call_tokens(generator, settings))
    tiles = family.tiles(tiles, config.transformer) if family else tiles
    for i, (first, last) in enumerate(zip([0, *ends], ends, strict=False)):
        name = "dit" if len(ends) == 1 else f"dit_{i}"
        for function, (form, tensors) in functions.items():
            module = PhoneDit(mirror, tiles, first, last, settings.layout, cut_inputs=settings.cut_inputs, **form)
            module = in_blocks(module, mirror, family.matrices) if family else module
            yield Part(name, module, _select(tensors, module.inputs), _select(tensors, module.outputs), function)


def _functions(generator: Generator, settings: Settings) -> dict[str, tuple[dict[str, Any], Tensors]]:
    """The options of PhoneDit for each function of the packages, and JAX's tensors for its first call."""
    model, table = generator.denoiser.config.transformer, generator.denoiser.sampling.reuse
    noise, times, text, mask = _first_step(generator, settings)
    functions: dict[str, tuple[dict[str, Any], Tensors]] = {}
    if settings.stream:
        calls = golden_stream.stream_tensors(model, generator.params, noise, times[:1], text, mask)
        functions = {name: ({"call": name}, tensors) for name, tensors in zip((FIRST, NEXT), calls, strict=False)}
        named = stream_functions(table) if table else {}
        by_steps = golden_stream.stream_step_tensors(model, generator.params, named, times, noise, text, mask)
        for chunk, calls_of_steps in by_steps:
            call = FIRST if chunk == FIRST else NEXT
            for (function, step), tensors in zip(named[chunk], calls_of_steps, strict=True):
                functions.setdefault(function, ({"call": call, "step": step}, tensors))
        return functions
    if not table:
        return {FIRST_FUNCTION: ({}, golden.dit_tensors(model, generator.params, noise, times[:1], text, mask))}
    steps = phone_steps(table)
    rows = golden.step_tensors(model, generator.params, steps, times, noise, text, mask)
    for name, step, (tensors, _) in zip(step_functions(table), steps, rows, strict=True):
        functions.setdefault(name, ({"step": step}, tensors))
    return functions


def unet_parts(generator: Generator, settings: Settings, out: Path) -> Iterator[Part]:
    """The U-Net at a clip's first step, under the name of every denoiser's package.

    Raises UserError where it takes more than a chunk, as it has no blocks in a row.
    """
    config, shape = generator.denoiser.config, generator.denoiser.latent_shape_of(generator.clip)
    assert isinstance(config.model, UnetConfig)
    module = PhoneUnet(config.model, shape, config.text_width)
    skipped = config.model.temporal_modules if shape[0] == 1 else frozenset[str]()
    load_params(module, {name: part for name, part in generator.params.items() if name not in skipped})
    if _bytes(module) > 1e6 * settings.chunk_megabytes:
        raise UserError(f"the U-Net takes {_bytes(module) / 1e6:.1f} MB in fp16: set --chunk_megabytes to that or more")
    write_weights(module, config.model, out / "dit.safetensors")
    noise, times, *captions = _first_step(generator, settings)
    tensors = golden.unet_tensors(config.model, generator.params, noise, times[:1], *captions)
    yield Part("dit", module, _select(tensors, module.inputs), _select(tensors, module.outputs))


def _first_step(generator: Generator, settings: Settings) -> tuple[jax.Array, ...]:
    """Noise, the times of the steps, text states and their mask."""
    denoiser = generator.denoiser
    text, mask = pad(generator.text_encoder.encode([settings.prompt]), denoiser.config.text_tokens)
    times = generator.time_grid(generator.sample_config(steps=settings.steps, guidance=1.0))
    noise = jnp.asarray(noise_of(denoiser.latent_shape_of(generator.clip)))
    return noise, times, jnp.asarray(text), jnp.asarray(mask)


def call_tokens(generator: Generator, settings: Settings) -> int:
    """Latent positions of the largest call of the transformer: of a clip, or of a chunk of a stream."""
    tokens = generator.clip.tokens(generator.denoiser.strides)
    frames = generator.denoiser.latent_shape_of(generator.clip)[0]
    return tokens // frames * generator.denoiser.config.transformer.chunk_frames if settings.stream else tokens


def chunk_ends(dit: torch_dit.Dit, limit: int) -> list[int]:
    """The ends of chunks of blocks, each of at most `limit` bytes in fp16: as few as possible, and then as even.

    Layers before and after the blocks go with the first and the last. Raises UserError for a block above the limit.
    """
    ends_of = stage_ends(dit.config)
    starts = [0, *ends_of[:-1]]
    blocks = [sum(map(_bytes, dit.blocks[first:last])) for first, last in zip(starts, ends_of, strict=True)]
    after = _bytes(dit.output)
    before = _bytes(dit) - sum(blocks) - after
    blocks[0] += before
    blocks[-1] += after
    if max(blocks) > limit:
        raise UserError(
            f"block {starts[int(np.argmax(blocks))]} takes {max(blocks) / 1e6:.1f} MB in fp16: "
            f"set --chunk_megabytes={-(-max(blocks) // 1_000_000)} or more"
        )
    sums = np.cumsum([0, *blocks])
    ends = _filled(sums, limit)
    while (limit := int(np.diff(sums[[0, *ends]]).max()) - 1) >= max(blocks):
        more_even = _filled(sums, limit)
        if len(more_even) > len(ends):
            break
        ends = more_even
    return [ends_of[end - 1] for end in ends]


def stage_ends(config: DitConfig) -> list[int]:
    """The blocks behind which a transformer may be cut: not within a stage of lower resolution, nor under a skip."""
    inside = {i for begin, end, _ in low_stages(config) for i in range(begin + 1, end)}
    inside |= {i for source, target in config.skips for i in range(source + 1, target + 1)}
    return [i for i in range(1, len(config.block_shapes) + 1) if i not in inside]


def _filled(sums: np.ndarray, limit: int) -> list[int]:
    """Ends of chunks that are filled one after the other; sums[i] is the bytes of all blocks before i."""
    ends = [0]
    while ends[-1] < len(sums) - 1:
        ends.append(int(np.searchsorted(sums, sums[ends[-1]] + limit, side="right")) - 1)
    return ends[1:]


def vae_parts(bundle: VaeBundle, clip: ClipShape, out: Path) -> Iterator[Part]:
    """The decoder of a clip's first latent frame and that of every later one; LTX-Video's is of a whole clip."""
    vae, shape = bundle.vae, clip.latent(bundle.vae.config.strides)
    check_decoder(vae)
    noise = np.random.default_rng(1).standard_normal((1, *shape, vae.config.strides.channels), np.float32)
    latents = bundle.stats.denormalize(jnp.asarray(noise))
    chunks = golden.decoder_tensors(vae, bundle.params, latents)
    for (name, module), tensors in zip(_decoders(bundle, shape, out), chunks, strict=False):
        yield Part(name, module, _select(tensors, module.inputs), _select(tensors, module.outputs))


def check_decoder(vae: Any) -> None:
    """Raises UserError for a VAE whose decoder has no phone form."""
    if isinstance(vae, Vae) and vae.config.compact_decoder:
        raise UserError("a compact decoder has no phone form yet: export the VAE's own, or a smaller one")


def _decoders(
    bundle: VaeBundle, shape: tuple[int, int, int], out: Path
) -> Iterator[tuple[str, PhoneDecoder | phone_ltx_vae.PhoneDecoder | phone_wan_vae.PhoneDecoder]]:
    """The phone forms of the decoder by their parts' names; writes its weights."""
    vae = bundle.vae
    if isinstance(vae, WanVae):
        weights = state_dict(bundle.params["decoder"])
        write_tensors(weights, vae.config, out / "vae.safetensors")
        for name, starts in STARTS.items():
            yield name, phone_wan_vae.PhoneDecoder(vae.config, weights, shape[1:], starts=starts)
        return
    mirror = torch_ltx_vae.Decoder(vae.config) if isinstance(vae, LtxVae) else torch_vae.Decoder(vae.config)
    # One level down, so that a parameter of the decoder itself has a name.
    load_params(nn.ModuleDict({"decoder": mirror}), {"decoder": bundle.params["decoder"]})
    write_weights(mirror, vae.config, out / "vae.safetensors")
    if isinstance(mirror, torch_ltx_vae.Decoder):
        yield "vae", phone_ltx_vae.PhoneDecoder(mirror, shape)
        return
    for name, starts in STARTS.items():
        yield name, PhoneDecoder(mirror, shape[1:], starts=starts)


def write_weights(mirror: nn.Module, config: object, path: Path) -> None:
    """Writes the mirror's state dict as safetensors in float32, with the config as JSON in its metadata."""
    write_tensors(mirror.state_dict(), config, path)


def write_tensors(state: Mapping[str, torch.Tensor], config: object, path: Path) -> None:
    """Writes a state dict as write_weights does."""
    tensors = {name: x.contiguous() for name, x in state.items()}
    save_file(tensors, path, {"config": json.dumps(dataclasses.asdict(config))})  # type: ignore[call-overload]


def _select(tensors: Tensors, names: Sequence[str]) -> Tensors:
    return {name: tensors[name] for name in names}


def _bytes(module: nn.Module) -> int:
    return 2 * sum(x.numel() for x in module.parameters())
