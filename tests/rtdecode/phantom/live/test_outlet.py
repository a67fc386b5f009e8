import os

import numpy as np
import pylsl
import pytest

from rtdecode.phantom.body.in_scanner_eeg import Artifacts
from rtdecode.phantom.live.outlet import EegOutlet, marker_outlet
from rtdecode.phantom.session import PhantomSession


def resolve_stream(name: str) -> pylsl.StreamInfo:
    streams = pylsl.resolve_byprop("name", name, 1, 30)
    assert streams, f"no stream {name}"
    return streams[0]


@pytest.mark.parametrize(
    ("artifacts", "kinds"), [(None, ["EEG"] * 64), (Artifacts(), ["EEG"] * 63 + ["ECG"])]
)
def test_the_stream_says_what_its_channels_are(artifacts: Artifacts | None, kinds: list[str]) -> None:
    name = f"outlet-{os.getpid()}-{len(set(kinds))}"
    session = PhantomSession("easy", seconds=1, sfreq=1000, artifacts=artifacts)
    outlet = EegOutlet(session, name)
    markers = marker_outlet(name)
    inlet = pylsl.StreamInlet(resolve_stream(name), recover=False)
    info = inlet.info(10)
    assert info.nominal_srate() == 1000
    assert info.type() == "EEG"
    assert info.get_channel_labels() == list(session.montage.channels)
    assert info.get_channel_types() == kinds
    assert info.get_channel_units() == ["microvolts"] * 64
    assert resolve_stream(f"{name}-markers").source_id() == f"{info.source_id()}-markers"
    inlet.close_stream()
    del outlet, markers


def test_it_dies_and_comes_back_as_itself_and_as_another() -> None:
    name = f"restart-{os.getpid()}"
    session = PhantomSession("easy", seconds=1, sfreq=1000, spec="eeg-restart@1:0.5,eeg-restart@2:0.5")
    outlet = EegOutlet(session, name)
    infos = [resolve_stream(name)]
    inlet = pylsl.StreamInlet(infos[0], recover=False)
    inlet.open_stream(10)
    zero = 10_000
    trigger_at = pylsl.local_clock()
    block = np.arange(64 * 100, dtype=np.float32).reshape(64, 100)
    outlet.push(block, zero, trigger_at)
    values, stamps = inlet.pull_chunk(timeout=5, max_samples=100)
    assert np.array_equal(np.array(values).T, block)
    assert np.allclose(stamps, trigger_at + np.arange(100) / 1000, atol=1e-6)
    for away, back in ((1000, 1500), (2000, 2500)):
        outlet.push(block, zero + away, trigger_at)
        assert not outlet.have_consumers()
        outlet.push(block, zero + back, trigger_at)
        infos.append(resolve_stream(name))
        assert infos[-1].uid() != infos[-2].uid()
    with pytest.raises(pylsl.util.LostError):
        inlet.pull_chunk(timeout=5)
    sources = [info.source_id() for info in infos]
    assert sources[0] == sources[1] != sources[2]
