"""Quality of clips in the shape world: what the detector reads, and distance and motion beside real ones."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.data.shapes.shape_world import Attributes
from mobile_video_jax.evaluate.backbone_features import backbone_features
from mobile_video_jax.evaluate.reconstruction import reconstruct
from mobile_video_jax.metrics.accuracy import ALL, Pairs, accuracies, attributes_right
from mobile_video_jax.metrics.kernel_distance import kernel_distance
from mobile_video_jax.metrics.motion import motion_energy
from mobile_video_jax.metrics.shape_detector import detect
from mobile_video_jax.models.run import Run
from mobile_video_jax.studies.config import ChainStudy
from mobile_video_jax.studies.sample_quality import real_distances

DECODED = "decoded"  # a cell that is no model: held-out clips through the VAE, the best that samples can be


@dataclasses.dataclass(frozen=True)
class ClipQuality:
    """Measures clips beside a study's held-out real ones, on features of a run of the study."""

    study: ChainStudy
    out: Path
    backbone: Path

    def __call__(self, clips: Clips, pairs: Pairs) -> dict[str, Any]:
        """Accuracies by attribute, the kernel distance with that of halves of real clips, and relative motion.

        `hits` has a 1 for each clip that is right in all attributes, else a 0.
        """
        features, (real_clips, _) = backbone_features(self.backbone), self._real()
        real = features(real_clips)
        return {
            "hits": [int(attributes_right(self.study.world, *pair)[ALL]) for pair in pairs],
            "accuracy": {name: score.value for name, score in accuracies(self.study.world, pairs).items()},
            "distance": kernel_distance(real, features(clips)),
            "floor": real_distances(real),
            "motion": float(np.mean(motion_energy(clips)) / np.mean(motion_energy(real_clips))),
        }

    def of_decoded(self) -> tuple[Clips, Pairs]:
        """The held-out real clips as the VAE decodes them, with the attributes that they have and that are read."""
        clip, (_, attributes) = ClipShape.parse(self.study.vae.clip), self._real()
        vae = Run.open(self.out / "vae").vae()
        clips = reconstruct(vae, self.out / "data", "test", clip, len(attributes)).decoded
        return clips, [(has, detect(frames, self.study.world)) for has, frames in zip(attributes, clips, strict=True)]

    def _real(self) -> tuple[Clips, list[Attributes]]:
        source, clip = ClipSource.open(self.out / "data"), ClipShape.parse(self.study.vae.clip)
        items = list(captioned_clips(source, "test", clip))
        return np.stack([item["video"] for item in items]), [Attributes(**item["attributes"]) for item in items]
