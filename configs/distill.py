"""Step distillation: 4 unguided steps in place of 40 guided ones.

python -m launch.train --config=configs/distill.py:mobile --workdir=runs/distilled --config.init_from=runs/recovered \
    --config.data=data/latents

`init_from` is a recovered or pruned run, which knows its teacher, or any transformer's with --config.teacher=RUN.
Variants are sizes: tiny (two CPU cores), mobile (the paper's shapes: a student of 0.9 B parameters, a teacher of 2.0
B), ltx, wan and ti2v (the transformers of LTX-Video, of Wan 2.1 1.3B and of Wan 2.2 TI2V 5B, and what the paper's
shares leave of them). All have the objective that was measured at tiny; --config.objective.method and
--config.head=dit|conv choose others, and six have variants of their own, as mobile_dmd2: SIZE_dmd2 is DMD2 as
published, SIZE_scm a continuous-time consistency model, SIZE_self_forcing distribution matching of the clips that a
causal student streams, SIZE_few_step an adapter that makes the teacher in `init_from` a few-step one, SIZE_kdmd K-DMD,
which learns from such a teacher (--config.few_step=RUN); these are sampled by noising x0 afresh. SIZE_fine_tuned is
adversarial fine-tuning of the run in `init_from` on images and clips, without a teacher; unet_video and snapgenv are
that of the U-Nets of unet:video_tiny and unet:snapgenv. Without `init_from` all but tiny have these shapes, for
`launch.inspect` and `launch.compile` beforehand.
"""

import dataclasses

import ml_collections

from configs import dit, unet
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.distill.config import ObjectiveConfig
from mobile_video_jax.models.network_config import NetworkConfig
from mobile_video_jax.stages.config import DistillTraining, DitTraining
from mobile_video_jax.stages.distill_recipes import RECIPES, fine_tuned
from mobile_video_jax.train.config import OptimizerConfig, PlayersOptimizerConfig

# Student and teacher.
LARGE = {
    "mobile": ("mobile", "server"),
    "ltx": ("ltx_mobile", "ltx"),
    "wan": ("wan_mobile", "wan"),
    "ti2v": ("ti2v_mobile", "ti2v"),
}
# beta1 0 and beta2 0.99 are StyleGAN's (arXiv 1812.04948): momentum lets generator and discriminator overshoot.
GAN = OptimizerConfig(learning_rate=1e-5, schedule="constant", beta1=0.0, ema_decay=0.995)
MOBILE = PlayersOptimizerConfig(**dataclasses.asdict(GAN), opponent=dataclasses.replace(GAN, learning_rate=1e-4))
# As for the base model: Muon needs fewer steps than Adam at this size.
TINY = PlayersOptimizerConfig(
    name="muon",
    learning_rate=1e-2,
    adam_learning_rate=1.5e-3,
    schedule="linear",
    weight_decay=0.0,
    ema_decay=0.9,
    opponent=OptimizerConfig(learning_rate=1e-3, schedule="constant", weight_decay=0.0, beta1=0.0),
)


SIZES = {"tiny": ("tiny", "tiny"), **LARGE}
UNETS = {"unet_video": "video_tiny", "snapgenv": "snapgenv"}  # the U-Net that is its own teacher


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of a variant. Raises UserError for an unknown one."""
    if variant in UNETS:
        return to_config_dict(fine_tuned(_own_teacher(variant)))
    size, _, method = variant.partition("_")
    if size not in SIZES or method not in ("", *RECIPES):
        names = ", ".join(f"{size}{method and '_'}{method}" for method in ("", *RECIPES) for size in SIZES)
        raise UserError(f"variant '{variant}' is unknown: use one of {names}, {', '.join(UNETS)}")
    student, teacher = SIZES[size]
    config = _like(dit.get_config(teacher), dit.MODELS[student], small=size == "tiny")
    return to_config_dict(RECIPES[method](config) if method else config)


def _own_teacher(variant: str) -> DistillTraining:
    """Of a U-Net, all of which is trained."""
    values = unet.get_config(UNETS[variant])
    config = _like(values, from_mapping(DitTraining, values.to_dict()).model, small=variant == "unet_video")
    return dataclasses.replace(config, temporal_only=False)


def _like(values: ml_collections.ConfigDict, student: NetworkConfig, *, small: bool) -> DistillTraining:
    """On the clips of the teacher with this config, for two CPU cores if `small`."""
    base = from_mapping(DitTraining, values.to_dict())
    shared = {field.name: getattr(base, field.name) for field in dataclasses.fields(DitTraining)}
    period = 50 if small else 1000
    changes = {
        **{"stage": "distill", "model": student, "optimizer": TINY if small else MOBILE},
        **{"steps": 150 if small else 20_000, "eval_every": period, "checkpoint_every": period, "caption_dropout": 0.0},
    }
    objective = ObjectiveConfig(guidance=4.0) if small else ObjectiveConfig()
    return DistillTraining(**{**shared, **changes}, teacher_model=base.model, objective=objective)
