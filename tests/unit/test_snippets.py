"""How blocks of Python are found in Markdown."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from tests.snippets import GIVEN, snippets

TEXT = """# Title

```python
first = 1

second = first + 1
```

- a list

  ```python
  if second == 2:
      third = 3
  ```

```console
not = python
```

<!-- given: nothing in particular -->
```python
raise KeyError(third)
```
"""


def test_blocks_are_found_and_run_in_one_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "text.md"
    file.write_text(TEXT, encoding="utf-8")
    first, second, last = snippets(file)
    assert [first.line, second.line, last.line] == [4, 12, 22]
    assert second.code == "if second == 2:\n    third = 3\n"
    assert (first.given, last.given) == ("", "nothing in particular")
    names: dict[str, object] = {}
    first.run(names)
    second.run(names)
    assert names["third"] == 3
    monkeypatch.setitem(GIVEN, "nothing in particular", lambda: {"third": 4})
    with pytest.raises(KeyError, match="4") as raised:
        last.run(names)
    frame = traceback.extract_tb(raised.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno) == (str(file), 22)
