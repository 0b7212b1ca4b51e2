"""Training an adapter of a run: what moves, what it leaves, and how that is read back."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import PartitionSpec as P

from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.flops import count_parameters
from mobile_video_jax.dit.config import LoraConfig
from mobile_video_jax.dit.lora import init_adapter
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.adapter import record_base
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel import rules
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh, replicated
from mobile_video_jax.parallel.rules import parameter_shardings
from mobile_video_jax.stages.config import DitTraining, RecoverTraining
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.stages.recover import RecoverStage
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.checkpoint import restore_model, save_model
from mobile_video_jax.train.loop import train
from mobile_video_jax.train.metrics import read_metrics
from mobile_video_jax.train.optimizer import make_optimizer
from mobile_video_jax.train.run import write_run
from mobile_video_jax.train.state import state_shardings
from mobile_video_jax.train.step import gradients
from mobile_video_jax.vae.latent_stats import LatentStats
from tests import tiny
from tests.commands import call
from tests.nets import randomly

MODEL = dataclasses.replace(tiny.DIT, width=48, heads=2, head_dim=24, ffn=64)
LORA = LoraConfig(rank=2, alpha=4.0, targets=("self_attention/v", "ffn/up", "output/velocity"))
KERNELS = {"block_0/self_attention/v/kernel", "block_0/ffn/up/kernel", "output/velocity/kernel"}
TRAINED = 2 * (48 + 48 + 48 + 64 + 48 + 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(folder) -> Path:
    return tiny.latents(folder / "latents")


@pytest.fixture(scope="module")
def base(folder, data) -> Path:
    return tiny.dit_run(folder / "base", tiny.dit_config(data, model=MODEL))


@pytest.fixture(scope="module")
def config(data, base) -> DitTraining:
    return tiny.dit_config(data, steps=8, eval_every=4, model=MODEL, init_from=str(base), lora=LORA)


@pytest.fixture(scope="module")
def run(folder, config) -> Path:
    train(DitStage(config), folder / "run")
    return folder / "run"


def weights(run: Path) -> dict:
    return flatten_dict(Run.open(run).sharded_params(make_mesh(MeshConfig())), sep="/")


def shapes_of(config: DitTraining) -> dict:
    """The shapes of an adapter's parameters, placed on this device."""
    placed = partial(abstract, sharding=replicated(make_mesh(config.mesh)))
    return jax.tree.map(placed, nn.unbox(jax.eval_shape(DitStage(config).init, jax.random.key(0))))


def adapter_of(run: Path, config: DitTraining) -> dict:
    return flatten_dict(restore_model(run, {"adapter": shapes_of(config)["adapter"]})["adapter"], sep="/")


def test_only_the_factors_have_gradients_moments_an_average_and_a_place_in_checkpoints(config, run):
    stage, params = DitStage(config), shapes_of(config)
    step = partial(gradients, stage, stage.loss, accumulate=1)
    grads, _ = jax.eval_shape(step, params, stage.abstract_batch(), jax.random.key(0))
    assert jax.tree.map(np.shape, grads) == jax.tree.map(np.shape, {"adapter": params["adapter"]})
    state, _ = state_shardings(stage, make_optimizer(config.optimizer, 8), make_mesh(config.mesh))
    assert count_parameters(state.ema) == count_parameters(params["adapter"])
    assert count_parameters(state.opt_state) < 2 * count_parameters(params["adapter"]) + 10
    for item in ("model", "state"):
        metadata = (run / "checkpoints" / "8" / item / "_METADATA").read_text()
        assert "'adapter'" in metadata and "kernel" not in metadata and "bias" not in metadata


def test_a_fresh_adapter_leaves_the_base_as_it_is_to_the_bit(config, base):
    stage = DitStage(config)
    pretrained = stage.pretrained(shapes_of(config))
    adapter = nn.unbox(init_adapter(LORA, jax.random.key(0), pretrained["base"]))
    network = flatten_dict(stage.network_params({"adapter": adapter, **pretrained}), sep="/")
    expected = weights(base)
    assert network.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, network, expected)


def test_training_lowers_the_held_out_loss(run):
    losses = [line["eval_loss"] for line in read_metrics(run) if "eval_loss" in line]
    assert losses[-1] < 0.97 * losses[0], losses


def test_every_command_reads_base_and_adapter_as_one_network(run, base, config):
    before, after, factors = weights(base), weights(run), adapter_of(run, config)
    assert {path for path in before if np.any(before[path] != after[path])} == KERNELS
    for path in KERNELS:
        layer = path.removesuffix("/kernel")
        update = 4.0 / 2 * np.asarray(factors[f"{layer}/a"]) @ np.asarray(factors[f"{layer}/b"])
        np.testing.assert_allclose(after[path], np.asarray(before[path]) + update, rtol=1e-6, atol=1e-7)
    generator = Generator.load(run)
    jax.tree.map(np.testing.assert_array_equal, flatten_dict(generator.params, sep="/"), after)
    assert not DitStage.of_run(Run.open(run)).frozen


def test_an_adapter_that_moved_with_its_base_is_read(run, base, tmp_path):
    """The copies say that they were made in a folder that is gone."""
    for source in (run, base):
        shutil.copytree(source, tmp_path / source.name)
    for name, key, path in (("base.json", "run", "/gone/base"), ("run.json", "folder", "/gone/run")):
        file = tmp_path / run.name / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: path}))
    jax.tree.map(np.testing.assert_array_equal, weights(tmp_path / run.name), weights(run))


def test_a_run_goes_on_exactly(config, run, tmp_path, capsys):
    again = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(again / "checkpoints" / "8")  # as if it had not come to the last save
    train(DitStage(config), again)
    assert f" parameters, {TRAINED} of them trained, " in capsys.readouterr().err
    unbroken, resumed = (
        [(line["loss"], line.get("eval_loss")) for line in read_metrics(path)] for path in (run, again)
    )
    assert resumed == unbroken and len(resumed) == 8
    jax.tree.map(np.testing.assert_array_equal, adapter_of(again, config), adapter_of(run, config))
    with pytest.raises(UserError, match="was trained with lora.alpha=4.0, this config has 8.0"):
        train(DitStage(dataclasses.replace(config, lora=dataclasses.replace(LORA, alpha=8.0))), again)


def test_what_is_trained_and_what_there_is_are_counted(config, run, base):
    for described in (DitStage(config).inspect(), json.loads((run / "run.json").read_text())["description"]):
        assert described["trainable_parameters"] == TRAINED
    assert DitStage(config).description()["parameters"] == Run.open(base).denoiser.describe()["parameters"]
    whole = dataclasses.replace(config, lora=LoraConfig())
    assert DitStage(config).cost().flops < 0.8 * DitStage(whole).cost().flops


def test_an_adapter_may_add_to_an_adapter(run, config, tmp_path):
    second = dataclasses.replace(config, init_from=str(run))
    write_run(tmp_path, "dit", plain(second), {})
    record_base(tmp_path, run, Run.open(run).step)
    save_model(tmp_path, 1, {"adapter": randomly(shapes_of(config)["adapter"])})
    once, twice, factors = weights(run), weights(tmp_path), adapter_of(tmp_path, second)
    a, b = (np.asarray(factors[f"block_0/ffn/up/{name}"]) for name in "ab")
    up = "block_0/ffn/up/kernel"
    np.testing.assert_allclose(twice[up], np.asarray(once[up]) + 2.0 * a @ b, rtol=1e-5, atol=1e-6)


def test_a_base_that_is_gone_or_has_changed_is_told(run, base, config, tmp_path):
    copy, moved = shutil.copytree(run, tmp_path / "run"), shutil.copytree(base, tmp_path / "base")
    target = shapes_of(config)["base"]
    record_base(copy, moved, 1)
    Run.open(copy).params(target)
    shutil.copytree(moved / "checkpoints" / "1", moved / "checkpoints" / "5")
    Run.open(copy).params(target)
    with pytest.raises(UserError, match="adds to step 1 of .*base, not to 5: set --config.init_from=.*base@1"):
        DitStage(dataclasses.replace(config, init_from=str(moved))).start(copy)
    DitStage(dataclasses.replace(config, init_from=f"{moved}@1")).start(copy)
    shutil.rmtree(moved / "checkpoints" / "1")
    with pytest.raises(UserError, match="adds to step 1 of .*base, whose newest is 5: use a copy"):
        Run.open(copy).params(target)
    shutil.rmtree(moved)
    with pytest.raises(UserError, match=r"adds to .*base, which does not exist: bring it back, or name .*base\.json"):
        Generator.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init_from": ""}, "is trained for another run: name that with --config.init_from=RUN"),
        ({"lora": {"rank": -1}}, "config.lora.rank=-1: use a whole number from 0"),
        ({"stage": "recover", "init_from": ""}, "stage 'recover' trains no adapters, stage 'dit' does"),
        (
            {"lora": {"rnak": 1}},
            r"config.lora.rnak is no key of this config; did you mean rank\? it has alpha, rank, targets",
        ),
    ],
)
def test_a_config_that_cannot_be_is_told(change, message, config):
    with pytest.raises(UserError, match=message):
        build_stage(plain(config) | change)


def test_data_of_other_latents_and_unknown_targets_leave_no_run(config, tmp_path):
    other = tiny.latents(tmp_path / "latents")
    LatentStats((0.2,) * 6, (0.5,) * 6).save(other / "vae")
    unknown = dataclasses.replace(LORA, targets=("ffn/gate",))
    for change, message in (
        ({"data": str(other)}, "was trained on other latents"),
        ({"lora": unknown}, "'ffn/gate' names no linear layer; choose from .*ffn/up"),
    ):
        with pytest.raises(UserError, match=message):
            train(DitStage(dataclasses.replace(config, **change)), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def check_shared_factors(path: str) -> None:
    rules.MIN_SHARDED_SIZE = 1 << 6  # as if all were large
    folder = Path(path)
    targets = ("self_attention/v", "self_attention/out", "ffn/up", "ffn/down")
    lora = dataclasses.replace(LORA, rank=4, targets=targets)
    model = dataclasses.replace(MODEL, depth=2, scan=True)
    data = tiny.latents(folder / "latents")
    base = tiny.dit_run(folder / "base", tiny.dit_config(data, model=model))
    config = tiny.dit_config(data, steps=4, model=model, init_from=str(base), lora=lora)
    losses, devices = {}, jax.devices()
    for size in (1, 2):
        jax.devices = lambda size=size: devices[: size**2]
        jax.device_count = lambda size=size: size**2
        run = folder / str(size)
        train(DitStage(dataclasses.replace(config, mesh=MeshConfig(data=1, fsdp=size, tensor=size))), run)
        losses[size] = [(line["loss"], line.get("eval_loss", 0.0)) for line in read_metrics(run)]
    np.testing.assert_allclose(losses[2], losses[1], rtol=1e-5)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2))
    placed = parameter_shardings(jax.eval_shape(DitStage(config).init, jax.random.key(0)), mesh)["adapter"]
    spec = lambda layer: [placed["blocks"]["block"]["ffn"][layer][name].spec for name in "ab"]
    assert spec("up") == [P(None, "fsdp", None), P(None, None, "tensor")]
    assert spec("down") == [P(None, "tensor", None), P(None, None, "fsdp")]
    kernel = Run.open(run).sharded_params(mesh)["blocks"]["block"]["ffn"]["up"]["kernel"]
    assert kernel.sharding.spec == P(None, "fsdp", "tensor")


@pytest.mark.slow
def test_four_devices_that_share_the_factors_equal_one(tmp_path):
    finished = call(check_shared_factors, str(tmp_path), devices=4)
    assert finished.status == 0, finished.err


def test_a_student_may_learn_from_a_base_and_its_adapter(run, config):
    shared = vars(config) | {"stage": "recover", "lora": LoraConfig(), "teacher": str(run), "teacher_model": MODEL}
    pretrained = RecoverStage(RecoverTraining(**shared)).pretrained({"teacher": shapes_of(config)["base"]})
    jax.tree.map(np.testing.assert_array_equal, flatten_dict(pretrained["teacher"], sep="/"), weights(run))
