"""The real train step, compiled for a TPU that is not there."""

import dataclasses
import importlib.util
import json
import math
from types import SimpleNamespace

import jax
import pytest

from configs import dit
from launch import compile
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.tpu.collectives import collectives
from mobile_video_jax.cost.tpu.hlo import Program
from mobile_video_jax.cost.tpu.topology import GIB, Topology
from mobile_video_jax.distill.config import ObjectiveConfig
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh
from mobile_video_jax.pods.automatic import automatic, automatic_config, topology_of
from mobile_video_jax.pods.compile import check_fits, compile_step, does_not_fit, loss_shares
from mobile_video_jax.pods.mesh_search import (
    KEPT,
    KEPT_LAYER_NORM,
    ModelSize,
    candidates,
    chip_bytes,
    clip_seconds,
    meshes,
)
from mobile_video_jax.pods.run_cost import run_cost
from mobile_video_jax.pods.scoring import compile_scoring
from mobile_video_jax.prune.config import PruneConfig
from mobile_video_jax.prune.plan import make_plan, scoring_flops
from mobile_video_jax.stages.config import DistillTraining, DitTraining
from mobile_video_jax.stages.distill_recipes import dmd2
from mobile_video_jax.stages.registry import build_stage
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.compiled_step import StoredStep, store_step
from mobile_video_jax.train.config import PlayersOptimizerConfig
from mobile_video_jax.train.run import write_run

pytestmark = pytest.mark.first

TOPOLOGY = Topology("v5e:2x2")
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="pip install -e '.[tpu]'")

# 128 tokens and heads of 64, so that attention takes the kernel; more activations a chip than weights of any matrix.
MODEL = DitConfig(width=256, depth=2, heads=4, head_dim=64, ffn=256, scan=True, remat="dots", dtype="bfloat16")
CONFIG = DitTraining(clip="5x64x64", compression="t4_s8_c16", model=MODEL, batch_size=64, mesh=MeshConfig(2, 2, 1))


def values(**changes):
    return to_config_dict(dataclasses.replace(CONFIG, **changes)).to_dict()


@pytest.fixture(scope="module")
def compiled():
    return compile_step(values(), TOPOLOGY)


@needs_libtpu
def test_the_report_has_what_a_plan_needs(compiled):
    report = json.loads(json.dumps(compiled.report))
    assert report["fits"] and report["argument_bytes"] < report["peak_bytes"] < report["limit_bytes"]
    assert report["devices"] == 4 and report["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    assert 0 < report["roofline"]["serial_mfu"] < report["mfu"] < report["roofline"]["overlapped_mfu"] < 1
    assert report["step_seconds"] > 0 and report["compile_seconds"] > 0 and report["assumptions"]
    # Weights, average and both moments in float32, all but the small ones over fsdp=2.
    assert 16 * report["parameters"] / 2 < report["argument_bytes"] < 16 * report["parameters"]


@needs_libtpu
def test_a_step_beyond_any_pod_is_refused_before_it_ends_the_compiler():
    with pytest.raises(UserError, match="FLOPs is more than any pod computes"):
        compile_step(values(batch_size=10**8, clip="97x512x512"), TOPOLOGY)


@needs_libtpu
def test_the_generations_flags_hide_gathers_and_a_flag_that_there_is_not_is_told(compiled):
    assert "async_collective_fusion" in compiled.executable.as_text()
    assert "--xla_tpu_enable_async_collective_fusion=true" in compiled.report["xla_flags"]
    assert compiled.report["roofline"]["exposed"] < compiled.report["roofline"]["ici"]
    with pytest.raises(UserError, match="the compiler knows no flag xla_tpu_magic"):
        compile_step(values(xla_flags="--xla_tpu_magic=true"), TOPOLOGY)


@needs_libtpu
def test_the_step_gathers_weights_and_no_activations(compiled):
    operations = collectives(Program(compiled.executable.as_text()))
    moved = [each for each in operations if each.kind in ("all-gather", "all-to-all", "collective-permute")]
    largest = max(math.prod(shape.extents) for each in moved for shape in each.result)
    per_chip = CONFIG.batch_size // 4 * 128 * MODEL.width
    assert 0 < largest <= 6 * MODEL.width * MODEL.width < per_chip
    # Each block's matrices are gathered in the forward loop and in the backward one.
    assert sum(each.runs for each in operations if each.kind == "all-gather") >= 2 * MODEL.depth
    assert any(each.kind == "reduce-scatter" for each in operations)


@needs_libtpu
def test_attention_is_the_kernel_and_its_result_is_kept(compiled):
    """Of self- and cross-attention one forward kernel each: the backward loop runs none of them again."""
    program = Program(compiled.executable.as_text())
    names = [name for computation in program.computations.values() for name in computation]
    assert sum(name.startswith("splash_mha_fwd") for name in names) == 2


@needs_libtpu
def test_the_step_is_stored_for_these_chips_and_this_config(compiled, tmp_path):
    store_step(compiled.executable, compiled.stage, compiled.mesh, tmp_path / "step")
    stored = StoredStep.read(tmp_path / "step", compiled.stage, compiled.mesh)
    assert len(stored.payload) > 1000 and {"loss", "grad_norm"} <= set(stored.metrics)
    with pytest.raises(UserError, match=r"compiled for mesh\.data=2, this run has 4: compile it again"):
        StoredStep.read(tmp_path / "step", compiled.stage, make_mesh(MeshConfig(), TOPOLOGY.devices()))
    with pytest.raises(UserError, match=r"config\.seed=0, this run has 1"):
        StoredStep.read(tmp_path / "step", build_stage(values(seed=1, log_every=7)), compiled.mesh)


def test_a_step_with_ltx_captions_is_not_stored_without_the_state_of_an_empty_one(monkeypatch):
    config = dataclasses.replace(CONFIG, text_encoder="ltx-1a2b3c4d")
    flags = {"CONFIG": config, "TOPOLOGY": "v5e:2x2", "SLICES": 1, "STORE": "step", "SEARCH": False, "XLA_FLAGS": None}
    for name, value in flags.items():
        monkeypatch.setattr(compile, name, SimpleNamespace(value=value, values=dataclasses.asdict(config), changed={}))
    with pytest.raises(UserError, match="name --config.data=LATENTS"):
        compile.main()


@needs_libtpu
def test_the_table_names_the_estimate(compiled):
    text = compile.report_table(compiled.report | {"run": run_cost(compiled.report, steps=1000, price=None)})
    assert "v5e:2x2, 4 chips, mesh data=2 fsdp=2 tensor=1, batch 64" in text
    assert f"MFU {compiled.report['mfu']:.1%}" in text and "reduce-scatter" in text


def test_a_run_costs_its_steps_on_all_chips_at_the_price():
    roofline = {"overlapped_seconds": 0.9, "step_seconds": 1.8, "serial_seconds": 3.6}
    run = run_cost({"devices": 8, "roofline": roofline}, steps=2000, price=1.5)
    assert run["plan_with"] == "serial" and list(run["estimates"]) == ["overlapped", "step", "serial"]
    assert run["estimates"]["serial"] == {"hours": 2.0, "chip_hours": 16.0, "dollars": 24.0}
    assert run["estimates"]["step"]["dollars"] == 12.0
    assert run_cost({"devices": 8, "roofline": roofline}, 2000, None)["estimates"]["serial"]["dollars"] is None


@needs_libtpu
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": MeshConfig(3, 1, 1)}, "does not divide 4 device"),
        ({"batch_size": 6}, r"batch_size 6 does not divide over 4 data shards: use 4"),
        ({"batch_size": 2}, r"batch_size 2 does not divide over 4 data shards: use 4"),
    ],
)
def test_a_mesh_or_batch_that_does_not_divide_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        compile_step(values(**changes), TOPOLOGY)


@needs_libtpu
@pytest.mark.slow
def test_a_step_that_does_not_fit_is_reported_with_what_xla_says():
    plain = dataclasses.replace(MODEL, heads=8, head_dim=32, remat="none")  # without the kernel, quick to compile
    report = compile_step(values(batch_size=1 << 15, model=plain), TOPOLOGY).report
    assert not report["fits"] and report["peak_bytes"] > report["limit_bytes"] and report["parameters"] > 0
    assert report["collectives"] is report["step_seconds"] is report["mfu"] is None
    assert "v5e:2x2, 4 chips" in compile.report_table(report) and json.dumps(report)
    with pytest.raises(UserError, match=f"{report['peak_bytes'] - report['limit_bytes']:,} more than its"):
        check_fits(report)


def test_a_loss_counts_with_its_share_of_the_steps():
    shared = {field.name: getattr(CONFIG, field.name) for field in dataclasses.fields(DitTraining)}
    changes = {"stage": "distill", "teacher_model": MODEL, "optimizer": PlayersOptimizerConfig()}
    config = dmd2(DistillTraining(**shared | changes, objective=ObjectiveConfig()))
    assert loss_shares(build_stage(to_config_dict(config).to_dict())) == pytest.approx((0.8, 0.2))
    assert loss_shares(build_stage(values())) == (1.0,)


@pytest.mark.slow
@needs_libtpu
def test_a_critic_larger_than_the_device_is_refused_without_compiling(monkeypatch):
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered: pytest.fail("compiled"))
    teacher = dataclasses.replace(MODEL, width=4096, depth=64, ffn=16384)
    shared = {field.name: getattr(CONFIG, field.name) for field in dataclasses.fields(DitTraining)}
    changes = {"stage": "distill", "teacher_model": teacher, "optimizer": PlayersOptimizerConfig()}
    config = dmd2(DistillTraining(**shared | changes, objective=ObjectiveConfig()))
    report = compile_step(to_config_dict(config).to_dict(), TOPOLOGY).report
    assert not report["fits"] and report["peak_bytes"] > report["limit_bytes"]
    assert "of a chip" in compile.report_table(report)
    with pytest.raises(UserError, match="more than its"):
        check_fits(report)


@pytest.mark.parametrize(
    ("message", "peak"),
    [
        ("RESOURCE_EXHAUSTED: … memory required for HLO temporaries (39.55G) exceeds available HBM (15.75G).", 39.55),
        ("RESOURCE_EXHAUSTED: …\nRan out of memory in memory space hbm. Used 482.49G of 15.75G hbm.", 482.49),
    ],
)
def test_the_bytes_are_read_from_either_message(message, peak):
    assert does_not_fit(jax.errors.JaxRuntimeError(message))["peak_bytes"] == int(peak * GIB)


def test_other_failures_of_the_compiler_stay_as_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        does_not_fit(jax.errors.JaxRuntimeError("INTERNAL: Used 1.00G"))


def test_without_libtpu_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tpu\]'"):
        compile_step(values(), TOPOLOGY)


@needs_libtpu
def test_candidates_fit_by_estimate_and_the_fastest_comes_first():
    proposals = list(candidates(values(), TOPOLOGY))
    assert proposals and all(each.bytes < 0.9 * TOPOLOGY.chip.hbm_bytes for each in proposals)
    assert [each.seconds for each in proposals] == sorted(each.seconds for each in proposals)
    assert proposals[0].apply(values())["batch_size"] == proposals[0].batch_size


def test_meshes_divide_the_model_and_keep_slices_along_data():
    grids = list(meshes(32, 2, {"width": 256, "heads": 4}))
    assert MeshConfig(4, 4, 2) in grids and MeshConfig(1, 32, 1) not in grids
    assert all(mesh.data * mesh.fsdp * mesh.tensor == 32 and mesh.data % 2 == 0 and mesh.tensor <= 4 for mesh in grids)
    assert list(meshes(8, 1, {})) == [MeshConfig(8, 1, 1)]


@pytest.mark.slow
@needs_libtpu
def test_scoring_is_compiled_for_a_topology_and_takes_as_many_programs_as_its_flops():
    """The features of all blocks are nowhere in memory."""
    denoiser = Denoiser(dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, depth=8)))
    config = PruneConfig(clips=16, times=2, batch_clips=16, rows=4, channels="taylor")
    report = compile_scoring(config, denoiser, TOPOLOGY, fsdp=2)
    assert report["fits"] and report["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    rows = 16 * 2 * (4 + 1) // 4
    features = 8 * rows * denoiser.tokens * MODEL.width * 2
    assert report["temporary_bytes"] < features
    needed, programs = scoring_flops(config, make_plan(config, denoiser)), report["programs"]
    assert (programs - 1) * report["flops_per_step"] < needed <= programs * report["flops_per_step"]


def test_a_config_chooses_for_itself_what_no_flag_sets():
    server, pod = dit.get_config("server").to_dict(), Topology("v5p:4x4x8")
    chosen = automatic(server, pod, {})
    assert chosen["mesh"] == {"data": 8, "fsdp": 16, "tensor": 1, "sequence": 1}
    assert chosen["model"]["remat"] == "dots" and chosen["batch_size"] == 512
    chosen = automatic(server, pod, {"mesh.fsdp": 32, "batch_size": 256})
    assert chosen["mesh"]["fsdp"] == 32 and chosen["batch_size"] == 256
    assert automatic(server | {"auto": False}, pod, {}) == server | {"auto": False}


def test_a_frozen_teacher_has_little_state_and_its_passes_are_summed_over_tensor_as_well():
    plain = ModelSize(10**9, frozen=0, flops=10**13, passes=1.0, tokens=1344, width=2048, depth=20, kept=KEPT)
    taught = dataclasses.replace(plain, frozen=2 * 10**9, passes=1.8)
    whole, cut = MeshConfig(8, 16, 1), MeshConfig(4, 16, 2)
    more = chip_bytes(taught, whole, "dots", 4) - chip_bytes(plain, whole, "dots", 4)
    assert more == pytest.approx(2 * taught.frozen / 16)
    lost = {
        name: clip_seconds(size, Topology("v5p:4x4x8"), cut, "dots", 8)
        - clip_seconds(size, Topology("v5p:4x4x8"), whole, "dots", 4)
        for name, size in {"plain": plain, "taught": taught}.items()
    }
    assert lost["taught"] > lost["plain"]


def test_float32_copies_of_layer_norms_are_counted_without_rematerialisation():
    """Wan's recovery was compiled for v5p: 124 GB a chip without it, 25 GB with dots."""
    wan = ModelSize(724 * 10**6, 1419 * 10**6, 10**14, 1.7, tokens=9984, width=1536, depth=21, kept=KEPT_LAYER_NORM)
    mesh, hbm = MeshConfig(2, 8, 1), Topology("v5p:2x2x4").chip.hbm_bytes
    assert chip_bytes(wan, mesh, "none", 2) == pytest.approx(124e9, rel=0.1) and chip_bytes(wan, mesh, "none", 2) > hbm
    assert chip_bytes(dataclasses.replace(wan, kept=KEPT), mesh, "none", 2) < hbm


@needs_libtpu
def test_a_run_on_a_topology_chooses_what_its_plan_does(tmp_path):
    config, topology = from_mapping(DitTraining, dit.get_config("small").to_dict()), Topology("v5e:2x4")
    run = automatic_config(config, topology.devices(), {}, tmp_path)
    assert dataclasses.asdict(run) == automatic(dataclasses.asdict(config), topology, {})
    assert topology_of(Topology("v5p:2x2x2", 2).devices()) == Topology("v5p:2x2x2", 2)
    assert automatic_config(config, jax.devices(), {}, tmp_path) == config


@needs_libtpu
def test_a_run_that_resumes_keeps_its_batch(tmp_path):
    config = dataclasses.replace(from_mapping(DitTraining, dit.get_config("small").to_dict()), batch_size=24)
    write_run(tmp_path, "dit", dataclasses.asdict(config), {})
    save_model(tmp_path, 1, {"w": jax.numpy.zeros(2)})
    again = dataclasses.replace(config, batch_size=64)
    assert automatic_config(again, Topology("v5e:2x4").devices(), {}, tmp_path).batch_size == 24
