"""The phone estimate counts what a package holds, and its arithmetic is what it says."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from configs import dit as configs
from configs import vae as vae_configs
from export.coreml.package import convert
from export.estimate import report
from export.estimate.clip import Plan, clip_estimate, clip_seconds
from export.estimate.networks import NETWORKS, empty
from export.estimate.ops import ops_of_module, ops_of_program
from export.estimate.tiles import fastest_tiles
from export.mil.load import load_package
from export.part import Part
from export.phone.dit import PhoneDit
from export.pytorch.dit import Dit
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.phone.fit import calibrate, estimate, fit
from mobile_video_jax.cost.phone.ops import HALF, Op
from mobile_video_jax.cost.phone.roofline import call_seconds
from mobile_video_jax.cost.phone.table import ASSUMED, FITTED, HELD_OUT
from mobile_video_jax.cost.phone.trace import ops_of_network
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.registry import build_stage
from tests.commands import run as command

SHAPES = {"latents": (1, 8, 1, 12), "time_features": (1, 16, 1, 1), "text": (1, 24, 1, 5), "text_mask": (1, 1, 1, 5)}


def config_of(variant: str) -> DitTraining:
    return build_stage(configs.get_config(variant).to_dict()).config


@pytest.fixture(scope="module")
def dit() -> PhoneDit:
    torch.manual_seed(0)
    config = DitConfig(width=64, depth=1, heads=2, head_dim=16, ffn=96, time_features=16)
    return PhoneDit(Dit(config, (2, 2, 3, 8), 24), [2]).requires_grad_(False)


@pytest.fixture(scope="module")
def package(dit: PhoneDit, tmp_path_factory) -> Path:
    inputs = {name: np.random.default_rng(0).random(shape, np.float32) for name, shape in SHAPES.items()}
    path = tmp_path_factory.mktemp("estimate") / "dit.mlpackage"
    convert(Part("dit", dit, inputs, {"velocity": inputs["latents"]}), path)
    return path


def test_shapes_alone_give_what_the_package_holds(dit, package):
    ours = ops_of_module(dit.to("meta"), *(empty(*shape) for shape in SHAPES.values()))
    saved = ops_of_program(load_package(package).function())

    def sums(ops: list[Op]) -> list[int]:
        values = sum(value.bytes for op in ops for value in op.values)
        return [sum(op.flops for op in ops), sum(op.weight_bytes for op in ops), values]

    (flops, weights, values), (saved_flops, saved_weights, saved_values) = sums(ours), sums(saved)
    assert flops == saved_flops
    np.testing.assert_allclose(weights, saved_weights, rtol=0.02)
    np.testing.assert_allclose(values, saved_values, rtol=0.05)


@pytest.mark.parametrize("on_chip", [ASSUMED.on_chip, 4000])
def test_the_jax_network_has_the_ops_of_the_exported_one(on_chip: int, monkeypatch):
    """The one exception: the frequencies of the time's features, [f / 2] numbers, which the app computes.

    Where little stays on the chip, tokens and heads are in pieces.
    """
    assumed = dataclasses.replace(ASSUMED, on_chip=on_chip)
    monkeypatch.setattr("mobile_video_jax.cost.phone.tiles.ASSUMED", assumed)
    training = config_of("tiny")
    model = dataclasses.replace(training.model, blocks=((4, 3, 100), (2, 4, 512)))
    config = dataclasses.replace(training, model=model)
    denoiser = Denoiser(config)
    inputs = denoiser.input_shapes(1)
    for tiles in (1, 3):
        exported = Plan(config, clip=config.clip, tiles=tiles).denoiser().ops
        traced = ops_of_network(
            denoiser.network,
            inputs["latents"],
            jax.ShapeDtypeStruct((1,), jnp.float32),
            inputs["text"],
            inputs["text_mask"],
            ffn_tiles=tiles,
        )
        assert sum(op.flops for op in traced) == sum(op.flops for op in exported)
        if on_chip == ASSUMED.on_chip:  # a bias counts once, also where its product is in pieces
            weights = sum(op.weight_bytes for op in exported)
            assert sum(op.weight_bytes for op in traced) == weights + HALF * model.time_features // 2
        # With no memory on the chip every value is traffic; ops differ in a few of a row of numbers.
        all_traffic = dataclasses.replace(ASSUMED, on_chip=0)
        seconds = [call_seconds(ops, assumptions=all_traffic) for ops in (traced, exported)]
        assert seconds[0] == pytest.approx(seconds[1], rel=0.002 if on_chip == ASSUMED.on_chip else 0.02)
        assert len(traced) == pytest.approx(len(exported), rel=0.03)


def test_a_stream_takes_a_pass_more_than_steps_for_every_chunk_whatever_is_before_it():
    training = config_of("tiny")
    layout = (("lcha", 1), ("full", 2), ("chunked", 1))
    model = dataclasses.replace(training.model, depth=3, layout=layout, causal=True)
    config = dataclasses.replace(training, model=model)
    short, long = (Plan(config, clip=clip, tiles=1).denoisers() for clip in ("9x32x32", "33x32x32"))
    assert (short["dit"].times, long["dit"].times) == (5, 20)
    assert call_seconds(short["dit"].ops) == call_seconds(long["dit"].ops)
    assert sum(op.flops for op in long["dit"].ops) > 1.5 * sum(op.flops for op in long["dit_first"].ops)


def test_a_block_of_the_mobile_transformer_takes_the_same_time_from_both():
    training = config_of("mobile")
    model = dataclasses.replace(training.model, depth=1, scan=False, remat="none")
    config = dataclasses.replace(training, model=model)
    denoiser = Denoiser(config)
    inputs = denoiser.input_shapes(1)
    exported = Plan(config, clip=config.clip, tiles=1).denoiser()
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    traced = ops_of_network(denoiser.network, inputs["latents"], t, inputs["text"], inputs["text_mask"], ffn_tiles=1)
    assert call_seconds(traced) == pytest.approx(call_seconds(exported.ops), rel=0.01)
    # The FFN's hidden channels are those of a third of the tokens, before and after GELU, beside the residual stream.
    assert HALF * 1344 * (2 * 6144 // 3 + 2048) < exported.peak_activation_bytes < HALF * 1344 * 2 * 6144


def test_tiles_are_those_that_the_estimate_is_fastest_with():
    # 448 tokens at a time, and 336: sums and tiles of hidden channels stay on the chip.
    assert fastest_tiles(2048, 6144, 1344) == fastest_tiles(2048, 6144, 336) == 4
    assert fastest_tiles(2, 2, 4) == 1


def test_the_fit_finds_the_shares_that_figures_were_made_with():
    rng = np.random.default_rng(0)
    costs = {name: np.stack([rng.lognormal(20, 3, 50), rng.lognormal(13, 3, 50)], 1) for name in NETWORKS}
    true = dataclasses.replace(ASSUMED, compute=0.3, memory=0.9)
    figures = [dataclasses.replace(figure, seconds=estimate(costs, figure, true)) for figure in FITTED]
    fitted = fit(costs, figures)
    assert (fitted.compute, fitted.memory) == (pytest.approx(0.3, rel=1e-3), pytest.approx(0.9, rel=1e-3))


@pytest.mark.slow
def test_the_table_holds_what_the_published_figures_give():
    calibrated = calibrate({name: network() for name, network in NETWORKS.items()})
    assert [calibrated["compute"], calibrated["memory"]] == pytest.approx([ASSUMED.compute, ASSUMED.memory], rel=2e-3)
    assert calibrated["held_out_ratio"] == pytest.approx(list(HELD_OUT), rel=1e-2)


def test_a_clip_of_the_tiny_model():
    config = config_of("tiny")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, depth=1))
    result = clip_estimate(Plan(config, decoder="micro", clip="9x32x32", tiles=2))
    assert {name: row["times"] for name, row in result["calls"].items()} == {"dit": 4, "vae_first": 1, "vae_next": 2}
    assert result["seconds"] == pytest.approx(4 * result["seconds_a_step"] + result["decoder_seconds"])
    assert sum(result["parts"].values()) == pytest.approx(result["seconds"] - 7 * ASSUMED.call)
    assert result["frames_a_second"] == pytest.approx(9 / result["seconds"])
    low, high = result["frames_a_second_range"]
    assert low < result["frames_a_second"] < high
    changes = {row["change"]: row["frames_a_second"] for row in result["changes"]}
    assert list(changes.values()) == sorted(changes.values(), reverse=True)
    assert changes["--steps=2"] > changes["weights of 4 bits"] > result["frames_a_second"]
    assert result["frames_a_second"] > changes["assumed: 1 us for each op"]
    text = report.clip_table(result)
    assert "nothing was measured on a phone" in text and f"{result['frames_a_second']:.1f} frames a second" in text


def test_the_default_export_of_mobile_is_in_real_time():
    config, blocks = config_of("mobile"), config_of("mobile").model.depth
    models = [dataclasses.replace(config.model, depth=depth, scan=False, remat="none") for depth in (1, 2)]
    one, two = (Plan(dataclasses.replace(config, model=model)).denoiser().ops for model in models)
    decoders = Plan(config).decoders()

    def whole(sum_of: Callable[[list[Op]], float]) -> float:
        """Of all blocks, which are alike."""
        return sum_of(one) + (blocks - 1) * (sum_of(two) - sum_of(one))

    # Two FLOPs a multiply-add of 0.92 B weights and 1,344 tokens, and the attention's products.
    assert whole(lambda ops: sum(op.flops for op in ops)) == pytest.approx(2.41e12, rel=0.01)
    # Those of the FFNs are read for each third of the tokens.
    weights, of_ffns = 2 * 0.97e9, 2 * 20 * 2 * 2048 * 6144
    assert whole(lambda ops: sum(op.weight_bytes for op in ops)) == pytest.approx(weights + 2 * of_ffns, rel=0.01)
    assert 49 / (4 * whole(call_seconds) + clip_seconds(decoders)) > 32


def test_wans_own_decoder_is_estimated():
    first, later = Plan(config_of("wan"), decoder="wan", clip="5x32x32").decoders().values()
    assert (first.times, later.times) == (1, 1)
    # The first frame needs one tap of three in time, and stays one where each later one becomes four.
    assert 6 < sum(op.flops for op in later.ops) / sum(op.flops for op in first.ops) < 12


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="the config is not a transformer's: give one such as configs/dit.py:mobile"):
        report.of_config(vae_configs.get_config().to_dict())
    with pytest.raises(UserError, match="41 frames at temporal stride 8 are legal"):
        Plan(config_of("mobile"), clip="48x384x512").calls()
    with pytest.raises(UserError, match="weights 'int3' are unknown: use one of fp16, int8, palette8"):
        Plan(config_of("mobile"), weights="int3")
    with pytest.raises(UserError, match="Wan's decoders are of t4_s16_c64 and t4_s32_c192, not of t8_s32_c128"):
        Plan(config_of("mobile"), decoder="wan").decoders()
    expected = "give one of --config=configs/dit.py:mobile, --model=RUN, --package=FILE.mlpackage and --calibrate"
    assert command("export.phone_estimate") == (2, "", f"error: {expected}\n")


def test_the_command_estimates_a_package(package):
    result = json.loads(command("export.phone_estimate", f"--package={package}", "--json").out)
    assert sum(result["op_types"].values()) == pytest.approx(result["seconds"] - ASSUMED.call)
    assert result["op_types"]["conv"] > 0
