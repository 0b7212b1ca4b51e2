"""Quality of clips in the shape world: what the detector reads, and distance and motion beside real ones."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.evaluate.backbone_features import backbone_features
from mobile_video_jax.metrics.accuracy import Pairs, accuracies
from mobile_video_jax.metrics.kernel_distance import kernel_distance
from mobile_video_jax.metrics.motion import motion_energy
from mobile_video_jax.studies.chain import teacher_run
from mobile_video_jax.studies.config import ChainStudy
from mobile_video_jax.studies.sample_quality import real_distances


@dataclasses.dataclass(frozen=True)
class ClipQuality:
    """Measures clips beside a study's held-out real ones, on features of one seed's teacher."""

    study: ChainStudy
    out: Path
    seed: int

    def __call__(self, clips: Clips, pairs: Pairs) -> dict[str, Any]:
        """Accuracies by attribute, the kernel distance with that of halves of real clips, and relative motion."""
        features, real_clips = backbone_features(teacher_run(self.out, self.seed)), self._real_clips()
        real = features(real_clips)
        return {
            "accuracy": {name: score.value for name, score in accuracies(self.study.world, pairs).items()},
            "distance": kernel_distance(real, features(clips)),
            "floor": real_distances(real),
            "motion": float(np.mean(motion_energy(clips)) / np.mean(motion_energy(real_clips))),
        }

    def _real_clips(self) -> Clips:
        source, clip = ClipSource.open(self.out / "data"), ClipShape.parse(self.study.vae.clip)
        return np.stack([item["video"] for item in captioned_clips(source, "test", clip)])
