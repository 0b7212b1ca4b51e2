"""A search on a run: it keeps the budget, writes a run that training takes, and resumes."""

import dataclasses
import itertools
import json

import jax
import pytest
import yaml

from mobile_video_jax.core.config import from_mapping, plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh, put_batch
from mobile_video_jax.prune.plan import named_denoiser
from mobile_video_jax.search import variants
from mobile_video_jax.search.blocks import search_space
from mobile_video_jax.search.candidates import CHOSEN
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.dynamic import cheapest
from mobile_video_jax.search.evolution import EvolutionConfig
from mobile_video_jax.search.network_costs import phone_table
from mobile_video_jax.search.report import write_search_report
from mobile_video_jax.search.run import LAYOUT, LOSSES, search
from mobile_video_jax.search.space import Choice
from mobile_video_jax.search.supernet import layout_denoiser
from mobile_video_jax.search.untrained import OWN, search_untrained
from mobile_video_jax.stages.config import DitTraining
from mobile_video_jax.stages.dit import DitStage
from tests import tiny
from tests.commands import run as command

MODEL = DitConfig(width=16, depth=2, heads=2, head_dim=8, ffn=16, time_features=8)
CONFIG = SearchConfig(
    kinds=("full",),
    distill_steps=3,
    clips=8,
    times=2,
    batch_clips=4,
    floor=1,
    evolution=EvolutionConfig(population=4, generations=2, fidelities=(0, 1)),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    data = tiny.latents(tmp_path_factory.mktemp("data") / "latents")
    config = tiny.dit_config(data, model=MODEL, batch_size=4)
    return Run.open(tiny.dit_run(tmp_path_factory.mktemp("trained") / "dit", config))


@pytest.fixture(scope="module")
def limits(trained) -> dict[str, float]:
    table = phone_table(trained.denoiser, space := search_space(CONFIG, trained.denoiser))
    return {"flops": 1.3 * cheapest(space, table, "flops").costs.flops}


@pytest.fixture(scope="module")
def searched(trained, limits, tmp_path_factory):
    out = tmp_path_factory.mktemp("searched") / "run"
    return *search(CONFIG, trained, "", out, limits, "dp"), out


@pytest.mark.slow
def test_the_chosen_layout_is_a_run_within_the_budget_with_the_loss_that_was_measured(searched, trained, limits):
    result, _, out = searched
    chosen, run = result.candidates[CHOSEN], Run.open(out)
    assert run.denoiser.config.model.layout == chosen.layout and chosen.costs.flops <= limits["flops"]
    assert result.candidates["trained"].costs.flops > limits["flops"]
    # The loss of the run that was written, as a plain transformer, is the loss that the supernet had.
    stage = DitStage(dataclasses.replace(DitStage.of_run(run).config, batch_size=8, eval_batches=1))
    mesh = make_mesh(MeshConfig())
    [batch] = stage.eval_batches(mesh)
    batch.pop("record")
    batch = put_batch(batch, mesh)
    whole, base = (
        float(DitStage.of_run(each).evaluate_batch(each.sharded_params(mesh), batch, jax.random.key(0))["loss"])
        for each in (run, trained)
    )
    measured = result.importance.trained.value + chosen.rise.difference
    assert whole == pytest.approx(measured, rel=0.1) and base == pytest.approx(result.importance.trained.value, rel=0.1)


@pytest.mark.slow
def test_a_search_resumes_without_an_evaluation_and_refuses_another_folder(searched, trained, limits, monkeypatch):
    result, _, out = searched
    losses = (out / LOSSES).read_text()
    monkeypatch.setattr(variants, "_distilled", None)  # nothing is distilled again
    again, _ = search(CONFIG, trained, "", out, limits, "dp")
    assert again.candidates == result.candidates and (out / LOSSES).read_text() == losses
    with pytest.raises(UserError, match="was made with another limits: name another --out"):
        search(CONFIG, trained, "", out, {"flops": 1.1 * limits["flops"]}, "dp")


@pytest.mark.slow
def test_evolution_trains_candidates_within_the_budget_and_is_reported(trained, limits, tmp_path):
    undistilled = dataclasses.replace(CONFIG, distill_steps=0)
    result, table = search(undistilled, trained, "", tmp_path / "run", limits, "evolution")
    evolved = result.outcomes["evolution"]
    assert all(table.of(evaluation.layout).flops <= limits["flops"] for evaluation in evolved.evaluations)
    assert {evaluation.fidelity for evaluation in evolved.evaluations} == {0, 1}
    numbers = write_search_report(result, table, CONFIG.evolution, table.of(evolved.best.layout), tmp_path, 1.0)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(numbers))
    assert "random search" in (tmp_path / "report.html").read_text()


def test_a_config_is_searched_by_cost_alone_for_the_layout_that_computes_most(trained, limits, tmp_path):
    own = layout_denoiser(trained.denoiser, (Choice("full", 2),) * 2)
    result, table = search_untrained(CONFIG, "dit:own", own, tmp_path, limits)
    possible = map(table.of, itertools.product(table.choices, repeat=2))
    most = max(costs.flops for costs in possible if costs.flops <= limits["flops"])
    chosen = result.candidates[CHOSEN]
    assert chosen.costs.flops == most < result.candidates["full attention"].costs.flops and OWN in result.candidates
    values = {"model": plain(MODEL) | yaml.safe_load((tmp_path / LAYOUT).read_text())["model"]}
    assert from_mapping(DitTraining, values).transformer.layout == chosen.layout
    numbers = write_search_report(result, table, CONFIG.evolution, chosen.costs, tmp_path, 1.0)
    assert numbers["by"] == "cost alone" and not any("rise" in each for each in numbers["candidates"].values())
    assert "no quality was measured" in (tmp_path / "report.html").read_text()


def test_choices_that_the_grid_does_not_allow_are_left_out_and_named_or_refused(trained, capsys):
    config = dataclasses.replace(CONFIG, kinds=("full", "ssa"), resolutions=(1, 4))
    assert list(map(str, search_space(config, trained.denoiser).choices)) == ["full/1", "full/4", "ssa/1"]
    assert "search: ssa/4 is left out: a stride of 2 does not divide the 1x1 tokens" in capsys.readouterr().err
    with pytest.raises(UserError, match="resolution 3 does not divide the 4x4 tokens"):
        search_space(dataclasses.replace(config, resolutions=(1, 3)), trained.denoiser)


def test_the_command_refuses_a_budget_below_the_cheapest_and_none(trained, tmp_path):
    small = ("--config.kinds=full", "--config.resolutions=1")
    bad = command("launch.search", f"--model={trained.path}", "--budget_ms=0.01", f"--out={tmp_path / 'run'}", *small)
    assert (
        bad.status == 2 and "no layout is within 0.01 ms: the cheapest, " in bad.err and not (tmp_path / "run").exists()
    )
    bad = command("launch.search", f"--model={trained.path}", f"--out={tmp_path / 'run'}")
    assert bad.status == 2 and bad.err.splitlines()[-1].startswith("error: a search needs a budget: set --budget_ms")
    with pytest.raises(UserError, match="vae is no config of a transformer"):
        named_denoiser("vae")
    assert named_denoiser("taught:tiny").config.transformer == named_denoiser("dit:tiny").config.transformer
    bad = command("launch.search", "--model=dit:tiny", "--method=evolution", f"--out={tmp_path / 'run'}")
    assert bad.status == 2 and "dit:tiny is a config without weights" in bad.err and not (tmp_path / "run").exists()
