"""Prints every scalar of a folder of event files, as TensorBoard reads them."""

import sys

from tensorboard.backend.event_processing import event_accumulator

events = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
for tag in events.Tags()["scalars"]:
    for e in events.Scalars(tag):
        print(f"{tag} {e.step} {e.value:.4f}")
