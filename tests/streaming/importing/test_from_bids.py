"""From a BIDS folder to a trained ridge and its bundle: the commands of docs/import.md, one by one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rtdecode.phantom.session import PhantomSession
from tests.bids_validator import errors
from tests.recordings import record

# A small head, and two films.
SHAPE = (48, 48, 30)
SECONDS = 60
FILMS = (7, 8)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.full
def test_a_bids_folder_becomes_a_bundle_and_nothing_of_it_is_forgotten(tmp_path: Path) -> None:
    for seed in FILMS:
        session = PhantomSession("easy", 2, seed, SECONDS, sfreq=200, shape=SHAPE)
        source = record(session, tmp_path / f"source-{seed}")
        bids = tmp_path / f"bids-{seed}"
        run("rtdecode.cli", "to-bids", source, bids, "--subject", f"{seed:02d}")
        assert errors(bids) == []
        out = tmp_path / "recs" / str(seed)
        run("rtdecode.cli", "import", bids, "--subject", f"{seed:02d}", "--task", "film", "--out", out)
        assert (out / "truth/film.mp4").read_bytes() == (source / "truth/film.mp4").read_bytes()
        assert (out / "truth/events.tsv").read_text().count("\n") == len(session.film.shots) + 1
    trained = tmp_path / "run"
    run("train.run", "ridge", "scale=tiny", f"data={tmp_path / 'recs'}", f"out={trained}")
    bundle = tmp_path / "bundle"
    run("rtdecode.cli", "export", trained, "--out", bundle)
    recording = tmp_path / "recs" / str(FILMS[0])
    assert "would be decoded" in run("rtdecode.cli", "doctor", recording, "--bundle", bundle).stdout
    clips = tmp_path / "clips"
    run("rtdecode.cli", "replay", recording, "--bundle", bundle, "--speed", "max", "--out", clips)
    report = json.loads((clips / "report.json").read_text())
    assert report["windows"]["final"] >= SECONDS // 4 - 1
    run("rtdecode.cli", "report", clips)
    forgotten = json.loads(run("rtdecode.cli", "forget", recording, "--json").stdout)
    assert forgotten["left"] == []
    assert {(entry["kind"], Path(entry["path"])) for entry in forgotten["derived"]} == {
        ("training run", trained),
        ("bundle", bundle),
        ("clips", clips),
    }
