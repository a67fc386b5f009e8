"""A system of its own, from its training to a live session, without touching a file of the product.

`tests.seam_system` is that system, and ``tests/seam.yaml`` its recipe. `tests.retrieval_system` is a second
one, over the parts that published systems share.
"""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export import fit as fitting
from export import parity, trace
from export import run as exporting
from export.parity import compare, expected, held_to
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, State
from rtdecode.disk.recording import RecordingWriter
from rtdecode.disk.video import read_mp4, write_mp4
from rtdecode.errors import BundleError, UsageError
from streaming.session import replay
from tests import retrieval_system, seam_scans, seam_system
from tests.refusals import refused
from tests.seam_fitter import SeamFitter
from tests.seam_scans import NEWCOMER, PARTICIPANTS, Scans
from tests.seam_system import SeamSystem
from tests.streaming.sessions import Ended, play
from train.artifacts.run_folder import draft_of, restored
from train.config.recipe import build
from train.config.run_context import Arrays
from train.config.run_files import arrays, read_run
from train.data.phantom import spans
from train.evaluate import evaluate
from train.evaluation.reconstruct import reconstruct
from train.evaluation.result import Request
from train.interface.system import Traced
from train.run_recipe import run
from train.trainer.loader import Place

RECIPE = str(Path(__file__).with_name("seam.yaml"))
TEST_SEED = 1001
# Nothing waits so long: it only ends a player whose session was stopped, s.
_LIMIT_S = 120


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(RECIPE, [f"out={tmp_path_factory.mktemp('seam') / 'run'}"])


@pytest.fixture(scope="module")
def traced() -> list[tuple[str, onnx.ModelProto]]:
    """Stage and graph of all that `bundle` traced, in order."""
    return []


@pytest.fixture(scope="module")
def bundle(trained: Path, traced: list[tuple[str, onnx.ModelProto]]) -> Bundle:
    trace_graph = trace.graph

    def graph(stage: Traced, flavour: str, **how: Any) -> onnx.ModelProto:
        model = trace_graph(stage, flavour, **how)
        traced.append((stage.name, copy.deepcopy(model)))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "graph", graph)
        # Its graphs are held to the system's own code, whose frames are of single precision.
        patch.setattr(exporting.eight_bits, "rounded", lambda model: model)
        return exporting.run(trained, trained.with_name("bundle"))


@pytest.fixture(scope="module")
def decoded(trained: Path, bundle: Bundle) -> Arrays:
    """What the graphs make of the golden windows, which is what the system's own code makes of them."""
    graphs = {name: onnx.load(bundle.path / stage.file) for name, stage in bundle.manifest.built.items()}
    system = system_of(trained)
    golden = expected(system, arrays(trained, "golden"), seam_system.STEPS)
    outputs: Arrays = {}

    def keep(golden: Arrays, outputs_found: Arrays, *arguments: Any) -> dict[str, float]:
        outputs.update(outputs_found)
        return held_to(golden, outputs_found, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "held_to", keep)
        compare(bundle.manifest, graphs, golden, system.memories())
    return outputs


@pytest.fixture(scope="module")
def live(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("live")
    record = ("--record", str(folder / "recording"))
    return play(folder / "session", bundle.path, "--seconds", "8", *record, seconds=_LIMIT_S)


def system_of(folder: Path) -> SeamSystem:
    return restored(folder, build(read_run(folder)["arguments"]["system"]))  # type: ignore[return-value]


def data_of(folder: Path) -> Scans:
    return build(read_run(folder)["arguments"]["data"])


@pytest.mark.full
def test_a_training_that_is_stopped_twice_goes_on_to_the_same_bits(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once between two checkpoints of the first phase, and once under the adapters of the second."""
    real_batch = seam_system.batch
    stops = [("whole", 50), ("tuned", 6)]

    def stopping(taught: Any, table: Any, losses: Any, place: Place) -> Any:
        if stops and (place.phase, place.number) == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        return real_batch(taught, table, losses, place)

    monkeypatch.setattr(seam_system, "batch", stopping)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(RECIPE, [f"out={out}"])
    with pytest.raises(KeyboardInterrupt):
        run(RECIPE, [f"resume={out}"])
    run(RECIPE, [f"resume={out}"])
    assert not stops
    again = arrays(out, "weights")
    for name, value in arrays(trained, "weights").items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert read_run(out)["figures"] == read_run(trained)["figures"]


def test_adapters_of_the_recipe_changed_the_generator_and_left_no_layer_behind(trained: Path) -> None:
    names = list(arrays(trained, "weights"))
    assert any("transformer" in name for name in names)
    assert not any("lora" in name for name in names)
    log = read_run(trained)["tables"]["loss"]
    assert [row["phase"] for row in log] == ["whole"] * 3 + ["tuned"] * 3
    losses = [row["loss"] for row in log if row["phase"] == "whole"]
    assert losses[-1] < losses[0]


@pytest.mark.full
def test_both_participants_are_judged_by_the_systems_own_code(trained: Path) -> None:
    run_figures = read_run(trained)["figures"]
    default = evaluate(trained, Request())
    two = evaluate(trained, Request(subject="two"))
    assert default == run_figures
    for figures in (default, two):
        accuracy = figures["identification_2way"]
        assert accuracy["ci95"][0] > accuracy["chance"] == 0.5
    assert two != default
    with refused(UsageError, "run-unknown-subject", subject="three", available=re.compile("two$")):
        evaluate(trained, Request(subject="three"))


def test_the_bundle_says_what_the_system_said(bundle: Bundle) -> None:
    manifest = bundle.manifest
    stages = manifest.built
    sources = {
        name: {port: kind.source for port, kind in stage.inputs.items()} for name, stage in stages.items()
    }
    assert sources["encode"]["subject"] == "subject"
    assert sources["denoise"] == {
        "latent": "start",
        "past": "state",
        "tokens": "encode.tokens",
        "pooled": "encode.pooled",
        "words": "memory",
        "t": "t",
        "r": "r",
    }
    assert stages["denoise"].inputs["words"].rows == "encode.rows"
    assert sources["remember"] == {"latent": "denoise.next", "past": "state"}
    assert {"start", "start_level"} < set(stages["encode"].outputs)
    frame = [1, 4, 1, 6, 10]
    assert manifest.states == {
        "carry": State("session", frame, "float32", "latent"),
        "past": State("window", frame, "float32"),
        "cache_last": State("window", frame, "float32"),
        "cache_mean": State("window", frame, "float32"),
    }
    assert manifest.latent == [1, 4, 4, 6, 10]
    assert stages["denoise"].inputs["latent"].shape == [1, 4, 2, 6, 10]
    assert (manifest.clip.frames, manifest.clip.height, manifest.clip.width) == (17, 48, 80)
    assert (manifest.grid.after, manifest.grid.slots) == (1, 5)
    words = manifest.memories["words"]
    assert (words.file, words.rows, words.width, words.dtype) == ("memory/words.npy", 12, 16, "float16")


def test_another_participant_has_its_own_way_in_and_shares_the_rest(bundle: Bundle) -> None:
    second = bundles.load(bundle.path, subject="two")
    assert bundle.manifest.fmri is not None
    assert second.manifest.fmri is not None
    assert (bundle.manifest.fmri.voxels, second.manifest.fmri.voxels) == (6, 9)
    assert (bundle.manifest.subject, second.manifest.subject) == (1, 2)
    assert set(bundle.manifest.subjects["two"].stages) == {"encode"}
    assert bundle.manifest.parity["subjects"]["two"]["windows"] == 3


class Forgetful(torch.nn.Module):
    """Remembers nothing of the chunks before."""

    def forward(self, latent: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(past)


def changed(system: SeamSystem, how: str) -> SeamSystem:
    """The same system but for one part."""
    if how == "another memory":
        system.table = np.roll(system.table, 1, 0)
    elif how == "no guidance":
        system.step.guidance = 1.0
    elif how == "another nobody":
        system.step.nobody_tokens += 1
    elif how == "no chunk before":
        system.keep = Forgetful()  # type: ignore[assignment]
    elif how == "another start":
        system.parts.head.start.bias += 0.1
    elif how == "another level":
        system.parts.head.level.bias += 1
    elif how == "another pooled vector":
        system.parts.generator.shift.bias += 1
    elif how == "another number":
        system.number = 2
    elif how == "another cache":
        system.codec.blend.add_(0.1)
    return system


@torch.no_grad()
@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("another memory", "latent"),
        ("no guidance", "latent"),
        ("another nobody", "latent"),
        ("no chunk before", "latent"),
        ("another start", "latent"),
        ("another level", "latent"),
        ("another pooled vector", "latent"),
        ("another number", "latent"),
        ("another cache", "frames"),
    ],
)
def test_graphs_are_held_to_every_part_of_the_systems_own_code(
    trained: Path, decoded: Arrays, how: str, what: str
) -> None:
    golden = expected(changed(system_of(trained), how), arrays(trained, "golden"), seam_system.STEPS)
    # The first window alone: the last one carries on from it, and would differ by that, too.
    golden = {name: values[:1] for name, values in golden.items()}
    with refused(BundleError, "export-difference-too-large") as caught:
        held_to(golden, {name: values[:1] for name, values in decoded.items()})
    assert what in caught.value.values["differences"]


def test_a_system_that_says_something_of_a_port_that_is_not_there_is_refused(
    trained: Path, bundle: Bundle
) -> None:
    graphs = {name: onnx.load(bundle.path / stage.file) for name, stage in bundle.manifest.built.items()}
    stages = system_of(trained).stages(bundle.manifest)
    bindings = {stage.name: stage.bindings for stage in stages}
    bindings["encode"] = replace(bindings["denoise"], reads={"words": bindings["denoise"].reads["words"]})
    with refused(BundleError, "wiring-port-unknown", stage="encode", side="input", unknown=["words"]):
        exporting.wired(draft_of(trained).manifest, graphs, bindings)


def test_a_state_that_outlives_its_window_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SeamSystem, "scopes", {"past": "session"})
    with refused(UsageError, "export-state-scope-unsupported", states=["past"]):
        exporting.run(trained, tmp_path / "bundle")


@pytest.mark.full
def test_in_a_lower_precision_the_states_of_every_participant_are_in_half_precision(
    trained: Path,
    bundle: Bundle,
    traced: list[tuple[str, onnx.ModelProto]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept_graphs = iter(traced)

    def graph(stage: Traced, flavour: str, **how: Any) -> onnx.ModelProto:
        name, model = next(kept_graphs)
        assert name == stage.name
        return copy.deepcopy(model)

    # Tracing takes most of an export, and gives the same graphs again.
    monkeypatch.setattr(trace, "graph", graph)
    lower = exporting.run(trained, tmp_path / "bundle", precision="bf16").manifest
    dtypes = {name: state.dtype for name, state in lower.states.items()}
    assert dtypes == {"carry": "float32", "past": "float16", "cache_last": "float16", "cache_mean": "float16"}
    single_parity = bundle.manifest.parity
    default_pair = (lower.parity, single_parity)
    subject_pairs = [
        (lower.parity["subjects"][name], subject_parity)
        for name, subject_parity in single_parity["subjects"].items()
    ]
    assert subject_pairs
    for rounded, single in (default_pair, *subject_pairs):
        assert rounded["status"] == "structural"
        assert rounded["fp32"]["largest_difference"] == single["largest_difference"]
        assert rounded["emulated"]["clip_psnr_db"] >= 40


def recorded(folder: Path, data: Scans, name: str, seed: int = TEST_SEED) -> Path:
    """A session of one of the participants that nothing was trained on."""
    path = folder / f"{name}-{seed}"
    with RecordingWriter(path, data.montage, {"seconds": data.seconds}) as writer:
        for item in data.items(name, seed):
            writer.write(item)
    return path


@pytest.mark.parametrize("name", list(PARTICIPANTS))
def test_a_replay_decodes_what_the_systems_own_code_decodes(
    trained: Path, bundle: Bundle, tmp_path: Path, name: str
) -> None:
    data = replace(data_of(trained), seconds=12.0)
    subject = None if name == "one" else name
    recording = recorded(tmp_path, data, name)
    assert replay.run(recording, str(bundle.path), "max", tmp_path / "out", subject=subject) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    finals = [np.load(tmp_path / "out" / line["latent"]) for line in lines if line["revision"] == "final"]
    manifest = bundle.manifest
    where = spans(0, data.count, manifest.grid)
    inputs = data.inputs(name, TEST_SEED)
    assert inputs["fmri"].shape == (6, 5, PARTICIPANTS[name][1])
    assert inputs["fmri_mask"].all()
    # The volume that a window looks ahead to is the first one of the next.
    np.testing.assert_array_equal(inputs["fmri"][:-1, -1], inputs["fmri"][1:, 0])
    system = system_of(trained).of_subject(name)
    hop_s = float(manifest.grid.hop)
    reconstruction = reconstruct(system, inputs, where, manifest.noise_key, hop_s=hop_s, steps=manifest.steps)
    assert len(finals) == len(reconstruction.latents) == 6
    for replayed, other in zip(finals, reconstruction.latents, strict=True):
        np.testing.assert_allclose(replayed.reshape(other.shape), other, atol=1e-3)


@pytest.fixture(scope="module")
def mine(trained: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle fitted to a participant that nothing was trained on."""
    folder = tmp_path_factory.mktemp("fitted")
    data = replace(data_of(trained), seconds=100.0)
    film = data.clips(TEST_SEED)[:, :-1]
    write_mp4(folder / "film.mp4", film.reshape(-1, *film.shape[2:]), float(data.grid.fps))
    recording = recorded(folder, data, NEWCOMER)
    fitting.run([recording], folder / "film.mp4", None, str(bundle.path), folder / "mine")
    return bundles.load(folder / "mine", subject="newcomer")


def test_the_systems_own_fitter_takes_its_bundle_to_another_participant(
    trained: Path, bundle: Bundle, mine: Bundle
) -> None:
    assert isinstance(fitting.fitter_of(mine), SeamFitter), "it can be fitted again"
    manifest = mine.manifest
    about = manifest.provenance["newcomers"]["newcomer"]["fitted"]
    assert (about["from"], about["windows"]) == (bundle.digest, 50)
    assert "drawable" not in about
    held_out = about["held_out"]
    assert list(held_out) == ["both", "fmri", "eeg"]
    assert held_out["both"]["ci95"][0] > max(0.6, held_out["both"]["shifted"])
    assert about["lag"]["best_s"] in (1.0, 1.5)
    assert mine.projection is not None
    assert set(mine.projection.voxels) == set(data_of(trained).projection(NEWCOMER).voxels)
    assert 0 < manifest.parity["subjects"]["newcomer"]["largest_difference"]["start"] < 1e-5
    # Everybody else stays as they were.
    before = bundle.manifest.files
    files = ("encode.onnx", "stats.npz", "projection.npz", "golden.npz")
    subject_files = {f"subjects/newcomer/{name}" for name in files}
    assert {name for name in manifest.files if manifest.files[name] != before.get(name)} == subject_files
    assert before.keys() <= manifest.files.keys()
    assert {*bundle.manifest.subjects} < {*manifest.subjects}
    assert manifest.noise_key == bundle.manifest.noise_key


@pytest.mark.full
def test_a_fitted_bundle_shows_a_new_session_what_the_one_before_did_not(
    trained: Path, bundle: Bundle, mine: Bundle, tmp_path: Path
) -> None:
    data = replace(data_of(trained), seconds=24.0)
    recording = recorded(tmp_path, data, NEWCOMER, TEST_SEED + 1)
    film_colours = data.colours(TEST_SEED + 1)
    correlations = {}
    for name, version, subject in (("before", bundle, None), ("fitted", mine, "newcomer")):
        assert replay.run(recording, str(version.path), "max", tmp_path / name, subject=subject) == 0
        lines = [json.loads(line) for line in (tmp_path / name / "clips.jsonl").read_text().splitlines()]
        finals = [np.load(tmp_path / name / line["latent"]) for line in lines if line["revision"] == "final"]
        colours = (
            np.stack(finals).reshape(len(film_colours), *bundle.manifest.latent[1:])[:, :3].mean((2, 3, 4))
        )
        correlations[name] = float(np.corrcoef(colours.ravel(), film_colours.ravel())[0, 1])
    assert correlations["fitted"] > correlations["before"] + 0.2, correlations


@pytest.mark.full
def test_a_live_session_shows_clips_of_its_size_and_a_replay_makes_them_again(
    bundle: Bundle, live: Ended, tmp_path: Path
) -> None:
    assert live.code == 0, live.output
    counted = live.report["windows"]
    assert counted["final"] + counted["skipped"] == counted["expected"] == 4
    assert {clip["steps"] for clip in live.clips} == {seam_system.STEPS}
    frames = read_mp4(live.out / live.clips[0]["file"])
    assert frames.shape == (seam_scans.FRAMES, seam_scans.ROWS, seam_scans.COLUMNS, 3)
    recording = live.out.parents[1] / "recording"
    assert replay.run(recording, str(bundle.path), "max", tmp_path / "out") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    again = {line["clip"]: line for line in lines if line["revision"] == "final"}
    finals = live.finals()
    assert finals, live.output
    for number, clip in enumerate(finals):
        # After a window that a busy machine skipped, a clip carries on from nothing.
        if clip["clip"] != number:
            break
        before = np.load(live.out / clip["latent"])
        after = np.load(tmp_path / "out" / again[number]["latent"])
        np.testing.assert_allclose(before, after, atol=1e-4)


RETRIEVAL = str(Path(retrieval_system.__file__).with_name("retrieval.yaml"))


@pytest.fixture(scope="module")
def retrieving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the system that reads a memory in ``encode``, by the rows of ``front``."""
    return run(RETRIEVAL, ["judge=none", f"out={tmp_path_factory.mktemp('retrieval') / 'run'}"])


@pytest.mark.full
def test_a_memory_is_read_in_encode_by_the_rows_of_front(retrieving: Path, tmp_path: Path) -> None:
    bundle = exporting.run(retrieving, tmp_path / "bundle")
    stages = bundle.manifest.built
    items = stages["encode"].inputs["items"]
    assert (items.source, items.memory, items.rows) == ("memory", "captions", "front.rows")
    assert bundle.manifest.memories["captions"].rows > 2
    assert bundle.manifest.recorded == ["front.rows"]
    # The graphs decode the golden windows as the system's own code does.
    assert bundle.manifest.parity["largest_difference"]["latent"] < 1e-5
    # The captions lie in the memory alone.
    assert not any(name.startswith("memory") for name in arrays(retrieving, "weights"))


@pytest.mark.full
@torch.no_grad()
def test_another_memory_would_be_noticed(retrieving: Path, tmp_path: Path) -> None:
    bundle = exporting.run(retrieving, tmp_path / "bundle")
    graphs = {name: onnx.load(bundle.path / stage.file) for name, stage in bundle.manifest.built.items()}
    system = restored(retrieving, build(read_run(retrieving)["arguments"]["system"]))
    golden = expected(system, arrays(retrieving, "golden"), bundle.manifest.steps)
    (table,) = system.memories().values()
    other = replace(table, values=table.values[::-1].copy())
    with refused(BundleError, "export-difference-too-large"):
        compare(bundle.manifest, graphs, golden, {"captions": other})
