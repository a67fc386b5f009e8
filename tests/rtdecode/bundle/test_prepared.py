"""A bundle that no scanner and no amplifier can feed says so, and is told from its manifest alone."""

from dataclasses import replace

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import SHIPPED, EegInput, FmriInput, Manifest, prepared
from rtdecode.bundle.manifest import CAUSAL, OFFLINE
from rtdecode.errors import BundleError
from rtdecode.signal.volume.baseline import Baseline
from tests import small
from tests.refusals import refused

PLACED = replace(small.manifest(), simulated=False)
ROW = FmriInput(50, *prepared.in_a_row(90), Baseline())


def released(**changes: object) -> Manifest:
    """The manifest of a bundle of a release: a row of voxels, and channels that are numbered."""
    assert PLACED.eeg is not None
    numbered = EegInput(prepared.numbered(64), "average", "microvolts", PLACED.eeg.band)
    values = {"eeg": numbered, "fmri": ROW, "chain": OFFLINE, "name": "release"} | changes
    return replace(PLACED, **values)


def test_a_release_cannot_go_live_and_says_what_is_not_known() -> None:
    manifest = bundles.from_json(bundles.to_json(released()))
    sentence = prepared.notice(manifest)
    assert sentence is not None
    assert sentence.startswith("The bundle decodes prepared files and cannot go live: ")
    assert "EEG 001 to EEG 064" in sentence
    assert "90 x 1 x 1" in sentence
    with refused(BundleError, "bundle-prepared-files", bundle="release") as caught:
        prepared.check_live(manifest)
    assert caught.value.exit_code == 4
    assert "prepared files" in caught.value.reason


@pytest.mark.parametrize(("modality", "words"), [("eeg", "electrodes"), ("fmri", "voxels")])
def test_one_modality_without_places_is_enough(modality: str, words: str) -> None:
    other = {"eeg": "fmri", "fmri": "eeg"}[modality]
    for places in (None, getattr(PLACED, other)):
        (unknown,) = prepared.unplaced(released(**{other: places}))
        assert words in unknown


@pytest.mark.parametrize(
    "manifest",
    [
        PLACED,
        # A program may write rows of voxels while it scans, and a cap may number its channels.
        released(chain=CAUSAL),
        # Two of three axes are not a row, and neither is a row that lies somewhere.
        released(eeg=None, fmri=replace(ROW, shape=[45, 2, 1])),
        released(eeg=None, fmri=replace(ROW, affine=np.diag([3.0, 3.0, 3.0, 1.0]).tolist())),
        released(fmri=None, eeg=replace(PLACED.eeg, channels=["EEG 001", "EEG 003"])),
    ],
)
def test_what_a_session_acquires_may_go_live(manifest: Manifest) -> None:
    prepared.check_live(manifest)
    assert prepared.unplaced(manifest) == []


def test_places_do_not_make_prepared_signals_live_ones() -> None:
    sentence = prepared.notice(replace(PLACED, chain=OFFLINE))
    assert sentence is not None
    assert sentence.startswith("The bundle decodes prepared files: ")
    assert prepared.notice(PLACED) is None
    # Simulated sessions prepare the same signals in both ways, and say so of every clip.
    assert prepared.notice(replace(PLACED, chain=OFFLINE, simulated=True)) is None


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()))
def test_the_shipped_bundles_go_live(name: str) -> None:
    manifest = bundles.load(name).manifest
    assert prepared.notice(manifest) is None
    prepared.check_live(manifest)
