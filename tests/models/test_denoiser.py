"""What a denoiser is, beside its parameters: which weights it may continue, and what it can be asked for."""

import dataclasses

import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.denoiser import Denoiser

MODEL = DitConfig(width=16, depth=2, heads=2, head_dim=8, ffn=16, layout=(("full", 2), ("ssa", 2)))
CONFIG = DenoiserConfig(clip="9x32x32", compression="t4_s8_c6", model=MODEL)


def denoiser(**changes) -> Denoiser:
    return Denoiser(dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, **changes)))


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"layout": (("ssa", 2), ("full", 2))}, """model.layout='(("full",2),("ssa",2))'"""),
        ({"causal": True}, "model.causal=False"),
        ({"attention_window": 3}, "model.attention_window=6"),
    ],
)
def test_weights_of_another_attention_are_not_continued(change, flag):
    """Parameters of these are of the same shapes, and mean something else."""
    trained = denoiser()
    denoiser().check_continues(trained)
    with pytest.raises(UserError) as raised:
        denoiser(**change).check_continues(trained)
    assert str(raised.value).endswith(f"set --config.{flag}")


def test_cross_attention_of_all_tokens_is_not_asked_of_low_resolutions():
    with pytest.raises(UserError, match="no block at the whole resolution"):
        denoiser().check_cross_logits()
    denoiser(layout=(("full", 2), ("full", 1))).check_cross_logits()
