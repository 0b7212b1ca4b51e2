"""Transformers of several kinds of attention on the phone: whole clips and streams equal JAX's."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from export.app import golden, golden_stream, parts
from export.phone.attention.call import FIRST, NEXT
from export.phone.dit import PhoneDit
from export.phone.layout import LAYOUTS
from export.pytorch.dit import Dit as Mirror
from export.pytorch.dit import check_form
from export.pytorch.load import load_params
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.model import Dit
from tests.nets import normal, params_like

SHAPE, TEXT_WIDTH = (5, 4, 8, 3), 10
SMALL = DitConfig(width=24, depth=1, heads=3, head_dim=8, ffn=20, time_features=8, attention_window=2)
KINDS = {
    "lcha": (("lcha", 1),),
    "ssa": (("ssa", 1),),
    "chunked": (("chunked", 1),),
    "full": (("full", 1),),
    "sandwich": (("lcha", 1), ("ssa", 2), ("chunked", 2), ("full", 1), ("chunked", 1)),
}


def config_of(layout, **changes) -> DitConfig:
    return dataclasses.replace(SMALL, depth=len(layout), layout=layout, **changes)


def inputs(shape=SHAPE):
    mask = jnp.arange(6)[None] < 4
    return normal(0, 1, *shape), jnp.full(1, 0.7), normal(1, 1, 6, TEXT_WIDTH), mask


def weights(config: DitConfig):
    """Random parameters, and the mirror with them."""
    params = params_like(Dit(config), *inputs(), scale=0.2)
    mirror = Mirror(config, SHAPE, TEXT_WIDTH).requires_grad_(False)
    load_params(mirror, params)
    return params, mirror


def close(module: PhoneDit, tensors: dict[str, np.ndarray]) -> None:
    with torch.inference_mode():
        outputs = module(*(torch.tensor(tensors[name]) for name in module.inputs))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for name, values in zip(module.outputs, outputs, strict=True):
        expected = tensors[name]
        np.testing.assert_allclose(values, expected, atol=1e-4 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("causal", [False, True], ids=["whole", "causal"])
@pytest.mark.parametrize("layout", KINDS.values(), ids=KINDS)
def test_a_whole_clip_equals_jax(layout, causal):
    config = config_of(layout, causal=causal)
    params, mirror = weights(config)
    tensors = golden.dit_tensors(config, params, *inputs())
    close(PhoneDit(mirror, [1] * len(layout)), tensors)


@pytest.mark.parametrize("layout", [*KINDS.values(), ()], ids=[*KINDS, "no layout"])
def test_a_stream_chunk_by_chunk_equals_jax(layout):
    config = config_of(layout, causal=True) if layout else dataclasses.replace(SMALL, causal=True)
    params, mirror = weights(config)
    first, following = (PhoneDit(mirror, [1] * 5, call=call) for call in (FIRST, NEXT))
    chunks = list(golden_stream.stream_tensors(config, params, *inputs((7, *SHAPE[1:]))))
    assert len(chunks) == 4
    close(first, chunks[0])
    for tensors in chunks[1:]:
        close(following, tensors)
    assert {name: chunks[0][f"kept_{name}"].shape for name in first.states} == following.states


def test_settings_of_a_stream():
    """Windows of no frames, of more than a chunk has, and a wider overlap."""
    for changes in ({"attention_window": 0, "chunk_overlap": 0}, {"attention_window": 5, "chunk_overlap": 3}):
        config = config_of((("full", 1), ("chunked", 1)), causal=True, **changes)
        params, mirror = weights(config)
        calls = [PhoneDit(mirror, [1] * 2, call=call) for call in (FIRST, NEXT, NEXT, NEXT)]
        for call, tensors in zip(
            calls, golden_stream.stream_tensors(config, params, *inputs((7, *SHAPE[1:]))), strict=True
        ):
            close(call, tensors)


def test_a_transformer_is_not_cut_within_a_stage():
    layout = (("lcha", 1), ("full", 2), ("ssa", 2), ("full", 1))
    config = config_of(layout)
    assert parts.stage_ends(config) == [1, 3, 4]
    params, mirror = weights(config)
    tensors = golden.dit_tensors(config, params, *inputs())
    for first, last in ((0, 1), (1, 3), (3, 4)):
        close(PhoneDit(mirror, [1] * 4, first, last), tensors)
    with pytest.raises(UserError, match="leave out --form=gpu"):
        PhoneDit(mirror, [1] * 4, layout=LAYOUTS["gpu"])


def test_snapgens_parts_equal_jax():
    """Strided and near attention, a skip and shared keys."""
    config = config_of((("assa", 1), ("full", 2), ("full", 2)), skips=((1, 2),), kv_heads=2, attention_cell=(1, 2, 4))
    params, mirror = weights(config)
    assert parts.stage_ends(config) == [1, 3]
    close(PhoneDit(mirror, [1] * 3), golden.dit_tensors(config, params, *inputs()))


@pytest.mark.slow
def test_causal_kinds_share_keys_in_clips_and_streams():
    config = config_of((("assa", 1), ("lcha", 1), ("chunked", 1)), causal=True, kv_heads=2)
    params, mirror = weights(config)
    close(PhoneDit(mirror, [1] * 3), golden.dit_tensors(config, params, *inputs()))
    config = config_of(KINDS["sandwich"], causal=True, kv_heads=2)
    params, mirror = weights(config)
    calls = [PhoneDit(mirror, [1] * 5, call=call) for call in (FIRST, NEXT)]
    for call, tensors in zip(calls, golden_stream.stream_tensors(config, params, *inputs()), strict=False):
        close(call, tensors)
    assert calls[1].states["3_k"] == (1, 2 * 8, 1, 2 * 32)


def test_skips_and_shared_keys_without_a_layout_have_both_forms_and_the_mirror():
    config = dataclasses.replace(SMALL, depth=2, skips=((0, 1),), kv_heads=2)
    params, mirror = weights(config)
    tensors = golden.dit_tensors(config, params, *inputs())
    for form in ("phone", "gpu"):
        close(PhoneDit(mirror, [1] * 2, layout=LAYOUTS[form]), tensors)
    x_t, t, text, mask = (torch.tensor(np.asarray(x)) for x in inputs())
    expected = tensors["velocity"][:, :, 0].swapaxes(1, 2).reshape(x_t.shape)
    np.testing.assert_allclose(mirror(x_t, t, text, mask), expected, atol=1e-4 * np.abs(expected).max())
    assert parts.stage_ends(config) == [2]


def test_what_has_no_phone_form_is_named():
    for config, lacks in (
        (config_of((("linear", 1),)), "linear"),
        (dataclasses.replace(SMALL, kv_heads=1, rope_scale=(1.0, 1.0, 1.0)), "kv_heads beside"),
    ):
        with pytest.raises(UserError, match=f"a transformer with {lacks}.* has no phone form yet"):
            Mirror(config, SHAPE, TEXT_WIDTH)
    with pytest.raises(UserError, match="a transformer with streams of assa has no phone form yet"):
        check_form(config_of((("assa", 1),), causal=True), streams=True)
