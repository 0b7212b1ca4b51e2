"""The metrics that an evaluation of a stage may hold, by their keys in its files."""

from mobile_video_jax.metrics.accuracy import ACCURACIES
from mobile_video_jax.metrics.clip_scores import CONTINUATION, GENERATION, RECONSTRUCTION
from mobile_video_jax.metrics.diversity import DIVERSITY
from mobile_video_jax.metrics.lpips import LPIPS
from mobile_video_jax.metrics.metric import Metric
from mobile_video_jax.metrics.vbench import METRICS as VBENCH
from mobile_video_jax.metrics.video_distance import DISTANCES

OF_VAE = (*RECONSTRUCTION, LPIPS, *DISTANCES)
OF_GENERATION = (*GENERATION, *CONTINUATION, *ACCURACIES.values(), DIVERSITY, *DISTANCES)
BY_STAGE = {"vae": OF_VAE, "vbench": VBENCH}  # every other stage trains a network that generates clips


def metric_of(stage: str, key: str) -> Metric:
    """The metric that a key names; one of no unit and no better direction where the key is unknown."""
    known = {metric.key: metric for metric in BY_STAGE.get(stage, OF_GENERATION)}
    return known.get(key) or Metric(key, key.replace("_", " "))
