"""Windows that are sent before those before them have their clips."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from rtdecode.bundle import Bundle
from streaming.decode.decoder import GivenUpError, SharedDecoder
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.serve.running import Running, remote, running, until
from tests.streaming.serve.test_serve import film, same
from tests.streaming.windows import window


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("pipelined") / "bundle", steps=2)


@pytest.fixture(scope="module")
def shared(bundle: Bundle) -> SharedDecoder:
    return SharedDecoder(bundle)


@contextmanager
def busy(server: Running) -> Iterator[None]:
    """Let the server decode nothing while the block runs."""
    server.decoder.released.clear()
    try:
        yield
    finally:
        server.decoder.released.set()


def test_a_preview_carries_on_from_a_final_that_has_no_clip_yet(shared: SharedDecoder) -> None:
    here = shared.session()
    final = film(1)[1]
    preview = replace(window(1, "preview", fmri=False), stamps={"windowed": 9.0})
    with running(shared) as server, closing(remote(shared, server)) as decoder:
        with busy(server):
            clips = [decoder.ask(cut) for cut in (final, preview)]
            until(lambda: len(server.scheduler) == 1)
            assert not any(clip.done() for clip in clips)
        for cut, clip in zip((final, preview), clips, strict=True):
            same(clip.result(60), here.decode(cut))
        assert clips[1].result().carried_from == "final"
        assert decoder.news() == []


def test_finals_that_wait_together_keep_their_order(shared: SharedDecoder) -> None:
    here = shared.session()
    finals = [cut for cut in film(3) if cut.revision == "final"]
    with running(shared) as server, closing(remote(shared, server)) as decoder:
        with busy(server):
            clips = [decoder.ask(cut) for cut in finals]
            until(lambda: len(server.scheduler) == 2)
        for cut, clip in zip(finals, clips, strict=True):
            decoded = clip.result(60)
            same(decoded, here.decode(cut))
            assert decoded.carried_from == ("final" if cut.index else None)


def test_all_that_were_under_way_are_decoded_by_the_next_decoder(shared: SharedDecoder) -> None:
    here = shared.session()
    finals = [cut for cut in film(4) if cut.revision == "final"]
    with (
        running(shared) as second,
        running(shared) as first,
        closing(remote(shared, first, second)) as decoder,
    ):
        same(decoder.decode(finals[0]), here.decode(finals[0]))
        with busy(first):
            clips = [decoder.ask(cut) for cut in finals[1:]]
            until(lambda: len(first.scheduler) == 2)
            (connection,) = first.server.connections
            first.loop.call_soon_threadsafe(first.server.end)
            first.loop.call_soon_threadsafe(connection.abort)
            for cut, clip in zip(finals[1:], clips, strict=True):
                decoded = clip.result(60)
                same(decoded, here.decode(cut))
                assert decoded.carried_from == "final"
        assert len(second.scheduler.sessions) == 1


def test_what_is_given_up_here_is_not_decoded_there(shared: SharedDecoder) -> None:
    with running(shared) as server, closing(remote(shared, server, hop_s=0.2)) as decoder:
        with busy(server):
            cut = film(1)[0]
            waiting = decoder.ask(cut)
            with refused(GivenUpError, "window-given-up", why="the decoder elsewhere did not answer in time"):
                decoder.decode(cut, null=True)
            until(lambda: len(server.scheduler) == 0)
        assert waiting.result(60).clip.frames.any()
        assert decoder.news() == [], "nobody waits for a twin: that it is late is no fault of the decoder's"
