"""Regions as COCO writes them."""

from __future__ import annotations


def compressed(counts: list[int]) -> str:
    """Return run lengths in the text of COCO, after its description."""
    text = ""
    for i, count in enumerate(counts):
        number = count - counts[i - 2] if i > 2 else count
        while True:
            bits = number & 31
            number >>= 5
            is_last = number == (-1 if bits & 16 else 0)
            text += chr(bits + (0 if is_last else 32) + 48)
            if is_last:
                break
    return text
