"""Read and write a bundle's folder, strictly.

`load` turns a folder into a `Bundle`, and `write` turns a manifest and files into a folder. An unknown
key, a value of the wrong type, a wrong hash, a missing file or a file that the manifest does not list is
an error that names it. Every file that is read lies in the folder, is listed and is hashed, so the digest
identifies all that a bundle is.
"""

import mmap
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import wiring
from rtdecode.bundle.manifest import SCHEMA, Manifest, from_json, of_subject, subject_named, to_json
from rtdecode.disk import hashed_folder, private, typed
from rtdecode.disk.folders import what_is_there
from rtdecode.disk.hashed_folder import HashedFolder, read_tree
from rtdecode.errors import BundleError
from rtdecode.signal.volume.baseline import Baseline, drift_of
from rtdecode.signal.volume.projection import Projection

SHIPPED = Path(__file__).parents[1] / "bundles"
_HEAD = "manifest.json"
_AGAIN = "Export or copy the bundle again."


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and verified.

    Attributes
    ----------
    path : Path
        The bundle's folder.
    manifest : Manifest
        What the bundle states about itself.
    digest : str
        First 16 hexadecimal digits of the SHA-256 over the manifest's values, which include the hash of
        every other file.
    stats, projection
        Contents of ``stats.npz`` and ``projection.npz``; `projection` is None without fMRI.
    subject : str or None
        The subject whose signals it reads; None for the default subject.
    """

    path: Path
    manifest: Manifest
    digest: str
    stats: dict[str, NDArray[Any]] = field(repr=False)
    projection: Projection | None = field(repr=False)
    subject: str | None = None

    def golden(self) -> dict[str, NDArray[Any]]:
        """Read the golden windows and the clips that are expected from them."""
        return self._sealed.arrays(_of_subject(self.subject, "golden.npz"))

    @property
    def golden_file(self) -> Path:
        """Path of the file with the golden windows."""
        return self.path / _of_subject(self.subject, "golden.npz")

    def read(self, name: str) -> bytes:
        """Read a file of the bundle, checking its hash again, so that the digest holds for what is returned.

        Raises
        ------
        BundleError
            If the manifest does not list the file, it lies outside the folder, or it was changed.
        """
        return self._sealed.read(name)

    def mapped(self, name: str) -> mmap.mmap:
        """Map a file of the bundle into memory, checking its hash again.

        Raises
        ------
        BundleError
            See `read`.
        """
        return self._sealed.mapped(name)

    @property
    def _sealed(self) -> HashedFolder:
        return HashedFolder(self.path / _HEAD, self.manifest.files, _AGAIN)


def resolve(name: str | Path) -> Path:
    """Find the directory of a bundle, given its path or the name of a shipped one.

    Raises
    ------
    BundleError
        If there is no such bundle; the message lists the shipped ones.
    """
    path = Path(name)
    shipped = SHIPPED / str(name)
    try:
        # A folder of that name comes before a shipped bundle.
        if (path / _HEAD).is_file():
            return path
        if os.sep not in str(name) and (shipped / _HEAD).is_file():
            return shipped
        actual = what_is_there(path)
    except (OSError, ValueError) as error:
        raise BundleError(
            "bundle-unreadable",
            "the bundle {path!r} cannot be read ({error}). Give a folder that can be read.",
            path=str(name),
            error=error,
        ) from error
    names = sorted(p.parent.name for p in SHIPPED.glob(f"*/{_HEAD}"))
    raise BundleError(
        "bundle-missing",
        "no bundle at '{path}': found {actual}, and a folder with manifest.json was expected. Give the path "
        "of one, or the name of a shipped one: {available}.",
        path=name,
        actual=actual,
        available=", ".join(names) or "none is shipped",
    )


def load(name: str | Path, *, verify: bool = True, subject: str | None = None) -> Bundle:
    """Read a bundle and check every file against its hash.

    Parameters
    ----------
    name : str or Path
        A path, or the name of a shipped bundle.
    verify : bool
        Whether to check the manifest's digest, and the hashes of files that are not read here. Files that
        are read are always checked.
    subject : str, optional
        One of the bundle's subjects, by name or number; by default the one whose files lie beside the
        manifest.

    Raises
    ------
    BundleError
        If a file is missing, unlisted, outside the folder or changed, or if the files do not fit together.
    UsageError
        If there is no such subject.
    """
    path = resolve(name)
    file = path / _HEAD
    tree, digest = read_tree(file, _AGAIN, verify=verify)
    # Another schema has other keys, so it is named before the strict reading can
    # complain about these.
    if tree.get("schema") != SCHEMA:
        raise BundleError(
            "bundle-schema-unsupported",
            "{path} has bundle schema {actual!r}, this version reads {expected}. Export it again "
            "from its run: `rtdecode export RUN --out DIR`.",
            path=path,
            actual=tree.get("schema"),
            expected=SCHEMA,
        )
    manifest = from_json(tree, str(file))
    files = HashedFolder(file, manifest.files, _AGAIN)
    files.check_whole()
    if verify:
        files.check()
    _check_listed(file, manifest)
    _check_wiring(manifest, file)
    if subject is not None:
        subject = subject_named(manifest, subject)
    if subject is not None:
        manifest = of_subject(manifest, subject)
    projection = _projection(files, manifest, _of_subject(subject, "projection.npz"))
    stats_file = _of_subject(subject, "stats.npz")
    stats = files.arrays(stats_file)
    _check_stats(path / stats_file, stats, manifest)
    try:
        drift_of(stats, manifest.fmri.baseline if manifest.fmri else Baseline())
    except ValueError as error:
        raise BundleError(
            "stats-drift-invalid",
            "{path}: {error}. Export the bundle again.",
            path=path / stats_file,
            error=error,
        ) from error
    return Bundle(path, manifest, digest, stats, projection, subject)


def check_target(target: Path) -> None:
    """Refuse a target that `write` would refuse; see `rtdecode.disk.hashed_folder.check_target`."""
    hashed_folder.check_target(target, _HEAD, "bundle")


def write(target: Path, manifest: Manifest, files: dict[str, Path]) -> Bundle:
    """Write a bundle in one step, into a temporary folder that is renamed when it is complete.

    Parameters
    ----------
    target : Path
        Folder to create. An existing bundle there is replaced; anything else is refused.
    manifest : Manifest
        Its `files` are filled in here.
    files : dict
        Name in the bundle, with slashes if it lies in a folder -> file to copy.

    Raises
    ------
    UsageError
        If `target` holds anything but a bundle.
    BundleError
        If the stages do not fit together. Then nothing is replaced.
    """
    # All checks come first, and the bundle is read back at the end: what is written can be loaded.
    check_target(target)
    _check_wiring(manifest, target / _HEAD)
    with hashed_folder.replacing(target) as part:
        for name, source in files.items():
            place = part / name
            private.folder(place.parent)
            shutil.copyfile(source, private.file(place))
        hashed_folder.write_tree(part / _HEAD, to_json(manifest))
    return load(target)


def _check_wiring(manifest: Manifest, file: Path) -> None:
    """Refuse stages that do not fit together, for the default subject and for every other."""
    wiring.check(manifest, str(file))
    for subject in manifest.subjects:
        try:
            of_one = of_subject(manifest, subject)
        except BundleError as error:
            # It names the bundle as the manifest does, and not where the bundle lies.
            raise BundleError.wrap(
                error, "bundle-subject-invalid", "{manifest}: {error}", manifest=file
            ) from error
        wiring.check(of_one, f"{file}: subjects.{subject}")


def _check_listed(file: Path, manifest: Manifest) -> None:
    for place, name in _named(manifest):
        if name not in manifest.files:
            raise BundleError(
                "bundle-file-unlisted",
                "{manifest}: {entry} is in the file {file!r}, which is not listed under files: the "
                "name of a file in the bundle's own folder was expected. {remedy}",
                manifest=file,
                entry=place,
                file=name,
                remedy=_AGAIN,
            )
    for n, engine in enumerate(manifest.engines):
        graph = manifest.built[engine.stage].file
        if engine.graph != manifest.files[graph]:
            raise BundleError(
                "engine-graph-changed",
                "{manifest}: engines[{index}] {engine!r} was built from another graph than "
                "{graph!r}. Build the engines again: `rtdecode export RUN --out DIR --target "
                "tensorrt`.",
                manifest=file,
                index=n,
                engine=engine.file,
                graph=graph,
            )
    # Provenance may hold anything, but a session computes with this value.
    correction = manifest.provenance.get("onset_correction_s")
    typed.read(float | None, correction, f"{file}: provenance.onset_correction_s")


def _named(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield every file that the manifest names, each after the place that names it."""
    stages = {f"stages.{name}": stage for name, stage in manifest.built.items()}
    for subject, entry in manifest.subjects.items():
        stages |= {f"subjects.{subject}.stages.{name}": stage for name, stage in entry.stages.items()}
    for place, stage in stages.items():
        yield place, stage.file
        for name in stage.data:
            yield f"a weight of {place}", name
    for name, memory in manifest.memories.items():
        yield f"memories.{name}", memory.file
    for n, engine in enumerate(manifest.engines):
        yield f"engines[{n}]", engine.file


def _of_subject(subject: str | None, name: str) -> str:
    """Return where a subject's file lies; the default subject's files lie beside the manifest."""
    return name if subject is None else f"subjects/{subject}/{name}"


def _check_stats(file: Path, stats: dict[str, NDArray[Any]], manifest: Manifest) -> None:
    sizes = {
        "eeg": manifest.eeg and len(manifest.eeg.channels),
        "fmri": manifest.fmri and manifest.fmri.voxels,
    }
    for modality in manifest.modalities:
        for name in (f"{modality}_mean", f"{modality}_scale"):
            shape = stats[name].shape if name in stats else None
            if shape != (sizes[modality],):
                raise BundleError(
                    "stats-shape-mismatch",
                    "{path}: {array} has shape {actual}, manifest.json asks for ({expected_size},). {remedy}",
                    path=file,
                    array=name,
                    actual=shape,
                    expected_size=sizes[modality],
                    remedy=_AGAIN,
                )


def _projection(files: HashedFolder, manifest: Manifest, name: str) -> Projection | None:
    if manifest.fmri is None:
        return None
    file = files.head.parent / name
    try:
        projection = Projection.from_arrays(files.arrays(name))
    except ValueError as error:
        raise BundleError(
            "projection-invalid", "{path}: {error}. Export the bundle again.", path=file, error=error
        ) from error
    geometry = {"voxels": projection.features, "shape": projection.shape, "affine": projection.affine}
    for name, actual in geometry.items():
        _check_fit(file, name, actual, getattr(manifest.fmri, name))
    return projection


def _check_fit(file: Path, name: str, actual: Any, expected: Any) -> None:
    if np.shape(actual) != np.shape(expected) or not np.allclose(actual, expected, rtol=1e-9, atol=1e-9):
        raise BundleError(
            "projection-manifest-mismatch",
            "{path}: {field} is {actual}, manifest.json fmri.{field} says {expected}. Export the "
            "bundle again.",
            path=file,
            field=name,
            actual=np.asarray(actual).tolist(),
            expected=expected,
        )
