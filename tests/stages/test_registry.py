"""Stages by name: their configs, which commands read without JAX, and their classes."""

from mobile_video_jax.stages.config import TRAININGS
from mobile_video_jax.stages.registry import STAGES


def test_every_config_has_a_stage_and_every_stage_a_name():
    assert set(TRAININGS.values()) == set(STAGES)
    assert all(training().stage == name for name, training in TRAININGS.items())
