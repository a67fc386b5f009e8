import json

import numpy as np

from benchmarks import bars
from benchmarks.experiments import oracle
from rtdecode.phantom.body.presets import PRESETS
from rtdecode.phantom.film.film import Film


def test_the_codec_keeps_the_picture() -> None:
    codec = oracle.fit_codec([Film(200, 1)])
    clip = Film(8, 2).clip(1)
    latent = codec.encode(clip)
    assert latent.shape == (9, 8, 12, 16)
    error = codec.decode(latent) - clip
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 25


def test_ridge_finds_the_modality_that_tells() -> None:
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(260, 4))
    informative = latent @ rng.normal(size=(4, 30)) + 0.1 * rng.normal(size=(260, 30))
    silent = rng.normal(size=(260, 30))
    kernels = {}
    for name, x in (("fmri", informative), ("eeg", silent)):
        x = x / np.sqrt(x.shape[1])
        kernels[name] = (x[:200] @ x[:200].T, x[200:] @ x[:200].T)
    targets = latent @ rng.normal(size=(4, oracle.COMPONENTS))
    targets -= targets[:200].mean(axis=0)
    predicted, notes = oracle.predict(oracle.Problem(kernels, targets[:200]), (0.1, 0.5, 0.9))
    assert np.corrcoef(predicted.ravel(), targets[200:].ravel())[0, 1] > 0.95
    assert {note["fmri_weight"] for note in notes} == {0.9}


def test_the_bars_are_those_of_the_presets_as_they_are() -> None:
    oracle_bars = json.loads(bars.PATH.read_text())["oracle"]
    assert oracle_bars["seeds"]["training"] == list(oracle.TRAINING)
    assert max(oracle_bars["seeds"]["testing"]) < 1000
    for name, preset in PRESETS.items():
        constants = oracle_bars[name]["constants"]
        assert {key: getattr(preset, key) for key in constants} == constants
    easy = {m: oracle_bars["easy"][m]["identification_2way"] for m in ("both", "eeg")}
    assert abs(easy["both"]["value"] - 0.97) <= 0.02
    assert abs(easy["eeg"]["value"] - 0.85) <= 0.02
    assert easy["both"]["n"] >= 200
