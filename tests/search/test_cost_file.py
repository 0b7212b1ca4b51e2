"""A cost table that is written is read again, and a damaged one is refused in one line."""

import json

import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.search.cost_file import read_costs, write_costs
from mobile_video_jax.search.costs import check_limits
from mobile_video_jax.search.space import uniform_space
from tests.search.tables import random_table

SPACE = uniform_space(3, ["full", "ssa"], [1, 2])


def changed(path, change):
    """The file with its values changed."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def file(tmp_path):
    write_costs(random_table(np.random.default_rng(0), SPACE), tmp_path / "costs.json")
    return tmp_path / "costs.json"


def test_a_table_is_read_as_it_was_written(file):
    assert read_costs(file) == random_table(np.random.default_rng(0), SPACE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["choices"][0].update(milliseconds=-1), "full/1.milliseconds is -1: use a finite number from 0"),
        (lambda v: v["choices"][1].update(flops="many"), "full/2.flops is 'many': use a finite number from 0"),
        (lambda v: v["rest"].update(flops=float("nan")), "rest.flops is nan"),
        (lambda v: v["moves"][0].update(milliseconds=float("inf")), r"moves\[0\].milliseconds is inf"),
        (lambda v: v["choices"].append(v["choices"][0]), "lists full/1 twice"),
        (lambda v: v["choices"][0].pop("kind"), r"choices\[0\] has no kind"),
        (lambda v: v["moves"][0].update(before=0), r"moves\[0\] has no before"),
        (lambda v: v.update(choices=[]), "lists no 'choices'"),
        (lambda v: v.update(network="aa"), "holds the costs of network aa, this one is bb"),
    ],
)
def test_bad_values_are_refused_by_name(file, change, message):
    with pytest.raises(UserError, match=message) as error:
        read_costs(changed(file, change), "bb")
    assert "\n" not in str(error.value)


def test_no_json_a_missing_choice_and_no_budget_are_refused(file, tmp_path):
    (tmp_path / "text").write_text("12 ms")
    with pytest.raises(UserError, match="is no JSON file of costs"):
        read_costs(tmp_path / "text")
    table = read_costs(changed(file, lambda values: (values["choices"].pop(), values["moves"].pop())))
    with pytest.raises(UserError, match="lacks ssa/2, the change 2 to 1: measure these"):
        table.check(SPACE)
    with pytest.raises(UserError, match="needs a budget"):
        check_limits({})
    with pytest.raises(UserError, match="no cost is called 'joules'"):
        check_limits({"joules": 1.0})
