"""From prompts to clips: text encoder, transformer, sampler and VAE decoder of one run."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.config import from_mapping
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.guidance import Guidance, guided
from mobile_video_jax.diffusion.samplers import sample
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.nn.module import apply
from mobile_video_jax.stages.bundle import VaeBundle, restore_params
from mobile_video_jax.stages.dit import DitStage, DitTraining
from mobile_video_jax.text.encoder import TextEncoder, load_text_encoder, pad
from mobile_video_jax.train.run import read_run
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.pixels import to_bytes


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """How clips are drawn: solver steps, guidance scale, time shift and solver; and how they are decoded.

    `negative_prompt` takes the place of the empty caption, `guidance_*` are the fields of Guidance.
    `chunk` latent frames are decoded at a time (0: all) and frames in tiles of `tile` pixels (0: whole), so that long
    and large clips fit.
    """

    steps: int = 40
    guidance: float = 5.0
    shift: float = 1.0
    solver: str = "euler"
    chunk: int = 0
    tile: int = 0
    overlap: int = 0
    negative_prompt: str = ""
    guidance_low: float = 0.0
    guidance_high: float = 1.0
    guidance_rescale: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: jit caches on it
class Generator:
    """A text-to-video model ready to sample."""

    config: DitTraining
    dit: Dit
    params: Any
    vae: VaeBundle
    text_encoder: TextEncoder
    latent_shape: tuple[int, int, int, int]

    @classmethod
    def load(cls, run: Path, vae: Path | None = None, text_encoder: str = "") -> "Generator":
        """Reads a transformer run and the VAE inside it, or another VAE of the same latents.

        `text_encoder` tells where the encoder lies that the run was trained with, as "t5:FOLDER"; an embedded one is
        found by itself. Raises UserError where a run is missing or damaged, and for other latents or text states.
        """
        config = from_mapping(DitTraining, read_run(run, "dit")["config"])
        stage = DitStage(config)
        example = [jnp.zeros((1, *stage.latent_shape)), jnp.zeros(1)]
        example += [jnp.zeros((1, config.text_tokens, config.text_width)), jnp.ones((1, config.text_tokens), bool)]
        params = restore_params(run, stage.dit, *example)
        encoder = load_text_encoder(text_encoder or config.text_encoder)
        if encoder.name != config.text_encoder:
            raise UserError(f"{run} was trained with text encoder {config.text_encoder}, not {encoder.name}")
        bundle = VaeBundle.load(vae or run / "vae")
        if vae and bundle.stats != LatentStats.load(run / "vae"):
            raise UserError(f"{vae} has other latents than those {run} was trained on: name a decoder trained for them")
        return cls(config, stage.dit, params, bundle, encoder, stage.latent_shape)

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        config: SampleConfig,
        *,
        batch_size: int = 16,
        progress: Callable[[int], object] = lambda done: None,
    ) -> Clips:
        """One clip a prompt. A clip depends on its prompt and seed alone, not on what else is drawn with it."""
        text, mask = pad(self.text_encoder.encode(prompts), self.config.text_tokens)
        run, decode = jax.jit(self._sample, static_argnums=5), self._decoder(config)
        clips = []
        batch_size = min(batch_size, len(prompts))
        negative = self._negative(config.negative_prompt, batch_size)
        for start in range(0, len(prompts), batch_size):
            # A short last batch is filled up by its last prompt, so that one program serves all batches.
            rows = np.minimum(np.arange(start, start + batch_size), len(prompts) - 1)
            keys = jnp.stack([jax.random.key(seeds[row]) for row in rows])
            noise = jax.vmap(lambda key: jax.random.normal(key, self.latent_shape))(keys)
            latents = run(self.params, noise, text[rows], mask[rows], negative, config)
            clips.append(decode(latents)[: len(prompts) - start])
            progress(min(start + batch_size, len(prompts)))
        return np.concatenate(clips)

    def _negative(self, prompt: str, count: int) -> Any:
        """States and mask of the negative prompt for `count` clips; None, the null text, where there is no prompt."""
        if not prompt:
            return None
        text, mask = pad(self.text_encoder.encode([prompt]), self.config.text_tokens)
        return np.repeat(text, count, axis=0), np.repeat(mask, count, axis=0)

    def _sample(self, params: Any, noise: Any, text: Any, mask: Any, negative: Any, config: SampleConfig) -> Any:
        def denoiser(x_t: Any, t: Any, text: Any, mask: Any) -> Any:
            return apply(self.dit, params, x_t, t, text, mask)

        guidance = Guidance(config.guidance, config.guidance_low, config.guidance_high, config.guidance_rescale)
        velocity = guided(denoiser, text, mask, guidance, negative)
        return sample(velocity, noise, steps=config.steps, shift=config.shift, solver=config.solver)

    def _decoder(self, config: SampleConfig) -> Callable[[jax.Array], Clips]:
        """Clips of normalised latents, in one pass or in pieces."""
        if not (config.chunk or config.tile):
            decode = jax.jit(lambda params, latents: to_bytes(self.vae.decode(params, latents)))
            return lambda latents: np.asarray(decode(self.vae.params, latents))
        self.vae.coder(config.tile, config.overlap)  # refuses a tile that does not fit before anything is drawn
        return lambda latents: self.vae.decode_in_pieces(latents, config.chunk, config.tile, config.overlap)
