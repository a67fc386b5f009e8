"""The line of a clip in ``clips.jsonl``."""

from dataclasses import dataclass
from typing import Any

from rtdecode.bundle import Bundle
from rtdecode.types import Window
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoded
from streaming.sinks import meter


@dataclass(frozen=True, slots=True)
class ClipOrigin:
    """What all clips of a session have in common.

    Attributes
    ----------
    session : str
        Its name.
    bundle : str
        Digest of the bundle.
    bundle_simulated : bool
        Whether the bundle was made for a simulated brain.
    chain : str
        ``causal`` or ``offline``: how the signals that the bundle was trained on were prepared.
    fps : float
        Frame rate of the clips, Hz.
    hop_s : float
        Time from one window to the next, s.
    live : bool
        False on a virtual clock.
    """

    session: str
    bundle: str
    bundle_simulated: bool
    chain: str
    fps: float
    hop_s: float
    live: bool = True

    @classmethod
    def of(cls, session: str, bundle: Bundle, *, live: bool) -> "ClipOrigin":
        """Return what the clips of a session with this bundle have in common."""
        manifest = bundle.manifest
        simulated = manifest.simulated
        hop_s = float(manifest.grid.hop)
        return cls(session, bundle.digest, simulated, manifest.chain, manifest.clip.fps, hop_s, live)

    def late_s(self, job: Job, emitted_at: float) -> float:
        """Return the seconds after its floor of a clip that came more than a hop after it, else 0.

        By then the next clip was due. Nothing is late on a virtual clock, and a backlog has no deadline.
        """
        after_s = emitted_at - job.window.floor_at
        return after_s if self.live and not job.backlog and after_s > self.hop_s else 0.0


def eeg_source(window: Window, confirmed_source: int) -> str | None:
    """Say whether a window's EEG is of the stream that the session opened; None without EEG.

    Parameters
    ----------
    window : Window
        The window, with the number of the source that it was read from.
    confirmed_source : int
        Sources up to this number are the participant's, as somebody has confirmed.
    """
    if window.eeg is None:
        return None
    if not window.eeg_source:
        return "opened"
    return "confirmed" if window.eeg_source <= confirmed_source else "changed"


def clip_record(
    job: Job,
    decoded: Decoded,
    origin: ClipOrigin,
    emitted_at: float,
    durations_ms: meter.Durations,
    *,
    simulated: bool,
    source: str | None,
) -> dict[str, Any]:
    """Return the record of a clip, but for the names of its files.

    Parameters
    ----------
    job : Job
        The window that was decoded.
    decoded : Decoded
        The clip and the times of its stages.
    origin : ClipOrigin
        What all clips of the session have in common.
    emitted_at : float
        When its file was whole, on the clock of the ledger, s.
    durations_ms : dict
        How long its stages took, ms; see `durations`.
    simulated : bool
        Whether a source says that the participant is simulated.
    source : str or None
        See `eeg_source`.
    """
    window = job.window
    clip = decoded.clip
    length = window.stop_s - window.start_s
    presence = clip.presence
    stamps = window.stamps | decoded.stamps | {"emitted": emitted_at}
    record: dict[str, Any] = {
        "session": origin.session,
        "run": window.run,
        "clip": job.clip,
        "revision": window.revision,
        "window_s": [window.start_s, window.stop_s],
        "session_s": [round(window.session_s, 6), round(window.session_s + length, 6)],
        "modalities": window.modalities,
        "missing": {name: round(share, 6) for name, share in window.missing.items()},
        "eeg_quality": {name: round(share, 6) for name, share in window.eeg_quality.items()} or None,
        "eeg_source": source,
        "confidence": None if clip.confidence is None else round(clip.confidence, 6),
        "brain": None if presence is None else round(presence.brain, 6),
        "inconsistent": None if presence is None else round(presence.inconsistent, 6),
        "brain_by": _rounded(clip.brain_by),
        "steps": clip.steps,
        "detail": clip.detail,
        "latency_ms": durations_ms,
        "t_ms": meter.instants(window, stamps, live=origin.live),
        "simulated": simulated,
        "bundle_simulated": origin.bundle_simulated,
        "bundle": decoded.bundle or origin.bundle,
        "chain": origin.chain,
    }
    if clip.scores is not None:
        record["scores"] = clip.scores
    if clip.recorded:
        record["recorded"] = {
            name: [round(value, 6) for value in values] for name, values in clip.recorded.items()
        }
    return record | {"late": origin.late_s(job, emitted_at) > 0}


def durations(job: Job, decoded: Decoded, origin: ClipOrigin, emitted_at: float) -> meter.Durations:
    """Return how long the stages of a clip took, ms; see `streaming.sinks.meter.durations`."""
    window = job.window
    stamps = window.stamps | decoded.stamps | {"emitted": emitted_at}
    return meter.durations(
        window, decoded.started_at, stamps, job.costs, live=origin.live, wire_s=decoded.wire_s
    )


def _rounded(probabilities: dict[str, float | None] | None) -> dict[str, float | None] | None:
    if probabilities is None:
        return None
    return {name: None if value is None else round(value, 6) for name, value in probabilities.items()}
