"""Outputs of the networks in JAX, in float32: the inputs and outputs that a saved package is compared with.

Tensors have the phone's names and layout, [1, c, 1, s] or [t, c, h, w].
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from export.phone.steps import PhoneStep, feature
from mobile_video_jax.core.arrays import Latents
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.groups import groups, stages
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.replaced import Key, Module, block_by_block, replacing
from mobile_video_jax.dit.step_table import BOTH, COMPUTED
from mobile_video_jax.models.networks import build_network
from mobile_video_jax.nn.embeddings import time_features
from mobile_video_jax.nn.module import apply
from mobile_video_jax.nn.stream import STREAM
from mobile_video_jax.unet.config import UnetConfig
from mobile_video_jax.unet.model import Unet
from mobile_video_jax.vae.coder import Network
from mobile_video_jax.vae.ltx.model import LtxVae

Tensors = dict[str, np.ndarray]

# Modules of the transformer whose values pass from one chunk to the next.
PASSED = ("text_projection", "time_out", "pooled_text", "modulation")


def dit_tensors(config: DitConfig, params: Any, *inputs: Any) -> Tensors:
    """Every input and output of a chunk of the transformer, for one clip; `inputs` are its arguments."""
    model = build_network(dataclasses.replace(config, dtype="float32", remat="none"))

    @jax.jit
    def run(params: Any, *inputs: Any) -> Any:
        return model.apply({"params": params}, *inputs, mutable=["intermediates"], capture_intermediates=is_passed)

    return dit_features(model.config, inputs, *precisely(run, params, *inputs))


def step_tensors(
    config: DitConfig,
    params: Any,
    steps: Sequence[PhoneStep],
    times: Any,
    *inputs: Any,
    stream: Mapping[str, Any] = MappingProxyType({}),
    before: Sequence[Mapping[Key, Any]] = (),
) -> Iterator[tuple[Tensors, Mapping[Key, Any]]]:
    """Inputs and outputs of each sampling step, from noise on, where steps do without modules; and what each keeps.

    `times` are one more than `steps`. kept_NAME_BLOCK are outputs of modules, past_NAME_BLOCK those of earlier steps,
    or of a `stream` behind its state those `before`, which the chunk before kept at each step.
    """
    model, params = block_by_block(Dit(dataclasses.replace(config, dtype="float32")), params)

    @functools.partial(jax.jit, static_argnums=0)
    def run(step: PhoneStep, variables: Any, past: Any, *inputs: Any) -> Any:
        outputs: dict[Key, Any] = {}

        def replace(module: Module) -> Any:
            letter = step.letter(module.block, module.name)
            if letter == BOTH:
                return past[module.key]
            outputs[module.key] = module.compute(module.z) if letter == COMPUTED else module.empty
            return outputs[module.key]

        with replacing(replace):
            results = model.apply(variables, *inputs, mutable=["intermediates"], capture_intermediates=is_passed)
        return results, {key: outputs[key] for key in step.kept}

    (latents, *captions), past = inputs, dict[Key, Any]()
    for i, (step, t, t_next) in enumerate(zip(steps, times[:-1], times[1:], strict=True)):
        past |= before[i] if before else {}
        (velocity, variables), kept = precisely(
            run, step, {"params": params, **stream}, past, latents, t[None], *captions
        )
        tensors = dit_features(model.config, (latents, t[None], *captions), velocity, variables)
        tensors |= {feature("past", *key): row(x) for key, x in past.items()}
        yield tensors | {feature("kept", *key): row(x) for key, x in kept.items()}, kept
        latents, past = latents + (t_next - t) * velocity, past | kept


def is_passed(module: Any, _: str) -> bool:
    """True for modules whose values pass from one chunk to the next, or belong to the last block of a stage."""
    return module.name in PASSED or str(module.name).startswith("up_")


def dit_features(config: DitConfig, inputs: Any, velocity: Any, variables: Any) -> Tensors:
    """The features of one evaluation, of its inputs, result and intermediates."""
    latents, t, text, mask = inputs
    outputs = variables["intermediates"]
    passed = {name: np.asarray(outputs[name]["__call__"][0]) for name in PASSED if name in outputs}
    ups = {
        stage[-1].stop - 1: np.asarray(outputs[name]["__call__"][0])
        for stage in stages(config)
        if (name := f"up_{stage[0].first}") in outputs
    }
    embedding = passed["time_out"] + (passed["pooled_text"][:, None] if "pooled_text" in passed else 0)
    return {
        "latents": row(tokens(latents)),
        "time_features": _column(time_features(t, config.time_features)),
        "text": row(text),
        "text_mask": np.asarray(mask, np.float32)[:, None, None],
        "projected_text": row(passed["text_projection"]),
        "modulation": _column(passed["modulation"]),
        "embedding": _column(embedding),
        **{f"hidden_{i + 1}": row(x + ups.get(i, 0)) for i, x in enumerate(_residuals(outputs, config))},
        "velocity": row(tokens(velocity)),
    }


def unet_tensors(config: UnetConfig, params: Any, *inputs: Any) -> Tensors:
    """Every input and output of the U-Net, for one clip; `inputs` are the arguments of Unet."""
    latents, t, text, mask = inputs
    model = Unet(dataclasses.replace(config, dtype="float32", remat="none"))
    velocity = precisely(jax.jit(functools.partial(apply, model)), params, *inputs)
    return {
        "latents": row(tokens(latents)),
        "time_features": _column(time_features(t, config.time_features)),
        "text": row(text),
        "text_mask": np.asarray(mask, np.float32)[:, None, None],
        "velocity": row(tokens(velocity)),
    }


def _residuals(outputs: Any, config: DitConfig) -> Any:
    if config.scan:
        return [x for group in groups(config) for x in outputs[group.name]["block"]["residual"][0]]
    return [outputs[f"block_{i}"]["residual"][0] for i in range(len(config.block_shapes))]


def decoder_tensors(vae: Network, params: Any, latents: Latents) -> Iterator[Tensors]:
    """Inputs and outputs of the decoder for each latent frame of a clip; kept_NAME of one is past_NAME of the next.

    LTX-Video's takes all frames at once.
    """
    model = in_float32(vae)
    length = latents.shape[1] if isinstance(vae, LtxVae) else 1

    @jax.jit
    def run(params: Any, state: Any, chunk: Latents) -> Any:
        return model.apply({"params": params, **state}, chunk, method="decode", mutable=[STREAM])

    state: Any = {}
    for i in range(0, latents.shape[1], length):
        chunk = latents[:, i : i + length]
        video, after = precisely(run, params, state, chunk)
        tensors = {"latents": _frames(chunk), "video": _frames(video)}
        tensors |= {f"past_{name}": x for name, x in _kept(state).items()}
        yield tensors | {f"kept_{name}": x for name, x in _kept(after).items()}
        state = after


def in_float32(vae: Network) -> Network:
    """The decoder with products in float32."""
    return vae.clone(config=dataclasses.replace(vae.config, dtype="float32"))


def _kept(state: Any) -> Tensors:
    """The frames that causal layers keep, under the phone's names."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    paths = {tuple(entry.key for entry in path): leaf for path, leaf in leaves}
    return {"_".join(path[2:-1]): _frames(leaf) for path, leaf in paths.items() if path[-1] == "past"}


def precisely(function: Any, *args: Any) -> Any:
    """The function's results on the host, computed in float32."""
    # Accelerators would round the factors of products.
    with jax.default_matmul_precision("highest"):
        return jax.device_get(function(*args))


def tokens(latents: Any) -> np.ndarray:
    """Latents [b, t, h, w, c] as tokens [b, s, c]."""
    return np.asarray(latents).reshape(latents.shape[0], -1, latents.shape[-1])


def row(x: Any) -> Float[np.ndarray, "1 c 1 s"]:
    """Tokens [1, s, c] as the phone has them."""
    return np.asarray(x).swapaxes(1, 2)[:, :, None]


def _column(x: Any) -> Float[np.ndarray, "1 c 1 1"]:
    """One vector, whatever its shape."""
    return np.asarray(x).reshape(1, -1, 1, 1)


def _frames(x: Any) -> Float[np.ndarray, "t c h w"]:
    """Frames of one clip [1, t, h, w, c]."""
    return np.moveaxis(np.asarray(x)[0], -1, 1)
