"""PDF documents of figures, the same bytes for the same figure."""

import re
from itertools import pairwise

_REFERENCE = re.compile(rb"(?<![\d.])(\d+) 0 R\b")
_ENTRIES = re.compile(rb"(?:^ *+/\S+ \d+ 0 R\n)+", re.MULTILINE)  # of a dictionary of references


def svg_to_pdf(svg: str) -> bytes:
    """Return an SVG document as a PDF document of one page."""
    import vl_convert

    return normalize_pdf(vl_convert.svg_to_pdf(svg))


def normalize_pdf(content: bytes) -> bytes:
    """Return a PDF document with its objects, and the entries that name them, in one order.

    The converter numbers fonts, and lists what a page uses, in a random order. A document of
    another structure than the converter's is returned as it is.
    """
    end = re.search(rb"startxref\n(\d+)\n%%EOF\s*\Z", content)
    start = int(end[1]) if end else len(content)
    table, _, trailer = content[start:].partition(b"trailer\n")
    offsets = sorted(int(offset) for offset in re.findall(rb"(\d{10}) \d{5} n", table))
    chunks = [content[first:last] for first, last in pairwise([*offsets, start])]
    objects = {int(chunk.partition(b" ")[0]): _sort_entries(chunk) for chunk in chunks}
    trailer = trailer.partition(b"startxref")[0]
    numbers = _number_objects(objects, trailer)
    if not numbers or numbers.keys() != objects.keys():
        return content
    parts = [content[: offsets[0]]]
    lines = [b"xref\n0 %d\n0000000000 65535 f\r\n" % (len(numbers) + 1)]
    for number, new_number in numbers.items():
        lines.append(b"%010d 00000 n\r\n" % sum(map(len, parts)))
        head, mark, rest = objects[number].partition(b"stream\n")
        head = head.replace(b"%d 0 obj" % number, b"%d 0 obj" % new_number, 1)
        parts.append(_renumber(head, numbers) + mark + rest)
    start = sum(map(len, parts))
    lines += [b"trailer\n", _renumber(trailer, numbers), b"startxref\n%d\n%%%%EOF" % start]
    return b"".join([*parts, *lines])


def _sort_entries(chunk: bytes) -> bytes:
    """Sort adjacent entries of a dictionary that are references, such as its fonts."""
    head, mark, rest = chunk.partition(b"stream\n")
    head = _ENTRIES.sub(lambda run: b"".join(sorted(run[0].splitlines(keepends=True))), head)
    return head + mark + rest


def _number_objects(objects: dict[int, bytes], trailer: bytes) -> dict[int, int]:
    """Return the new numbers of objects: from 1 on, in the order in which they are reached."""
    numbers: dict[int, int] = {}
    heads = [trailer]
    while heads:
        for number in map(int, _REFERENCE.findall(heads.pop(0))):
            if number not in numbers:
                numbers[number] = len(numbers) + 1
                heads.append(objects.get(number, b"").partition(b"stream\n")[0])
    return numbers


def _renumber(head: bytes, numbers: dict[int, int]) -> bytes:
    return _REFERENCE.sub(lambda match: b"%d 0 R" % numbers[int(match[1])], head)
