"""Decoded windows on disk: what was stopped goes on to the same bits, and what was altered is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.scores.events import Span
from tests.refusals import refused
from train.artifacts.run_folder import trained_of
from train.artifacts.slots import parts_of
from train.config.run_context import Arrays
from train.config.run_files import read_run
from train.data.phantom import session_arrays, session_spans
from train.evaluation.kept_decodes import BeingDecodedError, KeptDecodes
from train.evaluation.reconstruct import Reconstruction
from train.evaluation.result import make_decode
from train.interface.system import System, Trained

# The shipped run: a system whose clips carry on from each other, and which nobody has to train.
RUN = Path(__file__).parents[3] / "train" / "runs" / "phantom"
# Calls of the system after which it is stopped: while latents are sampled, and while clips are drawn.
STOPS = (1, 3, 4, 5)
SECONDS = 16.0


class Stopping:
    """A system that stops the process at one of its calls."""

    def __init__(self, system: System, stop_at: int = -1) -> None:
        self._system = system
        self.at = stop_at
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    def sample(self, *inputs: Any) -> NDArray[np.floating]:
        self._count()
        return self._system.sample(*inputs)

    def frames(self, latents: NDArray[Any]) -> NDArray[Any]:
        self._count()
        return self._system.frames(latents)

    def _count(self) -> None:
        if self.calls == self.at:
            raise KeyboardInterrupt
        self.calls += 1


def windows() -> tuple[Trained, Arrays, list[Span]]:
    parts = parts_of(read_run(RUN)["arguments"])
    trained = trained_of(RUN, parts.system)
    # What is kept does not depend on how many steps a clip takes.
    trained = replace(trained, manifest=replace(trained.manifest, steps=1))
    session: Any = parts.data.who.session(1000, SECONDS)  # type: ignore[attr-defined]
    return trained, session_arrays(trained.bundle, session), session_spans(trained.manifest, session)


def same(first: Reconstruction, second: Reconstruction) -> bool:
    np.testing.assert_array_equal(first.confidence, second.confidence)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.latents, second.latents)
    return all(np.array_equal(a, b) for a, b in zip(first.clips, second.clips, strict=True))


def test_what_was_stopped_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    trained, inputs, where = windows()
    uninterrupted = Stopping(trained.system)
    plain = make_decode(uninterrupted, trained.manifest, "1")(inputs, where)  # type: ignore[arg-type]
    assert uninterrupted.calls == max(STOPS)
    for stop_at in STOPS[:-1]:
        archive = KeptDecodes(tmp_path / str(stop_at))
        stopping = Stopping(trained.system, stop_at)
        with pytest.raises(KeyboardInterrupt):
            make_decode(stopping, trained.manifest, "1", archive)(inputs, where)  # type: ignore[arg-type]
        going_on = Stopping(trained.system)
        resumed = make_decode(going_on, trained.manifest, "1", archive)(inputs, where)  # type: ignore[arg-type]
        assert same(resumed, plain)
        assert going_on.calls == uninterrupted.calls - stop_at
        # All of it is there now, and nothing is decoded.
        again = Stopping(trained.system, 0)
        assert same(make_decode(again, trained.manifest, "1", archive)(inputs, where), plain)  # type: ignore[arg-type]


def test_clips_go_on_within_those_that_are_drawn_together(tmp_path: Path) -> None:
    archive = KeptDecodes(tmp_path).of("system", {}, [], {})
    clips = [np.full((2, 3, 4, 3), n, np.uint8) for n in range(7)]
    starts = []

    def draw(first: int, last: int = 7) -> Any:
        starts.append(first)
        yield from clips[first:last]
        if last < 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.clips(7, 2, lambda first: draw(first, 5))
    # What a process leaves that was killed while it wrote: a clip without a digest.
    with (archive.folder / "clips.u8").open("ab") as file:
        file.write(b"half a clip")
    archived = archive.clips(7, 2, draw)
    assert starts == [0, 4]
    np.testing.assert_array_equal(np.stack(archived), np.stack(clips))  # type: ignore[arg-type]


def test_what_was_altered_or_cut_is_told(tmp_path: Path) -> None:
    archive = KeptDecodes(tmp_path).of("system", {}, [], {})
    clips = [np.full((2, 3, 4, 3), n, np.uint8) for n in range(3)]
    archive.clips(3, 2, lambda first: iter(clips[first:]))
    path = archive.folder / "clips.u8"
    good = path.read_bytes()
    path.write_bytes(good[:100] + b"\xff" + good[101:])
    with refused(UsageError, "evaluation-kept-altered", path=path, folder=archive.folder):
        archive.clips(3, 2, lambda first: iter(clips[first:]))
    path.write_bytes(good[:-1])
    with refused(UsageError, "evaluation-kept-altered", path=path):
        archive.clips(3, 2, lambda first: iter(clips[first:]))
    first = archive.folder / "round-00000.npz"
    archive.round(0, lambda: {"latents": np.zeros(400)})
    first.write_bytes(first.read_bytes()[:-300])
    with refused(UsageError, "evaluation-kept-altered", path=first):
        archive.round(0, dict)


def test_other_signals_noise_or_steps_are_decoded_anew(tmp_path: Path) -> None:
    archive = KeptDecodes(tmp_path)
    inputs = {"eeg": np.zeros((2, 3))}
    where: list[Span] = [(0, 0.0, 4.0), (0, 4.0, 8.0)]
    folders = {
        archive.of("a", inputs, where, {"steps": 4}).folder,
        archive.of("b", inputs, where, {"steps": 4}).folder,
        archive.of("a", {"eeg": np.ones((2, 3))}, where, {"steps": 4}).folder,
        archive.of("a", inputs, where[::-1], {"steps": 4}).folder,
        archive.of("a", inputs, where, {"steps": 1}).folder,
    }
    assert len(folders) == 5


def test_windows_that_another_process_decodes_are_waited_for_or_passed_over(tmp_path: Path) -> None:
    first = KeptDecodes(tmp_path).of("system", {}, [], {})
    other = KeptDecodes(tmp_path).of("system", {}, [], {"steps": 1})
    with first.alone(waits=True):
        with pytest.raises(BeingDecodedError), first.alone(waits=False):
            raise AssertionError("two had the same windows")
        with other.alone(waits=False):
            pass
    with first.alone(waits=False):
        pass
