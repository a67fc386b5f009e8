"""The data that move through a session: frozen, and checked where they are made.

All instants ending in ``_at`` are seconds on the local monotonic clock (LSL's ``local_clock``);
all instants ending in ``_s`` are seconds on a run's time line.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Montage:
    """The channels of a stream that are kept.

    Attributes
    ----------
    channels : tuple of str
        Labels, in the order of the data (EEG by 10-10 names).
    sfreq : float
        Nominal sampling rate, Hz.
    reference : str
        Label of the recording reference.
    kinds : tuple of str
        Kind of each channel, of `rtdecode.eeg.channels.KINDS`; all EEG where none is given.
    simulated : bool
        Whether the stream says that its participant is simulated.
    """

    channels: tuple[str, ...]
    sfreq: float
    reference: str = "FCz"
    kinds: tuple[str, ...] = ()
    simulated: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not self.kinds:
            object.__setattr__(self, "kinds", ("eeg",) * len(self.channels))
        if len(self.kinds) != len(self.channels):
            raise ValueError(f"a kind for each channel, found {len(self.kinds)} of {len(self.channels)}")
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ValueError(f"channel labels must be present and unique, found {self.channels}")
        if self.sfreq <= 0:
            raise ValueError(f"sfreq must be positive, found {self.sfreq}")


@dataclass(frozen=True, slots=True)
class EegChunk:
    """Consecutive EEG samples as one read delivered them.

    Attributes
    ----------
    data : float32, (channel, sample)
        Microvolts.
    stamps : float64, (sample,)
        Acquisition times on the local clock, after clock correction.
    arrived_at : float
        When the read returned.
    live : bool
        False where it was read too late to be of use: recorded, but not decoded.
    montage : Montage or None
        Of this chunk and those that follow, where it is not that of the chunks before.
    clock_at : float or None
        The clock of the deadlines when it was taken, where that was not `arrived_at`: while volumes were
        read that lay there before.
    """

    data: Float
    stamps: NDArray[np.float64]
    arrived_at: float
    live: bool = True
    montage: Montage | None = None
    clock_at: float | None = None

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or self.stamps.shape != (self.data.shape[1],):
            raise ValueError(
                f"an EEG chunk is (channel, sample) with one stamp a sample, "
                f"found {self.data.shape} and {self.stamps.shape}"
            )


@dataclass(frozen=True, slots=True)
class Trigger:
    """One volume trigger: the start of a volume's acquisition.

    Attributes
    ----------
    stamp : float
        On the local clock, after clock correction.
    label : str
        The marker's text, ``R128`` for example.
    arrived_at : float
        When the read returned.
    clock_at : float or None
        As for `EegChunk`.
    """

    stamp: float
    label: str
    arrived_at: float
    clock_at: float | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """One fMRI volume.

    Attributes
    ----------
    data : (i, j, k)
        Rescaled values, in the order that ``affine`` describes.
    affine : float64, (4, 4)
        Voxel indices to scanner RAS+ coordinates, mm.
    index : int
        Position on the acquisition grid of its run, 0 for the first volume.
    series : int
        SeriesNumber of the run's first volume; 0 where there is none.
    tr_s : float or None
        Repetition time; None where the file does not say.
    acquired_s : float or None
        Start of the acquisition after the run's first volume, by the header.
    recon_s : float or None
        Header's time from the start of the acquisition to the finished image.
    readable_at, arrived_at, parsed_at : float
        When the file could first be read in full, was seen, was decoded.
    name : str
        File name, for messages.
    uid : str
        Identity of the run's series; another value starts another run.
    simulated : bool
        Whether the file says that its participant is simulated.
    live : bool
        False where the bundle cannot read it: it keeps its place in the run, and is not decoded.
    clock_at : float or None
        As for `EegChunk`.
    """

    data: Array
    affine: NDArray[np.float64]
    index: int
    series: int
    tr_s: float | None
    acquired_s: float | None
    recon_s: float | None
    readable_at: float
    arrived_at: float
    parsed_at: float
    name: str = ""
    uid: str = ""
    simulated: bool = False
    live: bool = True
    clock_at: float | None = None

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or self.affine.shape != (4, 4):
            raise ValueError(
                f"a volume is (i, j, k) with a 4 x 4 affine, found {self.data.shape} and {self.affine.shape}"
            )
        if self.index < 0:
            raise ValueError(f"a volume's index counts from 0, found {self.index}")


@dataclass(frozen=True, slots=True)
class Window:
    """One sliding unit, ready for a decoder.

    Attributes
    ----------
    run, index : int
        Run of the session and window within the run; the window covers stimulus time
        ``[start_s, stop_s)`` of that run.
    revision : str
        ``preview`` (EEG alone) or ``final``.
    eeg : float32, (channel, sample), or None
        Filtered microvolts on the model's grid, z-scored; holes are zero.
    eeg_mask : bool, (sample,)
        True where a sample was received, and corrected where gradients were in it.
    fmri : float32, (slot, voxel), or None
        Normalised volumes; holes and unused slots are zero.
    fmri_mask : bool, (slot,)
        True where a volume was received.
    fmri_expected : bool, (slot,)
        True where the acquisition grid has a volume.
    floor_at : float
        When the last input that went in could first be read in full.
    stamps : dict
        Instants of the ledger on the local clock: acquired, arrived, parsed, corrected, windowed.
    session_s : float
        ``start_s`` on the session's time line.
    eeg_quality : dict
        Share of the EEG samples that are ``gap``, ``uncorrected`` (both masked), ``learning``,
        ``interpolated`` and ``corrected``; empty without EEG.
    eeg_bad : list of str
        Channels that were interpolated in at least one sample.
    eeg_lacking, fmri_lacking : float
        Share of the values that were no numbers although their sample, or their volume, came; of all the
        values that the window's grid has.
    """

    run: int
    index: int
    start_s: float
    stop_s: float
    session_s: float
    revision: str
    eeg: Float | None
    eeg_mask: NDArray[np.bool_]
    fmri: Float | None
    fmri_mask: NDArray[np.bool_]
    fmri_expected: NDArray[np.bool_]
    floor_at: float
    stamps: dict[str, float] = field(default_factory=dict)
    eeg_quality: dict[str, float] = field(default_factory=dict)
    eeg_bad: list[str] = field(default_factory=list)
    eeg_lacking: float = 0.0
    fmri_lacking: float = 0.0

    @property
    def missing(self) -> dict[str, float]:
        """Fraction of each modality's grid that was not received, or was no measurement."""
        expected = int(self.fmri_expected.sum())
        seen = int((self.fmri_mask & self.fmri_expected).sum())
        return {
            "eeg": 1.0 - float(self.eeg_mask.mean()) + self.eeg_lacking if self.eeg_mask.size else 1.0,
            "fmri": 1.0 - seen / expected + self.fmri_lacking if expected else 1.0,
        }

    @property
    def modalities(self) -> list[str]:
        """The modalities of which at least something was received."""
        present = {"eeg": self.eeg is not None, "fmri": self.fmri is not None}
        return [name for name, there in present.items() if there]


@dataclass(frozen=True, slots=True)
class Clip:
    """One reconstructed clip.

    Attributes
    ----------
    frames : uint8, (frame, row, column, 3)
        RGB.
    latent : float32
        What the encoder (or the denoiser) handed to the video decoder.
    scores : dict or None
        Label -> probability, where the bundle decodes named categories.
    steps : int
        Denoising steps taken; 0 in closed form.
    confidence : float or None
        Calibrated probability that the clip wins its 2-way identification.
    """

    frames: NDArray[np.uint8]
    latent: Float
    scores: dict[str, float] | None
    steps: int
    confidence: float | None = None
