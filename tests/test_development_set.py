"""The films of the development set are those that docs/data.md names."""

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `(\w+\.mp4)` \| [^|]+ \| `([0-9a-f]{64})` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def test_its_films_are_named_by_their_content(data_root: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    films = {path.name: path.read_bytes() for path in (data_root / "films" / "judged").glob("*.mp4")}
    rows = ROW.findall(page.partition("## The development set")[2])
    assert {name: digest for name, digest, _, _ in rows} == {
        name: hashlib.sha256(film).hexdigest() for name, film in films.items()
    }
    assert all("CC-BY" in licence and " at " in source for _, _, licence, source in rows)
