"""Quality of a model's samples in a study: read back, and beside held-out real clips and its teacher's samples."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.files import replacing
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.evaluate.alignment import Samples, generate_samples, read_back
from mobile_video_jax.evaluate.backbone_features import backbone_features
from mobile_video_jax.generate.config import SampleConfig
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.metrics.accuracy import ALL, accuracies, attributes_right
from mobile_video_jax.metrics.diversity import pixel_diversity
from mobile_video_jax.metrics.kernel_distance import kernel_distance
from mobile_video_jax.metrics.motion import motion_energy
from mobile_video_jax.models.config import SolverName
from mobile_video_jax.studies.chain import teacher_run
from mobile_video_jax.studies.shrinking_config import DistillationStudy

HALVES = 20  # random halves of the real clips, whose distances are the floor of all others
PROMPTS, SAMPLES = 4, 4  # of diversity: prompts, and samples of each


class SampleQuality:
    """Measures samples for held-out prompts, in a study of distillation, of one seed's teacher.

    Distances are on features of the next seed's teacher, which no discriminator of this seed looked through; a study of
    one seed has its own alone.
    """

    def __init__(self, study: DistillationStudy, out: Path, seed: int):
        other = study.seeds[(study.seeds.index(seed) + 1) % len(study.seeds)]
        self._study, self._features = study, backbone_features(teacher_run(out, other))
        source, clip = ClipSource.open(out / "data"), ClipShape.parse(study.vae.clip)
        self._real: Clips = np.stack([item["video"] for item in captioned_clips(source, "test", clip)])
        self._teacher = teacher_samples(study, out, seed)

    def of_teacher(self, run: Path) -> dict[str, Any]:
        """Quality of the guided teacher itself, in all its steps."""
        return self._of(run, self._teacher, self._study.sampling) | {"teacher_distance": None}

    def __call__(self, run: Path, steps: int, guidance: float, solver: SolverName | None = None) -> dict[str, Any]:
        """Quality of a run's samples in so many steps."""
        sampling = self._study.sampling
        config = dataclasses.replace(sampling, steps=steps, guidance=guidance, solver=solver or sampling.solver)
        return self._of(run, generate_samples(run, self._study.world, self._study.samples, config), config)

    def _of(self, run: Path, samples: Samples, config: SampleConfig) -> dict[str, Any]:
        """`hits` has a 1 for each prompt whose sample is right in all attributes, else a 0."""
        world, pairs = self._study.world, samples.pairs
        real, made = self._features(self._real), self._features(samples.clips)
        return {
            "evaluations": config.steps * (2 if config.guidance != 1 else 1),
            "accuracy": {name: score.value for name, score in accuracies(world, pairs).items()},
            "hits": "".join(str(int(attributes_right(world, *pair)[ALL])) for pair in pairs),
            "distance": kernel_distance(real, made),
            "teacher_distance": kernel_distance(self._features(self._teacher.clips), made),
            "floor": real_distances(real),
            "motion": float(np.mean(motion_energy(samples.clips)) / np.mean(motion_energy(self._real))),
            "diversity": _diversity(run, samples.prompts[:PROMPTS], config),
            "seconds_per_clip": samples.seconds_per_clip,
        }


def teacher_samples(study: DistillationStudy, out: Path, seed: int) -> Samples:
    """The guided samples of a seed's teacher, generated once."""
    path = out / "teachers" / f"samples{seed}.npz"
    if not path.exists():
        samples = generate_samples(teacher_run(out, seed), study.world, study.samples, study.sampling)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, clips=samples.clips, seconds_per_clip=samples.seconds_per_clip)
    with np.load(path) as stored:
        return read_back(stored["clips"], study.world, float(stored["seconds_per_clip"]))


def real_distances(features: Float[np.ndarray, "n d"]) -> dict[str, float]:
    """Mean and deviation of the distances between random halves of real clips: smaller differences say nothing."""
    rng, distances = np.random.default_rng(0), []
    for _ in range(HALVES):
        order = rng.permutation(len(features))
        half = len(features) // 2
        distances.append(kernel_distance(features[order[:half]], features[order[half:]]))
    return {"mean": float(np.mean(distances)), "std": float(np.std(distances))}


def _diversity(run: Path, prompts: list[str], config: SampleConfig) -> float:
    """The mean over prompts of how different their samples are, in grey levels."""
    repeated = [prompt for prompt in prompts for _ in range(SAMPLES)]
    clips = Generator.load(run).generate(repeated, seed=1000, config=config).frames
    return float(np.mean([pixel_diversity(clips[i : i + SAMPLES]) for i in range(0, len(clips), SAMPLES)]))
