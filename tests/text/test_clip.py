"""CLIP's text transformer must equal the transformers implementation on the same weights."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text import clip
from mobile_video_jax.text.encoder import load_text_encoder
from mobile_video_jax.weights import huggingface
from tests.text.test_minilm import reference_states

WORDS = ["a", "red", "blue", "ball", "cube", "rolls", "slowly", "over", "the", "white", "floor", "and", "falls"]
CAPTIONS = ["a red ball", "a blue cube rolls slowly over the white floor and falls", "the ball falls"]
SMALL = clip.ClipConfig(vocabulary=20, width=16, layers=2, heads=4, ffn_width=40, positions=20)
TEXT = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "projection_dim": 8,
}
VISION = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 64}
LAYER = "text_model.encoder.layers.1.mlp.fc1.weight"


@pytest.fixture(scope="module")
def transformers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield pytest.importorskip("transformers")


def write_tokenizer(folder, template: str) -> None:
    """One token a word; as published ones it cuts and pads by settings of its own, which must not count."""
    special = ["<s>", "</s>", "<unk>"]
    ids = {word: i for i, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    closing = [(token, ids[token]) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=closing)
    tokenizer.enable_truncation(6)
    tokenizer.enable_padding(length=6)
    tokenizer.save(str(folder / "tokenizer.json"))


def randomize(model):
    """Draws every parameter, so that no two of one shape can be exchanged unseen."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def padded_ids(caption_ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([[len(ids)] for ids in caption_ids])
    mask = np.arange(lengths.max()) < lengths
    padded = np.zeros(mask.shape, int)
    padded[mask] = np.concatenate(caption_ids)
    return padded, mask


@pytest.fixture
def folder(transformers, tmp_path):
    """A whole CLIP, vision tower included, of random weights."""
    model = randomize(transformers.CLIPModel(transformers.CLIPConfig(text_config=TEXT, vision_config=VISION)))
    model.save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model", "<s> $A </s>")
    return tmp_path / "model"


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"])
def test_random_weights_equal_transformers_at_padding_too(transformers, tmp_path, kind, activation):
    text = transformers.CLIPTextConfig(**TEXT, hidden_act=activation)
    whole = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=VISION)
    model = randomize(getattr(transformers, kind)(whole if kind == "CLIPModel" else text))
    model.save_pretrained(tmp_path)
    config = clip.read_config(tmp_path)
    ids = np.random.default_rng(0).integers(0, SMALL.vocabulary, (3, 20))
    mask = np.arange(20) < np.array([[20], [7], [2]])
    params = clip.read_params(tmp_path, config)
    states = clip.ClipText(config).apply({"params": params}, jnp.asarray(ids), jnp.asarray(mask))
    expected = reference_states(getattr(model, "text_model", model), ids, mask)
    assert config.activation == activation
    np.testing.assert_allclose(states, expected, rtol=0, atol=1e-4)


def test_captions_equal_transformers(transformers, folder):
    encoder = load_text_encoder(f"clip:{folder}")
    model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    ids, mask = padded_ids([encoding.ids for encoding in encoder.tokenizer.encode_batch(CAPTIONS)])
    expected = reference_states(model.text_model, ids, mask)
    assert (encoder.width, encoder.max_tokens, mask.sum(1).tolist()) == (16, 20, [5, 13, 5])
    for states, reference, row in zip(encoder.encode(CAPTIONS), expected, mask, strict=True):
        assert states.shape == (row.sum(), 16) and states.dtype == np.float32
        np.testing.assert_allclose(states, reference[row], rtol=0, atol=1e-4)


def test_the_name_is_of_what_the_files_hold(folder, tmp_path):
    name = load_text_encoder(f"clip:{folder}").name
    assert name.startswith("clip-") and len(name) == len("clip-") + 8
    shutil.move(folder, tmp_path / "moved")
    assert load_text_encoder(f"clip:{tmp_path / 'moved'}").name == name
    tensors = load_file(tmp_path / "moved" / "model.safetensors")
    tensors[LAYER] += 1
    save_file(tensors, tmp_path / "moved" / "model.safetensors")
    assert load_text_encoder(f"clip:{tmp_path / 'moved'}").name != name


def test_a_long_caption_is_cut_at_the_last_position(folder):
    encoder = load_text_encoder(f"clip:{folder}")
    with pytest.warns(UserWarning, match=r"1 of 2 captions are longer than the 20 tokens of clip-"):
        long, short = encoder.encode(["red " * 30, "a ball"])
    assert len(long) == 20 and len(short) == 4


def test_left_out_sizes_are_those_of_vit_b(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": {"hidden_act": "gelu"}}))
    expected = clip.ClipConfig(width=512, heads=8, ffn_width=2048, activation="gelu")
    assert clip.read_config(tmp_path) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(LAYER), rf"tensor {LAYER} of shape \(40, 16\) is missing"),
        (
            lambda tensors: tensors.update({LAYER: np.zeros((16, 40), np.float32)}),
            rf"tensor {LAYER} should be of shape \(40, 16\), not \(16, 40\)",
        ),
        (
            lambda tensors: tensors.update({"text_model.cls": np.zeros(3, np.float32)}),
            r"tensor text_model.cls has no place in ClipText; its shape is \(3,\)",
        ),
    ],
)
def test_wrong_weights_are_named(folder, change, message):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=message):
        load_text_encoder(f"clip:{folder}")


def rewrite_config(folder, **changes) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing: save the model's tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing: name the folder"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing: download"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "model.safetensors is missing: convert pytorch_model.bin to safetensors",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"version https"), "model.safetensors is damaged"),
        (
            lambda folder: rewrite_config(folder, model_type="t5"),
            "is of model_type t5: name a folder of clip or clip_t",
        ),
        (
            lambda folder: rewrite_config(folder, text_config=TEXT | {"hidden_act": "relu"}),
            "hidden_act relu is none of",
        ),
        (lambda folder: rewrite_config(folder, text_config=TEXT | {"vocab_size": 9}), "16 tokens, the model knows 9"),
    ],
)
def test_a_folder_that_will_not_do_says_what_to_do(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message):
        load_text_encoder(f"clip:{folder}")


@pytest.mark.parametrize("name", ["clip", "clip:", "minilm:folder", "bert:folder"])
def test_unknown_names(name):
    with pytest.raises(UserError, match=f"no text encoder '{name}': known are minilm, clip:FOLDER, t5:FOLDER"):
        load_text_encoder(name)


def test_half_precision_files_are_read_as_float32(tmp_path):
    table = jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3) / 3
    save_file({"words.weight": np.asarray(table)}, tmp_path / "model.safetensors")
    read = huggingface.open_tensors(tmp_path)["words.weight"][:]
    np.testing.assert_array_equal(np.asarray(read, np.float32), np.asarray(table, np.float32))
