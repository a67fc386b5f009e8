"""Clips whose frames take more than a message should have come as MP4."""

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.disk.video import from_mp4, to_mp4
from streaming.decode.decoder import GivenUpError, SharedDecoder
from streaming.serve import protocol, server
from streaming.serve.protocol import Shapes
from streaming.sinks.report import build
from streaming.status import Status
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.serve.running import remote, running
from tests.streaming.serve.test_serve import film
from tests.streaming.serve.test_session import job, opened


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("film") / "bundle", steps=2)


@pytest.fixture(scope="module")
def shared(bundle: Bundle) -> SharedDecoder:
    return SharedDecoder(bundle)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of the small bundle count as large, and their MP4 goes in several messages."""
    monkeypatch.setattr(protocol, "MOST_RAW_BYTES", 100_000)
    monkeypatch.setattr(server, "FILM_BYTES", 4000)


def test_small_clips_come_as_they_were_drawn(shared: SharedDecoder) -> None:
    assert not Shapes.of(shared.bundle.manifest).goes_as_film
    with running(shared) as film_server, closing(remote(shared, film_server)) as decoder:
        assert decoder.pixels == "raw"
        assert decoder.decode(film()[0]).film is None


@pytest.mark.usefixtures("large")
def test_a_large_clip_comes_as_mp4_with_the_same_latent(shared: SharedDecoder) -> None:
    here = shared.session()
    with running(shared) as film_server, closing(remote(shared, film_server)) as decoder:
        assert decoder.pixels == "mp4"
        # The third carries on from the second, whose states have come with its film.
        for cut in film(2):
            decoded, expected = decoder.decode(cut), here.decode(cut)
            assert decoded.film == to_mp4(expected.clip.frames, 8.0)
            assert np.array_equal(decoded.clip.frames, from_mp4(decoded.film))
            assert np.array_equal(decoded.clip.latent, expected.clip.latent)
            assert decoded.carried_from == expected.carried_from
        together = [decoder.ask(cut) for cut in film(4)[5:] if cut.revision == "final"]
        assert all(clip.result(60).film for clip in together)


@pytest.mark.usefixtures("large")
def test_a_film_that_cannot_be_read_gives_no_clip(
    shared: SharedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(shared) as film_server, closing(remote(shared, film_server)) as decoder:
        monkeypatch.setattr(server, "to_mp4", lambda *_: b"no film")
        with refused(GivenUpError, "window-given-up") as caught:
            decoder.decode(film()[0])
        assert "its film cannot be read" in str(caught.value)
        shorter = to_mp4(np.zeros((3, 64, 96, 3), np.uint8), 8.0)
        monkeypatch.setattr(server, "to_mp4", lambda *_: shorter)
        with refused(GivenUpError, "window-given-up") as caught:
            decoder.decode(film()[0])
        assert "(3, 64, 96, 3)" in str(caught.value)


@pytest.mark.usefixtures("large")
def test_the_film_is_the_clips_file_and_the_report_says_so(shared: SharedDecoder, tmp_path: Path) -> None:
    with running(shared) as film_server, closing(remote(shared, film_server)) as decoder:
        output = opened(tmp_path, shared.bundle, decoder)
        output.emit(job(0))
        output.judge()
        output.close()
        expected = decoder.decode(job(0).window, chain=[]).film
    (file,) = (tmp_path / "out" / "clips").glob("*.mp4")
    assert file.read_bytes() == expected
    counters = Status().counters
    how = {"simulated": True, "ended": "x", "memory_mb": None, "judged": None}
    report = build(str(time.time()), shared.bundle, output, counters, 1, **how)
    assert report["pixels"] == "mp4"
