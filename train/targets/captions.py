"""Captions of clips, by a model of transformers that writes about pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from train.targets.cache import Target
from train.targets.models import Hardware, files_of, prepared
from train.weights.folders import transformers_model
from train.work import Arrays

# What a model that talks is asked, where the user says nothing else.
QUESTION = "Describe this picture in one sentence."
# Longest answer, tokens.
TOKENS = 64


def captions(
    folder: Path, hardware: Hardware, *, licence: str, prompt: str = "", tokens: int = TOKENS
) -> Target:
    """Write a caption of the middle frame of each clip.

    Parameters
    ----------
    folder : Path
        A folder of transformers with its processor: a captioner such as BLIP, or a model that talks about
        pictures, whose processor has a chat template, such as Qwen-VL.
    hardware : Hardware
    licence : str
    prompt : str
        Words with which the caption begins, for a captioner; the question, for a model that talks.
    tokens : int
        Longest caption, tokens.

    Returns
    -------
    Target
        ``values`` (title,) str.
    """

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        from transformers import AutoProcessor

        processor = prepared(AutoProcessor, folder)
        model, _ = transformers_model(folder, licence=licence, dtype=hardware.dtype)
        model = model.to(hardware.device)
        return lambda clips: {
            "values": np.array([_caption(clip, prompt, tokens, processor, model, hardware) for clip in clips])
        }

    options = {"prompt": prompt, "tokens": tokens, "precision": hardware.precision}
    return Target("captions", "clips", files_of(folder, "transformers folder", licence), options, opened)


def _caption(
    clip: NDArray[np.uint8], prompt: str, tokens: int, processor: Any, model: Any, hardware: Hardware
) -> str:
    picture = Image.fromarray(clip[len(clip) // 2])
    asked = 0
    if getattr(processor, "chat_template", None):
        said = [{"type": "image", "image": picture}, {"type": "text", "text": prompt or QUESTION}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": said}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        # The answer repeats what was asked.
        asked = inputs["input_ids"].shape[1]
    else:
        inputs = processor(images=picture, text=prompt or None, return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**hardware.moved(inputs), max_new_tokens=tokens, do_sample=False)
    return processor.batch_decode(written[:, asked:], skip_special_tokens=True)[0].strip()
