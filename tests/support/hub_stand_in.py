"""A stand-in for the Hugging Face hub: the two routes that a download asks, over a folder. It is not the hub."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" * 6 + "c0de"
LARGE_BYTES = 1000
"""Files of more bytes are told with their SHA-256, as the hub tells it of what git LFS keeps."""


def _told(path, name):
    content = path.read_bytes()
    entry = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
    if len(content) > LARGE_BYTES:
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, path = self.server, self.path.partition("?")[0]
        if path.startswith(f"/api/models/{hub.name}"):
            revision = path.rpartition("/revision/")[2] if "/revision/" in path else "main"
            if revision not in ("main", COMMIT):
                return self._error("RevisionNotFound")
            names = sorted(p.relative_to(hub.folder).as_posix() for p in hub.folder.rglob("*") if p.is_file())
            siblings = [_told(hub.folder / name, name) for name in names]
            return self._answer(json.dumps({"id": hub.name, "sha": COMMIT, "siblings": siblings}).encode())
        name = path.removeprefix(f"/{hub.name}/resolve/{COMMIT}/")
        if name != path and (hub.folder / name).is_file():
            if self.command == "GET":
                hub.asked.append((name, self.headers.get("Range")))
            content = hub.changed.get(name, (hub.folder / name).read_bytes())
            return self._answer(content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
        return self._error("RepoNotFound")

    def _error(self, code):
        self._answer(b"{}", {"X-Error-Code": code}, 404)

    def _answer(self, content, headers=None, status=200):
        begin = self.headers.get("Range", "").removeprefix("bytes=").rstrip("-")
        if begin and status == 200:
            headers = {**(headers or {}), "Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
            content, status = content[int(begin) :], 206
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.server.cut_bytes
        if cut is not None and len(content) > cut:
            self.server.cut_bytes, self.close_connection = None, True
            self.wfile.write(content[:cut])
            return
        self.wfile.write(content)


@contextmanager
def hub_of(folder, name):
    """The stand-in with one repository; ``endpoint`` is its address, ``asked`` lists files as they were asked for. ``changed``
    holds what is sent in place of a file, and ``cut_bytes`` is where the next longer answer breaks off."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.folder, server.name, server.asked, server.changed, server.cut_bytes = folder, name, [], {}, None
    server.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
