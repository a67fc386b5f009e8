"""Which categories of things captions name, by a table of words or by a language model.

CineNeuron (supplement, B) asks Qwen2.5-VL for the nouns of a caption and brings them to 15 categories. Here a
table that ships does it (``categories.txt``, whose head names its sources), or a language model on this
computer, which is asked for the categories themselves.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from train.config.run_context import Arrays
from train.data.target_cache import Target
from train.targets.models import Hardware, files_of, prepared
from train.weights import source
from train.weights.folders import transformers_model

TABLE = Path(__file__).with_name("categories.txt")
# The word on the command line for the table that ships, and the licence of the names in it.
SHIPPED = "words"
_LICENCE = "Apache-2.0; names of COCO under CC BY 4.0"
# Longest answer of a language model, tokens: all names as a list in JSON take about 60.
TOKENS = 96


def categories(
    hardware: Hardware,
    table: Path | None = None,
    *,
    model: str = "",
    licence: str = "",
    tokens: int = TOKENS,
) -> Target:
    """Mark the categories of things that captions name.

    Parameters
    ----------
    hardware : Hardware
        Of a language model.
    table : Path, optional
        Categories and their words, in the form of ``categories.txt``. That file by default, or for ``words``.
    model : str
        A folder of transformers with a language model and its tokenizer, which answers in place of the words.
        It chooses among the categories of the table.
    licence : str
        Of the model.
    tokens : int
        Longest answer of the model, tokens.

    Returns
    -------
    Target
        ``values`` (title, category), 1 where the caption names something of the category and 0 elsewhere.
        ``options["categories"]`` has the names in order.
    """
    path = TABLE if table is None or table == Path(SHIPPED) else table
    words = read_table(path)
    options: dict[str, Any] = {"categories": list(words)}
    if not model:
        terms = licence or (_LICENCE if path == TABLE else "not stated")
        files = source.of_files([path], "table", terms)
        return Target("categories", "captions", files, options, lambda: _by_words(words), _check_any)
    folder = Path(model)
    files = files_of(folder, "transformers folder", licence)
    options |= {"tokens": tokens, "precision": hardware.precision}

    def opened() -> Callable[[NDArray[Any]], Arrays]:
        return _by_model(folder, licence, hardware, list(words), tokens)

    return Target("categories", "captions", files, options, opened, _check_any)


def read_table(path: Path) -> dict[str, list[str]]:
    """Read categories and their words from lines ``CATEGORY: WORD, WORD, ...``.

    Raises
    ------
    UsageError
        If the file cannot be read, or a line has another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(
            "categories-table-unreadable",
            "categories={path} cannot be read: {error}. Give categories={shipped} for the table that ships, "
            "a file of lines CATEGORY: WORD, WORD, ..., or a language model with categories.model=DIR.",
            path=path,
            error=error,
            shipped=SHIPPED,
        ) from error
    table: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, listed = line.partition(":")
        words = [_plain(word) for word in listed.split(",") if word.strip()]
        if not name.strip() or not words or name.strip() in table:
            raise UsageError(
                "categories-table-malformed",
                "line {number} of {path} is not CATEGORY: WORD, WORD, ... with a new category: {line}",
                number=number,
                path=path,
                line=line,
            )
        table[name.strip()] = words
    if not table:
        raise UsageError(
            "categories-table-empty",
            "{path} names no category: lines CATEGORY: WORD, WORD, ... were expected.",
            path=path,
        )
    return table


def labels_by_words(captions: Iterable[str], table: Mapping[str, Sequence[str]]) -> NDArray[np.float32]:
    """Mark the categories of which a caption has a word, (caption, category) of 0 and 1."""
    columns: dict[str, list[int]] = {}
    for column, words in enumerate(table.values()):
        for word in words:
            columns.setdefault(word, []).append(column)
    # Of words that begin at one place, the pattern takes the first that fits, so longer ones come first.
    ordered = sorted(columns, key=len, reverse=True)
    pattern = re.compile(rf"\b(?:{'|'.join(re.escape(word) for word in ordered)})\b")
    rows = []
    for caption in captions:
        row = np.zeros(len(table), np.float32)
        for word in pattern.findall(_plain(caption)):
            row[columns[word]] = 1
        rows.append(row)
    return np.array(rows)


def _plain(text: str) -> str:
    """Bring words to the form in which they are compared."""
    return re.sub(r"[\s-]+", " ", text).strip().lower()


def question(caption: str, names: Sequence[str]) -> str:
    """Return what a language model is asked about a caption."""
    return (
        f"Which of these categories does the caption name things of: {', '.join(names)}? "
        f"Answer with a JSON list of names from these categories, and nothing else.\nCaption: {caption}"
    )


def read_answer(answer: str, names: Sequence[str]) -> list[str]:
    """Find the categories that an answer names: in its first list, or anywhere if it has none."""
    listed = re.search(r"\[(.*?)\]", answer, re.DOTALL)
    text = _plain(answer if listed is None else listed.group(1))
    return [name for name in names if re.search(rf"\b{re.escape(_plain(name))}\b", text)]


def _by_words(table: Mapping[str, Sequence[str]]) -> Callable[[NDArray[Any]], Arrays]:
    return lambda captions: {"values": labels_by_words(captions.tolist(), table)}


def _by_model(
    folder: Path, licence: str, hardware: Hardware, names: Sequence[str], tokens: int
) -> Callable[[NDArray[Any]], Arrays]:
    from transformers import AutoTokenizer

    tokenizer = prepared(AutoTokenizer, folder)
    model, _ = transformers_model(folder, licence=licence, dtype=hardware.dtype)
    if not model.can_generate() or model.config.is_encoder_decoder:
        raise UsageError(
            "categories-model-wrong-class",
            "categories.model= takes a language model that goes on with a text, such as Qwen2; {folder} "
            "holds a {actual_class}.",
            folder=folder,
            actual_class=type(model).__name__,
        )
    model = model.to(hardware.device)

    def labels(captions: NDArray[Any]) -> Arrays:
        rows = []
        for caption in captions.tolist():
            answer = _answer(question(caption, names), tokenizer, model, hardware, tokens)
            answered = read_answer(answer, names)
            rows.append([float(name in answered) for name in names])
        return {"values": np.array(rows, np.float32)}

    return labels


def _answer(asking: str, tokenizer: Any, model: Any, hardware: Hardware, tokens: int) -> str:
    if tokenizer.chat_template:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": asking}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    else:
        inputs = tokenizer(asking, return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**hardware.moved(inputs), max_new_tokens=tokens, do_sample=False)
    # What is written repeats the question.
    return tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _check_any(lots: Iterable[NDArray[Any]]) -> None:
    """Refuse categories of which no caption names one."""
    count = 0
    for values in lots:
        if values.any():
            return
        count += len(values)
    raise UsageError(
        "categories-none-named",
        "none of {count} captions names a thing of any category. The table that ships is in English. Give "
        "one of your own with categories=FILE, or a language model that answers in lists with "
        "categories.model=DIR.",
        count=count,
    )
