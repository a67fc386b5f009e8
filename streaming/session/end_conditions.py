"""When a live session ends, and why: stopped, decoded, without sources, or with sources that fell silent."""

from rtdecode.errors import RtDecodeError, SourceLostError
from streaming.status import Status

# Where `--lost-after` is 0, a session waits at its end for so long for a volume that is late, s.
_LATE_WITHIN = 30.0


class EndConditions:
    """Judge every status; nothing here waits or reads a clock.

    Parameters
    ----------
    wait_s : float
        Time to wait for a run to begin, s; 0 waits for ever.
    lost_after_s : float
        Silence from every source that ends the session, s; 0 never ends it.

    Attributes
    ----------
    interrupted : str
        Who stopped the session, in words; empty while it goes on.
    """

    def __init__(self, wait_s: float, lost_after_s: float) -> None:
        self._wait_s = wait_s
        self._lost_after_s = lost_after_s
        # When the sources began to be looked for; None until then.
        self._sought_since: float | None = None
        self._wait_is_over = False
        # Volumes when the session last looked whether late ones still come, and since when there are so many.
        self._volumes: int | None = None
        self._volumes_since = 0.0
        self._notice = ""
        self.interrupted = ""

    def seek(self, now_at: float) -> None:
        """Begin to wait for the sources, at the first status.

        Until then the acquisition process is still starting, which takes seconds on a busy machine, and
        nobody looks for them.
        """
        if self._sought_since is None:
            self._sought_since = now_at

    def reason(self, status: Status, now_at: float) -> str:
        """Say why the session ends without a fault; empty while it goes on."""
        if self.interrupted:
            return self.interrupted
        if status.done and not self._late_volumes_come(status, now_at):
            return "the requested seconds were decoded"
        return ""

    def notice(self) -> str:
        """Return, once, the sentence that the session waits for late volumes; empty if there is none."""
        sentence = self._notice
        self._notice = ""
        return sentence

    def fault(self, status: Status, now_at: float) -> RtDecodeError | None:
        """Return the fault of sources that did not come in time, or fell silent; None without one."""
        return self._missing(status, now_at) or self._silence(status)

    def _missing(self, status: Status, now_at: float) -> RtDecodeError | None:
        if not self._wait_s or self._sought_since is None or now_at - self._sought_since <= self._wait_s:
            return None
        is_first_look = not self._wait_is_over
        self._wait_is_over = True
        # Volumes may have come: a session that was asked for EEG does not go on with half of it.
        if is_first_look and status.eeg_ambiguous:
            return RtDecodeError(
                "session-eeg-ambiguous",
                "waited {wait_s:g} s (--wait) for one EEG stream. {missing_sources}.",
                reason=f"waited {self._wait_s:g} s (--wait) for one EEG stream; several fit",
                wait_s=self._wait_s,
                missing_sources="; ".join(status.waiting),
            )
        if status.elapsed is not None:
            return None
        # The second sentence goes into the report, which names no stream and no folder: of
        # "EEG: no LSL stream ..." it keeps the modality.
        missing = ", ".join(sentence.partition(":")[0] for sentence in status.waiting)
        return RtDecodeError(
            "session-start-timeout",
            "waited {wait_s:g} s (--wait) for a run to begin. Still missing: {missing_sources}. "
            "Start the source, correct its name, or wait longer (--wait 0: for ever).",
            reason=f"waited {self._wait_s:g} s (--wait) for a run to begin; still missing: {missing}",
            wait_s=self._wait_s,
            missing_sources="; ".join(status.waiting),
        )

    def _silence(self, status: Status) -> RtDecodeError | None:
        # A session that has had its seconds waits for late volumes alone: silence is no fault then.
        if not self._lost_after_s or status.done or status.silent is None:
            return None
        if status.silent <= self._lost_after_s:
            return None
        return SourceLostError(
            "session-sources-silent",
            "every source has been silent for {silent_s:.0f} s (--lost-after {limit_s:g}): no "
            "EEG sample and no volume. Everything decoded so far was written. Check the "
            "amplifier and the scanner's export, then start a new session (--lost-after 0: never "
            "ends it).",
            silent_s=status.silent,
            limit_s=self._lost_after_s,
        )

    def _late_volumes_come(self, status: Status, now_at: float) -> bool:
        """Whether finals went out without volumes that may still come.

        The wait ends when they have come, or when no volume has for `lost_after_s` seconds.
        """
        if not status.awaited:
            return False
        limit_s = self._lost_after_s or _LATE_WITHIN
        if self._volumes is None:
            self._notice = (
                f"Every window has its final clip, {status.awaited} of them without volumes that are late. "
                "The session goes on until these have come, to show the windows once more with them, or "
                f"until none has come for {limit_s:g} s (--lost-after). Ctrl-C ends it at once."
            )
        volumes = status.counters["fmri"]["volumes"]
        if self._volumes != volumes:
            self._volumes = volumes
            self._volumes_since = now_at
        return now_at - self._volumes_since < limit_s
