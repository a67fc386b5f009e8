"""What was shown in an imported run: its events, the film, and when the film began."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from av.error import FFmpegError

from rtdecode.disk import private
from rtdecode.disk.film_file import open_film
from rtdecode.disk.film_marks import END, FilmMark, frame_label, start_label
from rtdecode.disk.tsv import read_tsv
from rtdecode.errors import UsageError
from streaming.importing.eeg import Marker

# What events of BIDS name that is a film.
_FILMS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
# An event may end by so much after the film: both are rounded, s.
_SLACK_S = 0.1
# Columns of events that enter a recording: others may hold anything.
_COLUMNS = ("onset", "duration", "trial_type")


@dataclass(frozen=True, slots=True)
class Showing:
    """A film and its events.

    Attributes
    ----------
    film : Path or None
        The film's file; None where events alone are known.
    onset_s : float
        When the film began, s after the start of the first volume.
    fps : float
        Frames per second of the film; 0 without one.
    frames : int
        Number of frames in the film.
    events : list of dict
        Rows with onset, duration and trial_type; onsets count from the start of the first volume.
    begins_at : float
        Start of the first volume on the clock of the EEG, s.
    rate : float
        Seconds of that clock per second of the run.
    """

    film: Path | None
    onset_s: float
    fps: float
    frames: int
    events: list[dict[str, str]]
    begins_at: float
    rate: float

    def marks(self) -> list[FilmMark]:
        """Return the markers that `rtdecode play` would have sent at the film's beginning and end."""
        if self.film is None:
            return []
        last = self.frames - 1
        times = [(start_label(self.film.name, self.fps, self.frames), 0.0), (frame_label(0), 0.0)]
        times += [(frame_label(last), last / self.fps), (END, self.frames / self.fps)]
        stamps = [self.begins_at + self.rate * (self.onset_s + film_s) for _, film_s in times]
        return [FilmMark(stamp, label, stamp) for stamp, (label, _) in zip(stamps, times, strict=True)]

    def write(self, folder: Path) -> None:
        """Write the truth of the recording: its events and, where it began with the run, the film."""
        if not self.events and self.film is None:
            return
        private.folder(folder)
        lines = ["\t".join(_COLUMNS), *("\t".join(row[name] for name in _COLUMNS) for row in self.events)]
        private.file(folder / "events.tsv").write_text("\n".join(lines) + "\n")
        if self.film is not None and self.onset_s == 0:
            shutil.copyfile(self.film, private.file(folder / "film.mp4"))


def read_showing(
    film: Path | None,
    events: Path | None,
    film_at: str | None,
    markers: Sequence[Marker],
    begins_at: float,
    rate: float,
    lead_s: float = 0.0,
) -> Showing:
    """Read what was shown.

    Parameters
    ----------
    film, events : Path, optional
        A film, and a table of events as BIDS has it.
    film_at : str, optional
        When the film began: seconds after the start of the first volume, or the text of a marker. By default
        the onset of the only event that names a film, or 0.
    markers : sequence of Marker
        Markers of the EEG file, among which `film_at` may name one.
    begins_at, rate : float
        As in `Showing`, of the first volume of the file.
    lead_s : float
        How long after that the run begins, s: with the first volume that is no dummy.

    Raises
    ------
    UsageError
        If a table or the film cannot be read, it is not known when the film began, or events lie after its
        end.
    """
    rows = [] if events is None else read_tsv(events)
    for row in rows:
        _check(events, row)
    # Rounded, so that a film that began with the run is known by its 0.
    onset_s = round(_onset(film, film_at, rows, markers, begins_at, rate) - lead_s, 9)
    begins_at += rate * lead_s
    if lead_s:
        rows = [row | {"onset": repr(round(float(row["onset"]) - lead_s, 9))} for row in rows]
    # A row that names a film spans the others: it is no event in the film.
    inner = [row for row in rows if not _names_film(row)]
    rows = inner or rows
    if film is None:
        return Showing(None, 0.0, 0.0, 0, _columns_of(rows), begins_at, rate)
    fps, frames = _measured(film)
    last_s = max((float(row["onset"]) + float(row["duration"]) for row in rows), default=0.0)
    if last_s > onset_s + frames / fps + _SLACK_S:
        raise UsageError(
            "import-film-short",
            "{film} lasts {film_s:.3f} s from {onset_s:g} s on, and the events of {events} end at {last_s:g} "
            "s. Give the whole film, or the events of this run.",
            film=film,
            film_s=frames / fps,
            onset_s=onset_s,
            events=events,
            last_s=last_s,
        )
    return Showing(film, onset_s, fps, frames, _columns_of(rows), begins_at, rate)


def _measured(film: Path) -> tuple[float, int]:
    """Return frames a second and number of frames of a film."""
    try:
        with open_film(film) as opened:
            if opened.fps is None:
                raise ValueError("it does not say how many frames a second it has")
            fps = float(opened.fps)
            length_s = opened.length_s
            frames = sum(1 for _ in opened.frames()) if length_s is None else round(length_s * fps)
    except (OSError, FFmpegError, ValueError) as error:
        raise UsageError(
            "import-film-unreadable", "the film {film} cannot be read: {error}", film=film, error=error
        ) from error
    return fps, frames


def _check(path: Path | None, row: dict[str, str]) -> None:
    try:
        float(row["onset"])
        if row.get("duration", "n/a") == "n/a":
            row["duration"] = "0"
        float(row["duration"])
    except (KeyError, ValueError) as error:
        raise UsageError(
            "import-events-malformed",
            "{path} cannot be read as events ({error}): onset and duration are needed, in seconds.",
            path=path,
            error=error,
        ) from error


def _names_film(row: dict[str, str]) -> bool:
    return row.get("stim_file", "").lower().endswith(_FILMS)


def _columns_of(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: row.get(name) or "n/a" for name in _COLUMNS} for row in rows]


def _onset(
    film: Path | None,
    film_at: str | None,
    rows: list[dict[str, str]],
    markers: Sequence[Marker],
    begins_at: float,
    rate: float,
) -> float:
    if film_at is None:
        naming = [float(row["onset"]) for row in rows if _names_film(row)]
        if film is not None and len(naming) > 1:
            raise UsageError(
                "import-film-onset-unclear",
                "the events name a film {count} times. Say with --film-at when {film} began.",
                count=len(naming),
                film=film,
            )
        return naming[0] if naming else 0.0
    try:
        return float(film_at)
    except ValueError:
        stamps = [marker.stamp for marker in markers if marker.label == film_at]
    if len(stamps) != 1:
        raise UsageError(
            "import-film-marker-unclear",
            "--film-at {film_at}: the EEG has {count} markers of that text, and one was expected. Its "
            "markers are {available}.",
            film_at=film_at,
            count=len(stamps),
            available=sorted({marker.label for marker in markers})[:12] or ["none"],
        )
    return (stamps[0] - begins_at) / rate
