"""Configs, and that every key of them is read somewhere."""

import ast
import dataclasses
import importlib
import json
import pkgutil
from pathlib import Path

import pytest

import mobile_video_jax
from configs import dit, vae
from mobile_video_jax.core.config import from_mapping, to_config_dict
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.stages.config import DitTraining, VaeTraining

ROOT = Path(mobile_video_jax.__file__).parents[1]


def test_a_config_survives_the_trip_through_the_command_line_and_json():
    values = dit.get_config("server").to_dict()
    config = from_mapping(DitTraining, values)
    assert config.model.heads == 32 and config.model.scan
    assert from_mapping(DitTraining, json.loads(json.dumps(values))) == config
    assert to_config_dict(config).to_dict() == values


def test_an_unknown_key_is_refused_with_its_path():
    values = vae.get_config("tiny_t4_s8_c16").to_dict()
    values["model"]["widht"] = 3
    with pytest.raises(UserError, match=r"config\.model\.widht is no key"):
        from_mapping(VaeTraining, values)


def test_locked_config_refuses_unknown_keys():
    with pytest.raises((AttributeError, KeyError)):
        vae.get_config("tiny_t4_s8_c16").model.widht = 3


@pytest.mark.parametrize(("module", "variant"), [(dit, "huge"), (vae, "huge_t4_s8_c8"), (vae, "t4")])
def test_an_unknown_variant_is_refused(module, variant):
    with pytest.raises(UserError, match="unknown"):
        module.get_config(variant)


def config_classes() -> set[type]:
    """Every dataclass of the package whose name says that it is a config."""
    found = set()
    for module in pkgutil.walk_packages(mobile_video_jax.__path__, "mobile_video_jax."):
        for value in vars(importlib.import_module(module.name)).values():
            if (
                isinstance(value, type)
                and dataclasses.is_dataclass(value)
                and value.__name__.endswith(("Config", "Training"))
            ):
                found.add(value)
    return found


def test_every_config_key_is_read_by_some_code():
    files = [*ROOT.glob("mobile_video_jax/**/*.py"), *ROOT.glob("launch/*.py")]
    trees = [ast.parse(file.read_text()) for file in files]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    keys = {field.name for cls in config_classes() for field in dataclasses.fields(cls)}
    assert len(config_classes()) >= 6
    # DitStage compares its data's manifest with some by name, and both objectives weigh their terms by name.
    assert keys - read - {"text_encoder", "text_width", "l1", "l2", "kl", "matching"} == set()
