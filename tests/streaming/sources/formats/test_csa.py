import struct

import pytest

from streaming.sources.formats.csa import read_csa


def header(tags: dict[str, list[str]], padding: int = 6) -> bytes:
    parts = [b"SV10\x04\x03\x02\x01", struct.pack("<2I", len(tags), 77)]
    for name, values in tags.items():
        count = max(padding, len(values))
        parts.append(struct.pack("<64si4s3i", name.encode(), 1, b"FD", 4, count, 77))
        for value in values + [""] * (count - len(values)):
            raw = value.encode() + b"\0" if value else b""
            parts += [struct.pack("<4i", len(raw), len(raw), 77, len(raw)), raw, bytes(-len(raw) % 4)]
    return b"".join(parts)


def test_items_of_any_length_are_found_behind_their_padding():
    tags = {"A": ["1", "22", "333", "4444"], "Empty": [], "LongName" * 7: ["x" * 1001]}
    assert read_csa(header(tags)) == tags


@pytest.mark.parametrize("keep", [0, 3, 12, 40, 100, 200])
def test_a_cut_header_is_an_error(keep):
    with pytest.raises(ValueError, match="private header"):
        read_csa(header({"A": ["1"], "B": ["2"]})[:keep])


def test_absurd_counts_are_an_error_not_a_loop():
    noise = b"SV10\x04\x03\x02\x01" + b"\xff" * 200
    with pytest.raises(ValueError, match="claims"):
        read_csa(noise)
    long_item = bytearray(header({"A": ["1"]}))
    struct.pack_into("<i", long_item, 16 + 84 + 4, 10**6)
    with pytest.raises(ValueError, match="not there"):
        read_csa(bytes(long_item))
