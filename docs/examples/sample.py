"""A stage in Python that starts another program: it lets every packed model of a run continue a text.

It needs stage.py beside it, nats-py and msgpack. In a pipeline file:

    stages:   {pack: {}, sample: {prompt: "It was a dark"}}
    commands: {sample: [python3, docs/examples/sample.py]}
"""
import asyncio, json, os
import stage

PARAMETERS = [
    {"key": "prompt", "type": "text", "default": "The", "usage": "text to continue"},
    {"key": "tokens", "type": "integer", "default": 40, "usage": "most tokens to write"},
    {"key": "generate", "type": "text", "default": "bin/generate", "usage": "path of the program generate"},
]
SHOWN = {"kind": "sample.written", "headline": "checkpoint {step} wrote: {text}"}
SAMPLE = {"name": "sample", "about": __doc__.splitlines()[0], "kind": "pack.written", "emits": ["sample.written"],
          "results": [SHOWN], "parameters": PARAMETERS}


async def sample(heard, parameters):
    model = stage.artifact(heard["body"]["pack"])
    generate = await asyncio.create_subprocess_exec(
        parameters["generate"], "run", "--in", model, "--prompt", parameters["prompt"],
        "--tokens", str(parameters["tokens"]), "--fixed-prompts=false", "--json",
        env={k: v for k, v in os.environ.items() if k != "BITNET1_LAUNCHER"},  # which is for the stage alone
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, errors = await generate.communicate()
    if generate.returncode != 0:
        raise RuntimeError(errors.decode(errors="replace").strip())
    text = json.loads(out)["texts"][0]
    return {"step": heard["body"]["step"], "text": text["prompt"] + text["text"]}


if __name__ == "__main__":
    stage.main(SAMPLE, sample)
