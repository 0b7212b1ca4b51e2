"""Scores of the best linear code of the same latents on the same held-out clips."""

from pathlib import Path

import numpy as np

from mobile_video_jax.core.arrays import Clips
from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say
from mobile_video_jax.data.dataset import ClipSource
from mobile_video_jax.data.pipeline import captioned_clips
from mobile_video_jax.metrics.clip_scores import RECONSTRUCTION, mean_scores, pair_scores
from mobile_video_jax.metrics.interval import Score
from mobile_video_jax.metrics.metric import Metric
from mobile_video_jax.vae.linear_code import LinearCode


def linear_floor(data: Path, compression: Compression, clip: ClipShape, held_out: Clips) -> dict[Metric, Score] | None:
    """Fits a linear code to a data set's training clips and scores it on `held_out`; None where they are too few."""
    clips = (item["video"] for item in captioned_clips(ClipSource.open(data), "train", clip))
    try:
        code = LinearCode.fit(clips, compression)
    except UserError as error:
        say(f"no linear floor for {compression}: {error}")
        return None
    return mean_scores(pair_scores(RECONSTRUCTION, held_out, np.stack([code.reconstruct(video) for video in held_out])))
