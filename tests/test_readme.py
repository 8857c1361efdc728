"""The README's example prints what the README says."""

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_example_prints_what_it_says():
    code, printed = re.findall(
        r"```(?:python|text)\n(.*?)```", README.read_text(), re.DOTALL
    )[:2]
    out = io.StringIO()

    with contextlib.redirect_stdout(out):
        exec(compile(code, str(README), "exec"), {})  # noqa: S102

    assert out.getvalue() == printed
