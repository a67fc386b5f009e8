"""Categories of what captions name, by words and by a language model."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.targets.models import LICENCE, WORDS, Films, clip_tower, llama
from train.data.target_cache import compute, read
from train.targets.__main__ import read_arguments
from train.targets.categories import TABLE, categories, labels_by_words, question, read_answer, read_table
from train.targets.models import Hardware

CPU = Hardware()
# As CineNeuron's supplement (B) names them.
NAMES = [
    "accessory",
    "animal",
    "appliance",
    "electronic",
    "food",
    "furniture",
    "indoor",
    "kitchen",
    "man",
    "others",
    "outdoor",
    "crowd",
    "sports",
    "vehicle",
    "woman",
]
# COCO has 80 names of objects, of which person stands for no category of its own here.
COCO = {
    "accessory": 5,
    "animal": 10,
    "appliance": 5,
    "electronic": 6,
    "food": 10,
    "furniture": 6,
    "indoor": 7,
    "kitchen": 7,
    "outdoor": 5,
    "sports": 10,
    "vehicle": 8,
}


def categories_of(caption: str) -> list[str]:
    table = read_table(TABLE)
    (row,) = labels_by_words([caption], table)
    return [name for name, value in zip(table, row, strict=True) if value]


def test_the_table_has_the_names_of_coco_and_their_plurals() -> None:
    table = read_table(TABLE)
    assert list(table) == NAMES
    assert sum(COCO.values()) == 79
    # Sheep, broccoli, skis and scissors are singular and plural; a ski is added.
    alike = {"animal": 1, "food": 1, "indoor": 1}
    for name, count in COCO.items():
        assert len(table[name]) == 2 * count - alike.get(name, 0), name
    listed = [word for words in table.values() for word in words]
    assert len(listed) == len(set(listed)), "no word stands for two categories"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man and two women sit on a couch.", ["furniture", "man", "woman"]),
        ("The BUSES pass a traffic\nlight", ["outdoor", "vehicle"]),
        ("someone eats a hot dog", ["food"]),
        ("a dog eats a hot-dog", ["animal", "food"]),
        ("a teddy bear", ["indoor"]),
        # Parts of words are no words.
        ("the carpet, a catalogue, a human", []),
        ("people and a child with a cell phone", ["electronic", "others", "crowd"]),
    ],
)
def test_words_of_captions_tell_categories(caption: str, expected: list[str]) -> None:
    assert categories_of(caption) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('["man", "vehicle"]', ["man", "vehicle"]),
        ('```json\n["Woman",\n "sports"]\n``` The man is not named.', ["sports", "woman"]),
        ("[]", []),
        ("It names an animal and furniture.", ["animal", "furniture"]),
        # Cut short before the list ends.
        ('["food", "kit', ["food"]),
        ("women, carsports", []),
    ],
)
def test_answers_of_a_language_model_are_read(answer: str, expected: list[str]) -> None:
    assert read_answer(answer, NAMES) == expected


def test_categories_are_computed_from_captions(tmp_path: Path) -> None:
    films = Films(captions=True)
    films.captions["b"] = "a red house"
    films.captions["c"] = "a woman in a car"
    compute(films, [categories(CPU)], tmp_path, lot=2)
    labels = read(tmp_path, "categories")
    assert labels.index["options"]["categories"] == NAMES
    assert labels.index["model"]["files"] == ["categories.txt"]
    values = labels.read(labels.rows(["a", "b", "c"]))
    assert values.shape == (3, 15)
    assert [np.flatnonzero(row).tolist() for row in values] == [[1], [], [13, 14]]


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("# Colours.\nwarm: red, orange\ncold: blue\n\n", encoding="utf-8")
    target = categories(CPU, path)
    assert target.options == {"categories": ["warm", "cold"]}
    assert target.source.digest != categories(CPU).source.digest
    values = target.opened()(np.array(["a Red cat", "blue and red"]))["values"]
    assert values.tolist() == [[1, 0], [1, 1]]


def test_captions_in_which_nothing_is_named(tmp_path: Path) -> None:
    films = Films(captions=True)
    films.captions = dict.fromkeys("abcde", "ein rotes Haus")
    with refused(UsageError, "categories-none-named", count=5):
        compute(films, [categories(CPU)], tmp_path, lot=2)
    # The lots are there, and are refused again.
    with refused(UsageError, "categories-none-named", count=5):
        compute(films, [categories(CPU)], tmp_path, lot=2)
    assert not (tmp_path / "categories" / "index.json").exists()
    films.captions["e"] = "a man"
    compute(films, [categories(CPU)], tmp_path, lot=2)
    assert read(tmp_path, "categories").values.shape == (5, 15)


@pytest.mark.parametrize(
    ("text", "code", "values"),
    [
        ("animal: dog\nfood\n", "categories-table-malformed", {"number": 2, "line": "food"}),
        ("animal: dog\nanimal: cat\n", "categories-table-malformed", {"number": 2}),
        ("# nothing\n", "categories-table-empty", {}),
    ],
)
def test_a_table_of_another_form(tmp_path: Path, text: str, code: str, values: dict[str, Any]) -> None:
    path = tmp_path / "own.txt"
    path.write_text(text, encoding="utf-8")
    with refused(UsageError, code, path=path, **values):
        categories(CPU, path)


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    with refused(UsageError, "categories-table-unreadable", path=tmp_path / "none.txt"):
        categories(CPU, tmp_path / "none.txt")
    (tmp_path / "picture.txt").write_bytes(b"\xff\xfe\x00")
    with refused(UsageError, "categories-table-unreadable", path=tmp_path / "picture.txt"):
        categories(CPU, tmp_path / "picture.txt")


@pytest.mark.parametrize(
    "template", [None, "{{ messages[0]['content'] }} the{% if add_generation_prompt %} red{% endif %}"]
)
def test_a_language_model_is_asked_about_each_caption(tmp_path: Path, template: str | None) -> None:
    table = tmp_path / "own.txt"
    table.write_text("cat: cat\ndog: dog\nhouse: house\n", encoding="utf-8")
    vocabulary = [*WORDS, "[", "]", "Which", "categories", "Caption"]
    folder = tmp_path / "llama"
    model = llama(folder, vocabulary)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    captions = np.array(["the red cat", "a dog sees the blue house", "a house", "blue", "the dog the dog"])
    target = categories(CPU, table, model=str(folder), licence=LICENCE, tokens=4)
    values = target.opened()(captions)["values"]
    names = ["cat", "dog", "house"]
    expected = []
    for caption in captions.tolist():
        asking = question(caption, names)
        if template is not None:
            # The template has the marks of beginning and end of its own, which is none here.
            ids = tokenizer(f"{asking} the red", add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(asking)["input_ids"]
        answer: list[int] = []
        while len(answer) < 4 and 3 not in answer:
            with torch.no_grad():
                logits = model(torch.tensor([[*ids, *answer]])).logits[0, -1]
            answer.append(int(logits.argmax()))
        answered = [vocabulary[n] for n in answer]
        expected.append([float(name in answered) for name in names])
    assert values.tolist() == expected
    assert 0 < values.mean() < 1
    assert len({tuple(row) for row in values.tolist()}) > 1


def test_a_question_names_the_categories_and_the_caption() -> None:
    asking = question("a man on a bus", NAMES)
    assert asking.endswith("a man on a bus")
    assert all(name in asking for name in NAMES)


def test_a_model_that_does_not_write(tmp_path: Path) -> None:
    clip_tower(tmp_path)
    target = categories(CPU, model=str(tmp_path), licence=LICENCE)
    with refused(UsageError, "categories-model-wrong-class", folder=tmp_path, actual_class="CLIPModel"):
        target.opened()


def test_what_the_command_needs_for_categories() -> None:
    _, models = read_arguments(["categories=words"])
    assert models == {"categories": {"table": Path("words")}}
    _, models = read_arguments(["categories.model=qwen", "categories.licence=MIT", "categories.tokens=8"])
    assert models == {"categories": {"model": "qwen", "licence": "MIT", "tokens": 8}}
    missing = {"model": "categories", "option": "licence", "example": re.compile("categories.licence=")}
    with refused(UsageError, "targets-model-missing-option", **missing):
        read_arguments(["categories.model=qwen"])
    with refused(UsageError, "targets-model-missing-option", option="table", example="categories=words"):
        read_arguments(["categories.tokens=8"])
