"""Qwen2.5-VL in Flax equals the transformers implementation on random weights, and has a gradient in the pixels."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.rewards.qwen.config import read_sizes
from mobile_video_jax.rewards.qwen.folder import read_params
from mobile_video_jax.rewards.qwen.model import MEAN, STD, Qwen
from mobile_video_jax.rewards.qwen.shapes import qwen_shapes

VIDEO, PAD_LEFT, SUFFIX = 60, 61, 5
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 24,
    "out_hidden_size": 48,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "window_size": 16,
    "fullatt_block_indexes": [1],
    "tokens_per_second": 4,
}
TEXT = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
    "tie_word_embeddings": False,
    "max_position_embeddings": 512,
}
FPS = 2.0  # a patch of two frames is a second: 4 temporal positions


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small random Qwen2.5-VL of transformers, and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        transformers = pytest.importorskip("transformers")
        torch = pytest.importorskip("torch")
    config = transformers.Qwen2_5_VLConfig(
        text_config=TEXT, vision_config=VISION, video_token_id=VIDEO, image_token_id=62, vision_start_token_id=61
    )
    torch.manual_seed(0)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (1.0 if parameter.ndim == 1 else 0.0))
    folder = tmp_path_factory.mktemp("qwen")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def qwen(network):
    sizes = read_sizes(network[1], "float32")
    return Qwen(sizes), read_params(network[1], qwen_shapes(sizes))


def inputs() -> tuple[np.ndarray, ...]:
    """Two clips of 5 frames, 16 x 24 pixels, with two suffixes each, one shorter than the other."""
    rng = np.random.default_rng(0)
    video = rng.uniform(-1, 1, (2, 5, 16, 24, 3)).astype(np.float32)
    suffix = rng.integers(0, 50, (2, 2, SUFFIX))
    return video, np.array([3, 7, 61]), suffix, np.array([[SUFFIX - 1, 2], [3, SUFFIX - 1]])


def patches_for_transformers(clip: np.ndarray) -> np.ndarray:
    """As Qwen2VLVideoProcessor makes them: frames in pairs, patches in the order of merged squares."""
    frames = np.concatenate([clip, clip[-1:]]).transpose(0, 3, 1, 2)  # 6 frames [f c h w]
    frames = ((frames + 1) / 2 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    patches = frames.reshape(3, 2, 3, 2, 2, 4, 3, 2, 4).transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return patches.reshape(3 * 4 * 6, -1).astype(np.float32)


def test_logits_equal_transformers(network, qwen):
    torch = pytest.importorskip("torch")
    video, prefix, suffix, last = inputs()
    logits = jax.jit(lambda p, v: qwen[0].apply({"params": p}, v, *map(jnp.asarray, (prefix, suffix, last)), FPS))(
        qwen[1], video
    )
    for clip, question in ((0, 0), (0, 1), (1, 0)):
        end = last[clip, question] + 1
        ids = np.concatenate([prefix, np.full(3 * 2 * 3, VIDEO), suffix[clip, question, :end]])[None]
        with torch.no_grad():
            expected = network[0](
                input_ids=torch.tensor(ids),
                attention_mask=torch.ones(ids.shape, dtype=torch.long),
                mm_token_type_ids=torch.tensor((ids == VIDEO) * 2),
                pixel_values_videos=torch.tensor(patches_for_transformers(video[clip])),
                video_grid_thw=torch.tensor([[3, 4, 6]]),
                second_per_grid_ts=torch.tensor([2 / FPS]),
            ).logits[0, -1]
        np.testing.assert_allclose(logits[clip, question], expected.numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_gradient_in_the_pixels_is_that_of_finite_differences(qwen):
    video, prefix, suffix, last = inputs()

    @jax.jit
    def answer(video):
        logits = qwen[0].apply({"params": qwen[1]}, video, *map(jnp.asarray, (prefix, suffix[:1], last[:1])), FPS)
        return jnp.sum(jax.nn.log_softmax(logits)[..., 7])

    video = jnp.asarray(video[:1])
    direction = jnp.asarray(np.random.default_rng(1).normal(size=video.shape), jnp.float32)
    slope = jnp.sum(jax.grad(answer)(video) * direction)
    difference = (answer(video + 1e-3 * direction) - answer(video - 1e-3 * direction)) / 2e-3
    np.testing.assert_allclose(slope, difference, rtol=0.05, atol=1e-2)


def test_a_missing_tensor_and_another_models_folder_are_refused_in_a_line(network, tmp_path):
    config = json.loads((network[1] / "config.json").read_text())
    tensors = load_file(network[1] / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    removed = next(name for name in tensors if name.endswith("layers.1.mlp.up_proj.weight"))
    save_file({name: x for name, x in tensors.items() if name != removed}, tmp_path / "model.safetensors")
    sizes = read_sizes(tmp_path)
    with pytest.raises(UserError, match=r"tensor model\.layers\.1\.mlp\.up_proj\.weight of a Qwen2\.5-VL is missing"):
        read_params(tmp_path, qwen_shapes(sizes))
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))
    with pytest.raises(UserError, match="is of model_type llava: name a folder of qwen2_5_vl"):
        read_sizes(tmp_path)
