"""What a session of `benchmarks.road` showed, held against the film, beside a ridge that had the same data.

Clips are those that `rtdecode replay` wrote. The null brain, the condition's vectors, and what a ridge reads
come from the same windows, cut by the chain of a session with the same calibration.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.played import revisions
from rtdecode import terminal
from rtdecode.bundle import Bundle
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.calibration import Calibration
from rtdecode.disk.clip_file import Pixels
from rtdecode.disk.hashed_folder import file_hash
from rtdecode.disk.recording import Recording
from rtdecode.disk.video import unpack_mp4
from rtdecode.phantom.body.movement import pose_of
from rtdecode.phantom.body.scanner import CENTRE
from rtdecode.scores import intervals
from rtdecode.scores.events import Span
from rtdecode.signal.volume.motion import rigid
from rtdecode.types import Volume
from streaming.calibrate.gather import gather
from streaming.calibrate.warmup import align, measure
from streaming.sources.folder.source import FolderSource
from train.artifacts.run_folder import draft_of, restored
from train.artifacts.slots import parts_of
from train.config.run_context import Arrays
from train.config.run_files import read_run
from train.data.clip_grid import shown_frames
from train.data.near_duplicates import clip_hashes, pairs
from train.data.phantom import window_arrays
from train.data.recorded import cut_windows, find_head
from train.data.recorded_sessions import RecordedSessions
from train.data.recorded_showing import SOURCES, RecordedShowing, stretches
from train.evaluation.decoders import vectors
from train.evaluation.film_figures import difference, figure, groups
from train.evaluation.film_scores import TEMPORAL, FilmWindows, Scores, describe, told_apart
from train.evaluation.oracle import Oracle, fit_oracle
from train.evaluation.result import Decode, make_decode
from train.evaluation.sections import condition
from train.interface.system import Plan, System

IDENTIFIED = "identification_2way_centred"
PAIRS = "identification_2way_matched"
_CHANCE = 0.5
# Bits are not looked at, and nothing else depends on it.
_TEMPERATURE = 1.0
_DIGITS = 4
# Volumes of a localiser that a calibration takes.
_VOLUMES = 60

Figure = dict[str, Any]


@dataclass(frozen=True)
class TrainedRun:
    """A run that was trained on recordings, with these recordings.

    Attributes
    ----------
    bundle : Bundle
        How it reads signals.
    system : System
    show : Decode
    taught : sequence of RecordedShowing
    """

    bundle: Bundle
    system: System
    show: Decode
    taught: Sequence[RecordedShowing]

    @staticmethod
    def of(run: Path, recordings: Sequence[Path], films: Sequence[Path]) -> "TrainedRun":
        """Open a run, and the recordings that it was trained on."""
        tree = read_run(run)
        parts = parts_of(tree["arguments"])
        assert isinstance(parts.data, RecordedSessions)
        data = parts.data.with_recordings(recordings, films)
        assert isinstance(parts.system, Plan)
        system = restored(run, parts.system)
        bundle = draft_of(run)
        return TrainedRun(
            bundle, system, make_decode(system, bundle.manifest, tree["noise_key"]), data.taught
        )

    def ridge(self) -> Oracle:
        """Fit the ridge that has the same windows; it reads the clips, their colours, and the condition."""
        sessions: list[dict[str, Any]] = [
            {**showing.arrays(self.bundle), "clips": list(showing.film().clips)} for showing in self.taught
        ]
        frames = shown_frames(self.bundle.manifest)
        aims = [self.system.targets(clip[:frames] for clip in session["clips"]) for session in sessions]
        vectors_aimed_at = [aim.astype(np.float64) for aim in aims if aim is not None]
        return fit_oracle(
            sessions,
            frames=frames,
            carry=self.system.carried > 0,
            aims=np.concatenate(vectors_aimed_at) if vectors_aimed_at else None,
        )


@dataclass(frozen=True)
class JudgedSession:
    """A recorded session, of which windows are judged.

    Attributes
    ----------
    recording : Recording
    showing : RecordedShowing
        Its windows, without those that show nearly what taught.
    truth : FilmWindows
    left_out : int
        How many windows show nearly what taught.
    """

    recording: Recording
    showing: RecordedShowing
    truth: FilmWindows
    left_out: int

    @staticmethod
    def of(recording: Path, trained: TrainedRun) -> "JudgedSession":
        """Find the windows of a recording."""
        opened = Recording(recording)
        film = recording / "truth" / "film.mp4"
        head, level = find_head([opened])
        manifest = trained.bundle.manifest
        (session,) = stretches(opened, 1, film, file_hash(film)[:16], head, level, manifest)
        taught = [clip for showing in trained.taught for clip in showing.film().clips]
        near = _near(session.film().clips, taught)
        showing = session.some(~near, "judged")
        frames = shown_frames(manifest)
        length_s = frames / manifest.clip.fps
        where: list[Span] = [
            (0, float(k * length_s), float((k + 1) * length_s)) for k in range(showing.windows)
        ]
        return JudgedSession(opened, showing, describe(showing.watched(), where), int(near.sum()))

    @property
    def spans(self) -> list[Span]:
        """Where the windows lie in the run."""
        window_s = float(self.showing.draft.grid.window)
        return [(self.showing.run, float(start), float(start) + window_s) for start in self.showing.run_s]

    def inputs(self, bundle: Bundle, calibration: Calibration | None) -> Arrays:
        """Return the signals by port, with the voxels where a calibration places them."""
        windows = cut_windows(bundle, self.recording, SOURCES, calibration)
        by_index = {window.index: window for window in windows if window.run == self.showing.run}
        return window_arrays(bundle.manifest, [by_index[int(index)] for index in self.showing.index])

    def finals(self, out: Path) -> list[Pixels]:
        """Return the clips that a replay wrote for the windows."""
        files = {round(span[1], 3): file for span, file in revisions(out)[0].items()}
        return [unpack_mp4(out / files[round(start, 3)]) for _, start, _ in self.spans]


def judge(
    trained: TrainedRun,
    session: JudgedSession,
    replays: dict[str, tuple[Path, Path | None]],
    calibrated: str,
    ridge_replayed: Path,
) -> dict[str, Any]:
    """Hold what was replayed against the film, and what stands beside it.

    Parameters
    ----------
    trained : TrainedRun
    session : JudgedSession
    replays : dict
        How voxels were placed -> the folder of the replay, and the calibration's folder or None.
    calibrated : str
        Which of them is the one that is judged.
    ridge_replayed : Path
        The replay of the ridge that was trained on the same recordings.

    Returns
    -------
    dict
        ``identification_2way``, ``condition_2way``, ``pairs``, ``calibration`` and ``windows``.
    """
    mean_clip = trained.bundle.stats["mean_clip"][: shown_frames(trained.bundle.manifest)]
    truth = session.truth

    def scored(clips: Sequence[Pixels]) -> Scores:
        return told_apart(clips, truth, mean_clip, _TEMPERATURE)

    aims = trained.system.targets(truth.clips)
    signals = {}
    scores: dict[str, Scores] = {}
    for name, (out, calibration) in replays.items():
        placed = None if calibration is None else calibrations.load(calibration)
        signals[name] = session.inputs(trained.bundle, placed)
        scores[name] = scored(session.finals(out))
        if aims is not None:
            scores[name] |= condition.told_apart(vectors(trained.system, signals[name]), aims, truth)
    inputs = signals[calibrated]
    scores["null"] = scored(trained.show(inputs, session.spans, null=True).clips)
    scores["ridge"] = scored(session.finals(ridge_replayed))
    ridge = trained.ridge()
    scores["decoded_colour"] = scored(ridge.floors(inputs)[0])
    read = ridge.vectors(inputs)
    if aims is not None and read is not None:
        scores["ridge"] |= condition.told_apart(read, aims, truth)
    units, _ = groups([truth], by_session=False)
    return _figures(scores, units, calibrated, list(replays)) | {
        "windows": {"judged": session.showing.windows, "near_duplicates_left_out": session.left_out}
    }


def _figures(
    scores: dict[str, Scores], units: NDArray[np.int64], calibrated: str, placed: Sequence[str]
) -> dict[str, Any]:
    def of(name: str, metric: str = IDENTIFIED) -> Figure | None:
        return None if metric not in scores[name] else _short(figure(*scores[name][metric], _CHANCE, units))

    def above(name: str, metric: str = IDENTIFIED) -> Figure | None:
        return _short(difference(scores[calibrated][metric], scores[name][metric], units))

    figures: dict[str, Any] = {
        "identification_2way": {
            **(of(calibrated) or {}),
            "ridge": of("ridge"),
            "decoded_colour": of("decoded_colour"),
            "above_decoded_colour": above("decoded_colour"),
            "temporal": of(calibrated, TEMPORAL),
            "null": of("null"),
        }
    }
    for key, metric in (("condition_2way", condition.IDENTIFIED), ("pairs", PAIRS)):
        decoder = of(calibrated, metric)
        ridge = of("ridge", metric)
        figures[key] = {**(decoder or {}), "ridge": ridge, "share_of_ridge": _share(decoder, ridge)}
    figures["calibration"] = {
        **{name: of(name) for name in placed},
        "above_none": above("none"),
        "share_of_true_pose": _share(of(calibrated), of("true_pose")),
    }
    return figures


def _near(clips: NDArray[np.uint8], taught: Sequence[Pixels]) -> NDArray[np.bool_]:
    """Tell which clips show nearly what taught, (clip,)."""
    judged = {str(number): clip_hashes(clip) for number, clip in enumerate(clips)}
    training = {str(number): clip_hashes(np.asarray(clip)) for number, clip in enumerate(taught)}
    near = {pair.test for pair in pairs(judged, training)}
    return np.array([name in near for name in judged])


def true_placement(bundle: Bundle, calibration: Path, scans: Path, pose: str, out: Path) -> None:
    """Write the calibration that would be made if it were known where the head lies.

    Parameters
    ----------
    bundle : Bundle
    calibration : Path
        The one that `rtdecode calibrate` made.
    scans : Path
        The localiser that it was made of.
    pose : str
        Where the head lies, as `rtdecode simulate --pose` takes it.
    out : Path
        A new folder.
    """
    of_localiser = calibrations.load(calibration)
    assert of_localiser.record.placement is not None
    assert bundle.projection is not None
    matrix = rigid(pose_of(pose), CENTRE)
    source = FolderSource(scans, "read", None, bound=False)
    volumes = gather(source, _VOLUMES, 1.0, terminal.console(stderr=True))
    aligned = align(volumes, _unshown)
    projection = replace(bundle.projection, affine=matrix @ bundle.projection.affine)
    warmup = measure(aligned, projection)
    placement = replace(of_localiser.record.placement, matrix=matrix.tolist())
    arrays = {
        "reference": {"volume": aligned.reference, "affine": aligned.affine},
        "projection": projection.to_arrays(),
        "warmup": {"mean": warmup.mean, "scale": warmup.scale},
    }
    calibrations.write(out, replace(of_localiser.record, placement=placement), arrays, {})


def _unshown(volumes: Iterable[Volume], word: str) -> Iterable[Volume]:
    return volumes


def paired(figure_of_difference: dict[str, Any]) -> float | None:
    """Return the lower end of a paired figure."""
    ends = (figure_of_difference or {}).get("ci95")
    return None if ends is None else float(ends[0])


def _share(decoder: Figure | None, reference: Figure | None) -> float | None:
    """Return the share of what another reaches above chance; None where it reaches nothing."""
    if decoder is None or reference is None or reference["value"] <= _CHANCE:
        return None
    return round((decoder["value"] - _CHANCE) / (reference["value"] - _CHANCE), _DIGITS)


def _short(exact: Figure | None) -> Figure | None:
    return None if exact is None else intervals.rounded(exact, _DIGITS)
