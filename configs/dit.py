"""The text-to-video diffusion transformer.

python -m launch.train --config=configs/dit.py:small --workdir=runs/dit --config.data=data/latents

Variants: tiny (two CPU cores), small (one accelerator), server and mobile (the paper's shapes: 28 blocks, 32 heads,
FFN 8192 and 20 blocks, 20 heads, FFN 6144, both 2048 wide), ltx (LTX-Video's transformer at 25 frames a second, with
a T5 encoder's text states), wan (that of Wan 2.1 1.3B, with UMT5's), ti2v (that of Wan 2.2 TI2V 5B), s2dit (a streaming
sandwich of linear and low-resolution blocks, about 1 B), s2dit-wan (the same on the latents and texts of Wan 2.1),
snapgenpp (three stages for images of 1024x1024, which configs/elastic.py trains in several widths), ladder0 to ladder3
(SnapGen++'s steps from a plain transformer of 0.4 B to three stages of sparse attention, each added to those before).
`python -m launch.inspect --config=configs/dit.py:server` prints what each costs. All but tiny grow in three phases,
each from the one before by --config.init_from: small_images (one frame, 192x256), small_low (49 frames, 192x256, and
images), small (49 frames, 384x512, and images). Every phase takes the same number of tokens a step.
"""

import dataclasses
from typing import Any

import ml_collections

from mobile_video_jax.core.clip import ClipShape, Compression
from mobile_video_jax.core.config import to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.ladder import RUNGS, rung
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.train.config import OptimizerConfig

COMPRESSION = Compression(8, 32, 128)
LARGE = DitConfig(width=2048, head_dim=64, rope_theta=10_000.0, scan=True, remat="full", dtype="bfloat16")
# The settings of LTX-Video's transformer (arXiv 2501.00103), for latents of COMPRESSION at 25 frames a second.
LTX: dict[str, Any] = {
    "pooled_text": False,
    "rope_scale": (COMPRESSION.time / 25.0, float(COMPRESSION.space), float(COMPRESSION.space)),
    "qk_norm_across_heads": True,
    "qk_norm_eps": 1e-5,
    "norm_eps": 1e-6,
    "final_layer_norm": True,
}
# The settings of Wan's transformers (arXiv 2503.20314), for latents packed 2 x 2 (vae/wan).
WAN: dict[str, Any] = {
    "pooled_text": False,
    "qk_norm_across_heads": True,
    "qk_norm_eps": 1e-6,
    "norm_eps": 1e-6,
    "final_layer_norm": True,
    "block_layer_norm": True,
    "cross_attention_norm": True,
    "attend_text_padding": True,
}
WAN_1B = dataclasses.replace(LARGE, width=1536, depth=30, heads=12, head_dim=128, ffn=8960, **WAN)
WAN_5B = dataclasses.replace(LARGE, width=3072, depth=30, heads=24, head_dim=128, ffn=14336, **WAN)
# A sandwich as S2DiT's (arXiv 2601.12719), for streams: linear attention, and between it blocks of half the resolution,
# some of them with softmax attention. launch.search finds others.
SANDWICH = (*(("lcha", 1),) * 2, *((*(("lcha", 2),) * 3, ("full", 2)) * 5), ("lcha", 2), ("lcha", 1))
S2DIT = dataclasses.replace(LARGE, width=1536, depth=24, heads=24, ffn=6144, layout=SANDWICH, causal=True)
# SnapGen++'s plain transformer, which its ladder starts from; cells are bands of 4 rows of 64 tokens.
RUNG = dataclasses.replace(
    LARGE, width=1152, head_dim=72, depth=28, heads=16, kv_heads=1, ffn=3456, attention_cell=(1, 4, 64)
)
LADDER = {f"ladder{i}": rung(RUNG, name) for i, name in enumerate(RUNGS)}
MODELS = {
    "tiny": DitConfig(width=128, depth=6, heads=4, head_dim=32, ffn=512),
    "small": dataclasses.replace(LARGE, width=1024, depth=16, heads=16, ffn=4096),
    "mobile": dataclasses.replace(LARGE, depth=20, heads=20, ffn=6144),
    "server": dataclasses.replace(LARGE, depth=28, heads=32, ffn=8192),
    "ltx": dataclasses.replace(LARGE, depth=28, heads=32, ffn=8192, **LTX),
    # ltx pruned by configs/prune.py's shares. A real one has heads of its own in each block, and is not scanned.
    "ltx_mobile": dataclasses.replace(LARGE, depth=20, heads=20, ffn=6144, **LTX),
    "s2dit": S2DIT,
    "s2dit-wan": S2DIT,
    # SnapGen++'s network of 1.6 B (arXiv 2601.08303): 8, 10 and 10 blocks; cells are bands of 4 rows of 64 tokens.
    "snapgenpp": dataclasses.replace(
        LARGE,
        kv_heads=8,
        blocks=(*((32, 32, 8192),) * 8, *((32, 32, 6144),) * 10, *((32, 32, 8192),) * 10),
        layout=(*(("assa", 1),) * 8, *(("full", 2),) * 10, *(("assa", 1),) * 10),
        skips=tuple((8 + i, 17 - i) for i in range(5)),
        attention_cell=(1, 4, 64),
    ),
    **LADDER,
    "wan": WAN_1B,
    "wan_mobile": dataclasses.replace(WAN_1B, depth=21, heads=8, ffn=6720),
    "ti2v": WAN_5B,
    "ti2v_mobile": dataclasses.replace(WAN_5B, depth=21, heads=16, ffn=10752),
}


# What a phase changes. An image is a clip of one frame; where the data hold none, image_share has no effect.
PHASES: dict[str, dict[str, Any]] = {
    "images": {"clip": "1x192x256"},
    "low": {"clip": "49x192x256", "image_share": 0.2, "image_probability": 0.2},
    "": {"clip": "49x384x512", "image_share": 0.2, "image_probability": 0.2},
}
BATCH_SIZES = {
    **{"small": 64, "mobile": 256, "server": 256, "ltx": 256, "wan": 64, "ti2v": 256},
    **{"s2dit": 128, "s2dit-wan": 64, "snapgenpp": 64, **dict.fromkeys(LADDER, 64)},
}
COMPRESSIONS = {
    "wan": Compression(4, 16, 64),
    "ti2v": Compression(4, 32, 192),
    "s2dit-wan": Compression(4, 16, 64),
    "s2dit": Compression(8, 16, 128),
    **dict.fromkeys(("snapgenpp", *LADDER), Compression(8, 16, 128)),
}
TEXT_TO_VIDEO = ("wan",)  # what a release's weights were trained for: they know no conditioning frame
# Clips of each phase, where they differ from those of PHASES.
CLIPS = {
    "s2dit": {"": "49x288x512"},
    **{size: {"images": "1x256x256", "low": "1x512x512", "": "1x1024x1024"} for size in ("snapgenpp", *LADDER)},
}
WAN_TEXTS = {"text_encoder": "t5", "text_width": 4096, "text_tokens": 512, "time_schedule": "thousandth"}
# Captions and times of what is not trained on MiniLM's.
TEXTS: dict[str, dict[str, Any]] = {
    **{size: {"text_tokens": 120} for size in LADDER},
    "ltx": {"text_encoder": "t5", "text_width": 4096, "text_tokens": 128},
    "wan": {**WAN_TEXTS, "time_shift": 3.0},
    "s2dit-wan": {**WAN_TEXTS, "time_shift": 3.0},
    "ti2v": {**WAN_TEXTS, "time_shift": 5.0},
}


def get_config(variant: str = "tiny") -> ml_collections.ConfigDict:
    """The config of SIZE or SIZE_PHASE. Raises UserError for an unknown one."""
    if variant == "tiny":
        return to_config_dict(_tiny())
    size, _, phase = variant.partition("_")
    if size not in BATCH_SIZES or phase not in PHASES:
        known = ["tiny", *(f"{size}_{phase}".strip("_") for size in BATCH_SIZES for phase in PHASES)]
        raise UserError(f"variant '{variant}' is unknown: use one of {', '.join(known)}")
    compression = COMPRESSIONS.get(size, COMPRESSION)
    clips = {name: changes["clip"] for name, changes in PHASES.items()} | CLIPS.get(size, {})
    full = ClipShape.parse(clips[""]).tokens(compression)
    changes = PHASES[phase] | {"clip": clips[phase]}
    if size in TEXT_TO_VIDEO:
        changes["image_probability"] = 0.0
    return to_config_dict(
        DitTraining(
            **changes,
            compression=str(compression),
            **TEXTS.get(size, {"text_tokens": 77}),
            model=MODELS[size],
            steps=200_000,
            auto=True,
            loader_threads=16,  # reads of a mounted bucket in flight
            batch_size=BATCH_SIZES[size] * full // ClipShape.parse(clips[phase]).tokens(compression),
            eval_every=2_000,
            checkpoint_every=2_000,
        )
    )


def _tiny() -> DitTraining:
    # As for the VAE: Muon needs fewer steps than Adam at this size.
    optimizer = OptimizerConfig(
        name="muon",
        learning_rate=1.5e-2,
        adam_learning_rate=2e-3,
        schedule="linear",
        weight_decay=0.0,
        ema_decay=0.995,
    )
    return DitTraining(
        clip="9x32x32",
        compression="t4_s8_c16",
        text_tokens=12,
        model=MODELS["tiny"],
        steps=800,
        batch_size=32,
        eval_every=200,
        eval_batches=4,
        checkpoint_every=400,
        optimizer=optimizer,
    )
