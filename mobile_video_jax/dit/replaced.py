"""A transformer whose self-attentions and FFNs are computed by a function that may do without them."""

import contextlib
import dataclasses
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobile_video_jax.core.arrays import Tokens
from mobile_video_jax.dit.block import DitBlock
from mobile_video_jax.dit.model import Dit
from mobile_video_jax.dit.stacking import unstack_blocks
from mobile_video_jax.dit.step_table import MODULES
from mobile_video_jax.nn.stream import STREAM

OUTPUTS = {"self_attention": "out", "ffn": "down"}  # the layer whose bias is all that an empty module adds
Key = tuple[int, str]  # block and name
ALL = slice(None)


class Module(NamedTuple):
    """A self-attention or an FFN at one evaluation of its transformer."""

    block: int
    name: str  # one of MODULES
    z: Tokens  # its input, normalised and modulated
    compute: Callable[..., Tokens]  # (z, rows=ALL) -> its output for z[rows]
    bias: jax.Array  # [d], its output without heads or hidden channels

    @property
    def key(self) -> Key:
        """What tells it from the transformer's other modules."""
        return self.block, self.name

    @property
    def empty(self) -> Tokens:
        """Its output without heads or hidden channels."""
        return jnp.broadcast_to(self.bias.astype(self.z.dtype), self.z.shape)


Replace = Callable[[Module], Tokens]


def velocity_with(dit: Dit, params: Any, replace: Replace, *inputs: Any, stream: Any = MappingProxyType({})) -> Any:
    """The velocity [b lt lh lw c] with replace(module) as the output of every module; `inputs` are those of Dit.

    `stream` is the state behind which a chunk of a stream is computed.
    """
    network, params = block_by_block(dit, params)
    if dit.config.scan:
        stream = {name: unstack_blocks(values) for name, values in stream.items()}
    with replacing(replace):
        return network.apply({"params": params, **stream}, *inputs)


def block_by_block(dit: Dit, params: Any) -> tuple[Dit, Any]:
    """The network and its parameters with blocks that run one by one, so that each may be treated in its own way."""
    network = dit.clone(config=dataclasses.replace(dit.config, scan=False, remat="none"))
    return network, unstack_blocks(params) if dit.config.scan else params


def replacing(replace: Replace) -> contextlib.AbstractContextManager[Any]:
    """A context in which calls of a network of `block_by_block` have replace(module) as the output of every module."""

    def intercept(following: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module: Any = context.module
        if module.name not in MODULES or not isinstance(module.parent, DitBlock) or context.method_name != "__call__":
            return following(*args, **kwargs)
        block, (z, *others) = str(module.parent.name), args
        # A module without a parent is a pure function of its parameters, which lax.cond may call.
        alone, variables = module.clone(parent=None), module.variables

        def compute(z: Tokens, rows: slice = ALL) -> Any:
            return alone.apply(_of_rows(variables, rows), z[rows], *others, **kwargs)

        bias = nn.unbox(variables["params"])[OUTPUTS[module.name]]["bias"]
        return replace(Module(int(block.removeprefix("block_")), module.name, z, compute, bias))

    return nn.intercept_methods(intercept)


def _of_rows(variables: Any, rows: slice) -> Any:
    """A module's variables for some clips of a batch: arrays of a stream's state begin with clips."""
    clips = lambda x: x[rows] if jnp.ndim(x) > 1 else x
    return {name: jax.tree.map(clips, values) if name == STREAM else values for name, values in variables.items()}
