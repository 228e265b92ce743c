"""What calls hold: one pipeline's settings as the body of each.

What comes back is read in `embeddings.py` and `answers.py`.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.errors import ConfigurationError
from batch_assets.settings.gateway import GatewayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sources.base import Records

EMBEDDINGS, CHAT, COMPLETIONS = "/v1/embeddings", "/v1/chat/completions", "/v1/completions"
INPUTS_PER_CALL = 32
OUTPUT_TOKENS = ("max_completion_tokens", "max_tokens")
_SPECIAL_TOKENS = 8
"""That a model or a chat's template puts around a text, about."""


@dataclass
class Requests:
    """Bodies of the calls of one pipeline."""

    settings: PipelineSettings
    base64: bool = True
    """Ask for vectors as base64, a third of the bytes; servers that cannot are asked for numbers."""

    @cached_property
    def options(self) -> GatewayExecutorSettings:
        assert isinstance(self.settings.executor, GatewayExecutorSettings), self.settings.executor.type
        return self.settings.executor

    @property
    def task(self) -> Task:
        return self.settings.task or EMBED

    @cached_property
    def path(self) -> str:
        return self.options.path or (CHAT if self.task == GENERATE else EMBEDDINGS)

    @cached_property
    def inputs_per_call(self) -> int:
        if self.task == GENERATE:
            return 1
        return INPUTS_PER_CALL if self.options.inputs_per_call == "auto" else self.options.inputs_per_call

    @property
    def truncate(self) -> bool:
        return self.options.too_long == "truncate"

    @property
    def prefix(self) -> str:
        """What stands before each text that is embedded."""
        return self.settings.model.prompt or ""

    @cached_property
    def most_output_tokens(self) -> int | None:
        """Tokens of an answer, at most; None where nothing limits them."""
        if self.task == EMBED:
            return 0
        found: list[Any] = [self.options.body.get(name) for name in OUTPUT_TOKENS]
        return next((tokens for tokens in found if type(tokens) is int and tokens > 0), None)

    def cost(self, input_tokens: int, output_tokens: int) -> float | None:
        """USD for so many tokens; None where no price is known."""
        prices = self.options.prices
        return None if prices is None else prices.cost(input_tokens, output_tokens)

    def embeddings(self, texts: Sequence[str]) -> bytes:
        """The body of a call for the vectors of these texts."""
        body: dict[str, Any] = {"model": self.settings.model.id, "input": list(texts)}
        if self.base64:
            body["encoding_format"] = "base64"
        if self.settings.model.dimensions is not None:
            body["dimensions"] = self.settings.model.dimensions
        return orjson.dumps(body | self.options.body)

    def answer(self, prompt: str, image: str | None = None) -> bytes:
        """The body of a call for an answer; `image` is a data URL."""
        body: dict[str, Any] = {"model": self.settings.model.id, **self.options.body}
        if self.path.endswith("/completions") and not self.path.endswith("/chat/completions"):
            return orjson.dumps({**body, "prompt": prompt})
        content: Any = prompt
        if image is not None:
            content = [
                {"type": "text", "text": prompt},
                {"type": "image_url", "image_url": {"url": image}},
            ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.options.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self.options.system_prompt})
        return orjson.dumps({**body, "messages": messages})

    @cached_property
    def columns_needed(self) -> list[str]:
        """The columns that the prompt names, the text's own among them; empty where it is put before the text."""
        try:
            parts = list(string.Formatter().parse(self.settings.model.prompt or ""))
        except ValueError as error:
            raise ConfigurationError(
                f"model.prompt: {self.settings.model.prompt!r} is no template: {error}; write {{{{ and }}}} for braces"
            ) from None
        return [name for _, name, _, _ in parts if name is not None]

    def prompts(self, records: Records) -> list[str]:
        """The prompt of each record: the template filled from its text, id and columns, or put before the text.

        Raises ConfigurationError for a column that the output does not have.
        """
        template, source = self.settings.model.prompt or "", self.settings.source
        if not self.columns_needed:
            return [template + text for text in records.texts]
        values: dict[str, Sequence[Any]] = {}
        text_names = {"text", *(() if source.text_template is not None else source.text_columns)}
        own = dict.fromkeys(text_names, records.texts)
        if source.id_column is not None:
            own[source.id_column] = records.record_ids
        known = sorted({*own, *records.columns.schema.names})
        for name in self.columns_needed:
            if name in records.columns.schema.names:
                values[name] = [
                    "" if value is None else value for value in records.columns.column(name).to_pylist()
                ]
            elif name in own:
                values[name] = own[name]
            else:
                raise ConfigurationError(
                    f"model.prompt: it names {{{name}}}, and records have {', '.join(known)}; what source.columns "
                    "leaves out cannot be asked about"
                )
        rows = zip(*values.values(), strict=True)
        return [template.format_map(dict(zip(values, row, strict=True))) for row in rows]


def token_bound(text: str) -> int:
    """So many tokens a text has at most: tokenizers make none of less than a byte."""
    return len(text.encode(errors="replace")) + _SPECIAL_TOKENS
