"""Published figures of TPU chips: docs.cloud.google.com/tpu/docs/v5e, /v5p and /v6e."""

from typing import NamedTuple

from diffjax.errors import InputError


class Chip(NamedTuple):
    """One chip.

    Attributes:
      peak: FLOP/s in bfloat16.
      hbm: bytes of memory.
      hbm_bandwidth: bytes/s.
      ici_bandwidth: bytes/s that leave the chip over all its links, half the published
        bidirectional figure.
    """

    peak: float
    hbm: float
    hbm_bandwidth: float
    ici_bandwidth: float


CHIPS = {
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9),
    "v6e": Chip(918e12, 32 * 2**30, 1600e9, 400e9),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as v5e:16x16.

    Raises:
      InputError: it is not written so, or of a chip without figures here.
    """
    kind, _, shape = topology.partition(":")
    if kind not in CHIPS or not all(side.isdigit() for side in shape.split("x")):
        raise InputError(
            f"--plan is slices such as v5e:16x16,v5p:4x4x8, of {', '.join(CHIPS)}; got "
            f"{topology!r}."
        )
    return CHIPS[kind]
