"""The benchmark's rows on the smallest sizes, its PyTorch peer, and what the command refuses."""

import builtins
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from export.peer.ltx_decoder import LtxDecoder
from mobile_video_jax.bench import dit as benchmark_dit
from mobile_video_jax.bench import timing
from mobile_video_jax.bench import vae as benchmark_vae
from mobile_video_jax.bench.lazy import lazy_sample
from mobile_video_jax.core.clip import ClipShape
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.stages.config import DitTraining, VaeTraining
from mobile_video_jax.vae.config import VaeConfig

ROOT = Path(__file__).parents[2]
CLIP = ClipShape(5, 16, 16)
VAE = VaeConfig("t2_s4_c6", (8, 8), (1, 1), (8, 8), (1, 1), attention_blocks=0)
LTX = {
    **dict.fromkeys(("block_out_channels", "decoder_block_out_channels"), (16, 16, 16, 16)),
    **dict.fromkeys(("layers_per_block", "decoder_layers_per_block"), (1, 1, 1, 1, 1)),
    "latent_channels": 6,
}
TRAINING = VaeTraining(
    clip="2x8x8",
    batch_size=2,
    vgg_stages=1,
    model=VaeConfig("t1_s2_c4", (8,), (1,), (8,), (1,), attention_blocks=0),
)
DIT = DitTraining(
    clip="5x16x16",
    text_tokens=4,
    text_width=6,
    batch_size=2,
    model=DitConfig(width=12, depth=1, heads=2, head_dim=6, ffn=8, time_features=4),
)
STEPS = benchmark_dit.Steps(DIT, 8, 2)
RUNS = {
    "vae_decode": lambda: benchmark_vae.vae_decode({"tiny": VAE}, FakePeer(), CLIP, 2),
    "vae_memory": lambda: benchmark_vae.vae_memory(VAE, [CLIP], 1),
    "vae_tiles": lambda: benchmark_vae.vae_tiles(VAE, 16, 8, 4, 2),
    "vae_losses": lambda: benchmark_vae.vae_losses(TRAINING, {"perceptual": benchmark_vae.LOSS_TERMS["perceptual"]}, 1),
    "dit_train": lambda: [benchmark_dit.dit_train(STEPS, FakeDit())],
    "dit_sample": lambda: [benchmark_dit.dit_sample(STEPS, FakeDit())],
    "lazy_sample": lambda: [lazy_sample(STEPS)],
}
CONTRACT = {"name", "ours_seconds", "peer_seconds", "ratio", "peer", "dtype", "shape", "hardware", "commit"}


class FakePeer:
    name, parameters, flops_per_512_frame = "a peer", 7, 9

    def __call__(self, latents):
        assert latents.shape == (1, 3, 4, 4, 6)


class FakeDit:
    name = "a framework"

    def train(self, batch, optimizer):
        assert batch["latents"].shape == (2, 2, 2, 2, 16) and batch["text_mask"].sum(1).tolist() == [4, 2]
        return {"slow": lambda: time.sleep(0.2), "fast": lambda: None}

    def sample(self, batch, null, scale, times):
        assert null["text_mask"].sum(1).tolist() == [1, 1] and not null["text"].any()
        return {"only": lambda: None}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[timing.Row]]:
    ballast = np.ones(2**29, np.uint8)
    assert ballast.nbytes < benchmark_vae._peak_bytes()
    return {name: list(run()) for name, run in RUNS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_row_keeps_the_contract(rows, name):
    for row in json.loads(json.dumps(rows[name])):
        assert row.keys() >= CONTRACT and row["name"].split("/")[0] == name
        assert row["ours_seconds"] > 0 and row["ratio"] == row["peer_seconds"] / row["ours_seconds"]
        assert len(row["shape"]) == 5 and row["dtype"] == "float32"


@pytest.mark.slow
def test_rows_carry_what_explains_them(rows):
    [decode], [memory], [tiles] = (rows[name] for name in ("vae_decode", "vae_memory", "vae_tiles"))
    assert decode["peer_parameters"] == 7 and decode["parameters"] > 1000 and decode["flops_per_512_frame"] > 1e6
    assert memory["peak_bytes"] > memory["baseline_bytes"] > 5e7
    assert memory["growth_bytes"] == memory["peak_bytes"] - memory["baseline_bytes"]
    assert tiles["largest_difference"] > 0
    assert [row["name"] for row in rows["vae_losses"]] == ["vae_losses/perceptual", "vae_losses/omni"]
    assert all(row["flops"] > row["peer_flops"] for row in rows["vae_losses"])


@pytest.mark.slow
def test_a_transformer_is_measured_beside_the_fastest_way_and_a_matrix_product(rows):
    [train], [sample] = rows["dit_train"], rows["dit_sample"]
    assert train["peer"] == "a framework, fast" and train["peer_seconds_by_way"]["slow"] > 0.2
    assert sample["peer"] == "a framework, only" and sample["shape"] == train["shape"] == [2, 2, 2, 2, 16]
    # Three passes over two clips beside one pass over four.
    assert train["flops"] == pytest.approx(1.5 * sample["flops"])
    for row in (train, sample):
        rate = row["flops"] / row["ours_seconds"]
        assert row["mfu"] == pytest.approx(rate / row["ceiling_flops_per_second"])


@pytest.mark.slow
def test_a_sampler_that_reuses_outputs_is_measured_beside_the_plain_one(rows):
    [row] = rows["lazy_sample"]
    assert row["peer"] == "all modules computed" and 1 < row["flops_ratio"] < 2


def test_both_sides_take_turns_and_the_first_turn_is_not_timed(monkeypatch):
    calls, clock = [], [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def side(name, seconds):
        def run():
            calls.append(name)
            clock[0] += seconds[calls.count(name) - 1]

        return run

    ours, peer = side("ours", [100.0, 2.0, 1.0, 9.0]), side("peer", [100.0, 6.0, 5.0, 4.0])
    assert timing.interleaved(ours, peer, 3) == (2.0, 5.0)
    assert calls == ["ours", "peer"] * 4


@pytest.mark.slow
def test_memory_of_a_child_is_not_its_parents(rows):
    """The system's own record of the peak, ru_maxrss, passes from this process, with its ballast, to the child."""
    assert rows["vae_memory"][0]["baseline_bytes"] < benchmark_vae._peak_bytes() - 2**28


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


# One process for all of these: most of a command's time goes into imports.
ARGUMENTS = {
    "json": ["--only=vae_tiles", "--json"],
    "table": ["--only=vae_tiles", "--only=vae_losses"],
    "suite": ["--suite=npu"],
    "name": ["--only=vae_speed"],
    "no gpu": ["--suite=gpu"],
}
COMMANDS = """
import contextlib, io, json, sys
from absl import flags
from launch import benchmark, suites
from mobile_video_jax import cli

row = {"name": "vae_tiles", "ours_seconds": 2.0, "peer_seconds": 3.0, "ratio": 1.5, "peer": "a peer", "bytes": 1000}
row |= {"hardware": "a phone", "commit": "abc"}
suites.benchmarks = lambda *_: {"vae_tiles": lambda: [row], "vae_losses": lambda: [row]}
results = {}
for name, arguments in json.loads(sys.argv.pop()).items():
    flags.FLAGS.unparse_flags()
    sys.argv[1:] = arguments
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            cli.run(benchmark.main)
        except SystemExit as end:
            results[name] = (end.code, out.getvalue(), err.getvalue())
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results() -> dict[str, tuple[int, str, str]]:
    """Status, stdout and stderr of the commands, run on made-up rows."""
    command = [sys.executable, "-c", COMMANDS, json.dumps(ARGUMENTS)]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": True, "timeout": 200}
    return json.loads(subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, **options).stdout)


def test_rows_are_printed_as_json_alone_or_below_a_table(results):
    status, out, err = results["json"]
    assert status == 0 and [row["ratio"] for row in json.loads(out)] == [1.5] and "vae_tiles: ratio 1.50" in err
    *table, last = results["table"][1].splitlines()
    assert len(json.loads(last)) == 2 and "a phone" in table[0] and "bytes 1,000" in table[3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("suite", "flag --suite=npu: value should be one of <cpu|gpu|tpu>"),
        (
            "name",
            "flag --only=vae_speed: value should be one of "
            "<vae_decode|vae_memory|vae_tiles|vae_losses|dit_train|dit_sample|lazy_sample>",
        ),
        ("no gpu", "JAX finds no GPU here: use --suite=cpu, or pip install -e '.[gpu]'"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(results, name, message):
    assert results[name] == [2, "", f"error: {message}\n"]
