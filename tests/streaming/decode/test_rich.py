"""Every kind of port, state and stage, against the same sums without a graph."""

import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode import cli
from rtdecode.bundle import Bundle, load, write
from rtdecode.bundle import engine as engines
from rtdecode.bundle.manifest import subject_named
from rtdecode.bundle.memory import Rows
from rtdecode.bundle.noise import noise
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.errors import BundleError, UsageError
from rtdecode.types import EegChunk, Montage
from rtdecode.windows.assembler import Assembler
from streaming.decode.decoder import Decoder
from streaming.session.acquiring import sources
from streaming.session.options import StreamOptions
from tests.refusals import refused
from tests.streaming import rich


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return rich.make(tmp_path_factory.mktemp("rich") / "bundle")


def expected(
    index: int, steps: int, mood: float | None, *, channels: int = 3
) -> tuple[np.ndarray, float, np.ndarray]:
    eeg = rich.window(index, channels=channels).eeg
    assert eeg is not None
    second = channels == 2
    start = noise(rich.KEY, 0, index, rich.LATENT)
    gain, who = (2.0, 8.0) if second else (1.0, 7.0)
    return rich.expected(eeg[None], start, steps, gain=gain, who=who, mood=mood, key=(0, index))


@pytest.mark.parametrize("steps", [1, 2])
def test_windows_are_decoded_as_the_manifest_says(bundle: Bundle, steps: int) -> None:
    """Front, memory, subject, start and its level, noise levels, chunks, states of every scope, caches."""
    decoder = Decoder(bundle)
    mood: float | None = None
    for index in range(3):
        clip = decoder.decode(rich.window(index), steps).clip
        latent, mood, frames = expected(index, steps, mood)
        np.testing.assert_allclose(clip.latent, latent, atol=1e-4)
        np.testing.assert_allclose(clip.frames / 255, frames[0], atol=0.003)


def test_a_session_state_is_forgotten_after_a_hole(bundle: Bundle) -> None:
    decoder = Decoder(bundle)
    decoder.decode(rich.window(0))
    clip = decoder.decode(rich.window(2)).clip
    np.testing.assert_allclose(clip.latent, expected(2, 2, None)[0], atol=1e-4)


def test_the_first_frames_are_drawn_before_the_next_chunk_is_denoised(bundle: Bundle) -> None:
    engine = engines.load(bundle)
    opened = engine.session().open(rich.window(0), 2)
    opened.encode()
    latents = opened.latents()
    first = next(latents)
    assert first.shape == rich.CHUNK
    assert [frames.shape[1] for frames in opened.draw(first)] == [3]
    latent = np.concatenate([first, *latents], axis=2)
    np.testing.assert_array_equal(latent, opened.latent)


def test_what_denoising_took_is_told_of_all_chunks(bundle: Bundle) -> None:
    """The clock counts how often it is read: twice a chunk, and between the chunks once a first frame."""
    ticks = itertools.count()
    decoded = Decoder(bundle, lambda: float(next(ticks))).decode(rich.window())
    assert decoded.denoised_at - decoded.encoded_at == 1
    assert decoded.denoising_s == 2
    assert decoded.last_frame_at - decoded.encoded_at == 6


def test_only_steps_that_have_noise_levels_are_taken(bundle: Bundle) -> None:
    with refused(UsageError, "steps-without-noise-levels", available=["2", "1"]):
        Decoder(bundle).decode(rich.window(), 3)


def test_without_a_list_noise_levels_are_evenly_spaced_for_any_number_of_steps(bundle: Bundle) -> None:
    evenly = replace(bundle, manifest=replace(bundle.manifest, sigmas={}))
    clip = Decoder(evenly).decode(rich.window(), 3).clip
    np.testing.assert_allclose(clip.latent, expected(0, 3, None)[0], atol=1e-4)


def test_a_subject_has_its_own_signals_and_shares_the_rest(bundle: Bundle) -> None:
    second = load(bundle.path, subject="two")
    assert second.digest == bundle.digest
    assert second.manifest.eeg is not None
    assert second.manifest.eeg.channels == list(rich.OTHER_CHANNELS)
    assert second.stats["eeg_mean"].shape == (2,)
    clip = Decoder(second).decode(rich.window(0, channels=2)).clip
    np.testing.assert_allclose(clip.latent, expected(0, 2, None, channels=2)[0], atol=1e-4)
    assert second.manifest.stages["denoise"] == bundle.manifest.stages["denoise"]


def recorded(folder: Path) -> Path:
    """Six seconds of a cap with every channel."""
    montage = Montage(rich.CHANNELS, 250.0)
    with RecordingWriter(folder, montage, {"seconds": 6}) as writer:
        for n in range(35):
            rng = np.random.default_rng(n)
            stamps = 50 + 0.2 * n + np.arange(50) / 250
            data = 10 * rng.normal(size=(3, len(stamps)))
            writer.write(EegChunk(data.astype(np.float32), stamps, float(stamps[-1])))
    return folder


def test_a_replay_decodes_as_the_subject_that_it_is_told(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_folder = recorded(tmp_path / "kept")

    def latents(*words: str) -> list[np.ndarray]:
        out = tmp_path / f"out{len(words)}"
        call = [
            "rtdecode",
            "replay",
            str(record_folder),
            "--bundle",
            str(bundle.path),
            "--speed",
            "max",
            *words,
        ]
        monkeypatch.setattr(sys, "argv", [*call, "--out", str(out)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return [np.load(file) for file in sorted((out / "clips").glob("*.npy"))]

    second = load(bundle.path, subject="two")
    recording = Recording(record_folder)
    assembler = Assembler(second, recording.montage, ["eeg"], 6.0, triggers_expected=False)
    decoder = Decoder(second)
    expected_latents = [decoder.decode(cut).clip.latent for cut in assembler.play(recording.events())]
    decoded_latents = latents("--subject", "two")
    assert len(decoded_latents) == len(expected_latents) == 3
    for decoded, other in zip(decoded_latents, expected_latents, strict=True):
        np.testing.assert_array_equal(decoded, other)
    assert not np.allclose(latents()[0], expected_latents[0])
    call = ["rtdecode", "replay", str(record_folder), "--bundle", str(bundle.path), "--subject", "three"]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "no subject 'three'" in capsys.readouterr().err


def test_the_acquisition_process_reads_as_the_same_subject(bundle: Bundle) -> None:
    options = StreamOptions(bundle=str(bundle.path), subject="two", lsl="EEG")
    orders = sources(options, load(options.bundle, subject=options.subject), "name")
    assert load(orders.bundle, subject=orders.options.subject).subject == "two"


def test_an_unknown_subject_is_told_which_there_are(bundle: Bundle) -> None:
    available = f"{bundle.manifest.subject} (the default one), two"
    with refused(UsageError, "bundle-subject-unknown", bundle="rich", subject="three", available=available):
        load(bundle.path, subject="three")
    with refused(UsageError, "bundle-subject-unknown", subject="two", available="the default one alone"):
        load("haxby", subject="two")


def test_subjects_are_found_by_their_numbers(bundle: Bundle) -> None:
    manifest = bundle.manifest
    second = manifest.subjects["two"]
    changed = replace(manifest, subjects={"two": second, "sub-012": replace(second, number=None)})
    assert load(bundle.path, subject=str(manifest.subject)).subject is None
    assert load(bundle.path, subject=str(second.number)).subject == "two"
    assert subject_named(changed, "12") == "sub-012"
    assert subject_named(changed, "two") == "two"
    with refused(UsageError, "bundle-subject-unknown", subject="1"):
        subject_named(changed, "1")


def test_a_subject_that_does_not_fit_the_shared_stages_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    second = bundle.manifest.subjects["two"]
    encode = second.stages["encode"]
    narrow = replace(
        encode, outputs={**encode.outputs, "condition": replace(encode.outputs["condition"], shape=[1])}
    )
    broken = replace(second, stages=second.stages | {"encode": narrow})
    port = "stages.denoise.inputs.condition"
    with refused(
        BundleError, "wiring-port-shape-mismatch", manifest=re.compile(r": subjects\.two$"), port=port
    ):
        rewritten(bundle, tmp_path / "copy", subjects={"two": broken})
    assert not (tmp_path / "copy").exists(), "nothing was written, and nothing would have been replaced"


def rewritten(bundle: Bundle, folder: Path, **changes: object) -> Bundle:
    files = {name: bundle.path / name for name in bundle.manifest.files}
    return write(folder, replace(bundle.manifest, **changes), files)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "file", "code", "values"),
    [
        (
            {"rows": 4},
            "memory/words.npy",
            "memory-array-mismatch",
            {"dtype": "float32", "shape": (3, 4), "expected_dtype": "float32", "expected_rows": 4}
            | {"expected_width": 4},
        ),
        (
            {"dtype": "float16"},
            "memory/words.npy",
            "memory-array-mismatch",
            {"dtype": "float32", "expected_dtype": "float16"},
        ),
        ({"file": "engines/encode.onnx"}, "engines/encode.onnx", "memory-unreadable", {}),
    ],
)
def test_a_memory_that_is_something_else_is_refused(
    bundle: Bundle, tmp_path: Path, changes: dict, file: str, code: str, values: dict[str, object]
) -> None:
    words = replace(bundle.manifest.memories["words"], **changes)
    other = rewritten(bundle, tmp_path / "copy", memories={"words": words})
    with refused(BundleError, code, path=other.path / file, **values):
        engines.load(other)


def test_a_memory_of_another_width_does_not_fit_its_port(bundle: Bundle, tmp_path: Path) -> None:
    words = replace(bundle.manifest.memories["words"], width=5)
    with refused(BundleError, "wiring-memory-size-mismatch", width=5, expected_size=10):
        rewritten(bundle, tmp_path / "copy", memories={"words": words})


def test_a_memory_cut_short_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    files = {name: bundle.path / name for name in bundle.manifest.files}
    short = tmp_path / "words.npy"
    short.write_bytes((bundle.path / "memory" / "words.npy").read_bytes()[:-4])
    other = write(tmp_path / "copy", bundle.manifest, files | {"memory/words.npy": short})
    with refused(BundleError, "memory-size-mismatch", path=other.path / "memory" / "words.npy"):
        engines.load(other)


def test_rows_that_are_not_there_are_refused_and_bfloat16_is_read(bundle: Bundle) -> None:
    engine = engines.load(bundle)
    with refused(BundleError, "memory-row-out-of-range", last_row=2, rows=[0, 3]):
        engine.program.memories["words"].take(np.array([[0, 3]]))
    values = np.array([[1.0, -2.5]], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(Rows(halves, "bfloat16", "words").take(np.array([0])), values)


def test_weights_beside_a_graph_are_read_where_the_manifest_lists_them(
    bundle: Bundle, tmp_path: Path
) -> None:
    split_bundle = rich.make(tmp_path / "beside", weights_beside=True)
    stage = split_bundle.manifest.stages["denoise"]
    assert stage is not None
    assert stage.data == ["engines/denoise.data"]
    clip = Decoder(split_bundle).decode(rich.window()).clip
    np.testing.assert_array_equal(clip.latent, Decoder(bundle).decode(rich.window()).clip.latent)


@pytest.mark.parametrize("how", ["cut short", "changed", "not told", "elsewhere"])
def test_weights_that_are_not_what_was_listed_are_refused(how: str, tmp_path: Path) -> None:
    split_bundle = rich.make(tmp_path / "beside", weights_beside=True)
    files = {name: split_bundle.path / name for name in split_bundle.manifest.files}
    stage = split_bundle.manifest.stages["denoise"]
    assert stage is not None
    data = split_bundle.path / "engines" / "denoise.data"
    if how == "changed":
        raw = bytearray(data.read_bytes())
        raw[-1] ^= 1
        data.write_bytes(raw)
        with refused(BundleError, "bundle-file-digest-mismatch", path=data):
            Decoder(split_bundle)
    elif how == "cut short":
        short = tmp_path / "short"
        short.write_bytes(data.read_bytes()[:-4])
        other = write(tmp_path / "copy", split_bundle.manifest, files | {"engines/denoise.data": short})
        graph = f"bundle {other.path}/engines/denoise.onnx"
        with refused(BundleError, "graph-load-failed", graph=graph, error=re.compile("out of bounds")):
            Decoder(other)
    elif how == "not told":
        stages = split_bundle.manifest.stages | {"denoise": replace(stage, data=[])}
        other = rewritten(split_bundle, tmp_path / "copy", stages=stages)
        graph = f"bundle {other.path}/engines/denoise.onnx"
        with refused(BundleError, "graph-load-failed", graph=graph, error=re.compile("[Ee]xternal data")):
            Decoder(other)
    else:
        stages = split_bundle.manifest.stages | {"denoise": replace(stage, data=["../denoise.data"])}
        with refused(
            BundleError, "bundle-file-unlisted", entry="a weight of stages.denoise", file="../denoise.data"
        ):
            rewritten(split_bundle, tmp_path / "copy", stages=stages)
