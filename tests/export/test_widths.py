"""Several widths of an elastic network as functions that share weights."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from export.app import parts
from export.app.folder import export_run
from export.app.settings import Settings
from export.app.widths import check_widths, whole_tiles
from export.coreai.asset import write_asset
from export.coreml.compress import Weights
from export.coreml.package import write_package
from export.metadata import Metadata
from export.phone.dit import PhoneDit
from export.phone.staircase import in_blocks, ladders
from export.pytorch.dit import Dit as Mirror
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.elastic import width_config
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.run import Run
from mobile_video_jax.prune.width import slice_run
from mobile_video_jax.stages.config import ElasticTraining
from mobile_video_jax.stages.elastic import ElasticStage
from tests import tiny
from tests.nets import normal, randomly

# All that SnapGen++'s network has: strided and near attention, a stage of lower resolution, a skip, shared keys.
SNAPGEN = DitConfig(
    width=32,
    depth=3,
    heads=4,
    head_dim=8,
    ffn=48,
    time_features=8,
    kv_heads=2,
    layout=(("assa", 1), ("full", 2), ("full", 2)),
    skips=((1, 2),),
    attention_cell=(1, 2, 4),
)
SHAPE, TEXT_WIDTH = (2, 4, 8, 6), 10


def phone_inputs() -> tuple[torch.Tensor, ...]:
    """Latents, time features, text states and mask."""
    shapes = (1, 6, 1, 64), (1, 8, 1, 1), (1, TEXT_WIDTH, 1, 5)
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])[None, None, None]
    return *(torch.tensor(np.asarray(normal(i, *shape))) for i, shape in enumerate(shapes)), mask


def mirror_of(config: DitConfig, whole: Mirror | None = None) -> Mirror:
    """A network with random weights, or with the first rows and columns of a wider one's."""
    mirror = Mirror(config, SHAPE, TEXT_WIDTH).requires_grad_(False)
    for name, x in mirror.named_parameters():
        vectors = 6 if name.startswith("modulation.") else 1
        source = torch.randn(x.shape) / 8 if whole is None else whole.get_parameter(name)
        grouped = source.view(vectors, -1, *source.shape[1:])[:, : len(x) // vectors]
        x.copy_(grouped.reshape(-1, *source.shape[1:])[:, *(slice(size) for size in x.shape[1:])])
    return mirror


def test_each_width_computes_its_network_in_blocks_that_wider_ones_have():
    torch.manual_seed(0)
    whole = mirror_of(SNAPGEN)
    mirrors = [mirror_of(width_config(SNAPGEN, 0.5), whole), whole]
    sizes, blocks = ladders(mirrors), []
    for mirror, tiles in zip(mirrors, (1, 2), strict=True):
        plain, cut = (PhoneDit(mirror, [tiles] * 3) for _ in range(2))
        cut = in_blocks(cut, mirror, sizes)
        with torch.inference_mode():
            expected = plain(*phone_inputs())
            np.testing.assert_allclose(cut(*phone_inputs()), expected, atol=1e-5 * float(expected.abs().max()))
        blocks.append({(x.shape, x.numpy().tobytes()) for x in cut.parameters() if x.ndim == 4})
    alone = sorted(tuple(shape) for shape, _ in blocks[0] - blocks[1])
    squares, resampling = (16, 8, 2, 2), [(16, 16, 2, 2), (64, 16, 1, 1)]
    assert alone == sorted([*[squares] * 2, *resampling]) and len(blocks[0]) > 40


@pytest.fixture(scope="module")
def run() -> Run:
    """A run's record."""
    plain = vars(tiny.dit_config(Path(), model=dataclasses.replace(SNAPGEN, depth=1, layout=(), skips=())))
    config = ElasticTraining(**plain | {"stage": "elastic", "widths": (0.5,)})
    return Run(Path("elastic"), {"stage": "elastic", "config": dataclasses.asdict(config)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (0.4, 1.0)}, "has no width 0.4: use one of 0.5, 1"),
        ({"widths": (1.0, 0.5)}, "name each width once, the narrowest first"),
        ({"widths": (0.5, 1.0), "stream": True}, "leave out --stream, --form, more --clip"),
        (
            {"widths": (0.5, 1.0), "max_memory": 0.01},
            "widths 0.5, 1 take [0-9.]+ MB in fp16, above --max_memory=0.01: leave out 1",
        ),
        ({"max_memory": 1.0}, "--max_memory is for a package of --widths"),
    ],
)
def test_widths_that_do_not_fit_are_told(run, changes, message):
    with pytest.raises(UserError, match=message):
        check_widths(run, Settings(**changes))


def test_each_width_has_whole_tiles_of_one_size():
    assert whole_tiles((3, 1), (0.5, 0.75, 1.0), chosen=False) == (4, 1)
    with pytest.raises(UserError, match="--tiles: use 1 or multiples of 4"):
        whole_tiles((2, 2), (0.5, 0.75, 1.0), chosen=True)


def elastic_run(folder: Path, model: DitConfig, widths: tuple[float, ...]) -> Run:
    """A run with random weights."""
    plain = vars(tiny.dit_config(folder, model=model, clip="5x32x32")) | {"stage": "elastic", "widths": widths}
    config = ElasticTraining(**plain)
    tiny.vae_run(folder / "vae")
    params = randomly(jax.eval_shape(ElasticStage(config).init, jax.random.key(0)), 0.05)
    return Run.open(tiny.run_of(folder, "elastic", config, params))


@pytest.mark.slow
def test_one_network_gives_three_verified_functions_in_less_than_three_packages(tmp_path):
    """All of SnapGen++'s parts, by both backends."""
    widths = (0.5, 0.75, 1.0)
    model = dataclasses.replace(SNAPGEN, width=128, heads=16, ffn=512)
    run = elastic_run(tmp_path / "run", model, widths[:2])
    settings = Settings(widths=widths, backends=("coreml", "coreai"), steps=1, tiles=(1,))
    report = export_run(run, tmp_path / "all", settings, print)
    assert not [line for line in report["failures"] if not line.startswith("vae")]  # whose random weights are rough
    assert [clip["clip"] for clip in report["clips"]] == [f"5x32x32_width_{name}" for name in (500, 750, 1000)]
    separate: dict[str, list[int]] = {"packages": [], "assets": []}
    metadata = Metadata("", "", "", "", "fp16")
    for width in widths:
        out = tmp_path / f"{width}"
        slice_run(run, width, out / "run")
        [part] = parts.dit_parts(Generator.load(out / "run"), Settings(steps=1, tiles=(1,)), out)
        separate["packages"].append(write_package([part], out, Weights(), metadata, print)["bytes"])
        separate["assets"].append(write_asset([part], out, Weights(), {}, metadata, print)["bytes"])
    for kind, alone in separate.items():
        [row] = [row for row in report[kind] if row["name"] == "dit"]
        print(kind, row["bytes"], alone, row["relative_error"])
        assert row["bytes"] < 0.9 * sum(alone)  # at this size the programs count as much as the weights
        assert set(row["functions"]) == {"width_500", "width_750", "width_1000"}
    weights = lambda folder: (folder / "dit.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert weights(tmp_path / "all") < 1.3 * weights(tmp_path / "1.0")
