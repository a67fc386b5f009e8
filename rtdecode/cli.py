"""The command line: every command of `rtdecode` with its options.

A command parses its options, imports the package that does the work inside its body, and calls it, so that
`--help` is quick and a command runs without the packages that only others need. Explained faults end in one
sentence on stderr and the exit code of their class.
"""

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rtdecode import __version__, installing, reasons, strict_json, terminal
from rtdecode.commands.options import (
    BundleName,
    Carry,
    Dashboard,
    Detail,
    Existing,
    GroupReadable,
    Include,
    Json,
    Moco,
    Osc,
    Out,
    Outlet,
    Peers,
    ReportFile,
    Series,
    StartOn,
    Steps,
    SubjectName,
    Twin,
    from_zero,
    positive,
)
from rtdecode.errors import RtDecodeError, UsageError, explain
from rtdecode.phantom.live.command import simulate

# typer does not name the class of its errors on command lines, of which this is one.
_Misuse: Any = typer.BadParameter.__bases__[0]


class _Commands(TyperGroup):
    """A command group that answers an unknown command with the list of commands."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None:
            names = ", ".join(sorted(self.commands))
            raise UsageError(
                "command-unknown",
                "there is no command '{command}'. The commands are {available}.",
                command=cmd_name,
                available=names,
            )
        return command


app = typer.Typer(
    cls=_Commands,
    name="rtdecode",
    help="Decode continuous video from EEG and fMRI while they are recorded.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Decode continuous video from EEG and fMRI while they are recorded."""
    if version:
        terminal.line(__version__)
        raise typer.Exit


@app.command()
def demo(
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Length of the film, s; default: 60, or all of a film that is shorter.", callback=positive
        ),
    ] = None,
    out: Out = None,
    film: Annotated[
        str | None,
        typer.Option(
            help="What is watched: shapes, natural (a drawn world), or a path; default: a real film.",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="A bundle's folder, or the name of a shipped one; default: phantom.", show_default=False
        ),
    ] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Play two runs of recorded human fMRI instead of simulating.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Show the film when it is done.")] = False,
    detail: Detail = None,
    dashboard: Dashboard = None,
    outlet: Outlet = None,
    osc: Osc = None,
    group_readable: GroupReadable = False,
) -> None:
    """Run a live session against a simulated participant, or against recorded human fMRI."""
    from streaming.tools import demo as command

    code = command.run(
        seconds=seconds,
        out=out,
        open_film=open_,
        recorded=recorded,
        film=film,
        detail=detail,
        bundle=bundle,
        dashboard=dashboard,
        outlet=outlet,
        osc=osc,
        group_readable=group_readable,
    )
    raise typer.Exit(code)


app.command()(simulate)


@app.command()
def stream(
    lsl: Annotated[str | None, typer.Option(help="EEG stream: its name, else type, else source id.")] = None,
    fmri_dir: Annotated[Path | None, typer.Option(help="The scanner's export folder.")] = None,
    bundle: BundleName = "phantom",
    subject: SubjectName = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A folder made by calibrate: corrects for motion, and places voxels.")
    ] = None,
    out: Out = None,
    report: ReportFile = None,
    seconds: Annotated[
        float | None, typer.Option(help="Run time to decode; default: until stopped.", callback=positive)
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Folder with film.mp4 and events.tsv, or the TSV.")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Keep everything that arrives in this folder.")] = None,
    dashboard: Dashboard = None,
    dashboard_token_fd: Annotated[
        int | None, typer.Option(help="Read the page's token here.", hidden=True, min=0)
    ] = None,
    outlet: Outlet = None,
    osc: Osc = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="Decode elsewhere: the address that serve prints, or several with commas.",
            metavar="URL[,URL]",
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="The file with the token of --decoder.")] = None,
    ca: Annotated[
        Path | None, typer.Option(help="A site's own authority for the certificate of --decoder, in PEM.")
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(help="Decode with this bundle here while --decoder is not in time.", metavar="BUNDLE"),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the run to start; 0: for ever.", callback=from_zero)
    ] = 60.0,
    lost_after: Annotated[
        float,
        typer.Option(
            help="Seconds of silence from every source that end the session; 0: never.", callback=from_zero
        ),
    ] = 30.0,
    existing: Annotated[Existing, typer.Option(help="Files in the folder at the start.")] = Existing.ignore,
    dummies: Annotated[int, typer.Option(help="Dummy volumes at the start of each run.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option(help="Write into a folder that is not empty.")] = False,
    steps: Steps = None,
    detail: Detail = None,
    carry: Carry = True,
    twin: Twin = False,
    series: Series = None,
    moco: Moco = False,
    include: Include = "",
    peers: Peers = None,
    markers: Annotated[
        str | None,
        typer.Option(help="LSL stream of the volume triggers; default: by its name, see docs/eeg.md."),
    ] = None,
    group_readable: GroupReadable = False,
) -> None:
    """Decode a live session into clips."""
    if decoder is not None:
        _needs("websockets", "serve")
    from streaming.address import take_over
    from streaming.session import live as command
    from streaming.session.options import StreamOptions

    options = StreamOptions(
        lsl=lsl,
        fmri_dir=fmri_dir,
        bundle=bundle,
        subject=subject,
        calibration=calibration,
        out=out,
        report=report,
        seconds=seconds,
        truth=truth,
        record=record,
        dashboard=dashboard,
        dashboard_token=None if dashboard_token_fd is None else take_over(dashboard_token_fd),
        outlet=outlet,
        osc=osc,
        decoder=decoder,
        token_file=token_file,
        ca=ca,
        fallback=fallback,
        wait=wait,
        lost_after=lost_after,
        existing=existing.value,
        dummies=dummies,
        overwrite=overwrite,
        steps=steps,
        detail=detail,
        carry=carry,
        twin=twin,
        series=series,
        moco=moco,
        include=include,
        peers=tuple(_hosts(peers)),
        markers=markers,
        group_readable=group_readable,
    )
    raise typer.Exit(command.run(options))


@app.command()
def serve(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or the name of a shipped one.")],
    subject: SubjectName = None,
    bind: Annotated[str, typer.Option(help="Where to serve; port 0 takes any.", metavar="HOST:PORT")] = (
        "127.0.0.1:8765"
    ),
    sessions: Annotated[
        int | None, typer.Option(help="Let in so many sessions at most; default: as many as fit.", min=1)
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="The file with the token; default: one is made.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The server's certificate, in PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The key of the certificate, in PEM.")] = None,
    as_json: Json = False,
) -> None:
    """Decode for sessions on other machines: `stream --decoder`."""
    _needs("websockets", "serve")
    from streaming.serve import command

    options = command.ServeOptions(
        bundle=bundle,
        subject=subject,
        bind=bind,
        sessions=sessions,
        token_file=token_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        as_json=as_json,
    )
    raise typer.Exit(command.run(options))


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(help="A folder made by --record.")],
    bundle: BundleName = "phantom",
    subject: SubjectName = None,
    speed: Annotated[str, typer.Option(help="Speed relative to real time, or max.")] = "1",
    out: Out = None,
    report: ReportFile = None,
    steps: Steps = None,
    detail: Detail = None,
    carry: Carry = True,
    twin: Twin = False,
    dashboard: Dashboard = None,
    group_readable: GroupReadable = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A folder made by calibrate, in place of the session's own calibration or of none."
        ),
    ] = None,
    as_live: Annotated[
        bool | None,
        typer.Option(
            "--as-live/--best",
            help="Repeat what was live, or decode every window at full steps; default: as live where the "
            "recording has the session's decisions with this bundle.",
        ),
    ] = None,
) -> None:
    """Decode a recording through the same code on a virtual clock: as it was live, or at full steps."""
    from streaming.session import replay as command

    code = command.run(
        recording,
        bundle,
        speed,
        out,
        report,
        steps=steps,
        detail=detail,
        carry=carry,
        twin=twin,
        subject=subject,
        dashboard=dashboard,
        as_live=as_live,
        calibration=calibration,
    )
    raise typer.Exit(code)


@app.command("import")
def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="The EEG (.xdf, .vhdr, .edf, .bdf, .set, .fif) and the volumes (a folder of DICOM files, "
            ".nii, .nii.gz, .par); or a BIDS folder with --subject.",
            metavar="SOURCE...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The recording's folder.", metavar="REC")],
    subject: Annotated[
        str | None, typer.Option(help="Participant of a BIDS folder, such as 01.", metavar="S")
    ] = None,
    session: Annotated[str | None, typer.Option(help="Session of a BIDS folder.", metavar="S")] = None,
    task: Annotated[str | None, typer.Option(help="Task of a BIDS folder.", metavar="T")] = None,
    run: Annotated[str | None, typer.Option(help="Run of a BIDS folder.", metavar="N")] = None,
    prepared: Annotated[
        bool, typer.Option("--prepared", help="The volumes that fMRIPrep prepared in a BIDS folder.")
    ] = False,
    space: Annotated[str, typer.Option(help="Space of prepared volumes, where there are several.")] = "",
    stream: Annotated[
        str | None, typer.Option(help="EEG stream of an XDF file: its name or number.", metavar="NAME")
    ] = None,
    markers: Annotated[
        str | None, typer.Option(help="Stream of the triggers in an XDF file.", metavar="NAME")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Names of an XDF stream's channels, where it states none.", metavar="NAME,NAME"),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Unit of an XDF stream's channels, where it states none: V, mV, uV.")
    ] = None,
    triggers: Annotated[
        Path | None,
        typer.Option(help="Volume triggers: onset, seconds after the first sample.", metavar="TSV"),
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="Text of the volume trigger; default: what comes once a TR.")
    ] = None,
    trigger_run: Annotated[
        int | None, typer.Option(help="Which run of triggers the volumes have, from 1.", min=1)
    ] = None,
    first_trigger: Annotated[
        int | None,
        typer.Option(help="Volume that the first trigger started, from 0; below 0: a discarded one."),
    ] = None,
    volumes_at: Annotated[
        float | None,
        typer.Option(
            help="Without triggers: start of the first volume after the first sample, s.", callback=from_zero
        ),
    ] = None,
    by_clocks: Annotated[
        bool,
        typer.Option(
            "--by-clocks", help="Without triggers: place the volumes by the times of day in headers."
        ),
    ] = False,
    tr: Annotated[
        float | None, typer.Option(help="Repetition time, s; default: the files'.", callback=positive)
    ] = None,
    film: Annotated[Path | None, typer.Option(help="The film that was shown.", metavar="FILE")] = None,
    events: Annotated[
        Path | None, typer.Option(help="Events of the run, as BIDS has them.", metavar="TSV")
    ] = None,
    film_at: Annotated[
        str | None,
        typer.Option(help="When the film began: seconds after the first volume, or a marker's text."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="The signals were filtered or cleaned after the session.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="How much of the run counts, s; default: all.", callback=positive)
    ] = None,
    series: Series = None,
    moco: Moco = False,
    include: Include = "",
    group_readable: GroupReadable = False,
) -> None:
    """Make a recording from what another program recorded: EEG, volumes, or both."""
    from streaming.importing import command

    options = command.ImportOptions(
        sources=sources,
        out=out,
        stream=stream,
        markers=markers,
        channels=channels,
        unit=unit,
        triggers=triggers,
        trigger=trigger,
        trigger_run=trigger_run,
        first_trigger=first_trigger,
        volumes_at=volumes_at,
        by_clocks=by_clocks,
        series=series,
        tr_s=tr,
        moco=moco,
        include=include,
        seconds=seconds,
        film=film,
        events=events,
        film_at=film_at,
        offline="it was said to be" if offline else "",
    )
    if subject is not None:
        from train.data.layouts.bids_sources import bids_sources

        entities = {"ses": session, "task": task, "run": run}
        files = bids_sources(sources[0], subject, entities, prepared=prepared, space=space)
        options = command.of_bids(
            options,
            bold=files.bold,
            eeg=files.eeg,
            tr_s=files.tr_s,
            sidecar=files.sidecar,
            markers_beside=files.markers,
            events=files.events,
            film=files.film,
            film_at_s=files.film_at_s,
            prepared=prepared,
        )
    for package, endings in (("pyxdf", command.XDF), ("mne", command.SUFFIXES)):
        if any(path.name.lower().endswith(endings) for path in options.sources):
            _needs(package, "import")
    raise typer.Exit(command.run(options))


@app.command()
def report(
    session: Annotated[Path, typer.Argument(help="The folder of a session.", metavar="OUT")],
    out: Annotated[
        Path | None, typer.Option(help="The page; default OUT/report.html.", metavar="FILE")
    ] = None,
    group_readable: GroupReadable = False,
) -> None:
    """Make one self-contained page of a session."""
    from streaming.tools import session_page as command

    raise typer.Exit(command.run(session, out))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A training run.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder.", metavar="BUNDLE")],
    target: Annotated[
        str | None,
        typer.Option(
            help="onnx; cuda: no node that ONNX Runtime's CUDA provider lacks; or tensorrt: for engines, and "
            "with them; default: the recipe's."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Precision of the graphs: fp32, bf16, fp16, int8 or fp8; default: the recipe's."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps, 1 or more; only with a denoiser.")
    ] = None,
    sm: Annotated[
        str | None, typer.Option(help="Compute capabilities that engines are for; default: 8.0.")
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            help="A participant whose windows are not those of the run's default one.", metavar="NAME"
        ),
    ] = None,
    group_readable: GroupReadable = False,
) -> None:
    """Turn a training run into a bundle."""
    _needs("onnx", "export")
    _needs("onnxruntime", "cpu")
    from export import engines
    from export import run as command
    from rtdecode.bundle import prepared
    from rtdecode.disk.derived import note_export

    capabilities = None if sm is None else engines.capabilities_of(sm)
    written = command.run(run, out, target, precision, steps, capabilities, subject)
    note_export(run, out)
    parity = written.manifest.parity
    parity_text = f"largest difference from the run: {parity['largest_difference']}"
    if parity["status"] != "passed":
        parity_text = f"the graphs were not run: {parity['reason']}"
    terminal.line(f"{written.path}  {written.digest}  {parity_text}")
    if sentence := prepared.notice(written.manifest):
        terminal.say(sentence)
    for name in command.with_other_windows(run) if subject is None else ():
        again = f"rtdecode export {run} --subject {name} --out DIR"
        terminal.line(f"{name} has other windows, and a bundle of its own: {again}")


@app.command()
def fit(
    recordings: Annotated[
        list[Path], typer.Argument(help="Folders made by --record.", metavar="RECORDING...")
    ],
    out: Annotated[Path, typer.Option(help="The new bundle's folder.", metavar="BUNDLE")],
    film: Annotated[
        Path | None, typer.Option(help="The film shown; default: RECORDING/truth/film.mp4.", metavar="FILE")
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            help="The film's shots, for fitters that read them; default: RECORDING/truth.", metavar="TSV"
        ),
    ] = None,
    bundle: BundleName = "phantom",
    name: Annotated[
        str | None,
        typer.Option(
            help="What the participant is called in a bundle of several; default: newcomer.", metavar="NAME"
        ),
    ] = None,
    group_readable: GroupReadable = False,
) -> None:
    """Adapt a bundle to another participant, from ten minutes of recording with a known film."""
    _needs("onnx", "export")
    _needs("onnxruntime", "cpu")
    from export import fit as command
    from rtdecode.disk.derived import BUNDLE, note_derived

    written = command.run(recordings, film, events, bundle, out, name)
    for recording in recordings:
        note_derived(recording, BUNDLE, out)
    terminal.line(f"{written.path}  {written.digest}")


@app.command()
def inspect(bundle: Annotated[str, typer.Argument(help="A bundle.")], as_json: Json = False) -> None:
    """Show the manifest of a bundle, after checking every file against its hash."""
    from rtdecode import bundle as bundles
    from rtdecode.bundle import describe, prepared

    read = bundles.load(bundle)
    if as_json:
        extra = {"digest": read.digest, "prepared_files": prepared.notice(read.manifest)}
        terminal.line(strict_json.dumps(bundles.to_json(read.manifest) | extra))
    else:
        describe.show(read)


@app.command()
def volumes(
    directory: Annotated[Path, typer.Argument(help="A scanner's export folder.")],
    once: Annotated[bool, typer.Option("--once", help="Read what is there and end.")] = False,
    as_json: Json = False,
    nifti: Annotated[Path | None, typer.Option(help="Write each volume here as NIfTI.")] = None,
    series: Series = None,
    moco: Moco = False,
    include: Include = "",
    group_readable: GroupReadable = False,
) -> None:
    """Show what the scanner side sees in a folder."""
    from streaming.tools import volumes as command

    code = command.run(directory, once, as_json, nifti, series=series, moco=moco, include=include)
    raise typer.Exit(code)


@app.command()
def calibrate(
    fmri_dir: Annotated[Path, typer.Option(help="Folder of a short run without a film.")],
    out: Annotated[Path, typer.Option(help="The calibration's folder.", metavar="DIR")],
    mask: Annotated[
        Path | None, typer.Option(help="Mask or label image in the volumes' space.", metavar="NIFTI")
    ] = None,
    fmriprep: Annotated[Path | None, typer.Option(help="Not built yet.", hidden=True)] = None,
    subject: Annotated[str | None, typer.Option(help="Not built yet.", hidden=True)] = None,
    labels: Annotated[str, typer.Option(help="Features: each of the voxels, or the mean of each label.")] = (
        "voxels"
    ),
    bundle: Annotated[
        str | None, typer.Option(help="Find the voxels of this bundle on today's head.", metavar="BUNDLE")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="An earlier calibration to be carried over.", metavar="DIR")
    ] = None,
    volumes: Annotated[int, typer.Option(help="Number of volumes to use.", min=2)] = 60,
    series: Series = None,
    include: Include = "",
    existing: Annotated[Existing, typer.Option(help="Files in the folder at the start.")] = Existing.read,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the first volume; 0: for ever.", callback=from_zero)
    ] = 60.0,
    overwrite: Annotated[bool, typer.Option(help="Replace a calibration that is in the folder.")] = False,
    group_readable: GroupReadable = False,
) -> None:
    """Prepare a session: reference volume, projection, warm-up statistics, one page on the signal."""
    from streaming.calibrate import command

    code = command.run(
        fmri_dir,
        mask,
        out,
        bundle=bundle,
        reference=reference,
        fmriprep=fmriprep,
        subject=subject,
        labels=labels,
        volumes=volumes,
        series=series,
        include=include,
        existing=existing.value,
        wait=wait,
        overwrite=overwrite,
    )
    raise typer.Exit(code)


@app.command("play-volumes")
def play_volumes(
    bold: Annotated[Path, typer.Argument(help="A recorded 4-D NIfTI.")],
    fmri_dir: Annotated[Path, typer.Option(help="The folder to write into.")],
    tr: Annotated[
        float | None, typer.Option(help="Repetition time, s; default: the file's.", callback=positive)
    ] = None,
    speed: Annotated[float, typer.Option(help="Speed relative to real time.", callback=positive)] = 1.0,
) -> None:
    """Play a recorded run into a folder, volume by volume, as a scanner would."""
    from streaming.tools import play_volumes as command

    raise typer.Exit(command.run(bold, fmri_dir, tr, speed))


@app.command()
def play(
    film: Annotated[Path, typer.Argument(help="A film: MP4, MKV, AVI, ...")],
    lsl: Annotated[
        str | None,
        typer.Option(
            help="EEG stream; frames are marked on NAME-film; default: the only one on the network.",
            metavar="NAME",
        ),
    ] = None,
    start_on: Annotated[
        StartOn, typer.Option(help="The first volume trigger, a key (space, 5, t), or now.")
    ] = StartOn.trigger,
    screen: Annotated[int | None, typer.Option(help="Screen to fill, from 0; default: a window.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Mark the frames; show nothing.")] = False,
    patch: Annotated[str, typer.Option(help="Photodiode square: CORNER[:PIXELS].")] = "bottom-right:64",
    no_patch: Annotated[bool, typer.Option("--no-patch", help="No square for a photodiode.")] = False,
    trigger: Annotated[
        str | None, typer.Option(help="Text of the volume trigger; default R128, or a stim channel's edge.")
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            help="With --start-on now: seconds to wait for a reader; 0: not at all.", callback=from_zero
        ),
    ] = 60.0,
    log: Annotated[Path | None, typer.Option(help="TSV of the frames shown, a new file.")] = None,
    group_readable: GroupReadable = False,
) -> None:
    """Show a film to the participant; mark each frame when it is shown."""
    from streaming.play import command

    if not headless:
        _needs("pygame", "play")
    options = command.PlayOptions(
        film=film,
        lsl=lsl,
        start_on=start_on.value,
        screen=screen,
        headless=headless,
        patch=None if no_patch else patch,
        trigger=trigger,
        wait=wait,
        log=log,
    )
    raise typer.Exit(command.run(options))


@app.command("to-bids")
def to_bids(
    recording: Annotated[Path, typer.Argument(help="A recording.", metavar="REC")],
    directory: Annotated[Path, typer.Argument(help="The data set's folder.", metavar="DIR")],
    subject: Annotated[str, typer.Option(help="Label of the participant.", metavar="S")] = "01",
    task: Annotated[str, typer.Option(help="Label of the task.", metavar="T")] = "film",
    clips: Annotated[
        Path | None,
        typer.Option(
            help="A session or replay of the recording, whose clips are written too; default: the newest "
            "that the recording knows.",
            metavar="OUT",
        ),
    ] = None,
    group_readable: GroupReadable = False,
) -> None:
    """Write a recording as a BIDS data set, with its clips as derivatives."""
    from streaming.tools import to_bids as command

    raise typer.Exit(command.run(recording, directory, subject=subject, task=task, clips=clips))


@app.command()
def forget(
    recording: Annotated[Path, typer.Argument(help="A recording.", metavar="REC")], as_json: Json = False
) -> None:
    """Delete a recording with all that names or pictures the participant; list what was made of it."""
    from streaming.tools import forget as command

    raise typer.Exit(command.run(recording, as_json=as_json))


@app.command()
def doctor(
    recording: Annotated[
        Path | None, typer.Argument(help="A recording: would the bundle have read it?", metavar="[REC]")
    ] = None,
    lsl: Annotated[str | None, typer.Option(help="The EEG stream to listen to.")] = None,
    fmri_dir: Annotated[Path | None, typer.Option(help="The folder to look into.")] = None,
    bundle: BundleName = "phantom",
    calibration: Annotated[Path | None, typer.Option(help="A folder made by calibrate.")] = None,
    out: Annotated[Path | None, typer.Option(help="The session's folder.", metavar="DIR")] = None,
    record: Annotated[Path | None, typer.Option(help="The recording's folder.", metavar="DIR")] = None,
    minutes: Annotated[
        float, typer.Option(help="Length of the session that must fit on the disks.", callback=positive)
    ] = 60.0,
    as_json: Json = False,
    peers: Peers = None,
) -> None:
    """Check what a session needs against the bundle, and say what to do about each thing that is wrong."""
    if recording is not None:
        from streaming.tools import doctor_recording

        raise typer.Exit(doctor_recording.run(recording, bundle, as_json=as_json))
    _reach(peers)
    from streaming.tools import doctor as command

    checks = command.CheckOptions(lsl, fmri_dir, bundle, calibration, out, record, minutes)
    raise typer.Exit(command.run(checks, as_json=as_json))


@app.command()
def preflight(
    lsl: Annotated[str | None, typer.Option(help="The EEG stream to listen to.")] = None,
    fmri_dir: Annotated[Path | None, typer.Option(help="The scanner's export folder.")] = None,
    bundle: BundleName = "phantom",
    calibration: Annotated[
        Path | None, typer.Option(help="A folder made by calibrate: is it of the head in the scanner now?")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The session's folder.", metavar="DIR")] = None,
    record: Annotated[Path | None, typer.Option(help="The recording's folder.", metavar="DIR")] = None,
    minutes: Annotated[
        float,
        typer.Option(help="Length of the session, for disks and battery.", callback=positive),
    ] = 60.0,
    seconds: Annotated[float, typer.Option(help="How long to listen, s.", callback=positive)] = 20.0,
    eyes_closed: Annotated[
        bool, typer.Option("--eyes-closed", help="Ask for closed eyes, listen again, compare the alpha.")
    ] = False,
    as_json: Json = False,
    peers: Peers = None,
) -> None:
    """Say whether a run may start, thing by thing: exit code 0 if it may, 1 if not.

    The participant lies in the scanner and the amplifier runs. This makes the checks of `rtdecode doctor` and
    listens for some seconds: do volumes and triggers come, is the amplifier locked to the scanner's clock, do
    the electrodes and the ECG work, is the calibration of this head? It judges data, never safety.
    """
    _reach(peers)
    from streaming.tools import preflight as command
    from streaming.tools.doctor import CheckOptions

    options = CheckOptions(lsl, fmri_dir, bundle, calibration, out, record, minutes)
    raise typer.Exit(command.run(options, as_json, seconds=seconds, eyes_closed=eyes_closed))


@app.command()
def eeg(
    lsl: Annotated[str | None, typer.Option(help="The EEG stream; default: every one.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Stop after this many seconds; default: at Ctrl-C.", callback=positive),
    ] = None,
    as_json: Json = False,
    peers: Peers = None,
) -> None:
    """Show what the amplifier side sees on this network."""
    from streaming.tools import eeg as command

    raise typer.Exit(command.run(lsl, seconds, as_json, peers=_hosts(peers)))


@app.command()
def bench(
    as_json: Json = False,
    bundle: BundleName = "phantom",
    quick: Annotated[bool, typer.Option("--quick", help="A first impression, within a minute.")] = False,
) -> None:
    """Time the stages of the runtime on this machine."""
    from streaming.tools import bench as command

    command.run(bundle, as_json, quick=quick)


def _hosts(peers: str | None) -> list[str]:
    return [host.strip() for host in (peers or "").split(",") if host.strip()]


def _reach(peers: str | None) -> None:
    """Set the hosts to ask for streams, before anything else touches LSL, which reads its settings once."""
    if hosts := _hosts(peers):
        from rtdecode import liblsl

        liblsl.reach(hosts)


def _needs(module: str, extra: str) -> None:
    from importlib.util import find_spec

    # CheckOptions before the command is imported, which would end in a traceback instead of this advice.
    if find_spec(module) is None:
        raise RtDecodeError(
            "package-missing",
            "this command needs the package {package}, which is not installed. Install it with: "
            "{install_command}",
            package=module,
            install_command=installing.command(extra),
        )


def main() -> None:
    """Run the command line; an explained fault ends in one sentence and its exit code."""
    # A shell script starts `program &` with SIGINT ignored, and Python leaves it ignored, so that
    # the program could not be stopped by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    terminal.guard()
    try:
        code = app(standalone_mode=False)
    except RtDecodeError as error:
        code = _explained(error)
    except _Misuse as error:
        code = _explained(_misused(error)) if error.format_message() else 2
    except typer.Abort:
        # What another program was to say has ended too early.
        code = _explained(RtDecodeError("command-aborted", "the command ended before it was done."))
    except OSError as error:
        # A file or folder that no command had looked at before it used it.
        code = _explained(_refused_by_system(error))
    sys.exit(code if isinstance(code, int) else 0)


def _explained(error: RtDecodeError) -> int:
    return explain(error, program="rtdecode", as_json="--json" in sys.argv)


def _misused(error: Any) -> UsageError:
    """Return what typer says of a command line in one sentence, as of every other error."""
    subcommand = error.ctx.info_name if error.ctx is not None and error.ctx.parent is not None else ""
    return UsageError(
        "command-line-invalid",
        "{explanation}. See `{help_command}`.",
        explanation=" ".join(error.format_message().split()).rstrip("."),
        help_command=" ".join(filter(None, ["rtdecode", subcommand, "--help"])),
    )


def _refused_by_system(error: OSError) -> RtDecodeError:
    kind = UsageError if error.errno in reasons.OF_PATHS else RtDecodeError
    path = error.filename
    if path is None:
        return kind("system-refused", "the system refused what was asked: {error}.", error=error)
    return kind(
        "path-refused",
        "{path} cannot be used: {error}. Give another, or see to it.",
        path=path,
        error=error,
    )


if __name__ == "__main__":
    main()
