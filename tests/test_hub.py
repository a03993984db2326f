"""A repository's name in place of a folder, against a server of the hub's protocol."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from diffjax.errors import InputError
from diffjax.pretrained.hub import local_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = save({"w": np.arange(3, dtype=np.float32)})
SYSTEM = {
    "model_index.json": b"{}",
    "unet/config.json": b'{"a": 1}',
    "unet/model.safetensors": WEIGHTS,
    "unet/model.fp16.safetensors": b"not this",
    "unet/model.bin": b"not this",
    "whole.safetensors": b"not this",
    "tokenizer/merges.txt": b"#version",
}
REPOSITORIES = {
    "someone/system": SYSTEM,
    "someone/network": {"config.json": b"{}", "model.safetensors": WEIGHTS},
    "someone/pickles": {"config.json": b"{}", "model.bin": b"not this"},
}


@pytest.fixture(scope="module")
def hub():
    """The address of a server of `REPOSITORIES`, and the paths that it was asked for."""
    pytest.importorskip("huggingface_hub")
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def respond(self, body, kind="application/json", code=200, **headers):
            self.send_response(code)
            headers |= {"Content-Type": kind, "Content-Length": str(len(body))}
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self):
            path = self.path.partition("?")[0].lstrip("/")
            asked.append(path)
            for name, files in REPOSITORIES.items():
                if path.startswith(f"api/models/{name}"):
                    listed = [
                        {"type": "file", "rfilename": f, "path": f, "size": len(b), "oid": COMMIT}
                        for f, b in files.items()
                    ]
                    about = {"id": name, "sha": COMMIT, "siblings": listed}
                    answer = listed if "/tree/" in path else about
                    return self.respond(json.dumps(answer).encode())
                file = path.removeprefix(f"{name}/resolve/{COMMIT}/")
                if path != file and file in files:
                    tag = hashlib.sha1(files[file]).hexdigest()
                    named = {"ETag": f'"{tag}"', "X_Repo_Commit": COMMIT}
                    return self.respond(files[file], "application/octet-stream", **named)
            return self.respond(b"{}", code=404, X_Error_Code="RepoNotFound")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def test_a_repository_is_downloaded_without_copies_and_pickles(hub, tmp_path):
    address, asked = hub
    options = {"endpoint": address, "cache_dir": tmp_path}
    folder = local_folder("someone/system", **options)
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    wanted = {"model_index.json", "unet/config.json", "unet/model.safetensors"}
    assert found == wanted | {"tokenizer/merges.txt"}
    assert (folder / "unet/model.safetensors").read_bytes() == WEIGHTS
    assert not any("bin" in path or "whole" in path for path in asked)
    folder = local_folder("someone/network", **options)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("name", "words"),
    [("someone/pickles", "has no safetensors"), ("someone/nothing", "cannot be read")],
)
def test_what_is_not_there_is_a_sentence(hub, tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        local_folder(name, endpoint=hub[0], cache_dir=tmp_path)


def test_a_path_stays_a_path(tmp_path):
    assert local_folder(tmp_path) == tmp_path
    assert local_folder("some/longer/path") == Path("some/longer/path")
