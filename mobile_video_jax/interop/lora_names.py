"""Names in published LoRA files of LTX-Video and Wan: diffusers' own and those of the original releases (ComfyUI)."""

import re

from mobile_video_jax.core.errors import UserError

DIFFUSERS, COMFYUI = "transformer.", "diffusion_model."
# Suffixes of a layer's two factors, [rank, in] and [out, rank].
FACTORS = (
    ("lora_A.weight", "lora_B.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_down.weight", "lora_up.weight"),
)
ALPHA = "alpha"
# A module's name in the original release -> in diffusers, tried in order.
LTX = (("patchify_proj", "proj_in"), ("adaln_single", "time_embed"))
WAN = (
    ("self_attn.o", "attn1.to_out.0"),
    ("cross_attn.o", "attn2.to_out.0"),
    ("self_attn.", "attn1.to_"),
    ("cross_attn.", "attn2.to_"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("head.head", "proj_out"),
)
ORIGINALS = {"ltx": LTX, "wan": WAN}


def split_name(name: str) -> tuple[str, str]:
    """A tensor's module, without the prefix of the network, and its role: "a", "b" or "alpha".

    Raises UserError for a name of neither.
    """
    bare = re.sub(rf"^({re.escape(DIFFUSERS)}|{re.escape(COMFYUI)})", "", name)
    for down, up in FACTORS:
        for suffix, role in ((down, "a"), (up, "b")):
            if bare.endswith(f".{suffix}"):
                return bare.removesuffix(f".{suffix}"), role
    if bare.endswith(f".{ALPHA}"):
        return bare.removesuffix(f".{ALPHA}"), ALPHA
    raise UserError(f"tensor {name} is no factor of a LoRA: use a file of lora_A and lora_B, or lora_down and lora_up")


def to_diffusers(module: str, family: str) -> str:
    """The module's name in diffusers, of one in either naming."""
    if family == "wan" and re.search(r"attn[12]\.|net\.|^condition_embedder|^proj_out", module):
        return module
    return _renamed(module, ORIGINALS[family])


def to_original(module: str, family: str) -> str:
    """The module's name in the original release, of one in diffusers' naming."""
    return _renamed(module, tuple((ours, theirs) for theirs, ours in ORIGINALS[family]))


def _renamed(module: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        if re.search(rf"(^|\.){re.escape(old)}", module):
            return module.replace(old, new)
    return module
