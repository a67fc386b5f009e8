"""The table of checks: what each is called and needs, its limits, what it says and what to do.

`rtdecode doctor`, `rtdecode preflight`, `rtdecode eeg`, the verdict on a run's first minute and the page's
indicators judge by these rows: whatever has a limit, and whatever more than one of them judges. Limits
without a source are choices of this project.
"""
# fmt: off

from dataclasses import replace

from rtdecode.signal.volume.run_quality import BARS
from streaming.checks.finding import BAD, NOTE, OFF, Check

# What the bundle reads.
BUNDLE_REFUSED = Check("bundle", "{error}", state=BAD)
SOURCE_UNREAD = Check("{subject}", "the bundle {bundle} reads no {modality}",
    "leave {option} out, or give another --bundle", NOTE)
SOURCES_UNREAD = Check("sources", "the bundle {bundle} reads {reads}, and no such source was given",
    "give --lsl or --fmri-dir, or another --bundle", BAD)

# EEG. A source that has been silent for so long, s, is missing in the clips by now.
EEG_AWAITED = Check("EEG", "no sample yet",
    "start the amplifier's LSL stream, or correct its name; see rtdecode eeg", NOTE)
# An operator may start before the amplifier; a check that has listened for seconds may not.
NO_SAMPLE = replace(EEG_AWAITED, subject="samples", sentence="{source}; no sample came", state=BAD)
EEG_SILENT = Check("EEG", "silent for {silent_s:.0f} s",
    "the amplifier's program has stopped sending, or the network is down: check both", note=2.0, bad=8.0)
EEG_RATE = Check("EEG", "{rate_hz:.0f} Hz")
# What is counted since a session began says nothing of the present, and is no fault by itself.
EEG_GAPS = Check("EEG", "{gaps:# gap}", "check the amplifier's cable, its program and the network")
EEG_JUMPS = Check("EEG", "the time stamps jumped {jumps:# time}",
    "check the clock of the amplifier's computer: it was reset, and the session follows it")
# What is left at the slice harmonics, over the power between them: simulated sessions have -4 to 8.
GRADIENT_RESIDUAL = Check("EEG", "gradient residual {artifact_residual_db:.1f} dB",
    "check that the amplifier gets the volume triggers, and is locked to the scanner's clock",
    note=15.0, limit="{:g} dB")
BAD_CHANNELS = Check("EEG", "{bad_channels:# bad channel}: {bad_channels:names}",
    "check these electrodes and their contact: they are interpolated from the other channels", NOTE)
TOO_MANY_BAD = Check("EEG", "too many channels are bad to be interpolated: {bad_channels:names}",
    "check the cap, its cable and the reference: no EEG is decoded", BAD)
OTHER_CAP = Check("cap", "{error}", "use the trained cap, or another --bundle", BAD)
CAP = Check("cap", "{present} of the bundle's {channels:# channel}")
CAP_LACKS = Check("cap", f"{CAP.sentence}; {{absent:names}} would be interpolated from the others",
    "switch these channels on in the amplifier's program", NOTE)
_IMPEDANCES = "{channels:# channel}, median {median:.0f} kOhm, largest {largest:.0f}"
# What combined recordings usually aim at, kOhm.
IMPEDANCES = Check("impedances", f"{_IMPEDANCES}; too high: {{high:names}}",
    "improve the contact of these electrodes",
    note=20.0, figure="largest", limit="{:g} kOhm", ok=_IMPEDANCES)
# Rise of the occipital alpha with the eyes closed, dB. People differ, and some have hardly any, so that a
# smaller rise is never more than a note.
ALPHA = Check("alpha", "alpha over its neighbours at occipital channels rises by {rise_db:.1f} dB, from "
    "{open_db:.1f} dB with the eyes open to {closed_db:.1f} dB with the eyes closed",
    "the EEG may not be the brain's: check the cap and the reference",
    note=2.0, at_least=True, limit="{:g} dB")

# Volume triggers. A session goes on without them, so that their loss is no alarm there; before a run, when it
# can be mended, it is.
TRIGGER_LINE = Check("triggers", "there is a marker stream or a stim channel")
NO_TRIGGER_LINE = Check("triggers",
    "no marker stream and no stim channel: runs are timed by what the volumes say",
    "send the scanner's volume triggers over LSL", NOTE)
NO_TRIGGERS_RECORDED = Check("triggers", "there are none: {placed}", NO_TRIGGER_LINE.advice, NOTE)
TRIGGERS_AWAITED = Check("triggers", "{triggers} yet: they come with the scanner's first volume",
    "if the scanner runs, check the cable from its trigger output to the amplifier", NOTE)
TRIGGERS_LOST = Check("triggers", "{triggers} for {silent_s:.0f} s, while {volumes} came",
    "check the trigger cable from the scanner, and the program that reads it. Until triggers are back, "
    "windows rest on the times of the files", NOTE)
TRIGGERS_MISSING = replace(TRIGGERS_LOST, state=BAD)
TRIGGERS = Check("triggers", "{triggers:# trigger}")
VOLUME_TRIGGERS = Check("triggers",
    "{triggers:# trigger}; {marking} of {label!r} mark volumes, one every {tr_s:g} s")
TRIGGER_FIT = Check("triggers", "line fits to {residual_ms:.3f} ms")

# Volumes. Triggers that come at most so many TRs apart say that the scanner runs.
RUNNING_TRS = 3.0
FOLDER_MISSING = Check("folder", "{folder} is not there", "check the scanner's export and the mount", BAD)
VOLUMES_AWAITED = Check("fMRI", "no volume yet",
    "start the scanner's run with its real-time export to this folder switched on", NOTE)
FIRST_VOLUME_DUE = Check("fMRI", "triggers, and no volume yet", state=NOTE)
EXPORT_OFF = Check("fMRI", "triggers, but no files",
    "the scanner runs. The console's export is off, or its mapped drive is gone: check both", BAD)
VOLUMES_STOPPED = Check("fMRI", "no volume for {silent_s:.0f} s", "{cause}", note=6.0, bad=20.0)
# As many TRs as that, where they are longer.
STOPPED_TRS = {"note": 4, "bad": 12}
EXPORT_STOPPED = (
    "the export stopped in the middle of a run, while triggers go on: check the export, the console's disk "
    "and its mapped drive")
RUN_OVER = "the run is over, or the scanner has stopped: triggers are missing too"
VOLUMES = Check("fMRI", "{volumes:# volume}, {missing} missing")
FEW_VOLUMES = Check("fMRI",
    "only {volumes:# volume} could be read in its first {elapsed_s:.0f} s, too few to judge it",
    "check the scanner's export and the network share", BAD)
# A volume that is a little late comes with the next one.
BURST = Check("delivery", "up to {burst:# volume} within one TR",
    "unless they were copied here, let the console reconstruct and export in real time: finals go out "
    "without volumes that are late", note=2)
TR = Check("TR", "{tr_s:g} s")
TR_UNSTATED = Check("TR", "the files state no TR; the bundle's is {trained_s:g} s",
    "check the protocol", NOTE)
OTHER_TR = Check("TR", "{tr_s:g} s, and the bundle was trained at TR {trained_s:g} s",
    "scan with the trained protocol, or give another --bundle", BAD)
OTHER_GRID = Check("grid", "{error}", "calibrate with --bundle, or give another", BAD)

# The first minute of a run, by its motion and its signal: limits and sources are those of
# `rtdecode.signal.volume.run_quality.BARS`.
_MOTION = {
    "mean_fd_mm": ("mean displacement {mean_fd_mm:.2f} mm", "{:.2f} mm"),
    "max_fd_mm": ("largest displacement {max_fd_mm:.1f} mm", "{:.1f} mm"),
    "moved_share": ("{moved_share:.0%} of the volumes moved by more than 0.5 mm", "{:.0%}"),
    "jump_share": ("{jump_share:.0%} of the volumes jump (DVARS)", "{:.0%}"),
    "unaligned_share": ("{unaligned_share:.0%} of the volumes could not be aligned", "{:.0%}"),
    "tsnr": ("tSNR {tsnr:.0f}", "{:.0f}"),
}
MOTION = {
    bar.figure: Check("motion", sentence, note=bar.good, bad=bar.bad, limit=limit,
                      at_least=bar.bad < bar.good)
    for bar in BARS for sentence, limit in [_MOTION[bar.figure]]
}
# The upper end of the interval of tSNR over the calibration's: below this share, the run is surely not what
# was calibrated on.
TSNR_SHARE = Check("motion", "tSNR is {share:.0%} of the calibration's",
    bad=0.7, figure="highest_share", at_least=True, limit="{:.0%}")

# A volume of the calibration's own head correlates with its reference above 0.97, after alignment. Measured
# on recorded volumes of Siemens, GE and Philips scanners: 0.983 to 1.000 for the last volume of a series
# against the mean of those before it (nine series), at most 0.933 for another head (180 pairs of series), and
# 0.943 and 0.979 for one head in two scans with another order of slices. Of simulated heads, another one
# reached 0.964 (10 pairs).
HEAD = Check("head", "the newest volume correlates with the calibration's reference at {correlation:.3f}",
    "it shows another participant, or another session: calibrate again, as this participant lies now",
    bad=0.97, at_least=True, limit="{:g}")
# A head that lies further away, mm, or is turned by more, degrees, was put into the coil anew: within a run,
# heads move by millimetres.
HEAD_PLACE = Check("head", "{moved_mm:.0f} mm and {turned_deg:.0f} degrees away",
    "the head lies elsewhere: calibrate again, as this participant lies now",
    note=10.0, figure="furthest")
HEAD_UNKNOWN = Check("head", "unknown: there is no volume yet to compare with the calibration's",
    "run it once more after a short scan, to be told", NOTE)

# The clocks of amplifier and scanner, by how far the TR is off, ppm: the figure is what lies beyond its own
# uncertainty. Clocks of their own differ by 10 to 50 ppm.
_DRIFT = (
    "the TR is {ppm:+.2f} ppm (95 %: {error_ppm:.2g}) off by the amplifier's clock, and {by} lie within "
    "{scatter:.2g} samples of a line")
CLOCKS = Check("sync", f"not locked: {_DRIFT}",
    "lock the amplifier to the scanner's clock (a sync box), if it can be; the correction follows the drift",
    note=1.0, figure="surely_ppm", ok=f"locked as far as can be told: {_DRIFT}")
CLOCKS_COARSE = Check("sync", f"unknown: {_DRIFT}, which is too coarse to tell",
    "send them on a stim channel of the amplifier, or listen longer (--seconds)",
    note=10.0, figure="error_ppm")
CLOCKS_UNKNOWN = Check("sync",
    "unknown: too few volume triggers came to compare the clocks of amplifier and scanner",
    "run it once more while the scanner runs, to be told", NOTE)

# This machine.
DISK = Check("{place}", "{free_gb:.1f} GB free at {folder}, which takes about {mb_a_minute:.0f} MB a minute: "
    "room for {room_minutes:.0f} minutes of the session, {minutes:g} wanted",
    "make room, or give a folder on another disk", bad=0.0, figure="spare_minutes", at_least=True)
BATTERY = Check("battery", "{percent:.0f} % charged: {left_minutes:.0f} minutes left, {minutes:g} wanted",
    "connect this machine to the mains", BAD)

# Clips. The figure is the age of the newest one, in hops.
CLIP_AGE = Check("clips", "the last one is {age_s:.0f} s old",
    "what is shown is not the present: check that scanner and amplifier run, and the load of this machine",
    note=2.0, bad=4.0, figure="age_hops")
CLIPS = Check("clips", "{finals:# final}, {late} late")
CLIPS_AWAITED = Check("clips", "none yet", state=OFF)

# The brain, by the newest finals.
CHECK_BRAIN = (
    "Check the cap, the participant's place in the scanner, and that --bundle (and --subject) is this "
    "participant's")
_UNBELIEVED = f"do not believe the clips. {CHECK_BRAIN}"
BRAIN_UNTOLD = Check("brain", "not told", state=OFF)
BRAIN_READ = Check("brain", "read in {read} of the last {finals:# final}")
BRAIN_DOUBTED = replace(BRAIN_READ, state=NOTE)
BRAIN_GONE = replace(BRAIN_READ, advice=_UNBELIEVED, state=BAD)
MODALITY_UNREAD = Check("brain", "{modality}: nothing readable in {finals:# final}", _UNBELIEVED, BAD)

# What is kept, and who decodes.
NOT_RECORDED = Check("recording", "nothing is kept (--record)", state=OFF)
RECORDED = Check("recording", "on")
RECORDING_BROKE = Check("recording", "{fault}",
    "nothing more is recorded. Free space, and start a new session", BAD)
DECODER_THERE = Check("decoder", "answers")
DECODER_AWAY = Check("decoder", "away since {since}",
    "windows are skipped. Check the network, and `rtdecode serve`", BAD)
DECODER_REPLACED = Check("decoder", DECODER_AWAY.sentence,
    "the fallback decodes. Check the network, and `rtdecode serve`", NOTE)
