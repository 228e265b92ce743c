"""Faster parts for a transformer on the CPU: the same arithmetic by better kernels.

Two things are exchanged in a loaded model. Its linear layers become oneDNN products over
weights packed once (PyTorch's own path packs them again at every call in bfloat16, and in
float32 hands them to MKL, which is slow on AMD). Its attention in bfloat16 becomes two
batched products around a softmax, where the heads are small and the sequences short: about
half the time of the flash kernel. Who calls this compares the vectors before and after.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ATTENTION = "batch_assets_cpu"
LONGEST = 1024
"""Tokens up to which the whole score matrix is made; beyond, the flash kernel's tiles win."""
SCORE_BYTES = 1 << 20
"""Scores made at once: about what a core's second-level cache holds."""


def accelerate(model: Any, batch_tokens: int) -> Callable[[], None]:
    """Exchange the parts of a transformers model in place; returns what undoes it.

    `batch_tokens` is the number of rows the packing is laid out for. Weights are float32 or
    bfloat16, all on the CPU.
    """
    import torch

    changed: list[tuple[Any, str, Any]] = []
    tower = _tower(model)
    attention = getattr(getattr(tower, "config", None), "_attn_implementation", None)

    def undo() -> None:
        for parent, name, original in changed:
            setattr(parent, name, original)
        if tower.config._attn_implementation == ATTENTION:
            tower.set_attn_implementation(attention)

    try:
        _pack_linears(model, batch_tokens, changed)
        if attention == "sdpa" and next(model.parameters()).dtype is torch.bfloat16:
            _register_attention()
            tower.set_attn_implementation(ATTENTION)
    except Exception:
        undo()
        raise
    return undo


def _tower(model: Any) -> Any:
    """Of a model of two towers the one that is left; any other model as it is."""
    parts = [getattr(model, name, None) for name in ("text_model", "vision_model")]
    left = [part for part in parts if hasattr(part, "set_attn_implementation")]
    return left[0] if len(left) == 1 else model


def _pack_linears(module: Any, batch_tokens: int, changed: list[tuple[Any, str, Any]]) -> None:
    import torch

    for name, child in module.named_children():
        if type(child) is torch.nn.Linear:
            changed.append((module, name, child))
            setattr(module, name, _packed_linear()(child, batch_tokens))
        else:
            _pack_linears(child, batch_tokens, changed)


@functools.cache
def _packed_linear() -> type[Any]:
    """The class that takes a linear layer's place; made here because torch is not imported above."""
    import torch

    class PackedLinear(torch.nn.Module):
        """`weight` tells models that ask its type and shape; it has no storage."""

        def __init__(self, linear: torch.nn.Linear, rows: int) -> None:
            super().__init__()
            weight = linear.weight.detach()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.weight = torch.nn.Parameter(weight.to("meta"), requires_grad=False)
            self.bias = linear.bias
            # No buffer: an opaque tensor, which nothing may convert or copy.
            object.__setattr__(self, "_packed", torch.ops.mkldnn._reorder_linear_weight(weight, rows))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.ops.mkldnn._linear_pointwise(rows, self._packed, self.bias, "none", [], "")

    return PackedLinear


def _register_attention() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _attention(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple["torch.Tensor", None]:
    """softmax(scaling · q kᵀ + mask) v of (batch, heads, tokens, width) → (batch, tokens, heads, width).

    What is causal, grouped or otherwise special goes to transformers' own function.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    plain = query.shape == key.shape == value.shape and not (causal and attention_mask is None)
    shared_mask = attention_mask is None or attention_mask.shape[1] == 1
    special = any(options.get(name) is not None for name in ("position_bias", "s_aux", "softcap"))
    if not plain or not shared_mask or special or dropout or query.shape[2] > LONGEST:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask,
            dropout=dropout, scaling=scaling, is_causal=is_causal, **options,
        )  # fmt: skip
    batch, heads, tokens, width = query.shape
    factor = width**-0.5 if scaling is None else scaling
    mask = attention_mask
    if mask is not None and mask.dtype is torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    context = query.new_empty(batch, tokens, heads, width)
    step = max(1, SCORE_BYTES // (heads * tokens * tokens * query.element_size()))
    for first in range(0, batch, step):
        part = slice(first, min(first + step, batch))
        q, k, v = (side[part].reshape(-1, tokens, width) for side in (query, key, value))
        if mask is None:
            scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=factor)
        else:
            bias = (mask[part] if mask.shape[0] == batch else mask).expand(
                q.shape[0] // heads, heads, tokens, tokens
            )
            scores = torch.baddbmm(bias.reshape(-1, tokens, tokens), q, k.transpose(1, 2), alpha=factor)
        product = torch.bmm(torch.softmax(scores, dim=-1), v)
        context[part] = product.view(-1, heads, tokens, width).transpose(1, 2)
    return context, None
