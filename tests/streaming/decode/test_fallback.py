"""A decoder here that takes over while the one elsewhere does not answer in time."""

import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.errors import BundleError
from rtdecode.types import Window
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoded, Decoder, GivenUpError, SharedDecoder
from streaming.decode.fallback import FallbackDecoder, check_fallback
from streaming.sinks.clip_emitter import open_emitter
from streaming.sinks.report import build
from streaming.sinks.session_folder import prepare
from streaming.sinks.sheet import ContactSheet
from streaming.sinks.truth import Truth
from streaming.status import Status
from tests.refusals import refused
from tests.streaming.bundles import changed, make_bundle
from tests.streaming.windows import window

# Time that a window has, s.
LEFT_S = 20.0
SHORT_S = 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fallback")


@pytest.fixture(scope="module")
def shared(folder: Path) -> SharedDecoder:
    return SharedDecoder(make_bundle(folder / "bundle", steps=4))


@pytest.fixture(scope="module")
def fallback(folder: Path) -> Bundle:
    return make_bundle(folder / "fallback", steps=2)


class Slow:
    """A decoder that answers when the test lets it, as one does that is far away or stands still."""

    def __init__(self, shared: SharedDecoder) -> None:
        self._shared = shared
        self._here = shared.session()
        self.held = False
        self.waiting: list[tuple[Future[Decoded], Window, Sequence[str] | None]] = []
        self.kept: list[bool] = []
        self.numbers_of_steps = shared.numbers_of_steps
        self.cost = shared.cost
        self.runs_on = shared.runs_on
        self.notes: list[str] = []
        self.at_once = 3
        self.pixels = "raw"
        self.away_since: float | None = None

    def ask(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        chain: Sequence[str] | None = None,
        left_s: float = math.inf,
        keep: bool = True,
    ) -> Future[Decoded]:
        future: Future[Decoded] = Future()
        self.kept.append(keep)
        self.waiting.append((future, window, chain))
        if not self.held:
            self.answer()
        return future

    def answer(self, error: Exception | None = None) -> None:
        waiting, self.waiting = self.waiting, []
        for future, asked_window, chain in waiting:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(self._here.decode(asked_window, chain=chain))

    def decode(self, window: Window, steps: int | None = None, **how: object) -> Decoded:
        return self._here.decode(window, steps, null=bool(how.get("null")))

    def start_afresh(self) -> None:
        self._here = self._shared.session()

    def news(self) -> list[str]:
        return []

    def close(self) -> None:
        self.answer(GivenUpError("window-given-up", "the session has ended"))


def final(index: int) -> Window:
    cut = window(index, seed=index)
    return replace(cut, stamps=cut.stamps | {"windowed": 4.0 * index})


def clips(decoder: FallbackDecoder, *indices: int) -> list[Decoded]:
    return [decoder.ask(final(index), left_s=LEFT_S).result(60) for index in indices]


def test_what_is_late_is_decoded_here_until_two_finals_were_in_time(
    shared: SharedDecoder, fallback: Bundle
) -> None:
    elsewhere = Slow(shared)
    decoder = FallbackDecoder(elsewhere, shared.bundle, fallback)
    assert "is loaded here" in decoder.notes[0]
    here_again, here = shared.session(), Decoder(fallback)
    (first,) = clips(decoder, 0)
    assert first.bundle is None
    assert np.array_equal(first.clip.latent, here_again.decode(final(0)).clip.latent)
    elsewhere.held = True
    began = time.monotonic()
    overdue = decoder.ask(final(1), left_s=SHORT_S).result(60)
    assert time.monotonic() - began >= SHORT_S / 2
    # At once, as the decoder elsewhere is not relied on any more.
    (second,) = clips(decoder, 2)
    for decoded, index in ((overdue, 1), (second, 2)):
        expected = here.decode(final(index))
        assert decoded.bundle == fallback.digest
        assert decoded.carried_from == expected.carried_from == (None if index == 1 else "final")
        assert np.array_equal(decoded.clip.latent, expected.clip.latent)
    # The first of the two comes late, and the second one in time, as the next one does.
    elsewhere.answer()
    elsewhere.held = False
    back = clips(decoder, 3, 4, 5)
    assert [decoded.bundle for decoded in back] == [fallback.digest, None, None]
    assert elsewhere.kept == [True, True, False, False, True, True]
    here_again = shared.session()
    for decoded, index in zip(back[1:], (4, 5), strict=True):
        expected = here_again.decode(final(index))
        assert decoded.carried_from == expected.carried_from == (None if index == 4 else "final")
        assert np.array_equal(decoded.clip.latent, expected.clip.latent)
    takes_over, rests = decoder.news()
    assert takes_over.endswith("it has not answered within half of a window's time")
    assert "in time again" in rests
    assert decoder.news() == []
    decoder.close()


def test_all_that_waits_is_decoded_here_once_one_is_late(shared: SharedDecoder, fallback: Bundle) -> None:
    elsewhere = Slow(shared)
    elsewhere.held = True
    decoder = FallbackDecoder(elsewhere, shared.bundle, fallback)
    patient = decoder.ask(window(1, "preview", fmri=False), left_s=LEFT_S)
    late = decoder.ask(final(0), left_s=SHORT_S)
    assert [clip.result(60).bundle for clip in (late, patient)] == [fallback.digest] * 2
    decoder.close()


def test_a_final_that_was_given_up_elsewhere_is_decoded_here_and_a_preview_is_not(
    shared: SharedDecoder, fallback: Bundle
) -> None:
    elsewhere = Slow(shared)
    elsewhere.held = True
    decoder = FallbackDecoder(elsewhere, shared.bundle, fallback)
    error = GivenUpError("window-given-up", "the decoder cannot keep up")
    preview = decoder.ask(window(0, "preview", fmri=False), left_s=LEFT_S)
    elsewhere.answer(error)
    with refused(GivenUpError, "window-given-up"):
        preview.result(60)
    given_up = decoder.ask(final(0), left_s=LEFT_S)
    elsewhere.answer(error)
    assert given_up.result(60).bundle == fallback.digest
    over = decoder.ask(final(1), left_s=-1.0)
    with refused(GivenUpError, "window-given-up"):
        over.result(60)
    decoder.close()


def test_a_decoder_that_is_the_wrong_one_is_asked_no_more(shared: SharedDecoder, fallback: Bundle) -> None:
    elsewhere = Slow(shared)
    elsewhere.held = True
    decoder = FallbackDecoder(elsewhere, shared.bundle, fallback)
    clip = decoder.ask(final(0), left_s=LEFT_S)
    elsewhere.answer(BundleError("decoder-bundle-mismatch", "the decoder at wss://host has another bundle"))
    assert clip.result(60).bundle == fallback.digest
    elsewhere.held = False
    assert [decoded.bundle for decoded in clips(decoder, 1, 2, 3)] == [fallback.digest] * 3
    assert len(elsewhere.kept) == 1
    sentences = " ".join(decoder.news())
    assert "decoder-bundle-mismatch" in sentences
    assert "host" not in sentences
    decoder.close()


def test_a_fallback_that_reads_other_signals_is_refused(shared: SharedDecoder, folder: Path) -> None:
    check_fallback(shared.bundle, shared.bundle)
    differing_bundles = {
        "grid": make_bundle(folder / "grid", tr=Fraction(1, 2), window=Fraction(2)),
        "eeg": make_bundle(folder / "montage", channels=("Fp1", "Fz", "Cz", "Pz")),
        "voxels": make_bundle(folder / "voxels", fmri=False),
        "chain": changed(shared.bundle, folder / "chain", chain="offline"),
    }
    for differing, other in differing_bundles.items():
        with refused(BundleError, "fallback-bundle-mismatch", fallback=other.manifest.name) as caught:
            check_fallback(shared.bundle, other)
        assert differing in caught.value.values["differing"]
        assert caught.value.exit_code == 4


def test_clips_of_the_fallback_are_marked_counted_and_judged_by_nobody(
    shared: SharedDecoder, fallback: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Slow(shared)
    decoder = FallbackDecoder(elsewhere, shared.bundle, fallback)
    prepare(tmp_path / "out", overwrite=False)
    decided: list[tuple[bool, str]] = []
    labels: list[str] = []
    add = ContactSheet.add
    monkeypatch.setattr(
        ContactSheet, "add", lambda sheet, label, *given: (labels.append(label), add(sheet, label, *given))
    )
    output = open_emitter(
        tmp_path / "out",
        "s",
        shared.bundle,
        decoder,
        Truth(None, shared.bundle),
        time.monotonic,
        simulated=True,
        twin=True,
        on_decided=lambda _job, decoded, why: decided.append((decoded is not None, why)),
    )
    output.emit(Job(final(0), 0), LEFT_S)
    elsewhere.held = True
    output.emit(Job(final(1), 1), SHORT_S)
    output.judge()
    output.close()
    decoder.close()
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    assert [line["bundle"] for line in lines] == [shared.bundle.digest, fallback.digest]
    assert decided == [(True, ""), (False, "the fallback decoded it, whose clips a replay does not repeat")]
    report = build(
        "s",
        shared.bundle,
        output,
        Status().counters,
        2,
        simulated=True,
        ended="x",
        memory_mb=None,
        judged=None,
    )
    assert (report["windows"]["final"], report["windows"]["fallback"]) == (2, 1)
    assert "FALLBACK" not in labels[0]
    assert labels[1].split("   ")[1] == "FALLBACK"
    assert any("the fallback" in note for note in output.notes())
