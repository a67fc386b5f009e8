"""Standardise the eye of the simulated participant on films that resemble those people watch.

RTDECODE_DATA=DIR python -m benchmarks.experiments.eye    # writes rtdecode/phantom/film/eye.json

Half of the frames are of the film `natural`, the others of the films in ``films/train`` of the recorded data.
``calibration.npy`` gets what the eye then makes of the film by which signal levels are set. A table says how
much the features of each film vary, and what the noise of each preset amounts to there.
"""

import copy
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from rtdecode.phantom.body.presets import PRESETS
from rtdecode.phantom.film import features
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.film.watched import NATURAL, SHAPES, Watched, watched

# A seed that neither trains nor judges.
_SEED = 999_984
_SHAPES_S = 600.0
# So many digits of a scale are kept: more than matter, and few enough to read.
_DIGITS = 6


def main() -> None:
    """Compute the scales, write them, and print what they make of each film."""
    if "RTDECODE_DATA" not in os.environ:
        sys.exit("RTDECODE_DATA must name the folder of recorded data, whose films/train the eye is set on")
    folder = Path(os.environ["RTDECODE_DATA"]) / "films" / "train"
    films = {path.stem: watched(str(path), None, 0, "grid") for path in sorted(folder.glob("*.mp4"))}
    seconds = sum(film.count for film in films.values()) / FPS
    films[NATURAL] = watched(NATURAL, seconds, _SEED, "free")
    scales = features.standardise(list(films.values()))
    rounded = {name: [_rounded(x) for x in scale] for name, scale in asdict(scales).items()}
    features.STANDARD.write_text(json.dumps(rounded, indent=1) + "\n")
    # Another object than the one whose features are read from the file.
    np.save(features.CALIBRATION_FEATURES, features.film_features(copy.copy(features.CALIBRATION)))
    films[SHAPES] = watched(SHAPES, _SHAPES_S, _SEED, "grid")
    Console().print(_table(films))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _table(films: dict[str, Watched]) -> Table:
    noises = [f"noise, {preset.name}" for preset in PRESETS.values()]
    table = Table("film", "s", "spread", *features.BLOCKS, *noises)
    blocks = features.feature_blocks()
    for name, film in films.items():
        feature_values = features.film_features(film)
        spread = features.spread(feature_values)
        block_spreads = [features.spread(feature_values[:, blocks == block]) for block in np.unique(blocks)]
        noise = [preset.feature_noise / spread for preset in PRESETS.values()]
        numbers = [film.count / FPS, spread, *block_spreads, *noise]
        table.add_row(name, *(f"{number:.2f}" for number in numbers))
    return table


if __name__ == "__main__":
    main()
