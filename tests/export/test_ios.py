"""The Swift package parses, and names what the Python reference names. No compiler has seen it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_swift
from tokenizers import Tokenizer

from export.app.manifest import NAME
from export.app.tokenizer import WORDS, golden_prompts, lengths, write_tokenizer
from export.part import ENTRY_POINTS, FIRST_FUNCTION
from mobile_video_jax.text.encoder import load_text_encoder

FOLDER = Path(__file__).parents[2] / "export/ios"
SOURCES = sorted(FOLDER.rglob("*.swift"))
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))


def nodes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def strings(name: str) -> set[str]:
    """The string literals of a source file."""
    tree = PARSER.parse((FOLDER / "Sources/MobileVideo" / name).read_bytes())
    return {node.text.decode().strip('"') for node in nodes(tree.root_node) if node.type == "line_string_literal"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_source_file_parses(path: Path):
    root = PARSER.parse(path.read_bytes()).root_node
    assert not root.has_error
    assert max(map(len, path.read_text().splitlines())) <= 120


def test_the_manifest_is_decoded_by_its_own_keys():
    text = (FOLDER / "Sources/MobileVideo/Manifest.swift").read_text()
    renamed = set(re.findall(r'case \w+ = "(\w+)"', text))
    expected = {"frame_rate", "pad_id", "closing_id", "noise_scale", "latent_shape", "time_features", "step_functions"}
    expected |= {"chunk_frames", "renewal_features", "first_steps", "next_steps", "reusing_steps"}
    assert renamed == expected
    reference = (FOLDER.parent / "app/runtime.py").read_text() + (FOLDER.parent / "app/manifest.py").read_text()
    assert all(f'"{key}"' in reference for key in renamed)
    assert NAME in strings("Manifest.swift")


def test_the_loop_calls_the_parts_and_features_of_the_reference():
    reference = (FOLDER.parent / "app/runtime.py").read_text()
    named = strings("Generator.swift")
    parts = {"text", "dit", "vae", *ENTRY_POINTS}
    features = {"ids", "text_mask", "latents", "time_features", "velocity", "video", "frames_before"}
    assert named == parts | features and strings("Networks.swift") == {"kept_", "past_"}
    assert all(f'"{name}"' in reference for name in named - {"ids"} | {"kept_", "past_"})
    assert FIRST_FUNCTION in strings("CoreAINetworks.swift")


@pytest.mark.parametrize("tokens", [6, 12])
def test_a_prompt_is_cut_by_one_rule(tokens: int, tmp_path: Path):
    encoder = load_text_encoder("minilm")
    assert write_tokenizer(encoder, tokens, tmp_path) == []
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "BertTokenizer" and config["cls_token"] == "[CLS]"
    golden = json.loads((tmp_path / "golden/prompts.json").read_text())
    assert golden == golden_prompts(Tokenizer.from_file(str(tmp_path / "tokenizer.json")), tokens)
    assert golden[1]["prompt"] == WORDS
    whole = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    whole.no_truncation()
    closing = whole.encode("").ids[-1]
    assert [len(whole.encode(each["prompt"]).ids) for each in golden[2:]] == list(lengths(tokens))
    for each in golden:
        ids = whole.encode(each["prompt"]).ids
        # manifest.json's rule, which an app follows whose tokenizer does not truncate.
        assert each["ids"] == (ids if len(ids) <= tokens else [*ids[: tokens - 1], closing])
