"""What makes a program in Python a stage: it hears events, has them answered, and announces the answers.

    stage.main({"name": "watch", "kind": "evaluation.written", "emits": ["verdict.written"], …}, answer)

`async def answer(heard, parameters)` takes an event and returns the body of its answer. An exception gives the event up:
people find it, and the cause, among the dead letters. Needs nats-py and msgpack, and nothing of this project.
"""
import asyncio, hashlib, json, os, pathlib, ssl, sys, threading, time
import msgpack, nats

DATA = pathlib.Path(os.environ.get("BITNET1_DATA", "data"))


def main(description, answer):
    if sys.argv[1] == "describe":  # for the launcher, which compares parameters with their types itself
        print(json.dumps(description))
        return
    if os.environ.get("BITNET1_LAUNCHER"):  # serve [--run RUN]: standard input ends with the launcher
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    asyncio.run(serve(description, answer, sys.argv[3] if len(sys.argv) > 3 else "*"))


async def serve(description, answer, run):
    env = os.environ.get
    client = await nats.connect(env("NATS_URL"), user=env("NATS_USER"), password=env("NATS_PASSWORD"),
                                token=env("NATS_TOKEN"), nkeys_seed=env("NATS_NKEY"),
                                tls=ssl.create_default_context(cafile=env("NATS_CA")) if env("NATS_CA") else None)
    js, name = client.jetstream(), description["name"]
    durable = name if run == "*" else f"{name}--{run}"
    while True:
        try:
            queue = await js.pull_subscribe(f"bitnet1.{run}.{description['kind']}", durable=durable,
                                            stream="BITNET1_EVENTS")
            break
        except nats.js.errors.NotFoundError:  # no launcher has been here yet: it makes the stream
            await asyncio.sleep(0.5)
    while True:
        try:
            for message in await queue.fetch(1, timeout=5):
                await take(js, description, answer, message)
        except nats.errors.TimeoutError:
            pass


async def take(js, description, answer, message):
    heard, finished = None, {"listener": description["name"], "key": "", "outcome": "done", "cause": "", "at": 0}
    working = asyncio.create_task(at_work(message))
    try:
        heard = msgpack.unpackb(message.data)
        if heard["version"] != 1 or heard["run"] != message.subject.split(".")[1]:
            raise ValueError(f"version {heard['version']}, run {heard['run']}")
        finished["input"] = heard["id"]
        body = await answer(heard, parameters(description, heard["run"]))
    except Exception as e:
        await bury(js, description, message, repr(e))
        finished.update(outcome="failed", cause=repr(e), at=time.time_ns() // 1_000_000)
    finally:
        working.cancel()
    if finished["outcome"] == "done":
        await announce(js, description["name"], description["emits"][0], body, heard["part"], heard)
    if "input" in finished:  # otherwise it is no event
        await announce(js, description["name"], "job.finished", finished, {"index": 0, "count": 0}, heard)
    await message.ack_sync()  # last: the server delivers an event again until it is acknowledged


async def at_work(message):
    """Tells the server that the event is at work: after 10 seconds without a sign it would give it to another process."""
    while True:
        await asyncio.sleep(3)
        await message.in_progress()


async def announce(js, name, kind, body, part, heard):
    run, packed = heard["run"], msgpack.packb(body)
    digest = hashlib.sha256(b"\0".join([kind.encode(), run.encode(), packed])).hexdigest()
    envelope = {"version": 1, "kind": kind, "run": run, "id": digest, "stage": name, "job": "", "part": part,
                "input": heard["id"], "overrides": heard.get("overrides", {}), "time": time.time_ns() // 1_000_000,
                "body": body}
    await js.publish(f"bitnet1.{run}.{kind}", msgpack.packb(envelope), headers={"Nats-Msg-Id": digest})


async def bury(js, description, message, cause):
    _, run, noun, verb = message.subject.split(".")
    headers = {"Bitnet1-Stage": description["name"], "Bitnet1-Cause": " ".join(cause.split())[:1000]}
    await js.publish(f"bitnet1.{run}.dead.{description['name']}.{noun}.{verb}", message.data, headers=headers)


def parameters(description, run):
    """The stage's parameters in a run: the defaults, and what the run's definition says."""
    values = {p["key"]: p["default"] for p in description["parameters"]}
    for started in (DATA / "runs" / run / "events" / "run.started").glob("*.msgpack"):
        definition = artifact(msgpack.unpackb(started.read_bytes())["body"]["definition"])
        values.update(json.loads(definition.read_text())["stages"].get(description["name"], {}))
    return values


def artifact(reference):
    """The path of the artifact that an event refers to."""
    digest = reference["digest"]
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError(f"{digest!r} is no digest")
    return DATA / "objects" / digest[:2] / digest
