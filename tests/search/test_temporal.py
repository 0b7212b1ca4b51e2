"""The search of a U-Net's layers over time: one shared network, its costs, and a run of the chosen layout."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobile_video_jax.core.errors import UserError
from mobile_video_jax.models.config import DenoiserConfig
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.models.run import Run
from mobile_video_jax.parallel.config import MeshConfig
from mobile_video_jax.parallel.mesh import make_mesh, replicated
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.costs import METRICS
from mobile_video_jax.search.dynamic import cheapest
from mobile_video_jax.search.evolution import EvolutionConfig
from mobile_video_jax.search.run import LOSSES, network_search, search
from mobile_video_jax.search.space import Choice
from mobile_video_jax.search.steps import Partial, Steps
from mobile_video_jax.search.temporal import KINDS, TemporalSearch, _fresh_layers
from mobile_video_jax.stages.dit import DitStage
from mobile_video_jax.train.checkpoint import newest_step
from mobile_video_jax.unet.config import UnetConfig
from tests import tiny
from tests.nets import normal, randomly

MODEL = UnetConfig(widths=(16,), residuals=(1,), blocks=(0,), head_dim=8, time_features=16)
CLIPS = DenoiserConfig(clip="9x32x32", compression=tiny.COMPRESSION, text_width=24, text_tokens=5, model=MODEL)
LAYOUT = tuple(Choice(kind, 1) for kind in ("conv1d", "none", "attention1d", "cross"))
CONFIG = SearchConfig(
    temporal=("none", "conv1d", "attention3d"),
    clip="9x32x32",
    distill_steps=4,
    clips=8,
    times=2,
    batch_clips=4,
    floor=1,
    evolution=EvolutionConfig(population=4, generations=2, fidelities=(0, 1)),
)


def test_the_table_gives_the_costs_of_a_whole_network():
    network = network_search(dataclasses.replace(CONFIG, temporal=KINDS[:2]), Denoiser(CLIPS))
    space = network.space(dataclasses.replace(CONFIG, temporal=KINDS[:2]))
    layout = (Choice("conv1d", 1), *network.trained(space)[1:3], Choice("conv1d", 1))
    estimated, traced = network.table(space).of(layout), network.costs(layout)
    assert [getattr(estimated, name) for name in METRICS] == pytest.approx([getattr(traced, name) for name in METRICS])


def test_images_and_networks_with_layers_over_time_are_refused():
    with pytest.raises(UserError, match="is an image, which skips layers over time: set --config.clip"):
        network_search(dataclasses.replace(CONFIG, clip="1x32x32"), Denoiser(CLIPS))
    grown = dataclasses.replace(CLIPS, model=dataclasses.replace(MODEL, temporal=tuple(kind for kind, _ in LAYOUT)))
    with pytest.raises(UserError, match="for an image network: name a run without model.temporal"):
        network_search(CONFIG, Denoiser(grown)).space(CONFIG)


@pytest.mark.slow
def test_the_shared_network_is_the_network_of_the_layout():
    network = TemporalSearch(Denoiser(CLIPS))
    layers = jax.eval_shape(lambda rng: _fresh_layers(MODEL, rng), jax.random.key(0))
    params = {"rest": randomly(network.denoiser.parameter_shapes, 0.3), "variants": randomly(layers, 0.3, 2)}
    inputs = normal(0, 2, 3, 4, 4, 6), jnp.array([0.3, 0.8]), normal(1, 2, 5, 24), jnp.ones((2, 5), bool)
    shared = network.velocity(params, network.numbers(LAYOUT, params), *inputs)
    whole = Denoiser(dataclasses.replace(CLIPS, model=network.model(LAYOUT)))
    velocity = whole.velocity(network.params(LAYOUT, params, jax.random.key(1)), *inputs)
    np.testing.assert_allclose(shared, velocity, atol=2e-5)
    assert float(jnp.std(velocity)) > 0.1


@pytest.fixture(scope="module")
def image_run(tmp_path_factory) -> Run:
    data = tiny.latents(tmp_path_factory.mktemp("data") / "latents", clips=("1x32x32", "9x32x32"))
    config = tiny.dit_config(data, clip="1x32x32", model=MODEL, text_tokens=12, batch_size=4)
    return Run.open(tiny.dit_run(tmp_path_factory.mktemp("runs") / "image", config))


@pytest.mark.slow
def test_evolution_keeps_the_budget_writes_a_run_of_clips_and_resumes(image_run, tmp_path, monkeypatch):
    network = network_search(CONFIG, image_run.denoiser)
    table = network.table(space := network.space(CONFIG))
    least = cheapest(space, table, "milliseconds").costs.milliseconds
    with pytest.raises(UserError, match=r"no layout is within .* ms: the cheapest, none/1 x 4, needs"):
        search(CONFIG, image_run, "", tmp_path / "refused", {"milliseconds": 0.9 * least}, "evolution")
    most = table.of((Choice("attention3d", 1),) * 4).milliseconds
    limits, trained = {"milliseconds": (least + most) / 2}, []
    after = Steps.after
    monkeypatch.setattr(
        Steps, "after", lambda self, params, layouts, *rest: after(self, params, _seen(layouts, trained), *rest)
    )
    result, _ = search(CONFIG, image_run, "", tmp_path / "run", limits, "evolution")
    assert len(trained) > CONFIG.distill_steps
    kinds = [tuple(Choice(KINDS[int(i)], 1) for i in numbers) for numbers in trained]
    assert all(table.of(layout).milliseconds <= limits["milliseconds"] for layout in kinds)
    run = Run.open(tmp_path / "run")
    assert run.denoiser.config.clip == "9x32x32"
    assert run.denoiser.config.model.temporal == tuple(kind for kind, _ in result.candidates["chosen"].layout)
    assert set(run.params(run.denoiser.parameter_shapes)) == set(run.denoiser.parameter_shapes)
    losses, trained[:] = (tmp_path / "run" / LOSSES).read_text(), []
    again, _ = search(CONFIG, image_run, "", tmp_path / "run", limits, "evolution")
    assert again.candidates == result.candidates and not trained
    assert (tmp_path / "run" / LOSSES).read_text() == losses


def test_data_of_images_alone_are_refused_by_what_would_do(tmp_path):
    """No advice leads to another refusal: the shape of the data is that of images, which have no layers over time."""
    data = tiny.latents(tmp_path / "images", clips=("1x32x32",))
    run = Run.open(tiny.dit_run(tmp_path / "run", tiny.dit_config(data, clip="1x32x32", model=MODEL)))
    with pytest.raises(UserError, match=r"holds clips of 1x32x32, not 9x32x32: name encoded ones by --data$"):
        search(CONFIG, run, "", tmp_path / "out", {"milliseconds": 1.0}, "evolution")
    both = tiny.latents(tmp_path / "both", clips=("1x32x32", "5x32x32"))
    with pytest.raises(UserError, match=r"by --data, or set --config.clip=5x32x32$"):
        search(CONFIG, run, str(both), tmp_path / "out", {"milliseconds": 1.0}, "evolution")


@pytest.mark.slow
def test_stopped_steps_go_on_where_they_were(image_run, tmp_path):
    """Half of the steps and then all of them, with what the first half left, are all of them at once."""
    network, mesh = network_search(CONFIG, image_run.denoiser), make_mesh(MeshConfig(), jax.local_devices()[:1])
    stage = DitStage(tiny.dit_config(Path(image_run.config["data"]), clip="9x32x32", model=MODEL, batch_size=4))
    rest = image_run.sharded_params(mesh)
    layers = jax.device_put(_fresh_layers(MODEL, jax.random.key(0)), replicated(mesh))
    shared = {"rest": rest, "variants": layers}
    numbers = [jnp.array([KINDS.index(choice.kind) for choice in LAYOUT])] * 4
    steps = Steps(network, stage, mesh, 0)
    whole = steps.after(shared, numbers, 1e-2)
    steps.after(shared, numbers[:2], 1e-2, Partial(tmp_path, 2))
    resumed = steps.after(shared, numbers, 1e-2, Partial(tmp_path, 2))
    assert newest_step(tmp_path) == 4 and len(list((tmp_path / "checkpoints").iterdir())) == 1
    assert jax.tree.all(jax.tree.map(np.array_equal, whole["variants"], resumed["variants"]))
    assert not jax.tree.all(jax.tree.map(np.array_equal, layers, resumed["variants"]))


def _seen(layouts, seen):
    for numbers in layouts:
        seen.append(np.asarray(numbers))
        yield numbers
