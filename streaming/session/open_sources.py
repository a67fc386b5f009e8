"""The sources of an acquisition, as the options of its session ask for them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.eeg.channels import match
from rtdecode.errors import GeometryError
from rtdecode.signal import plausible
from rtdecode.signal.volume.motion import THIN
from rtdecode.timing import check_tr
from rtdecode.types import Montage
from streaming.session import resume
from streaming.session.options import StreamOptions
from streaming.sources.folder.source import FolderSource
from streaming.sources.lsl.source import LslSource


def _fits(bundle: Bundle) -> Callable[[Montage], str | None]:
    """Make a check that refuses a stream without the bundle's channels, or one too slow for it.

    It is for streams that come back changed. It returns the reason, or None for a stream that fits.
    """

    def accept(montage: Montage) -> str | None:
        eeg_input = bundle.manifest.eeg
        if eeg_input is None:
            return None
        try:
            match(eeg_input.channels, montage)
        except GeometryError as error:
            return str(error)
        return plausible.bundle_rate(montage.sfreq, float(bundle.manifest.grid.sfreq), eeg_input.band)

    return accept


def open_eeg(options: StreamOptions, bundle: Bundle, resumed: resume.Resumption | None) -> LslSource | None:
    """Return the source of the EEG stream; None without one."""
    if options.lsl is None:
        return None
    opened = None if resumed is None else resumed.opened
    accept = _fits(bundle)
    return LslSource(options.lsl, options.peers, accept=accept, opened=opened, markers=options.markers)


def open_folder(
    options: StreamOptions,
    bundle: Bundle,
    unread: Callable[[tuple[int, ...], NDArray[np.float64]], str | None],
    since: float | None = None,
) -> FolderSource | None:
    """Return the source of the export folder; None without one.

    Parameters
    ----------
    options : StreamOptions
        The session's flags, of which those on the export folder count.
    bundle : Bundle
        A run on a grid that it does not read needs its TR.
    unread : callable
        Says why the bundle cannot read volumes of a shape and an affine; None if it can.
    since : float, optional
        Wall time from which on files count as new; None for those that come after the start.
    """
    if options.fmri_dir is None:
        return None

    def accept(shape: tuple[int, ...], affine: NDArray[np.float64], tr_s: float | None) -> str | None:
        """Say why a series is passed over, such as a localizer or a field map; None for the run's own."""
        reason = unread(shape, affine)
        # A run on a grid that the bundle cannot read is worth recording, as `rtdecode fit` reads
        # any grid. A localizer is not: it has another TR, or none, or too few slices.
        record_only = (
            reason is not None and options.record is not None and tr_s is not None and min(shape) >= THIN
        )
        if reason is not None and not record_only:
            return reason
        try:
            # A calibration reads any grid: then only the TR tells another series from the run's own.
            if record_only or (options.calibration is not None and bundle.projection is not None):
                check_tr(tr_s, float(bundle.manifest.grid.tr or 0))
        except GeometryError as error:
            return str(error)
        return None

    # After a restart, only files that changed since about the last status are new.
    return FolderSource(
        options.fmri_dir,
        "ignore" if since is not None else options.existing,
        options.series,
        moco=options.moco,
        include=options.include,
        accept=accept,
        since=since,
    )
