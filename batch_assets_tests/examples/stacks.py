"""The stacks of examples/, made in moto's CloudFormation, and what cfn-lint says of their templates."""

import ast
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from batch_assets_tests.object_store import s3_server
from batch_assets_tests.waiting import PATIENCE_SECONDS

UNKNOWN = ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy", "AWS::Batch::")


@dataclass(frozen=True)
class Stack:
    endpoint: str
    outputs: dict[str, str]

    def client(self, service: str) -> Any:
        return client(service, self.endpoint)

    def events_heard(self, *events: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What comes to the queue QueueUrl when AWS sends these events."""
        assert self.client("events").put_events(Entries=list(events))["FailedEntryCount"] == 0
        answer = self.client("sqs").receive_message(QueueUrl=self.outputs["QueueUrl"], MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in answer.get("Messages", ())]

    def policy(self) -> dict[str, dict[str, Any]]:
        """The statements of the policy PolicyArn, by their Sid."""
        found = self.client("iam").get_policy_version(PolicyArn=self.outputs["PolicyArn"], VersionId="v1")
        return {item["Sid"]: item for item in found["PolicyVersion"]["Document"]["Statement"]}

    def role(self, name: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """The statements of a role's own policies by their Sid, and the one that says who may take it."""
        iam = self.client("iam")
        statements: list[dict[str, Any]] = []
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            # moto gives what CloudFormation has made of an inline policy as Python writes it, not as JSON.
            document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            statements += ast.literal_eval(document)["Statement"]
        (trust,) = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]["Statement"]
        return {item["Sid"]: item for item in statements}, trust


def client(service: str, endpoint: str) -> Any:
    import boto3

    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )


def read_template(folder: Path) -> dict[str, Any]:
    """The template with its short forms (!Ref) written out."""
    from cfnlint.decode import cfn_yaml

    return json.loads(json.dumps(cfn_yaml.loads((folder / "template.yaml").read_text())))


@contextmanager
def made_stack(
    content: dict[str, Any], parameters: Mapping[str, str], stand_ins: Mapping[str, Any] | None = None
) -> Iterator[Stack]:
    """The stack, less the resources that moto's CloudFormation does not know; `stand_ins` replace some of them."""
    resources = {
        name: each for name, each in content["Resources"].items() if not each["Type"].startswith(UNKNOWN)
    } | dict(stand_ins or {})
    with s3_server() as endpoint:
        # Moto's state is the process's: rules of other tests would get these events too.
        requests.post(f"{endpoint}/moto-api/reset", timeout=PATIENCE_SECONDS).raise_for_status()
        formation = client("cloudformation", endpoint)
        formation.create_stack(
            StackName="batch-assets",
            TemplateBody=json.dumps({**content, "Resources": resources}),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()
            ],
        )
        outputs = formation.describe_stacks(StackName="batch-assets")["Stacks"][0]["Outputs"]
        yield Stack(endpoint, {output["OutputKey"]: output["OutputValue"] for output in outputs})
        formation.delete_stack(StackName="batch-assets")


def findings(content: str) -> list[str]:
    """What cfn-lint finds, in two regions."""
    from cfnlint.api import ManualArgs, lint

    # Informational rules too: among them those that tell of data lost when a stack is deleted.
    found = lint(content, config=ManualArgs(include_checks=["I"], regions=["us-east-1", "eu-central-1"]))
    return [f"{match.linenumber}: {match.rule.id} {match.message}" for match in found]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def actions_by_sid(statements: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    return {sid: sorted(as_list(item["Action"])) for sid, item in statements.items()}


def read_policy(file: Path) -> dict[str, dict[str, Any]]:
    """The statements of a policy's JSON file, by their Sid."""
    document = json.loads(file.read_text())
    assert document["Version"] == "2012-10-17"
    return {item["Sid"]: item for item in document["Statement"]}


def unknown_operations(statements: Mapping[str, Mapping[str, Any]], services: list[str]) -> list[str]:
    """Actions of these services that are no operations of theirs, as botocore knows them."""
    import botocore.session

    session = botocore.session.get_session()
    known = {name: session.get_service_model(botocore_name(name)).operation_names for name in services}
    actions = [action.split(":") for item in statements.values() for action in as_list(item["Action"])]
    return [
        f"{service}:{name}" for service, name in actions if service in known and name not in known[service]
    ]


def botocore_name(service: str) -> str:
    return {"servicequotas": "service-quotas"}.get(service, service)
