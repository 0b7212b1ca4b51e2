"""T5's tokenizer from a spiece.model, and the text encoder of an LTX-Video pipeline, beside transformers'."""

from pathlib import Path

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.text.encoder import load_text_encoder
from mobile_video_jax.text.sentencepiece import read_spiece
from tests.text.test_clip import randomize

PIECES = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁red", "▁ball", "r", "e", "d", "b", "al", "l", "moving", "▁mo", "ving"]
CAPTIONS = ["a red ball", "  a  red\tball moving ", "reddall xyz", "a <extra_id_3> ball", ""]
SIZES = {
    **{"vocab_size": 128, "d_model": 16, "num_layers": 2, "num_heads": 4, "d_kv": 6, "d_ff": 40},
    "feed_forward_proj": "gated-gelu",
}


def write_spiece(folder: Path) -> Path:
    """A unigram model as SentencePiece writes it."""
    proto = pytest.importorskip("transformers.utils.sentencepiece_model_pb2_new")
    model = proto.ModelProto()
    for i, piece in enumerate(PIECES):
        model.pieces.add(piece=piece, score=-0.5 * i)
    model.trainer_spec.unk_id, model.trainer_spec.vocab_size = 2, len(PIECES)
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    return folder / "spiece.model"


def test_ids_equal_transformers(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    path = write_spiece(tmp_path / "tokenizer")
    vocabulary = [(piece, -0.5 * i) for i, piece in enumerate(PIECES)]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    theirs, ours = transformers.T5Tokenizer(vocab=vocabulary), read_spiece(path)
    assert ours.get_vocab_size() == len(PIECES) + 100
    for caption in CAPTIONS:
        assert ours.encode(caption).ids == theirs(caption).input_ids, caption
    assert ours.decode(ours.encode("a red ball").ids) == "a red ball"


@pytest.mark.parametrize(("content", "message"), [(b"\x0a\xff", "is damaged"), (b"", "holds no unigram model")])
def test_a_damaged_file_is_refused(tmp_path, content, message):
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_spiece(tmp_path / "spiece.model")


def test_a_pipelines_encoder_sees_its_padding_as_there(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    network = randomize(transformers.T5EncoderModel(transformers.T5Config(**SIZES)))
    network.save_pretrained(tmp_path / "text_encoder")
    write_spiece(tmp_path / "tokenizer")
    encoder = load_text_encoder(f"ltx:{tmp_path}")
    assert encoder.name.startswith("ltx-t5-") and (encoder.width, encoder.max_tokens) == (16, 128)
    ids = np.zeros((2, 128), np.int64)
    for row, caption in zip(ids, ("a red ball", ""), strict=True):
        tokens = encoder.tokenizer.encode(caption).ids
        row[: len(tokens)] = tokens
    with torch.no_grad():
        expected = network(torch.from_numpy(ids)).last_hidden_state.numpy()
    [states] = encoder.encode(["a red ball"])
    np.testing.assert_allclose(states, expected[0, : len(states)], rtol=0, atol=1e-4)
    np.testing.assert_allclose(encoder.empty(), expected[1, :1], rtol=0, atol=1e-4)


def test_a_shorter_limit_changes_no_state_of_a_caption_that_fits(tmp_path):
    transformers = pytest.importorskip("transformers")
    randomize(transformers.T5EncoderModel(transformers.T5Config(**SIZES))).save_pretrained(tmp_path / "text_encoder")
    write_spiece(tmp_path / "tokenizer")
    encoder = load_text_encoder(f"ltx:{tmp_path}")
    np.testing.assert_array_equal(encoder.limited_to(16).encode(["a red ball"])[0], encoder.encode(["a red ball"])[0])
