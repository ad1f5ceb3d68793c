"""Linear layers for hidden streams of tens of thousands of rows: dense or packed weights, one way of calling."""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from .adapters import ALL, Adapter, Dora, Projection, with_adapters


class Product(nn.Module):
    """A layer that multiplies by a weight.

    `compute_dtype` is what the product is computed in: the input is cast to it and so is the weight, where it is
    stored otherwise (bf16 files on the CPU). None keeps the dtype of the weight.
    """

    def __init__(self, compute_dtype: mx.Dtype | None):
        super().__init__()
        self._compute_dtype = compute_dtype

    @property
    def compute_dtype(self) -> mx.Dtype | None:
        """The dtype of the product, None: that of the weight."""
        return self._compute_dtype

    def compute_in(self, dtype: mx.Dtype | None) -> None:
        """Compute in another dtype from now on."""
        self._compute_dtype = dtype


class AdaptableLinear(Product):
    """What dense and packed layers share: y = x W^T + b, plus what LoRAs add beside it."""

    def __init__(self, compute_dtype: mx.Dtype | None):
        super().__init__(compute_dtype)
        self._adapters: tuple[Adapter | Dora, ...] = ()

    def __call__(self, x: mx.array) -> mx.array:
        return self.prepared()(x)

    def prepared(self, outputs: slice = ALL) -> Projection:
        """Return the projection with its weight ready to multiply, for a caller that feeds it chunk after chunk.

        Only these `outputs` are made: rows of the weight.
        """
        weight, bias = self.dense(outputs), self.get("bias")
        bias = None if bias is None else bias[outputs]
        return with_adapters(affine(weight, bias), self._adapters, bias, weight.dtype, outputs)

    def set_adapters(self, branches: tuple[Adapter | Dora, ...]) -> None:
        """Let `branches`, and nothing else, run beside the product from now on."""
        self._adapters = branches

    def dense(self, outputs: slice = ALL) -> mx.array:
        """Return the weight [out, in] of these `outputs`, unpacked, in the dtype of the product."""
        raise NotImplementedError


class Linear(AdaptableLinear):
    """`weight` [out, in], `bias` [out] or absent."""

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = True, compute_dtype: mx.Dtype | None = None):
        super().__init__(compute_dtype)
        self.weight = mx.zeros((out_dim, in_dim))
        if bias:
            self.bias = mx.zeros((out_dim,))

    def dense(self, outputs: slice = ALL) -> mx.array:
        return self.weight[outputs].astype(self._compute_dtype or self.weight.dtype)


class PackedLinear(AdaptableLinear):
    """The same with a weight packed by `mx.quantize`: `weight` uint32, `scales`, and `biases` (zero points).

    Mind the plain `bias` beside `biases`. The matrix is unpacked once and multiplied densely: for many rows that is
    faster than `quantized_matmul` on every device measured, and it stays clear of the kernel faults that
    bf16 activations met above 32,767 rows. A call of few rows, see `keep_packed_below`, multiplies it as it is.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        bias: bool = True,
        group_size: int,
        bits: int,
        compute_dtype: mx.Dtype | None = None,
    ):
        super().__init__(compute_dtype)
        self.weight = mx.zeros((out_dim, in_dim * bits // 32), dtype=mx.uint32)
        self.scales = mx.zeros((out_dim, in_dim // group_size))
        self.biases = mx.zeros((out_dim, in_dim // group_size))
        if bias:
            self.bias = mx.zeros((out_dim,))
        self._in_dim = in_dim
        self._group_size = group_size
        self._bits = bits
        self._few_rows = 0

    def __call__(self, x: mx.array) -> mx.array:
        if len(x) > self._few_rows:
            return super().__call__(x)
        dtype = self._compute_dtype or self.scales.dtype
        bias = self.get("bias")

        def product(x: mx.array) -> mx.array:
            factors = (self.scales.astype(dtype), self.biases.astype(dtype))
            how = {"transpose": True, "group_size": self._group_size, "bits": self._bits}
            out = mx.quantized_matmul(x.astype(dtype), self.weight, *factors, **how)
            return out if bias is None else out + bias.astype(dtype)

        return with_adapters(product, self._adapters, bias, dtype)(x)

    @property
    def packing(self) -> tuple[int, int]:
        """Bits of a weight, and weights that share a scale."""
        return self._bits, self._group_size

    def keep_packed_below(self, rows: int) -> None:
        """Let calls of up to so many rows multiply the packed matrix as it is, where that was measured to be faster."""
        self._few_rows = rows

    @property
    def dense_shape(self) -> tuple[int, int]:
        """Shape [out, in] of the unpacked weight."""
        return len(self.weight), self._in_dim

    def dense(self, outputs: slice = ALL) -> mx.array:
        dtype = self._compute_dtype or self.scales.dtype
        return mx.dequantize(
            self.weight[outputs],
            scales=self.scales[outputs].astype(dtype),
            biases=self.biases[outputs].astype(dtype),
            group_size=self._group_size,
            bits=self._bits,
        )


def affine(weight: mx.array, bias: mx.array | None) -> Projection:
    """Return x -> x W^T + b in the dtype of `weight`, which is evaluated here, once."""
    mx.eval(weight)
    transposed = weight.T
    if bias is None:
        return lambda x: x.astype(weight.dtype) @ transposed
    bias = bias.astype(weight.dtype)
    return lambda x: mx.addmm(bias, x.astype(weight.dtype), transposed)
