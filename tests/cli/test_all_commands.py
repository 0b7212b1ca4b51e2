"""Every command: a quick --help that imports nothing heavy, numeric flags in a range, configs from any folder."""

import json
import re
import resource
import subprocess
import sys

import pytest

from launch.completion import SCRIPTS, completions
from launch.mvj import COMMANDS, overview
from tests.commands import ROOT, run

HEAVY = {"jax", "flax", "optax", "grain", "tensorflow", "matplotlib", "torch", "coremltools", "diffusers"}


@pytest.fixture(scope="module")
def probed() -> dict[str, dict]:
    command = [sys.executable, "-m", "tests.cli.probe", *COMMANDS.values()]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def test_mvj_knows_every_command():
    files = [path for folder in ("launch", "export") for path in (ROOT / folder).rglob("*.py")]
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if "cli.run(" in path.read_text()
    }
    assert modules == set(COMMANDS.values())
    assert all(re.search(rf"^  {name} +\w", overview(), re.M) for name in COMMANDS)


@pytest.mark.parametrize("module", COMMANDS.values())
def test_help_imports_nothing_heavy_and_tells_of_every_flag(module, probed):
    report = probed[module]
    assert not HEAVY & set(report["imported"])
    assert "\nFlags:\n" in report["help"] and report["help"].count("\n  --") >= 3


def test_help_takes_a_moment():
    """On a quiet machine 0.25 s of CPU; ablate's config is the largest."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-m", "launch.ablate", "--study=distillation", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--config.distill.objective.r1_sigma=0.05" in done.stdout
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.5


@pytest.mark.parametrize("module", COMMANDS.values())
def test_no_numeric_flag_takes_nan_infinity_or_a_huge_number(module, probed):
    assert {name: texts for name, texts in probed[module]["numbers"].items() if texts} == {}


NEEDED = {
    "sample": ["--model=.", "--out=new", "--prompt=a"],
    "prepare_data": ["--source=moving_shapes", "--out=new"],
    "encode": ["--vae=.", "--data=.", "--out=new"],
    "ablate": ["--out=new"],
    "train": ["--config=dit:tiny", "--workdir=new"],
    "export": ["--model=.", "--out=new"],
    "compile": ["--config=dit:tiny", "--topology=v5e:2x2"],
    "tpu_job": ["--config=dit:server", "--topology=v5p:4x4x8", "--workdir=gs://a/b", "--image=a/b:c"],
}
OUT_OF_RANGE = [
    *[("sample", f"--{flag}") for flag in ("guidance=nan", "guidance=inf", "guidance=-5", "shift=0", "shift=nan")],
    *[("sample", f"--{flag}") for flag in ("fps=100000000", "scale=5000", "steps=2000000000", "seed=-1", "clip=9x0x3")],
    *[("prepare_data", f"--{flag}") for flag in ("clip=100001x40000x40000", "train=0", "size=9", "max_rejected=2")],
    *[("encode", f"--{flag}") for flag in ("batch_size=0", "batch_size=-1", "shard_records=0", "rows=0")],
    *[("ablate", f"--{flag}") for flag in ("peak_tflops=0", "utilization=-1", "workers=0", "config.seeds=()")],
    *[("train", f"--config.{key}") for key in ("steps=0", "batch_size=-4", "optimizer.beta2=1.5", "seed=1e20")],
    *[("train", f"--config.{key}") for key in ("caption_dropout=nan", "model.heads=0", "model.dtype=float8")],
    *[("export", f"--{flag}") for flag in ("target_psnr=-5", "tiles=0", "chunk_megabytes=0")],
    ("tpu_job", "--image=not a image!"),
    *[("compile", f"--{flag}") for flag in ("steps=0", "steps=nan", "price=0", "price=inf", "price=-1")],
]


@pytest.mark.parametrize(("name", "argument"), OUT_OF_RANGE)
def test_a_value_that_cannot_be_meant_ends_in_one_line_before_anything_is_written(name, argument, tmp_path):
    done = run(COMMANDS[name], *NEEDED[name], argument, folder=tmp_path)
    assert done.status == 2 and done.out == "", done.err
    assert len(done.err.splitlines()) == 1 and argument.partition("=")[0].lstrip("-") in done.err
    assert not list(tmp_path.iterdir())


LOCAL = [
    ("export", ["--model=.", "--out=gs://a/b"]),
    ("ablate", ["--study=pruning", "--out=gs:/a/b"]),
    ("demo", ["--out=gs://a/b"]),
    ("vbench", ["--results=.", "--out=gs://a/b"]),
    ("compile", ["--config=dit:tiny", "--topology=v5p:4x4x8", "--out=gs:/a/b"]),
    ("import_weights", ["--source=gs://a/b", "--out=new"]),
    ("sample", ["--model=.", "--prompt=a", "--out=gs:/a/b"]),
    ("encode", ["--vae=.", "--data=.", "--out=new", "--text_encoder=t5:gs://a/b"]),
    ("evaluate", ["--model=.", "--data=.", "--out=new", "--lpips=vgg:gs://a/b"]),
]


@pytest.mark.parametrize(("name", "arguments"), LOCAL)
def test_a_bucket_is_refused_where_it_is_not_read_or_written(name, arguments, tmp_path):
    done = run(COMMANDS[name], *arguments, folder=tmp_path)
    assert done.status == 2 and len(done.err.splitlines()) == 1 and "gs:/" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["demo", "ablate"])
def test_a_folder_with_something_else_is_refused_and_left_as_it_is(name, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    done = run(COMMANDS[name], f"--out={tmp_path}")
    assert done.status == 2 and len(done.err.splitlines()) == 1 and "thesis.txt" in done.err, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("text", ["configs/dit.py:tiny", "dit:tiny", f"{ROOT}/configs/dit.py:tiny", "own.py:3"])
def test_configs_are_found_from_any_folder(text, tmp_path):
    (tmp_path / "own.py").write_text(
        "from configs import dit\n\ndef get_config(depth):\n    return dit.get_config('tiny')\n"
    )
    done = run("launch.train", f"--config={text}", "--print_config", folder=tmp_path)
    assert done.status == 0 and "depth: 6" in done.out, done.err


def test_defaults_are_found_from_any_folder(tmp_path):
    for name in ("demo", "prune", "ablate"):
        done = run(COMMANDS[name], "--print_config", folder=tmp_path)
        assert done.status == 0 and "seed: 0" in done.out, done.err


def test_a_study_is_named_by_its_flag_or_its_config(tmp_path):
    forms = (["--study=pruning"], ["--config=configs/ablate.py:pruning"], ["--config=ablate:pruning"])
    printed = [run("launch.ablate", *form, "--print_config", folder=tmp_path).out for form in forms]
    assert "kind: pruning" in printed[0] and len(set(printed)) == 1


def test_runs_to_compare_follow_one_flag(tmp_path):
    for runs in (["--runs", "a", "b"], ["--runs=a,b"], ["--runs", "a", "--runs", "b"]):
        done = run("launch.compare", *runs, "--out=new", folder=tmp_path)
        assert done.status == 2 and "there is no a/report.json" in done.err, done.err


def test_mvj_runs_a_command_and_refuses_an_unknown_one(tmp_path):
    done = run("launch.mvj", "train", "--config=dit:tiny", "--print_config", folder=tmp_path)
    assert done.status == 0 and done.out.startswith("clip: 9x32x32"), done.err
    done = run("launch.mvj", "trian", folder=tmp_path)
    assert (done.status, done.out) == (2, "") and done.err.startswith("error: 'trian' is no command: use one of demo,")
    done = run("launch.mvj", "completion", "fish")
    assert (done.status, done.err) == (2, "error: name a shell: mvj completion bash|zsh\n")


def test_completion_knows_commands_flags_and_keys():
    assert "prepare_data" in completions(["mvj"], COMMANDS)
    assert completions(["mvj", "completion"], COMMANDS) == ["bash", "zsh"]
    words = completions(["mvj", "train", "--config=dit:tiny"], COMMANDS)
    assert {"--workdir=", "--distributed", "--config.optimizer.learning_rate="} <= set(words)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_completion_script_is_one_of_its_shell(shell, tmp_path):
    done = run("launch.mvj", "completion", shell, folder=tmp_path)
    assert done.status == 0 and subprocess.run(["bash", "-n"], input=done.out, text=True).returncode == 0
