"""Studies of kinds of attention and of layouts, in streams of clips of 320 tokens."""

import dataclasses
from collections.abc import Callable
from typing import Any

from configs import convert, demo, search
from configs.studies.pruning import pruning_study_gpu
from configs.studies.trainings import dit_training, vae_training
from mobile_video_jax.core.config import Config, from_mapping
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.stages.config import ConvertTraining, DitTraining
from mobile_video_jax.studies.config import ChainStudy
from mobile_video_jax.studies.network_config import AttentionStudy

CLIP, COMPRESSION = "17x32x32", "t4_s4_c8"  # 5x8x8 tokens
SPACE: dict[str, Any] = {"kinds": ("full", "lcha"), "resolutions": (1, 2)}  # of the search


def _attention(*, steps: int, tune_steps: int, convert_steps: int, vae_steps: int, **changes: Any) -> AttentionStudy:
    """A causal transformer of 8 narrow blocks, in whose 320 tokens attention is a third of the FLOPs."""
    model = DitConfig(width=64, depth=8, heads=4, head_dim=16, ffn=256, causal=True)
    shapes: dict[str, Any] = {"clip": CLIP, "compression": COMPRESSION, "batch_size": 16, "eval_batches": 4}
    dit = dit_training("tiny", **shapes, model=model, steps=steps, eval_every=steps // 4, checkpoint_every=steps // 4)
    space = from_mapping(SearchConfig, search.get_config("tiny").to_dict())
    study = AttentionStudy(
        vae=vae_training(f"micro_{COMPRESSION}", clip=CLIP, steps=vae_steps, checkpoint_every=vae_steps // 2),
        dit=dit,
        convert=_converting(dit, convert_steps),
        tune=_tuned(dit, tune_steps),
        search=dataclasses.replace(space, **SPACE, distill_steps=convert_steps, clips=32, times=2),
        phone=dit_training("s2dit"),
        world=demo.WORLD,
        seeds=(0, 1, 2),
        train_clips=3000,
        samples=120,
        sampling=SampleConfig(steps=12, guidance=4.0),
    )
    return dataclasses.replace(study, **changes)


def _quick() -> AttentionStudy:
    study = _attention(steps=400, tune_steps=80, convert_steps=30, vae_steps=200)
    return dataclasses.replace(
        study,
        search=dataclasses.replace(study.search, floor=2),
        seeds=(0,),
        train_clips=1500,
        validation_clips=64,
        samples=48,
        windows=(1, 2, 4),
        sampling=SampleConfig(steps=8, guidance=4.0),
    )


def _attention_gpu() -> AttentionStudy:
    """The small transformer, causal, on rendered clips of 17x128x128, at 5x8x8 tokens as well."""
    pruning = pruning_study_gpu()
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    dit = dataclasses.replace(pruning.dit, model=dataclasses.replace(pruning.dit.transformer, causal=True))
    space = from_mapping(SearchConfig, search.get_config("s2dit").to_dict())
    return AttentionStudy(
        **shared | {"dit": dit, "teacher_right": 0.0, "seeds": (0, 1, 2), "samples": 960},
        convert=_converting(dit, 1_000),
        tune=_tuned(dit, 10_000),
        search=dataclasses.replace(space, **SPACE),
        phone=dit_training("s2dit"),
        streamed=240,
    )


def _converting(dit: DitTraining, steps: int) -> ConvertTraining:
    """A conversion on the batches of a training, without weight decay: most parameters have no gradient there."""
    base = from_mapping(ConvertTraining, convert.get_config("tiny").to_dict())
    same = {field.name: getattr(dit, field.name) for field in dataclasses.fields(DitTraining) if field.name != "stage"}
    optimizer = dataclasses.replace(dit.optimizer, weight_decay=0.0)
    return dataclasses.replace(base, **same | {"steps": steps, "checkpoint_every": steps, "optimizer": optimizer})


def _tuned(dit: DitTraining, steps: int) -> DitTraining:
    """More steps of a training, from half its peak rates to 0."""
    half = {key: getattr(dit.optimizer, key) / 2 for key in ("learning_rate", "adam_learning_rate")}
    return dataclasses.replace(dit, steps=steps, optimizer=dataclasses.replace(dit.optimizer, **half))


STUDIES: dict[str, Callable[[], Config]] = {
    "attention": lambda: _attention(steps=800, tune_steps=300, convert_steps=100, vae_steps=350),
    "attention_quick": _quick,
    "attention_gpu": _attention_gpu,
}
