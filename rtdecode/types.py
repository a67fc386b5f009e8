"""The data types that move through a session.

Sources produce `EegChunk`, `Trigger` and `Volume`; the assembler cuts them into a `Window`; a decoder
turns a window into a `Clip`. All types are frozen, and those of the sources check their shapes when they
are made.

Instants whose names end in ``_at`` are seconds on the local monotonic clock (LSL's ``local_clock``).
Instants whose names end in ``_s`` are seconds on a run's time line.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Float = NDArray[np.float32]

# What a window may hold, in the order of a bundle's output ``brain``; see `Presence`.
PRESENCES = ("brain", "inconsistent", "neither")


@dataclass(frozen=True, slots=True)
class Montage:
    """The channels kept from a stream.

    Attributes
    ----------
    channels : tuple of str
        Labels in the order of the data; EEG channels have 10-10 names.
    sfreq : float
        Nominal sampling rate, Hz.
    reference : str
        Label of the recording reference.
    kinds : tuple of str
        Kind of each channel, one of `rtdecode.eeg.channels.KINDS`. By default every channel is EEG.
    simulated : bool
        Whether the stream declares its participant to be simulated.
    """

    channels: tuple[str, ...]
    sfreq: float
    reference: str = "FCz"
    kinds: tuple[str, ...] = ()
    simulated: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not self.kinds:
            # A frozen dataclass can set a default that depends on another field only this way.
            object.__setattr__(self, "kinds", ("eeg",) * len(self.channels))
        if len(self.kinds) != len(self.channels):
            raise ValueError(
                f"expected one kind per channel, found {len(self.kinds)} kinds for "
                f"{len(self.channels)} channels"
            )
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ValueError(f"channel labels must be present and unique, found {self.channels}")
        if not 0 < self.sfreq < math.inf:
            raise ValueError(f"sfreq must be positive and finite, found {self.sfreq}")


@dataclass(frozen=True, slots=True)
class EegChunk:
    """Consecutive EEG samples, as one read delivered them.

    Attributes
    ----------
    data : float32, (channel, sample)
        Microvolts.
    stamps : float64, (sample,)
        Acquisition times on the local clock, after clock correction.
    arrived_at : float
        When the read returned.
    live : bool
        False if the chunk was read too late to be useful. It is recorded, but not decoded.
    montage : Montage or None
        The montage from this chunk on, if it differs from that of the chunks before.
    clock_at : float or None
        Time by which deadlines are judged when this item is taken, if that is not `arrived_at`. It is set
        while a session catches up on volumes that were already in the folder when it started, and where an
        item that had arrived earlier was still to be taken.
    source : int
        Number of the source id that the stream had: 0 for the stream that the session opened, and a higher
        one for each other source id under which it came back.
    """

    data: Float
    stamps: NDArray[np.float64]
    arrived_at: float
    live: bool = True
    montage: Montage | None = None
    clock_at: float | None = None
    source: int = 0

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or self.stamps.shape != (self.data.shape[1],):
            raise ValueError(
                f"an EEG chunk is (channel, sample) with one stamp a sample, "
                f"found {self.data.shape} and {self.stamps.shape}"
            )


@dataclass(frozen=True, slots=True)
class Trigger:
    """One volume trigger, which marks the start of a volume's acquisition.

    Attributes
    ----------
    stamp : float
        Time of the trigger on the local clock, after clock correction.
    label : str
        The marker's text, for example ``R128``.
    arrived_at : float
        When the read returned.
    clock_at : float or None
        See `EegChunk`.
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
        Rescaled voxel values, in the axis order that `affine` describes.
    affine : float64, (4, 4)
        Maps voxel indices to scanner RAS+ coordinates, mm.
    index : int
        Position on the acquisition grid of its run; the first volume has index 0.
    series : int
        SeriesNumber of the run's first volume; 0 if there is none.
    tr_s : float or None
        Repetition time; None if the file does not state it.
    acquired_s : float or None
        Start of the acquisition relative to the run's first volume, as the header states it.
    recon_s : float or None
        Time from the start of the acquisition to the finished image, as the header states it.
    readable_at, arrived_at, parsed_at : float
        When the file first became readable in full, when it was seen, and when it was decoded.
    name : str
        File name, for messages.
    uid : str
        Identity of the run's series; a different value starts a new run.
    simulated : bool
        Whether the file declares its participant to be simulated.
    live : bool
        False if the bundle cannot read this volume. It keeps its place in the run, but is not decoded.
    clock_at : float or None
        See `EegChunk`.
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
    """One window, ready for a decoder.

    Attributes
    ----------
    run, index : int
        Number of the run in the session, and of the window in the run.
    start_s, stop_s : float
        The window covers stimulus time ``[start_s, stop_s)`` of its run.
    session_s : float
        `start_s` on the session's time line.
    revision : str
        ``preview`` (EEG alone), ``final``, or ``refined`` (with volumes that came after the final).
    eeg : float32, (channel, sample), or None
        Filtered and z-scored EEG on the model's sampling grid; holes are zero.
    eeg_mask : bool, (sample,)
        True where a sample was received and, if it contained gradient artefacts, corrected.
    fmri : float32, (slot, voxel), or None
        Normalised volumes; holes and unused slots are zero.
    fmri_mask : bool, (slot,)
        True where a volume was received.
    fmri_expected : bool, (slot,)
        True where the acquisition grid has a volume.
    floor_at : float
        When the last of its inputs first became readable in full: the earliest time at which the window
        could have been cut. If it waited for inputs that never came, the time of the cut. Latency is
        measured from here.
    stamps : dict
        Local times of the window's last input (``acquired``, ``arrived``, ``parsed``, ``corrected``), of
        its end (``stop``) and of the cut (``windowed``).
    eeg_quality : dict
        Fraction of the EEG samples that are ``gap``, ``uncorrected`` (both masked), ``learning``,
        ``interpolated`` and ``corrected``; empty without EEG.
    eeg_bad : list of str
        Channels that were interpolated in at least one sample.
    eeg_lacking, fmri_lacking : float
        Fraction of all values on the window's grid that are not valid numbers although their sample or
        volume arrived.
    eeg_source : int
        The highest `EegChunk.source` among its samples.
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
    eeg_source: int = 0

    @property
    def missing(self) -> dict[str, float]:
        """Fraction of each modality's grid that was not received or was not a valid measurement."""
        # The masks tell of whole samples and volumes; `lacking` adds single channels and voxels.
        expected = int(self.fmri_expected.sum())
        received = int((self.fmri_mask & self.fmri_expected).sum())
        return {
            "eeg": 1.0 - float(self.eeg_mask.mean()) + self.eeg_lacking if self.eeg_mask.size else 1.0,
            "fmri": 1.0 - received / expected + self.fmri_lacking if expected else 1.0,
        }

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities for which the window holds data."""
        present = {"eeg": self.eeg is not None, "fmri": self.fmri is not None}
        return [name for name, has_data in present.items() if has_data]


@dataclass(frozen=True, slots=True)
class Presence:
    """How probable it is that a window holds a brain that the bundle can read.

    The three probabilities sum to 1. They hold at the prior that the bundle states.

    Attributes
    ----------
    brain : float
        The window holds a brain that the bundle can read, and its modalities agree.
    inconsistent : float
        Each modality may hold a brain, but they do not belong to one window.
    neither : float
        The window holds nothing that the bundle can read.
    """

    brain: float
    inconsistent: float
    neither: float


@dataclass(frozen=True, slots=True)
class Clip:
    """One reconstructed clip.

    Attributes
    ----------
    frames : uint8, (frame, row, column, 3)
        RGB.
    latent : float32
        The clean latent that the encoder or the denoiser handed to the video decoder.
    scores : dict or None
        Probability of each label, if the bundle decodes named categories.
    steps : int
        Denoising steps taken; 0 for a closed-form bundle.
    confidence : float or None
        Calibrated probability that the clip wins its 2-way identification.
    presence : Presence or None
        Whether its window holds a brain that the bundle can read, if the bundle tells.
    brain_by : dict or None
        For ``eeg`` and ``fmri``, how probable it is that it is of a brain that the bundle can read;
        None for one that the window lacks. None as a whole if the bundle does not tell.
    detail : float or None
        Share that was kept of what is drawn beyond what the brain told; None if the bundle has no choice.
    recorded : dict
        Name -> values of what its record repeats, see `rtdecode.bundle.Manifest.recorded`.
    """

    frames: NDArray[np.uint8]
    latent: Float
    scores: dict[str, float] | None
    steps: int
    confidence: float | None = None
    presence: Presence | None = None
    brain_by: dict[str, float | None] | None = None
    detail: float | None = None
    recorded: dict[str, list[float]] = field(default_factory=dict)
