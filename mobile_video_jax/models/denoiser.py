"""Trained denoisers: the network, the latents and captions it knows, its times, and how it is to be sampled."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mobile_video_jax.core.arrays import Latents, Rng
from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters, flops_by_part, largest_products, parameters_by_part
from mobile_video_jax.cost.phone.roofline import call_seconds
from mobile_video_jax.cost.phone.trace import ops_of_network
from mobile_video_jax.diffusion.timesteps import token_shift
from mobile_video_jax.dit.config import LAYOUT_KEYS
from mobile_video_jax.dit.features import CrossLogits, Features
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.network_config import as_transformer
from mobile_video_jax.models.networks import Maps, family_of
from mobile_video_jax.models.sampling import STANDARD, Sampling
from mobile_video_jax.nn.module import apply
from mobile_video_jax.nn.stream import STREAM
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.rules import parameter_shardings

# Keys of a network's config for its positions.
POSITIONS = ("rope_theta", "rope_scale", "rope_offset")


class Denoiser:
    """A network that predicts the velocity of noisy latents [b lt lh lw c], for clips of the shape `clip`."""

    def __init__(self, config: DenoiserConfig, sampling: Sampling = STANDARD):
        self.config, self.sampling = config, sampling
        self.strides = Compression.parse(config.compression)
        self.clip = ClipShape.parse(config.clip)
        config.model.check_grid(self.clip.latent(self.strides))
        self.family = family_of(config.model)
        self.network: Any = self.family.module(config.model)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """[lt lh lw c] of one clip."""
        return self.latent_shape_of(self.clip)

    def latent_shape_of(self, clip: ClipShape) -> tuple[int, int, int, int]:
        """[lt lh lw c] of a clip of another shape."""
        return (*clip.latent(self.strides), self.strides.channels)

    @property
    def tokens(self) -> int:
        """Latent positions of one clip."""
        return self.clip.tokens(self.strides)

    def input_shapes(self, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of `batch` clips and their captions: latents, text states, text mask."""
        cfg = self.config
        return {
            "latents": jax.ShapeDtypeStruct((batch, *self.latent_shape), jnp.float32),
            "text": jax.ShapeDtypeStruct((batch, cfg.text_tokens, cfg.text_width), jnp.float32),
            "text_mask": jax.ShapeDtypeStruct((batch, cfg.text_tokens), jnp.bool_),
        }

    def zero_inputs(self) -> tuple[jax.Array, ...]:
        """The network's inputs for one clip, all zeros: x_t, t, text states and text mask."""
        latents, text, mask = (jnp.zeros(x.shape, x.dtype) for x in self.input_shapes(1).values())
        return latents, jnp.zeros(1), text, mask

    def init(self, rng: Rng) -> Any:
        """Random parameters, each with its logical axis names."""
        return self._init(rng)

    @functools.cached_property
    def _init(self) -> Callable[[Rng], Any]:
        # Compiled on its own, it is traced once for all that ask for shapes.
        return jax.jit(lambda rng: self.network.init(rng, *self.zero_inputs())["params"])

    @functools.cached_property
    def boxed_shapes(self) -> Any:
        """The shapes of the network's parameters, each with its logical axis names."""
        return jax.eval_shape(self.init, jax.random.key(0))

    @functools.cached_property
    def parameter_shapes(self) -> Any:
        """The shapes of the network's parameters."""
        return nn.unbox(self.boxed_shapes)

    def abstract_params(self, mesh: Mesh) -> Any:
        """The shapes and dtypes of the network's parameters, and how they are sharded over a mesh."""
        return jax.tree.map(abstract, self.parameter_shapes, parameter_shardings(self.boxed_shapes, mesh))

    def describe(self) -> dict[str, Any]:
        """Latents, captions and the number of parameters, for run.json."""
        return {
            "compression": self.config.compression,
            "clip": str(self.clip),
            "latent_shape": list(self.latent_shape),
            "text_encoder": self.config.text_encoder,
            "parameters": count_parameters(self.parameter_shapes),
        }

    def inspect(self) -> dict[str, Any]:
        """The costs of one forward pass of one clip, by part, from shapes alone: FLOPs, bytes, largest activations.

        `phone_seconds` estimates the pass on a phone, by cost/phone.
        """
        params, part_of = self.parameter_shapes, self.family.cost_group
        inputs = jax.eval_shape(self.zero_inputs)
        counts = parameters_by_part(params, part_of)
        return {
            **self.describe(),
            "tokens": self.tokens,
            "parameters": counts,
            "flops": flops_by_part(self.velocity, params, *inputs, part_of=part_of),
            "bytes": 4 * counts["total"],
            "bytes_by_part": {part: 4 * count for part, count in counts.items()},
            "activation_bytes": largest_products(self.velocity, params, *inputs, part_of=part_of),
            "phone_seconds": call_seconds(ops_of_network(self.network, *inputs)),
        }

    def velocity(self, params: Any, *inputs: Any) -> Any:
        """The velocity [b lt lh lw c] for x_t, t, text states, text mask and, with padding, a latent mask."""
        return apply(self.network, params, *inputs)

    def velocity_behind(self, begun: tuple[Any, Any], *inputs: Any) -> Any:
        """The velocity of the next chunk of a clip; `begun` are the parameters and the state behind what is there."""
        params, state = begun
        return self.network.apply({"params": params, **state}, *inputs)

    def next_state(self, begun: tuple[Any, Any], *inputs: Any) -> Any:
        """The state behind the next chunk of a clip, {} at its start: arrays of constant size (nn/stream.py)."""
        params, state = begun
        return self.network.apply({"params": params, **state}, *inputs, mutable=STREAM)[1]

    def velocity_and_features(self, params: Any, *inputs: Any) -> tuple[Latents, Features]:
        """The velocity, and the features [l b n d] of equal blocks. Raises UserError for a network without such."""
        if self.family.features is None:
            raise UserError("this network has no features of equal blocks: compare its maps")
        return self.family.features(self.network, params, *inputs)

    def velocity_and_maps(self, params: Any, *inputs: Any) -> tuple[Latents, Maps]:
        """The velocity, and feature maps [b t h w d] that networks of two kinds are compared by."""
        return self.family.maps(self.network, params, *inputs)

    @property
    def map_shapes(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """The shapes of the feature maps of one clip."""
        inputs = jax.eval_shape(self.zero_inputs)
        maps: tuple[jax.ShapeDtypeStruct, ...]
        _, maps = jax.eval_shape(self.velocity_and_maps, self.parameter_shapes, *inputs)
        return maps

    def velocity_and_cross_logits(self, params: Any, *inputs: Any) -> tuple[Latents, CrossLogits]:
        """The velocity, and the mean logits of cross-attention. Raises UserError for a network without any."""
        self.check_cross_logits()
        assert self.family.cross_logits is not None
        return self.family.cross_logits(self.network, params, *inputs)

    def check_cross_logits(self) -> None:
        """Raises UserError for a network without cross-attention from every token of a clip to the text."""
        if self.family.cross_logits is None:
            raise UserError("this model has no cross-attention to guide by: use --guide=count or --guide=count_best")
        if all(shape.resolution > 1 for shape in as_transformer(self.config.model).block_shapes):
            raise UserError(
                "this model has no block at the whole resolution, whose cross-attention could guide: "
                "use --guide=count or --guide=count_best"
            )

    def check_starts_from_images(self) -> None:
        """Raises UserError for a network that no first frame can be given to."""
        if not self.config.image_probability:
            raise UserError(
                "this model cannot start from an image: leave it out, or train one with --config.image_probability=0.3"
            )

    def check_continues(self, other: "Denoiser") -> None:
        """Raises UserError where weights of `other` would mean something else here.

        That is so for other positions or times, and for another layout, causality or chunks.
        """
        for key, trained in other._function().items():
            if self._function().get(key) != trained:
                raise UserError(f"the run of init_from has {key}={_text(trained)}: set --config.{key}={_text(trained)}")

    def _function(self) -> dict[str, Any]:
        """The settings that change what the parameters mean, and no parameter's shape."""
        model = self.config.at_rate(1.0).model  # positions in seconds mean the same at every rate
        named = {f"model.{key}": getattr(model, key) for key in (*POSITIONS, *LAYOUT_KEYS) if hasattr(model, key)}
        return {"time_schedule": self.config.time_schedule, **named}

    def time_shift(self, tokens: int) -> float:
        """The shift of the times that clips of so many tokens are trained and sampled at."""
        return token_shift(tokens) if self.config.shift_follows_tokens else self.config.time_shift

    def sampled_times(self, tokens: int) -> dict[str, Any]:
        """The arguments `shift`, `terminal` and `schedule` of time_grid for clips of so many tokens."""
        config = self.config
        return {"shift": self.time_shift(tokens), "terminal": config.time_terminal, "schedule": config.time_schedule}


def _text(value: Any) -> str:
    """A setting as a flag takes it."""
    if isinstance(value, tuple) and all(isinstance(each, tuple) for each in value):
        return "'" + str(value).replace("'", '"').replace(" ", "") + "'"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
