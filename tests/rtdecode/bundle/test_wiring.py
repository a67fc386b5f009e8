"""Stages that do not fit together are refused, each by name."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import Brain, Input, Manifest, Output, Stage, State, wiring
from rtdecode.errors import BundleError, ManifestError
from rtdecode.types import Presence
from tests.refusals import refused

FLOAT = "float32"
BRAIN = Brain("brain", Presence(0.5, 0.25, 0.25))


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """A manifest with every stage that ships, and with carry and caches."""
    return bundles.load("phantom").manifest


def stage(manifest: Manifest, name: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> Manifest:
    """Copy a manifest with ports of one stage replaced (None takes one out)."""
    old = manifest.built[name]
    new_inputs = {port: entry for port, entry in (old.inputs | inputs).items() if entry is not None}
    new_outputs = {port: entry for port, entry in (old.outputs | outputs).items() if entry is not None}
    return replace(
        manifest, stages=manifest.stages | {name: replace(old, inputs=new_inputs, outputs=new_outputs)}
    )


def port(manifest: Manifest, name: str, input_name: str, **changes: Any) -> Manifest:
    """Copy a manifest with one input changed."""
    return stage(
        manifest, name, {input_name: replace(manifest.built[name].inputs[input_name], **changes)}, {}
    )


def written(manifest: Manifest, name: str, output_name: str, **changes: Any) -> Manifest:
    """Copy a manifest with one output changed."""
    return stage(
        manifest, name, {}, {output_name: replace(manifest.built[name].outputs[output_name], **changes)}
    )


def extra(manifest: Manifest, name: str, source: str, shape: list[int] | None = None) -> Manifest:
    """Copy a manifest with one more input."""
    return stage(manifest, name, {"extra": Input(shape or [1], FLOAT, source)}, {})


def with_encoder_outputs(manifest: Manifest, **shapes: list[int]) -> Manifest:
    """Copy a manifest whose encoder gives more outputs."""
    return stage(manifest, "encode", {}, {name: Output(shape, FLOAT) for name, shape in shapes.items()})


def fixed(manifest: Manifest) -> Manifest:
    """Copy a manifest whose denoiser has no port for the share of detail."""
    return replace(stage(manifest, "denoise", {"detail": None}, {}), detail=None)


def choosing(manifest: Manifest, source_of: str = "denoise") -> Manifest:
    """Copy a manifest with a share of detail, and a port for it."""
    return replace(extra(fixed(manifest), source_of, "detail"), detail=0.5)


def state(manifest: Manifest, name: str, replacement: State) -> Manifest:
    """Copy a manifest with another state."""
    return replace(manifest, states=manifest.states | {name: replacement})


def test_what_ships_fits(manifest: Manifest) -> None:
    wiring.check(manifest, "phantom")
    wiring.check(bundles.load("haxby").manifest, "haxby")


def test_a_graph_may_tell_a_brain_whether_the_manifest_describes_it_or_not(manifest: Manifest) -> None:
    assert manifest.brain is not None
    wiring.check(replace(manifest, brain=None), "silent")
    wiring.check(replace(manifest, brain=BRAIN), "told")


def test_the_share_of_detail_can_be_chosen_or_is_fixed(manifest: Manifest) -> None:
    wiring.check(fixed(manifest), "fixed")
    wiring.check(choosing(manifest), "choosing")
    assert "detail" not in bundles.to_json(fixed(manifest))
    assert bundles.to_json(choosing(manifest))["detail"] == 0.5


def test_a_draft_has_no_stages_and_passes(manifest: Manifest) -> None:
    wiring.check(replace(manifest, stages={}, states={}, latent=None), "draft")


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        (
            lambda m: extra(m, "encode", "gaze"),
            "wiring-source-unknown",
            {"port": "stages.encode.inputs.extra", "source": "gaze", "available": re.compile("^eeg,")},
        ),
        (
            lambda m: extra(m, "encode", "denoise.next"),
            "wiring-source-unavailable",
            {"port": "stages.encode.inputs.extra", "source": "denoise.next", "available": "none"},
        ),
        (
            lambda m: extra(m, "denoise", "encode.pooled"),
            "wiring-source-unavailable",
            {
                "port": "stages.denoise.inputs.extra",
                "source": "encode.pooled",
                "available": re.compile("^encode.condition, encode.embedding"),
            },
        ),
        (
            lambda m: extra(m, "denoise", "encode.confidence"),
            "wiring-port-shape-mismatch",
            {
                "port": "stages.denoise.inputs.extra",
                "actual": [1],
                "source": "encode.confidence",
                "expected": [1, 1],
            },
        ),
        (
            lambda m: extra(m, "encode", "step"),
            "wiring-source-not-allowed",
            {
                "port": "stages.encode.inputs.extra",
                "source": "step",
                "allowed_stages": "denoise and remember",
            },
        ),
        (
            lambda m: extra(m, "decode_next", "start"),
            "wiring-source-not-allowed",
            {"port": "stages.decode_next.inputs.extra", "source": "start", "allowed_stages": "denoise"},
        ),
        (
            lambda m: extra(m, "encode", "memory"),
            "wiring-memory-unknown",
            {"port": "stages.encode.inputs.extra", "memory": None, "available": "none"},
        ),
        (
            lambda m: extra(m, "encode", "subject"),
            "wiring-subject-number-missing",
            {"port": "stages.encode.inputs.extra"},
        ),
        (
            lambda m: port(m, "encode", "eeg", shape=[1, 64, 400]),
            "wiring-signal-shape-mismatch",
            {
                "port": "stages.encode.inputs.eeg",
                "actual": [1, 64, 400],
                "signal": "eeg",
                "expected": [1, 64, 500],
            },
        ),
        (
            lambda m: replace(m, fmri=None),
            "wiring-signal-missing",
            {"port": "stages.encode.inputs.fmri", "signal": "fmri"},
        ),
        (
            lambda m: port(m, "encode", "carry", state="before"),
            "wiring-state-unknown",
            {"port": "stages.encode.inputs.carry", "state": "before", "available": "carry, cache"},
        ),
        (
            lambda m: port(m, "decode_next", "cache", dtype="float16"),
            "wiring-state-mismatch",
            {
                "port": "stages.decode_next.inputs.cache",
                "dtype": "float16",
                "shape": [1, 32, 1, 8, 12],
                "state": "cache",
                "expected_dtype": "float32",
                "expected_shape": [1, 32, 1, 8, 12],
            },
        ),
        (
            lambda m: written(m, "decode_next", "cache_next", state="other"),
            "wiring-state-unknown",
            {"port": "stages.decode_next.outputs.cache_next", "state": "other", "available": "carry, cache"},
        ),
        (
            lambda m: written(m, "decode_first", "cache_first", shape=[1, 32, 1, 8, 11]),
            "wiring-state-mismatch",
            {
                "port": "stages.decode_first.outputs.cache_first",
                "dtype": "float32",
                "shape": [1, 32, 1, 8, 11],
                "state": "cache",
                "expected_dtype": "float32",
                "expected_shape": [1, 32, 1, 8, 12],
            },
        ),
        (
            lambda m: state(m, "unwritten", State("window", [1], FLOAT)),
            "wiring-state-unwritten",
            {"state": "unwritten"},
        ),
        (
            lambda m: state(m, "cache", State("session", [1, 32, 1, 8, 12], FLOAT, "latent")),
            "wiring-state-source-conflict",
            {"state": "cache", "source": "latent"},
        ),
        (
            lambda m: state(m, "carry", State("session", [1, 32, 10, 8, 12], FLOAT, "latent")),
            "wiring-state-mismatch",
            {
                "port": "stages.encode.inputs.carry",
                "dtype": "float32",
                "shape": [1, 32, 2, 8, 12],
                "state": "carry",
                "expected_dtype": "float32",
                "expected_shape": [1, 32, 10, 8, 12],
            },
        ),
        (lambda m: replace(m, latent=None), "wiring-latent-shape-missing", {}),
        (
            lambda m: replace(m, latent=[1, 32, 10, 8, 12]),
            "wiring-denoise-chunk-mismatch",
            {"chunk_shape": [1, 32, 9, 8, 12], "latent_shape": [1, 32, 10, 8, 12]},
        ),
        (
            lambda m: written(m, "denoise", "next", shape=[1, 32, 9, 8, 11]),
            "wiring-denoise-shape-mismatch",
            {"input_shape": [1, 32, 9, 8, 12], "output_shape": [1, 32, 9, 8, 11]},
        ),
        (
            lambda m: stage(m, "denoise", {}, {"more": Output([1], FLOAT)}),
            "wiring-denoise-output-invalid",
            {"outputs": ["next", "more"]},
        ),
        (lambda m: stage(m, "denoise", {"latent": None}, {}), "wiring-start-port-not-single", {"n_ports": 0}),
        (
            lambda m: with_encoder_outputs(m, start=[1, 32, 9, 8, 12]),
            "wiring-start-level-unpaired",
            {"output": "start"},
        ),
        (
            lambda m: with_encoder_outputs(m, start=[1, 16], start_level=[1]),
            "wiring-start-shape-mismatch",
            {"actual": [1, 16], "expected": [1, 32, 9, 8, 12]},
        ),
        (
            lambda m: with_encoder_outputs(m, start=[1, 32, 9, 8, 12], start_level=[2]),
            "wiring-start-level-not-scalar",
            {"shape": [2]},
        ),
        (
            lambda m: replace(choosing(m), detail=None),
            "wiring-detail-missing",
            {"port": "extra"},
        ),
        (
            lambda m: replace(fixed(m), detail=0.5),
            "wiring-detail-port-missing",
            {"detail": 0.5},
        ),
        (
            lambda m: choosing(m, "encode"),
            "wiring-source-not-allowed",
            {"port": "stages.encode.inputs.extra", "source": "detail", "allowed_stages": "denoise"},
        ),
        (
            lambda m: replace(m, recorded=["front.rows"]),
            "wiring-recorded-output-unknown",
            {"output": "front.rows"},
        ),
        (
            lambda m: replace(m, recorded=["encode.condition"]),
            "wiring-recorded-output-large",
            {"output": "encode.condition", "limit": 64},
        ),
        (lambda m: replace(m, steps=0), "wiring-steps-not-positive", {"steps": 0}),
        (
            lambda m: extra(replace(m, steps=3, sigmas={"4": [1.0, 0.9, 0.8, 0.6]}), "denoise", "t"),
            "wiring-sigmas-missing",
            {"steps": 3, "available": "4"},
        ),
        (
            lambda m: replace(m, clip=replace(m.clip, frames=34)),
            "wiring-clip-shape-mismatch",
            {"actual": (1, 33, 64, 96, 3), "expected": (1, 34, 64, 96, 3)},
        ),
        (
            lambda m: stage(m, "decode_next", {}, {"frames": None}),
            "wiring-frames-output-invalid",
            {"stage": "decode_next", "outputs": ["cache_next"]},
        ),
        (
            lambda m: stage(m, "decode_first", {"latent": None}, {}),
            "wiring-latent-port-not-single",
            {"stage": "decode_first", "n_ports": 0, "source": "denoise.next"},
        ),
        (
            lambda m: replace(m, stages=m.stages | {"decode_next": None}),
            "wiring-decode-next-missing",
            {"n_latent_frames": 8},
        ),
        (
            lambda m: replace(m, stages=m.stages | {"encode": None}),
            "wiring-stage-missing",
            {"stage": "encode", "available": ["denoise", "decode_first", "decode_next"]},
        ),
        (
            lambda m: replace(m, confidence={"windows": 3}, stages=unsure(m)),
            "wiring-confidence-output-missing",
            {},
        ),
        (lambda m: stage(m, "encode", {}, {"brain": None}), "wiring-brain-output-missing", {}),
        (
            lambda m: with_encoder_outputs(m, brain=[1, 2]),
            "wiring-brain-shape-mismatch",
            {"actual": [1, 2], "expected": [1, 3], "presences": ["brain", "inconsistent", "neither"]},
        ),
        (
            lambda m: with_encoder_outputs(replace(m, brain=BRAIN), brain=[3]),
            "wiring-brain-shape-mismatch",
            {"actual": [3], "expected": [1, 3], "presences": ["brain", "inconsistent", "neither"]},
        ),
        (
            lambda m: replace(m, labels=["face", "house"]),
            "wiring-scores-shape-mismatch",
            {"n_labels": 2, "shape": None},
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    manifest: Manifest, change: Callable[[Manifest], Manifest], code: str, values: dict[str, Any]
) -> None:
    with refused(BundleError, code, manifest="here", **values):
        wiring.check(change(manifest), "here")


def unsure(manifest: Manifest) -> dict[str, Stage | None]:
    return stage(manifest, "encode", {}, {"confidence": None}).stages


@pytest.mark.parametrize(
    ("make", "code", "values"),
    [
        (
            lambda: State("hour", [1], FLOAT),
            "state-scope-unknown",
            {"available": ["chunk", "window", "session"], "scope": "hour"},
        ),
        (
            lambda: State("window", [1], FLOAT, "latent"),
            "state-latent-invalid",
            {"shape": [1], "scope": "window"},
        ),
        (lambda: State("window", [0], FLOAT), "array-shape-invalid", {"shape": [0]}),
        (
            lambda: Input([1], "float31", "eeg"),
            "array-dtype-unsupported",
            {"available": re.compile("float32"), "dtype": "float31"},
        ),
    ],
)
def test_ports_and_states_are_what_they_can_be(
    make: Callable[[], object], code: str, values: dict[str, Any]
) -> None:
    with refused(ManifestError, code, **values):
        make()


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
    bindings = {"denoise": wiring.PortBindings({"words": looked_up, "count": count}, {"count_next": "count"})}
    wired = wiring.by_name(graphs, bindings, {"count": "chunk"})
    assert wired["states"] == {"count": State("chunk", *small)}
    denoise = wired["stages"]["denoise"]
    assert denoise.inputs["words"] == Input(*small, source="memory", memory="words", rows="encode.which")
    assert denoise.inputs["count"] == Input(*small, source="state", state="count")
    assert denoise.inputs["latent"].source == "start"
    assert denoise.outputs["count_next"].state == "count"
    bindings["encode"] = wiring.PortBindings(writes={"mood": "mood"})
    with refused(BundleError, "wiring-port-unknown", stage="encode", side="output", unknown=["mood"]):
        wiring.by_name(graphs, bindings)


def test_ports_with_the_usual_names_are_wired(manifest: Manifest) -> None:
    graphs = {
        name: (
            {port: (spec.shape, spec.dtype) for port, spec in stage.inputs.items()},
            {port: (spec.shape, spec.dtype) for port, spec in stage.outputs.items()},
        )
        for name, stage in manifest.built.items()
    }
    wired = wiring.by_name(graphs)
    assert wired == {"stages": manifest.built, "states": manifest.states, "latent": manifest.latent}
    graphs["decode_first"][1]["cache_more"] = ([1], FLOAT)
    with refused(BundleError, "wiring-cache-count-mismatch", stage="decode_first", n_written=2, n_read=1):
        wiring.by_name(graphs)
    del graphs["decode_first"][1]["cache_more"]
    graphs["denoise"][0]["style"] = ([1, 8], FLOAT)
    with refused(BundleError, "wiring-port-unconnected", stage="denoise", port="style"):
        wiring.by_name(graphs)
