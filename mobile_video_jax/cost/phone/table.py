"""The numbers that the phone estimate rests on, each with its source."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Device:
    """A chip's fp16 operations a second (a multiply-add is two), and its bytes of memory a second."""

    flops: float
    bandwidth: float


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """Numbers that are assumed of every chip."""

    compute: float  # share of a chip's operations a second that is reached
    memory: float  # share of its memory bytes a second that is reached
    on_chip: int  # bytes up to which a tensor never leaves the chip
    call: float  # seconds of a call beside its ops
    op: float = 0.0  # seconds of an op beside its work


# fp16 operations a second: Apple's announced figures, of which M1's is confirmed (12e12, arXiv 2606.22283, chapter 9).
# From A17 Pro on they are of 8-bit numbers, and fp16 is half, as on M4 and M5; Stable Diffusion XL below is no faster
# on A17 Pro (35 announced) than on A16 (17). Memory is 64 bits wide on A chips, 128 on M chips: LPDDR4X-4266, on A16,
# A17 Pro and M2 LPDDR5-6400, on A18 Pro LPDDR5X-7500.
CHIPS = {
    "A14": Device(11e12, 34.1e9),
    "A15": Device(15.8e12, 34.1e9),
    "A16": Device(17e12, 51.2e9),
    "A17 Pro": Device(17.5e12, 51.2e9),
    "A18 Pro": Device(17.5e12, 60e9),
    # The neural engine is taken as A18 Pro's, as no other figure is announced; memory is LPDDR5X-8533 and -9600.
    "A19": Device(17.5e12, 68.3e9),
    "A19 Pro": Device(17.5e12, 76.8e9),
    "M1": Device(11e12, 68.3e9),
    "M2": Device(15.8e12, 102.4e9),
}
PHONE, CHIP = "iPhone 16 Pro Max", "A18 Pro"
DEVICE = CHIPS[CHIP]
ASSUMED = Assumptions(compute=0.588, memory=0.781, on_chip=2_000_000, call=0.23e-3)
# Estimated over published seconds of networks that the fit had not seen, lowest and highest.
HELD_OUT = (0.87, 1.48)
FFN_TILES = 4  # of the hidden channels of an FFN, fastest by estimate for the mobile transformer


@dataclasses.dataclass(frozen=True)
class Figure:
    """A published time: a network of export/estimate/networks.py, the chip, seconds of one call, the source."""

    network: str
    chip: str
    seconds: float
    source: str


_MOBILECLIP = "apple/ml-mobileclip README, iPhone 12 Pro Max"
_DIFFUSION = "apple/ml-stable-diffusion README, steps a second on {}"
FITTED = (
    Figure("stable_diffusion_2_1", "A14", 1 / 1.45, _DIFFUSION.format("iPhone 12 Pro Max")),
    Figure("stable_diffusion_2_1", "A15", 1 / 2.55, _DIFFUSION.format("iPhone 13 Pro Max")),
    Figure("stable_diffusion_2_1", "A16", 1 / 2.69, _DIFFUSION.format("iPhone 14 Pro Max")),
    Figure("stable_diffusion_xl", "A14", 1 / 0.50, _DIFFUSION.format("iPhone 12 Pro")),
    Figure("stable_diffusion_xl", "A15", 1 / 0.68, _DIFFUSION.format("iPhone 13 Pro Max")),
    Figure("stable_diffusion_xl", "A16", 1 / 0.83, _DIFFUSION.format("iPhone 14 Pro Max")),
    Figure("stable_diffusion_xl", "A17 Pro", 1 / 0.85, _DIFFUSION.format("iPhone 15 Pro Max")),
    Figure("distilbert", "A15", 3.47e-3, "machinelearning.apple.com/research/neural-engine-transformers, iPhone 13"),
    Figure("snapgen_plus_base", "A18 Pro", 2.0, "arXiv 2601.08303, first row of its ablation, iPhone 16 Pro Max"),
)
# Not fitted: tablets cool better, and where LTX-Video's 3-D convolutions ran is not published.
BESIDE = (
    Figure("stable_diffusion_2_1", "M1", 1 / 2.19, _DIFFUSION.format("iPad Pro (M1)")),
    Figure("stable_diffusion_2_1", "M2", 1 / 3.07, _DIFFUSION.format("iPad Pro (M2)")),
    Figure("stable_diffusion_xl", "M1", 1 / 0.69, _DIFFUSION.format("iPad Pro (M1)")),
    Figure("stable_diffusion_xl", "M2", 1 / 0.98, _DIFFUSION.format("iPad Pro (M2)")),
    Figure("mobileclip_b_image", "A14", 10.4e-3, _MOBILECLIP),
    Figure("mobileclip_text", "A14", 3.3e-3, _MOBILECLIP),
    Figure("ltx_decoder", "A18 Pro", 17 / 17.7, "Turbo-VAED's table, 17.7 frames a second at 512x512, iPhone 16 Pro"),
)


def stated() -> list[tuple[str, str, str]]:
    """The assumptions as rows: what, how much, and where it is from."""
    return [
        ("fp16 operations a second", f"{DEVICE.flops / 1e12:g} T", "half of the 35 T announced, of 8-bit numbers"),
        ("memory bytes a second", f"{DEVICE.bandwidth / 1e9:g} G", "LPDDR5X-7500, 64 bits wide"),
        ("share of operations reached", f"{ASSUMED.compute:.1%}", "fitted, see --calibrate"),
        ("share of memory bytes reached", f"{ASSUMED.memory:.1%}", "fitted, see --calibrate"),
        (
            "largest tensor that stays on the chip",
            f"{ASSUMED.on_chip / 1e6:g} MB",
            "arXiv 2606.22283, chapter 9, on M1",
        ),
        ("a call, beside its ops", f"{1e3 * ASSUMED.call:g} ms", "arXiv 2606.22283, chapter 9, on M1"),
        ("an op, beside its work", f"{1e6 * ASSUMED.op:g} us", "a third fitted factor comes out below 0.1 us"),
        ("order", "op after op", "none merged, none at the same time: the plainest reading of the program"),
        ("views", "free", "reshapes, transpositions, splits and slices need not move a number"),
        ("placement", "neural engine", "every op; all packages loaded, no throttling: the best case"),
    ]
