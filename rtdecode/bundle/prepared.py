"""Whether a session can acquire what a bundle reads, or the bundle decodes prepared files alone.

Most releases give the values of voxels in a row and number the channels of their EEG. They say neither where
a voxel lies in the scanner's volumes nor which electrode a channel is, and what came later had a part in the
values. A bundle that was trained on such files reads volumes of n x 1 x 1 voxels and channels ``EEG 001`` to
``EEG n``, which no scanner and no amplifier sends.

`notice` says so wherever a bundle is made or looked at, and `check_live` refuses it for a session. Both read
what the manifest has always stated, so that they hold for bundles of earlier versions too.
"""

import numpy as np

from rtdecode.bundle.manifest import OFFLINE, EegInput, FmriInput, Manifest
from rtdecode.errors import BundleError

# What `rtdecode.bundle.manifest.OFFLINE` means for a reader.
_LATER = "what came later had a part in its signals"


def numbered(count: int) -> list[str]:
    """Name channels of which nothing is known but their order, as MNE-Python does: ``EEG 001`` and so on."""
    return [f"EEG {number:03d}" for number in range(1, count + 1)]


def in_a_row(voxels: int) -> tuple[list[int], list[list[float]]]:
    """Return shape and affine of volumes whose voxels lie in a row, as nothing is known of their place."""
    return [voxels, 1, 1], np.eye(4).tolist()


def unplaced(manifest: Manifest) -> list[str]:
    """Say of each modality whose places are not known what the bundle reads in their stead.

    Parameters
    ----------
    manifest : Manifest
        Of the bundle that is described.

    Returns
    -------
    list of str
        Empty where a session can acquire all that the bundle reads. Signals that were prepared from the past
        alone may come from a program that writes rows of voxels while it scans, so they count as placed.
    """
    if manifest.chain != OFFLINE:
        return []
    unknown: list[str] = []
    if manifest.eeg is not None and _is_numbered(manifest.eeg):
        channels = manifest.eeg.channels
        unknown.append(
            f"which electrodes its channels are (the bundle reads {channels[0]} to {channels[-1]})"
        )
    if manifest.fmri is not None and _is_row(manifest.fmri):
        count = manifest.fmri.shape[0]
        unknown.append(f"where in a volume its voxels lie (the bundle reads a row of {count} x 1 x 1)")
    return unknown


def notice(manifest: Manifest) -> str | None:
    """Say in a sentence that a bundle decodes prepared files, and why; None where it does not.

    Parameters
    ----------
    manifest : Manifest
        May be a draft, before a training.
    """
    if why := _why(manifest):
        return f"The bundle decodes prepared files and cannot go live: {why}."
    if manifest.chain == OFFLINE and not manifest.simulated:
        return (
            f"The bundle decodes prepared files: {_LATER}, which no session has. One that acquires the same "
            "channels and voxels prepares them from the past alone, and may do much worse than the figures."
        )
    return None


def check_live(manifest: Manifest) -> None:
    """Refuse a bundle that no session can feed.

    Raises
    ------
    BundleError
        If it was trained on files that do not tell what an amplifier or a scanner would have to send.
    """
    why = _why(manifest)
    if why is None:
        return
    raise BundleError(
        "bundle-prepared-files",
        "bundle {bundle} decodes prepared files and cannot go live: {why}. `python -m train.evaluate RUN "
        "data=DIR` decodes such files. For a session, train on recordings, or on a BIDS folder with the "
        "scanner's own volumes (docs/data.md).",
        reason="the bundle decodes prepared files and cannot go live",
        bundle=manifest.name,
        why=why,
    )


def _why(manifest: Manifest) -> str | None:
    """Say why no session can feed a bundle; None where one can."""
    unknown = unplaced(manifest)
    if not unknown:
        return None
    return f"the release that it was trained on does not tell {', nor '.join(unknown)}, and {_LATER}"


def _is_numbered(eeg: EegInput) -> bool:
    return eeg.channels == numbered(len(eeg.channels))


def _is_row(fmri: FmriInput) -> bool:
    return (fmri.shape, fmri.affine) == in_a_row(fmri.shape[0])
