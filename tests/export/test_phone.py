"""The phone's forms equal the mirrors."""

import dataclasses

import numpy as np
import pytest
import torch

from export.phone.dit import PhoneDit
from export.phone.layers import attend
from export.phone.layout import LAYOUTS, Layout
from export.phone.tiled_ffn import TiledFfn
from export.phone.vae import PhoneDecoder
from export.pytorch.dit import Dit, time_features
from export.pytorch.safe_norms import layer_normalize, rms_normalize
from export.pytorch.vae import Decoder
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.cost.phone.table import ASSUMED
from mobile_video_jax.cost.phone.tiles import pieces, query_chunks
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.nn.config import EPS
from mobile_video_jax.vae.config import VaeConfig
from tests.dit.test_model import inputs
from tests.export.test_torch_dit import ACROSS_HEADS, EQUAL, LATENTS, PRUNED, TEXT_WIDTH, WAN
from tests.export.test_torch_vae import OMNI, PACKED, PLAIN

torch.manual_seed(0)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    for values in module.parameters():
        torch.nn.init.normal_(values, std=0.3, generator=generator)
    return module.requires_grad_(False)


def phone_inputs(dit: Dit, batch: list[torch.Tensor]) -> list[torch.Tensor]:
    """The first clip's latents, time features, text states and mask in the phone's layout."""
    x, t, text, mask = batch
    flat = x[:1].flatten(1, 3).transpose(1, 2)[:, :, None]
    features = time_features(t[:1], dit.time_in.in_features)[:, :, None, None]
    return [flat, features, text[:1].transpose(1, 2)[:, :, None], mask[:1, None, None].float()]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    "config", [PRUNED, EQUAL, ACROSS_HEADS, WAN], ids=["pruned", "without pooled text", "across heads", "wan"]
)
def test_the_transformer_whole_and_in_chunks(config: DitConfig, layout: Layout):
    dit = randomised(Dit(config, LATENTS, TEXT_WIDTH))
    batch = [torch.tensor(np.asarray(array)) for array in inputs()]
    expected = dit(*batch)[:1].flatten(1, 3).transpose(1, 2)[:, :, None]
    arguments = phone_inputs(dit, batch)
    close(PhoneDit(dit, [1, 1], layout=layout)(*arguments), expected)
    first, second = (PhoneDit(dit, [2, 3], i, i + 1, layout) for i in range(2))
    passed = dict(zip(first.outputs, first(*arguments), strict=True)) | {"text_mask": arguments[3]}
    close(second(*(passed[name] for name in second.inputs)), expected)


@pytest.mark.parametrize("config", [PRUNED, ACROSS_HEADS, WAN], ids=["pruned", "across heads", "wan"])
def test_pieces_of_tokens_and_of_heads_change_nothing(config: DitConfig, monkeypatch):
    dit = randomised(Dit(config, LATENTS, TEXT_WIDTH))
    arguments = phone_inputs(dit, [torch.tensor(np.asarray(array)) for array in inputs()])
    module = PhoneDit(dit, [1, 2])
    whole = module(*arguments)
    monkeypatch.setattr("mobile_video_jax.cost.phone.tiles.ASSUMED", dataclasses.replace(ASSUMED, on_chip=400))
    tokens = arguments[0].shape[3]
    assert pieces(tokens * config.width) > 1 and pieces(tokens * 2 * config.head_dim) > 1
    close(module(*arguments), whole)


@pytest.mark.parametrize("config", [OMNI, PLAIN, PACKED], ids=["temporal attention", "two attentions", "packed"])
def test_the_decoder_chunk_by_chunk(config: VaeConfig):
    decoder = randomised(Decoder(config))
    z = torch.randn(1, 3, 2, 3, 4)
    frames = z[0].movedim(-1, 1)
    first, following = (PhoneDecoder(decoder, (2, 3), starts=starts) for starts in (True, False))
    video, *past = first(frames[:1])
    assert [tuple(values.shape) for values in past] == list(first.kept.values())
    more, *past = following(frames[1:], *past)
    expected, states = decoder(z)
    close(torch.cat([video, more]), expected[0].movedim(-1, 1))
    close(past[-1], states[list(first.kept)[-1]][0].movedim(-1, 1))


@pytest.mark.parametrize("epsilon", [EPS, 1e-5, 1e-6])
def test_normalisation_holds_at_the_ends_of_half_precision(epsilon):
    x = torch.randn(1, 64, 1, 5) * torch.tensor([0.0, 0.01, 1.0, 400.0, 4e3])
    close(rms_normalize(x, epsilon=epsilon), x / torch.sqrt((x * x).mean(1, keepdim=True) + epsilon))
    centred = torch.nn.functional.layer_norm(x.transpose(1, 3), [64], eps=epsilon).transpose(1, 3)
    close(layer_normalize(x, epsilon=epsilon), centred)
    for normalize in (rms_normalize, layer_normalize):
        half = normalize(x.half(), epsilon=epsilon).float()
        assert (half - normalize(x, epsilon=epsilon)).abs().max() < 5e-3
        assert half[..., 0].abs().max() == 0


@pytest.mark.parametrize("tiles", [1, 2, 3, 8])
@pytest.mark.parametrize("cut", [False, True])
def test_tiles_add_up_to_the_feed_forward_network(tiles, cut):
    up, down = torch.nn.Linear(12, 20), torch.nn.Linear(20, 12)
    ffn, x = TiledFfn(up, down, tiles, cut_inputs=cut).requires_grad_(False), torch.randn(1, 12, 1, 7)
    rows = x[0, :, 0].T
    expected = down(torch.nn.functional.gelu(up(rows), approximate="tanh")).detach()
    close(ffn(x)[0, :, 0].T, expected)
    largest = max(conv.weight[:, :, 0, 0].numel() for conv in ffn.down)
    assert largest == 12 * -(-20 // tiles) and (len(ffn.up), len(ffn.up[0])) == (tiles, tiles if cut else 1)


def test_more_tiles_than_features_are_refused():
    with pytest.raises(UserError, match="an FFN of 12 to 20 cannot have 13 tiles"):
        TiledFfn(torch.nn.Linear(12, 20), torch.nn.Linear(20, 12), 13)


def test_chunks_of_queries_do_not_change_attention():
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 8, 1, 7), torch.randn(1, 5, 1, 8), torch.randn(1, 8, 1, 5)
    torch.testing.assert_close(attend(q, k, v, None, 3), attend(q, k, v, None))
    assert query_chunks(1344, 1344) == 2 and query_chunks(48, 48) == 1 and query_chunks(27588, 27588) == 215
