"""What a family of models is: how its requests are written, and where in an answer the result is.

One family per file beside this one; the way from a model's id to its family is `registry.py`.
Files of requests and results are `requests.py` and `results.py` one folder up.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.answers import Answer, BadAnswer, read_numbers
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings

Task = Literal["embed", "generate"]
DEFAULT_ANSWER_TOKENS = 1024


@dataclass(frozen=True)
class Family(ABC):
    """A model as one pipeline asks it.

    `prefixes` are how the bare ids of its models begin. `max_characters` and `max_tokens` are the
    most text that the models take, `template_tokens` the most that they put around a text; None is
    no limit worth cutting at. `dimensions` is 0 where there are answers, `answer_tokens` where
    there are vectors. `truncate` says what becomes of a longer text, `normalize` that vectors are
    to have length 1.
    """

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]
    task: ClassVar[Task]
    invocation_type: ClassVar[Literal["InvokeModel", "Converse"]] = "InvokeModel"
    max_characters: ClassVar[int | None] = None
    max_tokens: ClassVar[int | None] = None
    template_tokens: ClassVar[int] = 8

    prompt: str
    truncate: bool
    normalize: bool
    dimensions: int
    answer_tokens: int

    @classmethod
    def of(cls, settings: PipelineSettings) -> Self:
        """The family as `settings` want it. Raises ConfigurationError for what its models cannot do."""
        executor, model = settings.executor, settings.model
        assert isinstance(executor, BedrockExecutorSettings), executor.type
        if settings.task not in (None, cls.task):
            makes = "vectors" if cls.task == "embed" else "answers"
            raise ConfigurationError(
                f"task: {settings.task!r} is not what {executor.model_id} does, it makes {makes}; "
                f"write task: {cls.task}"
            )
        if model.revision is not None:
            raise ConfigurationError(
                f"model.revision: {model.revision!r} means nothing to Bedrock; executor.model_id names the version, "
                "so leave it out"
            )
        if model.pooling is not None:
            raise ConfigurationError(
                f"model.pooling: {model.pooling!r} cannot be asked for, the model decides; leave it out"
            )
        if model.dtype not in ("auto", "float32"):
            raise ConfigurationError(
                f"model.dtype: {model.dtype!r} cannot be asked for, Bedrock decides; use auto or float32 "
                "(output.dtype is the type of the stored vectors)"
            )
        return cls(
            prompt=model.prompt or "",
            truncate=executor.too_long == "truncate",
            normalize=model.normalize and cls.task == "embed",
            dimensions=cls._dimensions(model, executor.model_id),
            answer_tokens=cls._answer_tokens(model, executor.model_id),
        )

    @classmethod
    @abstractmethod
    def _dimensions(cls, model: ModelSettings, model_id: str) -> int: ...

    @classmethod
    @abstractmethod
    def _answer_tokens(cls, model: ModelSettings, model_id: str) -> int: ...

    @abstractmethod
    def request(self, text: str) -> dict[str, Any]:
        """The `modelInput` for a text, which has the prompt already."""

    def query(self, text: str) -> dict[str, Any]:
        """The `modelInput` for a text to be looked for among the vectors, which has the query's prompt already."""
        return self.request(text)

    @abstractmethod
    def answer(self, output: Any) -> Answer:
        """What is in a `modelOutput`: a dict, or simdjson's view of one. Raises BadAnswer."""

    def options(self) -> Mapping[str, Any]:
        """All that a request says beside its text; part of the fingerprint."""
        return {"family": self.name, "request": self.request("")}


class EmbeddingFamily(Family):
    """Models that make vectors, of one of `known_dimensions`, the first by default."""

    task = "embed"
    known_dimensions: ClassVar[tuple[int, ...]]

    @classmethod
    def _dimensions(cls, model: ModelSettings, model_id: str) -> int:
        if model.dimensions is None:
            return cls.known_dimensions[0]
        if model.dimensions not in cls.known_dimensions:
            *first, last = cls.known_dimensions
            raise ConfigurationError(
                f"model.dimensions: {model.dimensions} cannot be had from {model_id}; use "
                f"{', '.join(map(str, first))} or {last}"
            )
        return model.dimensions

    @classmethod
    def _answer_tokens(cls, model: ModelSettings, model_id: str) -> int:
        if model.max_tokens is not None:
            raise ConfigurationError(
                f"model.max_tokens: {model.max_tokens} cannot be asked of {model_id}, which takes {cls.max_tokens:,} "
                "tokens; leave it out (executor.too_long says what becomes of longer texts)"
            )
        return 0


class ChatFamily(Family):
    """Models that answer. `model.max_tokens` is the most tokens of an answer."""

    task = "generate"
    template_tokens = 64

    @classmethod
    def _dimensions(cls, model: ModelSettings, model_id: str) -> int:
        if model.dimensions is not None:
            raise ConfigurationError(
                f"model.dimensions: {model.dimensions} cannot be had from {model_id}: answers have none; leave it out"
            )
        return 0

    @classmethod
    def _answer_tokens(cls, model: ModelSettings, model_id: str) -> int:
        return model.max_tokens or DEFAULT_ANSWER_TOKENS


def read_vector(value: Any, dimensions: int) -> memoryview:
    """An array of numbers as float64, `dimensions` of them. Raises BadAnswer for anything else."""
    vector = read_numbers(value)
    if vector is None:
        raise BadAnswer("the embedding is no array of numbers")
    count = len(value)
    # simdjson flattens what is nested, so both numbers are looked at.
    if not vector.nbytes == 8 * count == 8 * dimensions:
        raise BadAnswer(f"the embedding has {count} numbers, not {dimensions}")
    return vector


def member(value: Any, *path: str | int) -> Any:
    """What lies in an object or array, or None where there is nothing of the kind on the way."""
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return None
    return value
