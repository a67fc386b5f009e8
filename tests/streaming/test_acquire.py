"""What the acquisition takes from the folder, and what it tells of it."""

import multiprocessing
import time
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.phantom.mosaic import mosaic_bytes
from rtdecode.types import Trigger
from streaming import acquire
from streaming.mailbox import Mailbox, Message, slot_bytes
from streaming.orders import Sources
from streaming.session import keep_runs
from streaming.sources.folder import FolderSource
from tests.streaming.bundles import AFFINE, SHAPE, make_bundle

CONTEXT = multiprocessing.get_context("spawn")
START = datetime(2026, 3, 2, 12)


@pytest.fixture
def eeg_alone(tmp_path: Path) -> tuple[Bundle, acquire._Acquisition]:
    """An acquisition of triggers that were pushed by hand."""
    bundle = make_bundle(tmp_path / "bundle", fmri=False)
    (tmp_path / "scanner").mkdir()
    sources = Sources(bundle.path, None, tmp_path / "scanner", "ignore", None, 0, None)
    mailbox = Mailbox(CONTEXT, 1, slot_bytes(bundle))
    return bundle, acquire._Acquisition(sources, mailbox, CONTEXT.Event(), lambda: True)


def test_a_day_of_short_runs_fits_every_status_and_is_all_reported(eeg_alone) -> None:
    bundle, made = eeg_alone
    mailbox, known, status = Mailbox(CONTEXT, 1, slot_bytes(bundle)), {}, {}
    for number in range(300):
        at = 1000.0 + 20 * number
        made._assembler.push(Trigger(at, "R128", at), at)
        if number % 10 == 0 or number == 299:
            assert mailbox.put(Message(made._status(at), {}), timeout=0)
            message = mailbox.get(timeout=0)
            assert message is not None
            status = message.head
            keep_runs(known, status)
    assert len(status["counters"]["runs"]) == 300
    assert status["counters"]["runs"] == made._assembler.counters()["runs"]


def test_a_folder_full_of_other_files_fits_a_status(eeg_alone) -> None:
    bundle, made = eeg_alone
    made._folder._ignored |= {f"{n:05d}.dcm": f"volume {n} came {'again ' * 20}" for n in range(3000)}
    status = made._status(1000.0)
    assert Mailbox(CONTEXT, 1, slot_bytes(bundle)).put(Message(status, {}), timeout=0)
    assert status["notes"][-1] == "not used: 2970 more files"
    assert made._status(1001.0)["notes"] == []


def mosaic(index: int, uid: str, tr: float) -> bytes:
    volume = np.random.default_rng(index).normal(500, 20, SHAPE).astype(np.int16)
    return mosaic_bytes(volume, AFFINE, tr, index, 4, START + timedelta(seconds=tr * index), 0.6, uid)


def taken(folder: Path, bundle: Bundle, calibration: Path | None) -> tuple[FolderSource, list[Any]]:
    sources = Sources(bundle.path, None, folder, "read", None, 0, None, calibration=calibration)
    source = acquire._folder(sources, bundle)
    assert source is not None
    volumes = []
    for _ in range(5):
        volumes += source.poll(time.monotonic())
    return source, volumes


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_localizer_before_the_run_is_refused_and_named(tmp_path: Path, calibrated: bool) -> None:
    folder = tmp_path / "scanner"
    folder.mkdir()
    bundle = make_bundle(tmp_path / "bundle", eeg=False, tr=Fraction(1, 2), window=Fraction(1))
    (folder / "0_localizer.dcm").write_bytes(mosaic(0, "1.9", 2.3) if calibrated else other_grid())
    for index in range(3):
        (folder / f"1_{index:04d}.dcm").write_bytes(mosaic(index, "1.2.3", 0.5))
    source, volumes = taken(folder, bundle, tmp_path / "calibration" if calibrated else None)
    assert [volume.index for volume in volumes] == [0, 1, 2]
    ((name, reason),) = source.ignored
    assert name == "0_localizer.dcm"
    said = "trained at TR 0.5 s, this series says 2.3 s" if calibrated else "the bundle reads volumes of"
    assert said in reason


def other_grid() -> bytes:
    volume = np.full((8, 8, 4), 500, np.int16)
    return mosaic_bytes(volume, AFFINE, 2.3, 0, 4, START, 0.6, "1.9")
