"""Convolutions of one frame, channels-last, with a small peak on every device.

On a GPU MLX's own kernels run. A kernel over several frames meets every condition of MLX's fast decomposition into
convolutions of single frames (mlx 0.32.2, `conv.cpp`): batch 1, one group, no stride, dilation or padding in time.
On the CPU MLX would write out the patches of a whole frame, 27 times the input for a 3x3x3 kernel. Here they are
written out for a few rows at a time and multiplied at once: leaner and, as the patches stay near the caches, faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from ..interface.chunks import CPU_PATCH_BYTES

Padding = tuple[tuple[int, int], tuple[int, int]]  # zeros (above, below), (left, right)
NO_PADDING: Padding = ((0, 0), (0, 0))


def convolve(
    frames: Sequence[mx.array], weight: mx.array, bias: mx.array, padding: Padding = NO_PADDING, stride: int = 1
) -> mx.array:
    """Return the one frame [H', W', out] that `frames`, each [H, W, in], and a kernel [out, kt, kh, kw, in] make.

    Fewer frames than the kernel is long meet its last taps: what lies before a clip's first frame is zero. `stride`
    is spatial.
    """
    weight = weight[:, weight.shape[1] - len(frames) :].astype(frames[0].dtype)
    bias = bias.astype(frames[0].dtype)
    if mx.default_device() == mx.Device(mx.cpu):
        return _by_rows(frames, weight, bias, padding, stride)
    x = mx.stack(list(frames))
    before, after = ([pad[i] for pad in padding] for i in (0, 1))
    if len(frames) == 1:
        return mx.conv_general(x, weight[:, 0], stride, (before, after))[0] + bias
    return mx.conv_general(x[None], weight, (1, stride, stride), ([0, *before], [0, *after]))[0, 0] + bias


def convolve_doubled(frame: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """Double a frame [H, W, in] in size, nearest neighbour, then convolve with [out, 3, 3, in], zeros around it.

    Each output pixel sees only 2x2 different input pixels. So the doubled frame is never made: four kernels of 2x2,
    whose weights are sums of the 3x3 ones, give the four kinds of output pixel, with 4/9 of the products.
    """
    height, width, _ = frame.shape
    weight = weight.astype(mx.float32)
    out = mx.zeros((height, 2, width, 2, weight.shape[0]), dtype=frame.dtype)
    for i, rows in enumerate(_halves(weight, 1)):
        for j, kernel in enumerate(_halves(rows, 2)):
            padding = ((1 - i, i), (1 - j, j))
            out[:, i, :, j] = convolve([frame], kernel[:, None], bias, padding)
            mx.eval(out)  # written in place
    return out.reshape(2 * height, 2 * width, -1)


def _halves(weight: mx.array, axis: int) -> tuple[mx.array, mx.array]:
    """Return the two-tap kernels, along `axis`, of the even and of the odd pixels of a doubled frame."""
    first, middle, last = mx.split(weight, 3, axis=axis)
    return mx.concatenate([first, middle + last], axis=axis), mx.concatenate([first + middle, last], axis=axis)


def _by_rows(frames: Sequence[mx.array], weight: mx.array, bias: mx.array, padding: Padding, stride: int) -> mx.array:
    """Write out the patches of a few output rows, multiply, go on; the result is written in place."""
    (above, below), sides = padding
    out_dim, length, kernel_height, kernel_width, dim = weight.shape
    height, width = frames[0].shape[0], frames[0].shape[1] + sum(sides)
    out_height = (height + above + below - kernel_height) // stride + 1
    out_width = (width - kernel_width) // stride + 1
    matrix = weight.reshape(out_dim, -1).T
    if length == kernel_height == kernel_width == stride == 1 and padding == NO_PADDING:
        return mx.addmm(bias, frames[0].reshape(-1, dim), matrix).reshape(out_height, out_width, out_dim)
    rows = max(1, CPU_PATCH_BYTES // (4 * out_width * matrix.shape[0]))
    out = mx.zeros((out_height, out_width, out_dim), dtype=frames[0].dtype)
    for start in range(0, out_height, rows):
        stop = min(start + rows, out_height)
        first, last = start * stride - above, (stop - 1) * stride - above + kernel_height
        edges = ((max(-first, 0), max(last - height, 0)), sides, (0, 0))
        seen = mx.stack([mx.pad(frame[max(first, 0) : min(last, height)], edges) for frame in frames])
        row, plane = width * dim, seen.shape[1] * width * dim
        patches = mx.as_strided(
            seen,
            (stop - start, out_width, length, kernel_height, kernel_width, dim),
            (stride * row, stride * dim, plane, row, dim, 1),
        )
        product = mx.addmm(bias, patches.reshape(-1, matrix.shape[0]), matrix)
        out[start:stop] = product.reshape(stop - start, out_width, out_dim)
        mx.eval(out)
    return out
