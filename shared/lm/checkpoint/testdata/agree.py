"""Runs checkpoints through the PyTorch reference: python agree.py REFERENCE_DIR CHECKPOINT TOKENS OUT_DIR

Loads CHECKPOINT (safetensors) with PyTorch's own loader, strictly; writes the logits of TOKENS (JSON, rows of ids) to
OUT_DIR/logits.safetensors, and the same parameters as PyTorch saves them: .pt and .safetensors of every float type.
"""
import json, sys
from dataclasses import asdict

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

reference, path, tokens, out = sys.argv[1:]
sys.path.insert(0, reference)
from v76 import Config, LM

with safe_open(path, "pt") as f:
    meta = f.metadata()
config = Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(meta["config"]).items()})
model = LM(config)
model.load_state_dict(load_file(path))
model.set_mix(float(meta["mix"]))
with torch.no_grad():
    logits, _ = model(torch.tensor(json.loads(tokens)), gamma=float(meta["gamma"]))
save_file({"logits": logits.contiguous()}, out + "/logits.safetensors")

description = dict(config=asdict(config), gamma=float(meta["gamma"]), mix=float(meta["mix"]),
                   tokenizer=meta["tokenizer"])
for name in ("float64", "float32", "bfloat16", "float16"):
    dtype = getattr(torch, name)
    state = {k: v.to(dtype) for k, v in model.state_dict().items()}
    torch.save(dict(model=state, optimizer={"lr": 1e-3}, **description), f"{out}/{name}.pt")
    save_file(state, f"{out}/{name}.safetensors", metadata={"format": "pt"})
    with open(f"{out}/{name}.json", "w") as f:
        json.dump(description, f)
