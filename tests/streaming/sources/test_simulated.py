"""What is simulated is told by the files and the stream themselves."""

import os
from pathlib import Path

import pylsl
import pytest

from rtdecode.phantom.files.vendors import VENDORS
from rtdecode.phantom.live.names import write_run
from rtdecode.phantom.live.outlet import EegOutlet
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Montage
from streaming.sources.folder.source import FolderSource
from streaming.sources.lsl.layout import layout
from tests.streaming.player import outlet


@pytest.mark.parametrize("scanner", VENDORS)
def test_the_simulated_scanners_volumes_say_so_and_state_their_tr(scanner: str, tmp_path: Path) -> None:
    write_run(tmp_path, PhantomSession("easy", seed=61, seconds=4, tr_s=1.2), scanner, range(2))
    source = FolderSource(tmp_path, "read")
    volumes = []
    while batch := source.drain():
        volumes += batch
    assert [volume.simulated for volume in volumes] == [True, True]
    assert [volume.tr_s for volume in volumes] == [1.2, 1.2]


@pytest.mark.parametrize("folder", ["rt-cloud_siemens_mosaic_VE11_TR1500", "nibabel_nifti"])
def test_a_real_scanners_volumes_do_not(folder: str, data_root: Path) -> None:
    volumes = FolderSource(data_root / "scanner" / folder, "read", bound=False).drain()
    assert volumes
    assert not any(volume.simulated for volume in volumes)


def test_the_simulated_amplifiers_stream_says_so() -> None:
    session = PhantomSession("easy", seconds=1, sfreq=1000)
    name = f"simulated-{os.getpid()}"
    amplifier = EegOutlet(session, name)
    (stream,) = pylsl.resolve_byprop("name", name, timeout=60)
    eeg_layout = layout(pylsl.StreamInlet(stream).info(timeout=60))
    del amplifier
    assert eeg_layout.montage.simulated
    turned = Montage(eeg_layout.montage.channels[::-1], 1000)
    assert eeg_layout.ordered_as(turned.channels).montage.simulated
    assert not layout(outlet(f"real-{os.getpid()}").get_info()).montage.simulated
