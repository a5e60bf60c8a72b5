"""Downloads: pinned, resumed, mirrored; from a server on this machine only."""

import functools
import hashlib
import http.server
import threading

import formats
import numpy as np
import pytest

from jstar.config import DatasetConfig
from jstar.data import download, open_dataset, prepare
from jstar.data.sources import READERS
from jstar.errors import JstarError

IMAGES, LABELS = formats.pictures(12, 28, 1), np.arange(12) % 10


class Handler(http.server.SimpleHTTPRequestHandler):
    """Knows ranges; breaks off after `limit` bytes; counts what it is asked for."""

    limit: int | None = None
    ranges = True
    asked: list[tuple[str, str | None]]

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Range")))
        try:
            with open(self.translate_path(self.path), "rb") as file:
                data = file.read()
        except OSError:
            return self.send_error(404)
        first = 0
        if self.ranges and self.headers.get("Range"):
            first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if first >= len(data):
                return self.send_error(416)
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        stop = len(data) if self.limit is None else min(len(data), first + self.limit)
        self.wfile.write(data[first:stop])
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of <root>/fashion-mnist, whose files are pinned; settable behaviour."""
    root = tmp_path / "www"
    folder = formats.write_idx(root / "fashion-mnist", IMAGES[..., 0], LABELS)
    handler = type("H", (Handler,), {"asked": []})
    made = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(root))
    )
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{made.server_port}"
    remotes = tuple(
        download.Remote(
            f"{address}/fashion-mnist/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in sorted(folder.iterdir())
    )
    monkeypatch.setitem(download.REMOTE, "fashion-mnist", remotes)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("JSTAR_CACHE", str(tmp_path / "cache"))
    for name in ("JSTAR_MIRROR", "http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    handler.address, handler.root = address, root
    yield handler
    made.shutdown()
    made.server_close()


CONFIG = DatasetConfig(name="f", source="fashion-mnist")


def test_a_free_set_without_a_path_is_downloaded_once(server, tmp_path):
    card = prepare(CONFIG, tmp_path / "out")
    np.testing.assert_array_equal(
        open_dataset(tmp_path / "out").images_NCHW, IMAGES.transpose(0, 3, 1, 2)
    )
    assert card.origin == str(tmp_path / "cache" / "fashion-mnist")
    prepare(CONFIG, tmp_path / "again")
    assert len(server.asked) == 2


def test_a_local_path_beats_a_download(server, tmp_path):
    local = CONFIG.model_copy(update={"path": str(server.root / "fashion-mnist")})
    prepare(local, tmp_path / "out")
    assert server.asked == []


def test_a_broken_transfer_is_resumed_with_ranges(server, tmp_path):
    server.limit = 3000
    size = (server.root / "fashion-mnist" / "train-images-idx3-ubyte.gz").stat().st_size
    assert 2 * 3000 < size < 5 * 3000
    download.fetch("fashion-mnist")
    images = [wanted for path, wanted in server.asked if "images" in path]
    assert images[:3] == [None, "bytes=3000-", "bytes=6000-"]
    left = [path.name for path in (tmp_path / "cache" / "fashion-mnist").iterdir()]
    assert sorted(left) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.limit = 1000
    with pytest.raises(JstarError, match="cannot be downloaded"):
        download.fetch("fashion-mnist")
    part = next((tmp_path / "cache" / "fashion-mnist").glob("*.part"))
    assert part.stat().st_size == 5 * 1000
    server.limit = None
    server.asked.clear()
    download.fetch("fashion-mnist")
    assert server.asked[0][1] == "bytes=5000-"


def test_a_server_without_ranges_and_a_whole_part_file(server, tmp_path):
    target = tmp_path / "cache" / "fashion-mnist" / "train-images-idx3-ubyte.gz.part"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"x" * 10)
    server.ranges = False
    download.fetch("fashion-mnist")  # starts again instead of appending
    server.ranges = True
    whole = target.with_suffix("")
    whole.rename(target)
    download.fetch("fashion-mnist")  # the server answers 416: nothing is left


def test_a_mirror_is_asked_first_and_the_origin_after_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("JSTAR_MIRROR", f"{server.address}/nowhere/")
    download.fetch("fashion-mnist")
    assert [path.split("/")[1] for path, _ in server.asked] == ["nowhere", "fashion-mnist"] * 2


def test_the_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setitem(
        download.REMOTE,
        "fashion-mnist",
        tuple(
            download.Remote(f"http://far.invalid/fashion-mnist/{remote.name}", remote.sha256)
            for remote in download.REMOTE["fashion-mnist"]
        ),
    )
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(
        server,
        "translate_path",
        lambda self, path: str(server.root / path.removeprefix("http://far.invalid/")),
    )
    download.fetch("fashion-mnist")
    assert server.asked[0][0] == "http://far.invalid/fashion-mnist/train-images-idx3-ubyte.gz"


def test_a_wrong_checksum_is_named_and_nothing_is_kept(server, tmp_path):
    path = server.root / "fashion-mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(JstarError, match=r"train-labels.*sha256 is .* expected is .*put train-lab"):
        prepare(CONFIG, tmp_path / "out")
    assert not list((tmp_path / "cache").rglob("*labels*"))
    assert not (tmp_path / "out").exists()


def test_a_changed_file_in_the_cache_is_not_used(server, tmp_path):
    file = download.fetch("fashion-mnist") / "train-labels-idx1-ubyte.gz"
    file.write_bytes(b"other")
    with pytest.raises(JstarError, match="has another sha256.*remove it"):
        download.fetch("fashion-mnist")


def test_no_server_at_all(server, tmp_path, monkeypatch):
    monkeypatch.setitem(
        download.REMOTE, "fashion-mnist", (download.Remote("http://127.0.0.1:9/x.gz", "0" * 64),)
    )
    with pytest.raises(JstarError, match=r"127.0.0.1:9.*put x.gz into .*cache.*https_proxy"):
        download.fetch("fashion-mnist")


def test_only_free_sets_can_be_downloaded():
    assert set(download.REMOTE) == {name for name, reader in READERS.items() if reader.free}
    for remotes in download.REMOTE.values():
        assert all(len(remote.sha256) == 64 for remote in remotes)
