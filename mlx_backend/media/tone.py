"""Pictures of HDR and of wide-gamut video as the eight bits of BT.709 that the model knows.

Sources: Rec. ITU-R BT.2100-2 (HLG and PQ, tables 4 and 5), BT.2087 (BT.2020 to BT.709), BT.2390-11, 5.4.1 (the curve
that rolls highlights off), BT.2408 (203 nits are white), BT.1886 (gamma 2.4 of an SDR screen).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PQ, HLG = 16, 18  # transfer functions by their number in ITU-T H.273, as FFmpeg has them
BT2020 = 9  # primaries, likewise
WHITE = 203.0  # nits of a white sheet in HDR, which SDR shows as its brightest
NOMINAL_PEAK = 1000.0  # nits that HLG is made for, and PQ where its file does not say
HLG_GAMMA = 1.2  # of the whole system at that peak
SDR_GAMMA = 2.4
LEVELS = 1 << 16
# Linear light, BT.2020 to BT.709, which have the same white.
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
PQ_M1, PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
PQ_C1, PQ_C2, PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
HLG_A, HLG_B, HLG_C = 0.17883277, 0.28466892, 0.55991073


@dataclass(frozen=True, slots=True)
class Signal:
    """How a video's numbers mean light: the transfer function and primaries of H.273, and its brightest, in nits."""

    transfer: int
    primaries: int
    peak: float = NOMINAL_PEAK

    @property
    def is_hdr(self) -> bool:
        """Whether it is HLG or PQ."""
        return self.transfer in (PQ, HLG)

    @property
    def is_plain(self) -> bool:
        """Whether its pictures are used as they are."""
        return not self.is_hdr and self.primaries != BT2020

    def __str__(self) -> str:
        gamut = " in the colours of BT.2020" if self.primaries == BT2020 else ""
        if not self.is_hdr:
            return f"SDR{gamut}"
        return f"HDR ({'HLG' if self.transfer == HLG else 'PQ'}, up to {self.peak:g} nits){gamut}"


@dataclass(frozen=True, slots=True, eq=False)
class ToneMap:
    """Tables of a signal's way to SDR: light by level of 16 bits, factor by brightest channel, eight bits by light."""

    signal: Signal
    light: np.ndarray
    factors: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, signal: Signal) -> ToneMap:
        """Make the tables, which takes milliseconds."""
        levels = np.linspace(0, 1, LEVELS)
        light = {PQ: pq_to_nits, HLG: hlg_to_scene}.get(signal.transfer, _sdr_to_light)(levels)
        top = signal.peak if signal.is_hdr else WHITE
        # By the square root, so that the table is fine where it is dark.
        brightest = np.maximum(levels**2 * top, 1e-4)
        factors = rolled_off(brightest, signal.peak) / brightest if signal.is_hdr else np.full(LEVELS, 1 / WHITE)
        codes = np.rint(255 * levels ** (2 / SDR_GAMMA)).astype(np.uint8)
        return cls(signal, light.astype(np.float32), factors.astype(np.float32), codes)

    def pictures(self, levels: np.ndarray) -> np.ndarray:
        """Return R'G'B' of 16 bits [..., 3], full range, as uint8 of BT.709 of the same shape."""
        light = self.light[levels]
        if self.signal.transfer == HLG:
            # The OOTF: scene light becomes what a screen of that peak shows.
            light *= self.signal.peak * np.maximum(light @ LUMINANCE, 1e-6)[..., None] ** np.float32(HLG_GAMMA - 1)
        if self.signal.primaries == BT2020:
            light = light @ TO_BT709.T
        np.maximum(light, 0, out=light)  # colours that BT.709 has not
        top = self.signal.peak if self.signal.is_hdr else WHITE
        # One factor for all channels keeps the hue; a channel beyond the table is white anyway.
        place = np.minimum(np.sqrt(light.max(axis=-1) / np.float32(top)), 1) * np.float32(LEVELS - 1)
        light *= self.factors[place.astype(np.int32)][..., None]
        return self.codes[(np.sqrt(np.minimum(light, 1)) * np.float32(LEVELS - 1)).astype(np.int32)]


def pq_to_nits(signal: np.ndarray) -> np.ndarray:
    """Return the light of PQ in 0..1: its EOTF, 0 to 10,000 nits."""
    root = signal ** (1 / PQ_M2)
    return 10000 * (np.maximum(root - PQ_C1, 0) / (PQ_C2 - PQ_C3 * root)) ** (1 / PQ_M1)


def nits_to_pq(nits: np.ndarray | float) -> np.ndarray:
    """Return PQ in 0..1 of 0 to 10,000 nits."""
    power = (np.asarray(nits) / 10000) ** PQ_M1
    return ((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power)) ** PQ_M2


def hlg_to_scene(signal: np.ndarray) -> np.ndarray:
    """Return the scene's light in 0..1 of HLG in 0..1: its inverse OETF."""
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - HLG_C) / HLG_A) + HLG_B) / 12)


def rolled_off(nits: np.ndarray, peak: float) -> np.ndarray:
    """Return light of up to `peak` nits as a share of SDR's white: as it is where dark, the highlights rolled off."""
    source, white = nits_to_pq(peak), nits_to_pq(WHITE)
    top = white / source
    signal = np.minimum(nits_to_pq(nits) / source, 1)
    knee = 1.5 * top - 0.5
    if knee >= 1:  # nothing is brighter than SDR's white
        return nits / WHITE
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return np.where(signal < knee, nits, pq_to_nits(spline * source)) / WHITE


def _sdr_to_light(signal: np.ndarray) -> np.ndarray:
    return WHITE * signal**SDR_GAMMA
