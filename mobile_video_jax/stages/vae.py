"""The VAE's training stage."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mobile_video_jax.core.arrays import Rng, Scalar, Video
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.flops import flops_by_part, parameters_by_part
from mobile_video_jax.data.video.write import write_mp4
from mobile_video_jax.generate.clips import FRAME_RATE
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.vae import check_rows, network_of, published_network
from mobile_video_jax.nn.module import apply, init
from mobile_video_jax.parallel.distributed import is_first, wait_for_all
from mobile_video_jax.parallel.mesh import put_batch, replicated
from mobile_video_jax.parallel.rules import constrain_to_rows
from mobile_video_jax.stages import vae_batches
from mobile_video_jax.stages.config import VaeTraining
from mobile_video_jax.stages.vae_source import open_source, with_published_encoder
from mobile_video_jax.train.held_out import mean_over_clips
from mobile_video_jax.train.stage import Batch, Loss, Metrics, Params, Samples, Stage
from mobile_video_jax.train.synthetic import SYNTHETIC, synthetic_batches
from mobile_video_jax.vae.decoder_flops import decoder_flops_per_frame
from mobile_video_jax.vae.decoder_phone import decoder_cost
from mobile_video_jax.vae.latent_stats import LatentStats
from mobile_video_jax.vae.losses.by_clip import psnr_by_clip, terms_by_clip
from mobile_video_jax.vae.losses.discriminator import PatchDiscriminator
from mobile_video_jax.vae.losses.objective import Adversary, VaeObjective
from mobile_video_jax.vae.losses.teacher import Pair, Projectors, decode_with_features, pairs
from mobile_video_jax.vae.losses.terms import TERMS
from mobile_video_jax.vae.losses.vgg import Vgg, load_vgg
from mobile_video_jax.vae.model import Vae
from mobile_video_jax.vae.pixels import to_bytes, to_signed


class VaeStage(Stage):
    """Reconstruction of clips through a sampled posterior."""

    config: VaeTraining

    def __init__(self, config: VaeTraining):
        super().__init__(config)
        self.clip = ClipShape.parse(config.clip).check(config.model.strides)
        self.vae = Vae(config.model)
        self.objective = VaeObjective(
            self.vae,
            config.loss,
            config.image_probability,
            config.scales,
            Vgg(config.vgg_stages),
            PatchDiscriminator(config.discriminator_widths),
            self._teacher,
            config.adaptive_adversarial,
        )
        _check_scales(config, self.clip)

    @classmethod
    def build(cls, config: VaeTraining) -> "VaeStage":
        """The stage of a config; a decoder for a published VAE has the encoder of that in `init_from`."""
        return cls(with_published_encoder(config))

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset({"vgg", "teacher", "encoder"} if self.config.freeze_encoder else {"vgg"})

    def init(self, rng: Rng) -> Params:
        video = jnp.zeros((1, self.clip.frames, self.clip.height, self.clip.width, 3))
        params = init(self.vae, named_key(rng, "vae"), video)
        if self.config.loss.perceptual:
            params["vgg"] = init(self.objective.vgg, rng, video[0])
        if self.config.loss.adversarial:
            params["discriminator"] = init(self.objective.discriminator, named_key(rng, "discriminator"), video)
        if teacher := self._teacher:
            params["teacher"] = init(teacher, rng, video)["decoder"]
            if self.config.loss.features:
                params["projectors"] = self._projectors(teacher, params, named_key(rng, "projectors"))
        return params

    @functools.cached_property
    def _teacher(self) -> nn.Module | None:
        """The network of the VAE whose decoder teaches. Raises UserError where none can."""
        if not (self.config.loss.teacher or self.config.loss.features):
            return None
        if not self.config.freeze_encoder:
            raise UserError("a decoder is taught on latents that stay: set --config.freeze_encoder or no loss.teacher")
        if self.config.init_from and self.source:
            return network_of(self.source.config["model"])
        return published_network(self.config.model)

    def _projectors(self, teacher: nn.Module, params: Params, rng: Rng) -> Params:
        """Fresh projectors of the features that the decoder and its teacher share."""
        shape = (1, *self.clip.latent(self.config.model.strides), self.config.model.strides.channels)

        def both(params: Params) -> list[Pair]:
            decoders = ((self.vae, params["decoder"]), (teacher, params["teacher"]))
            return pairs(*(decode_with_features(vae, part, jnp.zeros(shape))[1] for vae, part in decoders))

        shapes = jax.eval_shape(both, nn.unbox(params))
        return init(Projectors(), rng, jax.tree.map(lambda x: jnp.zeros(x.shape), shapes))

    def ema_params(self, params: Params) -> Params:
        """Encoder and decoder, without the networks of the loss."""
        return {part: params[part] for part in ("encoder", "decoder")}

    def pretrained(self, target: Params) -> Params:
        """The encoder, and without `freeze_encoder` the decoder, of `init_from`; VGG's weights."""
        params = {"vgg": load_vgg(self.config.vgg_stages)} if "vgg" in target else {}
        parts = ("encoder",) if self.config.freeze_encoder else ("encoder", "decoder")
        pretrained = {part: target[part] for part in parts if part in target}
        if pretrained and self.source:
            params |= self.source.params(pretrained)
        if "teacher" in target and self.source:
            params["teacher"] = self.source.params({"decoder": target["teacher"]})["decoder"]
        return params

    @functools.cached_property
    def source(self) -> Run | None:
        """The run to start from. Raises UserError where it is missing or has another encoder."""
        return open_source(self.config)

    def loss(self, params: Params, batch: Batch, rng: Rng, adversary: Adversary = "counts") -> tuple[Scalar, Metrics]:
        return self.objective(params, self._video(batch), rng, adversary)

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses of the VAE alone, with a discriminator that learns, and with one that counts."""
        return tuple(functools.partial(self.loss, adversary=adversary) for adversary in self._begins)

    def loss_index(self, step: jax.Array) -> jax.Array:
        begun = jnp.array([step >= first for first in self._begins.values()])
        return jnp.sum(begun).astype(jnp.int32) - 1

    @property
    def _begins(self) -> dict[Adversary, int]:
        """The first step of each role of the discriminator that has any steps."""
        if not self.config.loss.adversarial:
            return {"absent": 0}
        alone, start = self.config.optimizer.generator_alone, self.config.adversarial_start
        first: dict[Adversary, int] = {
            **({"absent": 0} if alone else {}),
            **({"learns": alone} if start > alone else {}),
        }
        return first | {"counts": start}

    def _video(self, batch: Batch) -> Video:
        """The clips of a batch in [-1, 1], their rows shared by the devices of the mesh's tensor axis."""
        mesh = jax.typeof(batch["video"]).sharding.mesh
        check_rows(self.config.model.strides, self.clip, mesh.shape.get("tensor", 1))
        return to_signed(constrain_to_rows(batch["video"]))

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Held-out error terms, and PSNR (dB, peak 2 in [-1, 1]) of the posterior's mean, averaged over clips.

        `loss` is the weighted sum of these terms alone. An omni network is also judged with the first frame given.
        """
        video = self._video(batch)
        posterior, image = apply(self.vae, params, video, method="encode_with_image")
        decoded = apply(self.vae, params, posterior.mean, method="decode")
        by_clip = terms_by_clip(video, decoded, posterior) | {"psnr": psnr_by_clip(video, decoded)}
        if self.config.model.omni:
            by_clip["psnr_image"] = psnr_by_clip(video, apply(self.vae, params, posterior.mean, image, method="decode"))
        metrics = {name: mean_over_clips(values, batch) for name, values in by_clip.items()}
        weights = dataclasses.asdict(self.config.loss)
        return {"loss": sum((weights[name] * metrics[name] for name in TERMS), jnp.zeros(())), **metrics}

    def train_batches(self, mesh: Mesh) -> grain.IterDataset:
        _ = self.source  # a wrong one is refused before a run directory is made
        check_rows(self.config.model.strides, self.clip, mesh.shape["tensor"])
        self._check_mixed(mesh)
        if not self.config.loss.kl and not self.config.init_from:
            raise UserError(
                "a fresh encoder needs loss.kl; a second phase, the first one's run: --config.init_from=RUN"
            )
        if self.config.data == SYNTHETIC:
            if self.config.mix_data or self.config.mix_clip:
                raise UserError("random clips are mixed with nothing: leave out mix_data and mix_clip")
            return synthetic_batches(self.abstract_batch(), mesh)
        return vae_batches.train_batches(self.config, mesh)

    def _check_mixed(self, mesh: Mesh) -> None:
        """Raises UserError, before the first step, where clips of `mix_clip` do not fit the networks or the mesh."""
        if not self.config.mix_clip:
            return
        stage = VaeStage(dataclasses.replace(self.config, clip=self.config.mix_clip, mix_clip=""))
        check_rows(self.config.model.strides, stage.clip, mesh.shape["tensor"])
        jax.eval_shape(stage.loss, self.shapes, stage.abstract_batch(), jax.random.key(0))

    def eval_batches(self, mesh: Mesh) -> Iterable[dict[str, np.ndarray]]:
        """Held-out batches; none where the data have no validation split."""
        return vae_batches.eval_batches(self.config, mesh)

    def abstract_batch(self, devices: int | None = None) -> Batch:
        shape = (self.config.batch_size, self.clip.frames, self.clip.height, self.clip.width, 3)
        return {"video": jax.ShapeDtypeStruct(shape, jnp.uint8)}

    def batch_tokens(self, devices: int | None = None) -> int:
        return self.config.batch_size * self.clip.tokens(self.config.model.strides)

    def description(self) -> dict[str, Any]:
        strides, rate = self.config.model.strides, vae_batches.frame_rate(self.config)
        return {
            "compression": str(strides),
            "clip": str(self.clip),
            "latent_shape": [*self.clip.latent(strides), strides.channels],
            **({"frame_rate": rate} if rate else {}),
            **super().description(),
        }

    def inspect(self) -> dict[str, Any]:
        params = self.ema_params(self.shapes)
        video = jax.ShapeDtypeStruct((1, self.clip.frames, self.clip.height, self.clip.width, 3), jnp.float32)
        counts = parameters_by_part(params)
        return {
            **self.description(),
            "tokens": self.clip.tokens(self.config.model.strides),
            "parameters": counts,
            "flops": flops_by_part(lambda params, video: apply(self.vae, params, video), params, video),
            "decoder_flops_per_512_frame": decoder_flops_per_frame(self.config.model, ClipShape(49, 512, 512)),
            **self._phone_seconds(),
            "bytes": 4 * counts["total"],
        }

    def _phone_seconds(self) -> dict[str, float]:
        """Estimated phone time of decoding a clip, and of decoding it by the published VAE whose encoder this is."""
        clip, strides = ClipShape(49, 512, 512), self.config.model.strides
        seconds = {"decoder_phone_seconds": decoder_cost(self.vae, strides, clip).seconds}
        if published := published_network(self.config.model):
            streams = published.config.decoder_streams
            seconds["published_decoder_phone_seconds"] = decoder_cost(published, strides, clip, streams=streams).seconds
        return seconds

    @property
    def sample_every(self) -> int:
        return self.config.sample_every

    def sample(self, params: Params, step: int, run: Path) -> Samples:
        """Writes held-out clips beside their reconstructions into RUN/samples/STEP; none without a validation split."""
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        video = next((batch["video"] for batch in self.eval_batches(mesh)), None)
        if video is None:
            return Samples()
        pairs = self._reconstruct(params, put_batch({"video": video}, mesh))
        pairs = multihost_utils.process_allgather(pairs, tiled=True)[: self.config.sample_clips]
        clips = {f"reconstruction-{i}": pair for i, pair in enumerate(pairs)}
        rate = vae_batches.frame_rate(self.config) or FRAME_RATE
        if is_first():
            for name, pair in clips.items():
                write_mp4(run / "samples" / str(step) / f"{name}.mp4", pair, rate)
        return Samples(clips={f"samples/{name}": pair for name, pair in clips.items()}, frame_rate=rate)

    @functools.cached_property
    def _reconstruct(self) -> Callable[[Params, Batch], jax.Array]:
        """Real clips and, on their right, reconstructions: uint8 [b t h 2w c]."""

        @jax.jit
        def reconstruct(params: Params, batch: Batch) -> jax.Array:
            decoded = apply(self.vae, params, to_signed(batch["video"]))
            return jnp.concatenate([batch["video"], to_bytes(decoded)], axis=3)

        return reconstruct

    def start(self, run: Path) -> None:
        """A decoder for a frozen encoder has the statistics of its latents."""
        if self.config.freeze_encoder and self.source:
            LatentStats.load(self.source.path).save(run)

    def finish(self, run: Path, params: Params, progress: Callable[[str], None]) -> None:
        """Measures the latents' mean and standard deviation on training clips of `data` and stores them in the run."""
        if self.config.freeze_encoder or self.config.data == SYNTHETIC:
            return
        cfg, mesh = self.config, jax.tree.leaves(params)[0].sharding.mesh
        progress(f"vae: measuring the latents of {cfg.stats_batches} batches")

        @functools.partial(jax.jit, out_shardings=replicated(mesh))
        def encode(params: Params, batch: Batch) -> jax.Array:
            mean: jax.Array = apply(self.vae, params, to_signed(batch["video"]), method="encode").mean
            return mean

        batches = itertools.islice(vae_batches.data_batches(cfg, mesh), cfg.stats_batches)
        latents = [np.asarray(encode(params, put_batch({"video": batch["video"]}, mesh))) for batch in batches]
        if is_first():
            LatentStats.measure(latents).save(run)
        wait_for_all("the latents' statistics are written")


def _check_scales(config: VaeTraining, clip: ClipShape) -> None:
    """Raises UserError where scale equivariance would ask for less than one latent place."""
    _, rows, columns = clip.latent(config.model.strides)
    for scale in config.scales if config.loss.scale_equivariance or config.loss.eq else ():
        if rows % scale or columns % scale:
            raise UserError(
                f"scale equivariance at 1/{scale} needs latents that divide by it, clips of {clip} have "
                f"{rows}x{columns}: use larger clips or other --config.scales"
            )
