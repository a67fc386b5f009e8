"""Sessions of the simulated participant, run through the causal chain.

A `Participant` makes sessions, `session_arrays` turns one into arrays of windows, and `spans` and `events`
say what was shown in each window (`train.data.film_windows` has the clips). `clips_of_training` draws once
more what a run was trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle, EegInput, FmriInput, Manifest
from rtdecode.bundle.manifest import OFFLINE
from rtdecode.errors import UsageError
from rtdecode.phantom.body.amplifier import montage
from rtdecode.phantom.body.brain import TR, VOXELS
from rtdecode.phantom.body.cortex import MIXED, check_cortex, regions
from rtdecode.phantom.body.in_scanner_eeg import Artifacts
from rtdecode.phantom.body.scanner import SHAPE, head
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.film.watched import SHAPES, Watched, watched
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.events import Event, Span
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid, exact
from rtdecode.types import Float, Window
from train.config.builders import Later
from train.config.run_context import Arrays, RunContext
from train.data.chain import draft_manifest, windows
from train.data.clip_grid import clip_of
from train.data.film_windows import each_clip, film_clips
from train.data.offline import offline_arrays
from train.data.regions import joined, unknown

# The signals of the simulated participant.
MODALITIES = ("eeg", "fmri")
# The seeds of sessions for training. All others are for judging.
TRAINING_SEEDS = range(1000)

# What a session may suffer and still be one of a brain: an electrode without contact, faults on the way of
# both modalities, a head that moves, and the magnet's artefacts.
ELECTRODE = "electrode"
DISTURBANCES: Mapping[str, Mapping[str, Any]] = {
    ELECTRODE: {},
    "faults": {"spec": "volume-drop=3,volume-late=2,eeg-drop=2,trigger-drop=2"},
    "motion": {"motion": "typical"},
    "magnet": {"artifacts": Artifacts()},
}
# Noise of an electrode without contact, standard deviation, microvolts.
_LOOSE_UV = 300.0
# Seeds of one participant's noise lie so far above those of another's.
_NOISE_APART = 1_000_000


class LooseElectrode(PhantomSession):
    """A session in which one electrode, another one in each, has lost contact throughout."""

    def eeg_blocks(self) -> Iterator[Float]:
        """Yield the EEG second by second, as `PhantomSession.eeg_blocks` does."""
        rng = np.random.default_rng((self.seed, 91, *f"{self.preset.name} {self.film_name}".encode()))
        channel = rng.integers(self.montage.kinds.count("eeg"))
        for block in super().eeg_blocks():
            block[channel] += _LOOSE_UV * rng.standard_normal(block.shape[1], np.float32)
            yield block


@dataclass(frozen=True)
class Participant:
    """A simulated participant and how hard it is to read: preset, brain, size of a volume, and its film.

    `film` is a word (`shapes`, `known-shapes`, `natural`, `none`) or a path, see
    `rtdecode.phantom.film.watched`. `disturbance` is one of `DISTURBANCES`, or empty. `tr` is the time
    between volumes, s; None takes that of the grid by which the participant is read (`scanned_on`).
    `cortex` is a word of `rtdecode.phantom.body.cortex`, and `region` an area of a shared one, or several
    with plus signs between them, whose voxels alone are read. `own_noise` is for the second of several
    participants in a run and those that follow: they watch the film of a seed as the first one does, under
    noise that is not the first one's.
    """

    preset: str = "easy"
    subject: int = 1
    shape: tuple[int, int, int] = SHAPE
    film: str = SHAPES
    disturbance: str = ""
    tr: Fraction | None = None
    cortex: str = MIXED
    region: str = ""
    own_noise: bool = False

    @property
    def name(self) -> str:
        """Name of the participant where there are several."""
        return f"sub-{self.subject:02}"

    @property
    def prefix(self) -> str:
        """What stages of this participant begin with, so that they are told from the first one's."""
        return f"{self.name}-" if self.own_noise else ""

    @property
    def tr_s(self) -> float:
        """Time between volumes, s."""
        return TR if self.tr is None else float(self.tr)

    def scanned_on(self, grid: TimingGrid) -> "Participant":
        """Return this participant in a scanner with the TR of a grid.

        Raises
        ------
        UsageError
            If the participant is scanned at another TR.
        """
        if grid.tr is None or self.tr == grid.tr:
            return self
        if self.tr is not None:
            raise UsageError(
                "participant-tr-mismatch",
                "the participant is scanned at TR {participant_tr_s:g} s (data.who.tr), and the grid has TR "
                "{grid_tr_s:g} s (data.grid.tr). Give one of them, or both the same.",
                participant_tr_s=float(self.tr),
                grid_tr_s=float(grid.tr),
            )
        return replace(self, tr=grid.tr)

    def session(self, seed: int, seconds: float | None, cuts: str = "grid") -> PhantomSession:
        """Make one session; the seed fixes noise and, of films that are drawn, the film."""
        # The simulation draws noise by the seed alone, and two people have none in common.
        noise_seed = seed + _NOISE_APART * self.subject if self.own_noise else seed
        film_seed = seed if self.own_noise else None
        kind_of_session = LooseElectrode if self.disturbance == ELECTRODE else PhantomSession
        suffered = DISTURBANCES[self.disturbance] if self.disturbance else {}
        return kind_of_session(
            self.preset,
            self.subject,
            noise_seed,
            seconds,
            cuts,
            shape=self.shape,
            film=self.film,
            tr_s=self.tr_s,
            film_seed=film_seed,
            cortex=self.cortex,
            **suffered,
        )

    @property
    def read(self) -> NDArray[np.bool_]:
        """Which of the voxels that respond to the film are read, (voxel,)."""
        return joined(self.region, regions()) if self.region else np.ones(VOXELS, bool)

    def projection(self) -> Projection:
        """Return the voxels that respond to the film, those of the region if there is one."""
        place = head(self.subject, self.shape, self.cortex)
        return Projection(place.voxels[self.read], self.shape, place.affine)

    def areas(self) -> dict[str, NDArray[np.int64]]:
        """Return the voxels of each area of a shared cortex, flat indices; none of a mixed one."""
        if self.cortex == MIXED:
            return {}
        place = head(self.subject, self.shape, self.cortex)
        return {name: place.voxels[mask] for name, mask in regions().items()}


def participant(
    preset: str,
    subject: int,
    tr: Later[float | str | None] = None,
    cortex: Later[str] = MIXED,
    region: Later[str] = "",
) -> Participant:
    """Choose a participant, with arguments as recipes write them.

    Without a `tr` the scanner has that of the grid.

    Raises
    ------
    UsageError
        If `tr` is no time, there is no such cortex, or it has no such region.
    """
    check_cortex(cortex, "data.who.cortex")
    areas = {} if cortex == MIXED else regions()
    if region and unknown(region, areas):
        raise UsageError(
            "participant-region-unknown",
            "data.who.region={region}: a {cortex} cortex has the regions {available}, and not {unknown}. "
            "Choose one of them, several with + between them, or data.who.cortex=shared, which has areas.",
            region=region,
            cortex=cortex,
            available=list(areas),
            unknown=unknown(region, areas),
        )
    try:
        scanned_at = None if tr is None else exact(tr)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            "participant-tr-invalid",
            "who.tr is a time in s, such as 2 or 4/5, found {tr!r}.",
            tr=tr,
        ) from error
    return Participant(preset, subject, tr=scanned_at, cortex=cortex, region=region)


def read_modalities(signals: Sequence[str]) -> tuple[str, ...]:
    """Read which signals a bundle is to have.

    Raises
    ------
    UsageError
        If volumes are not among them, or there is no such signal.
    """
    # One alone may be written without brackets.
    names = [signals] if isinstance(signals, str) else list(signals)
    if "fmri" not in names or not {*names} <= {*MODALITIES}:
        raise UsageError(
            "data-modalities-unknown",
            "data.modalities is [fmri] or [eeg, fmri], found {modalities}.",
            modalities=names,
        )
    return tuple(name for name in MODALITIES if name in names)


def manifest(
    who: Participant,
    grid: TimingGrid,
    band: EegBand,
    baseline: Baseline,
    projection: Projection | None = None,
    modalities: Sequence[str] = MODALITIES,
) -> Manifest:
    """Draft the manifest of a bundle for a participant, who is read through `projection`."""
    projection = who.projection() if projection is None else projection
    cap = montage()
    eeg = EegInput(list(cap.channels), cap.reference, "microvolts", band)
    affine = projection.affine.tolist()
    fmri = FmriInput(len(projection.voxels), list(projection.shape), affine, baseline)
    read = {"eeg": eeg if "eeg" in modalities else None, "fmri": fmri if "fmri" in modalities else None}
    return draft_manifest("phantom", grid, clip_of(grid), **read, simulated=True)


def resting_level(
    work: RunContext, who: Participant, seed: int, seconds: float, name: str | None = None
) -> NDArray[np.float32]:
    """Compute each voxel's mean over a session, (voxel,), from which a run starts. It is a stage on disk.

    The stage is named by the session; by its seed, where no name is given.
    """
    arrays = work.stage(
        f"level-{name or seed}",
        lambda: {"level": who.session(seed, seconds).vectors()[:, who.read].mean(0)},
    )
    return arrays["level"].astype(np.float32)


def session_arrays(bundle: Bundle, session: PhantomSession) -> Arrays:
    """Run one session through the chain that the bundle names, `rtdecode.bundle.Manifest.chain`.

    Returns
    -------
    dict
        The arrays of `window_arrays`, with a row for each window of the film.
    """
    count = windows_of(bundle.manifest, session)
    if bundle.manifest.chain == OFFLINE:
        return offline_arrays(bundle, session, count)
    session_windows = windows(bundle, session.events(chunk_s=1.0), session.montage, seconds=session.seconds)
    return window_arrays(bundle.manifest, session_windows[:count])


def windows_of(manifest: Manifest, session: PhantomSession) -> int:
    """Count the windows of a session's film whose volumes were all scanned, if the bundle reads volumes."""
    scanned = None if manifest.fmri is None else session.volumes
    return whole_windows(manifest.grid, session.film.count, scanned)


def session_clips(manifest: Manifest, session: PhantomSession) -> NDArray[np.uint8]:
    """Cut a session's film into the clips of `windows_of`, (window, frame, row, column, 3)."""
    return film_clips(session.film, manifest)[: windows_of(manifest, session)]


def session_spans(manifest: Manifest, session: PhantomSession) -> list[Span]:
    """List seed, start and stop (s) of the windows of `windows_of`."""
    return spans(session.seed, windows_of(manifest, session), manifest.grid)


def whole_windows(grid: TimingGrid, frames: int, volumes: int | None) -> int:
    """Count the windows of a film of so many frames whose volumes are all among the first so many.

    With None for the volumes they are not read, and all windows of the film count.
    """
    count = grid.count(Fraction(frames, FPS))
    while volumes is not None and count and grid.volumes(count - 1).stop > volumes:
        count -= 1
    return count


def window_arrays(manifest: Manifest, windows: Sequence[Window]) -> Arrays:
    """Stack windows into the arrays that the ports of the encode graph take.

    Returns
    -------
    dict
        ``eeg`` (window, channel, sample), ``eeg_mask`` (window, sample), ``fmri`` (window, slot,
        voxel), ``fmri_mask`` (window, slot), float32. Absent modalities are zeros.
    """
    arrays: Arrays = {}
    if manifest.eeg is not None:
        blank = np.zeros((len(manifest.eeg.channels), manifest.grid.samples), np.float32)
        arrays["eeg"] = np.stack([blank if w.eeg is None else w.eeg for w in windows])
        arrays["eeg_mask"] = np.stack([w.eeg_mask for w in windows]).astype(np.float32)
    if manifest.fmri is not None:
        blank = np.zeros((manifest.grid.slots, manifest.fmri.voxels), np.float32)
        arrays["fmri"] = np.stack([blank if w.fmri is None else w.fmri for w in windows])
        arrays["fmri_mask"] = np.stack([w.fmri_mask for w in windows]).astype(np.float32)
    return arrays


def spans(run: int, count: int, grid: TimingGrid) -> list[Span]:
    """List run, start and stop (s) of the first `count` windows of a run."""
    return [(run, float(grid.span(k)[0]), float(grid.span(k)[1])) for k in range(count)]


def events(films: Mapping[int, Watched]) -> dict[int, list[Event]]:
    """List the shots of films as events, by run."""
    return {run: [_event(shot, film.fps) for shot in film.shots] for run, film in films.items()}


def _event(shot: Any, fps: float) -> Event:
    return Event(shot.first / fps, shot.frames / fps, "shot", dict(shot.attributes))


def clips_of_training(bundle: Bundle) -> Iterator[Iterator[NDArray[np.uint8]]]:
    """Yield the clips of each film that a run was trained on, one film after the other.

    Films from files are left out: a bundle does not say where they lie.
    """
    provenance = bundle.manifest.provenance
    kinds = [film["film"] for film in provenance.get("films", [{"film": SHAPES}]) if "sha256" not in film]
    for seed in provenance["sessions"]:
        for kind in kinds:
            yield each_clip(watched(kind, provenance["seconds"], seed, "grid"), bundle.manifest)
