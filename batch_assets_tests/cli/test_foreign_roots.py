"""An output root is data: whoever wrote it has nothing run, reached or ordered on the machine that reads it."""

import json
import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets_tests.builders import make_light_model
from batch_assets_tests.cli.test_images import OWN_MODEL, shard_file
from batch_assets_tests.command import Machine, make_machine, some_records, write_records
from batch_assets_tests.http_server import http_server

FLAG = "--trust-remote-code"
NAME = "texts"
DEFS = """
type: batch_assets.components.EmbeddingPipeline
attributes:
  name: texts
  source: {{uri: {folder}/in.jsonl, id_column: id}}
  model: {{id: {folder}/model, trust_remote_code: true}}
  output: {{root: {folder}/out}}
"""
BEDROCK = {
    "type": "bedrock", "role_arn": "arn:aws:iam::123456789012:role/theirs", "model_id": "theirs",
    "staging": "s3://theirs/staging/", "queue_url": "http://127.0.0.1:9/queue",
}  # fmt: skip


def marking_model(folder: Path, marker: Path) -> Path:
    """A model whose code, as soon as it runs, makes the file `marker`."""
    make_light_model(folder)
    (folder / "model.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n" + (folder / "model.py").read_text()
    )
    return folder


def change(root: Path, *keys: str, to: Any) -> None:
    """Write a value into the configuration of a root's pipeline.json, as whoever can write the root may."""
    owner = orjson.loads((root / "pipeline.json").read_bytes())
    place = owner["configuration"]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    (root / "pipeline.json").write_bytes(orjson.dumps(owner))


def content(root: Path) -> dict[str, bytes]:
    """Every file under a root."""
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class Site:
    """A published root, the machine that made it, another machine, and the file that the model's code makes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.ran = folder, folder / "out", folder / "ran"
        write_records(folder / "in.jsonl", some_records(5))
        marking_model(folder / "model", self.ran)
        (folder / "theirs").mkdir()
        self.file = folder / "theirs" / "defs.yaml"
        self.file.write_text(DEFS.format(folder=folder))
        (folder / "none").mkdir()
        self.maker = self.machine("maker")
        result = self.maker.run("run", "-f", self.file)
        assert result.returncode == 0, result.stderr
        self.ran.unlink()

    def machine(self, name: str) -> Machine:
        return make_machine(self.folder / name, BATCH_ASSETS_DEFS=str(self.folder / "none"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
def site(made: Site) -> Site:
    """The root as it was made; whatever a test does to it, the next one finds it so again."""
    kept = made.folder / "kept"
    if not kept.exists():
        shutil.copytree(made.root, kept)
    shutil.rmtree(made.root)
    shutil.copytree(kept, made.root)
    made.ran.unlink(missing_ok=True)
    return made


@pytest.mark.parametrize("verb", ["search", "run", "plan"])
def test_a_root_runs_its_models_code_only_where_a_person_says_so(site: Site, verb: str) -> None:
    stranger = site.machine(f"stranger_{verb}")
    arguments = [verb, site.root, *(["quick fox"] if verb == "search" else [])]
    before = content(site.root)
    refused = stranger.run(*arguments)
    assert refused.returncode == 2, refused.stderr
    assert FLAG in refused.stderr and str(site.folder / "model") in refused.stderr
    assert not site.ran.exists(), "the root's code has run"
    assert content(site.root) == before
    allowed = stranger.run(*arguments, FLAG)
    assert allowed.returncode == 0, allowed.stderr
    if verb != "plan":
        assert site.ran.exists()
    # What a person has allowed this ledger's own pipeline holds from then on; a look at a root makes it nobody's own.
    again = stranger.run("search", site.root, "quick fox")
    assert again.returncode == (2 if verb == "search" else 0), again.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["status"], 0), (["verify"], 0), (["retry"], 0), (["stop"], 0), (["cleanup", "--dry-run"], 2)],
)
def test_other_verbs_run_nothing_of_a_root(site: Site, arguments: list[str], code: int) -> None:
    before = content(site.root)
    result = site.machine("looking").run(arguments[0], site.root, *arguments[1:])
    assert result.returncode == code, result.stderr
    assert not site.ran.exists()
    assert content(site.root) == before


@pytest.mark.parametrize("target", ["root", "name"])
def test_the_ledgers_own_pipeline_is_what_it_ran_whatever_the_root_says_since(
    site: Site, target: str
) -> None:
    evil = site.folder / "evil"
    change(site.root, "model", "id", to=str(marking_model(site.folder / "evil_model", evil)))
    change(site.root, "executor", to=BEDROCK)
    result = site.maker.run("search", site.root if target == "root" else NAME, "quick fox")
    assert result.returncode == 0, result.stderr
    assert site.ran.exists() and not evil.exists()


def test_a_copy_of_an_own_root_is_somebodys(site: Site) -> None:
    copy = Path(shutil.copytree(site.root, site.folder / "copy", dirs_exist_ok=True))
    refused = site.maker.run("search", copy, "quick fox")
    assert refused.returncode == 2 and FLAG in refused.stderr
    assert not site.ran.exists()
    assert site.maker.run("verify", copy).returncode == 0
    before = json.loads(site.maker.run("status", NAME, "--json").stdout)
    for arguments in (["retry", copy, "--recompute"], ["stop", copy], ["run", copy, FLAG]):
        result = site.maker.run(*arguments)
        assert result.returncode == 2, result.stderr
        assert f"calls itself {NAME!r}" in result.stderr and str(site.root) in result.stderr
    assert json.loads(site.maker.run("status", NAME, "--json").stdout) == before, (
        "the own pipeline was changed"
    )


def test_a_root_that_was_moved_asks_for_its_permissions_once_more(site: Site) -> None:
    maker = site.machine("mover")
    assert maker.run("run", "-f", site.file).returncode == 0
    site.ran.unlink(missing_ok=True)
    moved = site.folder / "moved"
    site.root.rename(moved)
    try:
        refused = maker.run("run", moved)
        assert refused.returncode == 2 and FLAG in refused.stderr
        assert not site.ran.exists()
        assert maker.run("run", moved, FLAG).returncode == 0
        assert maker.run("search", moved, "quick fox").returncode == 0
    finally:
        moved.rename(site.root)


@pytest.mark.parametrize("verb", ["search", "run", "stop", "cleanup", "rehearse"])
def test_a_root_orders_nothing_in_an_account(site: Site, verb: str) -> None:
    change(site.root, "executor", to=BEDROCK)
    stranger = site.machine("stranger_of_accounts")
    result = stranger.run(verb, site.root, *(["quick fox"] if verb == "search" else []))
    assert result.returncode == 2, result.stderr
    assert "executor.type: 'bedrock'" in result.stderr and "-f FILE.yaml" in result.stderr
    assert stranger.run("verify", site.root).returncode == 0
    assert stranger.run("status", site.root).returncode in (0, 2)


def test_a_private_address_is_asked_only_where_a_person_says_so(tmp_path: Path) -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None: ...

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "00000.tar").write_bytes(shard_file())
    model = make_light_model(tmp_path / "model")
    (model / "model.py").write_text(OWN_MODEL.format(ran=str(tmp_path / "ran")))
    maker = make_machine(tmp_path / "maker")
    made = maker.run(
        "run", "--input", tmp_path / "in", "--output", tmp_path / "out", "--model", model,
        "--format", "webdataset", FLAG, "--allow-private-addresses", "--max-failed", "1",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    stranger = make_machine(tmp_path / "stranger")
    with http_server(Server) as url:
        query = f"{url}/a.jpg"
        refused = stranger.run("search", tmp_path / "out", query, FLAG)
        assert refused.returncode == 2, refused.stderr
        assert "127.0.0.1" in refused.stderr and "--allow-private-addresses" in refused.stderr
        assert asked == []
        assert (
            stranger.run("search", tmp_path / "out", query, FLAG, "--allow-private-addresses").returncode == 2
        )
        assert asked, "it was allowed by name"
        before = len(asked)
        assert maker.run("search", tmp_path / "out", query).returncode == 2
        assert len(asked) > before, "the ledger knows what its own pipeline may do"
