"""What all models of targets share: where they compute, which files they are, and what prepares inputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdecode.errors import UsageError
from train.weights import source
from train.weights.source import Form, Source

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Files that are in a folder of weights and change nothing.
_ASIDE = {".md", ".gitattributes", ".gitignore"}


@dataclass(frozen=True)
class Hardware:
    """Where models compute.

    Attributes
    ----------
    device : str
        Such as ``cpu`` or ``cuda``.
    precision : str
        Of the models: ``float32`` or ``bfloat16``.
    """

    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(
                "targets-precision-unknown",
                "precision={precision} is not known; {available} are.",
                precision=self.precision,
                available=list(PRECISIONS),
            )
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise UsageError(
                "targets-device-unknown",
                "device={device} is no device of torch. Give device=cpu, device=cuda, or device=cuda:1 for "
                "the second GPU.",
                device=self.device,
            ) from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(
                "targets-gpu-unavailable",
                "device={device} was given, and torch finds {count} GPUs. Give device=cpu, or one that "
                "is there.",
                device=self.device,
                count=torch.cuda.device_count(),
            )

    @property
    def dtype(self) -> torch.dtype:
        """The precision, as torch names it."""
        return PRECISIONS[self.precision]

    def moved(self, inputs: Any) -> dict[str, Any]:
        """Bring what a processor made to the device, and its fractions to the precision."""
        return {name: self._moved(value) for name, value in inputs.items()}

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self.device, self.dtype if value.is_floating_point() else None)


def files_of(folder: Path, form: Form, licence: str, processor_folder: Path | None = None) -> Source:
    """Hash all files of a model's folder, with what says how inputs are prepared.

    Parameters
    ----------
    folder : Path
        The model's folder, with ``config.json`` and weights.
    form : str
        ``diffusers folder`` or ``transformers folder``.
    licence : str
        Licence of the weights, as the user states it.
    processor_folder : Path, optional
        A second folder, with what prepares inputs where that lies elsewhere.

    Raises
    ------
    UsageError
        If there is no such folder, or no licence is stated.
    """
    files = _files_in(folder)
    if not files:
        raise UsageError(
            "target-model-missing",
            "no model at {folder}: a folder with config.json and weights was expected.",
            folder=folder,
        )
    if processor_folder is not None and processor_folder != folder:
        files += _files_in(processor_folder)
    return source.of_files(files, form, licence)


def _files_in(folder: Path) -> list[Path]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.is_file() and not {path.suffix, path.name} & _ASIDE]


def prepared(library_class: Any, folder: Path, **how: Any) -> Any:
    """Open what prepares inputs for a model of transformers: a processor or a tokenizer.

    Raises
    ------
    UsageError
        If its files are not in the folder.
    """
    try:
        return library_class.from_pretrained(folder, local_files_only=True, **how)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(
            "processor-missing-files",
            "{folder} has no files for {processor_class}: {error} Put those that were published with "
            "the model beside its weights, such as preprocessor_config.json and the tokenizer's.",
            folder=folder,
            processor_class=library_class.__name__,
            error=first,
        ) from error


def evenly(count: int, chosen_count: int | None, what: str) -> list[int]:
    """Choose frames evenly over a clip, each in the middle of its part; all by default.

    Raises
    ------
    UsageError
        If the clip has fewer.
    """
    if chosen_count is None:
        return list(range(count))
    check_frames(count, chosen_count, what)
    return [(2 * n + 1) * count // (2 * chosen_count) for n in range(chosen_count)]


def check_frames(count: int, needed: int, what: str) -> None:
    """Refuse clips that have fewer frames than a model reads."""
    if not 1 <= needed <= count:
        raise UsageError(
            "target-clip-too-short",
            "{target} reads {model_frames} frames of each clip, and the clips have {clip_frames}.",
            target=what,
            model_frames=needed,
            clip_frames=count,
        )
