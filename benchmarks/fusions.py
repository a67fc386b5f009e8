"""The five fusions of fMRI and EEG, trained on the same windows from one pretrained video model.

python -m benchmarks.fusions [--json] [--write]       # about three hours on two cores, and resumable
python -m benchmarks.fusions --variants dual,joint --brain-seeds 0 --steps 20 --sessions 1   # to try it

Gao et al. 2026 (CineBrain) compare joint, two-stage, cross-attention, spatial and dual encoding. Each is
trained here at tiny scale with a quarter of the recipe's steps, three times: the brain encoder's first
weights and its batches differ, and sessions, film net, codec and video model are the same. All runs then
decode the same fresh sessions (`train.compare`). A fusion's figure is the mean of its seeds, and its interval
rests on how far seeds lie apart, because two trainings of one fusion differ by more than their test windows
say.

With `--write` each run is added to the result file as soon as it is judged, and those that it holds are not
made again, so that runs may be made on different days; those that lie in the folder of `--work` are not
trained again:

python -m benchmarks.fusions --brain-seeds 0 --write       # about an hour
python -m benchmarks.fusions --variants joint --brain-seeds 1 --write
"""

import sys
from pathlib import Path

from benchmarks.result_files import RESULTS
from benchmarks.variants import Ablation, Variant, main

_OUT = RESULTS / "fusions.json"
_WORK = Path("runs/fusions")
_REFERENCE = "dual"
_FUSION = "system.encoder.fusion"
ABLATION = Ablation(
    recipe="cinesync",
    variants={
        _REFERENCE: Variant((f"{_FUSION}={_REFERENCE}",)),
        "joint": Variant((f"{_FUSION}=joint",)),
        "two-stage": Variant((f"{_FUSION}=two-stage",)),
        "cross-attention": Variant((f"{_FUSION}=cross-attention",)),
        # It lays as many tokens beside each other as a caption has.
        "spatial": Variant(
            (f"{_FUSION}=spatial", "system.encoder.tokens=84", "system.encoder.eeg_tokens=21")
        ),
    },
    comparisons={_REFERENCE: ("joint", "two-stage", "cross-attention", "spatial")},
    # A quarter of the recipe's.
    steps={"align": 375, "diffuse": 400},
    seeds=("0", "1", "2"),
    several=(_REFERENCE, "joint", "two-stage", "cross-attention", "spatial"),
    presets=("easy",),
    first_session=1000,
)


if __name__ == "__main__":
    sys.exit(main(ABLATION, "benchmarks.fusions", __doc__, _WORK, _OUT))
