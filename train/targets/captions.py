"""Captions of clips, by a model of transformers that writes about pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from train.config.run_context import Arrays
from train.data.target_cache import Target
from train.targets.models import Hardware, files_of, prepared
from train.weights.folders import transformers_model

# What a model that talks is asked, where the user says nothing else.
QUESTION = "Describe this picture in one sentence."
# Longest answer, tokens.
TOKENS = 64


def captions(
    folder: Path,
    hardware: Hardware,
    *,
    licence: str,
    prompt: str = "",
    tokens: int = TOKENS,
    by_frame: bool = False,
) -> Target:
    """Write a caption of the middle frame of each clip, or one of each frame.

    Parameters
    ----------
    folder : Path
        A folder of transformers with its processor: a captioner such as BLIP, or a model that talks about
        pictures, whose processor has a chat template, such as Qwen-VL.
    hardware : Hardware
        Where the model computes, and in which precision.
    licence : str
        Licence of the model's weights, as the user states it.
    prompt : str
        Words with which the caption begins, for a captioner; the question, for a model that talks.
    tokens : int
        Longest caption, tokens.
    by_frame : bool
        Whether every frame gets a caption of its own.

    Returns
    -------
    Target
        ``values`` (title,) str, or (title, frame) str.
    """

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        from transformers import AutoProcessor

        processor = prepared(AutoProcessor, folder)
        model, _ = transformers_model(folder, licence=licence, dtype=hardware.dtype)
        model = model.to(hardware.device)

        def written(clips: NDArray[np.uint8]) -> Arrays:
            # (title, captioned frame, row, column, 3)
            frames = clips if by_frame else clips[:, clips.shape[1] // 2][:, None]
            texts = np.array(
                [
                    [_caption(frame, prompt, tokens, processor, model, hardware) for frame in clip]
                    for clip in frames
                ]
            )
            return {"values": texts if by_frame else texts[:, 0]}

        return written

    options: dict[str, Any] = {"prompt": prompt, "tokens": tokens, "precision": hardware.precision}
    # Captions of whole clips keep the digest of their files.
    if by_frame:
        options["by_frame"] = True
    return Target("captions", "clips", files_of(folder, "transformers folder", licence), options, opened)


def _caption(
    frame: NDArray[np.uint8], prompt: str, tokens: int, processor: Any, model: Any, hardware: Hardware
) -> str:
    picture = Image.fromarray(frame)
    prompt_length = 0
    if getattr(processor, "chat_template", None):
        content = [{"type": "image", "image": picture}, {"type": "text", "text": prompt or QUESTION}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        # The answer repeats what was asked.
        prompt_length = inputs["input_ids"].shape[1]
    else:
        inputs = processor(images=picture, text=prompt or None, return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**hardware.moved(inputs), max_new_tokens=tokens, do_sample=False)
    return processor.batch_decode(written[:, prompt_length:], skip_special_tokens=True)[0].strip()
