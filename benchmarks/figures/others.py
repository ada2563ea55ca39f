"""What others published on training on this family of chips, and why it stands beside no figure of ours."""

from __future__ import annotations

from typing import NamedTuple


class Other(NamedTuple):
    """who: with the source."""

    who: str
    figure: str
    conditions: str
    why_not: str


OTHERS = (
    Other(
        "Deeploy's training (its pull request 169)", "ResNet8: 128 million cycles a sample, 0.29 MAC/cycle",
        "8 cores, Siracusa on the virtual platform, 128 kB of L1",
        "ResNet8 has residual sums, which no layer here does",
    ),
    Other(
        "TrainDeeploy (arXiv 2603.09511)", "autoencoder: 13.4 FLOP/cycle", "with an accelerator",
        "an accelerator for FP32 products; our cores alone allow 16 FLOP/cycle at the very most",
    ),
    Other(
        "FP16 TrainLib (arXiv 2305.19167)", "DS-CNN 6.4 ms at 0.81 MAC/cycle; FP16 up to 1.72x FP32", "8 cores and one",
        "FP16, which is not modelled here",
    ),
    Other(
        "BioTrain (arXiv 2604.13359)", "17 and 85 samples a second below 50 mW", "GAP9, full backpropagation",
        "networks for EEG and EOG, which are none of ours",
    ),
    Other(
        "latent replay (arXiv 2110.10486)", "65x faster, 37x less energy than an STM32L4", "Vega",
        "another network, and another way to learn",
    ),
)  # fmt: skip
