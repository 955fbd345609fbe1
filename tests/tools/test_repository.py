"""The files that a visitor of the repository meets: workflows, forms, hooks, documents."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FOLDERS_OF_DOCUMENTS = (".github", "benchmarks", "docs", "requirements", "vulkan_glsl", "wgsl")
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *(path for name in FOLDERS_OF_DOCUMENTS for path in sorted((ROOT / name).rglob("*.md"))),
]
SCHEMAS = {
    **dict.fromkeys(WORKFLOWS, "vendor.github-workflows"),
    **{path: "vendor.github-issue-forms" for path in FORMS if path.stem != "config"},
    **{path: "vendor.github-issue-config" for path in FORMS if path.stem == "config"},
    ROOT / "CITATION.cff": "vendor.citation-file-format",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def make_targets() -> set[str]:
    """Return the targets of the Makefile that `make help` lists."""
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of this environment in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("path", SCHEMAS, ids=relative)
def test_a_file_follows_its_published_schema(path: Path) -> None:
    done = python("check_jsonschema", "--builtin-schema", SCHEMAS[path], str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_workflow_that_breaks_the_schema_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs_on:"))
    done = python("check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(broken))
    assert done.returncode == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=relative)
def test_a_workflow_runs_targets_that_exist(path: Path) -> None:
    steps = [step for job in read_yaml(path)["jobs"].values() for step in job["steps"]]
    run = [line for step in steps for line in step.get("run", "").splitlines()]
    called = {line.split()[1] for line in run if line.startswith("make ")}
    assert called
    assert called <= make_targets()


@pytest.mark.parametrize("path", WORKFLOWS, ids=relative)
def test_a_workflow_pins_what_it_uses(path: Path) -> None:
    used = re.findall(r"uses:\s*(\S+)", path.read_text())
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in used), used


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_a_document_names_targets_that_exist(path: Path) -> None:
    """In code: "make sure" is prose."""
    text = path.read_text(encoding="utf-8")
    code = re.findall(r"`([^`\n]+)`|^    (.*)$", text, re.M)
    named = {
        match.group(1)
        for pair in code
        for match in re.finditer(r"\bmake ([a-z][a-z-]*)", "".join(pair))
    }
    assert named <= make_targets()


def test_documents_link_to_files_that_exist() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{relative(path)} links to {target}"


def test_the_promises_name_tests_that_exist() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`((?:tests|tools)/[\w/.]+)`", page)
    assert len(named) > 15
    for path in named:
        assert (ROOT / path).exists(), path


def test_every_target_has_a_description_and_is_phony() -> None:
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.M)
    assert set(phony.split()) == make_targets() | {"help"}


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["keywords"] == project["keywords"]


def test_wrong_numbers_come_with_the_output_of_the_check() -> None:
    form = read_yaml(ROOT / ".github" / "ISSUE_TEMPLATE" / "wrong-numbers.yml")
    field = next(entry for entry in form["body"] if entry.get("id") == "check")
    assert "wgpu-q4 check --json" in field["attributes"]["label"]
    assert field["validations"]["required"] is True


def test_the_hooks_are_those_that_are_installed() -> None:
    """Each hook starts a program of the locked environment."""
    config = read_yaml(ROOT / ".pre-commit-config.yaml")
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {"ruff-check", "ruff-format", "mypy", "end-of-file-fixer"} <= {h["id"] for h in hooks}
    done = python("pre_commit", "validate-config", ".pre-commit-config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    for hook in hooks:
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/")
        assert (Path(sys.prefix) / "bin" / Path(program).name).exists(), program
