"""Stages that train a denoiser on encoded clips: their batches, and the checks of the data."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.data.location import data_folder
from mobile_video_jax.diffusion.guidance import EmptyCaption
from mobile_video_jax.latents.batches import Mix, buckets, latent_batches, no_more
from mobile_video_jax.latents.store import MANIFEST, Record, has_split, read_empty_caption, read_manifest
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import VAE, Run
from mobile_video_jax.models.sampling import STANDARD, Sampling
from mobile_video_jax.parallel.mesh import batch_shard
from mobile_video_jax.stages.config import LatentTraining
from mobile_video_jax.text.encoder_name import in_pipeline
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.train.stage import Batch, Stage
from mobile_video_jax.train.synthetic import SYNTHETIC, synthetic_batches
from mobile_video_jax.vae.latent_stats import LatentStats

T = TypeVar("T", bound=LatentTraining)


class LatentStage(Stage):
    """Batches of normalised latents and text states; the clips of a batch have one shape.

    Of a network that knows seconds the positions follow the frame rate of the data.
    """

    config: LatentTraining

    def __init__(self, config: LatentTraining, sampling: Sampling = STANDARD):
        super().__init__(at_data_rate(config))
        self.denoiser = Denoiser(self.config, sampling)
        self.strides, self.clip = self.denoiser.strides, self.denoiser.clip

    @functools.cached_property
    def source(self) -> Run | None:
        """The run that training starts from."""
        return Run.open(self.config.init_from) if self.config.init_from else None

    @property
    def has_data(self) -> bool:
        """True where the config names encoded data sets."""
        return self.config.data not in ("", SYNTHETIC)

    @property
    def pretrained_runs(self) -> tuple[Run, ...]:
        """The runs that parameters are read from, which know the data's latents."""
        return (self.source,) if self.source else ()

    @functools.cached_property
    def empty_caption(self) -> EmptyCaption | None:
        """The state of "no caption" in the data's text states, None for zeros.

        Raises UserError where the data lack it and a pipeline's encoder made them.
        """
        if not self.has_data:
            return None
        folder = data_folder(self.config.data.split(",")[0])
        state = read_empty_caption(folder)
        if state is None and in_pipeline(self.config.text_encoder):
            raise UserError(f"{folder} does not exist or holds no state of an empty caption: encode the data again")
        return state

    @property
    def data_frame_rate(self) -> float:
        """Frames a second of the videos that the data were encoded from; 0 where their manifest does not say."""
        return next(iter(_rates(self.config.data)), 0.0)

    def train_batches(self, mesh: Mesh) -> grain.IterDataset:
        if self.config.data == SYNTHETIC:
            return synthetic_batches(self.abstract_batch(), mesh)
        return self._batches("train", mesh, train=True)

    def eval_batches(self, mesh: Mesh) -> Iterable[dict[str, np.ndarray]]:
        """Held-out batches, at least one of every bucket; none where the data have no validation split."""
        if self.config.data == SYNTHETIC:
            return ()
        folders = [data_folder(folder) for folder in self.config.data.split(",")]
        held_out = [folder for folder in folders if has_split(folder, "validation")]
        if not held_out:
            return ()
        batches = self._batches("validation", mesh, train=False)
        count = len(buckets(held_out, "validation", pad_durations=self.config.pad_durations))
        return itertools.islice(batches, max(self.config.eval_batches, count))

    def _batches(self, split: str, mesh: Mesh, *, train: bool) -> grain.IterDataset:
        cfg = self.config
        index, count = batch_shard(mesh)
        return latent_batches(
            self.data_folders,
            split,
            Mix(functools.partial(self.batch_size, devices=mesh.size), cfg.image_share, cfg.pad_durations),
            text_tokens=cfg.text_tokens,
            seed=cfg.seed,
            train=train,
            threads=cfg.loader_threads,
            process_index=index,
            process_count=count,
            also=self.arrays_of,
        )

    @property
    def arrays_of(self) -> Callable[[Record], Record]:
        """Further arrays of a batch, made of each record of the data."""
        return no_more

    def batch_size(self, clip: ClipShape, devices: int | None = None) -> int:
        """Clips of one shape in a batch: the token budget's, a multiple of data shards and accumulated parts."""
        cfg, tokens = self.config, clip.tokens(self.strides)
        budget = cfg.token_budget or cfg.batch_size * self.clip.tokens(self.strides)
        data, fsdp, _ = cfg.mesh.sizes(devices or jax.device_count())
        shards = math.lcm(data * fsdp, cfg.optimizer.accumulate)
        if budget < shards * tokens:
            raise UserError(
                f"a batch of {budget} tokens holds no {shards} clips of {clip}, {tokens} tokens each: "
                f"set token_budget to {shards * tokens} or more"
            )
        return budget // (shards * tokens) * shards

    def batch_sizes(self) -> dict[str, int]:
        if not self.has_data:
            return {}
        parts = [read_manifest(folder)["splits"].get("train", {}) for folder in self.data_folders]
        clips = sorted({clip for part in parts for clip, sizes in part.items() if sizes["records"]})
        return {clip: self.batch_size(ClipShape.parse(clip)) for clip in clips}

    def batch_tokens(self, devices: int | None = None) -> int:
        return self.batch_size(self.clip, devices) * self.denoiser.tokens

    def abstract_batch(self, devices: int | None = None) -> Batch:
        batch = self.denoiser.input_shapes(self.batch_size(self.clip, devices))
        if self.config.pad_durations:
            batch["latent_mask"] = jax.ShapeDtypeStruct(batch["latents"].shape[:4], jnp.bool_)
        return batch

    @functools.cached_property
    def data_folders(self) -> list[Path]:
        """The data folders, checked.

        Raises UserError where one was encoded for another VAE, clip or text encoder, and where a run that parameters
        are read from was trained on other latents.
        """
        folders = [data_folder(folder) for folder in self.config.data.split(",")]
        manifests = {folder: read_manifest(folder) for folder in folders}
        for folder, manifest in manifests.items():
            for key in ("compression", "text_encoder", "text_width"):
                _check_same(folder, key, manifest[key], getattr(self.config, key))
            if manifest["text_tokens"] > self.config.text_tokens:
                _check_same(folder, "text_tokens", manifest["text_tokens"], self.config.text_tokens)
            if LatentStats.load(folder / VAE) != LatentStats.load(folders[0] / VAE):
                raise UserError(f"{folder} and {folders[0]} were encoded by two VAEs: encode both with one")
        clips = sorted({clip for manifest in manifests.values() for clip in manifest["clips"]})
        if str(self.clip) not in clips:
            _check_same(folders[0], "clip", " or ".join(clips), str(self.clip))
        for run in self.pretrained_runs:
            _check_latents(run.path, folders[0])
        return folders

    def check(self, run: Path) -> None:
        """Raises UserError where the run was trained on other latents than those of the data."""
        if self.has_data and newest_step(run) is not None:
            _check_latents(run, self.data_folders[0])

    def start(self, run: Path) -> None:
        """Copies the VAE of the latents into the run, which then holds or names all that sampling needs."""
        if self.has_data:
            Run.open(self.data_folders[0] / VAE, VAE).copy(run / VAE)


def at_data_rate(config: T) -> T:
    """The config for the frame rate of its data, where its network knows seconds and the data know their rate.

    Raises UserError for data of several rates.
    """
    if config.at_rate(1.0) == config.at_rate(2.0):  # its network knows no seconds
        return config
    rates = _rates(config.data)
    if len(rates) > 1:
        raise UserError(f"{config.data} hold clips of {rates} frames/s: prepare all with one --fps for this network")
    return config.at_rate(rates[0]) if rates else config


def _rates(data: str) -> list[float]:
    """The frame rates of encoded data sets, as far as they are there and know them."""
    folders = [storage_path(folder) for folder in data.split(",") if folder]
    manifests = [read_manifest(folder) for folder in folders if (folder / MANIFEST).exists()]
    return list(dict.fromkeys(float(rate) for each in manifests if (rate := each.get("source", {}).get("fps"))))


def _check_same(folder: Path, key: str, encoded: object, configured: object) -> None:
    if encoded != configured:
        raise UserError(
            f"data set {folder} was encoded with {key}={encoded}, the config has {configured}: "
            f"set --config.{key}={encoded} or encode again"
        )


def _check_latents(run: Path, data: Path) -> None:
    if LatentStats.load(run / VAE) != LatentStats.load(data / VAE):
        raise UserError(f"{run} was trained on other latents than {data}: encode the data with its VAE")
