"""What the documentation promises exists: commands, flags, links, and the YAML it shows."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from batch_assets.cli.app import app
from batch_assets.components.attributes import load_file
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.module_imports import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "examples").glob("*/README.md")),
]
EXAMPLES = [
    *sorted((REPOSITORY / "examples").glob("*/defs.yaml")),
    *sorted((REPOSITORY / "examples" / "rehearsal").glob("*.yaml")),
    *sorted((REPOSITORY / "batch_assets" / "defs").glob("*/defs.yaml")),
]
COMPONENT = "batch_assets.components.EmbeddingPipeline"
# What examples take from the environment.
ENVIRONMENT = {
    "BEDROCK_ROLE_ARN": "arn:aws:iam::123456789012:role/batch-assets",
    "BEDROCK_STAGING": "s3://bucket/staging/",
    "BEDROCK_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/batch-assets",
    "SAGEMAKER_MODEL": "batch-assets",
    "SAGEMAKER_STAGING": "s3://bucket/staging/",
    "SAGEMAKER_ROOT": "s3://bucket/embeddings/",
    "SAGEMAKER_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/batch-assets",
    "BATCH_JOB_QUEUE": "arn:aws:batch:us-east-1:123456789012:job-queue/batch-assets",
    "BATCH_JOB_DEFINITION": "batch-assets-worker",
    "BATCH_ROOT": "s3://bucket/embeddings/",
    "BATCH_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/batch-assets",
}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())


def fences(page: Path) -> Iterator[tuple[str, str]]:
    """Language and content of every fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        yield match[1], match[2]


def commands(page: Path) -> Iterator[str]:
    """Every line of code in blocks and in spans; a line that goes on after a backslash is one."""
    for _, block in fences(page):
        yield from (line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines())
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    yield from (match[1].strip() for match in re.finditer(r"`([^`\n]+)`", prose))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def flags_by_verb() -> dict[str, set[str]]:
    """The flags of each verb of the command."""
    group = typer.main.get_group(app)
    return {
        verb: {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        | {"--help"}
        for verb, command in group.commands.items()
    }


@pages
def test_make_targets_exist(page: Path) -> None:
    # In prose, too: a reader cannot tell the verb from the command.
    named = set(re.findall(r"\bmake ([a-z-]+)", page.read_text()))
    assert named - make_targets() == set()


@pages
def test_verbs_and_flags_exist(page: Path) -> None:
    known = flags_by_verb()
    wrong: list[str] = []
    for line in commands(page):
        if match := re.match(r"(?:[A-Z_]+=\S+ )*(?:\S*/)?batch-assets ([a-z]+)\b(.*)", line):
            flags = re.findall(r"(?<!\S)--?[a-z][a-z_.-]*", match[2].split(" #")[0])
            named = {flag.replace("_", "-") for flag in flags}
            if match[1] not in known or named - known[match[1]]:
                wrong.append(line)
        elif re.fullmatch(r"--[a-z][a-z_-]*", line):
            flag = line.replace("_", "-")
            wrong += [] if any(flag in flags for flags in known.values()) else [line]
    assert wrong == []


@pages
def test_relative_links_lead_somewhere(page: Path) -> None:
    lost: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            lost.append(target)
    assert lost == []


def anchors(page: Path) -> set[str]:
    """The headings of a page as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_pipelines_shown_are_valid(page: Path) -> None:
    for language, block in fences(page):
        if language == "yaml" and COMPONENT in block:
            parse_pipeline(yaml.safe_load(block)["attributes"], "shown", page.name)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_example_pipelines_are_valid(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert yaml.safe_load(file.read_text())["type"] == COMPONENT
    (settings,) = load_file(file)
    assert settings.name == file.parent.name


def test_images_copy_what_exists() -> None:
    sources = [
        source
        for line in (REPOSITORY / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for source in line.split()[1:-1]
    ]
    assert [source for source in sources if not (REPOSITORY / source).exists()] == []
    sent = {
        line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert sent == set(sources)
