"""Request files: every limit kept, every record in them once, what is too long cut or refused."""

import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.errors import ConfigurationError
from batch_assets.executors.bedrock.quotas import Quotas
from batch_assets.executors.bedrock.requests import RenderedRequests, RequestFiles, fit, render, token_bound
from batch_assets.storage import open_storage
from batch_assets_tests.executors.bedrock.builders import CLAUDE, family, records_of

FOLDER, STEM = "jobs/g0001-00007/3/requests", "g0001-00007-3"


def render_texts(
    root: Path,
    texts: list[str],
    *,
    quotas: Quotas | None = None,
    fields: dict[str, Any] | None = None,
    **options: Any,
) -> RenderedRequests:
    out = RequestFiles(open_storage(str(root)), FOLDER, STEM, quotas or Quotas())
    batches = [records_of(texts[start : start + 3], start) for start in range(0, len(texts), 3)]
    return render(batches, family(**(fields or {})), out, **options)


def lines_of(root: Path, rendered: RenderedRequests) -> list[dict[str, Any]]:
    return [
        orjson.loads(line)
        for file in rendered.files
        for line in (root / file.path).read_bytes().split(b"\n")[:-1]
    ]


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), max_size=30
    ),
    per_file=st.integers(1, 12),
    file_bytes=st.integers(400, 2000),
)
def test_render_and_parse(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], per_file: int, file_bytes: int
) -> None:
    root = tmp_path_factory.mktemp("requests")
    rendered = render_texts(root, texts, quotas=Quotas(records_per_file=per_file, file_bytes=file_bytes))
    lines = lines_of(root, rendered)
    assert [line["recordId"] for line in lines] == [f"{ordinal:011d}" for ordinal in range(len(texts))]
    assert [line["modelInput"]["inputText"] for line in lines] == texts
    assert all(
        line.keys() == {"recordId", "modelInput"} and "modelId" not in line["modelInput"] for line in lines
    )
    assert rendered.ordinals == list(range(len(texts)))
    assert [file.path for file in rendered.files] == [
        f"{FOLDER}/{STEM}-{number:05d}.jsonl" for number in range(len(rendered.files))
    ]
    for file in rendered.files:
        content = (root / file.path).read_bytes()
        assert (len(content), content.count(b"\n")) == (file.bytes, file.records)
        assert hashlib.sha256(content).hexdigest() == file.sha256
        assert file.records <= per_file and file.bytes <= file_bytes
    assert rendered.input_token_bound == sum(len(text.encode()) + 8 for text in texts)


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    rendered = render_texts(tmp_path, ["a", "b", "c", "d", "e"], ordinals=[4, 1])
    assert rendered.ordinals == [1, 4]
    assert [line["modelInput"]["inputText"] for line in lines_of(tmp_path, rendered)] == ["b", "e"]


def test_nothing_to_ask_makes_no_file(tmp_path: Path) -> None:
    assert render_texts(tmp_path, [], ordinals=[]).files == []
    assert list(tmp_path.rglob("*.jsonl")) == []


@pytest.mark.parametrize("quotas", [Quotas(records_per_job=2), Quotas(job_bytes=250)])
def test_more_than_a_job_takes_is_refused_and_leaves_nothing(tmp_path: Path, quotas: Quotas) -> None:
    small = Quotas(**(vars(quotas) | {"records_per_file": 1}))
    with pytest.raises(ConfigurationError, match=r"lower shards\.records"):
        render_texts(tmp_path, ["a", "b", "c"], quotas=small)
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    fields = {"model": {"dimensions": 256, "prompt": "query: "}}
    rendered = render_texts(tmp_path, ["x" * 60_000, "short"], fields=fields)
    sent = [line["modelInput"]["inputText"] for line in lines_of(tmp_path, rendered)]
    assert sent == ["query: " + "x" * (50_000 - 7), "query: short"]
    assert rendered.input_token_bound == 8192 + len("query: short") + 8


def test_a_long_text_is_rejected(tmp_path: Path) -> None:
    rendered = render_texts(
        tmp_path, ["x" * 50_001, "y" * 50_000], fields={"executor": {"too_long": "reject"}}
    )
    assert rendered.ordinals == [1]
    assert rendered.too_long == [(0, "the text has 50,001 characters, the model takes 50,000")]


def test_a_text_that_the_model_refused_gets_shorter_each_time(tmp_path: Path) -> None:
    rendered = render_texts(tmp_path, ["x" * 20_000, "y"], narrowed={0: 1, 1: 4})
    assert [len(line["modelInput"]["inputText"]) for line in lines_of(tmp_path, rendered)] == [8_000, 1]
    lengths = [len(fit("x" * 60_000, family(), times) or "") for times in range(4)]
    assert lengths == [50_000, 20_000, 4_096, 2_048]


def test_answers_count_in_the_bound(tmp_path: Path) -> None:
    out = RequestFiles(open_storage(str(tmp_path)), FOLDER, STEM, Quotas())
    asked = family(CLAUDE, model={"max_tokens": 10})
    rendered = render([records_of(["Grüße", "b"])], asked, out)
    assert rendered.output_token_bound == 20
    assert rendered.input_token_bound == 7 + 1 + 2 * asked.template_tokens == token_bound("Grüße", asked) + 65
