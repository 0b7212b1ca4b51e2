"""Commands as a user types them: what they print, and one line with status 2 for bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mobile_video_jax.data.video.probe import probe
from tests import tiny
from tests.commands import ROOT, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The encoded data set latents/ and the transformer run dit/."""
    root = tmp_path_factory.mktemp("commands")
    tiny.latents(root / "latents")
    tiny.dit_run(root / "dit", tiny.dit_config(root / "latents", steps=2))
    return root


DIT = "--config=configs/dit.py:tiny"
LATENTS = "--config.data={}/latents"
SAME_DATA = [f"--config.compression={tiny.COMPRESSION}", "--config.text_tokens=12", "--config.batch_size=8"]
VAE = "--config=configs/vae.py:mobile_t8_s32_c128"
BAD_INPUT = {
    "unknown variant": ("train", [DIT + "y", "--workdir={}/new"], "variant 'tinyy' is unknown"),
    "unknown key": ("train", [DIT, "--workdir={}/new", "--config.modle.width=3"], "modle"),
    "frames": ("train", [VAE, "--workdir={}/new", "--config.clip=50x256x256"], "50 is not: use 49 or 57"),
    "size": ("train", [VAE, "--workdir={}/new", "--config.clip=49x250x256"], "use 224 or 256"),
    "other config": ("train", [DIT, "--workdir={}/dit", LATENTS, *SAME_DATA], "was trained with"),
    "other clip": (
        "train",
        [DIT, "--workdir={}/new", LATENTS, SAME_DATA[0], "--config.clip=33x32x32"],
        "was encoded with clip=9",
    ),
    "no run": ("sample", ["--model={}/nowhere", "--prompt=a red circle", "--out={}/new"], "does not exist"),
    "empty prompt": ("sample", ["--model={}/dit", "--prompt=", "--out={}/new"], "has no words"),
    "long prompt": ("sample", ["--model={}/dit", "--prompt=" + "red " * 40, "--out={}/new"], "tokens"),
    "two kinds of prompts": (
        "sample",
        ["--model={}/dit", "--prompt=a red circle", "--prompts={}/list.txt", "--out={}/new"],
        "say what to generate with --prompt or with --prompts=FILE, one of the two",
    ),
    "image": (
        "sample",
        ["--model={}/dit", "--prompt=a red circle", "--image={}/a.png", "--out={}/new"],
        "train one with --config.image_probability=0.3",
    ),
    "noise without an image": (
        "sample",
        ["--model={}/dit", "--prompt=a red circle", "--image_noise=0.1", "--out={}/new"],
        "no clip starts from an image: leave it out",
    ),
    "unknown study": ("ablate", ["--study=everything", "--out={}/new"], "study 'everything' is unknown"),
    "impossible cell": ("ablate", ["--out={}/new", "--config.compressions=('t4_s64_c8',)"], "beyond this family"),
    "flag of another stage": (
        "evaluate",
        ["--model={}/latents/vae", "--data={}/latents", "--out={}/new", "--steps=3"],
        "--steps is for transformers, and",
    ),
    "training split": (
        "evaluate",
        ["--model={}/dit", "--data={}/latents", "--out={}/new", "--split=train"],
        "use the split test or validation",
    ),
    "tile": (
        "evaluate",
        ["--model={}/latents/vae", "--data={}/latents", "--out={}/new", "--tile=20"],
        "use multiples of the spatial stride 8",
    ),
    "one run": ("compare", ["--runs", "{}/dit", "--out={}/new"], "name two runs or more"),
    "run without data": ("compare", ["--runs", "{}/dit", "{}/latents/vae", "--out={}/new"], "add --data=DIR"),
    "comparison over a run": ("compare", ["--runs", "a", "b", "--out={}/dit"], "holds no comparison"),
    "no encoder": ("train", ["--config=configs/vae_decoder.py", "--workdir={}/new"], "name its run with"),
    "no flag": ("encode", ["--vae={}/latents/vae"], "--data is missing"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_gives_one_line_and_status_2(folder, name):
    module, arguments, message = BAD_INPUT[name]
    done = run(f"launch.{module}", *(argument.replace("{}", str(folder)) for argument in arguments))
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.status == 2 and done.out == "" and len(lines) == 1, done.err
    assert message in lines[0] and "Traceback" not in done.err
    assert not (folder / "new").exists()


def test_inspect_prints_the_contract_as_json():
    """Started by a shell's own command; the others are forked."""
    command = [sys.executable, "-m", "launch.inspect", "--config=configs/dit.py:server", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    costs = json.loads(done.stdout)
    assert all(line.startswith("inspect: ") for line in done.stderr.splitlines())
    assert costs["tokens"] == 1344 and costs["latent_shape"] == [7, 12, 16, 128]
    for kind in ("parameters", "flops"):
        assert costs[kind]["total"] == sum(value for part, value in costs[kind].items() if part != "total")
    assert costs["bytes"] == 4 * costs["parameters"]["total"]


def test_sample_writes_clips_and_says_where(folder):
    arguments = ["--prompt=a red circle", "--prompt=a blue square", "--steps=2", "--seed=7", "--scale=2"]
    done = run("launch.sample", f"--model={folder}/dit", f"--out={folder}/samples", *arguments)
    assert done.status == 0, done.err
    summary = json.loads(done.out.splitlines()[-1])
    assert summary["clips"] == ["00007-a-red-circle.mp4", "00008-a-blue-square.mp4"]
    for name in summary["clips"]:
        assert (folder / "samples" / name).stat().st_size > 500
        assert (folder / "samples" / name).with_suffix(".gif").stat().st_size > 500
    assert "2/2" in done.err


def test_sample_draws_a_list_in_another_size(folder):
    (folder / "list.txt").write_text("a red circle\n\na blue square\n")
    arguments = [f"--prompts={folder}/list.txt", "--steps=1", "--guidance=1", "--clip=5x32x64", "--batch_size=1"]
    done = run("launch.sample", f"--model={folder}/dit", f"--out={folder}/list", *arguments)
    assert done.status == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["clips"] == ["00000-a-red-circle.mp4", "00001-a-blue-square.mp4"]
    info = probe(folder / "list" / "00001-a-blue-square.mp4")
    assert (info.frames, info.height, info.width) == (5, 32, 64)
    assert json.loads((folder / "list" / "samples.json").read_text())["sampling"]["shift"] == 1.0
    assert "1/2" in done.err and "2/2" in done.err
