"""One's own recordings, as a recipe's `data` node names them: ``data=REC[,REC] film=FILE[,FILE]``.

`RecordedSessions.with_recordings` opens recordings and films, finds what was watched in each run, and keeps
some runs from teaching. Nothing of a participant is assumed: grid, cap and head are those of the recordings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import bundle as bundles
from rtdecode import terminal
from rtdecode.bundle import EegInput, FmriInput, Manifest
from rtdecode.bundle.manifest import CAUSAL, OFFLINE
from rtdecode.disk.hashed_folder import file_hash
from rtdecode.disk.recording import Recording
from rtdecode.errors import GeometryError, UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid, exact
from rtdecode.types import Montage, Volume
from train.config.builders import Later
from train.config.run_context import RunContext
from train.data.chain import draft_manifest
from train.data.clip_grid import clip_of, with_size
from train.data.divided_runs import GAP_S, divided
from train.data.recorded import find_head
from train.data.recorded_showing import RecordedShowing, stretches

# The bundle whose minutes stand beside one's own.
_SHIPPED = "phantom"


@dataclass(frozen=True)
class RecordedSessions:
    """Recordings of one participant who watched films, and how a bundle reads the signals.

    Attributes
    ----------
    grid, band, baseline
        Grid of the windows, EEG filter, and how the resting level of the volumes is followed. The recordings'
        TR takes the place of the grid's.
    taught, held : tuple of RecordedShowing
        What teaches, and the run on which choices are made, and which is judged.
    draft : Manifest or None
        Manifest of a bundle that reads all voxels of the head; None before the recordings are known.
    about : dict
        What a bundle says of the recordings.
    single : bool
        Whether there is one run alone, so that a part of its time is held.
    without_triggers, recordings : int
        How many recordings have no trigger, and how many there are.
    """

    grid: TimingGrid
    band: EegBand
    baseline: Baseline
    taught: tuple[RecordedShowing, ...] = ()
    held: tuple[RecordedShowing, ...] = ()
    draft: Manifest | None = None
    about: dict[str, Any] | None = None
    single: bool = False
    without_triggers: int = 0
    recordings: int = 0

    def with_recordings(self, paths: Sequence[Path], films: Sequence[Path]) -> "RecordedSessions":
        """Train on recordings.

        Parameters
        ----------
        paths : sequence of Path
            Folders that ``--record`` wrote.
        films : sequence of Path
            The film of all of them, or one for each.

        Raises
        ------
        UsageError
            If they cannot be trained on together, or do not suffice.
        """
        if len(films) not in (1, len(paths)):
            raise UsageError(
                "recordings-film-count-mismatch",
                "film= names {films} films, and data= {recordings} recordings. Give one film for all "
                "recordings, or one for each, in the same order.",
                films=len(films),
                recordings=len(paths),
            )
        recordings = [Recording(path) for path in paths]
        digests = [recording.digest() for recording in recordings]
        if len({*digests}) < len(digests):
            raise UsageError(
                "recordings-duplicate",
                "data= names the same recording twice. A twin would teach what is held.",
            )
        montage = shared_montage(recordings)
        grid = replace(self.grid, tr=shared_tr(recordings, self.grid))
        head, level = shared_head(recordings)
        draft = recorded_manifest(grid, self.band, self.baseline, montage, head, recordings)
        recording_films = list(films) * (len(paths) // len(films))
        hashes = {film: file_hash(film) for film in dict.fromkeys(recording_films)}
        showings: list[RecordedShowing] = []
        for number, (recording, film) in enumerate(zip(recordings, recording_films, strict=True), 1):
            showings += stretches(recording, number, film, hashes[film][:16], head, level, draft)
        taught, held_out, single = divided(showings, float(grid.window))
        # Copies of one film are one film.
        film_names = {digest: film.name for film, digest in hashes.items()}
        about = {
            "participant": _participant(recordings, digests),
            "recordings": digests,
            "minutes": round(_minutes(taught, draft), 2),
            "films": [
                {"film": name, "seconds": _length(showings, digest), "sha256": digest}
                for digest, name in film_names.items()
            ],
        }
        without_triggers = sum(not recording.has_triggers() for recording in recordings)
        if without_triggers:
            about["without_triggers"] = without_triggers
        return replace(
            self,
            grid=grid,
            taught=tuple(taught),
            held=tuple(held_out),
            draft=draft,
            about=about,
            single=single,
            without_triggers=without_triggers,
            recordings=len(recordings),
        )

    def check(self, work: RunContext) -> None:
        """Refuse to train where no recordings were given.

        Raises
        ------
        UsageError
        """
        if not self.taught:
            raise UsageError(
                "recipe-needs-recordings",
                "this recipe trains on recordings: give data=REC[,REC] and film=FILE[,FILE].",
            )

    def say(self) -> None:
        """Print how many minutes there are, how many the shipped decoder had, and what is held."""
        assert self.draft is not None
        console = terminal.console(stderr=True, soft_wrap=True)
        minutes = _minutes(self.taught, self.draft)
        console.print(
            f"{minutes:.1f} minutes of recording teach. The shipped video model had {shipped_minutes():.0f}: "
            "the more there are, the more is read."
        )
        console.print(self.division)
        if self.timing:
            console.print(self.timing)

    @property
    def division(self) -> str:
        """What is held, in a sentence."""
        assert self.draft is not None
        minutes = _minutes(self.held, self.draft)
        if self.single:
            return (
                f"There is one run alone: its last {minutes:.1f} minutes are held for choices and judged, "
                f"{GAP_S:g} s before them are left out, and nothing tells what another run would give. "
                "Record a second run."
            )
        runs = len({(showing.recording, showing.run) for showing in self.held})
        which = "the last run is" if runs == 1 else f"the last {runs} runs are"
        return f"Of the runs, {which} held for choices and judged ({minutes:.1f} minutes)."

    @property
    def timing(self) -> str:
        """What is not known of when runs began, in a sentence; empty where all recordings have triggers."""
        if not self.without_triggers:
            return ""
        return (
            f"{self.without_triggers} of {self.recordings} recordings have no triggers, and their runs are "
            "placed by when volumes arrived: film and EEG lie late by what the quickest volume took to "
            "arrive. Record the scanner's triggers (docs/time.md)."
        )

    @property
    def held_out(self) -> str:
        """What the confidence is fitted on, in words."""
        return "held-out windows of the same recordings"

    def showings(self, work: RunContext, kind: str = "sessions") -> list[RecordedShowing]:
        """List the sessions of one kind (of `train.data.simulated.KINDS`): those that teach, and `held`."""
        return list({"sessions": self.taught, "held": self.held}.get(kind, ()))

    def manifest(self, projection: Projection | None = None) -> Manifest:
        """Draft the manifest of a bundle that reads the voxels of `projection`; by default the whole head."""
        assert self.draft is not None
        assert self.draft.fmri is not None
        if projection is None:
            return self.draft
        return replace(self.draft, fmri=replace(self.draft.fmri, voxels=len(projection.voxels)))

    def provenance(self, work: RunContext) -> dict[str, Any]:
        """Return what a bundle says about its data. Recordings go by their digests alone."""
        return dict(self.about or {})


def recorded_manifest(
    grid: TimingGrid,
    band: EegBand,
    baseline: Baseline,
    montage: Montage,
    head: Projection,
    recordings: Sequence[Recording],
) -> Manifest:
    """Draft the manifest of a bundle that reads the EEG and all voxels of the head of some recordings."""
    eeg = EegInput(_channels(montage), montage.reference, "microvolts", band)
    fmri = FmriInput(len(head.voxels), list(head.shape), head.affine.tolist(), baseline)
    simulated = all(recording.meta.get("simulated") is True for recording in recordings)
    chain = OFFLINE if any(recording.offline for recording in recordings) else CAUSAL
    return draft_manifest("recorded", grid, clip_of(grid), eeg, fmri, simulated=simulated, chain=chain)


def recorded_sessions(
    grid: TimingGrid, band: EegBand, baseline: Baseline, clip: Later[str] = ""
) -> RecordedSessions:
    """Say how recordings are read; which ones is told when a run begins (`with_recordings`).

    `clip` is a size of the clips, see `train.data.clip_grid.with_size`.
    """
    return RecordedSessions(with_size(grid, clip), band, baseline)


def shipped_minutes() -> float:
    """Return how many minutes of recording the shipped video model was trained on."""
    provenance = bundles.load(_SHIPPED).manifest.provenance
    films = provenance.get("films", [{"seconds": provenance["seconds"]}])
    seconds = sum(film["seconds"] for film in films) * len(provenance["sessions"])
    # Freely cut sessions show one film.
    return (seconds + provenance["seconds"] * len(provenance.get("free", []))) / 60


def shared_montage(recordings: Sequence[Recording]) -> Montage:
    """Return the cap that all recordings share.

    Raises
    ------
    UsageError
        If they have several, or one of them lacks EEG or volumes.
    """
    montages: list[tuple[Recording, Montage]] = []
    for recording in recordings:
        if recording.montage is None or not recording.has_volumes():
            lacking = "EEG" if recording.montage is None else "volumes"
            raise UsageError(
                "recording-missing-modality",
                "data={recording} has no {modality}, and this decoder learns from EEG and volumes "
                "together. Give recordings of both.",
                recording=recording.path,
                modality=lacking,
            )
        montages.append((recording, recording.montage))
    first, cap = montages[0]
    for recording, other in montages[1:]:
        if sorted(_channels(other)) != sorted(_channels(cap)) or other.reference != cap.reference:
            raise UsageError(
                "recordings-montage-mismatch",
                "{recording} has {channels} EEG channels against {reference}, {alone} of them alone, and "
                "{first_recording} has {first_channels} against {first_reference}, {first_alone} of them "
                "alone. Give recordings of one cap.",
                recording=recording.path,
                channels=len(_channels(other)),
                reference=_reference(other),
                alone=_only_in(other, cap),
                first_recording=first.path,
                first_channels=len(_channels(cap)),
                first_reference=_reference(cap),
                first_alone=_only_in(cap, other),
            )
    return cap


def shared_head(recordings: Sequence[Recording]) -> tuple[Projection, NDArray[np.float32]]:
    """Find the voxels of the head that all recordings share, and their mean, as `find_head` does.

    Raises
    ------
    UsageError
        If a recording has volumes of another grid than the first. Flipped and permuted axes are one grid.
    """
    try:
        return find_head(recordings)
    except GeometryError as error:
        raise UsageError(
            "recordings-grid-mismatch",
            "the recordings have volumes of more than one grid: {grids}. Give recordings of one protocol, "
            "with the slices at one place.",
            grids="; ".join(f"{recording.path}: {_grids_of(recording)}" for recording in recordings),
            error=error,
        ) from error


def _grids_of(recording: Recording) -> str:
    """Say which grids the volumes of a recording have."""
    grids: dict[str, None] = {}
    for item in recording.events():
        if isinstance(item, Volume):
            grids[f"{item.data.shape} voxels with the affine {np.round(item.affine, 2).tolist()}"] = None
    return ", and ".join(grids)


def _only_in(montage: Montage, other: Montage) -> list[str]:
    """List the EEG channels that another cap does not have."""
    other_channels = {*_channels(other)}
    return [channel for channel in _channels(montage) if channel not in other_channels]


def _reference(montage: Montage) -> str:
    return montage.reference or "a reference that it does not name"


def _channels(montage: Montage) -> list[str]:
    pairs = zip(montage.channels, montage.kinds, strict=True)
    return [channel for channel, kind in pairs if kind == "eeg"]


def shared_tr(recordings: Sequence[Recording], grid: TimingGrid) -> Any:
    """Return the TR that all recordings share; that of the recipe where volumes do not say it.

    Raises
    ------
    UsageError
        If they have several.
    """
    trs = {}
    for recording in recordings:
        volume = next(item for item in recording.events() if isinstance(item, Volume))
        trs[str(recording.path)] = None if volume.tr_s is None else exact(round(volume.tr_s, 4))
    if len({*trs.values()}) > 1:
        listed = ", ".join(f"{path}: {'unknown' if tr is None else f'{tr} s'}" for path, tr in trs.items())
        raise UsageError(
            "recordings-tr-mismatch",
            "data=: the recordings differ in TR ({trs}). Give recordings of one protocol.",
            trs=listed,
        )
    (tr,) = {*trs.values()}
    return grid.tr if tr is None else tr


def _participant(recordings: Sequence[Recording], digests: Sequence[str]) -> str:
    """Name simulated participants; a recorded one is known by the recordings' digests alone."""
    metas = [recording.meta for recording in recordings]
    people = {f"preset {m['preset']}, subject {m['subject']}" for m in metas if {"preset", "subject"} <= {*m}}
    if all(meta.get("simulated") is True for meta in metas) and people:
        return f"simulated, {'; '.join(sorted(people))}"
    return f"recorded, {', '.join(digests)}"


def _minutes(showings: Sequence[RecordedShowing], draft: Manifest) -> float:
    return sum(showing.windows for showing in showings) * float(draft.grid.hop) / 60


def _length(showings: Sequence[RecordedShowing], digest: str) -> float:
    """Return how much of a film was watched, s, from its first window in any session to its last."""
    film_showings = [showing for showing in showings if digest.startswith(showing.source)]
    starts = np.concatenate([showing.start_s for showing in film_showings])
    return float(starts.max() - starts.min() + film_showings[0].draft.grid.window)
