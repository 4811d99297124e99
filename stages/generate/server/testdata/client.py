"""Uses a server as programs do, by the openai package: client.py URL TOKEN TEXT.

TEXT is the greedy continuation of "Once upon" by 12 tokens.
"""
import sys

import openai

url, token, text = sys.argv[1:]
client = openai.OpenAI(base_url=url + "/v1", api_key=token, max_retries=0)

models = client.models.list().data
assert [m.id for m in models] == ["small"], models
assert client.models.retrieve("small").id == "small"

whole = client.completions.create(model="small", prompt="Once upon", max_tokens=12, temperature=0)
assert whole.choices[0].text == text, whole
assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 12, whole

parts = list(client.completions.create(model="small", prompt="Once upon", max_tokens=12, temperature=0, stream=True,
                                       stream_options={"include_usage": True}))
assert "".join(c.text for p in parts for c in p.choices) == text, parts
assert parts[-1].usage.completion_tokens == 12 and parts[-1].choices == [], parts

several = client.completions.create(model="small", prompt=[[72, 105], [72, 111]], n=2, max_tokens=4, seed=7, echo=True,
                                    logprobs=3, stop=["none"], top_p=0.9, extra_body={"top_k": 40, "min_p": 0.01})
assert [c.index for c in several.choices] == [0, 1, 2, 3], several
assert several.choices[2].text.startswith("Ho"), several
assert several.choices[0].logprobs.token_logprobs[0] is None and len(several.choices[0].logprobs.tokens) == 6, several

messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
chat = client.chat.completions.create(model="small", messages=messages, max_completion_tokens=10, seed=1, logprobs=True,
                                      top_logprobs=2)
assert chat.choices[0].message.role == "assistant" and len(chat.choices[0].logprobs.content) <= 10, chat
with client.chat.completions.create(model="small", messages=messages, max_completion_tokens=10, seed=1,
                                    stream=True) as stream:
    said = "".join(p.choices[0].delta.content or "" for p in stream)
assert said == chat.choices[0].message.content, (said, chat)

for wrong, param, status in [
    (dict(model="large"), "model", openai.NotFoundError),
    (dict(temperature=3), "temperature", openai.BadRequestError),
    (dict(prompt="a" * 600), None, openai.BadRequestError),
    (dict(extra_body={"beams": 4}), "beams", openai.BadRequestError),
]:
    try:
        client.completions.create(**{"model": "small", "prompt": "a", **wrong})
    except status as err:
        assert err.param == param and err.body["message"], err.body
    else:
        raise AssertionError(f"{wrong} is answered")
try:
    openai.OpenAI(base_url=url + "/v1", api_key="other", max_retries=0).models.list()
except openai.AuthenticationError as err:
    assert err.code == "invalid_api_key", err
else:
    raise AssertionError("another token is good enough")
