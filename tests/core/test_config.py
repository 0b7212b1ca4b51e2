"""Configs, and that every key of them is read somewhere."""

import ast
import contextlib
import dataclasses
import importlib
import json
import math
import pkgutil
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import pytest

import mobile_video_jax
from configs import dit, vae
from mobile_video_jax.cli import load_config
from mobile_video_jax.core.config import Config, checked, field_types, from_mapping, to_config_dict
from mobile_video_jax.core.declared import split
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.field_comments import described_keys, field_comments
from mobile_video_jax.core.ranges import Count, Range, Share
from mobile_video_jax.stages.config import DitTraining, VaeTraining, training_class
from mobile_video_jax.stages.registry import stage_of
from mobile_video_jax.train.config import OptimizerConfig

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


def classes() -> set[type]:
    """Every dataclass of the package."""
    dataclasses_found: set[type] = set()
    for module in pkgutil.walk_packages(mobile_video_jax.__path__, "mobile_video_jax."):
        values = vars(importlib.import_module(module.name)).values()
        dataclasses_found |= {value for value in values if isinstance(value, type) and dataclasses.is_dataclass(value)}
    return dataclasses_found


# Read by name: compared with a manifest, weights of terms, limits of costs, shares of levels, before there is a config.
BY_NAME = {"text_encoder", "text_width", "l1", "l2", "kl", "matching", "activations", "latency", "channel", "auto"}
CONFIGS = {cls for cls in classes() if issubclass(cls, Config)}


def test_every_config_key_is_read_by_some_code():
    files = [*ROOT.glob("mobile_video_jax/**/*.py"), *ROOT.glob("launch/*.py")]
    trees = [ast.parse(file.read_text()) for file in files]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    keys = {field.name for cls in CONFIGS for field in dataclasses.fields(cls)}
    assert keys - read - BY_NAME == set()


def test_what_is_called_a_config_is_checked_as_one():
    named = {cls for cls in classes() if cls.__name__.endswith(("Config", "Training", "Study"))}
    assert len(named) > 25 and named <= CONFIGS


@pytest.mark.parametrize("cls", sorted(CONFIGS, key=lambda cls: cls.__name__), ids=lambda cls: cls.__name__)
def test_every_field_has_a_comment_and_every_number_a_range(cls):
    comments = field_comments(cls)
    for name, kind in field_types(cls).items():
        assert len(comments.get(name, "")) > 5, name
        assert all(limits for bare, limits in numbers(kind)), name


def numbers(kind) -> list[tuple[type, Range | None]]:
    """The numbers in a declared type, each with its range."""
    bare, limits = split(kind)
    if get_origin(bare) is tuple:
        return [row for each in get_args(bare) if each is not ... for row in numbers(each)]
    return [(bare, limits)] if bare in (int, float) else []


IMPOSSIBLE = (math.nan, math.inf, -math.inf, 1e30, "nan", "1e30")


@pytest.mark.parametrize("cls", sorted(CONFIGS, key=lambda cls: cls.__name__), ids=lambda cls: cls.__name__)
def test_no_number_may_be_nan_infinite_or_huge(cls):
    for name, kind in field_types(cls).items():
        if numbers(kind):
            for number in IMPOSSIBLE:
                with pytest.raises(UserError, match=rf"^config\.{name}.*: use "):
                    from_mapping(cls, {name: number})


@pytest.mark.parametrize("name", ["vae:tiny_t4_s8_c16", "dit:tiny", "recover:tiny", "distill:tiny"])
def test_a_number_of_a_stage_is_refused_by_its_key_or_makes_a_stage(name):
    values = load_config(name)
    cls = training_class(values)
    keys = [key for key, value, _, _ in described_keys(values, cls) if type(value) in (int, float)]
    assert len(keys) > 30
    for key in keys:
        with pytest.raises(UserError, match=rf"^config\.{key}=nan: use a (whole )?number "):
            from_mapping(cls, with_value(values, key, math.nan))
        for number in (0, -1):
            with contextlib.suppress(UserError):
                stage_of(from_mapping(cls, with_value(values, key, number)))


def with_value(values: dict, key: str, value: object) -> dict:
    first, _, rest = key.partition(".")
    return {**values, first: with_value(values[first], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Count, "1e5", 100_000),
        (Count, 100_000.0, 100_000),
        (Count, "7", 7),
        (Share, 1, 1.0),
        (Share, "5e-1", 0.5),
        (bool, "true", True),
        (tuple[Count, ...], [1, "2"], (1, 2)),
        (tuple[Count, ...], "(1, 2)", (1, 2)),
        (tuple[Count, ...], "3", (3,)),
        (tuple[str, ...], "a, b", ("a", "b")),
        (tuple[tuple[Count, Count], ...], [[1, 2], [3, 4]], ((1, 2), (3, 4))),
    ],
)
def test_values_are_read_as_their_field_declares_them(kind, value, expected):
    result = checked(kind, value, "key")
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Count, True),
        (Count, "1.5"),
        (Count, None),
        (Count, "inf"),
        (Share, "nan"),
        (Share, [0.5]),
        (bool, 1),
        (str, 3),
        (Literal["a", "b"], "c"),
        (tuple[Count, ...], [1, 0]),
        (tuple[Count, Count], [1]),
        (Annotated[tuple[Count, ...], Range(1, 3)], []),
    ],
)
def test_values_of_another_type_are_refused(kind, value):
    with pytest.raises(UserError, match="^key"):
        checked(kind, value, "key")


def test_a_config_is_checked_however_it_is_made():
    with pytest.raises(UserError, match=r"OptimizerConfig\.beta1=1.0: use a number from 0, below 1"):
        OptimizerConfig(beta1=1.0)
    with pytest.raises(UserError, match=r"OptimizerConfig\.warmup=nan"):
        dataclasses.replace(OptimizerConfig(), warmup=math.nan)
