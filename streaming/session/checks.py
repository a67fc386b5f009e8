"""What a session is asked for is checked before any folder is made."""

from pathlib import Path

from rtdecode.bundle import Bundle
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.calibration import Calibration
from rtdecode.errors import UsageError
from streaming.decode.decoder import check_steps
from streaming.session.orders import StreamOptions


def check(options: StreamOptions, bundle: Bundle) -> Calibration | None:
    """Refuse orders that cannot be carried out, before any folder is made.

    Returns
    -------
    Calibration or None
        The session's calibration, which was loaded to be checked.

    Raises
    ------
    RtDecodeError
    """
    if options.decoder is not None:
        raise UsageError("--decoder is not built yet. There are --lsl, --fmri-dir, --bundle and --truth.")
    check_steps(bundle, options.steps)
    _check_sources(options, bundle)
    window = float(bundle.manifest.grid.window)
    if options.seconds is not None and options.seconds < window:
        raise UsageError(
            f"--seconds {options.seconds:g} holds no window of {window:g} s. Give {window:g} or more."
        )
    _check_places(options)
    return None if options.calibration is None else _checked_calibration(options.calibration, bundle)


def _check_sources(options: StreamOptions, bundle: Bundle) -> None:
    """Refuse a session that would have nothing to read, or nothing that the bundle decodes."""
    given = {"eeg": options.lsl, "fmri": options.fmri_dir}
    there = [modality for modality, source in given.items() if source is not None]
    if not there:
        raise UsageError("nothing to read: give --lsl NAME, --fmri-dir DIR, or both.")
    decoded = bundle.manifest.modalities
    if not set(there) & set(decoded):
        raise UsageError(
            f"bundle {bundle.manifest.name} decodes {' and '.join(decoded)}, and no such source was given. "
            "Give --lsl NAME for EEG or --fmri-dir DIR for fMRI, or another --bundle."
        )


def _check_places(options: StreamOptions) -> None:
    """Refuse files and folders that cannot be read or made, and two that are the same."""
    # The export folder and the truth may appear during the session, so only their parents must exist.
    if _lacks_parent(options.fmri_dir):
        raise UsageError(
            f"--fmri-dir {options.fmri_dir}: its parent folder does not exist. Check the path or the mount."
        )
    if _lacks_parent(options.report):
        raise UsageError(f"--report {options.report}: its folder does not exist. Make it, or give another.")
    if _lacks_parent(options.truth):
        raise UsageError(f"--truth {options.truth}: its parent folder does not exist. Check the path.")
    if _same(options.truth, options.out):
        raise UsageError(f"--truth and --out are both {options.out}: film.mp4 there would be overwritten.")
    if _same(options.record, options.out):
        raise UsageError(f"--record and --out are both {options.out}: give each a folder of its own.")


def _lacks_parent(path: Path | None) -> bool:
    return path is not None and not path.resolve().parent.is_dir()


def _same(one: Path | None, other: Path | None) -> bool:
    return one is not None and other is not None and one.resolve() == other.resolve()


def _checked_calibration(path: Path, bundle: Bundle) -> Calibration:
    """Load a calibration; refuse one that the acquisition could not use."""
    calibration = calibrations.load(path)
    if bundle.projection is not None:
        calibration.matched(bundle.projection)
    return calibration
