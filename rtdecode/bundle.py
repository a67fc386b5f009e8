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

Everything is read strictly: an unknown key, a wrong hash or a missing file is an error that names it.
"""

import os
import shutil
from dataclasses import MISSING, asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import sealed
from rtdecode.errors import BundleError
from rtdecode.sealed import check_files, read_arrays, read_tree
from rtdecode.signal.baseline import Baseline, drift_of
from rtdecode.signal.eeg import EegBand
from rtdecode.signal.volume import Projection
from rtdecode.timing import TimingGrid

SCHEMA = 1
SHIPPED = Path(__file__).parent / "bundles"
_HEAD = "manifest.json"
_AGAIN = "Export or copy the bundle again."


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


@dataclass(frozen=True, slots=True)
class EegInput:
    """The EEG a bundle takes: labels in the order of its arrays, reference, and the causal band."""

    channels: list[str]
    reference: str
    unit: str
    band: EegBand


@dataclass(frozen=True, slots=True)
class FmriInput:
    """The volumes a bundle takes: voxel count, grid, and how the resting level is followed."""

    voxels: int
    shape: list[int]
    affine: list[list[float]]
    baseline: Baseline


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
        return read_arrays(self.path / "golden.npz", _AGAIN)


def resolve(name: str | Path) -> Path:
    """The directory of a bundle given by path or by the name of a shipped one.

    Raises
    ------
    BundleError
        If there is no such bundle; the message lists the shipped ones.
    """
    path = Path(name)
    if (path / _HEAD).is_file():
        return path
    shipped = SHIPPED / str(name)
    if os.sep not in str(name) and (shipped / _HEAD).is_file():
        return shipped
    names = sorted(p.parent.name for p in SHIPPED.glob(f"*/{_HEAD}"))
    raise BundleError(
        f"no bundle at '{name}': a folder with manifest.json was expected. "
        f"Give the path of one, or the name of a shipped one: {', '.join(names) or 'none is shipped'}."
    )


def load(name: str | Path, *, verify: bool = True) -> Bundle:
    """Read a bundle and check every file against its hash.

    Parameters
    ----------
    name : str or Path
        A path, or the name of a shipped bundle.
    verify : bool
        False leaves the hashes unchecked.

    Raises
    ------
    BundleError
        If a file is missing or was changed, or the files do not fit together.
    """
    path = resolve(name)
    file = path / _HEAD
    tree, found = read_tree(file, _AGAIN, verify=verify)
    manifest = from_json(tree, str(file))
    if manifest.schema != SCHEMA:
        raise BundleError(
            f"{path} has bundle schema {manifest.schema}, this version reads {SCHEMA}. Export it again."
        )
    if verify:
        check_files(file, manifest.files, _AGAIN)
    projection, stats = _projection(path, manifest), read_arrays(path / "stats.npz", _AGAIN)
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
    return _read(Manifest, tree, where)


def _projection(path: Path, manifest: Manifest) -> Projection | None:
    if manifest.fmri is None:
        return None
    file = path / "projection.npz"
    try:
        projection = Projection.from_arrays(read_arrays(file, _AGAIN))
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


_NESTED: dict[tuple[type, str], type] = {
    (Manifest, "grid"): TimingGrid,
    (Manifest, "eeg"): EegInput,
    (Manifest, "fmri"): FmriInput,
    (Manifest, "clip"): ClipGeometry,
    (EegInput, "band"): EegBand,
    (FmriInput, "baseline"): Baseline,
}


def _read(kind: type, tree: Any, where: str) -> Any:
    """Build a dataclass from a JSON object that has its keys; those with a default may be absent."""
    if not isinstance(tree, dict):
        raise BundleError(f"{where} must be an object, found {type(tree).__name__}.")
    names = {f.name for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    unknown, missing = sorted(set(tree) - names), sorted(needed - set(tree))
    if unknown or missing:
        raise BundleError(f"{where}: unknown keys {unknown}, missing keys {missing}.")
    values = {name: _value(kind, name, tree[name], f"{where}: {name}") for name in names & set(tree)}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{where}: {error}") from error


def _value(kind: type, name: str, value: Any, where: str) -> Any:
    if value is None:
        return None
    if (kind, name) in _NESTED:
        return _read(_NESTED[kind, name], value, where)
    if kind is TimingGrid:
        try:
            return Fraction(value)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise BundleError(f"{where}: '{value}' is no fraction of seconds.") from error
    if (kind, name) == (Manifest, "stages"):
        if not isinstance(value, dict):
            raise BundleError(f"{where} must be an object, found {type(value).__name__}.")
        return {k: v if v is None else _read(Stage, v, f"{where}.{k}") for k, v in value.items()}
    return value
