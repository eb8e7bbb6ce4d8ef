"""Drives the web console in headless Chromium over its DevTools pipe; see console.sh.

console.py QUORATE ENDPOINT CONSOLE_URL [SCREENSHOT]
"""

import base64
import json
import os
import select
import subprocess
import sys
import tempfile
import time

PATIENCE = 30


class Browser:
    """Chromium, spoken to over two pipes: messages of JSON that end with a zero byte."""

    def __init__(self, profile):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()

        def at_3_and_4():
            # Away from 3 and 4 first: each may be where the other must go.
            commands, answers = os.dup(to_browser), os.dup(from_browser)
            commands, answers = os.dup(commands), os.dup(answers)
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        command = ["chromium", "--headless=new", "--remote-debugging-pipe", "--no-first-run",
                   "--disable-gpu", "--hide-scrollbars", "--window-size=1180,760",
                   f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium has no sandbox for root.
        self.process = subprocess.Popen(command, preexec_fn=at_3_and_4, close_fds=False,
                                        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.last, self.session = b"", 0, None
        self.problems = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                if not select.select([self.read], [], [], PATIENCE)[0]:
                    raise RuntimeError(f"chromium has said nothing for {PATIENCE} s")
                part = os.read(self.read, 1 << 16)
                if not part:
                    raise RuntimeError("chromium has gone")
                self.buffer += part
            text, self.buffer = self.buffer.split(b"\0", 1)
            answer = json.loads(text)
            self.note(answer)
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def note(self, event):
        """Keeps what went wrong on the page: exceptions, and what its policy refused."""
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(event["params"]["exceptionDetails"])
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.problems.append(event["params"]["entry"])

    def eval(self, expression):
        return self.call("Runtime.evaluate", expression=expression)["result"].get("value")

    def until(self, what, expression):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            value = self.eval(expression)
            if value:
                return value
            time.sleep(0.1)
        raise SystemExit(f"not seen in {PATIENCE} s: {what}; the page says:\n"
                         + str(self.eval("document.body.innerText")))

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
        except (RuntimeError, OSError):
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main():
    quorate, endpoint, url, *screenshot = sys.argv[1:]

    def run(*words):
        done = subprocess.run([quorate, "--endpoints", endpoint, *words], check=True,
                              capture_output=True, text=True)
        return done.stdout

    row = "[...document.querySelectorAll('#rows-leases tr')].find(r => r.dataset.key === 'ship/42')"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            browser.call("Page.navigate", url=url + "#leases")
            browser.until("the page to be live", "document.querySelector('#link')?.dataset.state === 'live'")
            browser.until("a lease of the beginning", "document.querySelector('#rows-leases a') !== null")
            run("lease", "claim", "ship/42", "--owner", "captain", "--ttl", "6s")
            shown = browser.until("the lease", f"{row}?.innerText")
            assert "captain" in shown, shown
            print("a lease was seen to appear:", " ".join(shown.split()))
            first = browser.eval(f"{row}.querySelector('.left span').textContent")
            browser.until("its time to go down",
                          f"{row} && {row}.querySelector('.left span').textContent !== '{first}'")
            if screenshot:
                picture = browser.call("Page.captureScreenshot", format="png")["data"]
                with open(screenshot[0], "wb") as out:
                    out.write(base64.b64decode(picture))
            browser.until("the lease to end", f"!({row})")
            print("it was seen to expire")
            browser.eval("location.hash = 'key=' + encodeURIComponent('ship/42')")
            story = browser.until("the explanation", "document.querySelector('#story')?.innerText")
            assert "Nobody holds the lease" in story and "it expired" in story, story
            assert "captain" in story, story
            print("it was explained:", " ".join(story.split()))
            for tab in ("cluster", "locks", "processes", "queues"):
                browser.eval(f"location.hash = '{tab}'")
                filled = f"document.querySelector('#tab-{tab} tbody tr:not(:has(.empty))')"
                browser.until(f"rows of {tab}", f"!document.querySelector('#tab-{tab}').hidden && {filled} !== null")
            for what, of, word in (("process", "build-7", "compiled"), ("queue", "mail", "hello")):
                browser.eval(f"location.hash = '{what}={of}'")
                browser.until(f"the {what}", f"document.querySelector('#detail').innerText.includes('{word}')")
            assert not browser.problems, browser.problems
            print("all tables have rows, and nothing went wrong on the page")
        finally:
            browser.close()


main()
