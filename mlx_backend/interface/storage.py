"""What the tensors of each part weigh, from its sizes and from how its matrices are stored."""

from __future__ import annotations

from dataclasses import dataclass

from .sizes import PATCH, ClipConfig, Scail2Config, UMT5Config

FLOAT32 = 4
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

Matrix = tuple[int, int]  # outputs, inputs


@dataclass(frozen=True, slots=True)
class Storage:
    """How a part is stored: dense in `dtype`; with `bits`, the matrices of the DiT's blocks are packed.

    Packed (`mx.quantize`): `bits` per number, and per group of `group_size` numbers a scale and a zero point in
    `dtype`.
    """

    dtype: str = "bfloat16"
    bits: int = 0
    group_size: int = 64

    @property
    def width(self) -> int:
        """Bytes of a number that is not packed."""
        return DTYPE_BYTES[self.dtype]

    def matrix_bytes(self, matrix: Matrix) -> int:
        """Return the bytes of one matrix as stored."""
        numbers = matrix[0] * matrix[1]
        if not self.bits:
            return numbers * self.width
        return numbers * self.bits // 8 + 2 * self.width * numbers // self.group_size

    def ready_bytes(self, matrix: Matrix, compute: str) -> int:
        """Return the bytes of the copy that is multiplied in the dtype `compute`: 0 where it is the stored one."""
        return matrix[0] * matrix[1] * DTYPE_BYTES[compute] if self.bits or self.dtype != compute else 0


def block_matrices(config: Scail2Config) -> dict[str, Matrix]:
    """Return the Linears of one DiT block by name, each (outputs, inputs); each has a bias of its outputs."""
    square, ffn = (config.dim, config.dim), config.ffn_dim
    names = [f"self_attn.{name}" for name in "qkvo"]
    names += [f"cross_attn.{name}" for name in ("q", "k", "v", "o", "k_img", "v_img")]
    return dict.fromkeys(names, square) | {"ffn.0": (ffn, config.dim), "ffn.2": (config.dim, ffn)}


def dit_block_bytes(config: Scail2Config, storage: Storage) -> int:
    """Return the bytes of one block as stored."""
    matrices = block_matrices(config).values()
    # Five RMS norms, a layer norm with bias and six rows of modulation; norms of queries and keys are `dim` wide.
    vectors = (5 + 2 + 6) * config.dim + sum(out for out, _ in matrices)
    return sum(map(storage.matrix_bytes, matrices)) + vectors * storage.width


def dit_rest_bytes(config: Scail2Config, storage: Storage) -> int:
    """Return the bytes of the DiT's tensors outside its blocks: they are never packed."""
    dim, clip, text, freq = config.dim, config.clip_dim, config.text_dim, config.freq_dim
    channels = config.in_dim + config.pose_dim + config.mask_dim
    stems = dim * (channels * PATCH**2 + 3)
    text_embedding = dim * (text + dim + 2)
    time_embedding = dim * (freq + dim + 2) + 6 * dim * (dim + 1)
    image_embedding = clip * (clip + 3) + dim * (clip + 3)
    head = config.out_dim * PATCH**2 * (dim + 1) + 2 * dim
    return (stems + text_embedding + time_embedding + image_embedding + head) * storage.width


def dit_bytes(config: Scail2Config, storage: Storage) -> int:
    """Return the bytes of the whole DiT."""
    return dit_rest_bytes(config, storage) + config.num_layers * dit_block_bytes(config, storage)


def umt5_layer_matrices(config: UMT5Config) -> list[Matrix]:
    """Return the Linears of one layer of the text encoder: q, k, v, o, gate, fc1, fc2."""
    dim, inner, ffn = config.dim, config.dim_attn, config.dim_ffn
    return [(inner, dim)] * 3 + [(dim, inner), (ffn, dim), (ffn, dim), (dim, ffn)]


def umt5_layer_bytes(config: UMT5Config, storage: Storage) -> int:
    """Return the bytes of one layer of the text encoder."""
    vectors = 2 * config.dim + config.num_buckets * config.num_heads
    return sum(map(storage.matrix_bytes, umt5_layer_matrices(config))) + vectors * storage.width


def clip_layer_matrices(config: ClipConfig) -> list[Matrix]:
    """Return the Linears of one layer of the CLIP tower: q with k and v, output, up, down."""
    dim, mlp = config.dim, config.mlp_dim
    return [(3 * dim, dim), (dim, dim), (mlp, dim), (dim, mlp)]


def clip_tokens(config: ClipConfig) -> int:
    """Return how many tokens a picture has: its patches and one for the whole."""
    return (config.image_size // config.patch_size) ** 2 + 1


def clip_bytes(config: ClipConfig, storage: Storage) -> int:
    """Return the bytes of the CLIP tower: all of it is loaded, the last block and the projection too."""
    dim = config.dim
    matrices = clip_layer_matrices(config)
    layer = sum(map(storage.matrix_bytes, matrices)) + (sum(out for out, _ in matrices) + 4 * dim) * storage.width
    rest = dim * (3 * config.patch_size**2 + 1 + clip_tokens(config) + 4 + config.out_dim)
    return config.num_layers * layer + rest * storage.width
