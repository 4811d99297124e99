"""A whole stage in Python: it answers every evaluation and says whether the model beats token frequencies.

It needs nats-py and msgpack, and nothing of this project. In a pipeline file:

    stages:   {watch: {}}
    commands: {watch: [python3, docs/examples/watch.py]}
"""
import asyncio, hashlib, json, os, ssl, sys, threading, time
import msgpack, nats

NAME, HEARS, SAYS = "watch", "evaluation.written", "verdict.written"


async def announce(js, run, kind, body, part, heard):
    digest = hashlib.sha256(b"\0".join([kind.encode(), run.encode(), msgpack.packb(body)])).hexdigest()
    envelope = {"version": 1, "kind": kind, "run": run, "id": digest, "stage": NAME, "job": "", "part": part,
                "input": heard["id"], "overrides": heard.get("overrides", {}), "time": time.time_ns() // 1_000_000,
                "body": body}
    await js.publish(f"bitnet1.{run}.{kind}", msgpack.packb(envelope), headers={"Nats-Msg-Id": digest})


async def answer(js, message):
    try:
        heard = msgpack.unpackb(message.data)
        run, body = heard["run"], heard["body"]
        if heard["version"] != 1:
            raise ValueError(f"version {heard['version']}")
        gain = body["unigram_entropy"] - body["bits_per_token"]
        said = {"step": body["step"], "gain": gain, "learnt": gain > 0}
    except (ValueError, KeyError, TypeError) as e:  # it will never be an event: people find it among the dead letters
        _, run, noun, verb = message.subject.split(".")
        causes = {"Bitnet1-Stage": NAME, "Bitnet1-Cause": repr(e)}
        await js.publish(f"bitnet1.{run}.dead.{NAME}.{noun}.{verb}", message.data, headers=causes)
        await message.term()
        return
    await announce(js, run, SAYS, said, heard["part"], heard)
    finished = {"listener": NAME, "input": heard["id"], "key": "", "outcome": "done", "cause": "", "at": 0}
    await announce(js, run, "job.finished", finished, {"index": 0, "count": 0}, heard)
    await message.ack_sync()  # last: the server delivers an event again until it is acknowledged


async def serve(run):
    env = os.environ.get
    client = await nats.connect(env("NATS_URL"), user=env("NATS_USER"), password=env("NATS_PASSWORD"),
                                token=env("NATS_TOKEN"), nkeys_seed=env("NATS_NKEY"),
                                tls=ssl.create_default_context(cafile=env("NATS_CA")) if env("NATS_CA") else None)
    js = client.jetstream()
    durable = NAME if run == "*" else f"{NAME}--{run}"
    while True:
        try:
            queue = await js.pull_subscribe(f"bitnet1.{run}.{HEARS}", durable=durable, stream="BITNET1_EVENTS")
            break
        except nats.js.errors.NotFoundError:  # no launcher has been here yet: it makes the stream
            await asyncio.sleep(0.5)
    while True:
        try:
            for message in await queue.fetch(1, timeout=5):
                await answer(js, message)
        except nats.errors.TimeoutError:
            pass


if sys.argv[1] == "describe":  # for the launcher; --check has nothing to check, because there are no parameters
    column = {"key": "gain", "name": "gain", "value": "{gain:.3}", "unit": "bits/token", "better": "higher",
              "about": "how much less the loss is than that of a model that knows only how often tokens occur"}
    shown = {"kind": SAYS, "headline": "checkpoint {step} watched[: it knows more than frequencies{learnt}]",
             "columns": [column]}
    print(json.dumps({"name": NAME, "about": __doc__.splitlines()[0], "kind": HEARS, "emits": [SAYS],
                      "results": [shown], "parameters": []}))
else:  # serve [--run RUN]
    if os.environ.get("BITNET1_LAUNCHER"):  # standard input ends with the launcher
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    asyncio.run(serve(sys.argv[3] if len(sys.argv) > 3 else "*"))
