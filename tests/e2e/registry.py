import base64, http.server, json, sys, tarfile
tar = tarfile.open(sys.argv[1])
files = {m.name.removeprefix('./'): m for m in tar.getmembers() if m.isfile()}
read = lambda name: tar.extractfile(files[name]).read()
manifest = json.loads(read('index.json'))['manifests'][0]
blob = lambda digest: read('blobs/' + digest.replace(':', '/'))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        want = 'Basic ' + base64.b64encode(b'user:secret').decode()
        if self.headers.get('Authorization') != want:
            self.send_response(401)
            self.send_header('WWW-Authenticate', 'Basic realm="private"')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        kind, body = 'application/json', b'{}'
        if '/manifests/' in self.path:
            kind, body = manifest['mediaType'], blob(manifest['digest'])
        elif '/blobs/' in self.path:
            kind, body = 'application/octet-stream', blob(self.path.rsplit('/', 1)[1])
        self.send_response(200)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command == 'GET': self.wfile.write(body)
    do_HEAD = do_GET
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 5055), Handler)
print('ready', flush=True)
server.serve_forever()
