"""Freely available datasets, fetched once, checked against pinned sha256 sums.

Environment: JSTAR_CACHE is where they are kept (default $XDG_CACHE_HOME/jstar or ~/.cache/jstar);
JSTAR_MIRROR is an address that is asked first, for <mirror>/<dataset>/<file>; http_proxy and
https_proxy are respected. A file that lies in the cache already is only checked. A broken transfer
is resumed.
"""

import hashlib
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from jstar.errors import JstarError
from jstar.private import private_folder, user_cache
from jstar.progress import Progress

ATTEMPTS = 5  # of one address, each going on where the last one broke off
PAUSE_SECONDS = 2.0  # doubled after each attempt
TIMEOUT_SECONDS = 60.0
CHUNK = 1 << 20


@dataclass(frozen=True)
class Remote:
    """One file: where it comes from and what it must be."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def _idx(base: str, images: str, labels: str) -> tuple[Remote, ...]:
    return (
        Remote(f"{base}/train-images-idx3-ubyte.gz", images),
        Remote(f"{base}/train-labels-idx1-ubyte.gz", labels),
    )


REMOTE = {
    "cifar10": (
        Remote(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    "mnist": _idx(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "fashion-mnist": _idx(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
}


def cache_folder() -> Path:
    """Where downloads are kept."""
    if stated := os.environ.get("JSTAR_CACHE"):
        return Path(stated)
    temporary = Path(tempfile.gettempdir()) / f"jstar-{os.getuid()}"
    return user_cache() or private_folder(temporary)


def fetch(dataset: str) -> Path:
    """The dataset's file, or its folder if it has several, downloaded if it is not there yet.

    Raises JstarError: what failed, and where to put the file by hand.
    """
    files = [_fetch_file(cache_folder() / dataset, remote, dataset) for remote in REMOTE[dataset]]
    return files[0] if len(files) == 1 else files[0].parent


def _fetch_file(folder: Path, remote: Remote, dataset: str) -> Path:
    target = folder / remote.name
    if target.is_file():
        if _sha256(target) == remote.sha256:
            return target
        raise JstarError(
            f"{target}: has another sha256 than {remote.url}; remove it, it will be fetched again"
        )
    mirror = os.environ.get("JSTAR_MIRROR")
    urls = [f"{mirror.rstrip('/')}/{dataset}/{remote.name}"] if mirror else []
    reasons = []
    for url in [*urls, remote.url]:
        try:
            return _from(url, target, remote.sha256)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reasons.append(f"{url}: {_reason(error)}")
    raise JstarError(
        f"dataset.path: is missing, and '{dataset}' cannot be downloaded ({'; '.join(reasons)}); "
        f"put {remote.name} into {folder}, or set JSTAR_MIRROR or https_proxy"
    )


def _from(url: str, target: Path, sha256: str) -> Path:
    """Download `url` to `target`, going on with what is there of it. Raises OSError, ValueError."""
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            _transfer(url, part)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == ATTEMPTS - 1:
                raise
        except (OSError, http.client.HTTPException):
            if attempt == ATTEMPTS - 1:
                raise
        time.sleep(PAUSE_SECONDS * 2**attempt)
    found = _sha256(part)
    if found != sha256:
        part.unlink()
        raise ValueError(f"its sha256 is {found}, expected is {sha256}")
    part.replace(target)
    return target


def _transfer(url: str, part: Path) -> None:
    """Fetch the rest of `part`; from the start where the server does not know ranges."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "jstar"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        # A new opener sees the proxies of the environment as they are now.
        answer = urllib.request.build_opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to fetch
            return
        raise
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:
        have = have if answer.status == 206 else 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        with Progress(f"download {part.stem}", total / 1e6, "MB") as bar:
            bar.resume(have / 1e6)
            while data := answer.read(CHUNK):
                file.write(data)
                bar.advance(len(data) / 1e6)
        file.flush()
        os.fsync(file.fileno())
        if file.tell() < total:
            raise http.client.IncompleteRead(b"", int(total - file.tell()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    return str(inner or error) or type(error).__name__
