"""A stage that trains on encoded clips: its config, its batches and what they must hold."""

import functools
import itertools
import math
from collections.abc import Iterable
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.data.cache import data_folder
from mobile_video_jax.diffusion.guidance import EmptyCaption
from mobile_video_jax.latents.batches import Mix, latent_batches
from mobile_video_jax.latents.store import read_empty_caption, read_manifest
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.sampling import STANDARD, Sampling
from mobile_video_jax.parallel.mesh import batch_shard, make_mesh
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.text.encoder import LTX_PREFIX
from mobile_video_jax.train.stage import Batch
from mobile_video_jax.vae.latent_stats import LatentStats


class LatentStage:
    """Batches of normalised latents and text states, whose clips have one shape each."""

    def __init__(self, config: DitTraining, sampling: Sampling = STANDARD):
        self.config = config
        self.denoiser = Denoiser(config, sampling)
        self.strides, self.clip = self.denoiser.strides, self.denoiser.clip

    @functools.cached_property
    def empty_caption(self) -> EmptyCaption | None:
        """The state of "no caption" in the data's text states, None for zeros.

        Raises UserError where the data lack it and LTX-Video's encoder made them.
        """
        if not self.config.data:
            return None
        folder = data_folder(self.config.data.split(",")[0])
        state = read_empty_caption(folder)
        if state is None and self.config.text_encoder.startswith(LTX_PREFIX):
            raise UserError(f"{folder} does not exist or holds no state of an empty caption: encode the data again")
        return state

    def train_batches(self) -> grain.IterDataset:
        return self._batches("train", train=True)

    def eval_batches(self) -> Iterable[dict[str, np.ndarray]]:
        return itertools.islice(self.ordered_batches("validation"), self.config.eval_batches)

    def ordered_batches(self, split: str) -> grain.IterDataset:
        """The full batches of a split once, in order."""
        return self._batches(split, train=False)

    def _batches(self, split: str, *, train: bool) -> grain.IterDataset:
        cfg = self.config
        index, count = batch_shard(make_mesh(cfg.mesh))
        return latent_batches(
            self._checked_data(),
            split,
            Mix(self.batch_size, cfg.image_share, cfg.pad_durations),
            text_tokens=cfg.text_tokens,
            seed=cfg.seed,
            train=train,
            threads=cfg.loader_threads,
            process_index=index,
            process_count=count,
        )

    def batch_size(self, clip: ClipShape, devices: int | None = None) -> int:
        """Clips of one shape in a batch: what the token budget holds, in whole shares for devices and accumulation."""
        cfg, tokens = self.config, clip.tokens(self.strides)
        budget = cfg.token_budget or cfg.batch_size * self.clip.tokens(self.strides)
        data, fsdp, _ = cfg.mesh.sizes(devices or jax.device_count())
        share = math.lcm(data * fsdp, cfg.optimizer.accumulate)
        if budget < share * tokens:
            raise UserError(
                f"a batch of {budget} tokens holds no {share} clips of {clip}, {tokens} tokens each: "
                f"set token_budget to {share * tokens} or more"
            )
        return budget // (share * tokens) * share

    def _checked_data(self) -> list[Path]:
        """The data folders. Raises UserError where one was encoded for another VAE, clip or text encoder."""
        folders = [data_folder(folder) for folder in self.config.data.split(",")]
        encoded = {folder: read_manifest(folder) for folder in folders}
        for folder, manifest in encoded.items():
            for key in ("compression", "text_encoder", "text_width"):
                _check_same(folder, key, manifest[key], getattr(self.config, key))
            if manifest["text_tokens"] > self.config.text_tokens:
                _check_same(folder, "text_tokens", manifest["text_tokens"], self.config.text_tokens)
            if LatentStats.load(folder / "vae") != LatentStats.load(folders[0] / "vae"):
                raise UserError(f"{folder} and {folders[0]} were encoded by two VAEs: encode both with one")
        clips = sorted({clip for manifest in encoded.values() for clip in manifest["clips"]})
        if str(self.clip) not in clips:
            _check_same(folders[0], "clip", " or ".join(clips), str(self.clip))
        return folders

    def abstract_batch(self, devices: int | None = None) -> Batch:
        batch = self.denoiser.input_shapes(self.batch_size(self.clip, devices))
        if self.config.pad_durations:
            batch["latent_mask"] = jax.ShapeDtypeStruct(batch["latents"].shape[:4], jnp.bool_)
        return batch


def _check_same(folder: Path, key: str, made: object, wanted: object) -> None:
    if made != wanted:
        raise UserError(
            f"data set {folder} was encoded with {key}={made}, the config has {wanted}: "
            f"set --config.{key}={made} or encode again"
        )
