"""The search of a U-Net's layers over time, behind its frozen image network (SnapGen-V, arXiv 2412.10494).

All layouts share one set of layers, a layer of each kind at each place, which learns from random layouts within the
limits, one at a step (single-path one-shot, arXiv 1904.00420).
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Latents, Rng
from mobile_video_jax.core.config import plain
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import tracked
from mobile_video_jax.core.revision import digest
from mobile_video_jax.core.rng import named_key
from mobile_video_jax.cost.phone.table import PHONE
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.nn.clip_ops import Clip
from mobile_video_jax.nn.module import apply
from mobile_video_jax.parallel.abstract import abstract
from mobile_video_jax.parallel.mesh import replicated
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.costs import Costs, CostTable, less
from mobile_video_jax.search.network_costs import traced_costs
from mobile_video_jax.search.random_layouts import Sampler
from mobile_video_jax.search.space import Choice, Layout, Space
from mobile_video_jax.search.steps import Partial, Steps
from mobile_video_jax.train.checkpoint import newest_step, restore_model, save_model
from mobile_video_jax.unet.block import Conditions
from mobile_video_jax.unet.config import NONE, UnetConfig
from mobile_video_jax.unet.model import Unet
from mobile_video_jax.unet.temporal import LAYERS, TemporalLayers

Params = Any
KINDS = (NONE, *LAYERS)  # by number
FOLDER, PARTIAL = "layers", "layers_partial"  # of a search's folder: the shared layers, and while they are trained
PARTS = 20  # writings of them on the way


@dataclasses.dataclass(frozen=True, eq=False)
class TemporalSearch:
    """Layouts of a U-Net: a kind of layers over time for each place, as search.network.NetworkSearch.

    Raises UserError for images.
    """

    denoiser: Denoiser
    trainable: frozenset[str] = frozenset({"variants"})

    def __post_init__(self) -> None:
        if self.denoiser.latent_shape[0] == 1:
            clip = self.denoiser.config.clip
            raise UserError(
                f"a clip of {clip} is an image, which skips layers over time: set --config.clip to longer, which the "
                "data must hold"
            )

    @property
    def _unet(self) -> UnetConfig:
        model = self.denoiser.config.model
        assert isinstance(model, UnetConfig)
        return model

    def space(self, config: SearchConfig) -> Space:
        if self._unet.temporal_layers:
            raise UserError("layers over time are searched for an image network: name a run without model.temporal")
        kinds = dict.fromkeys((NONE, *config.temporal))
        return Space(tuple(tuple(Choice(kind, 2**level) for kind in kinds) for _, level in self._unet.places))

    def trained(self, space: Space) -> Layout:
        return tuple(Choice(NONE, 2**level) for _, level in self._unet.places)

    def costs(self, layout: Layout) -> Costs:
        return traced_costs(dataclasses.replace(self.denoiser.config, model=self.model(layout)))

    def table(self, space: Space) -> CostTable:
        """What one place with layers adds to the image network, for each kind and level."""
        nothing = self.trained(space)
        rest, choices = self.costs(nothing), {}
        for choice in space.choices:
            i = [other.resolution for other in nothing].index(choice.resolution)
            whole = self.costs((*nothing[:i], choice, *nothing[i + 1 :]))
            choices[choice] = less(whole, rest)._replace(peak_bytes=whole.peak_bytes)
        moves = dict.fromkeys(space.moves, Costs())  # the levels are the image network's
        return CostTable(rest, choices, moves, f"estimate for {PHONE}", self.digest)

    @property
    def digest(self) -> str:
        config = self.denoiser.config
        model = dataclasses.replace(self._unet, temporal=(), remat="none", dtype="float32")
        return digest([plain(model), config.clip, config.compression, config.text_width, config.text_tokens])

    def shared(self, config: SearchConfig, sampler: Sampler, steps: Steps, params: Params, out: Path) -> Params:
        fresh = _fresh_layers(self._unet, named_key(jax.random.key(config.seed), "layers"))
        layers, path = jax.device_put(fresh, replicated(steps.mesh)), out / FOLDER
        if newest_step(path) is not None:
            saved = jax.tree.map(lambda x: abstract(x, x.sharding), layers)
            return {"rest": params, "variants": restore_model(path, saved)}
        shared = {"rest": params, "variants": layers}
        rng, count = np.random.default_rng(config.seed), config.distill_steps
        layouts = (self.numbers(sampler.sample(rng), shared) for _ in range(count))
        partial = Partial(out / PARTIAL, max(count // PARTS, 1))
        shared = steps.after(shared, tracked("shared layers:", layouts, count), config.distill_rate, partial)
        save_model(path, count, shared["variants"])
        shutil.rmtree(out / PARTIAL, ignore_errors=True)
        return shared

    def numbers(self, layout: Layout, params: Params) -> Int[Array, "l"]:
        return jnp.array([KINDS.index(choice.kind) for choice in layout])

    def velocity(self, params: Params, layout: Int[Array, "l"], *inputs: Any) -> Latents:
        network = SharedUnet(self._unet, layout=layout, layers=params["variants"])
        velocity: Latents = apply(network, params["rest"], *inputs)
        return velocity

    def model(self, layout: Layout) -> UnetConfig:
        return self._unet.over_time(choice.kind for choice in layout)

    def params(self, layout: Layout, params: Params, rng: Rng) -> Params:
        chosen = {
            f"temporal_{place}": params["variants"][place][kind]
            for place, (kind, _) in self.model(layout).temporal_layers.items()
        }
        return dict(params["rest"]) | chosen

    def values(self, layout: Layout) -> dict[str, Any]:
        return {"temporal": [choice.kind for choice in layout]}

    def block_map(self, layout: Layout) -> None:
        return None


class SharedUnet(Unet):
    """The U-Net that has layers of kind KINDS[layout[i]] at place i, with the parameters `layers[place][kind]`."""

    layout: Any = None  # Int[Array, "l"]
    layers: Any = None

    def _over_time(self, place: str, level: int, x: Clip, conditions: Conditions) -> Clip:
        own = self.layers[place]
        modules = {kind: TemporalLayers(kind, level, self.config, parent=None) for kind in LAYERS}
        branches: list[Callable[..., Any]] = [lambda x: x]
        branches += [functools.partial(_run, modules[kind], own[kind], conditions) for kind in LAYERS]
        number = self.layout[[name for name, _ in self.config.places].index(place)]
        y: Clip = lax.switch(number, branches, x)
        return y


def _run(module: nn.Module, params: Params, conditions: Conditions, x: Clip) -> Clip:
    y: Clip = apply(module, params, x, conditions.frame_mask)
    return y


def _fresh_layers(config: UnetConfig, rng: Rng) -> Params:
    """Layers of every kind for every place, which change nothing yet."""

    def fresh(rng: Rng) -> Params:
        layers: dict[str, dict[str, Params]] = {}
        for place, level in config.places:
            clip = jnp.zeros((1, 1, 1, 1, config.widths[level]))
            layers[place] = {
                kind: TemporalLayers(kind, level, config).init(named_key(rng, f"{place}/{kind}"), clip)["params"]
                for kind in LAYERS
            }
        return nn.unbox(layers)

    return jax.jit(fresh)(rng)
