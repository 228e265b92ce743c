"""Weights that a model's files do not hold: transformers makes them up, and says so in a log at most.

What is made up is random, so that no two loads agree. Where the files hold it all, each name behind
one prefix more (a checkpoint of a wrapped model: `module.`, `model.`, `_orig_mod.`, …), the prefix
can be taken off; whether that helped, the second load tells. Whether what is still made up matters
to a vector is tried in `guards.py`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from batch_assets.encoders.weights import model_files


def made_up_weights(module: Any, folder: Path) -> dict[str, Any]:
    """Parameters and stored buffers of every transformers model in `module` that its files do not hold, by name.

    Only such as hold real numbers; those are random, another time others. Tied weights are held once.
    """
    found: dict[str, Any] = {}
    for transformer in transformers_in(module):
        buffers = dict(transformer.named_buffers())
        weights = {
            name: weight
            for name, weight in transformer.state_dict(keep_vars=True).items()
            if weight.is_floating_point()
        }
        # transformers marks what it has read, and what is tied to that.
        unmarked = {
            name: weight
            for name, weight in weights.items()
            if not getattr(weight, "_is_hf_initialized", False)
        }
        marked_none = len(unmarked) == len(weights)
        if not marked_none and not buffers.keys().isdisjoint(unmarked):
            # A buffer that was moved to another device is a new one, without the mark.
            ends = {
                end for names in _names_by_folder(folder).values() for key in names for end in _endings(key)
            }
            unmarked = {
                name: one for name, one in unmarked.items() if name not in buffers or name not in ends
            }
        # Where it marked nothing, it read nothing that fits; or code of the model's own read it, past transformers.
        found |= _without_stored(unmarked, folder) if marked_none else unmarked
    return found


def transformers_in(module: Any) -> Iterator[Any]:
    """The transformers models in `module`, which may be one itself; not those within another."""
    from transformers import PreTrainedModel

    if isinstance(module, PreTrainedModel):
        yield module
    elif module is not None:
        for child in module.children():
            yield from transformers_in(child)


def renaming(module: Any, folder: Path) -> dict[str, str]:
    """The `key_mapping` for transformers that takes off what stands before every name in the files; mostly empty."""
    found: dict[str, str] = {}
    for transformer in transformers_in(module):
        missing, own = made_up_weights(transformer, folder).keys(), _own_names(transformer)
        for names in _names_by_folder(folder).values() if missing else ():
            prefix = _prefix(missing, names) if own.isdisjoint(names) else None
            if prefix is not None:
                found[f"^{re.escape(prefix)}"] = ""
    return found


def unread_names(module: Any, folder: Path) -> set[str]:
    """Names of stored tensors that are the name of no weight of a transformers model in `module`."""
    known = set[str]().union(*(_own_names(transformer) for transformer in transformers_in(module)))
    return set[str]().union(*_names_by_folder(folder).values()) - known


def _without_stored(weights: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The weights but those that are equal to a stored tensor of their name, whatever stands before that.

    All of them where only zeros and ones are equal, which biases and norms begin with.
    """
    import torch

    left, read = dict(weights), False
    for _, tensors in _stored(folder, "pt"):
        for key in tensors.keys():  # noqa: SIM118 — no dictionary, and not iterable
            for name in left.keys() & set(_endings(key)):
                stored = tensors.get_tensor(key).to(left[name].dtype)
                if torch.equal(stored, left[name].detach().cpu()):
                    read = read or bool((stored != stored.flatten()[0]).any())
                    del left[name]
    return left if read else weights


def _own_names(transformer: Any) -> set[str]:
    """By what names transformers looks for a model's weights: its own, and a larger model's for them."""
    own = set(transformer.state_dict())
    return own | {f"{transformer.base_model_prefix}.{name}" for name in own}


def _prefix(missing: Set[str], stored: set[str]) -> str | None:
    """What stands before the missing names among the stored ones; None where nothing does, or several things do.

    A file with two models, such as one for queries and one for documents, has a prefix for each:
    which is meant, nobody knows.
    """
    found = Counter(key.removesuffix(name) for key in stored for name in _endings(key) if name in missing)
    most = max(found.values(), default=0)
    best = [prefix for prefix, number in found.items() if number == most]
    return best[0] if len(best) == 1 else None


def _endings(key: str) -> Iterator[str]:
    """`a.b.c`, `b.c` and `c` of the name `a.b.c`."""
    yield key
    for dot in re.finditer(r"\.", key):
        yield key[dot.end() :]


def _names_by_folder(folder: Path) -> dict[Path, set[str]]:
    """Names of the tensors in a model directory's safetensors files, by the folder these lie in."""
    names: dict[Path, set[str]] = {}
    for file, tensors in _stored(folder, "np"):
        names.setdefault(file.parent, set()).update(tensors.keys())
    return names


def _stored(folder: Path, framework: str) -> Iterator[tuple[Path, Any]]:
    from safetensors import safe_open

    for file in model_files(folder):
        if file.suffix == ".safetensors":
            with safe_open(file, framework) as tensors:
                yield file, tensors
