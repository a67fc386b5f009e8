"""Adapt a bundle to another participant: ``rtdecode fit``.

`run` takes recordings of a participant who watched a film, the film, and a bundle that names a fitter. It
cuts the recordings into windows, has the fitter turn the film into targets and fit the windows to them, and
fits once more to a shifted film as a control. If held-out windows are identified better than chance, it
writes a bundle with the participant's own stages; the generator stays as it was. What is fitted is the
fitter's (`train.fitting.fitter`); what proves a fit (`export.chance`), and how the bundle is written
(`export.fitted`), is alike for all systems.
"""

import inspect
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from export import chance, lags
from export.fitted import write
from rtdecode import bundle as bundles
from rtdecode import terminal
from rtdecode.bundle import Bundle, Manifest
from rtdecode.bundle.prepared import check_live
from rtdecode.disk.hashed_folder import file_hash
from rtdecode.disk.recording import Recording
from rtdecode.errors import BundleError, UsageError
from train.config import builders
from train.data.films import read_film
from train.data.recorded import Recorded, read_recordings
from train.fitting.fitter import Fitter, Screenings

# What a participant is called who joins those of a bundle.
_NEWCOMER = "newcomer"


def run(
    recordings: Sequence[Path],
    film: Path | None,
    events: Path | None,
    bundle: str,
    out: Path,
    name: str | None = None,
) -> Bundle:
    """Adapt a bundle to the participant of some recordings, and print how well it went.

    A bundle of several participants stays whole, and the participant becomes one of them.

    Parameters
    ----------
    recordings : sequence of Path
        Folders made by ``--record``, all of the same participant.
    film : Path, optional
        The film that was shown; by default ``truth/film.mp4`` of each recording.
    events : Path, optional
        Shots of the film, on the film's time line, for fitters that read them; the shipped one needs the film
        alone. If not given, ``truth/events.tsv`` of each recording is used, unless `film` is given.
    bundle : str
        The bundle to start from.
    out : Path
        The new bundle's folder. The curve over lags is drawn beside it.
    name : str, optional
        What the participant is called in a bundle of several; ``newcomer`` by default.

    Raises
    ------
    UsageError
        If the bundle names no fitter, `out` holds something other than a bundle, or recordings and film do
        not suffice.
    BundleError
        If the bundle's fitter is not installed, or the bundle lacks what the fitter needs.
    RecordingError
        If a recording is damaged or not whole.
    RtDecodeError
        If held-out windows are not identified better than by chance. Nothing is written then.
    """
    console = terminal.console(soft_wrap=True)
    started = (time.process_time(), time.monotonic())
    # Refuse a bundle that cannot be fitted, or an unsuitable folder, before the long work.
    base = bundles.load(bundle)
    fitter = fitter_of(base)
    name = _named(base.manifest, name)
    bundles.check_target(out)
    # Cut the recordings into windows, and place these on the film.
    opened = [Recording(path) for path in recordings]
    for note in [note for recording in opened for note in recording.notes()]:
        console.print(note, markup=False)
    stimuli = _shown(opened, film, events, base.manifest)
    lengths = [len(frames) / base.manifest.clip.fps for frames in stimuli.films]
    recorded = read_recordings(opened, lengths, stimuli.names, base.manifest)
    _check_length(recorded, fitter.least_windows, base.manifest)
    # Fit the windows to the film, and print how well that went.
    story = fitter.story(recorded, stimuli)
    fitted = fitter.fit(recorded, story)
    sources = [f"{name} of the film: {source}" for name, source in story.properties.items()]
    console.print("; ".join([f"{len(recorded)} windows", *sources]))
    share = fitter.drawable(stimuli)
    _say_kind(console, fitter.kind, share)
    figures = chance.report(console, recorded, story, fitter, fitted)
    # Where both modalities together did worse than one, the fit reads that one alone.
    if fitted.alone is not None and fitted.fused is not None:
        fused = chance.figure_of(fitted.fused, recorded, story)["value"]
        figures["both"] |= {"alone": fitted.alone, "fused": fused}
    chance.say_routes(console, figures, recorded, base.manifest)
    # Printed before a fit is refused: the curve tells whether the film began at another time.
    curve = lags.sweep(console, recorded, story, base.manifest)
    chance.check(figures)
    # The fit is proven: describe it in a manifest, and write the bundle.
    about = _about(base, opened, recorded, stimuli) | story.properties | {"held_out": figures, "lag": curve}
    if share is not None:
        about["drawable"] = round(share, 4)
    changes = _changes(base, opened, recorded, about)
    written = write(base, fitter, fitted, recorded, changes, out, name)
    if name is not None:
        console.print(f"The bundle has its default participant, and {', '.join(written.manifest.subjects)}.")
    if curve is not None:
        lags.draw(console, curve, base.manifest, out)
    computing_s = time.process_time() - started[0]
    passed = time.monotonic() - started[1]
    console.print(f"{computing_s:.0f} s of computing, {passed:.0f} s by the clock")
    return written


def fitter_of(base: Bundle) -> Fitter:
    """Make the fitter that a bundle's manifest names.

    Raises
    ------
    UsageError
        If the manifest names no fitter.
    BundleError
        If the bundle decodes prepared files alone, no fitter of that name is installed, or the bundle lacks
        what the fitter needs.
    """
    name = base.manifest.fitter
    if name is None:
        # What is to be done then is another training, on the scanner's own volumes.
        check_live(base.manifest)
        raise UsageError(
            "fit-bundle-without-fitter",
            "--bundle {path} cannot be adapted to another participant: its manifest names no fitter "
            "(fitter: null). Give a bundle that names its fitter, as `rtdecode inspect` shows, or "
            "train the recipe {recipe} on the participant.",
            path=base.path,
            recipe=base.manifest.recipe,
        )
    try:
        builder = builders.find(name)
        # A builder of that name that does not take a bundle is no fitter. Binding its signature
        # tells this without calling it, so that errors of a real fitter pass through as they are.
        inspect.signature(builder).bind(base=base)
    except (UsageError, TypeError) as error:
        raise BundleError(
            "fit-fitter-not-installed",
            "{path} names the fitter '{fitter}', which is not installed here: {error}. Install the "
            "package that has the recipe {recipe}: it registers '{fitter}' in the entry-point group "
            "{entry_point_group}.",
            path=base.path,
            fitter=name,
            error=error,
            recipe=base.manifest.recipe,
            entry_point_group=builders.GROUP,
        ) from error
    return builder(base=base)


def _named(manifest: Manifest, name: str | None) -> str | None:
    """Name the participant in a bundle of several; None in one of a single participant, who is replaced.

    Raises
    ------
    UsageError
        If the bundle has one participant alone, or another one of this name.
    """
    if not manifest.subjects:
        if name is None:
            return None
        raise UsageError(
            "fit-name-single-participant",
            "--name {name}: bundle {bundle} has one participant, whom the new one replaces. Leave "
            "--name out.",
            name=name,
            bundle=manifest.name,
        )
    name = name or _NEWCOMER
    if name in manifest.subjects:
        raise UsageError(
            "fit-name-taken",
            "bundle {bundle} has a participant '{name}' already, beside {others}. Give the new one another "
            "name with --name.",
            bundle=manifest.name,
            name=name,
            others=[other for other in manifest.subjects if other != name] or "the default one",
        )
    return name


def _shown(
    recordings: Sequence[Recording], film: Path | None, events: Path | None, manifest: Manifest
) -> Screenings:
    """Find the film and the table of events of each recording, and read the films."""
    paths: list[Path] = []
    for recording in recordings:
        path = film or (recording.path / "truth" / "film.mp4")
        if not path.is_file():
            raise UsageError(
                "fit-film-missing",
                "{recording} has no film at {path}: give it with --film.",
                recording=recording.path,
                path=path,
            )
        paths.append(path)
    if events is not None and not events.is_file():
        raise UsageError(
            "fit-events-missing",
            "--events {path} is not a file. Give a table of the film's shots.",
            path=events,
        )
    # Recordings often share a film: read each file once.
    films = {path: read_film(path, manifest.clip) for path in dict.fromkeys(paths)}
    # A recording's own events belong to its own film, so a film given by hand goes without them.
    event_files = [
        events or (r.truth and r.truth / "events.tsv" if film is None else None) for r in recordings
    ]
    digests = {path: file_hash(path)[:16] for path in films}
    return Screenings(
        films=[films[path] for path in paths],
        names=[path.name for path in paths],
        digests=[digests[path] for path in paths],
        events=event_files,
    )


def _check_length(recorded: Recorded, least: int, manifest: Manifest) -> None:
    if len(recorded) < least:
        raise UsageError(
            "fit-windows-too-few",
            "a fit needs {min_windows} windows with film and every modality, found {n_windows}. "
            "Record longer (ten minutes do), give more recordings, or the film that belongs to them.",
            min_windows=least,
            n_windows=len(recorded),
        )
    # The graphs have a fixed number of voxels, all of which must be filled.
    room = 0 if manifest.fmri is None else manifest.fmri.voxels
    if recorded.fmri is not None and len(recorded.fmri.head.voxels) < room:
        raise UsageError(
            "fit-voxels-too-few",
            "the bundle reads {min_voxels} voxels, and the head has {n_voxels} on this grid. Scan "
            "with smaller voxels or more slices.",
            min_voxels=room,
            n_voxels=len(recorded.fmri.head.voxels),
        )


def _say_kind(console: Console, kind: str, share: float | None) -> None:
    sentence = f"The generator of the bundle learned from {kind}."
    if share is not None:
        sentence += (
            f" Of the film given it can be told {share:.0%} of what differs from its mean picture; the rest "
            "is made up, however well the brain is read."
        )
    console.print(sentence)


def _about(
    base: Bundle, recordings: Sequence[Recording], recorded: Recorded, stimuli: Screenings
) -> dict[str, Any]:
    """Describe the fit for the manifest.

    A bundle is handed on, and recordings are often called after the person: give digests, never names.
    """
    return {
        "from": base.digest,
        "recordings": [recording.digest() for recording in recordings],
        "films": sorted({*stimuli.digests}),
        "modalities": [name for name in ("eeg", "fmri") if getattr(recorded, name) is not None],
        "windows": len(recorded),
        "minutes": round(len(recorded) * float(base.manifest.grid.hop) / 60, 2),
    }


def _changes(
    base: Bundle, recordings: Sequence[Recording], recorded: Recorded, about: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of the manifest that the fit changes.

    The confidence and ``brain`` become null, since they were fitted on somebody else's windows.
    """
    manifest = base.manifest
    metas = [recording.meta for recording in recordings]
    simulated = all(meta.get("simulated") is True for meta in metas)
    # Simulated participants may be named; a recorded one is known by the recordings' digests alone.
    people = {f"preset {m['preset']}, subject {m['subject']}" for m in metas if {"preset", "subject"} <= {*m}}
    who = "; ".join(sorted(people)) if simulated and people else ", ".join(about["recordings"])
    provenance = {
        "participant": f"{'simulated' if simulated else 'recorded'}, {who}",
        "trained": manifest.provenance.get("trained"),
        "fitted": about,
        # If the base was itself fitted, keep only the decoder's own provenance: whom the base was
        # fitted to does not go on.
        "decoder": manifest.provenance.get("decoder", manifest.provenance),
    }
    changes: dict[str, Any] = {
        "provenance": provenance,
        "confidence": None,
        "brain": None,
        "simulated": simulated,
    }
    if recorded.fmri is not None and manifest.fmri is not None:
        head = recorded.fmri.head
        changes["fmri"] = replace(manifest.fmri, shape=list(head.shape), affine=head.affine.tolist())
    return changes
