"""Write a model for images with random weights: CLIP, SigLIP or DINOv2, as its own files come.

    python examples/make_clip_model.py FOLDER [--size tiny|vit-b-32] [--kind clip|siglip|dinov2]

`tiny` (64 pixels, 32 dimensions) is for trying a pipeline out, offline and within seconds;
`vit-b-32` has that model's architecture (224 pixels, 512 dimensions) and is for measuring. Random
weights find images of like colours and shapes, not of like meaning. Weights are safetensors, the
image processor and, where the model has a text tower, the tokenizer lie beside them. The same
arguments give the same weights.
"""

import argparse
import json
from pathlib import Path
from typing import Any

SIZES = ("tiny", "vit-b-32")
KINDS = ("clip", "siglip", "dinov2")
START, END = "<|startoftext|>", "<|endoftext|>"


def make_model(folder: Path, size: str = "tiny", kind: str = "clip", seed: int = 0) -> Path:
    """Fill `folder` with a random model of `kind`; a file that is there is written over."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    vision = _vision(size)
    make = {"clip": _make_clip, "siglip": _make_siglip, "dinov2": _make_dinov2}[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make(size, vision).eval()
    model.save_pretrained(str(folder))
    processor = json.dumps(_processor(kind, vision["image_size"]), indent=2)
    (folder / "preprocessor_config.json").write_text(processor, encoding="utf-8")
    if kind != "dinov2":
        _save_tokenizer(folder, kind)
    return folder


def _make_clip(size: str, vision: dict[str, Any]) -> Any:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(
        CLIPConfig(
            text_config=_text(size), vision_config=vision, projection_dim=32 if size == "tiny" else 512
        )
    )


def _make_siglip(size: str, vision: dict[str, Any]) -> Any:
    from transformers import SiglipConfig, SiglipModel

    shape = {name: vision[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")}
    text = {**_text(size), **shape, "max_position_embeddings": 64}
    return SiglipModel(SiglipConfig(text_config=text, vision_config=vision))


def _make_dinov2(size: str, vision: dict[str, Any]) -> Any:
    from transformers import Dinov2Config, Dinov2Model

    shape: dict[str, Any] = {name: value for name, value in vision.items() if name != "intermediate_size"}
    return Dinov2Model(Dinov2Config(**shape, mlp_ratio=4))


def _processor(kind: str, edge: int) -> dict[str, Any]:
    """What makes pixels of an image, with the steps and figures of the published models of `kind`."""
    square = {"height": edge, "width": edge}
    steps = {
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 3,
    }
    if kind == "siglip":
        half = [0.5, 0.5, 0.5]
        return {
            **steps, "image_processor_type": "SiglipImageProcessor", "size": square,
            "image_mean": half, "image_std": half,
        }  # fmt: skip
    crop = {"do_center_crop": True, "crop_size": square}
    if kind == "dinov2":
        return {
            **steps, **crop, "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": edge * 8 // 7},
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        }  # fmt: skip
    return {
        **steps, **crop, "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": edge},
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip


def _vision(size: str) -> dict[str, Any]:
    if size == "tiny":
        return {"image_size": 64, "patch_size": 16, **_layers(64, 2, 2)}
    return {"image_size": 224, "patch_size": 32, **_layers(768, 12, 12)}


def _text(size: str) -> dict[str, Any]:
    layers = _layers(64, 2, 2) if size == "tiny" else _layers(512, 12, 8)
    start, end = (_vocabulary()[token] for token in (START, END))
    special = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    return {**layers, **special, "vocab_size": len(_vocabulary()), "max_position_embeddings": 77}


def _layers(hidden: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden, "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads,
    }  # fmt: skip


def _vocabulary() -> dict[str, int]:
    """Every byte, within a word and at its end, and what begins and ends a text: nothing is unknown."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    return {token: number for number, token in enumerate(tokens)}


def _save_tokenizer(folder: Path, kind: str) -> None:
    """CLIP's tokenizer, of bytes: its merges would have to be learned."""
    from transformers import CLIPTokenizer

    # SigLIP sees a text's padding too, so its tokenizer makes no mask over it.
    names = ["input_ids"] if kind == "siglip" else ["input_ids", "attention_mask"]
    limit = 64 if kind == "siglip" else 77
    tokenizer = CLIPTokenizer(vocab=_vocabulary(), merges=[], model_max_length=limit, model_input_names=names)
    tokenizer.save_pretrained(str(folder))


def main() -> None:
    """Read the command line and make the model."""
    parser = argparse.ArgumentParser(description="Write a model for images with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--kind", choices=KINDS, default="clip")
    arguments = parser.parse_args()
    from transformers.utils import logging

    logging.disable_progress_bar()
    print(make_model(arguments.folder, arguments.size, arguments.kind))


if __name__ == "__main__":
    main()
