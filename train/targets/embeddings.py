"""Embeddings by models of transformers: frames and captions (CLIP, SigLIP, T5), and motion (VideoMAE).

A training that compares with frames or captions which are changed a little each time draws among variants
that were embedded before (``variants``, `train.targets.variants`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.errors import UsageError
from train.config.run_context import Arrays
from train.data.target_cache import Kind, Target
from train.targets import variants
from train.targets.models import Hardware, evenly, files_of, prepared
from train.targets.viclip import viclip
from train.weights.folders import transformers_model
from train.weights.source import Source

# Pictures that a model gets at once: about 5 GB for a large tower in single precision.
_AT_ONCE = 64
# Files by which a folder is known to hold a tokenizer of transformers.
_TOKENIZER = "tokenizer*"
# Passages of a caption that are kept at most.
PASSAGES = 16
# The text encoder of Stable Diffusion.
_CLIP_TEXT = "CLIPTextModel"
# A tokenizer that knows no limit says so with a number beyond this one.
_NO_LIMIT = 100_000


def image(
    folder: Path, hardware: Hardware, *, licence: str, frames: int | None = None, crops: int = 0
) -> Target:
    """Embed frames with the image tower of CLIP or SigLIP.

    Parameters
    ----------
    folder : Path
        A folder of transformers, of the whole model or of its image tower, with ``preprocessor_config.json``.
    hardware : Hardware
        Where the model computes, and in which precision.
    licence : str
        Licence of the model's weights, as the user states it.
    frames : int, optional
        Number of frames of each clip, spread evenly. All by default.
    crops : int
        So many crops of each frame are embedded too.

    Returns
    -------
    Target
        ``values`` (title, frame, feature), in the space that frames and captions share. With `crops` also
        ``variants`` (title, frame, 1 + crop, feature), each frame as it is and then its crops.
    """

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        from transformers import AutoImageProcessor

        processor = prepared(AutoImageProcessor, folder, backend="pil")
        model = _model(folder, hardware, licence)
        return lambda clips: _with_crops(clips, frames, crops, processor, model, hardware)

    options = {"frames": frames, "precision": hardware.precision}
    # Targets without crops keep the digest of their files.
    if crops:
        options["crops"] = crops
    return Target("image", "clips", files_of(folder, "transformers folder", licence), options, opened)


def _with_crops(
    clips: NDArray[Any], frame_count: int | None, crops: int, processor: Any, model: Any, hardware: Hardware
) -> Arrays:
    chosen = evenly(clips.shape[1], frame_count, "image")
    pictures = [frame for clip in clips for frame in clip[chosen]]
    shape = (len(clips), len(chosen))
    if not crops:
        return {"values": _frames(pictures, processor, model, hardware).reshape(*shape, -1)}
    several = [picture for frame in pictures for picture in (frame, *variants.crops(frame, crops))]
    embedded = _frames(several, processor, model, hardware).reshape(*shape, 1 + crops, -1)
    return {"values": embedded[:, :, 0], "variants": embedded.astype(np.float16)}


def _frames(
    pictures: Sequence[NDArray[np.uint8]], processor: Any, model: Any, hardware: Hardware
) -> NDArray[Any]:
    """Embed pictures, (picture, feature)."""
    vectors = []
    for start in range(0, len(pictures), _AT_ONCE):
        inputs = processor(images=pictures[start : start + _AT_ONCE], return_tensors="pt")
        with torch.inference_mode():
            features = getattr(model, "get_image_features", model)(**hardware.moved(inputs))
        vectors.append(_pooled(features, "image_embeds", model))
    return np.concatenate(vectors)


def text(
    folder: Path,
    hardware: Hardware,
    *,
    licence: str,
    tokens: int | None = None,
    sentences: int | None = None,
    by_frame: bool = False,
    changes: int = 0,
) -> Target:
    """Embed captions.

    Parameters
    ----------
    folder : Path
        A folder of transformers with its tokenizer. The whole of CLIP or SigLIP gives one vector for a
        caption, in the space of the frames. A text encoder alone (CLIP's, as in Stable Diffusion, or T5's, as
        in Wan and CogVideoX) gives a vector for each token.
    hardware : Hardware
        Where the model computes, and in which precision.
    licence : str
        Licence of the model's weights, as the user states it.
    tokens : int, optional
        Length to which captions are padded and cut. The tokenizer's own by default.
    sentences : int, optional
        So many consecutive sentences are embedded together, once from each sentence on; see `passages`. The
        whole caption by default.
    by_frame : bool
        Whether the captions of single frames are embedded too, where the data have any.
    changes : int
        So many changed versions of each caption are embedded too, in which words are swapped and replaced.

    Returns
    -------
    Target
        ``values`` (title, feature), or (title, token, feature) with ``counts`` (title,), the number of tokens
        before the padding. With `sentences` (title, `PASSAGES`, feature) with ``passages`` (title,), the
        number of passages, behind which the first ones are repeated. With `by_frame` or `changes` also
        ``variants`` (title, frame, 1 + change, feature), each caption as it is and then its changes; there is
        one frame where captions are of whole clips.
    """
    varied = by_frame or bool(changes)
    if sentences is not None and varied:
        raise UsageError(
            "text-passages-with-variants",
            "text.sentences={sentences} draws passages of captions, and text.by_frame or text.changes their "
            "variants. Give one of them.",
            sentences=sentences,
        )

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        tokenizer, model, length = _text_encoder("text", folder, hardware, licence, tokens)
        if varied:
            _check_pooled(model, "text.by_frame and text.changes need")
            embed = partial(_captions, length=length, tokenizer=tokenizer, model=model, hardware=hardware)
            return lambda captions: _with_changes(captions, changes, embed)
        if sentences is None:
            return lambda captions: _captions(captions, length, tokenizer, model, hardware)
        _check_pooled(model, f"text.sentences={sentences} needs")
        count = sentences
        return lambda captions: _passages(captions, count, length, tokenizer, model, hardware)

    options = {"tokens": tokens, "precision": hardware.precision}
    # Targets of whole captions keep the digest of their files.
    if sentences is not None:
        options["sentences"] = sentences
    if varied:
        options |= {"by_frame": by_frame, "changes": changes}
    reads: Kind = "frame_captions" if by_frame else "captions"
    return Target("text", reads, _text_files(folder, licence), options, opened)


def _check_pooled(model: Any, needs: str) -> None:
    if not hasattr(model, "get_text_features"):
        raise UsageError(
            "text-passages-not-pooled",
            "{needs} one vector for each passage, and a {model_class} gives one for each token. Give "
            "text=DIR of the whole of CLIP or SigLIP.",
            needs=needs,
            model_class=type(model).__name__,
        )


def _with_changes(captions: NDArray[Any], changes: int, embed: Callable[[NDArray[Any]], Arrays]) -> Arrays:
    """Embed captions (title,) or (title, frame), and changed ones."""
    by_frame = captions if captions.ndim == 2 else captions[:, None]
    texts = variants.changed_captions(by_frame, changes)
    embedded = embed(texts.reshape(-1))["values"].reshape(*texts.shape, -1)
    return {"values": embedded[:, 0, 0], "variants": embedded.astype(np.float16)}


def prompt(folder: Path, hardware: Hardware, *, licence: str, tokens: int | None = None) -> Target:
    """Embed the tokens of captions as a video model reads them.

    Parameters
    ----------
    folder : Path
        Of T5 or UMT5 with its tokenizer, or ``text_encoder`` of a pipeline of Wan or Stable Diffusion, beside
        which ``tokenizer`` lies.
    hardware : Hardware
        Where the model computes, and in which precision.
    licence : str
        Licence of the model's weights, as the user states it.
    tokens : int, optional
        Length to which captions are padded and cut. The tokenizer's own by default.

    Returns
    -------
    Target
        ``values`` (title, token, feature), with ``counts`` (title,), the number of tokens before the padding.
        Values of the padding are 0, which is what diffusers' pipeline of Wan makes of a prompt. Of CLIP's
        text encoder they are as encoded, and padding is read as other tokens are: so Stable Diffusion's
        pipeline has it.
    """

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        tokenizer, model, length = _text_encoder("prompt", folder, hardware, licence, tokens)
        if hasattr(model, "get_text_features"):
            raise UsageError(
                "prompt-model-not-tokens",
                "prompt= takes a text encoder with a vector for each token, such as UMT5; {folder} holds a "
                "{actual_class}, which gives one for a whole caption. Give it as text=.",
                folder=folder,
                actual_class=type(model).__name__,
            )
        if type(model).__name__ == _CLIP_TEXT:
            return lambda captions: _captions(captions, length, tokenizer, model, hardware, masked=False)
        return lambda captions: _without_padding(_captions(captions, length, tokenizer, model, hardware))

    options = {"tokens": tokens, "precision": hardware.precision}
    return Target("prompt", "captions", _text_files(folder, licence), options, opened)


def _text_files(folder: Path, licence: str) -> Source:
    return files_of(folder, "transformers folder", licence, processor_folder=_tokenizer_folder(folder))


def _tokenizer_folder(folder: Path) -> Path:
    """Return where a text encoder's tokenizer lies: in a pipeline it has a folder of its own."""
    of_pipeline = folder.parent / "tokenizer"
    has_its_own = any(folder.glob(_TOKENIZER))
    return folder if has_its_own or not any(of_pipeline.glob(_TOKENIZER)) else of_pipeline


def _text_encoder(
    target: str, folder: Path, hardware: Hardware, licence: str, tokens: int | None
) -> tuple[Any, Any, int]:
    """Open a tokenizer and its model, and return them with the length that captions are brought to."""
    from transformers import AutoTokenizer

    tokenizer = prepared(AutoTokenizer, _tokenizer_folder(folder))
    model = _model(folder, hardware, licence)
    length = tokens or tokenizer.model_max_length
    _check_length(target, length, model, folder)
    return tokenizer, model, length


def _without_padding(encoded: Arrays) -> Arrays:
    """Put 0 where tokens are padding."""
    values = encoded["values"]
    counts = encoded["counts"]
    is_token = np.arange(values.shape[1]) < counts[:, None]
    return {"values": np.where(is_token[:, :, None], values, 0), "counts": counts}


def _check_length(target: str, length: int, model: Any, folder: Path) -> None:
    """Refuse captions of no length, or of one that the model has no positions for."""
    longest = getattr(getattr(model.config, "text_config", model.config), "max_position_embeddings", None)
    if length > _NO_LIMIT:
        raise UsageError(
            "tokenizer-missing-max-length",
            "the tokenizer in {folder} states no longest text. Give it with {target}.tokens={suggestion}.",
            target=target,
            folder=folder,
            suggestion=longest or "",
        )
    if longest is not None and length > longest:
        raise UsageError(
            "text-tokens-beyond-model",
            "captions of {length} tokens were asked for, and the model in {folder} reads {longest}. Give "
            "{target}.tokens={longest}.",
            target=target,
            length=length,
            folder=folder,
            longest=longest,
        )


def _captions(
    captions: NDArray[Any],
    length: int,
    tokenizer: Any,
    model: Any,
    hardware: Hardware,
    *,
    masked: bool = True,
) -> Arrays:
    inputs = tokenizer(
        captions.tolist(), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    with torch.inference_mode():
        if hasattr(model, "get_text_features"):
            return {
                "values": _pooled(model.get_text_features(**hardware.moved(inputs)), "text_embeds", model)
            }
        # A model that also writes text has an encoder inside.
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        read = inputs if masked else {"input_ids": inputs["input_ids"]}
        hidden = encoder(**hardware.moved(read)).last_hidden_state
    if "attention_mask" not in inputs:
        raise UsageError(
            "tokenizer-missing-attention-mask",
            "the tokenizer of {model_class} says not which tokens are padding.",
            model_class=type(model).__name__,
        )
    return {"values": _numbers(hidden), "counts": inputs["attention_mask"].sum(1).numpy()}


def passages(caption: str, sentences: int) -> list[str]:
    """List the passages of so many consecutive sentences of a caption, one from each sentence on.

    As in CineBrain's code (``data_video.py``) a sentence ends at a full stop, and what follows the last full
    stop counts as a sentence, though it is mostly empty: of a caption "A. B. C." and two sentences the
    passages are "A. B.", "B. C." and "C..". A caption with fewer sentences is one passage.
    """
    parts = caption.split(".")
    starts = range(len(parts) - sentences + 1)
    texts = [".".join(parts[start : start + sentences]) + "." for start in starts]
    return texts[:PASSAGES] or [caption]


def _passages(
    captions: NDArray[Any], sentences: int, length: int, tokenizer: Any, model: Any, hardware: Hardware
) -> Arrays:
    rows: list[NDArray[Any]] = []
    counts = []
    for caption in captions.tolist():
        texts = passages(caption, sentences)
        vectors = _captions(np.array(texts), length, tokenizer, model, hardware)["values"]
        rows.append(vectors[np.arange(PASSAGES) % len(texts)])
        counts.append(len(texts))
    return {"values": np.stack(rows), "passages": np.array(counts, np.int64)}


def action(folder: Path, hardware: Hardware, *, licence: str) -> Target:
    """Embed the motion of clips with VideoMAE (Tong et al. 2022, arXiv:2203.12602) or ViCLIP.

    Parameters
    ----------
    folder : Path
        Of VideoMAE: a folder of transformers, with or without the head of a classifier, with
        ``preprocessor_config.json``. Of ViCLIP: its file (`train.targets.viclip`).
    hardware : Hardware
        Where the model computes, and in which precision.
    licence : str
        Licence of the model's weights, as the user states it.

    Returns
    -------
    Target
        ``values`` (title, feature). Of VideoMAE it is the mean over the encoder's tokens, from which the
        classifier's head reads classes; it is normalised as the head does, where there is one.
    """
    if folder.is_file():
        return viclip(folder, hardware, licence)

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        from transformers import AutoImageProcessor

        processor = prepared(AutoImageProcessor, folder, backend="pil")
        model = _model(folder, hardware, licence)
        encoder = getattr(model, "videomae", None)
        if encoder is None and type(model).__name__ != "VideoMAEModel":
            raise UsageError(
                "action-model-wrong-class",
                "action= takes a VideoMAE; {folder} holds a {actual_class}.",
                folder=folder,
                actual_class=type(model).__name__,
            )
        return lambda clips: {"values": _motion(clips, processor, model, hardware)}

    options = {"precision": hardware.precision}
    return Target("action", "clips", files_of(folder, "transformers folder", licence), options, opened)


def _motion(clips: NDArray[Any], processor: Any, model: Any, hardware: Hardware) -> NDArray[Any]:
    chosen = evenly(clips.shape[1], model.config.num_frames, "action")
    norm = getattr(model, "fc_norm", None)
    vectors = []
    for clip in clips:
        inputs = processor([list(clip[chosen])], return_tensors="pt")
        with torch.inference_mode():
            hidden = getattr(model, "videomae", model)(**hardware.moved(inputs)).last_hidden_state.mean(1)
            vectors.append(_numbers(hidden if norm is None else norm(hidden)))
    return np.concatenate(vectors)


def _model(folder: Path, hardware: Hardware, licence: str) -> Any:
    model, _ = transformers_model(folder, licence=licence, dtype=hardware.dtype)
    return model.to(hardware.device)


def _pooled(features: Any, name: str, model: Any) -> NDArray[Any]:
    """Take one vector for each input out of what a tower gives, by its name or as what it pools."""
    if isinstance(features, Tensor):
        return _numbers(features)
    pooled = getattr(features, name, None)
    if pooled is None:
        pooled = getattr(features, "pooler_output", None)
    if pooled is None:
        raise UsageError(
            "embedding-model-not-pooled",
            "a {model_class} gives no vector for a whole input. Give CLIP or SigLIP.",
            model_class=type(model).__name__,
        )
    return _numbers(pooled)


def _numbers(values: Tensor) -> NDArray[Any]:
    return values.float().cpu().numpy()
