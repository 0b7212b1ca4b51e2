"""The search of a transformer's blocks: kinds of attention at resolutions."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from mobile_video_jax.core.arrays import Latents, Rng
from mobile_video_jax.core.errors import UserError
from mobile_video_jax.core.progress import say
from mobile_video_jax.dit.config import DitConfig
from mobile_video_jax.dit.groups import groups
from mobile_video_jax.dit.stacking import stack_blocks
from mobile_video_jax.models.denoiser import Denoiser
from mobile_video_jax.nn.attention.config import check_kind
from mobile_video_jax.nn.module import apply
from mobile_video_jax.search.config import SearchConfig
from mobile_video_jax.search.costs import Costs, CostTable
from mobile_video_jax.search.network_costs import network_costs, network_digest, phone_table
from mobile_video_jax.search.random_layouts import Sampler
from mobile_video_jax.search.space import Choice, Layout, Space, uniform_space
from mobile_video_jax.search.steps import Steps
from mobile_video_jax.search.supernet import FULL_CHOICE, Params, Supernet, layout_denoiser, layout_params
from mobile_video_jax.search.variants import supernet_params


@dataclasses.dataclass(frozen=True, eq=False)
class BlockSearch:
    """Layouts of a transformer, as search.network.NetworkSearch."""

    denoiser: Denoiser
    trainable: frozenset[str] = frozenset({"rest", "variants"})

    def space(self, config: SearchConfig) -> Space:
        return search_space(config, self.denoiser)

    def trained(self, space: Space) -> Layout:
        return (FULL_CHOICE,) * len(space.positions)

    def costs(self, layout: Layout) -> Costs:
        return network_costs(self.denoiser, layout)

    def table(self, space: Space) -> CostTable:
        return phone_table(self.denoiser, space)

    @property
    def digest(self) -> str:
        return network_digest(self.denoiser)

    def shared(self, config: SearchConfig, sampler: Sampler, steps: Steps, params: Params, out: Path) -> Params:
        return supernet_params(config, sampler.space, steps.stage, params, steps.mesh, out)

    def numbers(self, layout: Layout, params: Params) -> Int[Array, "l"]:
        return jnp.array([_choices(params).index(choice) for choice in layout])

    def velocity(self, params: Params, layout: Int[Array, "l"], *inputs: Any) -> Latents:
        network = Supernet(
            self.denoiser.config.transformer, choices=_choices(params), layout=layout, variants=params["variants"]
        )
        velocity: Latents = apply(network, params["rest"], *inputs)
        return velocity

    def model(self, layout: Layout) -> DitConfig:
        own = self.denoiser.config.transformer
        return dataclasses.replace(
            layout_denoiser(self.denoiser, layout).config.transformer, scan=own.scan, remat=own.remat
        )

    def params(self, layout: Layout, params: Params, rng: Rng) -> Params:
        model, weights = (
            self.model(layout),
            layout_params(self.denoiser, layout, params["rest"], params["variants"], rng),
        )
        return stack_blocks(weights, groups(model)) if model.scan else weights

    def values(self, layout: Layout) -> dict[str, Any]:
        return {"depth": len(layout), "layout": [[kind, resolution] for kind, resolution in layout]}

    def block_map(self, layout: Layout) -> list[int]:
        return list(range(len(layout)))


def _choices(params: Params) -> tuple[Choice, ...]:
    """The choices of the shared blocks, by number."""
    names = (name.rpartition("/") for name in params["variants"])
    return tuple(Choice(kind, int(resolution)) for kind, _, resolution in names)


def search_space(config: SearchConfig, denoiser: Denoiser) -> Space:
    """The layouts of a transformer.

    Raises UserError for an unknown kind, and where the transformer has a layout already or blocks of unequal sizes.
    """
    for kind in config.kinds:
        check_kind(kind)
    model = denoiser.config.transformer
    if model.layout or model.blocks or model.skips:
        raise UserError("layouts are searched for a transformer of full attention whose blocks are equal: name another")
    return Space((_fitting(config, denoiser),) * model.depth)


def _fitting(config: SearchConfig, denoiser: Denoiser) -> tuple[Choice, ...]:
    """The choices that fit the clip's grid of tokens. Raises UserError where a kind or a resolution never does."""
    refused: dict[Choice, UserError] = {}
    choices = uniform_space(1, config.kinds, config.resolutions).choices
    for choice in choices:
        try:
            layout_denoiser(denoiser, (choice,))
        except UserError as error:
            refused[choice] = error
    fitting = tuple(choice for choice in choices if choice not in refused)
    for choice, reason in refused.items():
        if not all(any(value in other for other in fitting) for value in choice):
            raise reason
        say(f"search: {choice} is left out: {reason}")
    return fitting
