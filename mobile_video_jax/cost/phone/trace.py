"""The ops of a JAX network in its form for phones, read from its jaxpr: nothing is computed, PyTorch is not needed.

The phone's form (export/phone) differs from the jaxpr by these rules:

- Numbers are fp16. Conversions, reshapes, transposes and slices move nothing. Constants are folded.
- Cells of nn.attention.assa are slices, taken one by one: stacking them moves nothing, and their results are joined.
- A product with weights includes its bias. A factor that is a number is folded into weights.
- A product of two activations runs one batch element at a time (attention head by head), in chunks of queries where
  its logits would not stay on the chip, and so do the ops after it, until the pieces are concatenated for a product
  with weights. Positions that look along time alone are a batch of one op.
- A function of one value alone is one op, as softmax and GELU are. A norm is several, so that fp16 can hold it.
- The hidden channels of an FFN are cut into tiles.
- Heads are turned in four ops, by tables that hold the scales of their norms; without a rotation queries have no scale.
- In a transformer norms, modulation, residuals and the FFN run on pieces of tokens, and those of queries and keys on
  pieces of heads, that stay on the chip.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.extend import core as jex_core

from mobile_video_jax.cost.flops import PRODUCT_FLOPS, inner_jaxprs, shape_of, size_of
from mobile_video_jax.cost.phone.ops import Op
from mobile_video_jax.cost.phone.recorder import TRANSFORMER, Array, Function, Recorder, Scaled, pieces_of
from mobile_video_jax.cost.phone.table import FFN_TILES
from mobile_video_jax.cost.phone.tiled_ffn import tiled_down, tiled_up
from mobile_video_jax.cost.phone.tiles import query_chunks


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Primitives whose result is their operand as the phone sees it.
SAME = _names(
    "broadcast_in_dim convert_element_type copy expand_dims name optimization_barrier reduce_precision reshape "
    "sharding_constraint squeeze stop_gradient transpose"
)
SLICES = _names("dynamic_slice slice split")
ELEMENTWISE = _names(
    "abs add add_any and clamp cos div eq erf erfc exp exp2 expm1 ge gt integer_pow is_finite le log log1p logistic lt "
    "max min mul ne neg not or pow rsqrt select_n sign sin sqrt square sub tan tanh"
)
# The scope of nn.embeddings.apply_rope, and norms whose scale may join another factor.
ROPE = "rope"
QK_NORMS = ("q_norm", "k_norm")
# The module of a transformer whose own ops are on its tokens.
ON_TOKENS = re.compile(r"(^|/)(block(_\d+)?|output)$")
# The module of nn.attention.assa that computes cells of tokens.
CELLS = "near"
# The module of unet.temporal that attends along time: the first axis of its products is that of positions.
ALONG_TIME = "along_time"
# Paths of the modules of nn.dense.FeedForward, whose products are tiled.
UP, DOWN = "ffn/up", "ffn/down"


def ops_of_network(network: nn.Module, *inputs: jax.ShapeDtypeStruct, ffn_tiles: int = FFN_TILES) -> list[Op]:
    """The ops of one call of a network on inputs of these shapes, with fp16 weights.

    `cost/phone/roofline.py` tells how long they take: call_seconds(ops_of_network(network, *inputs)).
    """
    return ops_of_call(network.apply, variables_of(network, *inputs), *inputs, ffn_tiles=ffn_tiles)


def variables_of(network: nn.Module, *inputs: jax.ShapeDtypeStruct) -> Any:
    """The shapes of a network's variables."""
    return nn.unbox(jax.eval_shape(lambda *x: network.init(jax.random.key(0), *x), *inputs))


def ops_of_call(function: Callable[..., Any], weights: Any, *inputs: Any, ffn_tiles: int = FFN_TILES) -> list[Op]:
    """The ops of function(weights, *inputs), trees of shapes."""
    jaxpr = jax.make_jaxpr(function)(weights, *inputs).jaxpr
    count, trace = len(jax.tree.leaves(weights)), _Trace(ffn_tiles)
    for result in trace.run(jaxpr, [_array(x, is_weight=i < count) for i, x in enumerate(jaxpr.invars)], ""):
        trace.whole(result, "")
    return trace.recorder.ops


class _Trace:
    """Follows the arrays through a jaxpr."""

    def __init__(self, ffn_tiles: int):
        self.recorder, self._ffn_tiles = Recorder(), ffn_tiles
        self._tables = Array(0, 0, is_weight=True)  # of the rotation that is being followed

    def run(self, jaxpr: jex_core.Jaxpr, arrays: Sequence[Array], scope: str) -> list[Array]:
        """The results of a jaxpr for these arguments. `scope` is the path of modules that run it."""
        known = dict(zip(jaxpr.invars, arrays, strict=True)) | {x: _array(x, is_weight=True) for x in jaxpr.constvars}

        def read(x: Any) -> Array:
            return _array(x, is_weight=True) if isinstance(x, jex_core.Literal) else known[x]

        for eqn in jaxpr.eqns:
            part = "/".join(name for name in (scope, str(eqn.source_info.name_stack)) if name)
            known |= zip(eqn.outvars, self._equation(eqn, [read(x) for x in eqn.invars], part), strict=True)
        return [read(x) for x in jaxpr.outvars]

    def _equation(self, eqn: jex_core.JaxprEqn, inputs: list[Array], part: str) -> list[Array]:
        name = eqn.primitive.name
        if name == "scan":
            return self._scan(eqn, inputs, part)
        if inner := _called(eqn):
            return self.run(inner, inputs[len(inputs) - len(inner.invars) :], part)
        if name in SAME:
            return inputs[:1]
        if all(x.is_weight for x in inputs):
            return [_array(x, is_weight=True) for x in eqn.outvars]
        if name in PRODUCT_FLOPS:
            operands = [self.recorder.computed(x, part) for x in self._with_one_scale(inputs, part)]
            return [self._product(eqn, operands, part)]
        module = part.rpartition("/")[2]
        if module == ROPE:
            return self._rotation(eqn, inputs, part)
        if name == "mul" and module in QK_NORMS and part.startswith(TRANSFORMER) and inputs[1].is_weight:
            x, scale = inputs
            across = scale.size > shape_of(eqn.outvars[0])[-1]
            return [Scaled(x.size, x.whole, normalized=x, scale=scale, across=across)]
        inputs = [self.recorder.computed(x, part) if isinstance(x, Scaled) else x for x in inputs]
        operands = [x for x in inputs if not x.is_number]
        if len(operands) == 1 and (name == "mul" or (name == "div" and inputs[1].is_number)):
            return operands
        if name == "add" and (summands := _product_and_bias(operands, part)):
            return [self.recorder.add_bias(*summands)]
        if function := _function(name, operands, size_of(eqn.outvars[0])):
            return [function]
        operands = [self.recorder.computed(x, part) for x in dict.fromkeys(operands)]
        if name == "stack" and CELLS in part.split("/") and all(x.pieces == 1 for x in operands):
            return [Array(size_of(eqn.outvars[0]), max(x.whole for x in operands))]
        if name in SLICES:
            return [Array(size_of(x), operands[0].whole, pieces=operands[0].pieces) for x in eqn.outvars]
        return self._op(eqn, operands, part)

    def _op(self, eqn: jex_core.JaxprEqn, operands: list[Array], part: str) -> list[Array]:
        """An op, or where it is element-wise one for each piece that its operands are in, or that stays on the chip."""
        sizes, elementwise = [size_of(x) for x in eqn.outvars], eqn.primitive.name in ELEMENTWISE
        operands = [self.recorder.latest(x) for x in operands]
        count = max(x.pieces for x in operands) if elementwise else 1
        on_tokens = elementwise and bool(ON_TOKENS.search(part))
        is_joined = on_tokens and count > 1 and all(x.size == sizes[0] for x in operands)  # the residual stream
        count = pieces_of(sizes[0], part) if on_tokens and count == 1 else count
        operands = [x if x.pieces == count else self.recorder.joined(x, part) for x in operands]
        reads = [x.share(count) if x.pieces == count or x.size == sizes[0] else x for x in operands]
        results = [self.recorder.op(part, reads, size // count, pieces=count) for size in sizes]
        return [self.recorder.joined(x, part) for x in results] if is_joined else results

    def _rotation(self, eqn: jex_core.JaxprEqn, inputs: list[Array], part: str) -> list[Array]:
        """The heads, until their halves are joined again: then they are turned."""
        for x in inputs:
            if x.is_weight:
                self._tables = Array(2 * x.size, 2 * x.size, is_weight=True)
        heads = next(x for x in inputs if not x.is_weight)
        if eqn.primitive.name != "concatenate":
            return [heads] * len(eqn.outvars)
        return [self.recorder.rotated(heads, self._tables, part)]

    def _with_one_scale(self, operands: Sequence[Array], part: str) -> list[Array]:
        """Operands of a product: of queries and keys that both have a scale yet, the smaller has both scales."""
        if not all(isinstance(x, Scaled) for x in operands):
            return list(operands)
        queries = max(operands, key=lambda x: x.size)
        return [self.recorder.unscaled(x, part) if x is queries and isinstance(x, Scaled) else x for x in operands]

    def _product(self, eqn: jex_core.JaxprEqn, operands: list[Array], part: str) -> Array:
        size, flops = size_of(eqn.outvars[0]), PRODUCT_FLOPS[eqn.primitive.name](eqn)
        if not any(x.is_weight for x in operands):
            batch = _batch(eqn, along_time=ALONG_TIME in part.split("/"))
            pieces = batch * _query_chunks(eqn)
            if split := [x.pieces for x in operands if x.pieces % batch == 0 and x.pieces > batch]:
                pieces = split[0]
            # Pieces of fewer than all heads hold several, whose parts are views.
            known = (*range(1, batch + 1), pieces)
            operands = [x if x.pieces in known else self.recorder.joined(x, part) for x in operands]
            # The queries are the first operand of the logits, and what is in pieces already of the product after.
            queries = next((i for i, x in enumerate(operands) if x.pieces == pieces), 0)
            reads = [x.share(pieces if i == queries else batch) for i, x in enumerate(operands)]
            return self.recorder.op(part, reads, size // pieces, flops=flops // pieces, pieces=pieces)
        if part.endswith((UP, DOWN)):
            [x] = (x for x in operands if not x.is_weight)
            rows = size // shape_of(eqn.outvars[0])[-1]
            sizes = rows, x.size // rows, size // rows
            if part.endswith(UP):
                return tiled_up(self.recorder, part, x, sizes, self._ffn_tiles)
            return tiled_down(self.recorder, part, x, sizes, self._ffn_tiles)
        self.recorder.op(part, [self.recorder.joined(x, part) for x in operands], size, flops=flops)
        return Array(size, size, product=(len(self.recorder.ops) - 1, part))

    def _scan(self, eqn: jex_core.JaxprEqn, inputs: list[Array], part: str) -> list[Array]:
        """The body's ops, as often as it runs. An array that is scanned over is sliced: it has an axis less inside."""
        length, body = eqn.params["length"], eqn.params["jaxpr"].jaxpr
        outside_and_inside: Iterable[tuple[Array, Any, Any]] = zip(inputs, eqn.invars, body.invars, strict=True)
        arrays = [
            self.whole(x, part).share(length if outside.aval.ndim > inside.aval.ndim else 1)
            for x, outside, inside in outside_and_inside
        ]
        first = len(self.recorder.ops)
        for x in self.run(body, arrays, part):
            self.whole(x, part)
        self.recorder.ops += self.recorder.ops[first:] * (length - 1)
        return [_array(x) for x in eqn.outvars]

    def whole(self, x: Array, part: str) -> Array:
        """The array, computed, as one tensor."""
        return self.recorder.joined(self.recorder.computed(x, part), part)


def _array(x: Any, *, is_weight: bool = False) -> Array:
    return Array(size_of(x), size_of(x), is_weight)


def _called(eqn: jex_core.JaxprEqn) -> jex_core.Jaxpr | None:
    """The jaxpr of an equation that does nothing but run it on its own operands; a condition's index is not passed on.

    Raises ValueError for a loop whose length is not in the jaxpr.
    """
    if eqn.primitive.name == "while":
        raise ValueError("a loop of unknown length cannot be counted: use jax.lax.scan")
    inner = inner_jaxprs(eqn)
    passed = len(eqn.invars) - (eqn.primitive.name == "cond")
    return inner[0] if len(inner) == 1 and len(inner[0].invars) == passed else None


def _function(primitive: str, operands: Sequence[Array], size: int) -> Function | None:
    """The result as a function of one array, where all operands depend on that alone."""
    roots = {x.root if isinstance(x, Function) else x for x in operands}
    if len(roots) > 1 or not (primitive in ELEMENTWISE or primitive.startswith("reduce_")):
        return None
    [root], functions = roots, [x for x in operands if isinstance(x, Function)]
    primitives = frozenset({primitive}).union(*(x.primitives for x in functions))
    rows = min([size, *(x.rows for x in functions)])
    return Function(size, size, pieces=root.pieces, root=root, primitives=primitives, rows=rows)


def _product_and_bias(operands: Sequence[Array], part: str) -> tuple[Array, Array] | None:
    """The summands where they are a product with weights and the bias of the same module."""
    products = [x for x in operands if x.product and x.product[1] == part]
    biases = [x for x in operands if x.is_weight]
    return (products[0], biases[0]) if products and biases else None


def _query_chunks(eqn: jex_core.JaxprEqn) -> int:
    """Chunks of the rows of a product of two activations."""
    if eqn.primitive.name != "dot_general":
        return 1
    contracted, batched = eqn.params["dimension_numbers"]
    rows, columns = (
        math.prod(shape_of(x)) // math.prod(shape_of(x)[axis] for axis in (*summed, *batch))
        for x, summed, batch in zip(eqn.invars, contracted, batched, strict=True)
    )
    return query_chunks(rows, columns)


def _batch(eqn: jex_core.JaxprEqn, *, along_time: bool) -> int:
    """Elements of the batch axes of a product that run one at a time; 1 for a convolution."""
    if eqn.primitive.name != "dot_general":
        return 1
    _, (axes, _) = eqn.params["dimension_numbers"]
    return math.prod(shape_of(eqn.invars[0])[axis] for axis in axes[along_time:])
