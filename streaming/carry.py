"""What a window carries on from: the last latent frames of the window before it."""

from dataclasses import dataclass

from rtdecode.types import Float, Window

# The revisions that each revision may carry on from, the best first.
_CHAINS = {"preview": ("final", "preview"), "final": ("final",)}


@dataclass(frozen=True, slots=True)
class _Last:
    run: int
    index: int
    windowed_at: float
    latent: Float


class Carry:
    """The newest latent of each revision, so that clips join.

    Window k + 1 carries on from window k of the same run, if that was decoded: a final from the final,
    a preview from the final if that was cut before it, else from the preview. In what order the two
    were decoded does not matter, so that a replay carries what the live session carried.

    Parameters
    ----------
    frames : int
        Latent frames that are carried.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._last: dict[str, _Last] = {}

    def before(self, window: Window) -> Float | None:
        """Latent frames (1, channel, frame, row, column) to carry on from; None after a hole."""
        wanted = (window.run, window.index - 1)
        for revision in _CHAINS[window.revision]:
            last = self._last.get(revision)
            if last and (last.run, last.index) == wanted and last.windowed_at <= _windowed_at(window):
                return last.latent
        return None

    def keep(self, window: Window, latent: Float) -> None:
        """Take the clean latent (1, channel, latent frame, row, column) of a window."""
        self._last[window.revision] = _Last(
            window.run, window.index, _windowed_at(window), latent[:, :, -self._frames :].copy()
        )


def _windowed_at(window: Window) -> float:
    return window.stamps.get("windowed", 0.0)
