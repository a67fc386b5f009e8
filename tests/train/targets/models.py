"""Folders of tiny models with random weights, as they are published, and a data set in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessorPil,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from rtdecode.errors import UsageError
from train.data.dataset import Column, WindowTable

SIDE = 8
WORDS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "cat", "dog", "sees", "the", "red", "blue", "house")
SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
LICENCE = "MIT"


class Films:
    """A data set in memory. It counts what is read."""

    layout = "films"
    folder = Path("films")
    window_s = 4.0
    lag_s = 4.0
    tr_s = None
    sfreq = None
    fps = 1.0
    chain = "offline"
    notes = ()

    def __init__(
        self, frames: int = 5, *, captions: bool = False, sound: bool = False, side: int = 2 * SIDE
    ) -> None:
        columns: list[Column] = ["clips"]
        columns += ["captions"] if captions else []
        columns += ["sound"] if sound else []
        self.columns: Sequence[Column] = columns
        # Two subjects watched five titles, one of them twice.
        titles = [*"abcde", "b", *"abcde"]
        count = len(titles)
        self.windows = WindowTable(
            subject=np.array(["01"] * 6 + ["02"] * 5),
            run=np.array(["1"] * count),
            shown=np.array(titles),
            start_s=np.arange(count) * 4.0,
            repeat=np.zeros(count, np.int64),
            held_out=np.zeros(count, bool),
        )
        draws = np.random.default_rng(0)
        self.clips = {
            title: draws.integers(0, 256, (frames, side, side, 3), dtype=np.uint8) for title in "abcde"
        }
        self.captions = {title: f"the {colour} cat" for title, colour in zip("abcde", WORDS[7:], strict=True)}
        # A second of a tone, higher for each title; nothing is heard of the first.
        times = np.arange(16_000) / 16_000
        self.sound = {
            title: np.sin(2 * np.pi * 900 * n * times).astype(np.float32) for n, title in enumerate("abcde")
        }
        self.read_rows: list[int] = []

    def read(self, column: Column, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        if len(set(self.windows.subject[rows])) != 1:
            raise UsageError("rows-several-subjects", "rows of one subject were expected.")
        titles = self.windows.shown[rows]
        if column == "captions":
            return np.array([self.captions[title] for title in titles])
        self.read_rows += list(rows)
        return np.stack([(self.sound if column == "sound" else self.clips)[title] for title in titles])

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        return {}


def words(folder: Path, longest: int = 6, vocabulary: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """Save a tokenizer of some words."""
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    fast_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=longest,
    )
    fast_tokenizer.save_pretrained(folder)
    return fast_tokenizer


def clip_tower(folder: Path, seed: int = 0) -> CLIPModel:
    torch.manual_seed(seed)
    text = SMALL | {"vocab_size": 12, "max_position_embeddings": 6, "eos_token_id": 3, "pad_token_id": 0}
    vision = SMALL | {"image_size": SIDE, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).eval()
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder)
    words(folder)
    return model


def siglip(folder: Path) -> SiglipModel:
    torch.manual_seed(0)
    text = SMALL | {"vocab_size": 12, "max_position_embeddings": 6}
    vision = SMALL | {"image_size": SIDE, "patch_size": 4}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    model.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    words(folder)
    return model


def t5(folder: Path) -> T5EncoderModel:
    torch.manual_seed(0)
    config = T5Config(vocab_size=12, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    model = T5EncoderModel(config).eval()
    model.save_pretrained(folder)
    words(folder)
    return model


def umt5(pipeline: Path) -> UMT5EncoderModel:
    """Save a text encoder and its tokenizer where a pipeline of Wan has them, each in a folder of its own."""
    torch.manual_seed(0)
    config = UMT5Config(vocab_size=12, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2)
    model = UMT5EncoderModel(config).eval()
    with torch.no_grad():
        # Attention that differs between tokens, so that padding would show.
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(pipeline / "text_encoder")
    words(pipeline / "tokenizer", longest=8)
    return model


def videomae(folder: Path) -> VideoMAEForVideoClassification:
    torch.manual_seed(0)
    config = VideoMAEConfig(image_size=SIDE, patch_size=4, num_frames=4, num_labels=3, **SMALL)
    model = VideoMAEForVideoClassification(config).eval()
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    VideoMAEImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder)
    return model


def blip(folder: Path) -> BlipForConditionalGeneration:
    torch.manual_seed(0)
    text = SMALL | {"vocab_size": 12, "max_position_embeddings": 32, "encoder_hidden_size": 8}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    vision = SMALL | {"image_size": SIDE, "patch_size": 4}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).eval()
    with torch.no_grad():
        # Larger weights, so that different pictures give different words.
        for parameter in model.parameters():
            parameter.normal_()
        # No caption ends early, and none has what is no word.
        model.text_decoder.cls.predictions.bias[:4] = -1000
    model.save_pretrained(folder)
    pictures = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    BlipProcessor(pictures, words(folder)).save_pretrained(folder)
    return model


def whisper(folder: Path) -> WhisperForConditionalGeneration:
    """Save a model that hears two seconds, and writes five words."""
    torch.manual_seed(0)
    marks = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    # In Whisper's vocabulary a word begins with the mark of a space.
    spoken = [f"\u0120{word}" for word in WORDS[4:]]
    vocabulary = {word: n for n, word in enumerate([*marks, *spoken])}
    config = WhisperConfig(
        vocab_size=len(vocabulary),
        num_mel_bins=8,
        d_model=8,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=8,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=8,
        max_source_positions=100,
        max_target_positions=32,
        decoder_start_token_id=1,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    # No transcript ends early, and none has what is no word.
    model.generation_config.suppress_tokens = list(range(len(marks)))
    model.save_pretrained(folder)
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    WhisperProcessor(WhisperFeatureExtractor(feature_size=8, chunk_length=2), tokenizer).save_pretrained(
        folder
    )
    return model


def llava(folder: Path) -> LlavaForConditionalGeneration:
    """Save a model that talks about pictures."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(**SMALL, image_size=SIDE, patch_size=4, projection_dim=8)
    text = LlamaConfig(**SMALL, vocab_size=13, bos_token_id=2, eos_token_id=3, pad_token_id=0)
    how = {"image_token_index": 12, "image_seq_length": 4, "vision_feature_layer": -1}
    config = LlavaConfig(vision_config=vision, text_config=text, **how)
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.generation_config.suppress_tokens = [0, 1, 2, 3, 12]
    model.save_pretrained(folder)
    tokenizer = words(folder, longest=64)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    size = {"height": SIDE, "width": SIDE}
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size),
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for said in messages[0]['content'] %}"
        "{% if said['type'] == 'image' %}<image>{% else %} {{ said['text'] }}{% endif %}{% endfor %}",
    ).save_pretrained(folder)
    return model


def llama(folder: Path, vocabulary: Sequence[str]) -> LlamaForCausalLM:
    """Save a language model that goes on with a text in these words."""
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, vocab_size=len(vocabulary), bos_token_id=2, eos_token_id=3, pad_token_id=0)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        # Larger weights, so that different captions give different words.
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)
    words(folder, longest=2048, vocabulary=vocabulary)
    return model


def wan_vae(folder: Path) -> AutoencoderKLWan:
    torch.manual_seed(0)
    statistics = {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [0.5, 1.0, 2.0, 4.0]}
    model = AutoencoderKLWan(base_dim=4, z_dim=4, **statistics).eval()
    model.save_pretrained(folder)
    return model


def cogvideox_vae(folder: Path) -> AutoencoderKLCogVideoX:
    torch.manual_seed(0)
    kinds = {"down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4}
    model = AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
        **kinds,
    ).eval()
    model.save_pretrained(folder)
    return model
