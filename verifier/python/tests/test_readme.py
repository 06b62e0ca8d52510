"""The README's example is run as it stands there, and prints what stands there."""

import contextlib
import io
import re
import shutil
from pathlib import Path


def test_the_example_prints_what_the_readme_shows(milan, tmp_path, monkeypatch):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    shown = re.search(r"prints\n\n```text\n(.*?)```", text, re.S).group(1)
    for name in ("report.bin", "vcek.der", "crl.der"):
        shutil.copy(milan / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(example, "README.md", "exec"), {})
    assert out.getvalue() == shown
