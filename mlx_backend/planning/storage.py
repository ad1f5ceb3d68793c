"""How a part is stored, and what its matrices weigh so."""

from __future__ import annotations

from dataclasses import dataclass

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
