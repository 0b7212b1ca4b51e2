"""Clips generated for held-out captions, or for prompts of the user's, while a denoiser trains, at little cost."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.shapes.world import World
from mobile_video_jax.data.video.write import write_mp4
from mobile_video_jax.diffusion.guidance import EmptyCaption, null_text
from mobile_video_jax.generate.clips import FRAME_RATE
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.prompts import Request, file_names, read_requests
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.latents.store import has_split, read_manifest, records
from mobile_video_jax.metrics.clip_scores import Caption, Scorer
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.vae import VaeBundle, on_mesh
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.text.encoder import CaptionStates, TextEncoder, pad
from mobile_video_jax.train.stage import Samples


@dataclasses.dataclass(frozen=True, eq=False)
class SamplePrompts:
    """Captions to sample for, each with its seed and its text states; of a world their attributes are scored."""

    captions: Sequence[Caption]
    seeds: Sequence[int]
    states: Sequence[CaptionStates]
    world: World | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingSamples:
    """Samples latents for the prompts and decodes them with `vae`. `empty` as in diffusion.guidance.null_text."""

    denoiser: Denoiser
    config: SampleConfig
    prompts: SamplePrompts
    vae: VaeBundle
    empty: EmptyCaption | None = None

    def write(self, params: Any, out: Path) -> Samples:
        """Writes the clips of these parameters into `out`, and returns them with the means of their scores."""
        clips, captions = self._generate(params), self.prompts.captions
        rate = self.denoiser.sampling.frame_rate or FRAME_RATE
        requests = [Request(caption.text, seed) for caption, seed in zip(captions, self.prompts.seeds, strict=True)]
        named = dict(zip(file_names(requests), clips, strict=True))
        if jax.process_index() == 0:
            for name, frames in named.items():
                write_mp4(out / f"{name}.mp4", frames, rate)
        scores = Scorer(self.prompts.world)(clips, captions).per_clip
        means = {f"sample_{metric.key}": float(np.mean(values)) for metric, values in scores.items()}
        return Samples(means, {f"samples/{name}": frames for name, frames in named.items()}, rate)

    def _generate(self, params: Any) -> Clips:
        return self._decode(multihost_utils.process_allgather(self._latents(params, *self._text), tiled=True))

    @functools.cached_property
    def _text(self) -> tuple[np.ndarray, np.ndarray]:
        return pad(list(self.prompts.states), self.denoiser.config.text_tokens)

    @functools.cached_property
    def _latents(self) -> Callable[..., jax.Array]:
        @jax.jit
        def sample(params: Any, text: jax.Array, mask: jax.Array) -> jax.Array:
            keys = jnp.stack([jax.random.key(seed) for seed in self.prompts.seeds])
            noise = jax.vmap(lambda key: jax.random.normal(key, self.denoiser.latent_shape))(keys)
            empty = null_text(text, mask, self.empty)
            return sample_latents(self.denoiser.network, self.config, params, noise, text, mask, empty)

        return sample

    @functools.cached_property
    def _decode(self) -> Callable[[np.ndarray], Clips]:
        return on_mesh(self.vae, make_mesh(MeshConfig(), jax.local_devices()[:1]))[1]


def held_out_prompts(data: Path, count: int) -> SamplePrompts:
    """The first captions of an encoded data set's validation split, the i-th with seed i."""
    if not has_split(data, "validation"):
        raise UserError(
            f"{data} holds no validation split to sample captions of: name your own --config.sample_prompts"
        )
    rows = list(itertools.islice(records(data, "validation"), count))
    captions = [Caption(row["id"], row["caption"], row["attributes"]) for row in rows]
    world = read_manifest(data).get("source", {}).get("world")
    states = [row["text_states"] for row in rows]
    return SamplePrompts(captions, range(len(rows)), states, world and from_mapping(World, world))


def read_prompts(path: Path, encoder: TextEncoder, text_tokens: int) -> SamplePrompts:
    """The prompts of a list (see generate.prompts.read_requests), read by `encoder`.

    Raises UserError for a list with images, and for a prompt of more than `text_tokens` tokens.
    """
    requests = read_requests(path, seed=0, images=[])
    if any(request.image for request in requests):
        raise UserError(f"{path}: clips start from no image while a run trains: leave out the key image")
    states = encoder.encode([request.prompt for request in requests])
    pad(states, text_tokens)  # refuses one that is too long
    captions = [Caption(f"prompt-{i}", request.prompt, {}) for i, request in enumerate(requests)]
    return SamplePrompts(captions, [request.seed for request in requests], states)
