"""Target `sns:ARN`: a topic of Amazon SNS, and so mail, SMS, SQS, Lambda, PagerDuty.

Needs `sns:Publish` on the topic; credentials come from AWS's own chain, the region from the ARN.
"""

from dataclasses import dataclass

from batch_assets.notifications.base import DeliveryError, Notification

SUBJECT_CHARACTERS = 100  # SNS's limit, and ASCII without line breaks


@dataclass(frozen=True)
class SnsNotifier:
    """Publishes the text, with `pipeline` and `severity` as attributes for subscriptions to filter by."""

    arn: str

    @property
    def target(self) -> str:
        return f"sns ({self.arn})"

    def send(self, notification: Notification) -> None:
        """Raises DeliveryError where SNS does not take it."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        config = Config(
            connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}
        )
        attributes = {"pipeline": notification.pipeline, "severity": notification.severity}
        try:
            # A session of its own: making a client of boto3's shared one is not safe in threads.
            client = boto3.Session().client("sns", region_name=self.arn.split(":")[3], config=config)
            client.publish(
                TopicArn=self.arn,
                Subject=_subject(notification.title),
                Message=notification.text(),
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
                },
            )
        except (BotoCoreError, ClientError) as error:
            raise DeliveryError(str(error)) from error


def _subject(title: str) -> str:
    ascii_only = title.encode("ascii", "replace").decode("ascii")
    return " ".join(ascii_only.split())[:SUBJECT_CHARACTERS]
