"""Declare the command `rtdecode simulate` and its options; `rtdecode.phantom.live.simulate` runs it."""

from pathlib import Path
from typing import Annotated

import typer

from rtdecode.commands.options import GroupReadable, PresetName, Wait, from_zero, positive


def simulate(
    lsl: Annotated[str | None, typer.Option(help="Name of the LSL stream to be opened.")] = None,
    fmri_dir: Annotated[Path | None, typer.Option(help="Folder the volumes are written to.")] = None,
    preset: Annotated[PresetName, typer.Option(help="How much the signals tell.")] = PresetName.default,
    subject: Annotated[int, typer.Option(help="Which simulated brain; shipped bundles know 1.")] = 1,
    seed: Annotated[int, typer.Option(help="Film and noise; below 1000 is for training.")] = 1000,
    film_seed: Annotated[
        int | None, typer.Option(help="Seed of a drawn film, to show it again; default: --seed.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Length of the film, s; the scan runs 8 s longer. Default: 60, or all of a file.",
            callback=positive,
        ),
    ] = None,
    film: Annotated[
        str,
        typer.Option(
            help="What is watched: shapes, natural (a drawn world), none (a grey screen), or a film's path."
        ),
    ] = "shapes",
    gaze: Annotated[
        str, typer.Option(help="Where the eyes rest: fixed (the middle), or free (three saccades a second).")
    ] = "fixed",
    wait: Wait = 60.0,
    tr: Annotated[
        float,
        typer.Option(
            help="Time from one volume to the next, s; shipped bundles take 0.8.", callback=positive
        ),
    ] = 0.8,
    cortex: Annotated[
        str,
        typer.Option(help="mixed, or shared: all participants have one cortex, but for how it is stretched."),
    ] = "mixed",
    scanner: Annotated[
        str, typer.Option(help="siemens-mosaic, siemens-enhanced, ge, philips or nifti.")
    ] = "siemens-mosaic",
    in_magnet: Annotated[bool, typer.Option("--in-magnet/--clean", help="EEG with artefacts.")] = False,
    sfreq: Annotated[
        float | None, typer.Option(help="EEG sampling rate, Hz; default 1000.", callback=positive)
    ] = None,
    motion: Annotated[
        str, typer.Option(help="Head motion: still, typical, or a table with one row a volume.")
    ] = "still",
    pose: Annotated[
        str,
        typer.Option(help="Where the head lies off its usual place: x,y,z,pitch,roll,yaw in mm and degrees."),
    ] = "",
    delivery: Annotated[
        str, typer.Option(help="When files come: steady, or a table of times at which images were finished.")
    ] = "steady",
    first_delay: Annotated[
        float | None,
        typer.Option(help="Further delay of the first file, s; default: the vendor's.", callback=from_zero),
    ] = None,
    settling: Annotated[
        bool,
        typer.Option("--settling/--settled", help="The first volumes are brighter (T1)."),
    ] = False,
    faults: Annotated[
        str,
        typer.Option(
            help="Comma list of kind=rate per minute or kind@second[:duration], volume-drop@12 for example."
        ),
    ] = "",
    cuts: Annotated[str, typer.Option(help="Where the film cuts: grid (every 4 s) or free.")] = "grid",
    truth: Annotated[Path | None, typer.Option(help="Folder for film.mp4, events.tsv, faults.jsonl.")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write a recording as fast as possible; wait for no clock.")
    ] = None,
    group_readable: GroupReadable = False,
) -> None:
    """Be a simulated participant, amplifier and scanner: an LSL stream and a folder of volumes."""
    # Imported here, so that `--help` is quick and other commands do not load the simulation.
    from rtdecode.phantom.live import simulate as command

    code = command.run(
        lsl=lsl,
        fmri_dir=fmri_dir,
        preset=preset.value,
        subject=subject,
        seed=seed,
        film_seed=film_seed,
        seconds=seconds,
        film=film,
        gaze=gaze,
        tr=tr,
        cortex=cortex,
        wait=wait,
        scanner=scanner,
        in_magnet=in_magnet,
        sfreq=sfreq,
        motion=motion,
        pose=pose,
        delivery=delivery,
        first_delay=first_delay,
        settling=settling,
        faults=faults,
        truth=truth,
        record=record,
        cuts=cuts,
    )
    raise typer.Exit(code)
