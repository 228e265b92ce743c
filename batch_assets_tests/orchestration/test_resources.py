"""Resources as somebody's project names them, and as a launchpad sets them."""

import dagster as dg
import pytest

from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws_batch.account import AwsBatchAccount
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.sagemaker.account import SageMakerAccount
from batch_assets.orchestration import resources
from batch_assets.settings.project import executor_key


@pytest.mark.parametrize(
    ("kind", "name", "host"),
    [
        ("bedrock", "BedrockResource", BedrockAccount),
        ("sagemaker", "SageMakerResource", SageMakerAccount),
        ("aws_batch", "AwsBatchResource", AwsBatchAccount),
    ],
)
def test_a_region_is_given_in_code_or_by_run_config(kind: str, name: str, host: type[AwsAccount]) -> None:
    key = executor_key(kind)
    seen = list[AwsAccount]()

    @dg.op(required_resource_keys={key})
    def look(context: dg.OpExecutionContext) -> None:
        seen.append(getattr(context.resources, key))

    @dg.job(resource_defs={key: resources.default_resources()[key]})
    def by_config() -> None:
        look()

    @dg.job(resource_defs={key: getattr(resources, name)(region="eu-west-1")})
    def in_code() -> None:
        look()

    by_config.execute_in_process(run_config={"resources": {key: {"config": {"region": "eu-west-1"}}}})
    in_code.execute_in_process()
    assert [(type(account), account.region) for account in seen] == [(host, "eu-west-1")] * 2
