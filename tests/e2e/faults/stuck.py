"""A FUSE file system with a folder `part`, spoken raw, that can be made to hang.

stuck.py MOUNTPOINT GATE: while the file GATE is there, requests are taken and never answered; if it says `shim`, only those
of processes that are shims' children. Requests of the kernel's own that need no answer are ignored.
"""
import ctypes, os, struct, sys

target, gate = sys.argv[1:3]
device = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
if libc.mount(b"stuck", target.encode(), b"fuse", 6, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))

LOOKUP, FORGET, GETATTR, STATFS, INIT = 1, 2, 3, 17, 26
OPENDIR, READDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = 27, 28, 29, 36, 42

def attributes(node):
    return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)

def answer(code, node, body):
    """The body of an answer, or an error's number."""
    if code == INIT:
        major, minor, ahead, flags = struct.unpack("<4I", body[:16])
        return struct.pack("<4I2H2I2H8I", 7, min(minor, 31), ahead, 0, 16, 12, 65536, 1, 0, 0, *[0] * 8)
    if code == LOOKUP:
        # Nothing is remembered: everybody asks anew.
        return struct.pack("<4Q2I", 2, 0, 0, 0, 0, 0) + attributes(2) if body == b"part\0" else -2
    if code == GETATTR:
        return struct.pack("<Q2I", 0, 0, 0) + attributes(node)
    if code == OPENDIR:
        return struct.pack("<Q2I", 0, 0, 0)
    if code == STATFS:
        return struct.pack("<5Q10I", 0, 0, 0, 0, 0, 512, 255, 512, *[0] * 7)
    return b"" if code in (READDIR, RELEASEDIR) else -38

def hangs(pid):
    try:
        whom = open(gate).read()
        return whom != "shim" or b"shim" in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
    except OSError:
        return False

print("mounted", flush=True)
while True:
    try:
        request = os.read(device, 1 << 17)
    except OSError:
        # It was unmounted.
        break
    _, code, unique, node, _, _, pid, _ = struct.unpack("<2I2Q4I", request[:40])
    if code in (FORGET, INTERRUPT, BATCH_FORGET):
        continue
    if code != INIT and hangs(pid):
        print("hangs", flush=True)
        continue
    said = answer(code, node, request[40:])
    error, body = (said, b"") if isinstance(said, int) else (0, said)
    try:
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
    except OSError:
        # Whoever asked has gone.
        pass
