"""The parts of `benchmarks.gpu`: what each measures, figure by figure, within the time that it is given."""

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_causal, gpu_rates, gpu_stages, gpu_stock
from benchmarks.gpu_causal import Chunked
from benchmarks.gpu_onnx import OnnxStep, provider_of
from benchmarks.gpu_rates import Clock, repeated, seconds, spread
from benchmarks.gpu_stages import STRENGTH, Case, Drawing, Pipeline

STEPS = (4, 2, 1)
# Steps of the guided pipeline, and how many of them are timed where there is no time for all.
GUIDED = 50
_FEW_GUIDED = 5
# Time for the repeats of one figure, s, and the least time that a figure is begun with.
_EACH_S = 15.0
_LEAST_S = 20.0
# An allowance for what a guided clip takes beside its steps.
_ALLOWANCE = 1.2


@dataclass
class Record:
    """The figures of a part, handed on whenever there is a new one.

    Attributes
    ----------
    case : Case
    clock : Clock
    keep : callable
        Takes all figures so far.
    started : float
        When the process started, or the part where one process measures several; s since the epoch.
    attention : str, optional
        The kernel to prefer in place of the fastest.
    figures : dict
    """

    case: Case
    clock: Clock
    keep: Callable[[dict[str, Any]], None]
    started: float
    attention: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, measure: Callable[[], Any]) -> Any:
        """Measure and keep one figure; one that fails has its error in its place, and the others go on."""
        if self.clock.remaining_s() < _LEAST_S:
            self.figures[name] = {
                "left_out": f"{self.clock.remaining_s():.0f} s were left of the part's time"
            }
        else:
            try:
                self.figures[name] = measure()
            except Exception as error:  # noqa: BLE001
                self.figures[name] = {"error": f"{type(error).__name__}: {str(error)[:600]}"}
        self.keep(self.figures)
        return self.figures[name]

    @property
    def finished(self) -> bool:
        """Whether every figure was measured."""
        groups = [x for x in self.figures.values() if isinstance(x, dict)]
        return not any({"left_out", "error"} & {*group} for group in groups)


@torch.no_grad()
def student(record: Record, engine: str) -> None:
    """Measure our pipeline on an engine; ``onnx`` is one for its step alone."""
    case = record.case
    if engine == "onnx":
        provider_of(case.device)
    with _prepared(record), tempfile.TemporaryDirectory() as folder:
        began = time.time()
        denoiser = gpu_stages.denoiser(case)
        instead = OnnxStep(denoiser, case, Path(folder)) if engine == "onnx" else None
        built = time.time()
        # Beside ONNX Runtime, which captures no graph here, the other stages are captured.
        plain = "captured" if engine == "onnx" else engine
        line = gpu_stages.pipeline(case, plain, denoiser.step, instead)
        record.figures["engine"] = _engines(case, engine, instead)
        prepared = time.time()
        _, clip_s = line.clip(STEPS[0])
        record.figures["cold_start"] = {
            "process_to_first_clip_s": round(time.time() - record.started, 2),
            "weights_s": round(built - began, 2),
            "compile_and_capture_s": round(prepared - built, 2),
            "first_clip_s": round(clip_s, 3),
        }
        if instead is None:
            record.add(
                "attention_ran",
                lambda: gpu_rates.kernels_of(lambda: denoiser.step(*denoiser.inputs.values())),
            )
        stages = record.add("stages", lambda: stage_times(line))
        record.add("denoiser", lambda: rate(record, stages["step"]["p50_s"]))
        for steps in STEPS:
            record.add(f"clip_{steps}", lambda steps=steps: clip_times(line, steps, record.clock))
        record.add("memory", lambda: memory(line.drawing))
        record.add("guided_50", lambda: guided_times(line, record.clock, stages["step"]["p50_s"]))
        record.add("full_decoder", lambda: full_decoder(line, plain, record.clock))
        record.add("ratios", lambda: {"guided_50_over_clip_4": _ratio(record.figures)})


@torch.no_grad()
def stock(record: Record) -> None:
    """Measure diffusers' own pipeline."""
    with _prepared(record, chosen=False):
        pipe = gpu_stock.Stock(record.case)
        pipe.clip(1, is_guided=True)
        budget_s = _EACH_S

        def plain() -> dict[str, Any]:
            return {"whole": spread(repeated(lambda: pipe.clip(4, is_guided=False), budget_s))}

        record.add("clip_4", plain)
        record.add("memory", memory)
        record.add("guided_50", lambda: guided_stock(pipe, record.clock))


@torch.no_grad()
def causal(record: Record) -> None:
    """Measure the shapes of causal students, with the tiny decoder and with Wan's own."""
    case = record.case
    with _prepared(record):
        step = gpu_stages.denoiser(case).step
        looking = gpu_causal.Causal(step, case)
        for engine in ("eager", "compiled"):
            # The blocks of the step are replaced below; `pipeline` only encodes and draws here.
            line = gpu_stages.pipeline(case, engine, step, _no_step)
            full = gpu_stages.full_drawing(case, engine)
            if engine != "eager":
                gpu_stages.compile_blocks(step, case.device)
            for name, (frames, steps) in gpu_causal.SHAPES.items():
                shape = partial(gpu_causal.chunked, looking, line, frames, steps)
                record.add(f"{engine}, {name}", partial(causal_times, shape, full, record.clock))
        record.add("memory", memory)


def causal_times(shape: Callable[[], Chunked], full: Drawing, clock: Clock) -> dict[str, Any]:
    """Time a shape with the tiny decoder and with the full one."""
    tiny = shape()
    other = replace(tiny, pipeline=replace(tiny.pipeline, drawing=full))
    return {"tiny_decoder": _both(tiny.clip, clock), "full_decoder": _both(other.clip, clock)}


def stage_times(line: Pipeline) -> dict[str, Any]:
    """Time each stage by itself, from an idle device to an idle device."""
    case = line.case
    condition = line.condition().clone()
    noise = line.noise()
    clock = gpu_stages.clocks_of(case, STEPS[0])[0]
    drawing = line.drawing
    latent = noise[:, :, : drawing.counts[0]].contiguous()
    following = noise[:, :, : drawing.counts[1]].contiguous()
    state = drawing.empty()
    calls: dict[str, Callable[[], Any]] = {
        "encode": line.condition,
        "step": lambda: line.step(noise, condition, *clock),
        "decode_first": lambda: drawing.stages[0](latent),
        "decode_next": lambda: drawing.stages[1](following, *state),
        "decode_clip": lambda: gpu_stages.received(drawing.turns([noise]), line.host, case.device),
    }
    return {
        name: spread(repeated(lambda call=call: seconds(call, case.device), _EACH_S / 3))
        for name, call in calls.items()
    }


def rate(record: Record, step_s: float) -> dict[str, Any]:
    """Tell the operations that the denoiser does in a second, and their share of a large product's."""
    case = record.case
    counted = gpu_rates.operations(case.model, case.sizes, case.latent)
    reached = counted / step_s
    figures = {"tflop_a_step": round(counted, 6), "tflops": round(reached, 4)}
    product = record.figures["rates"]["product_tflops"]
    return figures | {"share_of_product": round(reached / product, 4)}


def clip_times(line: Pipeline, steps: int, clock: Clock) -> dict[str, Any]:
    """Time clips from the brain vector to pixels."""
    return _both(lambda: line.clip(steps), clock)


def guided_times(line: Pipeline, clock: Clock, step_s: float) -> dict[str, Any]:
    """Time the guided pipeline; where there is no time for all its steps, what they take is extrapolated."""
    strength = STRENGTH[line.case.model]
    whole_s = _ALLOWANCE * 2 * GUIDED * step_s
    if whole_s < clock.remaining_s() - _LEAST_S:
        times = repeated(lambda: line.clip(GUIDED, strength)[1], 2 * _EACH_S, least=1, max_count=10)
        return {"whole": spread(times), "steps_taken": GUIDED, "extrapolated": False}
    few_steps_s = [line.clip(GUIDED, strength, _FEW_GUIDED)[1] for _ in range(2)]
    one_step_s = line.clip(GUIDED, strength, 1)[1]
    return _extrapolated(min(few_steps_s), one_step_s)


def guided_stock(pipe: gpu_stock.Stock, clock: Clock) -> dict[str, Any]:
    """Time diffusers' guided pipeline; see `guided_times`."""
    one_step_s = pipe.clip(1, is_guided=True)
    few_steps_s = pipe.clip(_FEW_GUIDED, is_guided=True)
    extrapolated = _extrapolated(few_steps_s, one_step_s)
    if _ALLOWANCE * extrapolated["whole"]["p50_s"] > clock.remaining_s() - _LEAST_S:
        return extrapolated
    times = repeated(lambda: pipe.clip(GUIDED, is_guided=True), _EACH_S, least=1, max_count=5)
    return {"whole": spread(times), "steps_taken": GUIDED, "extrapolated": False}


def full_decoder(line: Pipeline, engine: str, clock: Clock) -> dict[str, Any]:
    """Time clips that the model's own decoder draws, the same latents as before."""
    drawing = gpu_stages.full_drawing(line.case, engine)
    other = replace(line, drawing=drawing)
    other.clip(1)
    return {
        "stages": {name: x for name, x in stage_times(other).items() if name.startswith("decode")},
        "clip_4": clip_times(other, 4, clock),
        "memory": memory(drawing),
    }


def memory(drawing: Drawing | None = None) -> dict[str, float]:
    """Tell the peak of the memory so far, GB, and what a session keeps between turns, MB."""
    figures = {"process_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    if torch.cuda.is_available():
        figures["device_gb"] = torch.cuda.max_memory_allocated() / 1e9
        figures["device_reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
    if drawing is not None:
        figures["state_mb"] = drawing.state_mb
    return {name: round(value, 2) for name, value in figures.items()}


@contextmanager
def _prepared(record: Record, *, chosen: bool = True) -> Iterator[None]:
    """Measure the device's rates, and prefer the fastest attention inside unless it is not `chosen`."""
    case = record.case
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    record.figures["case"] = {
        "model": case.model,
        "scale": case.scale,
        "device": case.device,
        "dtype": str(case.dtype).removeprefix("torch."),
        "layers": case.sizes.layers,
        "latent": list(case.latent),
        "tokens": case.tokens,
        "frames": [case.frames, *case.pixels],
    }
    attentions: dict[str, Any] = {}
    if case.device == "cuda":
        shape = (case.sizes.heads, case.tokens, case.sizes.head)
        attentions = gpu_rates.attention_rates(shape, case.dtype)
    record.figures["rates"] = {
        "product_tflops": round(gpu_rates.product_rate(case.device, case.dtype), 3),
        "copy_tb_s": round(gpu_rates.copy_rate(case.device), 3),
        "attention_tflops": attentions,
    }
    with gpu_rates.attention(attentions if chosen else {}, record.attention) as kernel:
        record.figures["attention_preferred"] = kernel
        record.keep(record.figures)
        yield


def _engines(case: Case, engine: str, instead: OnnxStep | None) -> dict[str, str]:
    """Tell in words how each stage runs."""
    if engine == "eager":
        return dict.fromkeys(("encode", "denoise", "decode"), "torch")
    captured = engine != "compiled" and case.device == "cuda"
    graph = ", one CUDA graph" if captured else ""
    denoise = f"torch, blocks compiled{graph}" if instead is None else f"ONNX Runtime, {instead.provider}"
    return {"encode": f"torch{graph}", "denoise": denoise, "decode": f"torch, compiled{graph}"}


def _both(clip: Callable[[], tuple[float, float]], clock: Clock) -> dict[str, Any]:
    """Repeat clips; return percentiles of when their first and their last frame was there."""
    clip()
    times = repeated(clip, min(_EACH_S, clock.remaining_s() / 4))
    return {
        "first_frame": spread([first for first, _ in times]),
        "whole": spread([last for _, last in times]),
    }


def _extrapolated(few_s: float, one_s: float) -> dict[str, Any]:
    """Tell what all guided steps would take from the times of a few and of one."""
    step_s = (few_s - one_s) / (_FEW_GUIDED - 1)
    total = spread([one_s + (GUIDED - 1) * step_s])
    return {"whole": total, "steps_taken": _FEW_GUIDED, "extrapolated": True}


def _ratio(figures: dict[str, Any]) -> float:
    return round(figures["guided_50"]["whole"]["p50_s"] / figures["clip_4"]["whole"]["p50_s"], 2)


def _no_step(*_: Any) -> Any:
    raise AssertionError("a causal clip takes its steps in passes of its own")
