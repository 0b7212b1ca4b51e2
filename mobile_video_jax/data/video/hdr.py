"""HDR colours (BT.2100) brought to SDR: HLG and PQ code values to sRGB."""

import functools

import numpy as np

PQ, HLG, BT2020 = 16, 18, 9  # AVColorTransferCharacteristic and AVColorPrimaries
TRANSFERS = (PQ, HLG)
WHITE = 203.0  # cd/m²; HDR reference white (BT.2408), which becomes SDR white
PEAK, SYSTEM_GAMMA = 1000.0, 1.2  # of the display for which HLG is shown: cd/m², exponent
KNEE = 0.8  # share of SDR white, linear light; brighter light is compressed into what is left
# BT.2020 to BT.709 primaries, in linear light (BT.2087).
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020


def tone_map(pixels: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """RGB code values uint16 [h w 3] of transfer PQ or HLG as sRGB uint8 [h w 3].

    Light up to KNEE times reference white keeps its level; brighter light rolls off towards white.
    """
    light = _light_of_codes(transfer)[pixels]
    if transfer == HLG:
        luminance = np.maximum(light @ LUMINANCE, 1e-6)[..., None]
        light = light * (PEAK / WHITE) * luminance ** (SYSTEM_GAMMA - 1)
    if primaries == BT2020:
        light = light @ TO_BT709.T
    light = np.maximum(light, 0)
    peak = light.max(axis=-1, keepdims=True)
    over = np.maximum(peak - KNEE, 0)
    rolled = np.minimum(peak, KNEE) + (1 - KNEE) * (1 - np.exp(-over / (1 - KNEE)))
    light = light * (rolled / np.maximum(peak, 1e-6))
    codes: np.ndarray = _codes_of_roots()[(np.sqrt(light) * 4095 + 0.5).astype(np.int32)]
    return codes


@functools.cache
def _light_of_codes(transfer: int) -> np.ndarray:
    """Linear light of each 16-bit code (BT.2100): of PQ in reference whites, of HLG the scene's in [0, 1]."""
    code = np.arange(1 << 16) / 65535
    if transfer == PQ:
        root = code ** (1 / 78.84375)
        light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        return (light * 10_000 / WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


@functools.cache
def _codes_of_roots() -> np.ndarray:
    """The sRGB code (0-255) of light whose square root is i / 4095."""
    light = (np.arange(4096) / 4095) ** 2
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (encoded * 255 + 0.5).astype(np.uint8)
