"""Commands as a user types them: what they print, and one line with status 2 for bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mobile_video_jax.data.video_file import probe
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.loop import train
from tests import tiny

ROOT = Path(__file__).parents[2]


def start(module: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", f"launch.{module}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """latents/ and a short transformer run dit/."""
    root = tmp_path_factory.mktemp("commands")
    tiny.latents(root / "latents")
    train(DitStage(tiny.dit_config(root / "latents", steps=2)), root / "dit")
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
        [DIT, "--workdir={}/new", LATENTS, "--config.clip=33x32x32"],
        "was encoded with clip=9",
    ),
    "no run": ("sample", ["--model={}/nowhere", "--prompt=a red circle", "--out={}/new"], "does not exist"),
    "empty prompt": ("sample", ["--model={}/dit", "--prompt=", "--out={}/new"], "has no words"),
    "long prompt": ("sample", ["--model={}/dit", "--prompt=" + "red " * 40, "--out={}/new"], "tokens"),
    "two kinds of prompts": (
        "sample",
        ["--model={}/dit", "--prompt=a red circle", "--prompts={}/list.txt", "--out={}/new"],
        "say what to draw with --prompt or with --prompts=FILE, one of the two",
    ),
    "image": (
        "sample",
        ["--model={}/dit", "--prompt=a red circle", "--image={}/a.png", "--out={}/new"],
        "train one with --config.image_probability=0.3",
    ),
    "unknown study": ("ablate", ["--study=everything", "--out={}/new"], "study 'everything' is unknown"),
    "impossible cell": ("ablate", ["--out={}/new", "--config.compressions=('t4_s64_c8',)"], "beyond this family"),
    "no VAE": ("evaluate", ["--model={}/dit", "--data={}/latents", "--out={}/new"], "stage 'dit', not 'vae'"),
    "tile": (
        "evaluate",
        ["--model={}/latents/vae", "--data={}/latents", "--out={}/new", "--tile=20"],
        "use multiples of the spatial stride 8",
    ),
    "no encoder": ("train", ["--config=configs/vae_decoder.py", "--workdir={}/new"], "name its run with"),
    "no flag": ("encode", ["--vae={}/latents/vae"], "--data is missing"),
}


@pytest.fixture(scope="module")
def refused(folder) -> dict[str, tuple[int, str, str]]:
    """Status, stdout and stderr of every bad command; two at a time, as there are two cores."""
    results, names = {}, list(BAD_INPUT)
    for pair in (names[i : i + 2] for i in range(0, len(names), 2)):
        running = {}
        for name in pair:
            module, arguments, _ = BAD_INPUT[name]
            running[name] = start(module, *(argument.replace("{}", str(folder)) for argument in arguments))
        results |= {name: (*process.communicate(timeout=200), process.returncode) for name, process in running.items()}
    return {name: (status, out, err) for name, (out, err, status) in results.items()}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_gives_one_line_and_status_2(refused, folder, name):
    status, out, err = refused[name]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and out == "" and len(lines) == 1, err
    assert BAD_INPUT[name][2] in lines[0] and "Traceback" not in err
    assert not (folder / "new").exists()


def test_inspect_prints_the_contract_as_json():
    out, err = start("inspect", "--config=configs/dit.py:server", "--json").communicate(timeout=200)
    costs = json.loads(out)
    assert err == "" and costs["tokens"] == 1344 and costs["latent_shape"] == [7, 12, 16, 128]
    for kind in ("parameters", "flops"):
        assert costs[kind]["total"] == sum(value for part, value in costs[kind].items() if part != "total")
    assert costs["bytes"] == 4 * costs["parameters"]["total"]


def test_sample_writes_clips_and_says_where(folder):
    arguments = ["--prompt=a red circle", "--prompt=a blue square", "--steps=2", "--seed=7", "--scale=2"]
    process = start("sample", f"--model={folder}/dit", f"--out={folder}/samples", *arguments)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["clips"] == ["00007-a-red-circle.mp4", "00008-a-blue-square.mp4"]
    for name in summary["clips"]:
        assert (folder / "samples" / name).stat().st_size > 500
        assert (folder / "samples" / name).with_suffix(".gif").stat().st_size > 500
    assert "2/2" in err


def test_sample_draws_a_list_in_another_size(folder):
    (folder / "list.txt").write_text("a red circle\n\na blue square\n")
    arguments = [f"--prompts={folder}/list.txt", "--steps=1", "--guidance=1", "--clip=5x32x64", "--batch_size=1"]
    process = start("sample", f"--model={folder}/dit", f"--out={folder}/list", *arguments)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["clips"] == ["00000-a-red-circle.mp4", "00001-a-blue-square.mp4"]
    info = probe(folder / "list" / "00001-a-blue-square.mp4")
    assert (info.frames, info.height, info.width) == (5, 32, 64)
    assert json.loads((folder / "list" / "samples.json").read_text())["sampling"]["shift"] == 1.0
    assert "1/2" in err and "2/2" in err
