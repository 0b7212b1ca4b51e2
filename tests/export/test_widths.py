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
from export.app.widths import check_widths, whole_tiles, width_generators
from export.coreml.compress import Weights
from export.coreml.package import write_package
from export.metadata import Metadata
from export.part import Part
from export.phone.dit import PhoneDit
from export.phone.staircase import in_blocks, matrix_sizes
from export.pytorch.dit import Dit as Mirror
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.elastic import width_config
from mobile_video_jax.generate.generator import Generator
from mobile_video_jax.models.run import Run
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
WIDTHS = (0.5, 0.75, 1.0)
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
    sizes, blocks = matrix_sizes(mirrors), []
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
            "widths 0.5, 1 take [0-9.]+ MB in fp16, above --max_memory=0.01: name fewer or narrower widths",
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


@pytest.fixture(scope="module")
def elastic(tmp_path_factory) -> Run:
    """A run of three widths with all of SnapGen++'s parts."""
    model = dataclasses.replace(SNAPGEN, width=128, heads=8, head_dim=16, ffn=512)
    return elastic_run(tmp_path_factory.mktemp("elastic") / "run", model, (0.5, 0.75))


@pytest.mark.slow
def test_each_width_is_a_verified_function_of_both_backends_and_generates_its_clip(elastic, tmp_path):
    settings = Settings(widths=WIDTHS, backends=("coreml", "coreai"), steps=1, tiles=(1,))
    report = export_run(elastic, tmp_path / "out", settings, print)
    assert not [line for line in report["failures"] if not line.startswith("vae")]  # whose random weights are rough
    for kind in ("packages", "assets"):
        [row] = [row for row in report[kind] if row["name"] == "dit"]
        assert set(row["functions"]) == {"width_500", "width_750", "width_1000"}
    in_fp16 = sum(path.stat().st_size for path in (tmp_path / "out").glob("dit*.safetensors")) / 2
    assert row["bytes"] < 0.9 * in_fp16  # of the asset, with its program
    assert [clip["clip"] for clip in report["clips"]] == [f"5x32x32_width_{name}" for name in (500, 750, 1000)]


@pytest.mark.slow
def test_one_package_of_three_widths_is_smaller_than_three(elastic, tmp_path):
    settings = Settings(widths=WIDTHS, steps=1, tiles=(1,))
    generators, family = width_generators(Generator.load(elastic), WIDTHS)
    groups = {
        "all": [
            dataclasses.replace(part, function=f"width_{generator.denoiser.config.transformer.width}")
            for generator in generators
            for part in parts.dit_parts(generator, settings, tmp_path, family)
        ]
    }
    for width, generator in zip(WIDTHS, generators, strict=True):
        groups[f"{width}"] = list(parts.dit_parts(generator, settings, tmp_path))
    stored = {name: _weights(group, tmp_path / name) for name, group in groups.items()}
    print(stored)
    alone = [stored[f"{width}"] for width in WIDTHS]
    assert stored["all"] < 1.3 * alone[-1] < 0.8 * sum(alone)


def _weights(group: list[Part], out: Path) -> int:
    """Bytes of the weights of a package."""
    out.mkdir()
    package = write_package(group, out, Weights(), Metadata(), print)
    return (out / package["file"] / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
