"""What is said in clips, by a model of transformers that writes down speech."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.config.run_context import Arrays
from train.data.layouts.film_sound import SOUND_HZ
from train.data.target_cache import Target
from train.targets.models import Hardware, files_of, prepared
from train.weights.folders import transformers_model

# Longest transcript, tokens. In four seconds, ten words are said.
TOKENS = 64
# Sound that is nowhere louder than this share of full scale is silence: 60 dB below it.
_SILENCE = 1e-3


def transcripts(
    folder: Path, hardware: Hardware, *, licence: str, language: str = "", tokens: int = TOKENS
) -> Target:
    """Write down what is said in each clip.

    Parameters
    ----------
    folder : Path
        A folder of transformers with its processor, such as Whisper (Radford et al. 2022, arXiv:2212.04356).
    hardware : Hardware
        Where the model computes, and in which precision.
    licence : str
        Licence of the model's weights, as the user states it.
    language : str
        Of the speech, such as ``en``, for a model that knows several; the model finds it by default.
    tokens : int
        Longest transcript, tokens.

    Returns
    -------
    Target
        ``values`` (title,) str; empty where a clip is silent, for which the model is not asked: models of
        speech make up words for silence. Words that a clip's edge cuts may be lost or wrong.
    """

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        from transformers import AutoProcessor

        processor = prepared(AutoProcessor, folder)
        model, _ = transformers_model(folder, licence=licence, dtype=hardware.dtype)
        model = model.to(hardware.device)
        if language:
            _check_language(language, processor, model, hardware)
        return lambda sounds: {
            "values": np.array(
                [_said(sound, language, tokens, processor, model, hardware) for sound in sounds]
            )
        }

    options = {"language": language, "tokens": tokens, "precision": hardware.precision}
    return Target("transcripts", "sound", files_of(folder, "transformers folder", licence), options, opened)


def _check_language(language: str, processor: Any, model: Any, hardware: Hardware) -> None:
    """Refuse a language that the model does not take: it says so where it first hears something."""
    noise = np.random.default_rng(0).uniform(-1, 1, SOUND_HZ).astype(np.float32)
    try:
        _said(noise, language, 1, processor, model, hardware)
    except ValueError as error:
        raise UsageError(
            "speech-language-unsupported",
            "speech.language={language}: {folder} does not take it ({error}). Give another one, or leave it "
            "out: a model of several languages finds it.",
            language=language,
            folder=model.name_or_path,
            error=str(error).splitlines()[0],
        ) from error


def _said(
    sound: NDArray[np.float32], language: str, tokens: int, processor: Any, model: Any, hardware: Hardware
) -> str:
    if np.abs(sound).max(initial=0) < _SILENCE:
        return ""
    inputs = processor(sound, sampling_rate=SOUND_HZ, return_tensors="pt", return_attention_mask=True)
    how = {"language": language} if language else {}
    with torch.inference_mode():
        written = model.generate(**hardware.moved(inputs), max_new_tokens=tokens, do_sample=False, **how)
    return processor.batch_decode(written, skip_special_tokens=True)[0].strip()
