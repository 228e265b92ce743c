"""What docs/openai-batch.md shows runs as it is shown."""

import json
import re
from pathlib import Path

import pytest
import yaml

from batch_assets.requests.batches.lines import Line, LineReader, RawLine
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.server.openai_client import CHAT, served

PAGE = Path(__file__).parents[2] / "docs" / "openai-batch.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_clients_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCH_ASSETS_TOKEN", "a" * 16)
    with served(tmp_path) as server:
        code, _ = blocks("python")
        assert "http://127.0.0.1:8300" in code and "time.sleep(10)" in code
        code = code.replace("http://127.0.0.1:8300", server.client.url).replace("time.sleep(10)", "compute()")
        exec(code, {"compute": server.compute})
    told = capsys.readouterr().out
    assert "completed BatchRequestCounts(completed=2, failed=0, total=2)" in told
    assert re.findall(r"^call-\d \[", told, re.MULTILINE) == ["call-0 [", "call-1 ["]


def test_the_call_of_a_chat_is_one_for_the_pipeline_that_is_shown() -> None:
    [shown] = [text for text in blocks("yaml") if "task: generate" in text]
    settings = parse_pipeline(yaml.safe_load(shown)["attributes"], "qwen", PAGE.name)
    [body] = blocks("json")
    call = {"custom_id": "a", "method": "POST", "url": CHAT, "body": json.loads(body)}
    data = json.dumps(call).encode()
    line = LineReader(settings, CHAT).read(RawLine(1, data, len(data)))
    assert isinstance(line, Line) and (line.code, line.message) == (None, None)
