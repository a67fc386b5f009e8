"""What a session is asked for is checked before any folder is made."""

import os
from pathlib import Path

from rtdecode.bundle import Bundle
from rtdecode.bundle.prepared import check_live
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.calibration import Calibration
from rtdecode.errors import UsageError
from streaming.decode.decoder import check_detail, check_steps
from streaming.serve import address as decoders
from streaming.serve import token
from streaming.session.options import StreamOptions


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
    _check_decoder(options)
    check_live(bundle.manifest)
    check_steps(bundle, options.steps)
    check_detail(bundle, options.detail)
    _check_sources(options, bundle)
    window = float(bundle.manifest.grid.window)
    if options.seconds is not None and options.seconds < window:
        raise UsageError(
            "session-shorter-than-window",
            "--seconds {duration_s:g} holds no window of {window_s:g} s. Give {window_s:g} or more.",
            duration_s=options.seconds,
            window_s=window,
        )
    _check_places(options)
    return None if options.calibration is None else _checked_calibration(options.calibration, bundle)


def _check_decoder(options: StreamOptions) -> None:
    """Refuse a decoder elsewhere that could not be asked."""
    if options.decoder is None:
        flags = {
            "--token-file": options.token_file,
            "--ca": options.ca,
            "--fallback": options.fallback,
        }
        for flag, path in flags.items():
            if path is not None:
                raise UsageError(
                    "session-flag-without-decoder",
                    "{flag} {path} is for a decoder elsewhere, and none was asked for. Give --decoder too, "
                    "or leave it out.",
                    flag=flag,
                    path=path,
                )
        return
    decoders.parse(options.decoder)
    if options.token_file is None:
        raise UsageError(
            "session-token-missing",
            "--decoder {address} needs a token. Give --token-file FILE with the token of `rtdecode serve`.",
            address=options.decoder,
        )
    token.read(options.token_file)
    if options.ca is not None and not options.ca.is_file():
        raise UsageError(
            "session-ca-missing",
            "--ca {path} is no file. Give the certificate of the authority, in PEM.",
            path=options.ca,
        )


def _check_sources(options: StreamOptions, bundle: Bundle) -> None:
    """Refuse a session that would have nothing to read, or nothing that the bundle decodes."""
    sources = options.modalities
    if not sources:
        raise UsageError(
            "session-source-missing",
            "nothing to read: give --lsl NAME, --fmri-dir DIR, or both.",
        )
    if options.markers is not None and options.lsl is None:
        raise UsageError(
            "session-markers-without-eeg",
            "--markers {markers} names the stream of the triggers, which are read beside an EEG stream, and "
            "none was asked for. Give --lsl NAME too, or leave --markers out.",
            markers=options.markers,
        )
    decoded = bundle.manifest.modalities
    if not set(sources) & set(decoded):
        raise UsageError(
            "session-modality-mismatch",
            "the bundle {bundle} reads {bundle_modalities}, and no such source was given: give --lsl or "
            "--fmri-dir, or another --bundle.",
            bundle=bundle.manifest.name,
            bundle_modalities=" and ".join(decoded),
        )


def _check_places(options: StreamOptions) -> None:
    """Refuse files and folders that cannot be read or made, and two that are the same."""
    # The export folder and the truth may appear during the session, so only their parents must exist.
    if _lacks_parent(options.fmri_dir):
        raise UsageError(
            "fmri-dir-parent-missing",
            "--fmri-dir {folder}: its parent folder does not exist. Check the path or the mount.",
            folder=options.fmri_dir,
        )
    check_report(options.report, options.out)
    if _lacks_parent(options.truth):
        raise UsageError(
            "truth-parent-missing",
            "--truth {path}: its parent folder does not exist. Check the path.",
            path=options.truth,
        )
    if _same(options.truth, options.out):
        raise UsageError(
            "session-truth-out-conflict",
            "--truth and --out are both {folder}: film.mp4 there would be overwritten.",
            folder=options.out,
        )
    if _same(options.record, options.out):
        raise UsageError(
            "session-record-out-conflict",
            "--record and --out are both {folder}: give each a folder of its own.",
            folder=options.out,
        )


def check_report(path: Path | None, out: Path | None) -> None:
    """Refuse a report's file that could not be written at the end.

    Parameters
    ----------
    path : Path or None
        None, where the report lies in the session's folder.
    out : Path or None
        The session's folder, which the session makes itself; None for one that it names.

    Raises
    ------
    UsageError
    """
    if path is None or (_same(path.parent, out) and not path.is_dir()):
        return
    if _lacks_parent(path):
        raise UsageError(
            "report-parent-missing",
            "--report {path}: its folder does not exist. Make it, or give another.",
            path=path,
        )
    if path.is_dir() or not os.access(path.resolve().parent, os.W_OK):
        reason = "it is a folder" if path.is_dir() else "no permission to write into its folder"
        raise UsageError(
            "report-unwritable",
            "--report {path} cannot be written: {found}. Give a file in a folder that can be written.",
            path=path,
            found=reason,
        )


def _lacks_parent(path: Path | None) -> bool:
    return path is not None and not path.resolve().parent.is_dir()


def _same(path: Path | None, other: Path | None) -> bool:
    return path is not None and other is not None and path.resolve() == other.resolve()


def _checked_calibration(path: Path, bundle: Bundle) -> Calibration:
    """Load a calibration; refuse one that the acquisition could not use."""
    calibration = calibrations.load(path)
    if bundle.projection is not None:
        calibration.matched(bundle.projection)
    return calibration
