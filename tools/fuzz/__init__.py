"""Fuzz the readers of files, guided by coverage (atheris): `python -m tools.fuzz --seconds 60`."""
