"""Distil a tiny video decoder from a full one: ``python -m train.tiny_decoder VAE out=DIR films=FILES ...``.

Films are cut into clips, which the video autoencoder of Wan or CogVideoX encodes and decodes. The tiny
decoder learns to draw from the latents what the full one drew. What is written has the layout of the
published tiny decoders, so that `train.parts.codecs.tiny_video_decoder.from_published` reads both.
"""

import json
import math
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import repeat
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.table import Table
from safetensors.torch import save_file

from rtdecode import strict_json, terminal
from rtdecode.disk import private
from rtdecode.disk.folders import empty_folder
from rtdecode.errors import RtDecodeError, UsageError, explain
from train.config.recipe import differences
from train.config.run_context import check_new, clear
from train.config.training_films import TrainingFilm, training_films
from train.data.clip_grid import read_size
from train.parts.codecs import decoded_films
from train.parts.codecs.decoded_films import Cut, DecodedClips
from train.parts.codecs.decoder_distillation import (
    CHANGES,
    PICTURES,
    Distilled,
    decibels,
    draw,
    mean_clip,
    redrawn,
    truths,
)
from train.parts.codecs.full_video_decoder import full_decoder
from train.parts.codecs.tiny_video_decoder import FRAMES, SCALE, TinyVideoDecoder
from train.parts.codecs.video_decoder import cache_bytes
from train.targets.latents import factors
from train.trainer import loop
from train.trainer.loop import Machine
from train.trainer.phases import Phase
from train.weights import source
from train.weights.folders import diffusers_model
from train.weights.source import Source

_USAGE = """python -m train.tiny_decoder VAE out=DIR films=FILE,FOLDER licence=TEXT [key=value ...]
  VAE                        folder of an autoencoder of Wan or CogVideoX (diffusers), or of their pipeline
  out=DIR                    where the tiny decoder goes; the same command goes on where it was stopped
  films=FILE,FOLDER          films to learn from; the last tenth of each is held out
  licence=TEXT               licence of the autoencoder's weights
  frames=33                  frames of a clip
  size=480x720               rows and columns
  fps=8                      frames per second
  seconds=600                no more of each film is read
  steps=20000                steps of the optimizer
  batch=2                    clips that are seen at once
  crop=32                    rows and columns of latents that are seen of each
  rate=0.0005                largest learning rate
  precision=no|bf16          of the training
  device=auto|cpu
  workers=0                  processes that read clips ahead
  seed=0"""

WEIGHTS = "tiny_decoder.safetensors"
FIGURES = "figures.json"
_PHASE = "distil"
# What is kept while a training lasts.
_REQUEST = "request.json"
_CLIPS = "clips"
_TRAINING = "training"


@dataclass(frozen=True)
class Settings:
    """What the command line says; see the program's help."""

    out: Path
    films: str
    licence: str
    frames: int = 33
    size: str = "480x720"
    fps: float = 8.0
    seconds: float = 600.0
    steps: int = 20000
    batch: int = 2
    crop: int = 32
    rate: float = 0.0005
    precision: str = "no"
    device: str = "auto"
    workers: int = 0
    seed: int = 0


def run(vae: Path, settings: Settings) -> Path:
    """Distil a tiny decoder, judge it, and write it.

    Parameters
    ----------
    vae : Path
        Folder of an autoencoder, or of a pipeline with the part ``vae``.
    settings : Settings
        What the command line says.

    Returns
    -------
    Path
        The folder with ``tiny_decoder.safetensors``, ``figures.json`` and the log of the losses. It appears
        when all is done; until then ``<folder>.part`` keeps clips and checkpoints.

    Raises
    ------
    UsageError
        If the autoencoder, a film or a value cannot be used, or the folder is in use.
    """
    check_new(settings.out)
    films = training_films(settings.films)
    cut = Cut(settings.frames, read_size(settings.size, "size"), settings.fps, settings.seconds)
    phases = {_PHASE: _phase(settings)}
    machine = Machine(device=settings.device, workers=settings.workers)
    autoencoder, origin = _opened(vae, settings.licence)
    decoded_films.check(cut, autoencoder)
    counts = decoded_films.counted(films, cut)
    part = settings.out.with_name(f"{settings.out.name}.part")
    decoded_films.check_room(counts, cut, part / _CLIPS)
    _claim(part, _request(settings, films, origin))
    device = _device(settings.device)
    taught, test_clips = decoded_films.prepare(films, counts, cut, autoencoder.to(device), part / _CLIPS)
    # The autoencoder is not needed any more, and takes memory.
    del autoencoder
    torch.manual_seed(settings.seed)
    system = Distilled(TinyVideoDecoder(taught.latents.shape[1]))
    before = _psnr(system.decoder, test_clips, device)
    draws = partial(draw, taught, settings.crop)
    loop.train(system, phases, draws, part / _TRAINING, _show_nothing, settings.seed, machine)
    figures = {
        "psnr": {
            "tiny": _psnr(system.decoder, test_clips, device),
            "untrained": before,
            "constant": decibels(repeat(mean_clip(taught), len(test_clips)), truths(test_clips)),
        },
        "clips": {"taught": len(taught), "held_out": len(test_clips)},
        "state_bytes": _state_bytes(system.decoder, taught),
        "vae": origin.to_manifest(),
        "films": [film.value | {"name": film.name} for film in films],
        "settings": _values(settings),
    }
    _write(settings.out, part, system.decoder, figures)
    return settings.out


def _phase(settings: Settings) -> Phase:
    return Phase(
        losses={PICTURES: 1.0, CHANGES: 1.0},
        trained=["*"],
        steps=settings.steps,
        batch=settings.batch,
        rate=settings.rate,
        warmup=min(100, settings.steps // 10),
        schedule="cosine",
        decay=0.0,
        ema=0.999,
        precision=settings.precision,
        # A short training is logged a few times, too.
        keep_every=max(1, min(500, settings.steps // 4)),
        show_every=settings.steps,
    )


def _opened(vae: Path, licence: str) -> tuple[Any, Source]:
    """Open the autoencoder, and refuse one whose latents a tiny decoder cannot draw."""
    source.check_licence(licence, vae)
    part = "vae" if (vae / "model_index.json").is_file() else None
    autoencoder, origin = diffusers_model(vae, part, licence=licence)
    # It refuses autoencoders of other kinds, which state no such factors.
    full_decoder(autoencoder)
    time, space = factors(autoencoder)
    if (time, space) != (FRAMES, SCALE):
        raise UsageError(
            "tiny-decoder-vae-mismatch",
            "{folder} makes a latent of {actual_frames} frames of {actual_pixels} x {actual_pixels} "
            "pixels, and a tiny decoder draws {expected_frames} frames of {expected_pixels} x "
            "{expected_pixels}. Give the autoencoder of Wan 2.1 or of CogVideoX.",
            folder=vae,
            actual_frames=time,
            actual_pixels=space,
            expected_frames=FRAMES,
            expected_pixels=SCALE,
        )
    return autoencoder, origin


def _device(device: str) -> str:
    return "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"


def _request(settings: Settings, films: Sequence[TrainingFilm], origin: Source) -> dict[str, Any]:
    """Return everything that the weights depend on, but the machine."""
    values = _values(settings)
    return values | {"vae": origin.digest, "films": [film.value for film in films]}


def _values(settings: Settings) -> dict[str, Any]:
    """Return the settings that make a difference wherever they are used, as JSON values."""
    excluded = ("out", "films", "licence", "device", "workers")
    return {
        option.name: getattr(settings, option.name)
        for option in fields(settings)
        if option.name not in excluded
    }


def _claim(part: Path, request: dict[str, Any]) -> None:
    """Claim the working folder, or go on in it if it was begun with the same values."""
    note = part / _REQUEST
    if note.is_file():
        changed = "; ".join(differences(json.loads(note.read_text()), request))
        if changed:
            raise UsageError(
                "tiny-decoder-arguments-mismatch",
                "{work_folder} was begun with other values: {changes}. Give the same ones to go on, "
                "or another out=DIR, or remove {work_folder}.",
                work_folder=part,
                changes=changed,
            )
        return
    part.mkdir(parents=True, exist_ok=True)
    private.write_whole(note, strict_json.dumps(request) + "\n")


def _psnr(decoder: TinyVideoDecoder, test_clips: DecodedClips, device: str) -> float:
    """Compare what the tiny decoder draws of held-out clips with what the full one drew, dB."""
    psnr_db = decibels(redrawn(decoder.to(device), test_clips), truths(test_clips))
    decoder.to("cpu")
    return psnr_db


def _state_bytes(decoder: TinyVideoDecoder, clips: DecodedClips) -> dict[str, int]:
    """Count what a session keeps of clips of this size, by the precision of the decoder."""
    _, channels, times, rows, columns = clips.latents.shape
    with torch.device("meta"):
        hollow = TinyVideoDecoder(decoder.channels)
    counts: dict[str, int] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        counts[name] = cache_bytes(hollow.to(dtype), (channels, times, rows, columns))
    return counts


def _write(out: Path, part: Path, decoder: TinyVideoDecoder, figures: dict[str, Any]) -> None:
    """Write the folder of what was made, completely or not at all, and remove the working folder."""
    folder = part / "whole"
    clear(folder)
    folder.mkdir()
    state = {name: value.contiguous() for name, value in decoder.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"distilled_from": strict_json.dumps(figures["vae"])})
    (folder / FIGURES).write_text(strict_json.dumps(figures, indent=1) + "\n")
    (part / _TRAINING / "log.jsonl").rename(folder / "log.jsonl")
    # `check_new` accepts an empty folder. It makes room.
    if out.exists():
        empty_folder(out)
    folder.rename(out)
    clear(part)


def _show_nothing(phase: str, step: int) -> None:
    """Show nothing: the held-out clips are for the end alone."""


def show(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    psnr = figures["psnr"]
    clips = figures["clips"]
    table = Table(
        title=f"{clips['held_out']} clips held out of {sum(clips.values())}, PSNR to the full decoder"
    )
    table.add_column("what draws them", no_wrap=True)
    table.add_column("dB", justify="right")
    names = {
        "tiny": "tiny decoder",
        "untrained": "the same, untrained",
        "constant": "mean of the other clips",
    }
    for key, name in names.items():
        table.add_row(name, f"{psnr[key]:.2f}" if psnr[key] is not None else "equal")
    console = terminal.console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    state = ", ".join(f"{count / 1e6:.1f} MB in {name}" for name, count in figures["state_bytes"].items())
    console.print(f"a session keeps {state}")


def read_arguments(changes: Sequence[str]) -> Settings:
    """Read ``key=value`` arguments.

    Raises
    ------
    UsageError
        If one cannot be taken, or one that is needed is missing.
    """
    kinds = {option.name: option.type for option in fields(Settings)}
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or key not in kinds:
            raise UsageError(
                "tiny-decoder-unknown-key",
                "cannot take '{argument}'. Known keys: {available}.",
                argument=change,
                available=list(kinds),
            )
        values[key] = _value(key, text, kinds[key])
    needed = {"out": "out=DIR", "films": "films=FILE,FOLDER", "licence": "licence=Apache-2.0"}
    for key, example in needed.items():
        if key not in values:
            raise UsageError(
                "tiny-decoder-missing-key",
                "{key}= is missing. Give it, such as {example}.",
                key=key,
                example=example,
            )
    return Settings(**values)


def _value(key: str, text: str, kind: Any) -> Any:
    if kind is Path:
        return Path(text)
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError as error:
        raise UsageError(
            "tiny-decoder-value-not-number", "{key}={actual} is no number.", key=key, actual=text
        ) from error
    least = 0 if key in ("seed", "workers") else 1e-9
    if not least <= value < math.inf:
        raise UsageError(
            "tiny-decoder-value-not-positive",
            "{key}={actual} cannot be used: a number above 0 was expected.",
            key=key,
            actual=text,
        )
    return value


def main(arguments: list[str]) -> int:
    """Run the program; return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        terminal.say(*_USAGE.splitlines())
        return 0 if arguments else 2
    # A terminated run, too, says how it goes on.
    signal.signal(signal.SIGTERM, _stop)
    try:
        out = run(Path(arguments[0]), read_arguments(arguments[1:]))
    except RtDecodeError as error:
        return explain(error)
    except KeyboardInterrupt:
        terminal.say("stopped; what was made is kept, and the same command goes on")
        # The exit status of shells for a program that Ctrl-C has ended: 128 + SIGINT.
        return 130
    show(json.loads((out / FIGURES).read_text()))
    terminal.line(out)
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))
