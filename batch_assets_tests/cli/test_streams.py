"""The command with outputs of every kind: of a poor encoding, closed, or without a reader.

Each is a process started anew, by a shell, since that is where its outputs come from.
"""

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from batch_assets_tests.command import Machine, make_machine, write_records
from batch_assets_tests.waiting import PATIENCE_SECONDS

PACKAGE = Path(__file__).parents[2]
COMMAND = shlex.join([sys.executable, "-c", "from batch_assets.cli import main; main()"])
TEXTS = ["\x1b]0;owned\x07 Привет 👩‍👧", "\x9b2J \u202etxt [bold]quiet[/bold]", "hills in the rain\r\x1b[8m"]
LEFT_OUT = r".x\n- note: out\x1b[2j"
DEFS = """
type: batch_assets.components.EmbeddingPipeline
attributes:
  source: {{uri: "{folder}/in"}}
  model: {{id: "{model}", dtype: float32}}
  output: {{root: "{folder}/out"}}
"""
POOR = [
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@dataclass(frozen=True)
class Site:
    """A deployment with one pipeline, `texts`, that has run."""

    machine: Machine
    folder: Path

    def shell(self, line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """Run a line of a shell, in which `batch-assets` is the command."""
        return subprocess.run(
            ["bash", "-c", f'batch-assets() {{ {COMMAND} "$@"; }}; {line}'],
            env=self.machine.environment | {"PYTHONPATH": str(PACKAGE)} | environment,
            cwd=self.folder,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )


def make_site(folder: Path, model: Path) -> Site:
    write_records(folder / "in" / "a\nb\x1b[2J.jsonl", [{"text": text} for text in TEXTS])
    (folder / "in" / "left.x\n- note: out\x1b[2j").write_text("not read")
    file = folder / "defs" / "texts" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DEFS.format(folder=folder, model=model))
    return Site(make_machine(folder / "home", BATCH_ASSETS_DEFS=str(folder / "defs")), folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Site:
    made = make_site(tmp_path_factory.mktemp("streams"), tiny_model)
    result = made.machine.run("run", "texts")
    assert result.returncode == 0, result.stderr
    return made


@pytest.fixture
def fresh_site(tmp_path: Path, tiny_model: Path) -> Site:
    return make_site(tmp_path, tiny_model)


def test_what_search_finds_is_shown_and_not_obeyed(site: Site) -> None:
    found = site.machine.run("search", "texts", "rain")
    assert found.returncode == 0, found.stderr
    assert sorted(line.split("  ", 2)[2] for line in found.stdout.splitlines()) == sorted(
        [
            r"\x1b]0;owned\x07 Привет 👩‍👧",
            r"\x9b2J \u202etxt [bold]quiet[/bold]",
            r"hills in the rain \x1b[8m",
        ]
    )


def test_a_file_name_forges_no_note_and_moves_no_cursor(site: Site) -> None:
    # It has come by way of Dagster, as Markdown.
    told = site.machine.run("plan", "texts").stderr
    assert "\x1b" not in told
    home, note = told.splitlines()
    assert home.startswith("home: ")
    assert note.startswith("note: left out") and LEFT_OUT in note


@pytest.mark.parametrize("environment", POOR, ids=["latin-1", "C"])
def test_a_poor_encoding_changes_no_exit_code(site: Site, environment: dict[str, str]) -> None:
    searched = site.shell("batch-assets search texts Привет", **environment)
    assert searched.returncode == 0, searched.stderr
    assert rb"\u041f\u0440\u0438\u0432\u0435\u0442 \U0001f469" in searched.stdout
    refused = site.shell("batch-assets status Привет", **environment)
    assert refused.returncode == 2
    assert b"Traceback" not in refused.stderr


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_closed_output_is_no_error_and_nothing_is_printed_into_a_database(
    fresh_site: Site, closed: str
) -> None:
    result = fresh_site.shell(f"batch-assets run texts {closed}")
    assert result.returncode == 0, result.stderr
    assert b"Traceback" not in result.stderr
    assert json.loads(fresh_site.machine.run("status", "texts", "--json").stdout)["records"]["embedded"] == 3
    assert fresh_site.machine.run("verify", "texts").returncode == 0


@pytest.mark.parametrize(
    ("verb", "code"), [("plan texts", 0), ("search texts rain", 0), ("--help", 0), ("status nowhere", 2)]
)
def test_other_verbs_end_as_they_do_with_their_outputs_open(site: Site, verb: str, code: int) -> None:
    assert site.shell(f"batch-assets {verb} >&- 2>&-").returncode == code


def test_results_that_cannot_be_written_are_an_error_and_messages_that_cannot_be_are_none(site: Site) -> None:
    result = site.shell("batch-assets status texts >/dev/full")
    assert result.returncode == 1
    assert result.stderr.decode().splitlines()[1:] == ["error: [Errno 28] No space left on device"]
    for silent in ("2>/dev/full", "2>&-"):
        result = site.shell(f"batch-assets status texts {silent}")
        assert result.returncode == 0
        assert b"1 collected" in result.stdout


def test_a_reader_that_has_gone_fails_no_run(fresh_site: Site) -> None:
    result = fresh_site.shell("set -o pipefail; batch-assets run texts 2>&1 | true")
    assert result.returncode == 0, result.stderr
    assert b"Traceback" not in result.stderr
    assert fresh_site.machine.run("verify", "texts").returncode == 0


@pytest.mark.parametrize("verb", ["search texts rain", "status texts", "--help"])
def test_a_reader_that_has_gone_is_no_error(site: Site, verb: str) -> None:
    result = site.shell(f"set -o pipefail; batch-assets {verb} | true")
    assert result.returncode == 0, result.stderr
    assert b"rror" not in result.stderr
    assert b"Traceback" not in result.stderr
