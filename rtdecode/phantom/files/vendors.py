"""What the simulated scanners differ in, apart from the bytes of their files.

Delays: a VE11 header puts the image 0.83 s after its volume's end, an XA30 header 0.90 s. GE and
Philips copy the time of acquisition there, so theirs are assumptions, as is a converter's 0.1 s. The
first volume of a run came 0.14 s later than the others at an XA10, about 4 s at a TrioTim; which vendor
does what is an assumption too. What follows a late first volume queues up behind it.
"""

from dataclasses import dataclass

from rtdecode.errors import UsageError


@dataclass(frozen=True, slots=True)
class Vendor:
    """How a scanner exports.

    Attributes
    ----------
    name : str
        The word that ``--scanner`` takes.
    delay_s : float
        From a volume's end to its last file being complete.
    transfer_s : float
        What of this comes after the image exists.
    first_s : float
        How much later a run's first volume is.
    writing_s : float
        During which the files of a volume are written.
    renamed : bool
        Files are written under another name, then renamed into place.
    by_slice : bool
        One file per slice.
    dated : bool
        Headers say, in the elements of the standard, when a volume's acquisition started.
    finished : bool
        Headers say when the image was finished.
    """

    name: str
    delay_s: float
    transfer_s: float
    first_s: float = 0.0
    writing_s: float = 0.04
    renamed: bool = False
    by_slice: bool = False
    dated: bool = True
    finished: bool = False


VENDORS = {
    vendor.name: vendor
    for vendor in (
        Vendor("siemens-mosaic", 0.85, 0.05, finished=True),
        Vendor("siemens-enhanced", 1.0, 0.1, 0.14, writing_s=0.3, finished=True),
        Vendor("ge", 1.0, 0.3, 4.0, writing_s=0.3, by_slice=True, dated=False),
        Vendor("philips", 1.0, 0.2, 2.0, writing_s=0.2, renamed=True, by_slice=True),
        Vendor("nifti", 0.95, 0.1, renamed=True, dated=False),
    )
}


def vendor_named(name: str) -> Vendor:
    """The scanner of this name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in VENDORS:
        raise UsageError(
            "scanner-unsupported",
            "--scanner {scanner} is not built yet; there is {available}",
            scanner=name,
            available=list(VENDORS),
        )
    return VENDORS[name]
