"""A receiver of posts on this machine, which answers as a test tells it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Webhook:
    """A receiver that answers as told, once per request and the last for ever; None keeps silent until the end."""

    def __init__(self, *answers):
        self.answers, self.came, self.end = list(answers), [], threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.came.append((self.path, self.headers["Content-Type"], json.loads(body)))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if answer is None:
                    outer.end.wait(30)
                    return
                self.send_response(answer)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(b"invalid_blocks" if answer == 400 else b"https://hooks.example/hush")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/hush"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.server.shutdown()
        self.server.server_close()
