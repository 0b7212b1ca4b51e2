"""T5's tokenizer from SentencePiece's own file, spiece.model, for folders without a tokenizer.json."""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from mobile_video_jax.core.errors import UserError

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPACE = "▁"
EXTRA = 100  # T5's sentinels, counted down after the pieces (arXiv 1910.10683, section 3.1.4)

_Field = descriptor_pb2.FieldDescriptorProto
# The fields of sentencepiece_model.proto that a unigram tokenizer needs: message -> (name, number, type, repeated).
_FIELDS: dict[str, list[tuple[str, int, Any, bool]]] = {
    "Piece": [("piece", 1, _Field.TYPE_STRING, False), ("score", 2, _Field.TYPE_FLOAT, False)],
    "Trainer": [("model_type", 3, _Field.TYPE_INT32, False), ("unk_id", 40, _Field.TYPE_INT32, False)],
    "Normalizer": [("precompiled_charsmap", 2, _Field.TYPE_BYTES, False)],
    "Model": [("pieces", 1, "Piece", True), ("trainer", 2, "Trainer", False), ("normalizer", 3, "Normalizer", False)],
}
UNIGRAM = 1


def read_spiece(path: Path) -> Tokenizer:
    """Reads T5's tokenizer. Raises UserError where the file is damaged or does not hold a unigram model."""
    model = _message("Model")()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise UserError(f"{path} is damaged ({error}): download it again") from error
    # The type is omitted where it is the default, as in T5's own file.
    if END not in {entry.piece for entry in model.pieces} or model.trainer.model_type not in (0, UNIGRAM):
        raise UserError(f"{path} holds no unigram model: use the spiece.model of a T5")
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(EXTRA))]
    vocabulary = [(entry.piece, entry.score) for entry in model.pieces] + [(word, 0.0) for word in sentinels]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=model.trainer.unk_id, byte_fallback=False))
    tokenizer.normalizer = _normalizer(model.normalizer.precompiled_charsmap)
    split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.add_special_tokens([PAD, END, UNKNOWN, *sentinels])
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, end)])
    return tokenizer


def _normalizer(table: bytes) -> Any:
    return normalizers.Precompiled(table) if table else normalizers.Replace(Regex(" {2,}"), " ")


def _message(name: str) -> Any:
    """The protobuf class of a message; fields that are not listed are skipped when it is parsed."""
    file = descriptor_pb2.FileDescriptorProto(name="spiece.proto", package="spiece", syntax="proto2")
    for message, fields in _FIELDS.items():
        descriptor = file.message_type.add(name=message)
        for field, number, kind, repeated in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            added = descriptor.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".spiece.{kind}"
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"spiece.{name}"))
