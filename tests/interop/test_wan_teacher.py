"""Wan on its own latents as what others learn from: a few-step teacher of K-DMD, rewards, other kinds of attention."""

import dataclasses
from pathlib import Path

import pytest

from mobile_video_jax.models.run import Run
from tests.interop.test_chain import TRAINED, UNWATCHED, command
from tests.interop.test_wan_pipeline import make_wan

pytestmark = pytest.mark.slow
CLIP = "9x32x32"
ONE = TRAINED | {"steps": 1, "eval_every": 1, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The imported run `wan`, clips, their latents; the text encoder's place in `pipeline`."""
    root = tmp_path_factory.mktemp("wan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        make_wan(root / "pipeline")
    command("launch.import_weights", f"--source={root / 'pipeline'}", f"--out={root / 'wan'}", f"--clip={CLIP}")
    sizes = ("--train=16", "--validation=8", "--test=4")
    command("launch.prepare_data", "--source=moving_shapes", f"--out={root / 'data'}", f"--clip={CLIP}", *sizes)
    coded = (f"--vae={root / 'wan' / 'vae'}", f"--data={root / 'data'}", f"--out={root / 'latents'}")
    command("launch.encode", *coded, f"--text_encoder=wan:{root / 'pipeline'}")
    return root


def train(root: Path, config: str, out: str, **changes: object) -> Run:
    changes = {"data": root / "latents"} | changes
    command("launch.train", f"--config=configs/{config}", f"--workdir={root / out}", **ONE | changes)
    return Run.open(root / out)


def test_a_fresh_student_learns_by_k_dmd(root):
    train(root, "distill.py:tiny_few_step", "few_step", **UNWATCHED, init_from=root / "wan")
    teachers = {"teacher": root / "wan", "few_step": root / "few_step"}
    student = train(root, "distill.py:tiny_kdmd", "student", **UNWATCHED, **teachers, clip=CLIP)
    config = student.denoiser.config
    assert (config.compression, config.time_schedule, config.time_shift) == ("t4_s16_c12", "thousandth", 3.0)
    assert not config.transformer.attend_text_padding and student.denoiser.sampling.solver == "renoise"


def test_a_fresh_student_of_another_width_learns_by_recovery(root):
    student = train(root, "recover.py:tiny", "recovered", teacher=root / "wan", clip=CLIP)
    assert student.denoiser.sampling.solver == "unipc" and student.denoiser.config.text_tokens == 512


def test_rewards_tune_it_in_latents_and_in_frames(root):
    text = f"--text_encoder=wan:{root / 'pipeline'}"
    labelled = ("--clips=16", "--validation=8", "--steps=2", "--guidance=1", f"--out={root / 'labelled'}")
    command("launch.label", f"--model={root / 'wan'}", f"--data={root / 'data'}", *labelled, text)
    train(root, "reward.py:tiny", "reward", init_from=root / "wan", data=root / "labelled")
    train(root, "critic.py:tiny", "critic", data=root / "data")
    for reward in ("reward", "critic"):
        changes = {"reward.run": root / reward, "reward.steps": 2, "steps": 2, "eval_every": 2, "checkpoint_every": 2}
        tuned = train(root, "reward_tuning.py:tiny", f"tuned_by_{reward}", init_from=root / "wan", **changes)
        own, rate = Run.open(root / "wan").denoiser.sampling, tuned.denoiser.sampling.frame_rate  # the data's
        assert tuned.denoiser.sampling == dataclasses.replace(own, frame_rate=rate)


def test_its_blocks_become_causal_linear_ones_whose_stream_is_matched_to_it(root):
    layout = {"model.causal": True, "model.layout": '(("lcha",1),("ssa",1))'}
    converted = train(root, "convert.py:tiny", "converted", init_from=root / "wan", **layout)
    assert converted.denoiser.config.transformer.cross_attention_norm and converted.denoiser.config.model.stream_chunk
    assert converted.denoiser.config.time_shift == 3.0
    teacher = {"init_from": root / "converted", "teacher": root / "wan"}
    streamed = train(root, "distill.py:tiny_self_forcing", "streamed", **UNWATCHED, **teacher)
    assert streamed.denoiser.config.model == converted.denoiser.config.model
