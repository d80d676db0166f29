"""A real Triton server on loopback, a real client, and no GPU.

The server is the tutorial's: its own cells install it, write the model repository and
start it. The model is a ResNet-18 with random weights and small images.
"""

from __future__ import annotations

import os

# Servers are started by forking. gRPC's own handlers of a fork start threads in the new
# process, which fail there now and then, and the server with them.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

import asyncio
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from gallery.script import read_script

TRITON = Path(__file__).resolve().parent.parent / "examples" / "triton"
REPOSITORY = TRITON / "model_repository" / "resnet50"
SIZE, SIZES, MAX_BATCH = 64, (1, 4, 6), 6  # of an image; of batches

pytestmark = pytest.mark.triton

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
pytest.importorskip("tritonclient.grpc", reason="tritonclient[http,grpc] is missing")
pytest.importorskip("tritonclient.http", reason="tritonclient[http,grpc] is missing")

CELLS = read_script(TRITON / "serving_torch_tensorrt_with_triton.py").code_cells
LOOK = "def why_not_here("
WRITE = ("MODEL_PY = '''", "MODEL_PY += '''", "CONFIG = ")
INSTALL = ("--without-pip", "START = ")
START = ("def free_port(", "def start_server(")


def run_cells(given: dict, *marks: str) -> dict:
    """Run the tutorial's cells that hold one of the marks, in their order."""
    for mark in marks:
        assert any(mark in cell for cell in CELLS), f"no cell has {mark!r}"
    for cell in CELLS:
        if any(mark in cell for mark in marks):
            exec(compile(cell, "<tutorial>", "exec"), given)
    return given


def load_client() -> ModuleType:
    spec = spec_from_file_location("triton_client", TRITON / "client.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


client = load_client()


def run_client(*words: object) -> subprocess.CompletedProcess:
    """What the program does with these words; in this process, which is faster."""
    out, err = io.StringIO(), io.StringIO()
    arguments = ["client.py", *map(str, words)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setattr(sys, "argv", arguments)
        with redirect_stderr(err):
            try:
                code = client.main()
            except SystemExit as stop:
                code = stop.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def wait_for(condition: Callable[[], object], seconds: float = 30) -> object:
    """What the condition gives once it gives something; Triton counts afterwards."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The tutorial up to where the server starts, as its names and values."""
    given = run_cells({}, LOOK)
    if given["reason"]:
        pytest.skip(f"Triton cannot run here: {given['reason']}")
    torch.manual_seed(0)
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    given |= {"torch": torch, "on_gpu": False, "weights": weights}
    given["max_batch"] = MAX_BATCH
    run_cells(given, "class Served(", *WRITE)
    given["CONFIG"] = given["CONFIG"].replace("224, 224", f"{SIZE}, {SIZE}")
    model = torchvision.models.resnet18(weights=None)
    given["eager"] = eager = given["Served"](model, torch.contiguous_format).eval()
    (given["workspace"] / "eager").mkdir()
    with torch.no_grad():
        for size in SIZES:
            exported = torch.export.export(eager, (torch.zeros(size, SIZE, SIZE, 3),))
            path = given["workspace"] / "eager" / f"{size}.pt2"
            torch.export.save(exported, path)
    write_entry = given["write_entry"]
    write_entry("resnet18", "eager", "eager", instances=1)
    write_entry("floats", "eager", "eager", wire="FP32", instances=1)
    run_cells(given, *INSTALL, *START)
    yield given
    shutil.rmtree(given["workspace"])


class Running:
    """The tutorial's server, with what can be learned about it from outside."""

    def __init__(self, page: dict) -> None:
        self.process, self.urls, self.mark = page["start_server"](120)
        self.log = page["workspace"] / "server.log"

    def stubs(self) -> list[int]:
        return [
            pid
            for pid, words in processes().items()
            if words[0].endswith("_stub") and self.mark in " ".join(words)
        ]

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(60)
        wait_for(lambda: not self.stubs())
        return code

    def left_in_memory(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"{self.mark}*"))

    def statistics(self, model: str = "resnet18") -> dict:
        url = f"http://{self.urls['http']}/v2/models/{model}/stats"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["model_stats"][0]

    def metrics(self) -> str:
        url = f"http://{self.urls['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()


def processes() -> dict[int, list[str]]:
    """Command lines of all processes that are alive, zombies left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z":
                found[int(entry.name)] = words.split("\0")
    return found


@pytest.fixture(scope="module")
def server(page):
    running = Running(page)
    yield running
    running.end()


def elsewhere(page: dict, folder: Path) -> dict:
    """The tutorial with another workspace: the same server, other models."""
    (folder / "models").mkdir()
    start = (page["workspace"] / "start.sh").read_text()
    models = f"{page['workspace']}/models"
    (folder / "start.sh").write_text(start.replace(models, f"{folder}/models"))
    (folder / "start.sh").chmod(0o755)
    (folder / "start.sh").chmod(0o755)
    return run_cells(dict(page, workspace=folder), "CONFIG = ", "def start_server(")


def with_one_model(page: dict, folder: Path) -> dict:
    there = elsewhere(page, folder)
    model = page["workspace"] / "models" / "resnet18"
    (folder / "models" / "resnet18").symlink_to(model)
    return there


@pytest.fixture
def own_server(page, tmp_path):
    """A server that the test may kill."""
    running = Running(with_one_model(page, tmp_path))
    yield running
    running.process.kill()
    for pid in running.stubs():
        os.kill(pid, signal.SIGKILL)
    for segment in running.left_in_memory():
        segment.unlink()


def ask(server: Running, protocol: str, do, **words):
    """Run `do(client, model)`, a coroutine function, with a connected client."""

    async def go():
        async with client.Client(server.urls[protocol], protocol, **words) as connected:
            return await do(connected, await connected.describe("resnet18"))

    return asyncio.run(go())


def images(count: int, seed: int = 1) -> np.ndarray:
    """Plain colors with noise: a network with random weights tells them apart."""
    generator = np.random.default_rng(seed)
    colors = generator.integers(0, 200, (count, 1, 1, 3))
    noise = generator.integers(0, 56, (count, SIZE, SIZE, 3))
    return (colors + noise).astype(np.uint8)


def by_pytorch(page: dict, batch: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return page["eager"](torch.from_numpy(batch).float())


def assert_equal(scores: np.ndarray, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(torch.tensor(scores), wanted, rtol=1e-4, atol=1e-4)


PROTOCOLS = pytest.mark.parametrize("protocol", ["http", "grpc"])


# ---------------------------------------------- before the server: no server needed


@pytest.mark.parametrize(
    ("module", "name", "value", "reason"),
    [
        ("sys", "version_info", (3, 14, 0), "it needs Python 3.10 to 3.13, and this"),
        ("sys", "platform", "win32", "it is built for Linux on x86-64"),
        ("platform", "machine", lambda: "arm64", "it is built for Linux on x86-64"),
        ("platform", "libc_ver", lambda: ("glibc", "2.31"), "it needs glibc 2.35 or"),
        ("platform", "libc_ver", lambda: ("musl", "1.2.5"), "and this is musl 1.2.5"),
    ],
)
def test_no_place_for_the_server_is_told_in_one_line(
    monkeypatch, capsys, module, name, value, reason
):
    monkeypatch.setattr(f"{module}.{name}", value)
    given = run_cells({}, LOOK)
    assert reason in given["reason"]
    said = capsys.readouterr().out.splitlines()
    assert said == [f"This page ends where the server would start: {given['reason']}."]
    # There it ends with the reason, and without a traceback.
    with pytest.raises(SystemExit, match="No server here: it"):
        run_cells({"reason": given["reason"]}, INSTALL[0])


def test_pip_is_quoted_by_its_last_error(page, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RuntimeError) as refused:
        run_cells(dict(page, workspace=tmp_path), INSTALL[0])
    message = str(refused.value)
    assert message.startswith("pip: ERROR: No matching distribution found for nvidia-")
    assert len(message.splitlines()) == 1


def test_the_repository_beside_the_page_is_what_the_page_writes(page, tmp_path):
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    assert (REPOSITORY / "1" / "model.py").read_text() == page["MODEL_PY"]
    written = dict(page, on_gpu=True, max_batch=32, workspace=tmp_path)
    run_cells(written, "CONFIG = ")
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "32.pt2").touch()
    written["write_entry"]("resnet50", "static", "TensorRT, CUDA graph")
    folder = tmp_path / "models" / "resnet50"
    here, there = (
        text_format.Parse(
            (place / "config.pbtxt").read_text(), model_config.ModelConfig()
        )
        for place in (REPOSITORY, folder)
    )
    assert here == there
    labels = (REPOSITORY / "labels.txt").read_text().splitlines()
    assert labels == (folder / "labels.txt").read_text().splitlines()


def test_every_setting_is_explained():
    config = (REPOSITORY / "config.pbtxt").read_text()
    lines = [line.strip() for line in config.splitlines()]
    unexplained = [
        line
        for above, line in zip(["", *lines], lines)
        if ":" in line and not line.startswith("#") and not above.startswith("#")
    ]
    assert unexplained == []


# ----------------------------------------------------------------------- the server


def listening(ports: set[int]) -> dict[int, str]:
    """Addresses at which somebody listens on these ports, as the kernel tells it."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == "0A" and int(port, 16) in ports:
                found[int(port, 16)] = address
    return found


def test_listens_on_loopback_only(server):
    ports = {int(url.split(":")[1]) for url in server.urls.values()}
    # The kernel's table may lack a line that is there, while others come and go.
    wait_for(lambda: listening(ports).keys() == ports)
    # 127.0.0.1, as such or within IPv6.
    assert {address[-8:] for address in listening(ports).values()} == {"0100007F"}


def test_log_says_that_pickles_are_loaded(server):
    assert "holds pickles: load only files you trust" in server.log.read_text()


@PROTOCOLS
@pytest.mark.parametrize("count", [1, 3, 5, MAX_BATCH])
def test_answers_equal_pytorch(server, page, protocol, count):
    # Twice, because spare rows of a rounded batch then hold images of the first time.
    for seed in (1, 2):
        batch = images(count, seed)
        scores = ask(server, protocol, lambda c, model, b=batch: c.infer(model, b))
        wanted = by_pytorch(page, batch)
        assert_equal(scores, wanted)
        # The images differ enough for a wrong place to be seen.
        if count > 1:
            assert (wanted - wanted.flip(0)).abs().max() > 1e-2


def test_floats_one_by_one_answer_the_same(server, page):
    import tritonclient.grpc as triton_grpc

    batch = images(3).astype(np.float32)
    given = triton_grpc.InferInput("pixels", batch.shape, "FP32")
    given.set_data_from_numpy(batch)
    with triton_grpc.InferenceServerClient(server.urls["grpc"]) as connected:
        scores = connected.infer("floats", [given]).as_numpy("scores")
    assert_equal(scores, by_pytorch(page, batch.astype(np.uint8)))


def test_http_and_grpc_answer_the_same_bits(server):
    scores = [
        ask(server, protocol, lambda c, model: c.infer(model, images(4)))
        for protocol in ("http", "grpc")
    ]
    np.testing.assert_array_equal(*scores)


@PROTOCOLS
def test_top_five_are_the_five_largest(server, page, protocol):
    batch = images(2)
    answers = ask(server, protocol, lambda c, model: c.infer(model, batch, top=5))
    wanted = by_pytorch(page, batch).topk(5)
    categories = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    for row, scores, indices in zip(answers, wanted.values, wanted.indices):
        assert [label.index for label in row] == indices.tolist()
        assert [label.name for label in row] == [categories[i] for i in indices]
        assert [label.score for label in row] == pytest.approx(
            scores.tolist(), abs=1e-3
        )


@PROTOCOLS
def test_requests_are_batched_and_each_gets_its_own_answer(server, page, protocol):
    before = server.statistics()
    batches = [images(1, seed) for seed in range(24)]

    async def all_at_once(connected, model):
        return await asyncio.gather(*(connected.infer(model, one) for one in batches))

    def counted() -> dict:
        now = server.statistics()
        done = now["inference_count"] - before["inference_count"]
        return now if done >= 24 else {}

    scores = ask(server, protocol, all_at_once, timeout=60)
    after = wait_for(counted)
    assert after["inference_count"] - before["inference_count"] == 24
    assert after["execution_count"] - before["execution_count"] < 24
    assert_equal(np.concatenate(scores), by_pytorch(page, np.concatenate(batches)))


def test_stages_are_reported_and_lie_within_what_the_server_measures(server):
    pattern = r'^stage_seconds{model="resnet18",stage="(.+)"} (\S+)$'

    def stages() -> dict[str, float]:
        found = re.findall(pattern, server.metrics(), re.MULTILINE)
        return {stage: float(value) for stage, value in found}

    async def many(connected, model):
        await connected.infer_many(model, images(1), count=64, in_flight=2)

    before = stages()
    ask(server, "grpc", many, timeout=60)
    after = wait_for(lambda: stages() if stages() != before else None)
    assert after.keys() == {*("requests", "gather", "GPU", "answers")}
    requests = after.pop("requests")
    assert requests >= 16
    for stage, seconds in after.items():
        assert seconds > 0, stage
    whole = server.statistics()["inference_stats"]["compute_infer"]["ns"] / 1e9
    assert after["GPU"] > 0.5 * sum(after.values())
    assert sum(after.values()) < whole


@PROTOCOLS
def test_a_batch_that_is_too_large_is_refused(server, protocol):
    with pytest.raises(client.ClientError, match=f"must be <= {MAX_BATCH}"):
        ask(server, protocol, lambda c, model: c.infer(model, images(MAX_BATCH + 1)))


def test_a_model_that_does_not_load_is_told_with_the_reason(page, tmp_path):
    broken = elsewhere(page, tmp_path)
    (tmp_path / "eager").mkdir()
    broken["write_entry"]("broken", "eager", "eager")
    config = tmp_path / "models" / "broken" / "config.pbtxt"
    config.write_text(config.read_text().replace('"python"', '"pithon"'))
    with pytest.raises(RuntimeError) as failed:
        broken["start_server"](60)
    message = str(failed.value)
    assert message.startswith("The server did not start: failed to load 'broken'")
    assert "unable to find backend library for backend 'pithon'" in message
    assert f"(log: {tmp_path / 'server.log'})" in message
    assert len(message.splitlines()) == 1


def test_a_traceback_in_the_log_is_told_by_its_error(page, tmp_path):
    log = tmp_path / "log"
    log.write_text(
        """E1125 16:01:37 4601 model.cc:642] "failed to load 'broken' version \
1: Internal: BadZipFile: File is not a zip file\\n\\nAt:\\n  zipfile.py(1369): _Real\\n"
error: creating server: Internal - failed to load all models
"""
    )
    reason = "version 1: Internal: BadZipFile: File is not a zip file"
    assert page["why_not"](log) == f"failed to load 'broken' {reason}"


# ------------------------------------------------------------------------ client.py


@PROTOCOLS
def test_client_names_two_photographs(server, protocol):
    command = [sys.executable, TRITON / "client.py", "--model", "resnet18"]
    command += ["--protocol", protocol, "--url", server.urls[protocol]]
    command += ["--top", "2", "--requests", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")][:2] == [
        "china.jpg",
        "flower.jpg",
    ]
    assert sum(line.startswith("  ") for line in lines) == 4
    assert lines[-1].startswith("4 requests of 2 images")


@PROTOCOLS
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "100"], r"refused .*Expected \[-1,64,64,3\], got \[2,100,100,3\]"),
        (["--model", "resnet51"], "has no model 'resnet51'. It has: floats, resnet18"),
        (["--model", "floats"], "'floats' does not take a batch of images as bytes"),
        (["--url", "127.0.0.1:9"], "after 3 tries: nobody listens there"),
        (["--url", "no.such.name.invalid:80"], "no machine has that name"),
        (["--image", "/nowhere.jpg"], "cannot read the image /nowhere.jpg"),
    ],
)
def test_client_tells_an_error_in_one_line(server, protocol, words, message):
    usual = ["--protocol", protocol, "--url", server.urls[protocol]]
    done = run_client(*usual, "--model", "resnet18", *words)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_client_takes_a_url_with_its_scheme(server):
    for scheme in ("http", "grpc"):
        url = f"{scheme}://{server.urls[scheme]}"
        done = run_client("--url", url, "--model", "resnet18", "--top", 1)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("url", "protocol", "read"),
    [
        (None, None, ("127.0.0.1:8000", "http")),
        (None, "grpc", ("127.0.0.1:8001", "grpc")),
        ("http://a.b:80/", None, ("a.b:80", "http")),
        ("grpc://a.b", None, ("a.b:8001", "grpc")),
        ("[::1]:9", "http", ("[::1]:9", "http")),
    ],
)
def test_urls(url, protocol, read):
    assert client.read_url(url, protocol) == read


@pytest.mark.parametrize(
    ("url", "protocol", "message"),
    [
        ("https://a.b", None, "https is not spoken here"),
        ("http://a.b", "grpc", "contradicts --protocol grpc"),
        ("a.b:99999", None, "a port is a number from 1 to 65535"),
        ("a.b:0", None, "a port is a number from 1 to 65535"),
        ("a.b:-1", None, "a port is a number from 1 to 65535"),
        ("a.b:", None, "a port is a number from 1 to 65535"),
        ("a.b:http", None, "a port is a number from 1 to 65535"),
        ("http://[::1", None, "Invalid IPv6 URL"),
        (":8000", None, "give HOST:PORT, and nothing else"),
        ("http://a.b/v2/models", None, "give HOST:PORT, and nothing else"),
        ("http://me@a.b", None, "give HOST:PORT, and nothing else"),
    ],
)
def test_impossible_urls_are_refused_before_anything_is_sent(url, protocol, message):
    with pytest.raises(client.ClientError, match=re.escape(message)):
        client.read_url(url, protocol)


@pytest.mark.parametrize(
    "words", [("--retries", "-1"), ("--timeout", "nan"), ("--top", "0")]
)
def test_impossible_numbers_are_refused(words):
    done = run_client(*words)
    assert done.returncode == 2
    assert f"argument {words[0]}: {words[1]} is no number from" in done.stderr


def test_photographs_of_phones_are_turned_upright(tmp_path):
    from PIL import Image

    lying = Image.new("RGB", (300, 200), "blue")
    lying.paste("red", (0, 0, 150, 200))  # left half: the upper one when turned right
    turned_right = Image.Exif()
    turned_right[0x0112] = 6
    lying.save(tmp_path / "phone.jpg", exif=turned_right, quality=95)
    photographs = client.load_photographs([tmp_path / "phone.jpg"])
    (pixels,) = client.preprocess(list(photographs.values()), 64)
    assert pixels.shape == (64, 64, 3)
    assert (pixels[:20, :, 0] > 200).all()
    assert (pixels[:20, :, 2] < 60).all()
    assert (pixels[-20:, :, 2] > 200).all()


def test_client_prepares_pictures_as_torchvision_does():
    from sklearn.datasets import load_sample_image

    photograph = load_sample_image("china.jpg")
    preset = torchvision.models.ResNet50_Weights.DEFAULT.transforms()
    from PIL import Image

    wanted = preset(Image.fromarray(photograph))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (preset.mean, preset.std))
    (pixels,) = client.preprocess([Image.fromarray(photograph)], 224)
    ours = torch.tensor(pixels).permute(2, 0, 1) / 255
    # Edges may lie one pixel apart, by rounding.
    assert (ours - (wanted * std + mean)).abs().mean() < 0.02
    assert (ours.flip(2) - (wanted * std + mean)).abs().mean() > 0.1


@PROTOCOLS
def test_a_slow_server_is_told_and_not_asked_again(server, protocol):
    before = server.statistics()["inference_count"]

    async def ask_in_a_hurry(connected, model):
        connected.timeout = 0.001
        await connected.infer(model, images(MAX_BATCH))

    with pytest.raises(client.ClientError, match="within 0.001 s. It may be busy"):
        ask(server, protocol, ask_in_a_hurry)
    ask(server, protocol, lambda c, model: c.infer(model, images(1)))
    wait_for(lambda: server.statistics()["inference_count"] > before)
    assert server.statistics()["inference_count"] - before <= MAX_BATCH + 1


# --------------------------------------------------------------------------- the end


def test_a_server_killed_in_mid_request(own_server):
    async def work(protocol):
        url = own_server.urls[protocol]
        async with client.Client(url, protocol, timeout=20) as connected:
            model = await connected.describe("resnet18")
            # Seconds of work, so that requests are certainly under way.
            await connected.infer_many(model, images(MAX_BATCH), 300, in_flight=30)

    async def go():
        requests = [asyncio.create_task(work(protocol)) for protocol in client.PORTS]
        await asyncio.sleep(1)
        assert not any(request.done() for request in requests)
        own_server.process.kill()
        return await asyncio.gather(*requests, return_exceptions=True)

    for gone in asyncio.run(go()):
        assert isinstance(gone, client.ServerGoneError)
        assert "the connection was lost before the answer came" in str(gone)
        assert "Was it stopped" in str(gone)


def test_a_model_process_that_died_is_told(own_server):
    for pid in own_server.stubs():
        os.kill(pid, signal.SIGKILL)

    async def ask_the_dead(connected, model):
        with pytest.raises(client.ClientError, match="process has died.*[Rr]estart"):
            await connected.infer(model, images(1))

    ask(own_server, "http", ask_the_dead)


def test_the_server_ends_with_the_notebook(page, tmp_path):
    """A process that runs the tutorial's cells is killed outright."""
    with_one_model(page, tmp_path)
    code = "\n".join(cell for cell in CELLS if any(mark in cell for mark in START))
    before = f"""
import re, subprocess
from pathlib import Path
workspace = Path({str(tmp_path)!r})
"""
    after = """
print(start_server(120)[0].pid, flush=True)
input()
"""
    notebook = subprocess.Popen(
        [sys.executable, "-c", before + code + after],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(notebook.stdout.readline())
    assert pid in processes()
    notebook.kill()
    notebook.communicate()
    wait_for(lambda: pid not in processes(), 60)


def test_shutdown_lets_requests_finish_and_leaves_nothing(server, page):
    count = 40
    before = server.statistics()["inference_stats"]["success"]["count"]

    def arrived() -> int:
        """Requests that ended, and those that wait. One more is being worked on."""
        ended = server.statistics()["inference_stats"]["success"]["count"] - before
        waiting = re.search(
            r'nv_inference_pending_request_count{model="resnet18".*} (\d+)',
            server.metrics(),
        )
        return ended + int(waiting[1])

    async def ask_the_stopping(connected, model):
        work = connected.infer_many(model, images(MAX_BATCH), count, in_flight=count)
        requests = asyncio.create_task(work)
        await asyncio.to_thread(wait_for, lambda: arrived() >= count - 1)
        assert not requests.done()
        server.process.terminate()
        return await requests

    answers = ask(server, "grpc", ask_the_stopping, timeout=60)
    wanted = by_pytorch(page, images(MAX_BATCH))
    for scores in answers:
        assert_equal(scores, wanted)
    assert server.end() == 0
    assert server.left_in_memory() == []
