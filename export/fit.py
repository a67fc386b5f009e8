"""`rtdecode fit`: a bundle adapted to another participant, its generator untouched."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from export import lags
from export.fitted import write
from rtdecode import accuracy
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, Manifest
from rtdecode.errors import BundleError, RtDecodeError, UsageError
from rtdecode.events import read_events
from rtdecode.phantom.film import ATTRIBUTES
from rtdecode.recording import Recording
from rtdecode.sealed import file_hash
from train.data.films import Frames, clips_at, look, read_film, tell
from train.data.recorded import Recorded, read_recordings
from train.fitting import closed_form
from train.fitting.closed_form import LEAST_WINDOWS, Fitted, Sizes, Story
from train.fitting.encoder_graph import weights_of
from train.parts import codec as patch
from train.parts.brain import GROUPS
from train.parts.encoding import fit_features
from train.parts.refine import perceptron
from train.parts.space import Space
from train.work import Arrays

Matrix = NDArray[np.float64]
_CODEC = ("codec_mean", "codec_basis", "scale")
_SPACE = ("space_latent_mean", "space_mean", "space_scale")
_CHANCE = 0.5
_NAMES = {"eeg": "EEG", "fmri": "fMRI"}
# Clips of a film that are held against what the bundle can draw of them.
_LOOKED_AT = 20


@dataclass(frozen=True)
class Shown:
    """What the participant saw in each recording.

    Attributes
    ----------
    films : list of uint8 (frame, row, column, 3)
        At the clip's size and rate.
    names : list of str
    digests : list of str
        Of the films' files, which say which film it was without naming it.
    events : list of Path or None
    """

    films: list[Frames]
    names: list[str]
    digests: list[str]
    events: list[Path | None]


def run(recordings: Sequence[Path], film: Path | None, events: Path | None, bundle: str, out: Path) -> Bundle:
    """Adapt a bundle to the participant of recordings; print how well it went.

    Parameters
    ----------
    recordings : sequence of Path
        Folders made by ``--record``, all of the same participant.
    film : Path, optional
        What was shown; else ``truth/film.mp4`` of each recording.
    events : Path, optional
        Shots of the film with their attributes, on the film's time line; else ``truth/events.tsv`` of
        each recording; without either they are read off the film.
    bundle : str
        The bundle to start from.
    out : Path
        The new bundle's folder; the curve over lags is drawn beside it.

    Raises
    ------
    UsageError
        If the bundle has no generator, `out` holds something else, or recordings and film do not suffice.
    BundleError
        If the bundle lacks what a fit needs.
    RtDecodeError
        If held-out windows are not identified better than by chance; nothing is written.
    """
    console, started = Console(soft_wrap=True, highlight=False), (time.process_time(), time.monotonic())
    base = bundles.load(bundle)
    _check_bundle(base)
    bundles.check_target(out)
    model = onnx.load_model_from_string(base.read("encode.onnx"))
    old = weights_of(model, base.path)
    space, codec = _space(base, old)
    opened = [Recording(path) for path in recordings]
    shown = _shown(opened, film, events, base.manifest)
    lengths = [len(frames) / base.manifest.clip.fps for frames in shown.films]
    recorded = read_recordings(opened, lengths, shown.names, base.manifest)
    _check_length(recorded, old)
    story, told = tell_story(recorded, shown, base.manifest, codec, space)
    fitted = closed_form.fit(recorded, story, _sizes(old), perceptron(old))
    fitted = closed_form.completed(fitted, {name: value.shape for name, value in old.items()})
    fused = fitted.points.get("both")
    fitted = closed_form.never_worse(fitted, recorded, story, space)
    console.print(f"{len(recorded)} windows; attributes of the film: {told}")
    share = drawable(base, shown, space, codec)
    _say_kind(console, share)
    found = _report(console, recorded, story, space, fitted, old)
    if fitted.alone is not None and fused is not None:
        found["both"] |= {"alone": fitted.alone, "fused": _figure(fused, recorded, story, space)["value"]}
    _say_routes(console, found, recorded)
    curve = lags.sweep(console, recorded, story, space, base.manifest)
    _check_beyond_chance(found)
    about = _about(base, opened, recorded, shown) | {"attributes": told, "held_out": found, "lag": curve}
    about |= {"drawable": round(share, 4)}
    changes = _changes(base, opened, recorded, about)
    made = write(base, model, old | fitted.weights, recorded, fitted, changes, out)
    if curve is not None:
        lags.draw(console, curve, base.manifest, out)
    spent, passed = time.process_time() - started[0], time.monotonic() - started[1]
    console.print(f"{spent:.0f} s of computing, {passed:.0f} s by the clock")
    return made


def _check_bundle(base: Bundle) -> None:
    if base.manifest.stages.get("denoise") is None:
        raise UsageError(
            f"--bundle {base.path} has no generator (stage denoise): there is nothing to adapt a participant "
            "to. Give a bundle that has one, or train this one's recipe on the participant."
        )
    if missing := [name for name in (*_CODEC, *_SPACE) if name not in base.stats]:
        raise BundleError(f"{base.path / 'stats.npz'} lacks {', '.join(missing)}. Export the bundle again.")


def _space(base: Bundle, old: Arrays) -> tuple[Space, patch.Codec]:
    """Space and codec of a bundle with a generator, of whose encoder `old` holds the weights."""
    mean, basis, scale = (base.stats[name].astype(np.float64) for name in _CODEC)
    # The basis draws scaled latents; divided twice by the scale it finds them.
    codec = patch.Codec(mean.astype(np.float32), (basis / scale**2).astype(np.float32))
    latent_mean, middle, spread = (base.stats[name].astype(np.float64) for name in _SPACE)
    # The encoder draws standardised components: its basis carries their spread.
    axes = old["basis"].astype(np.float64) / spread[: len(old["basis"]), None]
    return Space(latent_mean, axes, middle, spread), codec


def _sizes(old: Arrays) -> Sizes:
    voxels, components = old["voxels"].shape
    return Sizes(voxels, components, old["mixing"].shape[0], old["cosines"].shape[1])


def _shown(
    recordings: Sequence[Recording], film: Path | None, events: Path | None, manifest: Manifest
) -> Shown:
    """Find films and events of the recordings."""
    paths: list[Path] = []
    for recording in recordings:
        path = film or (recording.path / "truth" / "film.mp4")
        if not path.is_file():
            raise UsageError(f"the film of {recording.path} was looked for at {path}: give it with --film.")
        paths.append(path)
    if events is not None and not events.is_file():
        raise UsageError(f"--events {events} is no file: a table of the film's shots was expected.")
    known = {path: read_film(path, manifest.clip) for path in dict.fromkeys(paths)}
    told = [events or (r.truth and r.truth / "events.tsv" if film is None else None) for r in recordings]
    digests = {path: file_hash(path)[:16] for path in known}
    return Shown(
        films=[known[path] for path in paths],
        names=[path.name for path in paths],
        digests=[digests[path] for path in paths],
        events=told,
    )


def _check_length(recorded: Recorded, old: Arrays) -> None:
    if len(recorded) < LEAST_WINDOWS:
        raise UsageError(
            f"a fit needs {LEAST_WINDOWS} windows with film and every modality, found {len(recorded)}. "
            "Record longer (ten minutes do), give more recordings, or the film that belongs to them."
        )
    room = old["voxels"].shape[0]
    if recorded.fmri is not None and len(recorded.fmri.head.voxels) < room:
        raise UsageError(
            f"the bundle reads {room} voxels, and the head has {len(recorded.fmri.head.voxels)} on this "
            "grid. Scan with smaller voxels or more slices."
        )


def tell_story(
    recorded: Recorded, shown: Shown, manifest: Manifest, codec: patch.Codec, space: Space
) -> tuple[Story, str]:
    """Put the film into the space: what each window showed, and features of the whole film.

    Returns
    -------
    story : Story
    told : str
        Where the attributes come from.
    """
    window_s = float(manifest.grid.window)
    seen: list[tuple[Matrix, Matrix]] = []
    tiles: list[tuple[NDArray[np.float32], Matrix]] = []
    sources: list[str] = []
    for number, film in enumerate(shown.films):
        mine = recorded.start_s[recorded.film == number]
        whole = np.arange(0, len(film) / manifest.clip.fps - window_s + 1e-6, window_s)
        latents, attributes, source = _watch(film, shown.events[number], mine, manifest, codec)
        seen.append((space.targets(latents, attributes), attributes))
        tiles.append(_watch(film, shown.events[number], whole, manifest, codec)[:2])
        sources.append(source)
    latents, attributes = (np.concatenate(part) for part in zip(*tiles, strict=True))
    found = fit_features(latents, attributes, space, window_s)
    targets, attributes = (np.concatenate(part) for part in zip(*seen, strict=True))
    story = Story(targets, attributes, found, [found.series(*tile) for tile in tiles])
    return story, " and ".join(dict.fromkeys(sources))


def _watch(
    film: Frames, events: Path | None, starts: Matrix, manifest: Manifest, codec: patch.Codec
) -> tuple[NDArray[np.float32], Matrix, str]:
    """Latents and attributes of the clips at film times, and where the attributes come from."""
    clips = clips_at(film, starts, manifest.clip, int(manifest.grid.window * manifest.grid.fps))
    shots = [] if events is None else read_events(events)
    shares = tell(shots, starts, float(manifest.grid.window))
    source = "read off the film" if shares is None else "events"
    return patch.encode(codec, clips), look(clips) if shares is None else shares, source


def drawable(base: Bundle, shown: Shown, space: Space, codec: patch.Codec) -> float:
    """Share of the films' pixels, about the mean picture, that some point of the bundle's space draws.

    What the space does not hold cannot be told to the generator, however well a brain is read.
    """
    clip = base.manifest.clip
    window_s = float(base.manifest.grid.window)
    frames = int(base.manifest.grid.window * base.manifest.grid.fps)
    pictures = patch.Codec(base.stats["codec_mean"], base.stats["codec_basis"])
    missed = 0.0
    whole = 0.0
    for film in {id(film): film for film in shown.films}.values():
        starts = np.linspace(0, max(0.0, len(film) / clip.fps - window_s), _LOOKED_AT)
        clips = clips_at(film, starts, clip, frames)
        latents = patch.encode(codec, clips)
        about = latents.reshape(len(latents), -1) - space.latent_mean
        nearest = space.latent_mean + about @ space.basis.T @ space.basis
        drawn = patch.decode(pictures, nearest.reshape(latents.shape))
        mean = patch.decode(pictures, space.latent_mean.reshape(1, *latents.shape[1:]))
        missed += float(np.square(clips / 255 - drawn).sum())
        whole += float(np.square(clips / 255 - mean).sum())
    return 1 - missed / whole


def _say_kind(console: Console, share: float) -> None:
    console.print(
        f"The bundle draws one kind of film, the simulated participant's, told by {', '.join(ATTRIBUTES)}. "
        f"Of the film given it can draw {share:.0%} of what differs from its mean picture; the rest cannot "
        "appear in a clip, however well the brain is read."
    )


def _report(
    console: Console, recorded: Recorded, story: Story, space: Space, fitted: Fitted, old: Arrays
) -> dict[str, dict[str, Any]]:
    """Print 2-way identification of held-out windows by route, and the same for a film nobody saw."""
    other = closed_form.shifted(story)
    control = closed_form.fit(recorded, other, _sizes(old), perceptron(old))
    control = closed_form.never_worse(control, recorded, other, space)
    table = Table("from", "2-way identification, held out", "95 %", "fitted to a shifted film")
    found: dict[str, dict[str, Any]] = {}
    for route, points in fitted.points.items():
        figure = _figure(points, recorded, story, space)
        null = closed_form.identify(control.points[route], recorded, other, space)
        low, high = figure["ci95"]
        name = " + ".join(GROUPS[route])
        table.add_row(name, f"{figure['value']:.3f}", f"{low:.3f} to {high:.3f}", f"{null:.3f}")
        found[route] = figure | {"shifted": round(null, 4)}
    console.print(table)
    return found


def _figure(points: Matrix, recorded: Recorded, story: Story, space: Space) -> dict[str, Any]:
    """Identification of held-out windows with its interval over stretches of film."""
    scores = closed_form.identified(points, recorded, story, space)
    interval = accuracy.bootstrap_ci(scores, closed_form.stretches(recorded))
    return {
        "value": round(float(scores.mean()), 4),
        "chance": _CHANCE,
        "ci95": [round(edge, 4) for edge in interval],
        "n": len(scores),
    }


def _beyond_chance(figure: dict[str, Any]) -> bool:
    """Whether the interval lies above chance, and above what a film that nobody saw gives."""
    return figure["ci95"][0] > max(_CHANCE, figure["shifted"])


def _say_routes(console: Console, found: dict[str, dict[str, Any]], recorded: Recorded) -> None:
    """Say which modalities the new bundle draws nothing from, or nothing that was seen."""
    alone = found.get("both", {}).get("alone")
    if alone is not None:
        console.print(
            f"{_NAMES[alone]} is read alone where both are there: held-out windows are identified "
            f"{found['both']['value']:.3f} from it, and {found['both']['fused']:.3f} from both. The other "
            "counts where it is alone, as in a preview."
        )
    for name, side in (("eeg", recorded.eeg), ("fmri", recorded.fmri)):
        if side is None:
            console.print(
                f"no {_NAMES[name]} was recorded: the new bundle draws nothing from {_NAMES[name]}."
            )
        elif not _beyond_chance(found[name]):
            console.print(
                f"warning: {_NAMES[name]} alone does not differ from chance: a clip that rests on it alone "
                "shows nothing that was seen.",
                style="bold",
            )


def _check_beyond_chance(found: dict[str, dict[str, Any]]) -> None:
    """Refuse a fit that tells nothing, by the route that takes all there is."""
    route = next(iter(found))
    figure = found[route]
    if not _beyond_chance(figure):
        low, high = figure["ci95"]
        raise RtDecodeError(
            f"held-out windows are identified {figure['value']:.3f} (95 % {low:.3f} to {high:.3f}; after a "
            f"fit to a film that nobody saw {figure['shifted']:.3f}) from "
            f"{' + '.join(_NAMES[name] for name in GROUPS[route])}, which does not differ from chance "
            f"({_CHANCE}): no bundle was written. Check that the film given is the one that was shown and "
            "began when the recording says, that the participant watched, and record ten minutes or more."
        )


def _about(base: Bundle, recordings: Sequence[Recording], recorded: Recorded, shown: Shown) -> dict[str, Any]:
    """What the manifest says of the fit: a bundle is handed on, and names no recording and no film."""
    return {
        "from": base.digest,
        "recordings": [recording.digest() for recording in recordings],
        "films": sorted({*shown.digests}),
        "modalities": [name for name in ("eeg", "fmri") if getattr(recorded, name) is not None],
        "windows": len(recorded),
        "minutes": round(len(recorded) * float(base.manifest.grid.hop) / 60, 2),
    }


def _changes(
    base: Bundle, recordings: Sequence[Recording], recorded: Recorded, about: dict[str, Any]
) -> dict[str, Any]:
    """Fields of the manifest that the fit changes; its confidence was calibrated on somebody else."""
    manifest, metas = base.manifest, [recording.meta for recording in recordings]
    simulated = all(meta.get("simulated") is True for meta in metas)
    people = {f"preset {m['preset']}, subject {m['subject']}" for m in metas if {"preset", "subject"} <= {*m}}
    who = "; ".join(sorted(people)) if simulated and people else ", ".join(about["recordings"])
    provenance = {
        "participant": f"{'simulated' if simulated else 'recorded'}, {who}",
        "trained": manifest.provenance.get("trained"),
        "fitted": about,
        # Of a bundle that was fitted itself nothing is left but the decoder; who it was fitted to goes.
        "decoder": manifest.provenance.get("decoder", manifest.provenance),
    }
    changes: dict[str, Any] = {"provenance": provenance, "confidence": None, "simulated": simulated}
    if recorded.fmri is not None and manifest.fmri is not None:
        head = recorded.fmri.head
        changes["fmri"] = replace(manifest.fmri, shape=list(head.shape), affine=head.affine.tolist())
    return changes
