"""Use the ops for minutes, in threads and again and again, and check every result.

`make soak` runs it.  `tools.soak.stages` says what each stage does and promises.
"""
