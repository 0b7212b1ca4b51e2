"""The benchmark's rows on the smallest sizes, its PyTorch peer, and what the command refuses."""

import builtins
import json

import numpy as np
import pytest

from export.peers import LtxDecoder
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages import benchmark
from mobile_video_jax.stages.vae import VaeTraining
from mobile_video_jax.vae.config import VaeConfig
from tests import tiny
from tests.launch.test_commands import start

CLIP = ClipShape.parse(tiny.CLIP)
LTX = {
    **dict.fromkeys(("block_out_channels", "decoder_block_out_channels"), (16, 16, 16, 16)),
    **dict.fromkeys(("layers_per_block", "decoder_layers_per_block"), (1, 1, 1, 1, 1)),
    "latent_channels": 6,
}
TRAINING = VaeTraining(
    clip="2x8x8",
    batch_size=2,
    vgg_stages=1,
    discriminator_widths=(8,),
    model=VaeConfig("t1_s2_c4", (8,), (1,), (8,), (1,), attention_blocks=0),
)
RUNS = {
    "vae_decode": lambda: benchmark.vae_decode({"tiny": tiny.VAE}, FakePeer(), CLIP, 2),
    "vae_memory": lambda: benchmark.vae_memory(tiny.VAE, [CLIP], 1),
    "vae_tiles": lambda: benchmark.vae_tiles(tiny.VAE, 32, 16, 8, 2),
    "vae_losses": lambda: benchmark.vae_losses(TRAINING, 1),
}
CONTRACT = {"name", "ours_seconds", "peer_seconds", "ratio", "peer", "dtype", "shape", "hardware", "commit"}


class FakePeer:
    name, parameters, flops_per_512_frame = "a peer", 7, 9

    def __call__(self, latents):
        assert latents.shape == (1, 3, 4, 4, 6)


@pytest.fixture(scope="module")
def rows() -> dict[str, list[benchmark.Row]]:
    return {name: list(run()) for name, run in RUNS.items()}


@pytest.mark.parametrize("name", RUNS)
def test_every_row_keeps_the_contract(rows, name):
    for row in json.loads(json.dumps(rows[name])):
        assert row.keys() >= CONTRACT and row["name"].split("/")[0] == name
        assert row["ours_seconds"] > 0 and row["ratio"] == row["peer_seconds"] / row["ours_seconds"]
        assert len(row["shape"]) == 5 and row["dtype"] == "float32"


def test_rows_carry_what_explains_them(rows):
    [decode], [memory], [tiles] = (rows[name] for name in ("vae_decode", "vae_memory", "vae_tiles"))
    assert decode["peer_parameters"] == 7 and decode["parameters"] > 1000 and decode["flops_per_512_frame"] > 1e6
    assert memory["peak_bytes"] > memory["baseline_bytes"] > 5e7
    assert memory["growth_bytes"] == memory["peak_bytes"] - memory["baseline_bytes"]
    assert tiles["largest_difference"] > 0
    losses = {row["name"].split("/")[1]: row for row in rows["vae_losses"]}
    assert losses.keys() == {*benchmark.LOSS_TERMS, "omni"}
    assert all(row["flops"] > row["peer_flops"] for row in losses.values())


def test_both_sides_take_turns_and_the_first_turn_is_not_timed(monkeypatch):
    calls, clock = [], [0.0]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def side(name, seconds):
        def run():
            calls.append(name)
            clock[0] += seconds[calls.count(name) - 1]

        return run

    ours, peer = side("ours", [100.0, 2.0, 1.0, 9.0]), side("peer", [100.0, 6.0, 5.0, 4.0])
    assert benchmark.interleaved(ours, peer, 3) == (2.0, 5.0)
    assert calls == ["ours", "peer"] * 4


def test_memory_of_a_child_is_not_its_parents():
    """The system's own record of the peak, ru_maxrss, would pass from this process to the child."""
    ballast = np.ones(2**28, np.uint8)
    parent = benchmark._peak_bytes()
    usage = benchmark._alone(benchmark.decoding_usage, tiny.VAE, ClipShape(1, 8, 8), "whole", 1)
    assert usage.baseline < parent - ballast.nbytes // 2


def test_ltx_decodes_to_its_compression():
    decoder = LtxDecoder(**LTX)
    video = decoder(np.zeros((1, 2, 1, 2, 6), np.float32))
    assert tuple(video.shape) == (1, 3, 9, 32, 64) and not video.requires_grad
    assert decoder.parameters > 1000 and decoder.flops_per_512_frame > 1e6
    with pytest.raises(UserError, match="PyTorch finds no GPU"):
        LtxDecoder(device="cuda", **LTX)


def test_a_missing_peer_is_named_with_its_package(monkeypatch):
    original = builtins.__import__

    def missing(name, *args):
        if name == "diffusers":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install torch==\S+ diffusers=="):
        LtxDecoder()


def test_unknown_names_are_refused_in_one_line():
    processes = [start("benchmark", argument) for argument in ("--suite=tpu", "--only=vae_speed")]
    (out, err), (other_out, other_err) = (process.communicate(timeout=200) for process in processes)
    assert [process.returncode for process in processes] == [2, 2] and out == other_out == ""
    assert err.splitlines() == ["error: flag --suite=tpu: value should be one of <cpu|gpu>"]
    assert "error: flag --only=vae_speed: value should be one of <vae_decode|vae_memory|" in other_err
