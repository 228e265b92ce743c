"""What processes that are forked for tests share: importing this module imports it all."""

from batch_assets.module_loading import load_modules
from batch_assets.storage.credentials import aws_session

load_modules(
    "batch_assets_tests.databases",
    "batch_assets_tests.forking",
    "batch_assets_tests.control.dying",
    "batch_assets.cli.app",
    "batch_assets.cli.run",
    "batch_assets.orchestration.driver",
    "batch_assets.components.embedding_pipeline",
    "batch_assets.encoders.image",
    "batch_assets.encoders.nvjpeg",
    "batch_assets.encoders.registry",
    "batch_assets.worker.__main__",
    "batch_assets.worker.container",
    "boto3",
    "dagster",
    "dagster._core.storage.sqlite_storage",  # loaded by whatever opens an instance
    "polars",
    "torch",
    "sentence_transformers",
    "transformers.models.bert.modeling_bert",
    "transformers.models.clip.image_processing_clip",
    "transformers.models.clip.modeling_clip",
)

for service in ("batch", "bedrock", "bedrock-runtime", "sagemaker", "sqs"):  # each is parsed once
    aws_session().client(
        service, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
