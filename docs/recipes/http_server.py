#!/usr/bin/env python3
"""http_server.py PORT: keeps one value. A PUT says its token in a header; a stale one gets 412."""
import http.server
import sys
import threading


class Value(http.server.BaseHTTPRequestHandler):
    value, highest, one_at_a_time = b"", 0, threading.Lock()

    def do_GET(self):
        self.answer(200, Value.value)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        token = int(self.headers["Quorate-Fencing-Token"])
        with Value.one_at_a_time:  # the check and the write are one step
            if token < Value.highest:
                return self.answer(412, b"stale: the highest token is %d\n" % Value.highest)
            # A service that keeps its value over a restart keeps this number with it.
            Value.value, Value.highest = body, token
        self.answer(200, b"")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Value).serve_forever()
