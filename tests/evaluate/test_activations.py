"""Largest activations of a run, against what the network's functions are seen to take and give."""

import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit import block as block_file
from mobile_video_jax.dit.block import modulate
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import stack_blocks
from mobile_video_jax.evaluate import fp16_headroom as activations
from mobile_video_jax.evaluate.fp16_headroom import largest_activations, peaks
from mobile_video_jax.latents.store import records
from mobile_video_jax.nn.attention import full as self_attention_file
from mobile_video_jax.nn.attention import layer as attention_file
from mobile_video_jax.nn.attention.layer import xla_attend
from mobile_video_jax.nn.norm import rms_normalize
from mobile_video_jax.train.checkpoint import save_model
from mobile_video_jax.train.run import write_run
from tests import tiny

MODEL = DitConfig(width=24, depth=3, heads=2, head_dim=12, ffn=32, time_features=16)
LONG = "17x32x32"


def inputs() -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(2), 2)
    text, mask = jax.random.normal(keys[1], (2, 12, 384)), jnp.arange(12)[None] < jnp.array([[5], [12]])
    return jax.random.normal(keys[0], (2, 3, 4, 4, 6)), jnp.array([0.2, 0.9]), text, mask


def weights() -> dict:
    """Random weights, far enough from zero that every layer counts."""
    shapes = nn.unbox(jax.eval_shape(lambda: Dit(MODEL).init(jax.random.key(0), *inputs())["params"]))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32), shapes)


def overflowing() -> dict:
    """Weights with which hidden values of the second block's FFN are beyond fp16."""
    params = weights()
    params["block_1"]["ffn"]["up"]["bias"] -= 131_008.0
    return params


def write(run: Path, data: Path, params: dict, **changes) -> Path:
    config = tiny.dit_config(data, **{"model": MODEL, "batch_size": 4, "eval_batches": 2, **changes})
    write_run(run, "dit", json.loads(json.dumps(dataclasses.asdict(config))), {})
    save_model(run, 1, params)
    return run


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The encoded data set latents/ and the run dit/."""
    root = tmp_path_factory.mktemp("activations")
    tiny.latents(root / "latents")
    write(root / "dit", root / "latents", overflowing())
    return root


@pytest.fixture(scope="module")
def measured(root) -> dict:
    return largest_activations(root / "dit")


def test_values_are_of_the_blocks_and_beside_fp16s_largest(measured):
    by_kind = measured["activations"]
    assert measured["clips"] == 8 and list(by_kind) == sorted(by_kind, key=lambda kind: -by_kind[kind]["value"])
    hidden = by_kind["ffn/up"]
    assert hidden["block"] == 1 and len(hidden["by_block"]) == 3
    assert hidden["value"] == max(hidden["by_block"]) == pytest.approx(131_008, rel=1e-3)
    assert hidden["headroom"] == pytest.approx(0.5, rel=1e-3) and "squares_headroom" not in hidden
    residual = by_kind["residual"]
    assert residual["squares_headroom"] == pytest.approx(65_504 / residual["value"] ** 2)
    assert by_kind["patch_in"]["block"] is None and "by_block" not in by_kind["patch_in"]


def test_captions_are_those_of_the_held_out_clips(root, measured):
    """The first layer sees the text alone, whatever the noise and the time."""
    layer = weights()["text_projection"]["in"]
    text = [record["text_states"] for record in records(root / "latents", "validation")]
    outputs = [np.concatenate([x, 0 * x[:1]]) @ layer["kernel"] + layer["bias"] for x in text]
    expected = max(float(np.abs(x).max()) for x in outputs)
    assert measured["activations"]["text_projection/in"]["value"] == pytest.approx(expected, rel=1e-5)


def test_a_scanned_bfloat16_run_is_measured_in_float32(root, measured):
    scanned = dataclasses.replace(MODEL, scan=True, remat="full", dtype="bfloat16")
    mesh = tiny.dit_config(root).mesh
    other = dataclasses.replace(mesh, data=1, fsdp=16)
    run = write(root / "scanned", root / "elsewhere", stack_blocks(overflowing()), model=scanned, mesh=other)
    again = largest_activations(run, str(root / "latents"))["activations"]
    assert again.keys() == measured["activations"].keys()
    for kind, entry in measured["activations"].items():
        assert again[kind]["value"] == pytest.approx(entry["value"], rel=1e-4)
        assert again[kind]["block"] == entry["block"]


def test_peaks_are_of_what_layers_give_and_functions_take(monkeypatch):
    """Spies on attention and on the blocks' norms and modulation, and flax's own capture of layers."""
    queries, normed, modulated = [], [], []

    def attend(q, k, v, mask):
        queries.append((q, k))
        return xla_attend(q, k, v, mask)

    def normalize(x, eps):
        normed.append(x)
        return rms_normalize(x, eps)

    def scale_and_shift(*args):
        modulated.append(modulate(*args))
        return modulated[-1]

    @jax.jit
    def observe(params):
        maxima = peaks(Dit(MODEL), params, *inputs())
        queries.clear(), normed.clear(), modulated.clear()
        _, captured = Dit(MODEL).apply({"params": params}, *inputs(), capture_intermediates=True)
        return maxima, queries, normed, modulated, flatten_dict(captured["intermediates"], sep="/")

    for file in (self_attention_file, attention_file):
        monkeypatch.setattr(file, "attend", attend)
    monkeypatch.setattr(block_file, "rms_normalize", normalize)
    monkeypatch.setattr(block_file, "modulate", scale_and_shift)
    maxima, queries, normed, modulated, captured = observe(weights())
    largest = lambda *arrays: max(float(jnp.abs(x).max()) for x in arrays)
    expected = {"patch_in": largest(normed[0])}
    for i in range(3):
        out, cross = (captured[f"block_{i}/{name}__call__"][0] for name in ("", "cross_attention/"))
        expected[f"block_{i}/residual"] = largest(normed[2 * i + 1] - cross, normed[2 * i + 1], out)
        for j, name in enumerate(("self_attention", "ffn")):
            expected[f"block_{i}/{name}/input"] = largest(modulated[2 * i + j])
        for j, kind in enumerate(("self", "cross")):
            logits = jnp.einsum("bnhd,bmhd->bhnm", *queries[2 * i + j])
            expected[f"block_{i}/{kind}_attention/logits"] = largest(logits)
    expected |= {path: largest(captured[f"{path}/__call__"][0]) for path in maxima if f"{path}/__call__" in captured}
    assert len(expected) == len(maxima) == 8 + 3 * 19
    for path, value in expected.items():
        assert float(maxima[path]) == pytest.approx(value, rel=1e-5), path


def test_padding_of_clips_is_cut_off(root, monkeypatch):
    """Batches of clips of two lengths are measured clip by clip, at times from 1 to 0."""
    tiny.latents(root / "long", clips=(tiny.CLIP, LONG))
    calls = []

    def record(dit, params, x_t, t, text, text_mask):
        jax.debug.callback(lambda t: calls.append((x_t.shape, float(t[0]))), t)
        return {"output": jnp.max(jnp.abs(x_t))}

    monkeypatch.setattr(activations, "peaks", record)
    run = write(root / "padded", root / "long", weights(), pad_durations=True, batch_size=16)
    measured = largest_activations(run, batches=1)
    jax.effects_barrier()
    assert measured["clips"] == len(calls) > 2
    assert {shape for shape, _ in calls} == {(1, 3, 4, 4, 6), (1, 5, 4, 4, 6)}
    assert {0.0, 1.0} <= {time for _, time in calls}


def test_what_cannot_be_measured_is_refused(root):
    with pytest.raises(UserError, match="does not exist"):
        largest_activations(root / "nowhere")
    with pytest.raises(UserError, match="stage 'vae', which holds no transformer"):
        largest_activations(root / "latents" / "vae")
    with pytest.raises(UserError, match="no finished encoded data set"):
        largest_activations(root / "dit", str(root / "nothing"))
    broken = weights()
    broken["patch_in"]["bias"] += jnp.nan
    with pytest.raises(UserError, match="not finite"):
        largest_activations(write(root / "broken", root / "latents", broken))
