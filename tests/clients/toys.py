"""An extension API server: serves toys, kept in memory, to front proxies that it can believe.

Usage: toys.py ADDRESS PORT CERTIFICATE KEY CLIENT_CA NAMES
"""

import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

GROUP = "toys.e2e.example"
BASE = f"/apis/{GROUP}/v1"
KIND = [{"group": GROUP, "version": "v1", "kind": "Toy"}]

toys = {}
changed = threading.Condition()
events = []
allowed = []


def resources():
    verbs = ["create", "delete", "get", "list", "watch"]
    toy = {"name": "toys", "singularName": "toy", "namespaced": True, "kind": "Toy", "verbs": verbs,
           "shortNames": ["ty"], "categories": ["playthings"]}
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/v1", "resources": [toy]}


def openapi():
    schema = {"type": "object", "description": "A thing to play with.", "x-kubernetes-group-version-kind": KIND,
              "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
                             "metadata": {"type": "object"},
                             "color": {"type": "string", "description": "The paint on it."}}}
    action = {"operationId": "createToy", "x-kubernetes-action": "post", "x-kubernetes-group-version-kind": KIND[0],
              "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
              "responses": {"201": {"description": "made"}}}
    return {"openapi": "3.0.0", "info": {"title": "toys", "version": "1"},
            "paths": {f"{BASE}/namespaces/{{namespace}}/toys": {"post": action}},
            "components": {"schemas": {"example.e2e.toys.v1.Toy": schema}}}


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, code, reason, message):
        self.say(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                        "message": message})

    def user(self):
        """Who is asking, if whoever says so is a front proxy."""
        subject = dict(part[0] for part in self.connection.getpeercert()["subject"])
        return self.headers["X-Remote-User"] if subject.get("commonName") in allowed else None

    def watch(self, since):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = since
        while True:
            with changed:
                changed.wait_for(lambda: len(events) > sent, timeout=30)
                news, sent = events[sent:], len(events)
            for event in news:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()

    def do_GET(self):
        url = urlparse(self.path)
        query = parse_qs(url.query)
        parts = url.path[len(BASE):].strip("/").split("/") if url.path.startswith(BASE) else []
        if not self.user():
            return self.fail(401, "Unauthorized", "Unauthorized")
        if url.path == BASE:
            return self.say(200, resources())
        if url.path == "/openapi/v3":
            path = BASE.strip("/")
            return self.say(200, {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash=1"}}})
        if url.path == f"/openapi/v3{BASE}":
            return self.say(200, openapi())
        if parts[:1] == ["namespaces"] and len(parts) == 4:
            toy = toys.get((parts[1], parts[3]))
            return self.say(200, toy) if toy else self.fail(404, "NotFound", f'toys "{parts[3]}" not found')
        if parts and parts[-1] == "toys":
            if query.get("watch"):
                return self.watch(int(query.get("resourceVersion", ["0"])[0] or 0))
            namespace = parts[1] if len(parts) == 3 else None
            with changed:
                items = [toy for (ns, _), toy in sorted(toys.items()) if namespace in (None, ns)]
                revision = str(len(events))
            return self.say(200, {"kind": "ToyList", "apiVersion": f"{GROUP}/v1",
                                  "metadata": {"resourceVersion": revision}, "items": items})
        return self.fail(404, "NotFound", "the server could not find the requested resource")

    def do_POST(self):
        user = self.user()
        parts = urlparse(self.path).path[len(BASE):].strip("/").split("/")
        toy = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not user:
            return self.fail(401, "Unauthorized", "Unauthorized")
        with changed:
            toy["metadata"].update(namespace=parts[1], resourceVersion=str(len(events) + 1), uid=str(len(events)))
            toy["metadata"]["annotations"] = {"made-by": user}
            toys[(parts[1], toy["metadata"]["name"])] = toy
            events.append({"type": "ADDED", "object": toy})
            changed.notify_all()
        return self.say(201, toy)

    def do_DELETE(self):
        parts = urlparse(self.path).path[len(BASE):].strip("/").split("/")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with changed:
            toy = toys.pop((parts[1], parts[3]), None)
            if toy:
                events.append({"type": "DELETED", "object": toy})
                changed.notify_all()
        if not toy:
            return self.fail(404, "NotFound", f'toys "{parts[3]}" not found')
        return self.say(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})


def main():
    address, port, certificate, key, authority, names = sys.argv[1:]
    allowed.extend(json.loads(names))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer((address, int(port)), Server)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever()


main()
