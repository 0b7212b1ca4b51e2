"""Quality of streams: their first window as long as a training clip beside real clips, and later windows beside it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.progress import Progress
from mobile_video_jax.data.shapes.shape_world import prompts
from mobile_video_jax.evaluate.alignment import read_back
from mobile_video_jax.evaluate.backbone_features import backbone_features
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.generate.prompts import make_requests
from mobile_video_jax.generate.stream import ClipStream
from mobile_video_jax.metrics.accuracy import ALL, Pairs, attributes_right
from mobile_video_jax.metrics.kernel_distance import kernel_distance
from mobile_video_jax.studies.chain import teacher_run
from mobile_video_jax.studies.clip_quality import ClipQuality
from mobile_video_jax.studies.network_config import AttentionStudy
from mobile_video_jax.studies.sample_quality import real_distances

# What an object keeps for as long as it is there; its motion may end at the border.
CHANGING = ("motion", ALL)


@dataclasses.dataclass(frozen=True)
class StreamQuality:
    """Measures streams for held-out prompts, on features of a seed's teacher."""

    study: AttentionStudy
    out: Path
    seed: int

    def __call__(self, run: Path) -> dict[str, Any]:
        """Quality of the first windows as ClipQuality has it, and the drift of the later ones.

        `drift` has the kernel distance of each window from the first, `kept` the share of clips with the right object.
        """
        study, windows = self.study, stream_windows(run, self.study)
        backbone = teacher_run(self.out, self.seed)
        features = backbone_features(backbone)
        first = features(windows[1][: study.streamed])
        pairs = {window: read_back(clips, study.world, 0.0).pairs for window, clips in windows.items()}
        return {
            **ClipQuality(study, self.out, backbone)(windows[1], pairs[1]),
            "drift": {str(k): kernel_distance(first, features(clips)) for k, clips in windows.items() if k > 1},
            "drift_floor": real_distances(first),
            "kept": {str(k): self._kept(of[: study.streamed]) for k, of in pairs.items()},
        }

    def _kept(self, pairs: Pairs) -> float:
        rows = (attributes_right(self.study.world, *pair) for pair in pairs)
        return float(np.mean([all(right for name, right in row.items() if name not in CHANGING) for row in rows]))


def stream_windows(run: Path, study: AttentionStudy) -> Mapping[int, Clips]:
    """The windows [n t h w 3] of streams by their number: of all samples the first, of `streamed` ones all.

    Window k has the frames of a training clip, and begins where k - 1 of them, which share their ends, have ended.
    """
    generator = Generator.load(run)
    stream, length = ClipStream(generator, study.sampling), generator.clip.frames - 1
    chunks = length // (stream.chunk_frames * generator.denoiser.strides.time)
    texts = [text for text, _ in prompts(study.world, seed=1, n=study.samples, split="test")]
    requests, windows = make_requests(texts, 0, []), dict[int, list[Clips]]()
    progress = Progress("stream:", study.samples)
    for start in range(0, study.samples, study.streamed):
        reached = [k for k in study.windows if k == 1 or start == 0]
        parts = list(stream.frames(requests[start : start + study.streamed], max(reached) * chunks))
        frames = np.concatenate(parts, axis=1)
        for k in reached:
            windows.setdefault(k, []).append(frames[:, (k - 1) * length : k * length + 1])
        progress.report(start + study.streamed, f"windows to {max(reached)}")
    return {k: np.concatenate(clips) for k, clips in windows.items()}
