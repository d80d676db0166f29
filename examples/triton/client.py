#!/usr/bin/env python3
"""Ask a Triton Inference Server what is in photographs.

    python client.py                                  # two photographs, over HTTP
    python client.py --protocol grpc --url 127.0.0.1:8001
    python client.py --image cat.jpg --top 3
    python client.py --requests 64 --in-flight 16     # asynchronous requests

All photographs of a call travel as one batch of bytes: upright, made smaller, and cut
to the middle as torchvision does for its weights. All other preparation is the model's.
The answer is made by the server's classification extension: "score:index:name".

Needs: pip install "tritonclient[http,grpc]" pillow scikit-learn

Exit code: 0, or 1 after an error, which is told in one line; 2 for a wrong option.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

PORTS = {"http": 8000, "grpc": 8001}
# torchvision makes the shorter side 232 pixels long for a picture of 224.
RESIZE = 232 / 224


class ClientError(Exception):
    """The request failed; the message is for a person."""


class ServerGoneError(ClientError):
    """No server answers: never reached, or lost while it was answering."""


class Model(NamedTuple):
    """What a client must know of a model; `size` is the images' height and width."""

    name: str
    input: str
    size: int
    output: str
    labels: bool


class Label(NamedTuple):
    score: float
    index: int
    name: str


class Client:
    """Talks to one server over HTTP or gRPC, with time-outs and retries.

    A request is sent again only if the connection failed. That is safe because
    inference changes nothing on the server. A request that took too long is not
    repeated: the server has too much to do already.
    """

    def __init__(
        self, url: str, protocol: str = "http", timeout: float = 10, retries: int = 2
    ) -> None:
        self.url, self.protocol = url, protocol
        self.timeout, self.retries = timeout, retries

    async def __aenter__(self) -> Client:
        if self.protocol == "http":
            self.triton: Any = triton_http
            # The limit of one request is set below, for both protocols alike.
            self.client: Any = triton_http_aio.InferenceServerClient(
                self.url, conn_timeout=self.timeout + 5
            )
        else:
            self.triton = triton_grpc
            self.client = triton_grpc_aio.InferenceServerClient(self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def _call(self, send: Callable[[], Awaitable[Any]]) -> Any:
        failures: list[str] = []
        for attempt in range(self.retries + 1):
            if attempt:
                # 0.2 s, 0.4 s, 0.8 s, ...: a server that starts gets time to start.
                await asyncio.sleep(0.1 * 2**attempt)
            try:
                return await asyncio.wait_for(send(), self.timeout)
            except aiohttp.ClientConnectorDNSError:
                failures.append("no machine has that name")
            except aiohttp.ClientConnectorError:
                failures.append("nobody listens there")
            except (aiohttp.ClientError, ConnectionError):
                failures.append("the connection was lost before the answer came")
            except (asyncio.TimeoutError, TimeoutError):  # noqa: UP041 (one in 3.11)
                raise ClientError(self._too_slow()) from None
            except InferenceServerException as error:
                status = (error.status() or "").removeprefix("StatusCode.")
                if status in ("UNAVAILABLE", "CANCELLED"):
                    failures.append(_lost(error.message() or ""))
                elif status == "DEADLINE_EXCEEDED":
                    raise ClientError(self._too_slow()) from None
                else:
                    raise
        tries = f" after {len(failures)} tries" if len(failures) > 1 else ""
        reasons = ", then ".join(dict.fromkeys(failures))
        hint = f"Is it running, and is this its {self.protocol} port?"
        if reasons.startswith("the connection was lost"):
            hint = f"Was it stopped, or is this not its {self.protocol} port?"
        raise ServerGoneError(
            f"no answer from the server at {self.url} ({self.protocol}){tries}: "
            f"{reasons}. {hint}"
        )

    def _too_slow(self) -> str:
        return (
            f"no answer from the server at {self.url} within {self.timeout:g} s. It "
            "may be busy: send less at once, or allow more time with --timeout"
        )

    async def describe(self, name: str) -> Model:
        """Ask the server for the model's input and output."""
        as_json = {} if self.protocol == "http" else {"as_json": True}
        try:
            about = await self._call(
                lambda: self.client.get_model_metadata(name, **as_json)
            )
            config = await self._call(
                lambda: self.client.get_model_config(name, **as_json)
            )
        except InferenceServerException as error:
            raise await self._refused(name, error) from None
        config = config.get("config", config)
        given = about["inputs"][0]
        # The first dimension is the batch.
        shape = [int(size) for size in given["shape"][1:]]
        alone = len(about["inputs"]) == 1
        if not alone or given["datatype"] != "UINT8" or shape[2:] != [3]:
            raise ClientError(
                f"'{name}' does not take a batch of images as bytes, [height, width, 3]"
            )
        return Model(
            name,
            given["name"],
            shape[0],
            about["outputs"][0]["name"],
            bool(config["output"][0].get("label_filename")),
        )

    async def infer(self, model: Model, images: np.ndarray, top: int = 0) -> Any:
        """All scores, one row an image; or with `top`, that many labels an image.

        `images` is uint8, [batch, height, width, 3]. ClientError says what went wrong.
        """
        given = self.triton.InferInput(model.input, list(images.shape), "UINT8")
        given.set_data_from_numpy(np.ascontiguousarray(images, dtype=np.uint8))
        wanted = self.triton.InferRequestedOutput(model.output, class_count=top)
        limit = {} if self.protocol == "http" else {"client_timeout": self.timeout}
        try:
            answer = await self._call(
                lambda: self.client.infer(
                    model.name, [given], outputs=[wanted], **limit
                )
            )
        except InferenceServerException as error:
            raise await self._refused(model.name, error) from None
        values = answer.as_numpy(model.output)
        if not top:
            return values
        return [[read_label(text) for text in row] for row in values]

    async def infer_many(
        self, model: Model, images: np.ndarray, count: int, in_flight: int, top: int = 0
    ) -> list[Any]:
        """Send `count` equal requests, at most `in_flight` of them at a time."""
        room = asyncio.Semaphore(in_flight)

        async def one() -> Any:
            async with room:
                return await self.infer(model, images, top)

        tasks = [asyncio.create_task(one()) for _ in range(count)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            # Every task has ended before the connection is closed.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _refused(self, name: str, error: InferenceServerException) -> ClientError:
        """What the server's refusal means."""
        message = (error.message() or "no reason given").split(" NOTE: ")[0]
        message = message.removeprefix("[request id: <id_unknown>] ")
        status = (error.status() or "").removeprefix("StatusCode.")
        if "unknown model" in message:
            try:
                index = await self.client.get_model_repository_index()
                models = index if self.protocol == "http" else index.models
                names = [
                    entry["name"] if self.protocol == "http" else entry.name
                    for entry in models
                ]
                has = f"It has: {', '.join(names)}"
            except (InferenceServerException, aiohttp.ClientError):
                # A careful operator does not tell strangers.
                has = "Ask who runs it for the name"
            return ClientError(f"the server at {self.url} has no model '{name}'. {has}")
        if "is not healthy" in message:
            return ClientError(
                f"the model's process has died on the server at {self.url}. "
                "Restart the server; its log may say why"
            )
        return ClientError(f"the server refused the request ({status}): {message}")


def _lost(message: str) -> str:
    """Why a gRPC call found no server, from the library's message."""
    message = message.lower()
    if "resol" in message or "dns" in message:
        return "no machine has that name"
    if "failed to connect" in message:
        return "nobody listens there"
    return "the connection was lost before the answer came"


def read_url(text: str | None, protocol: str | None) -> tuple[str, str]:
    """HOST:PORT and the protocol, from HOST, HOST:PORT or SCHEME://HOST:PORT."""
    try:
        url = urlsplit(text if text and "://" in text else f"//{text or '127.0.0.1'}")
    except ValueError as error:
        raise ClientError(f"--url {text}: {error}") from None
    scheme = url.scheme or protocol or "http"
    if scheme not in PORTS:
        raise ClientError(
            f"--url {text}: {scheme} is not spoken here, only http or grpc"
        )
    if protocol and protocol != scheme:
        raise ClientError(f"--url {text} contradicts --protocol {protocol}")
    if not url.hostname or url.path.strip("/") or url.query or "@" in url.netloc:
        raise ClientError(f"--url {text}: give HOST:PORT, and nothing else")
    try:
        port = PORTS[scheme] if url.port is None else url.port
    except ValueError:
        port = 0
    if not port or url.netloc.endswith(":"):
        raise ClientError(f"--url {text}: a port is a number from 1 to 65535")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f"{host}:{port}", scheme


def read_label(text: bytes) -> Label:
    """Take "score:index:name" apart; a name may hold a colon too."""
    score, index, *name = text.decode().split(":", 2)
    return Label(float(score), int(index), name[0] if name else "")


def load_photographs(paths: list[Path]) -> dict[str, Any]:
    """Names and pixels; without paths, two photographs that scikit-learn ships."""
    from PIL import Image, ImageOps

    if not paths:
        from sklearn.datasets import load_sample_image

        names = ("china.jpg", "flower.jpg")
        return {name: Image.fromarray(load_sample_image(name)) for name in names}
    photographs = {}
    for path in paths:
        try:
            with Image.open(path) as photograph:
                # Phones store pictures as the sensor lay, and say how to turn them.
                upright = ImageOps.exif_transpose(photograph)
                photographs[str(path)] = upright.convert("RGB")
        except (OSError, Image.DecompressionBombError) as error:
            raise ClientError(f"cannot read the image {path}: {error}") from None
    return photographs


def preprocess(photographs: list[Any], size: int) -> np.ndarray:
    """The middle of each picture: uint8, [batch, size, size, 3]."""
    from PIL import Image

    batch = []
    for photograph in photographs:
        scale = size * RESIZE / min(photograph.size)
        sides = [max(size, round(scale * side)) for side in photograph.size]
        smaller = photograph.resize(sides, Image.Resampling.BILINEAR)
        left, top = ((side - size) // 2 for side in sides)
        batch.append(np.asarray(smaller.crop((left, top, left + size, top + size))))
    return np.stack(batch)


async def ask(args: argparse.Namespace) -> None:
    url, protocol = read_url(args.url, args.protocol)
    photographs = load_photographs(args.image)
    async with Client(url, protocol, args.timeout, args.retries) as client:
        model = await client.describe(args.model)
        if not model.labels:
            raise ClientError(
                f"'{args.model}' has no labels, so it cannot name a class"
            )
        images = preprocess(list(photographs.values()), args.size or model.size)
        started = time.perf_counter()
        answers = await client.infer_many(
            model, images, args.requests, args.in_flight, args.top
        )
        seconds = time.perf_counter() - started
    for name, labels in zip(photographs, answers[0]):
        print(name)
        for label in labels:
            print(f"  {label.score:8.3f}  {label.index:4d}  {label.name}")
    if args.requests > 1:
        print(
            f"{args.requests} requests of {len(images)} images in {seconds:.2f} s, "
            f"at most {args.in_flight} at a time"
        )


def at_least(least: float, kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is no number from {least} on")
        return value

    return parse


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--protocol", choices=PORTS, help="(default: that of --url, or http)"
    )
    parser.add_argument(
        "--url",
        help="HOST:PORT, or http:// or grpc:// before it "
        "(default: 127.0.0.1, port 8000 or 8001)",
    )
    parser.add_argument("--model", default="resnet50", help="(default: %(default)s)")
    parser.add_argument(
        "--image",
        type=Path,
        action="append",
        default=[],
        help="a photograph; may be given again (default: two that scikit-learn ships)",
    )
    parser.add_argument(
        "--size",
        type=at_least(1, int),
        metavar="PIXELS",
        help="height and width to send (default: what the model takes)",
    )
    parser.add_argument("--top", type=at_least(1, int), default=5, metavar="N")
    parser.add_argument(
        "--requests",
        type=at_least(1, int),
        default=1,
        metavar="N",
        help="requests to send",
    )
    parser.add_argument(
        "--in-flight",
        type=at_least(1, int),
        default=8,
        metavar="N",
        help="requests under way at a time (default: 8)",
    )
    parser.add_argument(
        "--timeout",
        type=at_least(0.001, float),
        default=10,
        metavar="S",
        help="longest wait for one answer (default: 10)",
    )
    parser.add_argument(
        "--retries",
        type=at_least(0, int),
        default=2,
        metavar="N",
        help="more tries after a failed connection (default: 2)",
    )
    args = parser.parse_args()
    try:
        asyncio.run(ask(args))
    except ClientError as error:
        print(f"client.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
