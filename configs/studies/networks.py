"""Studies of other networks and ways to compute them: U-Net, stages and widths, reused outputs."""

import dataclasses
from collections.abc import Callable
from typing import Any

from configs import demo, elastic, lazy, prune, unet
from configs.search import TEMPORAL, get_config
from configs.studies.attention import CLIP, COMPRESSION
from configs.studies.distillation import HARDER, distillation_study_gpu
from configs.studies.pruning import pruning_study, pruning_study_gpu
from configs.studies.trainings import distill_training, dit_training, recover_training, unet_training, vae_training
from mobile_video_jax.core.config import Config, from_mapping
from mobile_video_jax.distill.config import CollapseConfig
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.evolution import EvolutionConfig
from mobile_video_jax.stages.config import DitTraining, ElasticTraining, LazyTraining
from mobile_video_jax.studies.config import ChainStudy
from mobile_video_jax.studies.network_config import (
    ElasticStudy,
    LadderStudy,
    TemporalStudy,
    TokenDropStudy,
    VideoStepsStudy,
)
from mobile_video_jax.studies.shrinking_config import ArchitectureStudy, LazyStudy


def _snapgen(*, teacher_steps: int, steps: int, **changes: Any) -> ArchitectureStudy:
    """A tiny U-Net taught by the tiny transformer, on still images of one object."""
    pruning = pruning_study()
    shared: dict[str, Any] = {field.name: getattr(pruning, field.name) for field in dataclasses.fields(ChainStudy)}
    shared |= {
        "world": dataclasses.replace(demo.WORLD, motions=("still",)),
        "dit": dit_training("tiny", clip="1x32x32", steps=teacher_steps, eval_every=teacher_steps // 4, eval_batches=8),
        "teacher_right": 0.0,
        "seeds": (0, 1, 2),
    }
    return ArchitectureStudy(**shared | changes, student=recover_training("unet", steps=steps, eval_batches=8))


def _temporal(*, image_steps: int, steps: int, search: SearchConfig, **changes: Any) -> TemporalStudy:
    """The tiny U-Net in the demo's world: of images first, then layers over time for its clips."""
    pruning = pruning_study()
    shared: dict[str, Any] = {field.name: getattr(pruning, field.name) for field in dataclasses.fields(ChainStudy)}
    image = unet_training(steps=image_steps, eval_every=image_steps, checkpoint_every=image_steps, eval_batches=8)
    periods: dict[str, Any] = {"steps": steps, "eval_every": steps // 2, "checkpoint_every": steps}
    shared |= {"dit": image, "teacher_right": 0.0, "samples": 120}
    video = dataclasses.replace(image, clip="9x32x32", **periods)
    return TemporalStudy(**shared | {"seeds": (0, 1, 2)} | changes, search=search, video=video)


def _temporal_gpu() -> TemporalStudy:
    """The network of 379 M parameters on rendered clips of 17x128x128, with the published steps of a candidate."""
    pruning, search = pruning_study_gpu(), from_mapping(SearchConfig, get_config("snapgenv").to_dict())
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    names = ("compression", "batch_size", "text_tokens")
    same: dict[str, Any] = {name: getattr(pruning.dit, name) for name in names}
    image = unet_training(**same, clip="1x128x128", model=unet.PHONE, steps=50_000)
    video = dataclasses.replace(image, clip="17x128x128", steps=20_000)
    shared |= {"dit": image, "teacher_right": 0.0, "seeds": (0, 1, 2)}
    return TemporalStudy(**shared, search=search, video=video)


def _video_steps(*, image_steps: int, video_steps: int, tune_steps: int, **changes: Any) -> VideoStepsStudy:
    """The tiny U-Net, all of it trained on clips and images, in a world where it is soon right.

    Layers over time are on its way down and in its middle alone: steps are short and soon compiled.
    """
    pruning, tune = pruning_study(), distill_training("unet_video")
    shared: dict[str, Any] = {field.name: getattr(pruning, field.name) for field in dataclasses.fields(ChainStudy)}
    image = unet_training(steps=image_steps, eval_every=image_steps, checkpoint_every=image_steps, eval_batches=8)
    periods: dict[str, Any] = {"steps": video_steps, "eval_every": video_steps // 4, "checkpoint_every": video_steps}
    shared |= {"dit": image, "teacher_right": 0.0, "seeds": (0, 1, 2), "test_clips": 240}
    shared["world"] = dataclasses.replace(demo.WORLD, shapes=("square", "cross"), motions=("left", "right", "still"))
    kinds = ("conv1d", "attention3d", "attention3d", "none", "none", "none", "none")
    model = unet.TINY.over_time(kinds)
    video = dataclasses.replace(image, clip="9x32x32", model=model, image_share=0.25, **periods)
    watch = CollapseConfig(motion=0.0, spread=0.0, colour=0.0, margin=0.0)  # a collapse is measured
    tune = dataclasses.replace(tune, steps=tune_steps, watch=watch, model=model, teacher_model=model)
    return VideoStepsStudy(**shared | changes, video=video, tune=tune)


def _video_steps_gpu() -> VideoStepsStudy:
    """The network of 379 M parameters with layers over time, on rendered clips of 17x128x128."""
    pruning, tune = pruning_study_gpu(), distill_training("snapgenv")
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    names = ("compression", "batch_size", "text_tokens", "text_encoder", "text_width")
    same: dict[str, Any] = {name: getattr(pruning.dit, name) for name in names}
    image = unet_training(**same, clip="1x128x128", model=unet.PHONE, steps=50_000)
    clips: dict[str, Any] = {"clip": "17x128x128", "model": unet.VIDEO}
    video = dataclasses.replace(image, **clips, image_share=0.25, steps=20_000)
    tune = dataclasses.replace(tune, **same, **clips, teacher_model=unet.VIDEO, steps=10_000, auto=False)
    shared |= {"dit": image, "teacher_right": 0.0, "seeds": (0, 1, 2)}
    return VideoStepsStudy(**shared, video=video, tune=tune)


def _ladder(*, steps: int, **changes: Any) -> LadderStudy:
    """A transformer of 8 narrow blocks with one head of keys, on clips of 320 tokens."""
    pruning = pruning_study()
    shared: dict[str, Any] = {field.name: getattr(pruning, field.name) for field in dataclasses.fields(ChainStudy)}
    periods: dict[str, Any] = {"steps": steps, "eval_every": steps // 4, "checkpoint_every": steps // 4}
    model = DitConfig(width=64, depth=8, heads=4, head_dim=16, kv_heads=1, ffn=192)
    clips: dict[str, Any] = {"clip": CLIP, "compression": COMPRESSION, "batch_size": 16, "eval_batches": 8}
    shared |= {
        "vae": vae_training(f"micro_{COMPRESSION}", clip=CLIP, steps=200, checkpoint_every=100),
        "dit": dit_training("tiny", **clips, model=model, **periods),
        "teacher_right": 0.0,
        "seeds": (0, 1, 2),
        "train_clips": 1500,
        "samples": 120,
        "sampling": SampleConfig(steps=12, guidance=4.0),
    }
    return LadderStudy(**shared | changes, phone=dit_training("ladder0"))


def _ladder_gpu() -> LadderStudy:
    """The small transformer with one head of keys, on rendered clips of 17x128x128."""
    pruning = pruning_study_gpu()
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    model = dataclasses.replace(pruning.dit.transformer, kv_heads=1, ffn=3072, scan=True)
    shared |= {"dit": dataclasses.replace(pruning.dit, model=model), "teacher_right": 0.0, "seeds": (0, 1, 2)}
    return LadderStudy(**shared, phone=dit_training("ladder0"))


def _token_drop(*, steps: int, **changes: Any) -> TokenDropStudy:
    """The ladder's clips and VAE, and a transformer of 12 narrow blocks, 8 of which are in the middle."""
    ladder = _ladder(steps=steps)
    shared: dict[str, Any] = {field.name: getattr(ladder, field.name) for field in dataclasses.fields(ChainStudy)}
    model = dataclasses.replace(ladder.dit.transformer, depth=12, kv_heads=0)
    return TokenDropStudy(**shared | {"dit": dataclasses.replace(ladder.dit, model=model)} | changes)


def _token_drop_gpu() -> TokenDropStudy:
    """The small transformer on rendered clips of 17x128x128."""
    pruning = pruning_study_gpu()
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    return TokenDropStudy(**shared | {"teacher_right": 0.0, "seeds": (0, 1, 2)})


def _elastic(*, steps: int, **changes: Any) -> ElasticStudy:
    """The demo's transformer in the demo's world: whole, of three quarters and of half the width."""
    pruning = pruning_study()
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    periods: dict[str, Any] = {"steps": steps, "eval_every": steps // 4, "checkpoint_every": steps, "eval_batches": 8}
    shared |= {"dit": dit_training("tiny", **periods), "teacher_right": 0.0, "seeds": (0, 1, 2), "samples": 120}
    training = from_mapping(ElasticTraining, elastic.get_config("tiny").to_dict())
    return ElasticStudy(**shared | changes, elastic=dataclasses.replace(training, **periods))


def _elastic_gpu() -> ElasticStudy:
    """The small transformer on rendered clips of 17x128x128."""
    pruning = pruning_study_gpu()
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    shared |= {"teacher_right": 0.0, "seeds": (0, 1, 2)}
    same = {field.name: getattr(pruning.dit, field.name) for field in dataclasses.fields(DitTraining)}
    training = ElasticTraining(**same | {"stage": "elastic"}, widths=elastic.WIDTHS["small"])
    return ElasticStudy(**shared, elastic=training)


def _lazy() -> LazyStudy:
    """The demo's transformer in a world where it is not always right, and its student of 4 steps by distillation."""
    pruning, distill = pruning_study(), distill_training("tiny")
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    shared |= {"dit": dit_training("tiny", steps=1200), "teacher_right": 0.0, "world": HARDER}
    shared |= {"seeds": (0, 1, 2), "samples": 120}
    objective = dataclasses.replace(distill.objective, method="kd")
    return LazyStudy(
        **shared,
        student_target=0.1,  # of 48 tokens' time on a phone modules are 17 %
        lazy=from_mapping(LazyTraining, lazy.get_config("tiny").to_dict()),
        distill=dataclasses.replace(distill, objective=objective, steps=200),
        prune=from_mapping(PruneConfig, prune.get_config("tiny").to_dict()),
    )


def _lazy_gpu() -> LazyStudy:
    """The small transformer on rendered clips of 17x128x128, with the published training of gates."""
    pruning, distill = pruning_study_gpu(), distillation_study_gpu().distill
    shared: dict[str, Any] = {f.name: getattr(pruning, f.name) for f in dataclasses.fields(ChainStudy)}
    objective = dataclasses.replace(distill.objective, method="kd")
    return LazyStudy(
        **shared | {"seeds": (0, 1, 2)},
        lazy=from_mapping(LazyTraining, lazy.get_config("paper").to_dict()),
        distill=dataclasses.replace(distill, objective=objective),
        prune=pruning.prune,
        phase_steps=1_000,
    )


STUDIES: dict[str, Callable[[], Config]] = {
    "snapgen": lambda: _snapgen(teacher_steps=800, steps=400),
    "snapgen_quick": lambda: _snapgen(teacher_steps=400, steps=200),
    "temporal": lambda: _temporal(image_steps=800, steps=400, search=TEMPORAL),
    "temporal_quick": lambda: _temporal(
        image_steps=400,
        steps=160,
        seeds=(0,),
        arms=("none", "attention1d", "attention3d", "random", "search"),
        search=dataclasses.replace(
            TEMPORAL,
            distill_steps=160,
            evolution=EvolutionConfig(population=8, generations=3, fidelities=(0, 20)),
        ),
    ),
    "temporal_gpu": _temporal_gpu,
    "video_steps": lambda: _video_steps(image_steps=600, video_steps=1000, tune_steps=300),
    "video_steps_quick": lambda: _video_steps(
        image_steps=200, video_steps=600, tune_steps=100, seeds=(0,), arms=("flow", "clips", "mixed")
    ),
    "video_steps_gpu": _video_steps_gpu,
    "elastic": lambda: _elastic(steps=600),
    "elastic_quick": lambda: _elastic(steps=240, arms=("alone", "global")),
    "elastic_gpu": _elastic_gpu,
    "ladder": lambda: _ladder(steps=400),
    "ladder_quick": lambda: _ladder(steps=160, samples=48),
    "ladder_gpu": _ladder_gpu,
    "token_drop": lambda: _token_drop(steps=400),
    "token_drop_quick": lambda: _token_drop(steps=240, samples=48, arms=("plain-half", "bypass-half", "fusion-half")),
    "token_drop_gpu": _token_drop_gpu,
    "lazy": _lazy,
    "lazy_quick": lambda: dataclasses.replace(
        _lazy(),
        steps=(20, 10),
        control_targets=(0.3,),
        dit=dit_training("tiny", steps=600),
        samples=96,
        lazy=dataclasses.replace(_lazy().lazy, steps=100),
        distill=dataclasses.replace(_lazy().distill, steps=90),
        phase_steps=30,
    ),
    "lazy_gpu": _lazy_gpu,
}
