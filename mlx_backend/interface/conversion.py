"""What a conversion makes of a model: dtypes, bits and group sizes. A setting is checked on sight."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import RequestError

BITS = (4, 5, 6, 8)  # of a packed weight
LOW_BITS, HIGH_BITS = 4, 8  # between which mixed bits choose
GROUP_SIZES = (32, 64, 128)  # weights that share a scale and a zero point
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}  # of what stays dense, as safetensors names them


@dataclass(frozen=True, slots=True)
class Packing:
    """How a matrix is packed."""

    bits: int
    group_size: int

    @property
    def weight_bytes(self) -> float:
        """Bytes for each weight, with its share of the bf16 scale and zero point."""
        return (self.bits + 32 / self.group_size) / 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertOptions:
    """What to make: `dtype` of the DiT and text encoder where they stay dense, and `bits` (None: dense) of each.

    `mixed` chooses 4 or 8 bits for each layer of the DiT at about the size of 4; `bits` then says nothing else.
    """

    dtype: str = "bfloat16"
    bits: int | None = None
    group_size: int = 64
    mixed: bool = False
    text_encoder_bits: int | None = None

    def __post_init__(self) -> None:
        """Raise RequestError for what cannot be made."""
        if self.dtype not in DTYPES:
            raise RequestError(f"The dtype '{self.dtype}' is unknown: choose one of {', '.join(DTYPES)}.")
        for bits in (self.bits, self.text_encoder_bits):
            if bits is not None and bits not in BITS:
                raise RequestError(f"Weights cannot be packed in {bits} bits: choose 4, 5, 6 or 8, or none.")
        if self.group_size not in GROUP_SIZES:
            raise RequestError(f"Weights cannot be packed in groups of {self.group_size}: choose 32, 64 or 128.")
        if self.mixed and self.bits not in (None, LOW_BITS):
            raise RequestError(
                f"Mixed bits are 4 or 8 for each layer, so {self.bits} bits for all cannot be had too: leave one out."
            )

    def packing(self, component: str) -> Packing | None:
        """Return how the packed layers of a component are packed, before mixed bits give any of them more."""
        bits = {"dit": LOW_BITS if self.mixed else self.bits, "t5_encoder": self.text_encoder_bits}.get(component)
        return None if bits is None else Packing(bits, self.group_size)
