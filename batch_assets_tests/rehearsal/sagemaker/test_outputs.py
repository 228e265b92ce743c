"""What transform jobs write: whole objects or none, joined and filtered as DataProcessing says."""

import gzip
import json
from typing import Any

import numpy as np
import pytest

from batch_assets.rehearsal.sagemaker.json_path import PathInvalid, find
from batch_assets.rehearsal.vectors import embed
from batch_assets_tests.rehearsal.sagemaker.cloud import Cloud, cloud


def changed_input(where: Cloud, **changes: Any) -> dict[str, Any]:
    wanted = where.wanted()
    uri = changes.pop("S3Uri", None)
    source = wanted["TransformInput"]["DataSource"]["S3DataSource"]
    source |= {"S3DataType": changes.pop("S3DataType", "S3Prefix")} | ({"S3Uri": uri} if uri else {})
    return wanted["TransformInput"] | changes


def test_vectors_come_back_with_their_ids_in_order() -> None:
    with cloud() as where:
        texts = [f"text number {number}" for number in range(30)]
        where.put_lines("a.jsonl", texts)
        where.put_lines("sub/b.jsonl", ["below"])
        name = where.start()
        assert where.end(name)["TransformJobStatus"] == "Completed"
        assert where.written() == ["out/a.jsonl.out", "out/sub/b.jsonl.out"]
        rows = where.output()
        assert [row["id"] for row in rows] == [f"{number:011d}" for number in range(30)]
        assert np.allclose([row["SageMakerOutput"] for row in rows], embed(texts, 384), atol=1e-6)
        books = where.server.books
        taken = books.transforms[where.describe(name)["TransformJobArn"]]
        assert (taken.succeeded, taken.failed) == (2, 0) and taken.seconds >= 120
        assert books.as_dict()["records"] == {
            "distinct": 31, "processed": 31, "paid": 31, "spoiled": 0, "paid_again": 0,
        }  # fmt: skip


def test_a_record_that_breaks_takes_its_object_along_and_no_other() -> None:
    with cloud() as where:
        where.put_lines("a.jsonl", ["good"])
        where.put_lines("b.jsonl", ["good too", "this BREAKS-OBJECT", "never reached"])
        name = where.start(BatchStrategy="SingleRecord")
        done = where.end(name)
        assert done["TransformJobStatus"] == "Failed"
        assert done["FailureReason"] == "ClientError: See job logs for more information"
        assert where.written() == ["out/a.jsonl.out"]
        assert list(where.server.transforms.all()[0].problems) == ["b.jsonl"]
        # What was computed before the break is paid for in vain.
        assert where.server.books.as_dict()["records"]["spoiled"] == 1


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("m-narrow", lambda value: len(value) == 192),
        ("m-tokens", lambda value: np.shape(value) == (4, 384)),
        ("m-embedding", lambda value: len(value["embedding"]) == 384),
        ("m-nested", lambda value: np.shape(value) == (1, 384)),
        ("m-text", lambda value: value == {"generated_text": "It says: two words"}),
        ("m-text-list", lambda value: value == [{"generated_text": "It says: two words"}]),
    ],
)
def test_what_other_containers_answer(model: str, answer: Any) -> None:
    with cloud() as where:
        where.put_lines("a.jsonl", ["two words"])
        assert where.transform(ModelName=model)["TransformJobStatus"] == "Completed"
        assert answer(where.output()[0]["SageMakerOutput"])


def test_placeholders_and_models_by_the_scenario() -> None:
    with cloud(transform={"models": {"mine*": "placeholder"}}, records={"refused": 1}) as where:
        where.put_lines("a.jsonl", ["bad"])
        assert where.transform(ModelName="mine-tokens")["TransformJobStatus"] == "Completed"
        assert where.output()[0]["SageMakerOutput"].startswith("ERROR")


def test_csv_rows_gain_columns() -> None:
    with cloud(transform={"width": 3}) as where:
        where.s3.put_object(Bucket=where.bucket, Key="in/a.csv", Body='7,"a, b"\n8,c\n')
        done = where.transform(
            TransformInput=changed_input(where, ContentType="text/csv"),
            TransformOutput=where.wanted()["TransformOutput"] | {"Accept": "text/csv"},
            DataProcessing={"InputFilter": "$[1]", "JoinSource": "Input", "OutputFilter": "$[0,2,3,-1]"},
        )
        assert done["TransformJobStatus"] == "Completed"
        body = where.s3.get_object(Bucket=where.bucket, Key="out/a.csv.out")["Body"].read().decode()
        rows = [line.split(",") for line in body.splitlines()]
        assert [row[0] for row in rows] == ["7", "8"]
        assert np.allclose(np.array([row[1:] for row in rows], float), embed(["a, b", "c"], 3), atol=1e-6)


def test_what_is_no_object_is_joined_under_a_name_of_its_own() -> None:
    with cloud() as where:
        where.s3.put_object(Bucket=where.bucket, Key="in/a.jsonl", Body='"just text"')
        where.transform(DataProcessing={"JoinSource": "Input"})
        assert where.output()[0].keys() == {"SageMakerInput", "SageMakerOutput"}


def test_payloads_are_limited_per_record() -> None:
    with cloud() as where:
        where.put_lines("a.jsonl", ["word " * 300_000])
        where.put_lines("b.jsonl", ["short"] * 3)
        done = where.transform(MaxPayloadInMB=1)
        assert done["TransformJobStatus"] == "Failed" and where.written() == ["out/b.jsonl.out"]
        assert "max payload" in where.server.transforms.all()[0].problems["a.jsonl"]


def test_without_lines_the_whole_object_is_a_record_and_answers_run_together() -> None:
    with cloud(transform={"width": 2}) as where:
        where.s3.put_object(Bucket=where.bucket, Key="in/a.jsonl", Body='{"inputs":\n"one"}')
        wanted = {"TransformInput": changed_input(where, SplitType="None"), "DataProcessing": {}}
        assert where.transform(**wanted)["TransformJobStatus"] == "Completed"
        assert len(where.output()[0]) == 2
        where.put_lines("a.jsonl", ["one", "two"])
        output = {"S3OutputPath": f"s3://{where.bucket}/out"}
        where.transform(
            BatchStrategy="SingleRecord", DataProcessing={"InputFilter": "$.inputs"}, TransformOutput=output
        )
        body = where.s3.get_object(Bucket=where.bucket, Key="out/a.jsonl.out")["Body"].read()
        assert b"][" in body and b"\n" not in body


def test_objects_by_prefix_by_manifest_and_zipped() -> None:
    with cloud() as where:
        where.put_lines("part-1.jsonl", ["one"])
        where.put_lines("part-2/x.jsonl", ["two"])
        base = f"s3://{where.bucket}/in/"
        # A prefix is the mere beginning of keys.
        where.transform(TransformInput=changed_input(where, S3Uri=f"{base}part"))
        assert where.written() == ["out/part-1.jsonl.out", "out/part-2/x.jsonl.out"]
        manifest = json.dumps([{"prefix": base}, "part-2/x.jsonl", "part-1.jsonl"])
        where.s3.put_object(Bucket=where.bucket, Key="manifest", Body=manifest)
        by_manifest = changed_input(where, S3DataType="ManifestFile", S3Uri=f"s3://{where.bucket}/manifest")
        output = {"S3OutputPath": f"s3://{where.bucket}/chosen/"}
        where.transform(TransformInput=by_manifest, TransformOutput=output)
        assert where.written("chosen/") == ["chosen/part-1.jsonl.out", "chosen/part-2/x.jsonl.out"]
        where.s3.put_object(
            Bucket=where.bucket, Key="zipped/z.gz", Body=gzip.compress(b'{"id": "0", "inputs": "zipped"}')
        )
        source = changed_input(where, S3Uri=f"s3://{where.bucket}/zipped/", CompressionType="Gzip")
        where.transform(TransformInput=source)
        assert where.output("z.gz")[0]["id"] == "0"
        # One of AWS's pages shows the input folder's name in front.
        where.server.scenario = where.server.scenario.changed({"transform": {"keeps_input_folder": True}})
        where.transform(TransformInput=source)
        assert "out/zipped/z.gz.out" in where.written()


def test_input_that_is_not_there_fails_the_job() -> None:
    with cloud() as where:
        assert "No S3 objects found" in where.transform()["FailureReason"]
        source = changed_input(where, S3Uri="s3://no-such-bucket-anywhere/in/")
        assert "NoSuchBucket" in where.transform(TransformInput=source)["FailureReason"]
        where.s3.put_object(Bucket=where.bucket, Key="in/a.jsonl", Body='{"other": 1}\n')
        assert where.transform()["TransformJobStatus"] == "Failed" and where.written() == []


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", {"a": [1, 2, 3], "b": {"c": "x"}}), ("$.a", [1, 2, 3]), ("$['b'].c", "x"), ("$.b['c']", "x"),
        ("$['a','b']", {"a": [1, 2, 3], "b": {"c": "x"}}), ("$.a[0]", 1), ("$.a[-1]", 3), ("$.a[0,-1]", [1, 3]),
        ("$.a[1:]", [2, 3]), ("$.a[:-1]", [1, 2]), ("$.a[*]", [1, 2, 3]), ("$.['a']", [1, 2, 3]),
    ],
)  # fmt: skip
def test_paths(path: str, found: Any) -> None:
    assert find(path, {"a": [1, 2, 3], "b": {"c": "x"}}) == found


@pytest.mark.parametrize("path", ["a", "$a", "$[", "$.a[9]", "$.none", "$['a'][0].x", "$[0]"])
def test_paths_that_find_nothing(path: str) -> None:
    with pytest.raises(PathInvalid):
        find(path, {"a": [1, 2, 3]})
