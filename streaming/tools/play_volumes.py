"""Play a recorded run into a folder as a scanner would write it: the command ``rtdecode play-volumes``.

`run` takes a 4-D NIfTI and writes its volumes as 3-D files, each at the time at which its acquisition would
have ended.
"""

import threading
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from rtdecode import terminal
from rtdecode.disk.folders import is_in_use, what_is_there
from rtdecode.errors import UsageError
from streaming.session import interrupts
from streaming.sources.folder.files import gunzip
from streaming.sources.formats.image import IncompleteError
from streaming.sources.formats.nifti import repetition_time

# No limit: the limit of `gunzip` is for files that turn up in a scanner's folder.
_ANY_SIZE = 1 << 62
# No scan of a person takes longer for a volume, s: a TR in milliseconds does.
_MOST_TR_S = 60.0


def run(bold: Path, fmri_dir: Path, tr: float | None, speed: float) -> int:
    """Write volume n of a 4-D NIfTI when its acquisition would have ended, (n + 1) TR after the start.

    Ctrl-C and SIGTERM end it between two volumes.

    Parameters
    ----------
    bold : Path
        A 4-D NIfTI.
    fmri_dir : Path
        An empty folder, or a new one in a folder that exists. Volumes are written under hidden names and
        renamed to ``vol_00000.nii``, ...
    tr : float or None
        The TR, s; None takes the file's.
    speed : float
        Speed as a multiple of real time.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    UsageError
        If the file is not a 4-D NIfTI or has no TR, the folder is not empty, or `speed` is not positive.
    """
    image, tr_s = _open(bold, tr)
    if speed <= 0:
        raise UsageError("play-volumes-speed-invalid", "--speed must be positive, found {speed}", speed=speed)
    _prepare(fmri_dir)
    count = image.shape[3]
    console = terminal.console(stderr=True)
    console.print(f"{count} volumes of recorded data, TR {tr_s:g} s, into {fmri_dir}", highlight=False)
    began = time.monotonic()
    stop = threading.Event()
    with interrupts.on_interrupt(lambda _name: stop.set()):
        for n in terminal.track(range(count), "playing", console=console):
            # Encode before waiting, so that writing is all that is left when the volume is due.
            data = encoded(image, n, tr_s)
            due = began + (n + 1) * tr_s / speed
            if stop.wait(max(0.0, due - time.monotonic())):
                console.print(f"stopped after {n} of {count} volumes", highlight=False)
                break
            _place(data, fmri_dir / f"vol_{n:05d}.nii")
    return 0


def encoded(image: Any, n: int, tr_s: float) -> bytes:
    """Return volume n of an opened 4-D NIfTI as the bytes of a 3-D one, with the TR in ``pixdim[4]``."""
    # Scaled images become floating-point when they are read, whatever they are stored as.
    stored = np.asanyarray(image.dataobj[..., n])
    exact = np.can_cast(image.get_data_dtype(), np.int16) and stored.dtype.kind in "iu"
    volume = nib.Nifti1Image(stored.astype(np.int16 if exact else np.float32), image.affine)
    volume.header.set_xyzt_units("mm", "sec")
    volume.header["pixdim"][4] = tr_s
    # Both transforms are marked as scanner coordinates, whatever the recording's codes are.
    volume.set_sform(image.affine, code=1)
    volume.set_qform(image.affine, code=1)
    return volume.to_bytes()


def _open(bold: Path, tr: float | None) -> tuple[Any, float]:
    if not bold.is_file():
        raise UsageError(
            "bold-missing",
            "{path} is no file: found {found}. Give a 4-D NIfTI (.nii or .nii.gz).",
            path=bold,
            found=what_is_there(bold),
        )
    try:
        image = _load(bold)
        shape = getattr(image, "shape", ())
        # Read the last volume: a file that ends early is refused before anything is played.
        if len(shape) == 4:
            np.asanyarray(image.dataobj[..., -1])
    except (ImageFileError, IncompleteError, OSError, ValueError) as error:
        raise UsageError(
            "bold-unreadable", "{path} cannot be read as NIfTI ({error})", path=bold, error=error
        ) from error
    if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)) or len(shape) != 4:
        raise UsageError(
            "bold-not-4d", "{path} has the shape {shape}: give a 4-D NIfTI", path=bold, shape=shape
        )
    tr_s = tr if tr is not None else repetition_time(image.header)
    if tr_s is None or not 0 < tr_s <= _MOST_TR_S:
        raise UsageError(
            "bold-tr-invalid",
            "{path} has no usable TR, found {tr_s} s: give it with --tr, in seconds",
            path=bold,
            tr_s=tr_s,
        )
    return image, tr_s


def _load(bold: Path) -> Any:
    """Open an image; unpack a compressed one once, instead of from its start for every volume."""
    image: Any = nib.load(bold)
    if bold.name.endswith(".gz"):
        return type(image).from_bytes(gunzip(bold.read_bytes(), limit_bytes=_ANY_SIZE))
    return image


def _prepare(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise UsageError(
            "fmri-dir-parent-missing",
            "there is no folder {parent} to make {folder} in",
            parent=folder.parent,
            folder=folder.name,
        )
    if is_in_use(folder):
        raise UsageError(
            "fmri-dir-not-empty",
            "{folder} is not an empty folder: each run needs a folder of its own",
            folder=folder,
        )
    folder.mkdir(exist_ok=True)


def _place(data: bytes, path: Path) -> None:
    """Write under a name that readers ignore, then rename, so that the file appears whole."""
    hidden = path.with_name(f".{path.name}.part")
    hidden.write_bytes(data)
    hidden.rename(path)
