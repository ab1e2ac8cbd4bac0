"""A real S3 server (moto) on a free port of the loopback, with one bucket, `tidewatch`. Prints its port; ends with its standard input.

Each line of the standard input is `KIND COUNT`: so many of the next requests that put go wrong, and the last word said is what counts.
`cut` carries the request out and closes the connection without an answer, `503` and `409` answer that and do nothing, `none` ends it.
`all503 COUNT` is for any request. An empty line is answered with the count that is left.
"""

import os
import socket
import sys
import threading

os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")

import werkzeug.serving
from moto.server import create_backend_app

app = create_backend_app("s3")
lock = threading.Lock()
fault = {"kind": "none", "left": 0}


def answer(status, code, start_response):
    start_response(status, [("content-type", "application/xml")])
    return [f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>scripted</Message></Error>".encode()]


def faulty(environ, start_response):
    kind = "none"
    with lock:
        if fault["left"] > 0 and (environ["REQUEST_METHOD"] == "PUT" or fault["kind"] == "all503"):
            fault["left"] -= 1
            kind = fault["kind"]
    if kind in ("503", "all503"):
        return answer("503 Slow Down", "SlowDown", start_response)
    if kind == "409":
        return answer("409 Conflict", "ConditionalRequestConflict", start_response)
    if kind == "cut":
        list(app(environ, lambda *_: None))
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []
    return app(environ, start_response)


server = werkzeug.serving.make_server("127.0.0.1", 0, faulty, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
import http.client

connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
connection.request("PUT", "/tidewatch")
assert connection.getresponse().status == 200
print(server.server_port, flush=True)
for line in sys.stdin:
    with lock:
        if line.split():
            fault["kind"], fault["left"] = line.split()[0], int(line.split()[1])
        print(fault["left"], flush=True)
