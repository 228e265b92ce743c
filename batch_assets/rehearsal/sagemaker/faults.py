"""The part of a scenario that is about transform jobs, and the models they find."""

from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field

from batch_assets.rehearsal.chances import Chance, Seconds
from batch_assets.settings.base import Settings

Kind = Literal[
    "pooled", "narrow", "tokens", "embedding", "nested", "text", "text_list", "placeholder", "absent"
]
KINDS: dict[str, Kind] = {
    "*-narrow": "narrow",
    "*-tokens": "tokens",
    "*-embedding": "embedding",
    "*-nested": "nested",
    "*-text": "text",
    "*-text-list": "text_list",
    "*-placeholder": "placeholder",
    "*-absent": "absent",
}


class TransformTiming(Settings):
    """How long a job stays where it is, in virtual seconds."""

    starting: Seconds = Field(default=(120, 300), description="Until its instances are up.")
    running: Seconds = (120, 600)
    stopping: Seconds = (10, 60)


class Transform(Settings):
    """What befalls SageMaker's transform jobs. `calm` by default."""

    instances: dict[str, int] = Field(
        default={}, description="Instance type → quota of instances for transform job usage."
    )
    other_instances: int = Field(default=8, ge=0, description="The quota of every other instance type.")
    in_use: dict[str, int] = Field(default={}, description="Instance type → instances of others' jobs.")
    timing: TransformTiming = TransformTiming()
    models: dict[str, Kind] = Field(
        default={},
        description="Pattern of a model's name → what its container answers; first match. By default the end of the "
        "name says it (my-model-tokens), and any other name is pooled.",
    )
    width: int = Field(default=384, ge=1, description="Numbers in a vector.")
    marker: str = Field(default="BREAKS-OBJECT", description="A text with it makes its object fail, always.")
    fail: Chance = Field(default=0.0, description="The job fails as a whole: AlgorithmError.")
    no_capacity: Chance = Field(default=0.0, description="The job fails before it began: CapacityError.")
    fail_object: Chance = Field(default=0.0, description="Per object: no output, and the job is Failed.")
    stop_race: Chance = Field(default=0.0, description="The job is completed just when it should stop.")
    absent_objects: Chance = Field(
        default=0.0, description="Completed, and one object's output is not there."
    )
    keeps_input_folder: bool = Field(
        default=False,
        description="Outputs lie under the input folder's name: one of two ways that AWS's own pages show.",
    )
    not_found: Literal["ValidationException", "ResourceNotFound"] = "ValidationException"

    def quota(self, instance_type: str) -> int:
        """Instances of the type for transform job usage."""
        return self.instances.get(instance_type, self.other_instances)

    def kind(self, model: str) -> Kind:
        """What stands for the model of this name."""
        for pattern, kind in (*self.models.items(), *KINDS.items()):
            if fnmatchcase(model, pattern):
                return kind
        return "pooled"


STORMY_TRANSFORM: dict[str, Any] = {
    "other_instances": 4,
    "fail": 0.03, "no_capacity": 0.03, "fail_object": 0.05, "stop_race": 0.3, "absent_objects": 0.01,
}  # fmt: skip
