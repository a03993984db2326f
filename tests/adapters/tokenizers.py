"""Tokenizers as check_tokenizers.py calls them: text -> ids with start and end, no padding."""

from pathlib import Path


def tokenizer(kind, path):
    from diffjax.pretrained import tokenizer as ours

    if kind == "clip":
        folder = Path(path).is_dir()
        return (ours.load_tokenizer if folder else ours.clip_tokenizer_of_merges)(path).encode
    return {"bert": ours.bert_tokenizer, "t5": ours.t5_tokenizer}[kind](path, {}).encode
