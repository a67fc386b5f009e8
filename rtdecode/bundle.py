"""The bundle: the one directory that joins training to streaming.

::

    manifest.json      what the files are and how they fit together, and its own digest
    encode.onnx        brain -> latent (and scores)
    denoise.onnx       one denoising step, where the decoder has any
    decode_first.onnx  latent frame 0 -> the first video frame
    decode_next.onnx   a later latent frame -> the video frames it holds
    stats.npz          eeg_mean, eeg_scale (channel,); fmri_mean, fmri_scale (voxel,);
                       drift_read, drift_write, drift_prior where the baseline has components
    projection.npz     voxels (voxel,), shape (3,), affine (4, 4)
    golden.npz         windows and the clips expected from them

Everything is read strictly: an unknown key, a value of another kind, a wrong hash, a missing file or one
that the manifest does not list is an error that names it. Every file that is read lies in the folder
itself, is listed and is hashed: the digest says all that a bundle is.
"""

import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import sealed, typed
from rtdecode.errors import BundleError
from rtdecode.sealed import Sealed, read_tree
from rtdecode.signal.baseline import Baseline, drift_of
from rtdecode.signal.eeg import EegBand
from rtdecode.signal.volume import Projection
from rtdecode.timing import TimingGrid

SCHEMA = 1
SHIPPED = Path(__file__).parent / "bundles"
_HEAD = "manifest.json"
_AGAIN = "Export or copy the bundle again."
_STAGES = ("encode", "denoise", "decode_first", "decode_next")
# Far above any schedule: a clip of so many steps would take minutes, and so would reading the bundle.
_MOST_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Stage:
    """One graph: its file and the shape of each named port."""

    file: str
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class ClipGeometry:
    """Shape of a clip: `frames` of (height, width, 3) at `fps`; `hop_frames` of them are shown per hop."""

    frames: int
    height: int
    width: int
    fps: float

    def __post_init__(self) -> None:
        if min(self.frames, self.height, self.width) < 1 or self.fps <= 0:
            raise ValueError(f"a clip has a frame, a row, a column and a frame rate at least, found {self}")


@dataclass(frozen=True, slots=True)
class EegInput:
    """The EEG a bundle takes: labels in the order of its arrays, reference, and the causal band."""

    channels: list[str]
    reference: str
    unit: str
    band: EegBand

    def __post_init__(self) -> None:
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels are one or more different labels, found {self.channels}")


@dataclass(frozen=True, slots=True)
class FmriInput:
    """The volumes a bundle takes: voxel count, grid, and how the resting level is followed."""

    voxels: int
    shape: list[int]
    affine: list[list[float]]
    baseline: Baseline

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape is three counts of voxels, found {self.shape}")
        if [len(row) for row in self.affine] != [4, 4, 4, 4]:
            raise ValueError(f"affine has four rows of four numbers, found {self.affine}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Attributes
    ----------
    simulated : bool
        True where the participant it was trained on is simulated.
    note : str or None
        A sentence shown with every clip.
    labels : list of str or None
        Named categories, in the order of the ``scores`` port.
    sigmas : list of float
        Noise levels of the denoising steps; empty without a denoiser.
    The rest are plain values.
    """

    schema: int
    name: str
    recipe: str
    recipe_digest: str
    simulated: bool
    note: str | None
    grid: TimingGrid
    eeg: EegInput | None
    fmri: FmriInput | None
    clip: ClipGeometry
    dtype: str
    sigmas: list[float]
    steps: int
    stages: dict[str, Stage | None]
    labels: list[str] | None
    confidence: dict[str, Any] | None
    files: dict[str, str]
    parity: dict[str, Any]
    provenance: dict[str, Any]
    licence: str

    def __post_init__(self) -> None:
        if self.eeg is None and self.fmri is None:
            raise ValueError("it reads neither eeg nor fmri: one of them was expected")
        if self.fmri is not None and self.grid.tr is None:
            raise ValueError("it reads fmri, and grid.tr is null: the repetition time was expected")
        if not 0 <= self.steps <= _MOST_STEPS:
            raise ValueError(f"steps lies between 0 and {_MOST_STEPS}, found {self.steps}")
        if unknown := sorted(set(self.stages) - set(_STAGES)):
            raise ValueError(f"stages are {', '.join(_STAGES)}, found {unknown}")
        if self.labels is not None and (not self.labels or len(set(self.labels)) < len(self.labels)):
            raise ValueError(f"labels are one or more different names, or null, found {self.labels}")

    @property
    def modalities(self) -> list[str]:
        """The modalities the bundle can read."""
        return [name for name in ("eeg", "fmri") if getattr(self, name) is not None]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and verified.

    Attributes
    ----------
    path : Path
    manifest : Manifest
    digest : str
        SHA-256 over the values of the manifest (which holds the hash of every other file), first 16
        hexadecimal digits.
    stats, projection
        Contents of ``stats.npz`` and ``projection.npz``; projection is None without fMRI.
    """

    path: Path
    manifest: Manifest
    digest: str
    stats: dict[str, NDArray[Any]] = field(repr=False)
    projection: Projection | None = field(repr=False)

    def golden(self) -> dict[str, NDArray[Any]]:
        """Windows and the clips expected from them."""
        return self._sealed.arrays("golden.npz")

    def read(self, name: str) -> bytes:
        """Read a file of the bundle, held to its hash again: what is returned is what the digest says.

        Raises
        ------
        BundleError
            If the manifest does not list it, it lies elsewhere, or it was changed.
        """
        return self._sealed.read(name)

    @property
    def _sealed(self) -> Sealed:
        return Sealed(self.path / _HEAD, self.manifest.files, _AGAIN)


def resolve(name: str | Path) -> Path:
    """The directory of a bundle given by path or by the name of a shipped one.

    Raises
    ------
    BundleError
        If there is no such bundle; the message lists the shipped ones.
    """
    path = Path(name)
    shipped = SHIPPED / str(name)
    try:
        if (path / _HEAD).is_file():
            return path
        if os.sep not in str(name) and (shipped / _HEAD).is_file():
            return shipped
        there = _found(path)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"the bundle {str(name)!r} cannot be read ({error}). Give a folder that can be read."
        ) from error
    names = sorted(p.parent.name for p in SHIPPED.glob(f"*/{_HEAD}"))
    raise BundleError(
        f"no bundle at '{name}': {there}, a folder with manifest.json was expected. "
        f"Give the path of one, or the name of a shipped one: {', '.join(names) or 'none is shipped'}."
    )


def _found(path: Path) -> str:
    """Say what is there instead of a bundle."""
    if path.is_dir():
        held = sorted(entry.name for entry in path.iterdir())
        return f"a folder that holds {', '.join(held[:5])}" if held else "a folder that is empty"
    return "a file" if path.exists() else "nothing is there"


def load(name: str | Path, *, verify: bool = True) -> Bundle:
    """Read a bundle and check every file against its hash.

    Parameters
    ----------
    name : str or Path
        A path, or the name of a shipped bundle.
    verify : bool
        False leaves the manifest's digest, and the hash of what is not read here, unchecked.

    Raises
    ------
    BundleError
        If a file is missing, not listed, elsewhere or changed, or the files do not fit together.
    """
    path = resolve(name)
    file = path / _HEAD
    tree, found = read_tree(file, _AGAIN, verify=verify)
    if tree.get("schema") != SCHEMA:
        raise BundleError(
            f"{path} has bundle schema {tree.get('schema')!r}, this version reads {SCHEMA}. Export it again."
        )
    manifest = from_json(tree, str(file))
    held = Sealed(file, manifest.files, _AGAIN)
    held.check_whole()
    if verify:
        held.check()
    _check_stages(file, manifest)
    projection = _projection(held, manifest)
    stats = held.arrays("stats.npz")
    _check_stats(path / "stats.npz", stats, manifest)
    try:
        drift_of(stats, manifest.fmri.baseline if manifest.fmri else Baseline())
    except ValueError as error:
        raise BundleError(f"{path / 'stats.npz'}: {error}. Export the bundle again.") from error
    return Bundle(path, manifest, found, stats, projection)


def check_target(target: Path) -> None:
    """Refuse what `write` would refuse, see `rtdecode.sealed.check_target`."""
    sealed.check_target(target, _HEAD, "bundle")


def write(target: Path, manifest: Manifest, files: dict[str, Path]) -> Bundle:
    """Write a bundle in one step: a temporary folder that is renamed when it is whole.

    Parameters
    ----------
    target : Path
        Folder to be made; an existing bundle there is replaced, anything else is refused.
    manifest : Manifest
        `files` of it is filled in here.
    files : dict
        Name in the bundle -> file to copy.

    Raises
    ------
    UsageError
        If `target` holds anything but a bundle.
    """
    check_target(target)
    with sealed.replacing(target) as part:
        for name, source in files.items():
            shutil.copyfile(source, part / name)
        sealed.write_tree(part / _HEAD, to_json(manifest))
    return load(target)


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain JSON values; fractions become text."""
    tree = asdict(manifest)
    tree["grid"] = {k: None if v is None else str(v) for k, v in tree["grid"].items()}
    return tree


def from_json(tree: Any, where: str = "manifest.json") -> Manifest:
    """Read a manifest from JSON values, strictly; `where` begins the message of a fault."""
    return typed.read(Manifest, tree, where)


def _check_stages(file: Path, manifest: Manifest) -> None:
    for name, stage in manifest.stages.items():
        if stage is not None and stage.file not in manifest.files:
            raise BundleError(
                f"{file}: stages.{name} is in the file {stage.file!r}, which is not listed under files: the "
                f"name of a file in the bundle's own folder was expected. {_AGAIN}"
            )
    correction = manifest.provenance.get("onset_correction_s")
    typed.read(float | None, correction, f"{file}: provenance.onset_correction_s")


def _check_stats(file: Path, stats: dict[str, NDArray[Any]], manifest: Manifest) -> None:
    sizes = {
        "eeg": manifest.eeg and len(manifest.eeg.channels),
        "fmri": manifest.fmri and manifest.fmri.voxels,
    }
    for modality in manifest.modalities:
        for name in (f"{modality}_mean", f"{modality}_scale"):
            found = stats[name].shape if name in stats else None
            if found != (sizes[modality],):
                raise BundleError(
                    f"{file}: {name} has shape {found}, manifest.json asks for ({sizes[modality]},). {_AGAIN}"
                )


def _projection(files: Sealed, manifest: Manifest) -> Projection | None:
    if manifest.fmri is None:
        return None
    file = files.head.parent / "projection.npz"
    try:
        projection = Projection.from_arrays(files.arrays(file.name))
    except ValueError as error:
        raise BundleError(f"{file}: {error}. Export the bundle again.") from error
    held = {"voxels": projection.features, "shape": projection.shape, "affine": projection.affine}
    for name, found in held.items():
        _check_fit(file, name, found, getattr(manifest.fmri, name))
    return projection


def _check_fit(file: Path, name: str, found: Any, stated: Any) -> None:
    if np.shape(found) != np.shape(stated) or not np.allclose(found, stated, rtol=1e-9, atol=1e-9):
        raise BundleError(
            f"{file}: {name} is {np.asarray(found).tolist()}, manifest.json fmri.{name} says {stated}. "
            "Export the bundle again."
        )
