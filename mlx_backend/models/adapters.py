"""What a LoRA adds to a Linear, beside its product: y = x W^T + b + strength * x dW^T, the weight untouched.

So W may be packed, a strength may change and a LoRA may go, without anything being read again. dW [out, in] is not
made where its factors are cheaper to apply. Formulas: LyCORIS (LoKr, LoHa); arXiv 2402.09353 and PEFT (DoRA).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import mlx.core as mx

Projection = Callable[[mx.array], mx.array]

ALL = slice(None)  # of a layer's outputs

TINY = 1e-12  # keeps a row of zeros from dividing by zero


class Adapter:
    """One dW. `scale` (alpha / rank) comes with the file, `strength` is the user's; 0 leaves the branch out."""

    scale: float
    strength: float

    def __call__(self, x: mx.array, dtype: mx.Dtype) -> mx.array:
        """Return strength * x dW^T [rows, out] in `dtype` for x [rows, in]."""
        return self.prepared(dtype)(x)

    def at(self, strength: float) -> Self:
        """Return the same branch, sharing its arrays, at another strength."""
        return replace(self, strength=strength)

    def prepared(self, dtype: mx.Dtype, outputs: slice = ALL) -> Projection:
        """Return x [rows, in] -> strength * x dW^T [rows, out] in `dtype`, for a caller that feeds chunk after chunk.

        Only these `outputs` are made. Nothing is evaluated here; what does not depend on x is computed once, with the
        first chunk.
        """
        raise NotImplementedError

    def dense(self) -> mx.array:
        """Return dW [out, in] in float32: with the scale, without the strength."""
        raise NotImplementedError

    def _scaled(self, factor: mx.array, dtype: mx.Dtype) -> mx.array:
        return (self.scale * self.strength * factor.astype(mx.float32)).astype(dtype)


@dataclass(frozen=True, eq=False, slots=True)
class LowRank(Adapter):
    """dW = scale * up @ down, LoRA: `down` [r, in], `up` [out, r]."""

    down: mx.array
    up: mx.array
    scale: float
    strength: float = 1.0

    def prepared(self, dtype: mx.Dtype, outputs: slice = ALL) -> Projection:
        down, up = self.down.astype(dtype).T, self._scaled(self.up[outputs], dtype).T
        return lambda x: (x.astype(dtype) @ down) @ up

    def dense(self) -> mx.array:
        return self.scale * _product(self.up, self.down)


@dataclass(frozen=True, eq=False, slots=True)
class Kronecker(Adapter):
    """dW = scale * kron(W1, W2), LoKr: W1 [l, m], W2 [k, n], out = l k, in = m n.

    W1 is `w1`, or `w1` [l, r] @ `w1_b` [r, m]; W2 likewise.
    """

    w1: mx.array
    w2: mx.array
    scale: float
    strength: float = 1.0
    w1_b: mx.array | None = None
    w2_b: mx.array | None = None

    def prepared(self, dtype: mx.Dtype, outputs: slice = ALL) -> Projection:
        w1 = self._scaled(_product(self.w1, self.w1_b), dtype)
        w2 = [factor.astype(dtype).T for factor in (self.w2_b, self.w2) if factor is not None]

        def project(x: mx.array) -> mx.array:
            inner = x.astype(dtype).reshape(len(x) * w1.shape[1], -1)  # x as m vectors of n
            for factor in w2:
                inner = inner @ factor
            return (w1 @ inner.reshape(len(x), w1.shape[1], -1)).reshape(len(x), -1)[:, outputs]

        return project

    def dense(self) -> mx.array:
        return self.scale * mx.kron(_product(self.w1, self.w1_b), _product(self.w2, self.w2_b))


@dataclass(frozen=True, eq=False, slots=True)
class Hadamard(Adapter):
    """dW = scale * (w1a @ w1b) * (w2a @ w2b), LoHa: w1a and w2a [out, r], w1b and w2b [r, in]."""

    w1a: mx.array
    w1b: mx.array
    w2a: mx.array
    w2b: mx.array
    scale: float
    strength: float = 1.0

    def prepared(self, dtype: mx.Dtype, outputs: slice = ALL) -> Projection:
        out_dim, in_dim = len(self.w1a), self.w1b.shape[1]
        rank = len(self.w1b) * len(self.w2b)
        if rank * (out_dim + in_dim) >= out_dim * in_dim:
            return Full(self.dense(), 1.0, self.strength).prepared(dtype, outputs)
        # The same dW as a plain product, over all pairs of the two ranks.
        w1a, w1b, w2a, w2b = (factor.astype(mx.float32) for factor in (self.w1a, self.w1b, self.w2a, self.w2b))
        up = (w1a[:, :, None] * w2a[:, None, :]).reshape(out_dim, rank)
        down = (w1b[:, None, :] * w2b[None, :, :]).reshape(rank, in_dim)
        return LowRank(down, up, self.scale, self.strength).prepared(dtype, outputs)

    def dense(self) -> mx.array:
        return self.scale * (_product(self.w1a, self.w1b) * _product(self.w2a, self.w2b))


@dataclass(frozen=True, eq=False, slots=True)
class Full(Adapter):
    """dW = scale * delta: `delta` [out, in]."""

    delta: mx.array
    scale: float
    strength: float = 1.0

    def prepared(self, dtype: mx.Dtype, outputs: slice = ALL) -> Projection:
        weight = self._scaled(self.delta[outputs], dtype).T
        return lambda x: x.astype(dtype) @ weight

    def dense(self) -> mx.array:
        return self.scale * self.delta.astype(mx.float32)


@dataclass(frozen=True, eq=False, slots=True)
class Dora:
    """W + strength * (gain * (W + dW) - W), with `gain` [out] from `dora_gain`, which no strength changes.

    The strength blends between the plain and the adapted weight, as in ComfyUI; at 1 it is what LyCORIS and PEFT train.
    (ComfyUI's gain differs a little: it divides by ||W||.)
    """

    branch: Adapter
    gain: mx.array
    strength: float = 1.0

    def at(self, strength: float) -> Dora:
        """Return the same, sharing its arrays, at another strength."""
        return replace(self, strength=strength)

    def prepared(self, dtype: mx.Dtype, outputs: slice = ALL) -> Callable[[mx.array, mx.array], mx.array]:
        """Return (x [rows, in], x W^T [rows, out]) -> what is added to x W^T at these `outputs`, in `dtype`."""
        side, gain = self.branch.at(1.0).prepared(dtype, outputs), self.gain[outputs]
        own = (self.strength * gain).astype(dtype)
        rest = (self.strength * (gain - 1)).astype(dtype)
        return lambda x, product: rest * product + own * side(x)


def dora_gain(magnitudes: mx.array, branch: Adapter, weight: Callable[[], mx.array]) -> mx.array:
    """Return m / ||W + dW|| over the inputs, [out] in float32, evaluated here.

    `magnitudes` are m, [out] or [out, 1, ...]; `weight` is called once, for the dense W [out, in] (or a kernel's axes
    after it), unpacked if need be: nothing of it is kept. The transient takes about 3 float32 copies of W.
    """
    dense = branch.dense()
    adapted = weight().astype(mx.float32).reshape(dense.shape) + dense
    gain = magnitudes.astype(mx.float32).reshape(-1) / mx.maximum(mx.linalg.norm(adapted, axis=1), TINY)
    mx.eval(gain)
    return gain


def side_branch(kind: str, parts: Mapping[str, mx.array], scale: float, strength: float = 1.0) -> Adapter:
    """Return the branch of `weights.lora_keys.Branch` fields `kind` and `scale`, its tensors given by part.

    A kernel's axes are joined to the inputs, as PatchEmbedding flattens them. Evaluated here.
    """
    flat = {part: array.reshape(len(array), -1) for part, array in parts.items()}
    mx.eval(flat)  # it is kept, perhaps for another thread
    if kind == "low_rank":
        return LowRank(flat["down"], flat["up"], scale, strength)
    if kind == "lokr":
        w1, w2 = (flat[side] if side in flat else flat[f"{side}_a"] for side in ("lokr_w1", "lokr_w2"))
        w1_b, w2_b = (None if side in flat else flat[f"{side}_b"] for side in ("lokr_w1", "lokr_w2"))
        return Kronecker(w1, w2, scale, strength, w1_b, w2_b)
    if kind == "loha":
        return Hadamard(*(flat[f"hada_{part}"] for part in ("w1_a", "w1_b", "w2_a", "w2_b")), scale, strength)
    if kind == "full":
        return Full(flat["diff"], scale, strength)
    raise ValueError(f"no side branch of kind {kind!r}")


def with_adapters(
    base: Projection,
    branches: Sequence[Adapter | Dora],
    bias: mx.array | None,
    dtype: mx.Dtype,
    outputs: slice = ALL,
) -> Projection:
    """Return x [rows, in] -> base(x) plus what each branch adds, [rows, out]; `base` itself where none is active.

    `bias` is the one that `base` adds (DoRA scales the product without it); `dtype` is that of its product, `outputs`
    are those that it makes.
    """
    plain = [branch.prepared(dtype, outputs) for branch in branches if branch.strength and isinstance(branch, Adapter)]
    doras = [branch.prepared(dtype, outputs) for branch in branches if branch.strength and isinstance(branch, Dora)]
    if not plain and not doras:
        return base

    def project(x: mx.array) -> mx.array:
        x = x.astype(dtype)
        out = product = base(x)
        for side in plain:
            out = out + side(x)
        if doras and bias is not None:
            product = product - bias.astype(dtype)
        for dora in doras:
            out = out + dora(x, product)
        return out

    return project


def _product(left: mx.array, right: mx.array | None) -> mx.array:
    """Return left @ right, or left alone, in float32."""
    left = left.astype(mx.float32)
    return left if right is None else left @ right.astype(mx.float32)
