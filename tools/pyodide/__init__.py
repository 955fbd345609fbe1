"""Pyodide, which is Python for browsers: its parts, and the folder of the page that runs on it.

* `parts`  where Pyodide and numpy for it lie, and how numpy is fetched
* `page`   the folder of ``examples/pyodide``, with this package's wheel
"""
