"""The encoders of T5 v1.1 and UMT5 must equal the transformers implementations on the same weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text import t5
from mobile_video_jax.text.encoder import load_text_encoder, over_local_devices
from tests.commands import call
from tests.text.test_clip import CAPTIONS, padded_ids, randomize, rewrite_config, write_tokenizer
from tests.text.test_minilm import reference_states

# Few buckets and a short distance, so that a short text reaches the last bucket.
SIZES = {
    "vocab_size": 20,
    "d_model": 16,
    "num_layers": 3,
    "num_heads": 4,
    "d_kv": 6,
    "d_ff": 40,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "feed_forward_proj": "gated-gelu",
}
LAYER = "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"


@pytest.fixture(scope="module")
def transformers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield pytest.importorskip("transformers")


def print_placed() -> None:
    placed = over_local_devices({"matrix": jnp.ones((8, 16)), "scale": jnp.ones(16)}, least=0)
    print(*(placed[name].addressable_shards[0].data.shape for name in ("matrix", "scale")), len(jax.local_devices()))


def test_a_large_encoder_is_shared_by_the_devices_of_a_host():
    done = call(print_placed, devices=4)
    assert done.out.strip() == "(8, 4) (16,) 4", done.err


def save_model(transformers, folder, kind: str = "UMT5", model: str = "EncoderModel", **saving):
    config = getattr(transformers, f"{kind}Config")(**SIZES)
    network = randomize(getattr(transformers, f"{kind}{model}")(config))
    network.save_pretrained(folder, **saving)
    write_tokenizer(folder, "$A </s>")
    return network


def parts(folder):
    return sorted(path.name for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 12), (16, 100)])
def test_buckets_equal_transformers(transformers, buckets, max_distance):
    torch = pytest.importorskip("torch")
    distances = np.arange(-700, 701)
    reference = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    expected = reference(torch.tensor(distances), True, buckets, max_distance)
    computed = t5.relative_buckets(distances, buckets, max_distance)
    np.testing.assert_array_equal(computed, expected)
    assert set(computed) == set(range(buckets)) - {buckets // 2}  # no key is both after the query and at its place


@pytest.mark.parametrize("kind", ["T5", "UMT5"])
@pytest.mark.parametrize("model", ["EncoderModel", "ForConditionalGeneration"])
def test_random_weights_equal_transformers_at_padding_too(transformers, tmp_path, kind, model):
    network = save_model(transformers, tmp_path, kind, model)
    model_type, config = t5.read_config(tmp_path)
    ids = np.random.default_rng(0).integers(0, 20, (3, 40))
    mask = np.arange(40) < np.array([[40], [17], [2]])
    params = t5.read_params(tmp_path, config)
    states = t5.T5Encoder(config).apply({"params": params}, jnp.asarray(ids), jnp.asarray(mask))
    assert model_type == kind.lower()
    np.testing.assert_allclose(states, reference_states(network.encoder, ids, mask), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["T5", "UMT5"])
def test_captions_equal_transformers(transformers, tmp_path, kind):
    network = save_model(transformers, tmp_path, kind)
    encoder = load_text_encoder(f"t5:{tmp_path}")
    ids, mask = padded_ids([encoding.ids for encoding in encoder.tokenizer.encode_batch(CAPTIONS)])
    expected = reference_states(network, ids, mask)
    assert (encoder.width, encoder.max_tokens, mask.sum(1).tolist()) == (16, 256, [4, 12, 4])
    assert encoder.name.startswith(f"{kind.lower()}-")
    for states, reference, row in zip(encoder.encode(CAPTIONS), expected, mask, strict=True):
        assert states.shape == (row.sum(), 16) and states.dtype == np.float32
        np.testing.assert_allclose(states, reference[row], rtol=0, atol=1e-4)


def test_parameters_stay_in_bfloat16_and_give_the_same_states(transformers, tmp_path):
    torch = pytest.importorskip("torch")
    network = save_model(transformers, tmp_path)
    network.to(torch.bfloat16).save_pretrained(tmp_path)
    config = t5.read_config(tmp_path)[1]
    half, whole = (t5.read_params(tmp_path, config, keep_bfloat16=keep) for keep in (True, False))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(half)} == {"bfloat16"}
    ids, mask = jnp.arange(24).reshape(2, 12) % 20, jnp.ones((2, 12), bool)
    states = [jax.jit(t5.T5Encoder(config).apply)({"params": params}, ids, mask) for params in (half, whole)]
    assert states[0].dtype == jnp.float32
    np.testing.assert_array_equal(*states)


def test_shards_hold_the_same_weights(transformers, tmp_path):
    save_model(transformers, tmp_path / "one")
    save_model(transformers, tmp_path / "many", max_shard_size="10KB")
    assert parts(tmp_path / "one") == ["model.safetensors"] and len(parts(tmp_path / "many")) > 2
    one, many = (load_text_encoder(f"t5:{tmp_path / name}").encode(CAPTIONS) for name in ("one", "many"))
    for states, others in zip(one, many, strict=True):
        np.testing.assert_array_equal(states, others)


def test_a_missing_shard_is_named(transformers, tmp_path):
    save_model(transformers, tmp_path, max_shard_size="10KB")
    last = parts(tmp_path)[-1]
    (tmp_path / last).unlink()
    with pytest.raises(UserError, match=f"{last} is missing"):
        load_text_encoder(f"t5:{tmp_path}")


@pytest.mark.parametrize("tables", [{"encoder.embed_tokens.weight"}, {"shared.weight", "encoder.embed_tokens.weight"}])
def test_the_word_table_goes_by_two_names(transformers, tmp_path, tables):
    network = save_model(transformers, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    words = tensors.pop("shared.weight")
    save_file(tensors | {name: words for name in tables}, tmp_path / "model.safetensors")
    params = t5.read_params(tmp_path, t5.read_config(tmp_path)[1])
    np.testing.assert_array_equal(params["words"]["embedding"], network.shared.weight.detach().numpy())


def test_a_long_caption_is_cut_with_its_closing_token_kept(transformers, tmp_path):
    save_model(transformers, tmp_path)
    encoder = load_text_encoder(f"t5:{tmp_path}")
    with pytest.warns(UserWarning, match=r"1 of 2 captions are longer than the 256 tokens of umt5-"):
        long, short = encoder.encode(["red " * 300, "a ball"])
    assert len(long) == 256 and len(short) == 3
    np.testing.assert_allclose(long, encoder.encode(["red " * 255])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("caption", ["", " \n"])
def test_a_caption_without_words_is_refused(transformers, tmp_path, caption):
    save_model(transformers, tmp_path)
    with pytest.raises(UserError, match="has no words"):
        load_text_encoder(f"t5:{tmp_path}").encode([caption])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(LAYER), rf"tensor {LAYER} of shape \(40, 16\) is missing"),
        (
            lambda tensors: tensors.update({LAYER: np.zeros((16, 40), np.float32)}),
            rf"tensor {LAYER} should be of shape \(40, 16\), not \(16, 40\)",
        ),
        (
            lambda tensors: tensors.update({"encoder.block.3.layer.0.layer_norm.weight": np.zeros(16, np.float32)}),
            r"tensor encoder.block.3.layer.0.layer_norm.weight has no place in T5Encoder; its shape is \(16,\)",
        ),
    ],
)
def test_wrong_weights_are_named(transformers, tmp_path, change, message):
    save_model(transformers, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        load_text_encoder(f"t5:{tmp_path}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing: save the model's tokenizer"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model-00001-of-00001.bin"),
            "convert pytorch_model-00001-of-00001.bin to safetensors",
        ),
        (lambda folder: rewrite_config(folder, model_type="mt5"), "is of model_type mt5: name a folder of t5 or umt5"),
        (lambda folder: rewrite_config(folder, feed_forward_proj="relu"), "feed_forward_proj is relu, not gated-gelu"),
    ],
)
def test_a_folder_that_will_not_do_says_what_to_do(transformers, tmp_path, damage, message):
    save_model(transformers, tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        load_text_encoder(f"t5:{tmp_path}")


def test_umt5_biases_each_layer_from_a_table_of_its_own(transformers, tmp_path):
    for kind, tables in (("T5", 1), ("UMT5", 3)):
        save_model(transformers, tmp_path / kind, kind)
        params = t5.read_params(tmp_path / kind, t5.read_config(tmp_path / kind)[1])
        assert sum(name.startswith("relative_bias") for name in params) == tables


def test_the_defaults_are_those_of_the_reference(tmp_path):
    settings = {"model_type": "t5", "feed_forward_proj": "gated-gelu"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = t5.read_config(tmp_path)[1]
    assert (config.buckets, config.max_distance, config.epsilon) == (32, 128, 1e-6)
