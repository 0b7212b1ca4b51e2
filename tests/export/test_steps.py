"""Runs whose sampling steps do without modules: a function for each distinct step, and a loop that equals JAX's."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.app import manifest as manifests
from export.app import parts
from export.app.folder import export_run
from export.app.golden_clip import clip_tensors
from export.app.runtime import App
from export.app.settings import Settings, own_steps
from export.estimate.clip import Plan, clip_seconds
from export.mil.liveness import arguments
from export.mil.load import load_package
from export.part import Part
from export.phone.steps import PhoneStep, phone_steps, step_functions
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.lazy.costs import sampling_costs
from mobile_video_jax.models.run import Run
from mobile_video_jax.models.sampling import Sampling
from mobile_video_jax.text.encoder import pad
from tests import tiny
from tests.export.test_run import MODEL, VAE, close, silent

# Of two blocks: the second step reuses three outputs, the third one of them again, the fourth leaves two modules out.
TABLE = ("....", "b.bb", "..b.", ".--.")


@pytest.fixture(scope="module")
def lazy(tmp_path_factory) -> Path:
    """A run of four steps without guidance, with a table."""
    root = tmp_path_factory.mktemp("lazy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "VAE", VAE)
        patch.setattr(tiny, "COMPRESSION", VAE.compression)
        run = tiny.dit_run(root / "run", tiny.dit_config(root, clip="5x8x12", compression="t2_s4_c6", model=MODEL))
    record = json.loads((run / "run.json").read_text())
    record["sampling"] = {"steps": 4, "guidance": 1.0, "reuse": TABLE}
    (run / "run.json").write_text(json.dumps(record))
    return run


def test_a_table_becomes_a_function_for_each_distinct_step():
    first, second, third, fourth = phone_steps(TABLE)
    assert first == PhoneStep("....", frozenset({(0, "self_attention"), (1, "self_attention"), (1, "ffn")}))
    assert second.kept == third.kept == frozenset()  # what the third step reuses again is held already
    assert second.past(0, 2) == ("past_self_attention_0", "past_self_attention_1", "past_ffn_1")
    assert (second.past(0, 1), fourth.past(0, 2)) == (("past_self_attention_0",), ())
    assert first.keeps(1, 2) == ("kept_ffn_1", "kept_self_attention_1")
    assert step_functions(TABLE) == ("step_1", "step_2", "step_3", "step_4")
    assert step_functions(("....", "bb..", "bb..", "bb..")) == ("step_1", "step_2", "step_2", "step_2")
    assert step_functions((".-..",) * 3) == ("main",) * 3 and step_functions(()) == ()
    # An app has no guidance: it reuses what the half with captions reuses. What was left out stays left out.
    assert [step.letters for step in phone_steps(("...-", "ucbb"))] == ["...-", ".bb-"]


def test_functions_in_chunks_equal_jax(lazy, tmp_path):
    generator = Generator.load(lazy)
    settings = Settings(tiles=(2, 1), steps=4, chunk_megabytes=0.15)
    chunks = list(parts.dit_parts(generator, settings, tmp_path))
    assert [(part.name, part.function) for part in chunks] == [
        (name, f"step_{i}") for name in ("dit_0", "dit_1") for i in (1, 2, 3, 4)
    ]
    assert [name for name in chunks[1].inputs if "past" in name] == ["past_self_attention_0"]
    for part in chunks:
        close(part.module, part)
    # What a step does without has no weights in its function.
    whole, second, *_ = (sum(x.numel() for x in part.module.parameters()) for part in chunks[4:])
    assert second < 0.5 * whole


def test_the_loop_of_functions_equals_jaxs_sampling_by_the_table(lazy, tmp_path):
    generator = Generator.load(lazy)
    app = loop(generator, list(parts.dit_parts(generator, Settings(tiles=(1,), steps=4), tmp_path)), tmp_path)
    expected = clip_tensors(generator, "a red circle", 4)
    text, mask = pad(generator.text_encoder.encode(["a red circle"]), 12)
    states = {"text": text.swapaxes(1, 2)[:, :, None], "text_mask": mask.astype(np.float32)[:, None, None]}
    latents = app._denoise(states, expected["noise"], None, silent)
    np.testing.assert_allclose(latents, expected["latents"], atol=1e-5 * np.abs(expected["latents"]).max())


def loop(generator: Generator, functions: list[Part], folder: Path, **options) -> App:
    """An app whose transformer is the PyTorch modules of its functions."""
    manifest = manifests.of_transformer([generator], **{"steps": 4} | options)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"packages": []}))

    class Loop(App):
        def _call(self, name, features, function=""):
            module = modules[name, function]
            with torch.inference_mode():
                outputs = module(*(torch.tensor(features[feature]) for feature in module.inputs))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            return {feature: x.numpy() for feature, x in zip(module.outputs, outputs, strict=True)}

    modules = {(part.name, part.function): part.module for part in functions}
    app = Loop(folder, "main")
    app.records = {name: {} for name, _ in modules}
    return app


@pytest.fixture(scope="module")
def exported(lazy) -> tuple[Path, dict]:
    out = lazy.parent / "out"
    report = export_run(lazy, out, Settings(backends=("coreml", "coreai"), tiles=(1,)), silent)
    return out, report


@pytest.mark.slow
def test_packages_and_assets_draw_the_clip_that_jax_samples_by_the_table(exported):
    out, report = exported
    [clip] = report["clips"]
    assert clip["psnr"] > 40 and clip["assets_psnr"] > 40
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["clips"][0]["step_functions"] == ["step_1", "step_2", "step_3", "step_4"]
    for records, figures in ((manifest["packages"], report["packages"]), (manifest["assets"], report["assets"])):
        [record] = (each for each in records if each["name"] == "dit")
        assert sorted(record["functions"]) == ["step_1", "step_2", "step_3", "step_4"]
        assert "kept_ffn_1" in record["functions"]["step_1"]["outputs"]
        assert "past_ffn_1" in record["functions"]["step_2"]["inputs"]
        [row] = (each for each in figures if each["name"] == "dit")
        # So few random weights err a little more than the limit for trained ones.
        assert all(each["relative_error"] < 4e-3 for each in row["functions"].values())
        # Four functions take hardly more than the weights of one.
        assert min(each["relative_error"] for each in row["functions"].values()) > 0
    # Four functions store the weights once.
    numbers = sum(x.numel() for x in load_file(out / "dit.safetensors").values())
    assert (out / "dit.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size < 2 * 1.2 * numbers


@pytest.mark.slow
def test_left_out_modules_are_not_in_a_function(exported):
    package = load_package(exported[0] / "dit.mlpackage")
    names = {
        name: {var.name for op in package.function(name).operations for var in arguments(op)}
        for name in ("step_1", "step_4")
    }
    for part in ("blocks_0_ffn_up", "blocks_1_self_attention_q"):
        assert [any(part in name for name in names[step]) for step in ("step_1", "step_4")] == [True, False]


def test_the_estimate_and_inspect_sum_over_the_steps_of_the_table(lazy):
    denoiser = Run.open(lazy).denoiser
    plan = Plan(denoiser.config, decoder="micro", clip="5x8x12", steps=4, tiles=1, table=TABLE)
    calls, whole = plan.denoisers(), dataclasses.replace(plan, table=()).denoisers()
    assert {name: call.times for name, call in calls.items()} == {f"dit_step_{i}": 1 for i in (1, 2, 3, 4)}
    flops = {name: sum(op.flops for op in call.ops) for name, call in calls.items()}
    assert flops["dit_step_1"] == sum(op.flops for op in whole["dit"].ops) > flops["dit_step_3"] > flops["dit_step_2"]
    assert clip_seconds(calls) < clip_seconds(whole)
    # The JAX network's modules and the phone's forms of them count the same work.
    forward = denoiser.inspect()
    sampled = sampling_costs(denoiser, forward)
    assert sampled["steps"] == 4 and sampled["flops"] == pytest.approx(sum(flops.values()), rel=1e-3)
    assert sampled["phone_seconds"] < 4 * forward["phone_seconds"]
    with pytest.raises(UserError, match="a table of 4 steps, not 3: leave the steps out"):
        dataclasses.replace(plan, steps=3)


def test_other_steps_than_the_tables_are_refused_before_anything_is_written(lazy, tmp_path):
    with pytest.raises(UserError, match="a table of 4 steps, not 3"):
        export_run(lazy, tmp_path / "out", Settings(steps=3), silent)
    assert own_steps(Sampling(steps=20, guidance=5.0, reuse=("....",) * 20)) == 20
