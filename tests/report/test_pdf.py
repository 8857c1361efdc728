"""PDF documents: the same bytes for the same figure, and the same document as before."""

import re
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from earmark.report.figures.charts import Figure
from earmark.report.figures.pdf import normalize_pdf, svg_to_pdf

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60">
<text y="20" font-family="sans-serif">regular</text>
<text y="40" font-family="sans-serif" font-weight="bold">bold</text>
<text y="50" font-family="serif" font-style="italic">italic</text>
<g opacity="0.5"><circle cx="9" cy="9" r="9"/><text y="9" font-family="serif">serif</text></g>
<g opacity="0.2"><circle cx="9" cy="9" r="9"/><rect width="9" height="20"/></g>
</svg>"""


def read_objects(content: bytes) -> dict[int, bytes]:
    """Read a document by its table of offsets, as a viewer does."""
    start = int(content.rsplit(b"startxref\n", 1)[1].split()[0])
    _, sizes, free, *entries = content[start:].split(b"trailer")[0].splitlines()
    assert int(sizes.split()[1]) == len(entries) + 1
    assert free == b"0000000000 65535 f"
    objects: dict[int, bytes] = {}
    for number, entry in enumerate(entries, start=1):
        head, body = content[int(entry.split()[0]) :].split(b" 0 obj\n", 1)
        assert int(head) == number
        objects[number] = body.split(b"endobj", 1)[0]
    return objects


def resolve(objects: dict[int, bytes], text: bytes, above: tuple[int, ...] = ()) -> bytes:
    """Return a text with each reference replaced by what it names; lines have no order."""

    def replace(match: re.Match[bytes]) -> bytes:
        number = int(match[1])
        if number in above:  # a page names its parent
            return b"above"
        head, mark, stream = objects[number].partition(b"stream\n")
        return b"(" + resolve(objects, head, (*above, number)) + mark + stream + b")"

    lines = re.sub(rb"\b(\d+) 0 R\b", replace, text).split(b"\n")
    return b"\n".join(sorted(lines))


def document(content: bytes) -> bytes:
    trailer = content.rsplit(b"trailer\n", 1)[1].split(b"startxref")[0]
    return resolve(read_objects(content), trailer)


def test_the_same_figure_gives_the_same_bytes():
    assert len({svg_to_pdf(SVG) for _ in range(8)}) == 1


def test_it_is_the_converters_document():
    raw = vl_convert.svg_to_pdf(SVG)

    content = normalize_pdf(raw)

    assert document(content) == document(raw)
    assert document(content).count(b"/FontFile2") == document(content).count(b"/Type0") >= 3
    assert content.endswith(b"\n%%EOF")
    assert normalize_pdf(content) == content


def write_pdf(order: Sequence[str], *, numbers: Sequence[int]) -> bytes:
    """A document of a page with three fonts, written and numbered in some order."""
    number = dict(zip(("page", "a", "b", "c"), numbers, strict=True))
    fonts = "".join(f"    /{name} {number[name]} 0 R\n" for name in order if name != "page")
    bodies = {name: f"<<\n  /Name /{name}\n>>" for name in "abc"}
    bodies["a"] = "<<\n  /Length 8\n>>\nstream\n5 0 R \x80\xff\nendstream"
    bodies["page"] = f"<<\n  /Font <<\n{fonts}  >>\n>>"
    content, offsets = "%PDF-1.7\n\n", {}
    for name in order:
        offsets[number[name]] = len(content)
        content += f"{number[name]} 0 obj\n{bodies[name]}\nendobj\n\n"
    table = "".join(f"{offsets[n]:010} 00000 n\r\n" for n in sorted(offsets))
    trailer = f"trailer\n<<\n  /Size 5\n  /Root {number['page']} 0 R\n>>\n"
    content += f"xref\n0 5\n0000000000 65535 f\r\n{table}{trailer}startxref\n"
    return f"{content}{content.index('xref')}\n%%EOF".encode("latin-1")


def test_neither_the_order_nor_the_numbers_of_objects_count():
    contents = {
        normalize_pdf(write_pdf(order, numbers=numbers))
        for order in permutations(("page", "a", "b", "c"))
        for numbers in permutations((1, 2, 3, 4))
    }

    assert contents == {write_pdf(("page", "a", "b", "c"), numbers=(1, 2, 3, 4))}


@given(st.binary(max_size=80))
@pytest.mark.parametrize("start", [b"", b"%PDF-1.7\n", b"xref\n0 1\n0000000000 65535 f\r\n"])
def test_a_document_of_another_structure_is_left_as_it_is(start: bytes, content: bytes):
    for end in (b"", b"startxref\n9\n%%EOF", b"startxref\n99999\n%%EOF\n"):
        assert normalize_pdf(start + content + end) == start + content + end


def test_a_document_with_an_object_that_nothing_names_is_left_as_it_is():
    content = write_pdf(("page", "a", "b", "c"), numbers=(1, 2, 3, 4)).replace(b"4 0 R", b"9 0 R")

    assert normalize_pdf(content) == content


def test_a_figure_is_saved_as_it_is_shown(tmp_path: Path):
    spec = {"data": {"values": [{"a": 1}]}, "mark": "bar", "encoding": {"x": {"field": "a"}}}
    figure = Figure("1", "title", "caption", spec)

    figure.save(tmp_path / "figure.pdf")

    assert (tmp_path / "figure.pdf").read_bytes() == figure.pdf() == svg_to_pdf(figure.svg())
