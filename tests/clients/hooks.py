"""Admission and conversion webhooks, each at a path of its own.

Usage: hooks.py ADDRESS CERTIFICATE KEY
Says on which port it listens.
"""

import base64
import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

MARK = "webhook-e2e-test"


def refuse(why):
    return {"allowed": False, "status": {"message": why, "reason": "because it is a test"}}


def patched(*steps):
    patch = base64.b64encode(json.dumps(list(steps)).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch}


def marked(value):
    fields = [value.get("data") or {}, value.get("metadata", {}).get("labels") or {}]
    return any(f.get(MARK) == "webhook-disallow" for f in fields)


def deny(_):
    return refuse("this webhook denies all requests")


def deny_marked(request):
    thing = request.get("object") or request.get("oldObject") or {}
    return refuse("the thing contains an unwanted mark") if marked(thing) else {"allowed": True}


def slow(_):
    time.sleep(5)
    return {"allowed": True}


def stages(request):
    """Each stage begins when the one before it is done."""
    data = (request["object"] or {}).get("data") or {}
    steps = []
    for before, after in [("mutation-start", "mutation-stage-1"), ("mutation-stage-1", "mutation-stage-2")]:
        if data.get(before) == "yes" and after not in data:
            steps.append({"op": "add", "path": f"/data/{after}", "value": "yes"})
            break
    return patched(*steps) if steps else {"allowed": True}


def init_container(_):
    extra = {"name": "webhook-added", "image": "busybox:1", "command": ["/bin/busybox", "true"]}
    return patched({"op": "add", "path": "/spec/initContainers", "value": [extra]})


def label(_):
    return patched({"op": "add", "path": "/metadata/labels", "value": {"webhook-added": "yes"}})


REVIEWS = {"/deny": deny, "/deny-marked": deny_marked, "/slow": slow, "/stages": stages, "/label": label,
           "/init-container": init_container}


def convert(request):
    """v1 has `hostPort`, v2 has `host` and `port`."""
    wanted, objects = request["desiredAPIVersion"], []
    for thing in request["objects"]:
        thing = dict(thing)
        if thing["apiVersion"] != wanted:
            thing["apiVersion"] = wanted
            if wanted.endswith("/v2"):
                thing["host"], thing["port"] = thing.pop("hostPort").split(":")
            else:
                thing["hostPort"] = thing.pop("host") + ":" + thing.pop("port")
        objects.append(thing)
    return {"convertedObjects": objects, "result": {"status": "Success"}}


class Hooks(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path, request = urlparse(self.path).path, review["request"]
        answer = convert(request) if path == "/convert" else REVIEWS[path](request)
        review["response"] = {"uid": request["uid"], **answer}
        del review["request"]
        body = json.dumps(review).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


address, certificate, key = sys.argv[1:]
class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Whoever asks may hang up: that is what some of the checks are about."""


server = Server((address, 0), Hooks)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
