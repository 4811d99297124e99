"""Uses the page to chat in, in a headless Chromium: page.py URL TOKEN-URL TOKEN ANSWER.

URL is a server that needs no token, TOKEN-URL one that needs TOKEN. ANSWER is what
the model answers to "Hello" with the seed 5, as JSON.
"""
import json
import os
import shutil
import sys

from playwright.sync_api import expect, sync_playwright

url, token_url, token = sys.argv[1:4]
answer = json.loads(sys.argv[4])
expect.set_options(timeout=30_000)  # for busy machines
wrong = []  # what happened in the browser that must not


def page_of(browser, **options):
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(60_000)
    # The statuses 400 and 401 are answers that the page knows what to do about.
    page.on("console", lambda m: m.type == "error" and "status of 40" not in m.text and wrong.append(m.text))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("request", lambda r: r.url.startswith((url, token_url, "data:")) or wrong.append(f"it asks for {r.url}"))
    return page


def settings(page, **values):
    page.get_by_role("button", name="Settings").click()
    for name, value in values.items():
        field = page.locator("#" + name)
        field.select_option(value) if name == "mode" else field.fill(value)
    page.get_by_role("button", name="Done").click()


def close_settings(page):
    """A browser closes a dialog some time after the key: the next key would be the dialog's, too."""
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_label("Message")).to_be_focused()


def say(page, text):
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def answered(page):
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=60_000)


def fits(page):
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], f"the page is {width[0]} pixels wide on a screen of {width[1]}"


def look(page, name):
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def chat(browser, scheme, width):
    page = page_of(browser, color_scheme=scheme, viewport={"width": width, "height": 700})
    page.goto(url)
    expect(page.get_by_role("heading", name="small context of 30000 tokens")).to_be_visible()
    settings(page, mode="chat", seed="5", max_tokens="40", temperature="1")
    log = page.get_by_role("log")
    say(page, "Hello")
    answered(page)
    assert log.locator(".assistant span").all_text_contents() == [answer], log.locator(".assistant span").all_text_contents()
    expect(page.get_by_role("status")).to_contain_text("40 tokens")
    page.get_by_role("button", name="Again").click()
    answered(page)
    assert log.locator(".assistant span").all_text_contents() == [answer]

    # What is said is text, whatever it looks like, and a second line is part of a message.
    page.get_by_label("Message").fill("<img src=x onerror='document.title=1'>")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    answered(page)
    assert log.locator(".user span").last.text_content() == "<img src=x onerror='document.title=1'>\nsecond line"
    assert page.title() == "small" and log.locator(".turn").count() == 4
    fits(page)
    look(page, f"chat-{scheme}-{width}")
    page.get_by_role("button", name="Settings").click()
    fits(page)
    look(page, f"settings-{scheme}-{width}")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.context.close()
    return ground


def keyboard(browser):
    """A long text is stopped by Escape, settings outlive the page, and all of it needs no mouse."""
    page = page_of(browser)
    page.goto(url)
    expect(page.get_by_role("heading", name="small context")).to_be_visible()
    for _ in range(2):
        page.keyboard.press("Shift+Tab")  # from the message to the log, and to Settings
    expect(page.get_by_role("button", name="Settings")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("The model")).to_be_focused()
    page.get_by_label("Most tokens").fill("15000")
    page.get_by_label("Temperature").fill("0")
    close_settings(page)
    page.reload()
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Most tokens")).to_have_value("15000")
    close_settings(page)
    say(page, "Once")
    expect(page.get_by_role("log").locator(".assistant")).not_to_be_empty()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.keyboard.press("Escape")
    answered(page)
    expect(page.get_by_role("status")).to_have_text("stopped")
    expect(page.get_by_role("log")).to_contain_text("Once")
    before = page.get_by_role("log").text_content()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Most tokens").fill("3")
    close_settings(page)
    page.keyboard.press("Enter")  # an empty message: the model writes on
    expect(page.get_by_role("status")).not_to_have_text("stopped")
    answered(page)
    after = page.get_by_role("log").text_content()
    assert after.startswith(before) and len(after) > len(before), (before, after)
    page.get_by_role("button", name="New").click()
    assert page.get_by_role("log").text_content() == ""
    page.context.close()


def with_token(browser):
    """A server that wants a token: the page asks for it. What no longer fits the model's context is left out."""
    page = page_of(browser)
    page.goto(token_url)
    expect(page.get_by_label("API token")).to_be_focused()
    expect(page.get_by_text("the server asks for its token")).to_be_visible()
    page.get_by_label("API token").fill("not " + token)
    page.keyboard.press("Tab")
    expect(page.get_by_text("the server does not take this token")).to_be_visible()
    page.get_by_label("API token").fill(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="small context of 64 tokens")).to_be_visible()
    settings(page, max_tokens="8", temperature="0")
    say(page, "It was the first day of the year, and nobody knew it yet. " * 2)
    answered(page)
    expect(page.get_by_role("log")).to_contain_text("The model no longer sees the beginning")
    expect(page.get_by_role("status")).to_contain_text("8 tokens")
    page.context.close()


with sync_playwright() as p:
    browser = p.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"])
    grounds = [chat(browser, "light", 1200), chat(browser, "dark", 360), chat(browser, "light", 360)]
    assert grounds[0] != grounds[1] and grounds[0] == grounds[2], grounds
    keyboard(browser)
    with_token(browser)
    browser.close()
assert not wrong, wrong
