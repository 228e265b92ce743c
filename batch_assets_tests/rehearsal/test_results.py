"""What befalls records and result files, and what the books say of it."""

import collections
import json
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from batch_assets_tests.rehearsal.aws import Aws, aws, request
from batch_assets_tests.waiting import wait_until


def errors_of(results: list[dict[str, Any]]) -> collections.Counter[Any]:
    return collections.Counter(result["error"]["errorCode"] for result in results if "error" in result)


@pytest.mark.parametrize(
    ("fault", "code", "expired", "retryable"),
    [
        ("throttled", 429, False, True), ("internal", 500, False, True), ("timeout", 408, False, True),
        ("expired", 400, True, True), ("forbidden", 403, False, False), ("refused", 400, False, False),
    ],
)  # fmt: skip
def test_record_errors(fault: str, code: int, expired: bool, retryable: bool) -> None:
    with aws(records={fault: 0.3}) as cloud:
        cloud.put_texts(300)
        done = cloud.run()
        results = cloud.results(done)
        failed = [result["error"] for result in results if "error" in result]
        assert done["status"] == "Completed" and len(results) == 300
        assert done["errorRecordCount"] == len(failed) and 50 < len(failed) < 130
        for error in failed:
            assert (error["errorCode"], error["expired"], error["retryable"]) == (code, expired, retryable)
            assert error["errorMessage"]
        assert all(("error" in result) != ("modelOutput" in result) for result in results)
        assert cloud.server.books.as_dict()["records"]["paid"] == 300 - len(failed)


def test_the_forms_of_errors() -> None:
    with aws(records={"throttled": 1, "code_as_text": 0.5, "bare_errors": 0.5}) as cloud:
        cloud.put_texts(100)
        errors = [result["error"] for result in cloud.results(cloud.run())]
        assert {type(error["errorCode"]) for error in errors} == {int, str}
        assert {len(error) for error in errors} == {2, 4}


def test_a_refused_input_is_refused_again_and_a_throttled_one_may_pass() -> None:
    for fault, same in (("refused", True), ("throttled", False)):
        with aws(records={fault: 0.2}) as cloud:
            cloud.put_texts(200)
            failed = [
                {result["recordId"] for result in cloud.results(cloud.run()) if "error" in result}
                for _ in range(2)
            ]
            assert (failed[0] == failed[1]) is same


def test_every_record_may_fail_though_the_job_is_completed() -> None:
    with aws(jobs={"all_records_fail": 1}) as cloud:
        cloud.put_texts(30)
        done = cloud.run()
        assert done["status"] == "Completed" and errors_of(cloud.results(done)) == {429: 30}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"inputText": ""}, "expected minLength: 1, actual: 0"),
        ({"inputText": ["a"]}, "expected type: String"),
        ({"inputText": "a" * 50_001}, "expected maxLength: 50000, actual: 50001"),
        (
            {"inputText": "word " * 9000},
            "Too many input tokens. Max input tokens: 8192, request input token count: 95",
        ),
        ({"dimensions": 300}, "300 is not a valid enum value"),
        ({"normalize": "yes"}, "expected type: Boolean"),
        ({"embeddingTypes": ["int8"]}, "not a valid enum value"),
        ({"modelId": "x"}, "extraneous key [modelId] is not permitted"),
    ],
)
def test_the_model_refuses_what_it_would_refuse(body: dict[str, Any], words: str) -> None:
    with aws() as cloud:
        cloud.put([request(1), request(2, **body)])
        by_id = {result["recordId"]: result for result in cloud.results(cloud.run())}
        assert "modelOutput" in by_id["00000000001"]
        error = by_id["00000000002"]["error"]
        assert error["errorCode"] == 400 and words in error["errorMessage"] and error["retryable"] is False


def readable(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The lines that can be parsed, and how many cannot."""
    good, bad = [], 0
    for line in data.splitlines():
        try:
            good.append(json.loads(line))
        except ValueError:
            bad += 1
    return good, bad


def test_lines_missing_doubled_garbled_foreign_and_cut() -> None:
    faults = {
        "missing_lines": 0.1,
        "doubled_lines": 0.1,
        "garbled_lines": 0.1,
        "foreign_lines": 0.1,
        "cut_tail": 1,
    }
    with aws(output=faults) as cloud:
        cloud.put_texts(400)
        done = cloud.run()
        data = cloud.raw(done)
        good, bad = readable(data)
        assert not data.endswith(b"\n") and bad > 20
        seen = collections.Counter(result["recordId"] for result in good)
        sent = {f"{number:011d}" for number in range(400)}
        assert len(seen.keys() - sent) > 20, "foreign"
        assert sum(count > 1 for count in seen.values()) > 20, "doubled"
        assert 300 < len(seen.keys() & sent) < 350, "missing or garbled"
        # The manifest counts what was computed, not what arrived.
        assert cloud.manifest(done)["successRecordCount"] == done["successRecordCount"] == 400
        records = cloud.server.books.as_dict()["records"]
        assert records["paid"] == 400 and records["spoiled"] == 400 - len(seen.keys() & sent)


def test_bad_output() -> None:
    with aws(records={"bad_output": 1}) as cloud:
        cloud.put_texts(60)
        kinds: set[str] = set()
        for result in cloud.results(cloud.run()):
            vector = result["modelOutput"].get("embedding")
            kinds.add("none" if vector is None else "nulls" if None in vector else f"{len(vector)}")
        assert kinds == {"none", "nulls", "255"}
        assert cloud.server.books.as_dict()["records"]["spoiled"] == 60


def test_output_late_or_never() -> None:
    with aws(output={"late": 1, "late_seconds": [1000, 1000]}) as cloud:
        cloud.put_texts(3)
        done = cloud.run()
        assert done["status"] == "Completed" and cloud.written() == []
        cloud.server.set_clock(advance=1001)
        wait_for(cloud, 2)
    with aws(output={"late_manifest": 1}) as cloud:
        cloud.put_texts(3)
        cloud.run()
        assert [key.rsplit("/", 1)[1] for key in cloud.written()] == ["a.jsonl.out"]
        cloud.server.set_clock(advance=1000)
        wait_for(cloud, 2)
    with aws(output={"absent_manifest": 1}) as cloud:
        cloud.put_texts(3)
        cloud.run()
        cloud.server.set_clock(advance=100_000)
        assert [key.rsplit("/", 1)[1] for key in cloud.written()] == ["a.jsonl.out"]
    with aws(output={"absent": 1}) as cloud:
        cloud.put_texts(3)
        assert cloud.run()["status"] == "Completed"
        cloud.server.set_clock(advance=100_000)
        assert cloud.written() == [] and cloud.server.books.as_dict()["records"]["spoiled"] == 3


def wait_for(cloud: Aws, files: int) -> None:
    wait_until(lambda: len(cloud.written()) == files, cloud.written)


def test_the_books_know_what_was_paid_for_again() -> None:
    with aws(output={"missing_lines": 0.2}) as cloud:
        cloud.put_texts(100)
        first = cloud.run()
        books = cloud.server.books.as_dict()
        lost = {f"{number:011d}" for number in range(100)} - {
            result["recordId"] for result in cloud.results(first)
        }
        assert books["records"]["paid_again"] == 0 and books["records"]["spoiled"] == len(lost) > 5
        cloud.server.scenario = cloud.server.scenario.changed({"output": {"missing_lines": 0}})
        # What never arrived may be asked for again; one that arrived, may not.
        again = [request(int(number)) for number in lost]
        arrived = next(number for number in range(100) if f"{number:011d}" not in lost)
        cloud.put([*again, request(arrived)])
        second = cloud.run()
        books = cloud.server.books.as_dict()
        assert books["records"]["paid_again"] == 1
        assert list(books["paid_again"].values()) == [{"times": 2, "paid": 2, "spoiled": 0}]
        tokens = sum(cloud.manifest(job)["inputTokenCount"] for job in (first, second))
        assert books["input_tokens"] == tokens and books["usd"] == pytest.approx(tokens * 0.01 / 1e6)
        runtime = cloud.client("bedrock-runtime")
        runtime.invoke_model(
            modelId="amazon.titan-embed-text-v2:0", body=json.dumps(request(arrived)["modelInput"])
        )
        assert cloud.server.books.as_dict()["on_demand"]["usd"] == pytest.approx(4 * 0.02 / 1e6, rel=0.3)
        assert [known.paid for known in cloud.server.books.paid_again().values()] == [3]


def test_obstore_reads_what_the_runner_wrote() -> None:
    with aws(calls={"s3_slow_down": 0.2}) as cloud:
        store = S3Store(
            cloud.bucket,
            endpoint=cloud.server.endpoint,
            region="us-east-1",
            access_key_id="key",
            secret_access_key="secret",
            client_options={"allow_http": True},
            retry_config={"max_retries": 10},
        )
        lines = "\n".join(json.dumps(request(number)) for number in range(50))
        obstore.put(store, "in/a.jsonl", lines.encode())
        done = cloud.run()
        assert done["status"] == "Completed"
        (key,) = [
            item["path"] for page in obstore.list(store, "out/") for item in page if "jsonl" in item["path"]
        ]
        results = bytes(obstore.get(store, key).bytes())
        assert len(results.splitlines()) == 50


NOVA = {
    "schemaVersion": "nova-multimodal-embed-v1",
    "taskType": "SINGLE_EMBEDDING",
    "singleEmbeddingParams": {
        "embeddingPurpose": "GENERIC_INDEX",
        "embeddingDimension": 1024,
        "text": {"truncationMode": "END", "value": "long " * 10_000},
    },
}
CLAUDE = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "What?"}],
}
CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": "Tell me " * 50}]}],
    "inferenceConfig": {"maxTokens": 10},
}


def output_of(model: str, body: dict[str, Any], kind: str = "InvokeModel") -> dict[str, Any]:
    """The model's output for this input; the same input with a key too many is refused."""
    with aws() as cloud:
        cloud.put(
            [
                {"recordId": "1", "modelInput": body},
                {"recordId": "2", "modelInput": body | {"modelId": model}},
            ]
        )
        done = cloud.run(modelId=model, modelInvocationType=kind)
        by_id = {result["recordId"]: result for result in cloud.results(done)}
        assert by_id["2"]["error"]["errorCode"] == 400
        return by_id["1"]["modelOutput"]


def test_titan_multimodal() -> None:
    body = {"inputText": "a cat", "embeddingConfig": {"outputEmbeddingLength": 384}}
    output = output_of("amazon.titan-embed-image-v1", body)
    assert (
        len(output["embedding"]) == 384 and output["inputTextTokenCount"] == 2 and output["message"] is None
    )


def test_nova_multimodal_cuts_what_is_too_long() -> None:
    (embedding,) = output_of("amazon.nova-2-multimodal-embeddings-v1:0", NOVA)["embeddings"]
    assert embedding["embeddingType"] == "TEXT" and len(embedding["embedding"]) == 1024
    assert 30_000 < embedding["truncatedCharLength"] < 50_000


def test_claude() -> None:
    output = output_of("us.anthropic.claude-sonnet-4-5-20250929-v1:0", CLAUDE)
    assert output["content"][0]["text"].endswith("What?") and output["stop_reason"] == "end_turn"
    assert output["usage"]["input_tokens"] > 0 and output["usage"]["output_tokens"] > 0


def test_converse() -> None:
    output = output_of("amazon.nova-lite-v1:0", CONVERSE, "Converse")
    assert output["stopReason"] == "max_tokens" and output["usage"]["outputTokens"] <= 10
    assert output["output"]["message"]["content"][0]["text"]
