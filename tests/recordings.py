"""Recordings of simulated sessions, for tests that do not look at the chunks of EEG in them."""

from pathlib import Path

from rtdecode.disk.recording import RecordingWriter
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Volume

# An amplifier sends ten times as many: the same windows come of them, in more time.
_CHUNK_S = 0.2


def record(session: PhantomSession, folder: Path, *, volumes: bool = True) -> Path:
    """Write what `rtdecode simulate --record` writes, in fewer chunks, with or without the volumes."""
    meta = {
        "simulated": True,
        "preset": session.preset.name,
        "subject": session.subject,
        "seconds": session.seconds,
    }
    with RecordingWriter(folder, session.montage, meta) as writer:
        session.truth(folder / "truth")
        for item in session.events(_CHUNK_S):
            if volumes or not isinstance(item, Volume):
                writer.write(item)
    return folder
