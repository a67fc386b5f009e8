"""Compute targets for a data set: ``python -m train.targets DATA NAME=DIR NAME.licence=TEXT ...``."""

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rtdecode import terminal
from rtdecode.errors import RtDecodeError, UsageError, explain
from train.data import target_cache
from train.data.sets.opening import opened
from train.data.target_cache import Target
from train.targets import captions, categories, embeddings, latents, transcripts
from train.targets.models import Hardware

_USAGE = """python -m train.targets DATA NAME=DIR NAME.licence=TEXT ... [key=value ...]
  DATA                       folder of a data set
  vae=DIR                    latents, by the video autoencoder of Wan or CogVideoX, or frame by frame by that
                             of Stable Diffusion
  vae.frames=33              frames from each clip's start; all where not given
  vae.size=480x720           rows and columns that frames are brought to; as they are where not given
  vae.sample=true            keep what latents are drawn anew with, at twice the room; false where not given
  image=DIR                  embeddings of frames, by CLIP or SigLIP
  image.frames=8             frames of each clip, spread evenly; all where not given
  image.crops=4              embed so many crops of each frame too, of which a training draws
  action=DIR                 embeddings of motion, by VideoMAE or the file of ViCLIP (.pth)
  captioner=DIR              captions of the middle frames, by a model that writes about pictures
  captioner.prompt=TEXT      first words of captions, or the question to a model that talks
  captioner.tokens=64        longest caption
  captioner.by_frame=true    a caption of each frame
  text=DIR                   embeddings of captions, by CLIP, SigLIP or T5
  text.tokens=77             length to which captions are padded and cut; the tokenizer's where not given
  text.sentences=2           embed so many consecutive sentences, of which a training draws; the whole where
                             not given
  text.by_frame=true         embed the captions of single frames too, of which a training draws
  text.changes=4             embed so many changed versions of each caption too, of which a training draws
  prompt=DIR                 embeddings of captions token by token, by T5 or UMT5 (text_encoder of Wan), or by
                             CLIP's text encoder (text_encoder of Stable Diffusion)
  prompt.tokens=512          length to which captions are padded and cut; the tokenizer's where not given
  categories=words|FILE      categories of things that captions name, by a table of words
  categories.model=DIR       by a language model instead of words
  categories.tokens=96       its longest answer
  speech=DIR                 transcripts, by Whisper; empty where a clip is silent
  speech.language=en         of the speech; the model finds it where not given
  speech.tokens=64           longest transcript
  NAME.licence=TEXT          licence of each model's weights
  out=DIR                    where targets are kept; DATA-targets where not given
  device=cpu|cuda            cuda where there is one
  precision=float32|bfloat16 of the models
  stored=float16|bfloat16    of the targets on disk
  lot=32                     titles in a file
  layout=NAME                of the data set, where it is not recognised"""

# The shapes of clips are checked by the first, which is strictest. Captions come before what reads them.
_BUILDERS: dict[str, Callable[..., Target]] = {
    "vae": latents.latents,
    "image": embeddings.image,
    "action": embeddings.action,
    "captioner": captions.captions,
    "categories": categories.categories,
    "text": embeddings.text,
    "prompt": embeddings.prompt,
    "speech": transcripts.transcripts,
}
_KEYS = ("out", "device", "precision", "stored", "lot", "layout")


def run(data: Path, changes: list[str]) -> Path:
    """Compute what the command line asks for.

    Parameters
    ----------
    data : Path
        Folder of a data set.
    changes : list of str
        ``key=value``.

    Returns
    -------
    Path
        Where the targets are.

    Raises
    ------
    UsageError
        If an argument cannot be taken, or a model or the data set cannot be used.
    """
    common, models = read_arguments(changes)
    data_set = opened(data, common.get("layout"))
    device = common.get("device", "cuda" if torch.cuda.is_available() else "cpu")
    hardware = Hardware(device, common.get("precision", "float32"))
    out = Path(common.get("out", target_cache.default_folder(data)))
    how = {key: common[key] for key in ("lot", "stored") if key in common}
    targets = [_BUILDERS[name](hardware=hardware, **models[name]) for name in _BUILDERS if name in models]
    target_cache.compute(data_set, targets, out, **how)
    return out


def read_arguments(changes: list[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Read ``key=value`` arguments.

    Returns
    -------
    dict
        Those that concern all targets.
    dict
        Name of a model -> arguments of its builder.

    Raises
    ------
    UsageError
        If one cannot be taken, or no model is named.
    """
    common: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    unknown = []
    for change in changes:
        key, equals, value = change.partition("=")
        name, dot, option = key.partition(".")
        if not equals:
            unknown.append(change)
        elif key in _KEYS:
            common[key] = _count(key, value) if key == "lot" else value
        elif name in _BUILDERS and not dot:
            models.setdefault(name, {})[_place(name)] = Path(value)
        elif name in _BUILDERS and option in _options(name):
            models.setdefault(name, {})[option] = _read_option(key, option, value)
        else:
            unknown.append(change)
    available = [*_BUILDERS, *(f"{name}.{option}" for name in _BUILDERS for option in _options(name)), *_KEYS]
    if unknown:
        raise UsageError(
            "targets-unknown-key",
            "cannot take {arguments}. Known keys: {available}.",
            arguments=list(unknown),
            available=list(available),
        )
    if not models:
        raise UsageError(
            "targets-missing-model",
            "no model was given. Give one or more of {available}.",
            available=[f"{n}=DIR" for n in _BUILDERS],
        )
    for name, options in models.items():
        for needed, example in _needed(name, options).items():
            if needed not in options:
                raise UsageError(
                    "targets-model-missing-option",
                    "the model {model} has no {option}. Give it with {example}.",
                    model=name,
                    option=needed,
                    example=example,
                )
    return common, models


def _read_option(key: str, option: str, value: str) -> str | int | bool:
    """Read the value of a model's option. Texts are taken as they are written."""
    if option in ("licence", "prompt", "size", "language", "model"):
        return value
    if option in ("sample", "by_frame"):
        if value not in ("true", "false"):
            raise UsageError(
                "targets-option-not-boolean",
                "{key} must be true or false, found '{actual}'.",
                key=key,
                actual=value,
            )
        return value == "true"
    return _count(key, value)


def _count(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(
            "targets-count-malformed",
            "{key}={actual} is no count: a whole number from 1 on was expected.",
            key=key,
            actual=text,
        )
    return int(text)


def _place(name: str) -> str:
    """Return the parameter of a model's builder that says where it lies."""
    parameters = inspect.signature(_BUILDERS[name]).parameters
    return next(parameter for parameter in parameters if parameter != "hardware")


def _options(name: str) -> list[str]:
    """List the options of a model's builder."""
    parameters = inspect.signature(_BUILDERS[name]).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def _needed(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return what has to be given of a model, with an example of each."""
    licence = {"licence": f"{name}.licence=Apache-2.0"}
    if name != "categories":
        return {_place(name): f"{name}=DIR"} | licence
    # The table that ships has a licence, and a language model needs no table.
    return licence if "model" in options else {"table": f"categories={categories.SHIPPED}"}


def main(arguments: list[str]) -> int:
    """Run the program; return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        terminal.say(*_USAGE.splitlines())
        return 0 if arguments else 2
    try:
        out = run(Path(arguments[0]), arguments[1:])
    except RtDecodeError as error:
        return explain(error)
    terminal.line(out)
    return 0


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))
