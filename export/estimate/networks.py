"""Networks whose time on Apple's chips is published, without their weights, with attention head by head.

diffusers, of the extra `dev`, is imported where a network needs it: estimates do without.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.estimate.ops import ops_of_module
from mobile_video_jax.cost.phone.ops import Op


def empty(*shape: int) -> Tensor:
    """A tensor of that shape without memory."""
    return torch.empty(shape, device="meta")


def stable_diffusion_2_1() -> list[Op]:
    """The U-Net of stable-diffusion-2-1-base for 512x512, two prompts at once, in 6-bit palettes (866 M parameters)."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(
            attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True
        )
    unet.set_attn_processor(SplitEinsum())
    return ops_of_module(unet.eval(), empty(2, 4, 64, 64), torch.tensor(1), empty(2, 77, 1024), weight_bits=6.0)


def stable_diffusion_xl() -> list[Op]:
    """The U-Net of stable-diffusion-xl-base-1.0 for 768x768, two prompts at once, in 4.04 bits (2,567 M parameters)."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            use_linear_projection=True,
        )
    unet.set_attn_processor(SplitEinsum())
    added = {"text_embeds": empty(2, 1280), "time_ids": empty(2, 6)}
    inputs = empty(2, 4, 96, 96), torch.tensor(1), empty(2, 77, 2048)
    return ops_of_module(unet.eval(), *inputs, weight_bits=4.04, added_cond_kwargs=added)


def distilbert() -> list[Op]:
    """distilbert-base for 128 tokens, from embeddings on (43 M parameters)."""
    with torch.device("meta"):
        layers = nn.ModuleList(Layer(768, 3072, heads=12, kv_heads=12, crosses=False) for _ in range(6))
    return ops_of_module(Stack(layers), empty(1, 768, 1, 128), empty(1, 768, 1, 1))


def mobileclip_b_image() -> list[Op]:
    """MobileCLIP-B's image encoder, ViT-B/16 for 224x224, from its patches on (85 M of 86.3 M parameters)."""
    with torch.device("meta"):
        layers = nn.ModuleList(Layer(768, 3072, heads=12, kv_heads=12, crosses=False) for _ in range(12))
    return ops_of_module(Stack(layers), empty(1, 768, 1, 197), empty(1, 768, 1, 1))


def mobileclip_text() -> list[Op]:
    """The text encoder of MobileCLIP-S1, S2 and B for 77 tokens, from embeddings on (38 M of 63.4 M parameters)."""
    with torch.device("meta"):
        layers = nn.ModuleList(Layer(512, 2048, heads=8, kv_heads=8, crosses=False) for _ in range(12))
    return ops_of_module(Stack(layers), empty(1, 512, 1, 77), empty(1, 512, 1, 1))


def snapgen_plus_base() -> list[Op]:
    """The blocks (381 M of 424 M parameters) of the transformer that SnapGen++ starts from, for 1024x1024.

    PixArt-alpha with one head of keys and values and an FFN of three times the width, over 4,096 tokens. Its 120 text
    tokens, as in PixArt-alpha, are assumed.
    """
    with torch.device("meta"):
        layers = nn.ModuleList(Layer(1152, 3456, heads=16, kv_heads=1, crosses=True) for _ in range(28))
    return ops_of_module(Stack(layers), empty(1, 1152, 1, 4096), empty(1, 1152, 1, 120))


def ltx_decoder() -> list[Op]:
    """LTX-Video's decoder for 17 frames of 512x512 (239 M parameters)."""
    from diffusers import AutoencoderKLLTXVideo

    with torch.device("meta"):
        vae: Any = AutoencoderKLLTXVideo()
    return ops_of_module(vae.decoder.eval(), empty(1, 128, 3, 16, 16))


class SplitEinsum:
    """diffusers' attention, one head at a time, as SPLIT_EINSUM of ml-stable-diffusion computes it."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: None = None
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projections = (attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context)
        q, k, v = (layer(x).unflatten(-1, (attn.heads, -1)) for layer, x in projections)
        clips = [
            torch.cat([_attend(q[i, :, j], k[i, :, j], v[i, :, j]) for j in range(attn.heads)], 1)
            for i in range(len(q))
        ]
        projected: Tensor = attn.to_out[0](torch.stack(clips))
        return projected


class Stack(nn.Module):
    """Layers one after the other."""

    def __init__(self, layers: nn.ModuleList):
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, context)
        return x


class Layer(nn.Module):
    """A transformer's layer over [1, c, 1, s]: self-attention, cross-attention if it `crosses`, and an FFN."""

    def __init__(self, width: int, hidden: int, *, heads: int, kv_heads: int, crosses: bool):
        super().__init__()
        self.self_attention = Attention(width, heads, kv_heads)
        self.cross_attention = Attention(width, heads, kv_heads) if crosses else None
        self.up, self.down = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = _normalize(x)
        x = x + self.self_attention(y, y)
        if self.cross_attention is not None:
            x = x + self.cross_attention(x, context)
        hidden = functional.gelu(self.up(_normalize(x)))
        result: Tensor = x + self.down(hidden)
        return result


class Attention(nn.Module):
    """Attention head by head; queries may share heads of keys and values."""

    def __init__(self, width: int, heads: int, kv_heads: int):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.q, self.out = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.k, self.v = (nn.Conv2d(width, width // heads * kv_heads, 1) for _ in range(2))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.q(x)[0, :, 0].T.unflatten(1, (self.heads, -1))
        k, v = (f(context)[0, :, 0].T.unflatten(1, (self.kv_heads, -1)) for f in (self.k, self.v))
        group = self.heads // self.kv_heads
        attended = [_attend(q[:, i], k[:, i // group], v[:, i // group]) for i in range(self.heads)]
        projected: Tensor = self.out(torch.cat(attended, 1).T[None, :, None])
        return projected


def _normalize(x: Tensor) -> Tensor:
    """An RMS norm that fp16 holds, in the plainest ops: those of the published packages are not known."""
    scale = 1 / x.abs().amax(1, keepdim=True).clamp(1.0, 16384.0)
    small = x * scale
    return small * torch.rsqrt((small * small).mean(1, keepdim=True) + (0.01 * scale) ** 2)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head: q [s, d], k and v [m, d] to [s, d]."""
    attended: Tensor = torch.einsum("kq,kc->qc", torch.softmax(torch.einsum("qc,kc->kq", q, k), dim=0), v)
    return attended


NETWORKS: dict[str, Callable[[], list[Op]]] = {
    function.__name__: function
    for function in (
        stable_diffusion_2_1,
        stable_diffusion_xl,
        distilbert,
        snapgen_plus_base,
        ltx_decoder,
        mobileclip_b_image,
        mobileclip_text,
    )
}
