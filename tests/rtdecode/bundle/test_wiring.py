"""Stages that do not fit together are refused, each by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import Brain, Input, Manifest, Output, Stage, State, wiring
from rtdecode.errors import BundleError
from rtdecode.types import Presence

FLOAT = "float32"
BRAIN = Brain("brain", Presence(0.5, 0.25, 0.25))


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """A manifest with every stage that ships, and with carry and caches."""
    return bundles.load("phantom").manifest


def stage(manifest: Manifest, name: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> Manifest:
    """Copy a manifest with ports of one stage replaced (None takes one out)."""
    old = manifest.built[name]
    kept = {port: found for port, found in (old.inputs | inputs).items() if found is not None}
    given = {port: found for port, found in (old.outputs | outputs).items() if found is not None}
    return replace(manifest, stages=manifest.stages | {name: replace(old, inputs=kept, outputs=given)})


def port(manifest: Manifest, name: str, at: str, **changes: Any) -> Manifest:
    """Copy a manifest with one input changed."""
    return stage(manifest, name, {at: replace(manifest.built[name].inputs[at], **changes)}, {})


def written(manifest: Manifest, name: str, at: str, **changes: Any) -> Manifest:
    """Copy a manifest with one output changed."""
    return stage(manifest, name, {}, {at: replace(manifest.built[name].outputs[at], **changes)})


def extra(manifest: Manifest, name: str, source: str, shape: list[int] | None = None) -> Manifest:
    """Copy a manifest with one more input."""
    return stage(manifest, name, {"extra": Input(shape or [1], FLOAT, source)}, {})


def begun(manifest: Manifest, **shapes: list[int]) -> Manifest:
    """Copy a manifest whose encoder gives more outputs."""
    return stage(manifest, "encode", {}, {name: Output(shape, FLOAT) for name, shape in shapes.items()})


def state(manifest: Manifest, name: str, found: State) -> Manifest:
    """Copy a manifest with another state."""
    return replace(manifest, states=manifest.states | {name: found})


def test_what_ships_fits(manifest: Manifest) -> None:
    wiring.check(manifest, "phantom")
    wiring.check(bundles.load("haxby").manifest, "haxby")


def test_a_graph_may_tell_a_brain_whether_the_manifest_describes_it_or_not(manifest: Manifest) -> None:
    assert manifest.brain is not None
    wiring.check(replace(manifest, brain=None), "silent")
    wiring.check(replace(manifest, brain=BRAIN), "told")


def test_a_draft_has_no_stages_and_passes(manifest: Manifest) -> None:
    wiring.check(replace(manifest, stages={}, states={}, latent=None), "draft")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: extra(m, "encode", "gaze"),
            r"\.extra has the unknown source 'gaze': there are eeg,",
        ),
        (lambda m: extra(m, "encode", "denoise.next"), "which no earlier stage gives: there are none"),
        (lambda m: extra(m, "denoise", "encode.pooled"), r"there are encode\.condition, encode\.embedding"),
        (
            lambda m: extra(m, "denoise", "encode.confidence"),
            r"encode\.confidence has \[1, 1\]",
        ),
        (lambda m: extra(m, "encode", "step"), "'step', which only denoise and remember may use"),
        (lambda m: extra(m, "decode_next", "start"), "'start', which only denoise may use"),
        (lambda m: extra(m, "encode", "memory"), "reads the memory None, memories has none"),
        (lambda m: extra(m, "encode", "subject"), "reads the subject, and the manifest has no number of it"),
        (lambda m: port(m, "encode", "eeg", shape=[1, 64, 400]), r"a window's eeg has \[1, 64, 500\]"),
        (lambda m: replace(m, fmri=None), r"inputs\.fmri reads fmri, which the manifest does not have"),
        (
            lambda m: port(m, "encode", "carry", state="before"),
            "the state 'before', states has carry",
        ),
        (lambda m: port(m, "decode_next", "cache", dtype="float16"), "is float16 .*'cache' is float32"),
        (lambda m: written(m, "decode_next", "cache_next", state="other"), "writes the state 'other'"),
        (
            lambda m: written(m, "decode_first", "cache_first", shape=[1, 32, 1, 8, 11]),
            "the state 'cache' is",
        ),
        (lambda m: state(m, "unwritten", State("window", [1], FLOAT)), "unwritten is written by no port"),
        (
            lambda m: state(m, "cache", State("session", [1, 32, 1, 8, 12], FLOAT, "latent")),
            "states.cache has the source 'latent', and a port writes it too",
        ),
        (
            lambda m: state(m, "carry", State("session", [1, 32, 10, 8, 12], FLOAT, "latent")),
            r"encode\.inputs\.carry is float32 \[1, 32, 2, 8, 12\], the state 'carry' is float32 \[1, 32, 10",
        ),
        (lambda m: replace(m, latent=None), "latent is null"),
        (
            lambda m: replace(m, latent=[1, 32, 10, 8, 12]),
            "denoise takes a latent of .*whole parts",
        ),
        (lambda m: written(m, "denoise", "next", shape=[1, 32, 9, 8, 11]), "and gives one of"),
        (lambda m: stage(m, "denoise", {}, {"more": Output([1], FLOAT)}), "one output that writes no state"),
        (lambda m: stage(m, "denoise", {"latent": None}, {}), "denoise has 0 ports with the source 'start'"),
        (lambda m: begun(m, start=[1, 32, 9, 8, 12]), "'start': start and start_level go together"),
        (lambda m: begun(m, start=[1, 16], start_level=[1]), r"encode\.start has the shape \[1, 16\]"),
        (
            lambda m: begun(m, start=[1, 32, 9, 8, 12], start_level=[2]),
            r"start_level is one number, found \[2\]",
        ),
        (lambda m: replace(m, steps=0), "has a stage 'denoise', and steps is 0"),
        (
            lambda m: extra(replace(m, steps=3, sigmas={"4": [1.0, 0.9, 0.8, 0.6]}), "denoise", "t"),
            "sigmas has none for 3 steps: found 4",
        ),
        (lambda m: replace(m, clip=replace(m.clip, frames=34)), r"draw clips of \(1, 33, 64, 96, 3\)"),
        (lambda m: stage(m, "decode_next", {}, {"frames": None}), "decode_next has no output 'frames'"),
        (
            lambda m: stage(m, "decode_first", {"latent": None}, {}),
            "decode_first has 0 ports with the",
        ),
        (
            lambda m: replace(m, stages=m.stages | {"decode_next": None}),
            "no stage 'decode_next' for the",
        ),
        (lambda m: replace(m, stages=m.stages | {"encode": None}), "no stage 'encode', which decoding needs"),
        (lambda m: replace(m, confidence={"windows": 3}, stages=unsure(m)), "no output 'confidence'"),
        (
            lambda m: stage(m, "encode", {}, {"brain": None}),
            "describes the output 'brain', and encode has no such output",
        ),
        (lambda m: begun(m, brain=[1, 2]), r"encode\.brain has the shape \[1, 2\], \[1, 3\] was expected"),
        (lambda m: begun(replace(m, brain=BRAIN), brain=[3]), r"encode\.brain has the shape \[3\]"),
        (lambda m: replace(m, labels=["face", "house"]), "names 2 categories, .* has the shape None"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    manifest: Manifest, change: Callable[[Manifest], Manifest], message: str
) -> None:
    with pytest.raises(BundleError, match=rf"^here: .*{message}"):
        wiring.check(change(manifest), "here")


def unsure(manifest: Manifest) -> dict[str, Stage | None]:
    return stage(manifest, "encode", {}, {"confidence": None}).stages


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda: State("hour", [1], FLOAT), "scope is one of chunk, window, session"),
        (lambda: State("window", [1], FLOAT, "latent"), "of scope session, found"),
        (lambda: State("window", [0], FLOAT), "shape has sizes from 1 on"),
        (lambda: Input([1], "float31", "eeg"), "dtype is one of float32"),
    ],
)
def test_ports_and_states_are_what_they_can_be(found: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found()


def test_ports_are_wired_as_it_is_said_of_them() -> None:
    small = ([1, 1], FLOAT)
    latent = ([1, 2, 1, 1, 1], FLOAT)
    graphs = {
        "encode": ({"eeg": small}, {"told": small, "which": ([1, 1], "int64")}),
        "denoise": (
            {"latent": latent, "words": small, "count": small},
            {"next": latent, "count_next": small},
        ),
    }
    looked_up = wiring.Source("memory", memory="words", rows="encode.which")
    count = wiring.Source("state", state="count")
    said = {"denoise": wiring.Said({"words": looked_up, "count": count}, {"count_next": "count"})}
    found = wiring.by_name(graphs, said, {"count": "chunk"})
    assert found["states"] == {"count": State("chunk", *small)}
    denoise = found["stages"]["denoise"]
    assert denoise.inputs["words"] == Input(*small, source="memory", memory="words", rows="encode.which")
    assert denoise.inputs["count"] == Input(*small, source="state", state="count")
    assert denoise.inputs["latent"].source == "start"
    assert denoise.outputs["count_next"].state == "count"
    said["encode"] = wiring.Said(writes={"mood": "mood"})
    with pytest.raises(BundleError, match="stage 'encode' has no output mood, although"):
        wiring.by_name(graphs, said)


def test_ports_with_the_usual_names_are_wired(manifest: Manifest) -> None:
    graphs = {
        name: (
            {port: (found.shape, found.dtype) for port, found in stage.inputs.items()},
            {port: (found.shape, found.dtype) for port, found in stage.outputs.items()},
        )
        for name, stage in manifest.built.items()
    }
    found = wiring.by_name(graphs)
    assert found == {"stages": manifest.built, "states": manifest.states, "latent": manifest.latent}
    graphs["decode_first"][1]["cache_more"] = ([1], FLOAT)
    with pytest.raises(BundleError, match="'decode_first' writes 2 caches and decode_next reads 1"):
        wiring.by_name(graphs)
    del graphs["decode_first"][1]["cache_more"]
    graphs["denoise"][0]["style"] = ([1, 8], FLOAT)
    with pytest.raises(BundleError, match="stage 'denoise' has a port 'style', and no source"):
        wiring.by_name(graphs)
