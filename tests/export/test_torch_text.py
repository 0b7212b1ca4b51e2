"""The text encoders' PyTorch mirrors equal them."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen

from export.convert import load_params
from export.torch_bert import Bert
from export.torch_clip import ClipText
from export.torch_text import PhoneText
from mobile_video_jax.text import clip, minilm
from tests.nets import params_like, run

BERT = minilm.BertConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=40, positions=12)
CLIP = clip.ClipConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=40, positions=12)
IDS = np.random.default_rng(0).integers(0, 50, (2, 7), np.int32)
MASK = np.arange(7) < np.array([[7], [4]])


@pytest.mark.parametrize(
    ("network", "mirror"),
    [(minilm.Bert(BERT), Bert(BERT)), (clip.ClipText(CLIP), ClipText(CLIP))],
    ids=["bert", "clip"],
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
    found = PhoneText(mirror)(ids, mask[:, None, None]).detach().numpy()
    assert found.shape == (2, 16, 1, 7)
    np.testing.assert_allclose(found[:, :, 0].swapaxes(1, 2), expected, atol=1e-5)
