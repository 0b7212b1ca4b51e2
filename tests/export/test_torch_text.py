"""The text encoders' PyTorch mirrors equal them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen

from export.coreml.package import OVERHEAD, check_size, convert
from export.mil.evaluate import evaluate
from export.mil.load import load_package
from export.part import Part
from export.phone.text import PhoneText
from export.pytorch.bert import Bert
from export.pytorch.clip import ClipText
from export.pytorch.load import load_params
from export.pytorch.t5 import T5Layer, T5Text
from mobile_video_jax.text import clip, minilm, t5
from tests.nets import params_like, run

BERT = minilm.BertConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=40, positions=12)
CLIP = clip.ClipConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=40, positions=12)
T5 = t5.T5Config(vocabulary=50, width=16, layers=2, heads=4, head_width=6, ffn_width=40, buckets=8, max_distance=6)
UMT5 = dataclasses.replace(T5, bias_per_layer=True)
IDS = np.random.default_rng(0).integers(0, 50, (2, 7), np.int32)
MASK = np.arange(7) < np.array([[7], [4]])


@pytest.mark.parametrize(
    ("network", "mirror"),
    [
        (minilm.Bert(BERT), Bert(BERT)),
        (clip.ClipText(CLIP), ClipText(CLIP)),
        (t5.T5Encoder(T5), T5Text(T5)),
        (t5.T5Encoder(UMT5), T5Text(UMT5)),
    ],
    ids=["bert", "clip", "t5", "umt5"],
)
def test_the_mirror_equals_the_encoder_and_the_phones_form_is_its_transpose(
    network: linen.Module, mirror: torch.nn.Module
):
    arguments = jnp.asarray(IDS), jnp.asarray(MASK)
    params = params_like(network, *arguments)
    load_params(mirror, params)
    expected = np.where(MASK[..., None], run(network, params, *arguments), 0.0)
    ids, mask = torch.tensor(IDS), torch.tensor(MASK, dtype=torch.float32)
    states = mirror(ids, mask).detach().numpy()
    np.testing.assert_allclose(np.where(MASK[..., None], states, 0.0), expected, atol=1e-5)
    states = PhoneText(mirror)(ids, mask[:, None, None]).detach().numpy()
    assert states.shape == (2, 16, 1, 7)
    np.testing.assert_allclose(states[:, :, 0].swapaxes(1, 2), expected, atol=1e-5)


def test_a_t5s_package_equals_it(tmp_path):
    encoder = T5Text(T5).requires_grad_(False)
    module = PhoneText(encoder)
    inputs = {"ids": IDS[1:], "text_mask": MASK[1:, None, None].astype(np.float32)}
    encoder.words.weight *= 300  # squares of such states overflow fp16
    expected = module(*map(torch.tensor, inputs.values())).numpy()
    convert(Part("text", module, inputs, {"text": expected}), tmp_path / "text.mlpackage")
    states = evaluate(load_package(tmp_path / "text.mlpackage").function(), inputs).outputs["text"]
    assert np.linalg.norm(states - expected) < 2e-3 * np.linalg.norm(expected)


def test_a_t5s_package_in_fp32_holds_what_fp16_does_not(tmp_path):
    inputs = {"ids": IDS[1:], "text_mask": MASK[1:, None, None].astype(np.float32)}
    weights = T5Text(T5).requires_grad_(False)
    weights.layer_1.ffn_out.weight *= 3e6  # the last layer's: the norm after it turns values far beyond 65,504 to ones
    states = {}
    for precision in ("fp16", "fp32"):
        encoder = T5Text(T5, in_fp16=precision == "fp16").requires_grad_(False)
        encoder.load_state_dict(weights.state_dict())
        module = PhoneText(encoder)
        states[precision] = module(*map(torch.tensor, inputs.values())).numpy()
    assert np.linalg.norm(states["fp16"] - states["fp32"]) > 0.05 * np.linalg.norm(states["fp32"])
    part = Part("text", module, inputs, {"text": states["fp32"]}, precision="fp32")
    convert(part, tmp_path / "text.mlpackage")
    evaluation = evaluate(load_package(tmp_path / "text.mlpackage").function(), inputs)
    # Inputs and outputs are fp16.
    assert np.linalg.norm(evaluation.outputs["text"] - states["fp32"]) < 1e-3 * np.linalg.norm(states["fp32"])
    assert not [line for line in evaluation.warnings if "overflow" in line]


def test_a_t5_whose_values_pass_fp16s_end_stays_finite():
    layer = T5Layer(T5).requires_grad_(False)
    layer.ffn_out.weight *= 1e5
    layer.ffn_in.weight *= 50
    x, bias = torch.randn(1, 6, T5.width), torch.zeros(1, T5.heads, 6, 6)
    assert layer.ffn_out(layer.ffn_in(x)).abs().max() > 65504
    states = layer.half()(x.half(), bias.half())
    assert states.isfinite().all() and states.abs().max() > 60000


def test_the_biases_of_all_pairs_of_tokens_are_expected_in_a_package():
    module = PhoneText(T5Text(UMT5))
    part = Part("text", module, {"ids": np.zeros((1, 512), np.int32)}, {})
    bytes_of_all = 2 * (sum(x.numel() for x in module.parameters()) + UMT5.layers * UMT5.heads * 512**2)
    check_size([part], bytes_of_all)
    with pytest.raises(RuntimeError, match="were expected of its weights in fp16"):
        check_size([part], int(1.03 * bytes_of_all) + OVERHEAD)
