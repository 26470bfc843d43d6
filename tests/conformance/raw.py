"""Talks to the API as the administrator, without a client in between.

raw.py KUBECONFIG-AS-JSON request METHOD PATH ACCEPT BODY
raw.py KUBECONFIG-AS-JSON websocket PATH PROTOCOL
"""
import base64, json, os, socket, ssl, sys, tempfile, urllib.parse

config = json.load(open(sys.argv[1]))
server = urllib.parse.urlparse(config["clusters"][0]["cluster"]["server"])
user = config["users"][0]["user"]
context = ssl._create_unverified_context()
with tempfile.TemporaryDirectory() as folder:
    paths = []
    for field in ("client-certificate", "client-key"):
        if field in user:
            paths.append(user[field])
            continue
        paths.append(os.path.join(folder, field))
        with open(paths[-1], "wb") as file:
            file.write(base64.b64decode(user[field + "-data"]))
    context.load_cert_chain(*paths)
plain = socket.create_connection((server.hostname, server.port), timeout=30)
wire = context.wrap_socket(plain)


def send(lines, body=b""):
    wire.sendall("\r\n".join([*lines, "Host: api", "", ""]).encode() + body)


def rest():
    parts = []
    while True:
        try:
            part = wire.recv(65536)
        except (ssl.SSLError, ConnectionError):
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)


if sys.argv[2] == "request":
    method, path, accept, body = sys.argv[3:]
    body = body.encode()
    send([f"{method} {path} HTTP/1.1", f"Accept: {accept}", "Content-Type: application/json",
          f"Content-Length: {len(body)}", "Connection: close"], body)
    sys.stdout.write(rest().decode(errors="replace"))
else:
    path, protocol = sys.argv[3:]
    send([f"GET {path} HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
          "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode(), f"Sec-WebSocket-Protocol: {protocol}"])
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += wire.recv(1)
    if not head.startswith(b"HTTP/1.1 101"):
        sys.exit(head.decode())

    def exactly(count):
        data = b""
        while len(data) < count:
            part = wire.recv(count - len(data))
            if not part:
                sys.exit()
            data += part
        return data

    while True:
        kind, length = exactly(2)
        if length == 126:
            length = int.from_bytes(exactly(2), "big")
        elif length == 127:
            length = int.from_bytes(exactly(8), "big")
        data = exactly(length)
        if kind & 15 == 8:
            break
        sys.stdout.write(data.decode(errors="replace"))
        sys.stdout.flush()
