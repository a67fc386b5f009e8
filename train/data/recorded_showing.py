"""A stretch of a recording in which a film was watched, as a plan asks for it (`train.data.showing`).

`stretches` finds them: windows of one run in which the film ran through. A film that was stopped, wound back
or followed by another begins a further one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle, ClipGeometry, Manifest
from rtdecode.disk.hashed_folder import file_hash
from rtdecode.disk.recording import Recording
from rtdecode.errors import UsageError
from rtdecode.phantom.film.cuts import find_cuts
from rtdecode.phantom.film.watched import Pictures
from rtdecode.signal.volume.projection import Projection
from rtdecode.types import Window
from train.config.run_context import Arrays
from train.data.clip_grid import shown_frames
from train.data.films import Frames, clips_at, cuts_at, read_film
from train.data.phantom import window_arrays
from train.data.recorded import cut_windows, film_starts, is_whole, raw_bundle
from train.data.showing import HeadVolumes, ShownClips

SOURCES = ["eeg", "fmri"]
# What messages put before the path of a film.
FILM_ARGUMENT = "film="
# The film runs through while film time and run time differ by the same, up to this, s.
_DRIFT_S = 0.5
# Frames that are compared with those of a film that was shown, and how much less two films correlate.
_COMPARED = 200
_ALIKE = 0.5
# A stretch of fewer windows is left out.
_LEAST = 3


@dataclass(frozen=True, eq=False)
class RecordedShowing:
    """Windows of one run in which the film ran through.

    Attributes
    ----------
    name : str
        Names its stages.
    title : str
        Windows of one title are left out together.
    source : str
        The film, by the beginning of its digest.
    recording : Path
        Folder of the recording.
    run : int
        Number of the run in the recording.
    path : Path
        The film.
    film_s : float
        Length of the film.
    index : int64, (window,)
        Numbers of the windows in the run.
    run_s, start_s : (window,)
        Their starts on the time line of the run, and of the film.
    head : Projection
        The voxels of the head.
    level : (voxel,)
        Their resting level.
    draft : Manifest
        How the windows are cut.
    edges_s : (part - 1,)
        Film times between the parts of its film's time, see `parts`.
    """

    name: str
    title: str
    source: str
    recording: Path
    run: int
    path: Path
    film_s: float
    index: NDArray[np.int64]
    run_s: NDArray[np.float64]
    start_s: NDArray[np.float64]
    head: Projection
    level: NDArray[np.float32]
    draft: Manifest
    edges_s: NDArray[np.float64]
    kind: str = "recorded"

    @property
    def pictures(self) -> str:
        """Name of the stage that holds its clips: no other session has windows at the same times."""
        return self.name

    @property
    def setting(self) -> str:
        """One and the same: nothing is known of what was suffered."""
        return self.kind

    @property
    def windows(self) -> int:
        """Number of windows."""
        return len(self.index)

    @property
    def parts(self) -> NDArray[np.int64]:
        """Which part of the time in which its film is taught each window lies in, (window,)."""
        return np.searchsorted(self.edges_s, self.start_s, side="right")

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Whether each window goes on where the one before it ended, (window,)."""
        hops = float(self.draft.grid.window / self.draft.grid.hop)
        return np.diff(self.index, prepend=-2 * hops) == hops

    def some(self, chosen: NDArray[np.bool_], name: str) -> "RecordedShowing":
        """Return some of its windows, under another name."""
        selected = {field: getattr(self, field)[chosen] for field in ("index", "run_s", "start_s")}
        return replace(self, name=name, **selected)

    def film(self) -> ShownClips:
        """Return what the windows showed."""
        return self._shown(self.start_s)

    def clips(self) -> NDArray[np.uint8]:
        """Return the clips of its windows."""
        return self.film().clips

    def words(self) -> list[str]:
        """Return a text without a word for each window: recordings are learned from with their film alone."""
        return [""] * self.windows

    def tiles(self) -> ShownClips:
        """Return the film from the first window on, cut into windows without a gap."""
        window_s = float(self.draft.grid.window)
        stop = self.start_s[-1] + window_s
        return self._shown(np.arange(self.start_s[0], stop - 1e-6, window_s))

    def _shown(self, starts: NDArray[np.float64]) -> ShownClips:
        frames = self._frames()
        clip = self.draft.clip
        length = shown_frames(self.draft)
        clips = clips_at(frames, starts, clip, length)
        return ShownClips(clips, cuts_at(find_cuts(frames), starts, clip, length))

    def _frames(self) -> Frames:
        return read_film(self.path, self.draft.clip, FILM_ARGUMENT)

    def watched(self) -> Pictures:
        """Return the film as if its windows had been shown one after the other, without the gaps."""
        frames = self._frames()
        length = shown_frames(self.draft)
        clips = clips_at(frames, self.start_s, self.draft.clip, length)[:, :length]
        cuts = find_cuts(frames)
        firsts = np.rint(self.start_s * self.draft.clip.fps).astype(int)
        # What lies on the two sides of a gap belongs to two shots.
        cut_frames = set(np.flatnonzero(~self.joined) * length)
        for k, first in enumerate(firsts):
            in_window = cuts[(cuts >= first) & (cuts < first + length)]
            cut_frames |= set(in_window - first + k * length)
        edges = np.array(sorted(cut_frames - {0}), np.int64)
        flat = clips.reshape(-1, *clips.shape[2:])
        return Pictures(flat, edges, window=length, fps=self.draft.clip.fps)

    def volumes(self, voxels: NDArray[np.int64] | None = None) -> HeadVolumes:
        """Return the volumes that its windows read, at some voxels or at all of the head."""
        voxels = self.head.voxels if voxels is None else voxels
        level = self.level[np.searchsorted(self.head.voxels, voxels)]
        raw = raw_bundle(self.draft, self.projection(voxels), level)
        grid = self.draft.grid
        assert grid.tr is not None
        tr = float(grid.tr)
        values: dict[int, NDArray[np.float32]] = {}
        times: dict[int, float] = {}
        for n, window in enumerate(self._cut(raw)):
            assert window.fmri is not None
            # The volume in slot 0; negative where the window begins before the run's first volume.
            first = grid.volumes(window.index).start - grid.empty_slots(window.index)
            before = self.start_s[n] - self.run_s[n] - self.start_s[0]
            for slot in np.flatnonzero(window.fmri_mask):
                # Windows that overlap share volumes.
                values[first + int(slot)] = window.fmri[slot]
                times[first + int(slot)] = (first + int(slot) + 0.5) * tr + before
        return HeadVolumes(np.stack([*values.values()]), np.array([*times.values()]), voxels, level)

    def projection(self, voxels: NDArray[np.int64]) -> Projection:
        """Make the projection that reads these voxels."""
        return replace(self.head, voxels=voxels)

    def arrays(self, bundle: Bundle) -> Arrays:
        """Run the recording through the chain, and take its windows."""
        return window_arrays(bundle.manifest, self._cut(bundle))

    def _cut(self, bundle: Bundle) -> list[Window]:
        windows = cut_windows(bundle, Recording(self.recording), SOURCES)
        by_index = {window.index: window for window in windows if window.run == self.run}
        return [by_index[int(index)] for index in self.index]


def stretches(
    recording: Recording,
    number: int,
    film: Path,
    source: str,
    head: Projection,
    level: NDArray[np.float32],
    draft: Manifest,
) -> list[RecordedShowing]:
    """Find where in a recording a film was watched.

    Parameters
    ----------
    recording : Recording
        The recording that is searched.
    number : int
        Its number among those that are trained on, from 1 on; it names the stages.
    film : Path
        File of the film.
    source : str
        See `RecordedShowing`.
    head, level, draft
        See `RecordedShowing`.

    Raises
    ------
    UsageError
        If the film is shorter than a window, is not the one of the markers or of the recording's truth, or no
        window lies inside it.
    """
    window_s = float(draft.grid.window)
    pictures = read_film(film, draft.clip, FILM_ARGUMENT)
    film_s = len(pictures) / draft.clip.fps
    if film_s < window_s:
        raise UsageError(
            "film-shorter-than-window",
            "{argument}{path} lasts {film_s:g} s, and a window has {window_s:g} s. Give the film "
            "that was shown.",
            argument=FILM_ARGUMENT,
            path=film,
            film_s=film_s,
            window_s=window_s,
        )
    _check_shown(recording, film, source, pictures, draft.clip)
    # One voxel is enough to tell which volumes came.
    probe = raw_bundle(draft, replace(head, voxels=head.voxels[:1]), level[:1])
    windows = cut_windows(probe, recording, SOURCES)
    starts = film_starts(recording, windows, film_s, film.name)
    pairs = zip(windows, starts, strict=True)
    placed = [(w, float(t)) for w, t in pairs if np.isfinite(t) and is_whole(w, SOURCES)]
    showings = []
    for part in _through(placed):
        if len(part) < _LEAST:
            continue
        run = part[0][0].run
        showings.append(
            RecordedShowing(
                name=f"{number}-{run}-{part[0][0].index}",
                title=source,
                source=source,
                recording=recording.path,
                run=run,
                path=film,
                film_s=film_s,
                index=np.array([window.index for window, _ in part]),
                run_s=np.array([window.start_s for window, _ in part]),
                start_s=np.array([start for _, start in part]),
                head=head,
                level=level,
                draft=draft,
                edges_s=np.zeros(0),
            )
        )
    if not showings:
        raise UsageError(
            "recording-no-film-stretch",
            "no stretch of {recording} with {min_windows} windows of EEG and volumes lies inside "
            "{argument}{path}. Give the film that was shown, and its recording.",
            recording=recording.path,
            min_windows=_LEAST,
            argument=FILM_ARGUMENT,
            path=film,
        )
    return showings


def _check_shown(recording: Recording, film: Path, source: str, pictures: Frames, clip: ClipGeometry) -> None:
    """Refuse a film that is another than the one that a recording keeps as its truth, if it keeps one."""
    truth_path = recording.path / "truth" / "film.mp4"
    if not truth_path.is_file() or file_hash(truth_path).startswith(source):
        return
    # The same film may have been compressed again, or lie there in another size.
    alike = likeness(pictures, read_film(truth_path, clip, FILM_ARGUMENT))
    if alike < _ALIKE:
        raise UsageError(
            "recording-film-not-shown",
            "{argument}{path} shows other pictures than {shown}, which was shown in this recording: they "
            "correlate by {alike:.2f}. Give the film that was shown, from its beginning.",
            argument=FILM_ARGUMENT,
            path=film,
            shown=truth_path,
            alike=alike,
        )


def likeness(first: Frames, second: Frames) -> float:
    """Correlate films at the same instants, each less its mean picture.

    Parameters
    ----------
    first, second : (frame, row, column, 3)
        What is longer is cut to the length of the other one.

    Returns
    -------
    float
        1 where one of them stands still: nothing can be told of it.
    """
    count = min(len(first), len(second))
    instants = np.linspace(0, count - 1, min(count, _COMPARED)).round().astype(int)
    changes = [film[instants].astype(np.float64) for film in (first, second)]
    changes = [film - film.mean(axis=0) for film in changes]
    scale = np.sqrt((changes[0] ** 2).sum() * (changes[1] ** 2).sum())
    return float((changes[0] * changes[1]).sum() / scale) if scale else 1.0


def _through(placed: Sequence[tuple[Window, float]]) -> Iterator[list[tuple[Window, float]]]:
    """Divide windows where another run begins, or the film did not run through."""
    part: list[tuple[Window, float]] = []
    for window, start in sorted(placed, key=lambda pair: (pair[0].run, pair[0].index)):
        if part:
            before, before_start = part[-1]
            drift = abs((start - window.start_s) - (before_start - before.start_s))
            if window.run != before.run or drift > _DRIFT_S:
                yield part
                part = []
        part.append((window, start))
    if part:
        yield part
