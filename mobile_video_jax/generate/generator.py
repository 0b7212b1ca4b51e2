"""From prompts to clips: text encoder, transformer, sampler and VAE of one run, over this process's devices."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.diffusion.timesteps import listed_times, time_grid
from mobile_video_jax.generate.clips import FRAME_RATE, GeneratedClips
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.prompts import Request, make_requests, picture
from mobile_video_jax.generate.sampling import sample_latents
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.vae import VaeBundle, on_mesh
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import batch_sharding, make_mesh
from mobile_video_jax.text.encoder import TextEncoder, load_text_encoder, pad


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, as the compiled programs it holds need
class Generator:
    """A text-to-video model ready to sample clips of one shape, a batch sharded over the devices of `mesh`.

    `vae` decodes; `image_vae`, the run's own, encodes the images that clips start from.
    """

    run: Run
    vae_run: Run
    params: Any
    vae: VaeBundle
    image_vae: VaeBundle
    text_encoder: TextEncoder
    clip: ClipShape
    mesh: Mesh

    @classmethod
    def load(
        cls,
        run: Run | Path | str,
        vae: Run | Path | str | None = None,
        text_encoder: str = "",
        *,
        clip: str = "",
        fsdp: int = 1,
        step: int | None = None,
        best: bool = False,
        fps: float | None = None,
    ) -> "Generator":
        """Reads a denoiser's run and the VAE inside it, or another VAE of the same latents.

        `text_encoder` tells where the encoder lies that the run was trained with, as "t5:FOLDER"; an embedded one is
        found by itself. Clips have the run's shape or that of `clip`; `fsdp` devices share one copy of the weights.
        `step` or `best` chooses a checkpoint, see Run.at; `fps` is the clips' frame rate, the run's own if None. Raises
        UserError where a run is missing or damaged, for other latents or text states, for a clip that the VAE cannot
        code and for devices that do not divide.
        """
        run = Run.open(run, step=step, best=best).at_rate(fps)
        config = run.sampled.config
        shape = ClipShape.parse(clip or config.clip).check(run.sampled.strides)
        mesh = make_mesh(MeshConfig(data=-1, fsdp=fsdp), jax.local_devices())
        params = run.sharded_params(mesh)
        encoder = load_text_encoder(text_encoder or config.text_encoder)
        if encoder.name != config.text_encoder:
            raise UserError(f"{run} was trained with text encoder {config.text_encoder}, not {encoder.name}")
        image_vae_run = run.vae_run()
        vae_run = Run.open(vae, "vae") if vae else image_vae_run
        image_vae = image_vae_run.vae()
        decoder = vae_run.vae() if vae else image_vae
        if decoder.stats != image_vae.stats:
            raise UserError(f"{vae} has other latents than those {run} was trained on: name a decoder trained for them")
        return cls(run, vae_run, params, decoder, image_vae, encoder, shape, mesh)

    @property
    def denoiser(self) -> Denoiser:
        """The network and what it knows of clips, captions, times and sampling."""
        return self.run.sampled

    @property
    def times(self) -> dict[str, Any]:
        """The arguments `shift`, `terminal` and `schedule` of time_grid and SampleConfig for clips of this shape."""
        return self.denoiser.sampled_times(self.clip.tokens(self.denoiser.strides))

    @property
    def frame_rate(self) -> float:
        """Frames a second of written clips: as chosen, the run's own, or FRAME_RATE."""
        return self.denoiser.sampling.frame_rate or FRAME_RATE

    def sample_config(self, **changes: Any) -> SampleConfig:
        """The run's own sampling settings, with those of the changes that are not None.

        Listed times decide the number of steps. Raises UserError for times that the model was not distilled at, and for
        guidance by a path that it was not trained with.
        """
        sampling = self.denoiser.sampling
        changes = {key: value for key, value in changes.items() if value is not None}
        if "guidance" in changes:  # of both experts, unless a second one is named
            changes = {"guidance_2": 0.0} | changes
        own_times = sampling.times if changes.get("steps", len(sampling.times)) == len(sampling.times) else ()
        times = changes.get("times") or own_times
        steps = changes.get("steps") or len(times) or sampling.steps
        defaults = {
            "guidance": sampling.guidance,
            "guidance_2": sampling.guidance_2,
            "boundary": sampling.boundary,
            "solver": sampling.solver,
            "reuse": sampling.reuse,
            "image_noise": sampling.image_noise,
            **self.times,
        }
        config = SampleConfig(**defaults | changes | {"steps": steps, "times": times})
        sampling.check(self.time_grid(config)[:-1].tolist())
        if config.path_drop and not self.run.config.get("path_drop"):
            raise UserError(
                "this model was not trained for path_drop: leave it out, or train with --config.path_drop=0.1"
            )
        if changes.get("path_drop") and config.guidance == 1:
            raise UserError("path_drop is a way to guide: leave it out, or name a --guidance above 1")
        return config

    def time_grid(self, config: SampleConfig) -> Float[Array, "n"]:
        """The times of the settings' steps, from 1 (noise) to 0 (data), for clips of this shape."""
        config = config.with_times(**self.times)
        if config.times:
            return listed_times(config.times)
        return time_grid(config.steps, shift=config.shift, terminal=config.terminal, schedule=config.schedule)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int = 0,
        config: SampleConfig | None = None,
        batch_size: int = 16,
        progress: Callable[[int], object] = lambda done: None,
        **changes: Any,
    ) -> GeneratedClips:
        """Generates a clip for each prompt, from noise of `seed`, seed + 1, …

        Settings are the run's own or `config`, with `changes` such as steps=8. A clip depends on its prompt, its seed
        and the settings alone, not on the others of its batch.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        config = dataclasses.replace(config, **changes) if config else self.sample_config(**changes)
        frames: list[np.ndarray] = []
        for clips in self.generate_batches(make_requests(texts, seed, []), config, batch_size):
            frames.extend(clips)
            progress(len(frames))
        return GeneratedClips(np.stack(frames), texts, self.frame_rate)

    def generate_batches(
        self, requests: Sequence[Request], config: SampleConfig, batch_size: int = 16
    ) -> Iterator[Clips]:
        """The requests' clips in batches of `batch_size`, or the next larger number that the devices share evenly."""
        decode, size = self._decoder(config), self._whole(min(batch_size, len(requests)) or 1)
        for start in range(0, len(requests), size):
            group = requests[start : start + size]
            yield decode(self.latents(_filled(group, size), config))[: len(group)]

    def latents(self, requests: Sequence[Request], config: SampleConfig) -> jax.Array:
        """Normalised latents [b lt lh lw c] of one batch, which the devices share evenly."""
        config = config.with_times(**self.times)
        inputs = jax.device_put(self.inputs(requests, config), batch_sharding(self.mesh))
        return self._compiled(config, self.params, *inputs)

    def check(self, requests: Sequence[Request], config: SampleConfig) -> None:
        """Raises UserError for settings that do not work and prompts that are too long, before any work."""
        if any(request.image for request in requests):
            self.denoiser.check_starts_from_images()
        config = config.with_times(**self.times)
        self._decoder(config)
        # The prompts of the most and of the fewest tokens show whatever may be wrong with one.
        lengths = list(map(len, self.text_encoder.tokenizer.encode_batch([request.prompt for request in requests])))
        extremes = [requests[int(np.argmax(lengths))], requests[int(np.argmin(lengths))]]
        inputs = self.inputs(_filled(extremes, self._whole(2)), config)
        jax.eval_shape(functools.partial(sample_latents, self.denoiser.network, config), self.params, *inputs)

    def settings(self, config: SampleConfig) -> dict[str, Any]:
        """What decides the clips beside the run and the sampler's settings, for samples.json."""
        return {}

    def _whole(self, count: int) -> int:
        """The size of the smallest batch of `count` clips or more that the devices share evenly."""
        return -(-count // self.mesh.size) * self.mesh.size

    def inputs(self, requests: Sequence[Request], config: SampleConfig) -> tuple[Any, ...]:
        """The arguments of sample_latents after the parameters."""
        keys = jnp.stack([jax.random.key(request.seed) for request in requests])
        shape = self.denoiser.latent_shape_of(self.clip)
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
        return noise, *self.conditions(requests, config)

    def conditions(self, requests: Sequence[Request], config: SampleConfig) -> tuple[Any, ...]:
        """Text states, their mask, those of the negative prompt if there is one, and images: see sample_latents."""
        text = self._text([request.prompt for request in requests])
        negative = None
        if config.negative_prompt or self.text_encoder.keeps_empty:
            negative = tuple(np.repeat(x, len(requests), axis=0) for x in self._negative(config.negative_prompt))
        return *text, negative, self._images(requests)

    def filled(self, requests: Sequence[Request]) -> list[Request]:
        """The requests and copies of the last, as many as the devices share evenly."""
        return _filled(requests, self._whole(len(requests)))

    def _negative(self, prompt: str) -> tuple[np.ndarray, np.ndarray]:
        states = self.text_encoder.encode([prompt]) if prompt else [self.text_encoder.empty()]
        return pad(states, self.denoiser.config.text_tokens)

    def _text(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return pad(self.text_encoder.encode(prompts), self.denoiser.config.text_tokens)

    def _images(self, requests: Sequence[Request]) -> tuple[np.ndarray, np.ndarray] | None:
        """First latent frames [b 1 lh lw c] and whose they are [b]; None where no request has an image."""
        has_image = np.array([request.image is not None for request in requests])
        if not has_image.any():
            return None
        blank = np.zeros((1, self.clip.height, self.clip.width, 3), np.uint8)
        pictures = [picture(request.image, self.clip) if request.image else blank for request in requests]
        # The VAE codes a clip's first frame alone, so a clip of one frame has the same latent.
        return self._encode(np.stack(pictures)), has_image

    @functools.cached_property
    def _compiled(self) -> Callable[..., jax.Array]:
        generate = functools.partial(sample_latents, self.denoiser.network)
        return jax.jit(generate, static_argnums=0, out_shardings=batch_sharding(self.mesh))

    @functools.cached_property
    def _encode(self) -> Callable[[Clips], np.ndarray]:
        return on_mesh(self.image_vae, self.mesh)[0]

    @functools.cached_property
    def _decode(self) -> Callable[[Any], Clips]:
        return on_mesh(self.vae, self.mesh)[1]

    def _decoder(self, config: SampleConfig) -> Callable[[jax.Array], Clips]:
        """Clips of normalised latents, in one pass or in pieces. Raises UserError for a tile that does not fit."""
        if not (config.chunk or config.tile):
            return self._decode
        if config.chunk and not self.vae.decodes_in_chunks:
            raise UserError("this decoder looks ahead and takes a clip in one piece: leave out --chunk, use --tile")
        self.vae.coder(config.tile, config.overlap)
        return lambda latents: self.vae.decode_in_pieces(latents, config.chunk, config.tile, config.overlap)


def _filled(requests: Sequence[Request], size: int) -> list[Request]:
    """The requests and copies of the last, `size` in all, so that one program serves all batches."""
    return [*requests, *[requests[-1]] * (size - len(requests))]
