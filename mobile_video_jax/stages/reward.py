"""Training of a latent reward: noisy clips at all times, labelled by whether the finished clip is right."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mobile_video_jax.core.arrays import Rng, Scalar
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.files import write_json
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.core.storage import storage_path
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.diffusion.path import interpolate
from mobile_video_jax.latents.store import Record, has_split, records
from mobile_video_jax.metrics.auc import roc_auc
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.distributed import is_first
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.rewards.labels import NAME, Labels
from mobile_video_jax.rewards.latent_reward import Logits, make_latent_reward
from mobile_video_jax.stages.config import RewardTraining
from mobile_video_jax.stages.latent_stage import LatentStage
from mobile_video_jax.train.held_out import mean_over_clips
from mobile_video_jax.train.stage import Batch, Metrics, Params

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # at which held-out clips are evaluated
AUC = "auc.json"  # the run's file of held-out AUC by time


class RewardStage(LatentStage):
    """Binary cross-entropy on x_t at times t ~ U(0, 1), with labels of the clips (PRFL, arXiv 2511.21541)."""

    config: RewardTraining

    def __init__(self, config: RewardTraining):
        super().__init__(config)
        self.reward = make_latent_reward(config.transformer, config)

    @classmethod
    def build(cls, config: RewardTraining) -> "RewardStage":
        """The stage of a config, with what DenoiserConfig says of `init_from`."""
        return cls(like_source(config))

    @classmethod
    def of_run(cls, run: Run) -> "RewardStage":
        """The stage that trained a run, which knows its network."""
        return cls(run.config_as(RewardTraining))

    def init(self, rng: Rng) -> Params:
        return self.reward.init(rng, *self.denoiser.zero_inputs())

    @property
    def frozen(self) -> frozenset[str]:
        return frozenset() if self.config.tune_blocks else frozenset({"backbone"})

    def pretrained(self, target: Params) -> Params:
        """The first blocks of `init_from`."""
        if not self.source or "backbone" not in target:
            return {}
        network = self.source.sharded_params(jax.tree.leaves(target)[0].sharding.mesh)
        return {"backbone": self.reward.started(network, target["backbone"])}

    @functools.cached_property
    def labels(self) -> Labels:
        """The labels of the data's clips."""
        path = storage_path(self.config.labels) if self.config.labels else self.data_folders[0] / NAME
        return Labels.read(path)

    @property
    def arrays_of(self) -> Callable[[Record], Record]:
        return self.labels

    def abstract_batch(self, devices: int | None = None) -> Batch:
        batch = super().abstract_batch(devices)
        return batch | {"label": jax.ShapeDtypeStruct(batch["latents"].shape[:1], jnp.float32)}

    def train_batches(self, mesh: Mesh) -> grain.IterDataset:
        if not self.config.init_from:
            raise UserError("a reward starts from a transformer's blocks: name its run with --config.init_from=RUN")
        if self.has_data:
            self._check_labels()
        return super().train_batches(mesh)

    def _check_labels(self) -> None:
        """Raises UserError where the first clip of a split has no label, before a run directory is made."""
        for folder in self.data_folders:
            for split in ("train", "validation"):
                if has_split(folder, split):
                    self.labels(next(records(folder, split)))

    def loss(self, params: Params, batch: Batch, rng: Rng) -> tuple[Scalar, Metrics]:
        """Of some clips with the caption of the clip before them, which they do not show."""
        count = batch["label"].shape[0]
        other = jax.random.bernoulli(named_key(rng, "mismatched"), self.config.mismatched, (count,))
        text = jnp.where(other[:, None, None], jnp.roll(batch["text"], 1, axis=0), batch["text"])
        mask = jnp.where(other[:, None], jnp.roll(batch["text_mask"], 1, axis=0), batch["text_mask"])
        batch = batch | {"text": text, "text_mask": mask, "label": jnp.where(other, 0.0, batch["label"])}
        t = jax.random.uniform(named_key(rng, "times"), (count,))
        logits = self._logits(params, batch, t, named_key(rng, "noise"))
        accuracy = jnp.mean((logits > 0) == (batch["label"] > 0.5))
        return jnp.mean(cross_entropy(logits, batch["label"])), {"accuracy": accuracy}

    def evaluate_batch(self, params: Params, batch: Batch, rng: Rng) -> Metrics:
        """Held-out cross-entropy, a mean over TIMES, and the accuracy at each of them."""
        metrics, losses = {}, []
        for t in TIMES:
            logits = self._logits(params, batch, jnp.full(batch["label"].shape, t), rng)
            losses.append(mean_over_clips(cross_entropy(logits, batch["label"]), batch))
            right = (logits > 0) == (batch["label"] > 0.5)
            metrics[f"accuracy_{t}"] = mean_over_clips(right.astype(jnp.float32), batch)
        return {"loss": jnp.mean(jnp.stack(losses)), **metrics}

    def _logits(self, params: Params, batch: Batch, t: Float[Array, "b"], rng: Rng) -> Logits:
        x0 = batch["latents"]
        x_t = interpolate(x0, jax.random.normal(rng, x0.shape), t)
        return self.reward.logits(params, x_t, t, batch["text"], batch["text_mask"], batch.get("latent_mask"))

    def finish(self, run: Path, params: Params, progress: Callable[[str], None]) -> None:
        """Writes the AUC over all held-out clips, by time."""
        auc = self.auc(params)
        progress("reward: AUC on held-out clips  " + "  ".join(f"t={t} {value:.3f}" for t, value in auc.items()))
        if is_first():
            write_json(run / AUC, auc)

    def auc(self, params: Params) -> dict[str, float]:
        """AUC of held-out clips by time; empty where there are none, or all have one label."""
        logits = jax.jit(self._logits)
        rows: dict[float, list[np.ndarray]] = {t: [] for t in TIMES}
        labels: list[np.ndarray] = []
        for i, batch in enumerate(self._held_out()):
            kept = batch.pop("weight") > 0
            batch.pop("record")
            labels.append(batch["label"][kept] > 0.5)
            for t, scores in rows.items():
                times = np.full(len(kept), t, np.float32)
                scores.append(np.asarray(logits(params, batch, times, jax.random.key(i)))[kept])
        is_right = np.concatenate(labels) if labels else np.zeros(0, bool)
        if is_right.all() or not is_right.any():
            return {}
        scores_by_time = {t: np.concatenate(scores) for t, scores in rows.items()}
        return {str(t): roc_auc(scores[is_right], scores[~is_right]) for t, scores in scores_by_time.items()}

    def _held_out(self) -> Any:
        mesh = make_mesh(self.config.mesh)
        whole = RewardStage(dataclasses.replace(self.config, eval_batches=1 << 30))
        return whole.eval_batches(mesh)

    def description(self) -> dict[str, Any]:
        counts = {f"{part}_parameters": count_parameters(tree) for part, tree in nn.unbox(self.shapes).items()}
        return {**self.denoiser.describe(), **counts}


def cross_entropy(logits: Logits, labels: Float[Array, "b"]) -> Float[Array, "b"]:
    """-log of the probability sigmoid(logit) of each label, which may lie between 0 and 1."""
    return -labels * jax.nn.log_sigmoid(logits) - (1 - labels) * jax.nn.log_sigmoid(-logits)


def like_source(config: Any) -> Any:
    """The config with the network, latents, captions and times of the run in `init_from`."""
    if not config.init_from:
        return config
    source = Run.open(config.init_from).denoiser.config
    fields = dataclasses.fields(DenoiserConfig)
    return dataclasses.replace(config, **{field.name: getattr(source, field.name) for field in fields})
