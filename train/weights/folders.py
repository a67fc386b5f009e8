"""Models in the folders that ``save_pretrained`` of diffusers and of transformers writes.

The libraries leave out some names on purpose and say so to nobody (a class lists them in
``_keys_to_ignore_on_load_unexpected``). Here such names are errors like all others, unless the caller says
that they are unused. Only buffers that the libraries compute anew are passed over (``position_ids``,
``inv_freq``).
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtdecode.errors import UsageError
from train.weights import source, strict
from train.weights.single_file import SAFETENSORS
from train.weights.source import Source

_PIPELINE = "model_index.json"
_CONFIG = "config.json"
# Names of the weights in a folder, without the suffix.
_DIFFUSERS = "diffusion_pytorch_model"
_TRANSFORMERS = "model"
_INDEX = ".index.json"
# Buffers that transformers once kept in its files, and now computes.
_COMPUTED = re.compile(r"(^|\.)position_ids$|rotary_emb\.inv_freq$")


def diffusers_model(
    folder: Path,
    part: str | None = None,
    *,
    licence: str,
    dtype: torch.dtype = torch.float32,
    unused: Sequence[str] = (),
) -> tuple[Any, Source]:
    """Open a model of diffusers.

    Parameters
    ----------
    folder : Path
        The folder of a pipeline (with ``model_index.json``), or of one model (with ``config.json``).
    part : str, optional
        Which model of a pipeline, such as ``transformer`` or ``vae``. A part of transformers is opened too.
    licence : str
        Licence of the weights, as the user states it.
    dtype : torch.dtype
        Modules that diffusers keeps in float32 stay so.
    unused : sequence of str
        Patterns of names that are knowingly left out.

    Returns
    -------
    Module
        In evaluation mode, in main memory.
    Source

    Raises
    ------
    UsageError
        If a file is missing or damaged, or a name is left over or missing.
    """
    import diffusers

    if part is not None or (folder / _PIPELINE).is_file():
        library = _library(folder, part)
        folder = folder / str(part)
        if library == "transformers":
            return transformers_model(folder, licence=licence, dtype=dtype, unused=unused)
    settings = model_settings(folder)
    kind = _class(diffusers, settings.get("_class_name"), folder)
    files = _weights(folder, _DIFFUSERS)
    return _opened(kind, folder, files, "diffusers folder", licence, unused, torch_dtype=dtype)


def transformers_model(
    folder: Path,
    kind: str | None = None,
    *,
    licence: str,
    dtype: torch.dtype = torch.float32,
    unused: Sequence[str] = (),
) -> tuple[Any, Source]:
    """Open a model of transformers.

    Parameters
    ----------
    folder : Path
        With ``config.json`` and weights in safetensors.
    kind : str, optional
        Name of the class in transformers. The one that wrote the folder by default.
    licence, dtype, unused
        As in `diffusers_model`.

    Returns
    -------
    Module
        In evaluation mode, in main memory.
    Source

    Raises
    ------
    UsageError
        If a file is missing or damaged, or a name is left over or missing.
    """
    import transformers

    settings = model_settings(folder)
    written = settings.get("architectures") or [None]
    model_class = _class(transformers, kind or written[0], folder)
    files = _weights(folder, _TRANSFORMERS)
    return _opened(model_class, folder, files, "transformers folder", licence, unused, dtype=dtype)


def _opened(
    kind: Any,
    folder: Path,
    files: list[Path],
    form: source.Form,
    licence: str,
    unused: Sequence[str],
    **how: Any,
) -> tuple[Any, Source]:
    source.check_licence(licence, folder)
    names = set(_shapes(files))
    try:
        module, loading_info = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **how
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(
            "weights-folder-unreadable",
            "{folder} cannot be opened as a {model_class}: {error} Check that config.json belongs to "
            "these weights, and fetch files again that may be cut short.",
            folder=folder,
            model_class=kind.__name__,
            error=error,
        ) from error
    unexpected = set(loading_info["unexpected_keys"]) | _passed_over(module, names)
    strict.refuse(
        str(folder),
        {
            "left over": [name for name in unexpected if not strict.matched(name, unused)],
            "missing": loading_info["missing_keys"],
            "of another shape": _of_other_shape(loading_info["mismatched_keys"]),
            "unreadable": loading_info.get("error_msgs", []),
        },
        f"They were to fill a {kind.__name__}. Give the weights of this very model, or name what is "
        "knowingly left out with unused=.",
    )
    return module.eval(), source.of_files([*files, *_lists(folder)], form, licence)


def _passed_over(module: nn.Module, stored: set[str]) -> set[str]:
    """Find the names that the library left out because the class says that it may."""
    patterns = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    loose = stored - module.state_dict().keys()
    return {
        name
        for name in loose
        if not _COMPUTED.search(name) and any(re.search(pattern, name) for pattern in patterns)
    }


def _of_other_shape(mismatched: Iterable[Any]) -> list[str]:
    return [
        f"{name} (asked {tuple(expected)}, found {tuple(stored)})" for name, stored, expected in mismatched
    ]


def _library(folder: Path, part: str | None) -> str:
    """Find out which library a part of a pipeline is from."""
    if not (folder / _PIPELINE).is_file():
        raise UsageError(
            "weights-folder-not-pipeline",
            "{folder} has no {index_file}, so it has no part '{part}'. Give the folder of a "
            "pipeline, or leave the part out to open the folder of one model.",
            folder=folder,
            index_file=_PIPELINE,
            part=part,
        )
    listed = source.read_json(folder / _PIPELINE)
    parts = {
        name: entry for name, entry in listed.items() if isinstance(entry, list) and entry[0] is not None
    }
    if part not in parts:
        requested_part = "none was chosen" if part is None else f"'{part}' was asked for"
        raise UsageError(
            "weights-pipeline-part-unknown",
            "{folder} is a pipeline of the parts {available}, and {requested_part}. Choose one with part=.",
            folder=folder,
            available=list(parts),
            requested_part=requested_part,
            part=part,
        )
    return parts[part][0]


def _class(library: Any, name: str | None, folder: Path) -> Any:
    model_class = getattr(library, name, None) if name else None
    if model_class is None or not hasattr(model_class, "from_pretrained"):
        raise UsageError(
            "weights-class-unavailable",
            "{path} names the class {model_class!r}, which {library} {version} does not have. "
            "Install the version that the weights were published for.",
            path=folder / _CONFIG,
            model_class=name,
            library=library.__name__,
            version=library.__version__,
        )
    return model_class


def model_settings(folder: Path) -> dict[str, Any]:
    if not (folder / _CONFIG).is_file():
        entries = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        listed = ", ".join(entries[:10]) or "nothing"
        raise UsageError(
            "weights-folder-missing-config",
            "no model in {folder}: {config_file} and weights in {weights_suffix} were expected, "
            "found {files}. Give the path of a folder that you have; nothing is downloaded.",
            folder=folder,
            config_file=_CONFIG,
            weights_suffix=SAFETENSORS,
            files=listed,
        )
    return source.read_json(folder / _CONFIG)


def _weights(folder: Path, stem: str) -> list[Path]:
    """List the files with the weights of a folder, all of which are there."""
    weights_file = folder / f"{stem}{SAFETENSORS}"
    index = folder / f"{stem}{SAFETENSORS}{_INDEX}"
    if weights_file.is_file():
        return [weights_file]
    if not index.is_file():
        other = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", SAFETENSORS))
        raise UsageError(
            "weights-missing-safetensors",
            "no weights in {folder}: {weights_file}, or {index_file} with its parts, was expected, "
            "found {available}. Fetch them, or save the model as safetensors under that name.",
            folder=folder,
            weights_file=weights_file.name,
            index_file=index.name,
            available=", ".join(other[:10]) or "none",
        )
    names = sorted(set(source.read_json(index)["weight_map"].values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            "weights-missing-shards",
            "{missing_count} of {shard_count} files with weights are missing in {folder}: "
            "{missing_shards}. {index_file} lists them; fetch them too.",
            missing_count=len(missing),
            shard_count=len(names),
            folder=folder,
            missing_shards=list(missing[:10]),
            index_file=index.name,
        )
    return [folder / name for name in names]


def count_weights(folder: Path) -> int:
    """Count the numbers in the weights of a model of diffusers, from the heads of its files."""
    return sum(math.prod(shape) for shape in _shapes(_weights(folder, _DIFFUSERS)).values())


def _lists(folder: Path) -> list[Path]:
    """List what says how the weights are to be read."""
    return [folder / _CONFIG, *sorted(folder.glob(f"*{SAFETENSORS}{_INDEX}"))]


def _shapes(files: Sequence[Path]) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, list[int]] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as opened:
                shapes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UsageError(
                "safetensors-unreadable",
                "{path} cannot be read as safetensors: {error}. Fetch the file again; it may be cut short.",
                path=path,
                error=error,
            ) from error
    return shapes
