"""diffusers' own pipelines of Wan and CogVideoX with random weights: what a clip takes without this project.

Transformer, attention, scheduler, loop and autoencoder are diffusers'. The text encoder is left out, as the
condition is given in its place. Weights and autoencoder are in the precision of the other parts.
"""

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.full_size import CONDITIONS, STEPS
from benchmarks.gpu_rates import synchronise
from benchmarks.gpu_stages import STRENGTH, Case, autoencoder, host_frames
from train.parts.generators import cogvideox, wan


class Stock:
    """A pipeline of diffusers.

    Parameters
    ----------
    case : Case
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._pipe = _pipeline(case)
        self._pipe.set_progress_bar_config(disable=True)
        shape = (2, 1, CONDITIONS, case.sizes.text)
        self._condition, self._null = torch.randn(shape, device=case.device, dtype=case.dtype)
        self._host = host_frames(case)

    def clip(self, steps: int, *, is_guided: bool) -> float:
        """Make a clip; return when its pixels are in the host's memory, s."""
        case = self._case
        synchronise(case.device)
        began = time.perf_counter()
        rows, columns = case.pixels
        output = self._pipe(
            prompt_embeds=self._condition,
            negative_prompt_embeds=self._null,
            height=rows,
            width=columns,
            num_frames=case.frames,
            num_inference_steps=steps,
            guidance_scale=STRENGTH[case.model] if is_guided else 1.0,
            output_type="pt",
            return_dict=False,
        )
        # (clip, frame, colour, row, column), in [0, 1].
        frames: Tensor = output[0][0].permute(0, 2, 3, 1)
        self._host.copy_((255 * frames.float()).round().to(torch.uint8))
        synchronise(case.device)
        return time.perf_counter() - began


def _pipeline(case: Case) -> Any:
    """Make the pipeline as its published folder says, without tokenizer and text encoder."""
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline
    from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    vae = autoencoder(case)
    if case.model == "wan":
        # `scheduler_config.json` of Wan2.1-T2V-1.3B, with the shift for 480 lines.
        scheduler: Any = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
        kind: Any = WanPipeline
    else:
        # `scheduler_config.json` of CogVideoX-5B.
        scheduler = CogVideoXDDIMScheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=1.0,
            timestep_spacing="trailing",
        )
        kind = CogVideoXPipeline
    return kind(
        tokenizer=None, text_encoder=None, vae=vae, transformer=_transformer(case), scheduler=scheduler
    )


def _transformer(case: Case) -> Any:
    """Make the transformer as the other parts make it, with the attention that diffusers gives it."""
    with torch.device(case.device):
        step = STEPS[case.model](case.dtype, case.sizes, case.latent).step
    path = "flow.transformer" if case.model == "wan" else "video.transformer"
    transformer: Any = step.get_submodule(path).to(case.device)
    with torch.device("meta"):
        fresh: Any = (
            wan.transformer_of(case.sizes, case.latent[0])
            if case.model == "wan"
            else cogvideox.transformer_of(case.sizes, case.latent)
        )
    transformer.set_attn_processor(fresh.attn_processors)
    return transformer
