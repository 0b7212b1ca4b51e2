"""The study of SnapGen-V's fine-tuning: a video U-Net in four unguided steps, by clips, images and a discriminator."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.evaluate.alignment import generate_samples
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.latents.encode import encode_dataset
from mobile_video_jax.latents.plan import EncodeOptions
from mobile_video_jax.metrics.accuracy import ALL, Pairs, attributes_right
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.stages.config import DistillTraining, DitTraining
from mobile_video_jax.stages.distill import DistillStage
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.vae import VaeStage
from mobile_video_jax.studies.chain import Cells, cells_of, run_chain_study, teacher_run
from mobile_video_jax.studies.clip_quality import ClipQuality
from mobile_video_jax.studies.network_config import VideoStepsStudy
from mobile_video_jax.train.held_out import held_out_metrics
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics

GUIDED, UNTOUCHED = "guided", "untouched"
BASELINES = (GUIDED, UNTOUCHED)  # the network before: as its sampler has it, and in the few steps without guidance
ALONE = {"method": "kd", "kd": 0.0}  # flow matching alone: the few steps are learnt from nothing
# What an arm changes of the fine-tuning's config and of its objective. `flow` and `longer` tell what the discriminator
# adds: the same batches without one, for as many steps and for as many FLOPs as `mixed`.
ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "flow": ({}, ALONE),
    "longer": ({}, ALONE),
    "clips": ({"image_share": 0.0}, {}),
    "mixed": ({}, {}),
}


def cells(study: VideoStepsStudy) -> Cells:
    """The cells by name: of each seed the network before, then that of each arm."""
    return cells_of(study, BASELINES, study.arms)


def plan_video_steps(study: VideoStepsStudy) -> list[dict[str, Any]]:
    """Cost of every training in FLOPs, counted without running anything; baselines only sample."""
    costs = dict.fromkeys(BASELINES, 0)
    costs |= {
        arm: config.steps * _step_flops(study, config) for arm in study.arms for config in [arm_config(study, arm)]
    }
    image = DitStage(study.dit).cost().flops * study.dit.steps
    shared = {"vae": VaeStage(study.vae).cost().flops * study.vae.steps}
    shared |= {f"image-seed{seed}": image for seed in study.seeds}
    shared |= {f"video-seed{seed}": _step_flops(study, study.video) * study.video.steps for seed in study.seeds}
    arms = {name: costs[arm] for name, (arm, _) in cells(study).items()}
    return [{"name": name, "train_flops": flops} for name, flops in (shared | arms).items()]


def run_video_steps_study(
    study: VideoStepsStudy, out: Path, *, worker: int = 0, workers: int = 1
) -> list[dict[str, Any]]:
    """Runs this worker's share of the cells that are not finished; returns the results of all that are.

    Worker 0 encodes the clips and trains the video networks.
    """

    def also(seed: int) -> None:
        options = EncodeOptions(study.dit.text_encoder, (study.video.clip,), shard_records=4096)
        encode_dataset(out / "vae", out / "data", out / "clips", options)
        names: dict[str, Any] = {"data": _data(out), "init_from": str(teacher_run(out, seed)), "seed": seed}
        train(DitStage(dataclasses.replace(study.video, **names)), video_run(out, seed))

    def run(arm: str, seed: int, folder: Path) -> dict[str, Any]:
        few = SampleConfig(study.tune.sampling_steps, guidance=1.0)
        if arm in BASELINES:
            sampling = study.sampling if arm == GUIDED else few
            return {"steps": 0, **_measured(study, out, seed, video_run(out, seed), sampling)}
        config = arm_config(study, arm, data=_data(out), init_from=str(video_run(out, seed)), seed=seed)
        train(DistillStage.build(config), folder / "run")
        return {"steps": config.steps, **_measured(study, out, seed, folder / "run", few)}

    return run_chain_study(study, cells(study), out, run, also=also, worker=worker, workers=workers)


def arm_config(study: VideoStepsStudy, arm: str, **changes: Any) -> DistillTraining:
    """The fine-tuning of an arm. Those of one seed have the same start, noise and, but for `clips`, batches."""
    own, objective = ARMS[arm]
    tune = study.tune
    config = dataclasses.replace(tune, **own, **changes, objective=dataclasses.replace(tune.objective, **objective))
    if arm == "longer":
        budget = tune.steps * _step_flops(study, tune)
        config = dataclasses.replace(config, steps=round(budget / _step_flops(study, config)))
    return dataclasses.replace(config, eval_every=config.steps, checkpoint_every=config.steps)


def video_run(out: Path, seed: int) -> Path:
    """The run of a seed's video network."""
    return out / "videos" / f"seed{seed}"


def _data(out: Path) -> str:
    return f"{out / 'clips'},{out / 'latents'}"


def _step_flops(study: VideoStepsStudy, config: DitTraining | DistillTraining) -> int:
    """FLOPs of a training step, a mean over batches of clips and of images, which have as many tokens."""
    clips = _stage(config)
    if not config.image_share:
        return clips.cost().flops
    images = _stage(dataclasses.replace(config, clip=study.dit.clip, token_budget=clips.batch_tokens()))
    return round(clips.cost().flops + config.image_share * (images.cost().flops - clips.cost().flops))


def _stage(config: DitTraining | DistillTraining) -> DitStage:
    return DistillStage(config) if isinstance(config, DistillTraining) else DitStage(config)


def _measured(study: VideoStepsStudy, out: Path, seed: int, run: Path, sampling: SampleConfig) -> dict[str, Any]:
    """Quality of clips and of images for held-out prompts, and the held-out loss on both.

    Distances are on features of the next seed's network, which no discriminator of this seed looked through.
    `image_hits` has a 1 for each image that is right in all that an image shows, else a 0.
    """
    other = study.seeds[(study.seeds.index(seed) + 1) % len(study.seeds)]
    clips = generate_samples(run, study.world, study.samples, sampling)
    images = generate_samples(run, study.world, study.samples, sampling, clip=study.dit.clip)
    losses = [line["eval_loss"] for line in read_metrics(video_run(out, seed)) if "eval_loss" in line]
    return {
        **ClipQuality(study, out, video_run(out, other))(clips.clips, clips.pairs),
        "image_hits": _image_hits(study, images.pairs),
        "loss": _loss(study.video.clip, out / "clips", run),
        "image_loss": _loss(study.dit.clip, out / "latents", run),
        "last_quarter": losses[-1 - len(losses) // 4] - losses[-1],
        "parameters": Run.open(run).denoiser.describe()["parameters"],
    }


def _image_hits(study: VideoStepsStudy, pairs: Pairs) -> list[int]:
    rights = [attributes_right(study.world, *pair) for pair in pairs]
    return [int(all(right for name, right in row.items() if name not in ("motion", ALL))) for row in rights]


def _loss(clip: str, data: Path, run: Path) -> float:
    """The held-out flow-matching loss of any run, on one data set."""
    opened = Run.open(run)
    config = dataclasses.replace(DitStage.of_run(opened).config, clip=str(ClipShape.parse(clip)), data=str(data))
    stage = DitStage(dataclasses.replace(config, image_share=-1.0))
    return held_out_metrics(stage, opened.sharded_params(make_mesh(MeshConfig(), jax.local_devices()[:1])))["loss"]
