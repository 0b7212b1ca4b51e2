"""The arrays of a network as the phone holds them, and the ops that compute them, recorded one by one."""

import dataclasses
from collections.abc import Iterable

from mobile_video_jax.cost.phone.ops import HALF, Op, Value
from mobile_video_jax.cost.phone.tiles import pieces

# The first part of the path of a transformer's modules, the class of dit.model.
TRANSFORMER = "Dit/"

# The steps of norms that fp16 can hold (export/pytorch/safe_norms.py), operands > result: x is the norm's operand, y a
# value of its size, r a number for each row.
LARGEST = ("x>r", "x>r", "r>r", "rr>r", "r>r", "r>r", "r>r")
RMS_NORM = (*LARGEST, "xr>y", "r>r", "y>r", "r>r", "r>r", "r>r", "rr>r", "r>r", "yr>y")
LAYER_NORM = (*LARGEST, "xr>y", "y>r", "rr>r", "xr>y", *RMS_NORM)


@dataclasses.dataclass(frozen=True, eq=False)
class Array:
    """`size` numbers of a tensor of `whole` numbers, or of `pieces` such tensors; known by identity.

    `product` says that a bias can still join the op that computed it: the op's index and its part of the network.
    """

    size: int
    whole: int
    is_weight: bool = False
    pieces: int = 1
    product: tuple[int, str] | None = None

    @property
    def is_number(self) -> bool:
        """True where it is one constant number."""
        return self.is_weight and self.size == 1

    def share(self, count: int) -> "Array":
        """One of `count` equal slices."""
        return dataclasses.replace(self, size=self.size // count)


@dataclasses.dataclass(frozen=True, eq=False)
class Function(Array):
    """An array that no op has computed yet: a function of `root` alone, made by these primitives.

    `rows` is the size of its smallest partial result.
    """

    root: Array = Array(0, 0)
    primitives: frozenset[str] = frozenset()
    rows: int = 0

    @property
    def is_norm(self) -> bool:
        """True where it divides by the root of a mean."""
        return {"reduce_sum", "rsqrt"} <= self.primitives

    @property
    def reduces(self) -> bool:
        """True where it sums, or takes the largest, over an axis."""
        return any(name.startswith("reduce_") for name in self.primitives)


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(Array):
    """The result of a norm of queries or keys, `normalized`, that its scale has not multiplied yet.

    One `across` heads is taken in pieces of tokens, others in pieces of heads.
    """

    normalized: Array = Array(0, 0)
    scale: Array = Array(0, 0)
    across: bool = False


class Recorder:
    """The ops of a network in their order."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._results: dict[Array, Array] = {}  # of functions, and of arrays in pieces

    def op(
        self, part: str, reads: Iterable[Array], size: int, *, flops: int = 0, pieces: int = 1, reduces: bool = False
    ) -> Array:
        """Records one op for each piece of its result, all alike; `reads`, `size` and `flops` are those of one."""
        reads = list(reads)
        weights = HALF * sum(x.size for x in reads if x.is_weight)
        values = [Value(HALF * x.size, HALF * x.whole) for x in reads if not x.is_weight]
        self.ops += [Op(part, flops, weights, (*values, Value(HALF * size, HALF * size)), reduces)] * pieces
        return Array(pieces * size, size, pieces=pieces)

    def computed(self, x: Array, part: str) -> Array:
        """The array, after the ops of a function."""
        if not isinstance(x, Function | Scaled):
            return x
        if x not in self._results:
            if isinstance(x, Scaled):
                plain = self.computed(x.normalized, part)
                reads, size = [plain.share(plain.pieces), x.scale], plain.size // plain.pieces
                scaled = self.op(part, reads, size, pieces=plain.pieces)
                self._results[x] = self.joined(scaled, part) if x.across else scaled
            else:
                self._results[x] = self._norm(x, part) if x.is_norm else self._simple(x, part)
        return self._results[x]

    def unscaled(self, x: Scaled, part: str) -> Array:
        """The norm's result without its scale."""
        plain = self.computed(x.normalized, part)
        return self.joined(plain, part) if x.across else plain

    def latest(self, x: Array) -> Array:
        """The array, as one tensor where its pieces have been joined."""
        return self._results.get(x, x)

    def rotated(self, x: Array, table: Array, part: str) -> Array:
        """Heads, turned (export/phone/turn.py); the scale of a head's own norm is in the tables."""
        x = self.unscaled(x, part) if isinstance(x, Scaled) and not x.across else self.computed(x, part)
        count = x.pieces if x.pieces > 1 else pieces_of(x.size, part)
        piece, size = x.share(count), x.size // count
        table = table.share(count) if table.size == x.size else table
        swapped = self.op(part, [piece], size, pieces=count)
        products = (self.op(part, [y, table], size, pieces=count) for y in (piece, swapped.share(count)))
        return self.op(part, [y.share(count) for y in products], size, pieces=count)

    def joined(self, x: Array, part: str) -> Array:
        """The array as one tensor, after a concatenation of its pieces."""
        if x.pieces == 1:
            return x
        if x not in self._results:
            self._results[x] = self.op(part, [Array(x.whole, x.whole)] * x.pieces, x.size)
        return self._results[x]

    def add_bias(self, x: Array, bias: Array) -> Array:
        """A product with a bias, which takes no op of its own."""
        assert x.product
        index, _ = x.product
        op = self.ops[index]
        self.ops[index] = dataclasses.replace(op, weight_bytes=op.weight_bytes + HALF * bias.size)
        return dataclasses.replace(x, product=None)

    def _simple(self, x: Function, part: str) -> Array:
        reads = [x.root.share(x.pieces)]
        return self.op(part, reads, x.size // x.pieces, pieces=x.pieces, reduces=x.reduces)

    def _norm(self, x: Function, part: str) -> Array:
        count = x.pieces if x.pieces > 1 else pieces_of(x.size, part)
        arrays = {"x": x.root, "y": Array(x.size, x.size // count), "r": Array(x.rows, x.rows // count)}
        result = x.root
        for step in LAYER_NORM if "sub" in x.primitives else RMS_NORM:
            operands, _, kind = step.partition(">")
            reads, size = [arrays[name].share(count) for name in operands], arrays[kind].size // count
            result = self.op(part, reads, size, pieces=count, reduces=step in ("x>r", "y>r"))
        return result


def pieces_of(size: int, part: str) -> int:
    """The pieces in which a transformer's norms, rotations and residuals run (export/phone): of heads, or of tokens."""
    return pieces(size) if part.startswith(TRANSFORMER) else 1
