"""A stage in Python: it answers every evaluation and says whether the model beats token frequencies.

It needs stage.py beside it, nats-py and msgpack, and nothing else of this project. In a pipeline file:

    stages:   {watch: {}}
    commands: {watch: [python3, docs/examples/watch.py]}
"""
import stage

COLUMN = {"key": "gain", "name": "gain", "value": "{gain:.3}", "unit": "bits/token", "better": "higher",
          "about": "how much less the loss is than that of token frequencies"}
SHOWN = {"kind": "verdict.written", "columns": [COLUMN],
         "headline": "checkpoint {step} watched[: it knows more than frequencies{learnt}]"}
WATCH = {"name": "watch", "about": __doc__.splitlines()[0], "kind": "evaluation.written", "emits": ["verdict.written"],
         "results": [SHOWN], "parameters": []}


async def verdict(heard, _):
    body = heard["body"]
    gain = body["unigram_entropy"] - body["bits_per_token"]
    return {"step": body["step"], "gain": gain, "learnt": gain > 0}


if __name__ == "__main__":
    stage.main(WATCH, verdict)
