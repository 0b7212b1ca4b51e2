"""The text-to-video transformer's training stage."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np

from mobile_video_jax.core.arrays import FrameTimes, Rng, Scalar
from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.flops import (
    count_flops,
    count_parameters,
    flops_by_part,
    largest_products,
    parameters_by_part,
)
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.data.cache import data_folder
from mobile_video_jax.data.latent_batches import Mix, latent_batches
from mobile_video_jax.data.latents import read_empty_caption, read_manifest
from mobile_video_jax.diffusion.conditioning import frame_times
from mobile_video_jax.diffusion.guidance import EmptyCaption, drop_captions
from mobile_video_jax.diffusion.timesteps import sample_times, stratified_times, token_shift
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.lora import LoraConfig, init_adapter, merged
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.parts import part_of
from mobile_video_jax.nn.module import apply
from mobile_video_jax.parallel.mesh import batch_share, make_mesh
from mobile_video_jax.stages.adapter import check_adapter, record_base, restore_transformer
from mobile_video_jax.stages.bundle import VaeBundle, copy_bundle
from mobile_video_jax.stages.noised import Noised, goes_on, noised
from mobile_video_jax.stages.sampling import SampleConfig
from mobile_video_jax.stages.teacher import check_latents
from mobile_video_jax.stages.training_samples import TrainingSamples, first_captions
from mobile_video_jax.train.config import TrainConfig
from mobile_video_jax.train.stage import Batch, Cost, Metrics, Params
from mobile_video_jax.vae.latent_stats import LatentStats

SAMPLE_STEPS = 10  # a quarter of what launch.sample takes: enough to see whether a run learns


@dataclasses.dataclass(frozen=True)
class DitTraining(TrainConfig):
    """Config of a transformer run: what the data must hold, the network and the objective.

    `data` is one encoded data set or several, separated by commas, with clips of any shapes; `clip` is that of samples.
    A batch holds clips of one shape, at most `token_budget` tokens (0: those of `batch_size` times `clip`); for
    `image_share` and `pad_durations` see Mix. With probability `image_probability` a clip's first latent frame is
    given, so that the model learns to go on from an image. Times are shifted by `time_shift`, or by the clip's tokens.
    A sampler's last step starts at `time_terminal` (0: where the grid says, see time_grid).
    Every `sample_every` steps (0: never) `sample_clips` clips are drawn into the run, see TrainingSamples. With
    `lora.rank` an adapter of the run in `init_from` is trained, and nothing else.
    """

    stage: str = "dit"
    clip: str = "17x64x64"
    compression: str = "t4_s8_c16"
    text_encoder: str = "minilm"
    text_width: int = 384
    text_tokens: int = 16
    token_budget: int = 0
    image_share: float = -1.0
    pad_durations: bool = False
    caption_dropout: float = 0.1
    image_probability: float = 0.0
    time_shift: float = 1.0
    shift_follows_tokens: bool = False
    time_terminal: float = 0.0
    sample_every: int = 0
    sample_clips: int = 4
    model: DitConfig = dataclasses.field(default_factory=DitConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)


class DitStage:
    """Flow matching on normalised latents.

    Parameters are the network's; of an adapter {"adapter", "base"}, and a run leaves the adapter.
    """

    def __init__(self, config: DitTraining):
        if config.sample_clips < 1:
            raise UserError(f"sample_clips must be 1 or more, not {config.sample_clips}; sample_every=0 draws none")
        check_adapter(config.lora.rank, config.stage, config.init_from)
        self.config = config
        self.strides = Compression.parse(config.compression)
        self.clip = ClipShape.parse(config.clip)
        self.latent_shape = (*self.clip.latent(self.strides), self.strides.channels)
        self.dit = Dit(config.model)

    def input_shapes(self, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        cfg = self.config
        return {
            "latents": jax.ShapeDtypeStruct((batch, *self.latent_shape), jnp.float32),
            "text": jax.ShapeDtypeStruct((batch, cfg.text_tokens, cfg.text_width), jnp.float32),
            "text_mask": jax.ShapeDtypeStruct((batch, cfg.text_tokens), jnp.bool_),
        }

    @property
    def sample_every(self) -> int:
        return self.config.sample_every

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset({"base"} if self.config.lora.rank else ())

    def model(self, params: Params) -> Params:
        return params | {"base": {}} if self.config.lora.rank else params

    def given(self, target: Params) -> Params:
        if not self.config.init_from:
            return {}
        run = storage_path(self.config.init_from)
        if self.config.lora.rank:
            return {"base": restore_transformer(run, target["base"])}
        return restore_transformer(run, target)

    def init(self, rng: Rng) -> Params:
        network, lora = self._init_network(rng), self.config.lora
        if not lora.rank:
            return network
        return {"adapter": init_adapter(lora, named_key(rng, "adapter"), network), "base": network}

    def _init_network(self, rng: Rng) -> Params:
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.input_shapes(1))
        return self.dit.init(rng, example["latents"], jnp.zeros(1), example["text"], example["text_mask"])["params"]

    def network(self, params: Params) -> Params:
        """The network's parameters: W + alpha / rank A B where an adapter has factors of W."""
        lora = self.config.lora
        return merged(params["base"], params["adapter"], lora.scale) if lora.rank else params

    def time_shift(self, tokens: int) -> float:
        """The shift of the times that clips of so many tokens are trained and sampled at."""
        return token_shift(tokens) if self.config.shift_follows_tokens else self.config.time_shift

    def sampled_times(self, tokens: int) -> dict[str, Any]:
        """What time_grid takes for clips of so many tokens."""
        return {"shift": self.time_shift(tokens), "terminal": self.config.time_terminal}

    @functools.cached_property
    def empty_caption(self) -> EmptyCaption | None:
        """The state of "no caption" in the data's text states, None for zeros."""
        return read_empty_caption(data_folder(self.config.data.split(",")[0])) if self.config.data else None

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        asked = self.noised(batch, rng)
        return jnp.mean(asked.errors(apply(self.dit, self.network(params), *asked.inputs))), {}

    def noised(self, batch: Batch, rng: Rng) -> Noised:
        """A training step's question: random times, now and then an image to start from, now and then no caption."""
        x0, cfg = batch["latents"], self.config
        t = sample_times(named_key(rng, "times"), x0.shape[0], shift=self._shift_of(x0))
        if cfg.image_probability:
            given = jax.random.bernoulli(named_key(rng, "images"), cfg.image_probability, t.shape)
            t = frame_times(t, x0.shape[1], given & goes_on(batch))
        rate, empty = cfg.caption_dropout, self.empty_caption
        text = drop_captions(named_key(rng, "captions"), batch["text"], batch["text_mask"], rate, empty)
        return noised(batch, t, *text, named_key(rng, "noise"))

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Held-out velocity error at the quantiles of the training times, with captions, and with images as well."""
        x0, network = batch["latents"], self.network(params)

        def error(t: FrameTimes) -> Scalar:
            asked = noised(batch, t, batch["text"], batch["text_mask"], named_key(rng, "noise"))
            return jnp.mean(asked.errors(apply(self.dit, network, *asked.inputs)))

        t = stratified_times(x0.shape[0], shift=self._shift_of(x0))
        losses = {"loss": error(t)}
        if self.config.image_probability:
            losses["image_loss"] = error(frame_times(t, x0.shape[1], goes_on(batch)))
        return losses

    def _shift_of(self, latents: jax.Array) -> float:
        return self.time_shift(math.prod(latents.shape[1:4]))

    def watch(self, metrics: Mapping[str, float]) -> str | None:
        """Flow matching does not collapse."""
        return None

    def train_batches(self) -> grain.IterDataset:
        return self._batches("train", train=True)

    def eval_batches(self) -> Iterable[dict[str, np.ndarray]]:
        return itertools.islice(self.ordered_batches("validation"), self.config.eval_batches)

    def ordered_batches(self, split: str) -> grain.IterDataset:
        """The full batches of a split once, in order."""
        return self._batches(split, train=False)

    def _batches(self, split: str, *, train: bool) -> grain.IterDataset:
        cfg = self.config
        index, count = batch_share(make_mesh(cfg.mesh))
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
        if self.config.lora.rank:
            check_latents((self.config.init_from,), folders[0])
        return folders

    def abstract_batch(self, devices: int | None = None) -> Batch:
        batch = self.input_shapes(self.batch_size(self.clip, devices))
        if self.config.pad_durations:
            batch["latent_mask"] = jax.ShapeDtypeStruct(batch["latents"].shape[:4], jnp.bool_)
        return batch

    def cost(self, devices: int | None = None) -> Cost:
        tokens = self.batch_size(self.clip, devices) * self.clip.tokens(self.strides)
        if self.config.lora.rank:
            return Cost(tokens, self._adapter_flops(devices))
        flops = count_flops(self.loss, self.model_shapes(), self.abstract_batch(devices), jax.random.key(0))
        # The backward pass costs two products for each one of the forward pass.
        return Cost(tokens, 3 * sum(flops.values()))

    def _adapter_flops(self, devices: int | None) -> int:
        """Those of the gradient itself, which needs no product for kernels without factors; remat is left out."""
        model = dataclasses.replace(self.config.model, remat="none")
        stage = DitStage(dataclasses.replace(self.config, model=model))
        params = nn.unbox(jax.eval_shape(stage.init, jax.random.key(0)))
        loss = lambda adapter, base, *inputs: stage.loss({"adapter": adapter, "base": base}, *inputs)[0]
        inputs = (self.abstract_batch(devices), jax.random.key(0))
        return sum(count_flops(jax.grad(loss), params["adapter"], params["base"], *inputs).values())

    def description(self) -> dict[str, Any]:
        described = {
            "compression": self.config.compression,
            "clip": str(self.clip),
            "latent_shape": list(self.latent_shape),
            "text_encoder": self.config.text_encoder,
            "parameters": count_parameters(self.model_shapes()),
        }
        if self.config.lora.rank:
            adapter = jax.eval_shape(self.init, jax.random.key(0))["adapter"]
            described["trainable_parameters"] = count_parameters(adapter)
        return described

    def model_shapes(self) -> Params:
        """The shapes of the network that a run leaves for use."""
        return nn.unbox(jax.eval_shape(self._init_network, jax.random.key(0)))

    def inspect(self) -> dict[str, Any]:
        params = self.model_shapes()
        latents, text, mask = self.input_shapes(1).values()
        arguments = (params, latents, jax.ShapeDtypeStruct((1,), jnp.float32), text, mask)
        forward = lambda p, *inputs: apply(self.dit, p, *inputs)
        counts = parameters_by_part(params, part_of)
        return {
            **self.description(),
            "tokens": self.clip.tokens(self.strides),
            "parameters": counts,
            "flops": flops_by_part(forward, *arguments, part_of=part_of),
            "bytes": 4 * counts["total"],
            "bytes_by_part": {part: 4 * count for part, count in counts.items()},
            "activation_bytes": largest_products(forward, *arguments, part_of=part_of),
        }

    def start(self, run: Path) -> None:
        """Copies the VAE of the latents into the run, which then holds or names all that sampling needs."""
        copy_bundle(self._checked_data()[0] / "vae", run / "vae")
        if self.config.lora.rank:
            record_base(run, storage_path(self.config.init_from))

    def sample(self, params: Params, step: int, run: Path) -> dict[str, float]:
        return self._samples.write(self.network(params), run / "samples" / str(step))

    def sampling(self) -> SampleConfig:
        """How clips are drawn as the network trains."""
        return SampleConfig(SAMPLE_STEPS, **self.sampled_times(self.clip.tokens(self.strides)))

    @functools.cached_property
    def _samples(self) -> TrainingSamples:
        cfg, data = self.config, self._checked_data()[0]
        captions, world = first_captions(data, cfg.sample_clips)
        vae = VaeBundle.load(data / "vae")
        of_clips = (self.latent_shape, cfg.text_tokens, captions, vae, world, self.empty_caption)
        return TrainingSamples(self.dit, self.sampling(), *of_clips)

    def finish(self, run: Path, params: Params, progress: Callable[[str], None]) -> None:
        """A transformer leaves nothing beside its checkpoints."""


def _check_same(folder: Path, key: str, made: object, wanted: object) -> None:
    if made != wanted:
        raise UserError(
            f"data set {folder} was encoded with {key}={made}, the config has {wanted}: "
            f"set --config.{key}={made} or encode again"
        )
