"""Writes the .pt files beside it, as training scripts save checkpoints: python save.py

Every parameter of the tiny model is 0.5 throughout. Needs torch and numpy.
"""
import dataclasses, os
from argparse import Namespace

import numpy as np
import torch

here = os.path.dirname(os.path.abspath(__file__))
config = dict(vocab=5, d=4, layers=1, heads=2, ff=4, seq=8, eps=1e-5, attention="rwsp", rwsp_k=4, kshift_layers=[0],
              kshift_offset=1, kshift_self=True, alibi=True, stream_bits=4)
shapes = {"norm_out": [4], "codebook.weight": [5, 4], "codebook.alpha": [5], "codebook.theta": [5],
          "blocks.0.norm_attn": [4], "blocks.0.norm_ffn": [4]}
for name in ("attn.q", "attn.k", "attn.v", "attn.o", "up", "down"):
    shapes |= {f"blocks.0.{name}.weight": [4, 4], f"blocks.0.{name}.alpha": [4], f"blocks.0.{name}.theta": [4]}
state = {name: torch.full(shape, 0.5) for name, shape in shapes.items()}


@dataclasses.dataclass
class Config:
    pass


def save(name, **beside):
    torch.save(dict(model=state, **beside), os.path.join(here, name))


as_object = Config()
as_object.__dict__.update(config)
save("numpy.pt", config={**config, "d": np.int32(4), "eps": np.float64(1e-5), "alibi": np.bool_(True)},
     gamma=np.float32(0.25), step=np.int64(7), tokens=np.uint16(512), history=[np.float64(i) for i in range(8)])
save("namespaces.pt", config=as_object, gamma=0.25, step=7, args=Namespace(lr=1e-3, device=torch.device("cpu")),
     seen={1, 2}, optimizer={"state": {0: {"step": torch.tensor(7.0)}}})
save("array.pt", config=config, gamma=np.array([0.25, 0.5]))
save("mix.pt", config=config, gamma=0.25, mix=torch.tensor(0.5))
