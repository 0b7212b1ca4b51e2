"""A small LTX-Video pipeline of random weights, made and saved by diffusers."""

from pathlib import Path
from typing import Any

import pytest

from tests.text.test_clip import randomize
from tests.text.test_sentencepiece import PIECES, SIZES

VAE: dict[str, Any] = {
    "latent_channels": 6,
    "block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
}
TRANSFORMER: dict[str, Any] = {
    **{"in_channels": 6, "out_channels": 6, "num_attention_heads": 2, "attention_head_dim": 14},
    **{"cross_attention_dim": 28, "num_layers": 2, "caption_channels": SIZES["d_model"]},
}
SCHEDULER: dict[str, Any] = {
    **{"use_dynamic_shifting": True, "shift_terminal": 0.1, "base_shift": 0.95, "max_shift": 2.05},
    **{"base_image_seq_len": 1024, "max_image_seq_len": 4096},
}


def make_pipeline(
    folder: Path, kind: str = "LTXPipeline", scheduler: dict[str, Any] = SCHEDULER, **changes: Any
) -> Any:
    """Saves a pipeline of the class `kind`, `changes` made to the VAE's settings, and returns it."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vocabulary = [(piece, -0.5 * i) for i, piece in enumerate(PIECES)]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    vae = diffusers.AutoencoderKLLTXVideo(**VAE | changes).eval()
    vae.latents_mean.copy_(torch.randn(6))
    vae.latents_std.copy_(torch.rand(6) + 0.5)
    pipeline = getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
        vae=vae,
        text_encoder=randomize(transformers.T5EncoderModel(transformers.T5Config(**SIZES))),
        tokenizer=transformers.T5Tokenizer(vocab=vocabulary),
        transformer=diffusers.LTXVideoTransformer3DModel(**TRANSFORMER).eval(),
    )
    pipeline.save_pretrained(folder)
    return pipeline
