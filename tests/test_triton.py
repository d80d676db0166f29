"""A real Triton server on loopback, a real client, and no GPU.

The model is a ResNet-18 with random weights, in the same repository layout that the
GPU's engine has. The server's environment is kept in .cache/triton-env.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRITON = ROOT / "examples" / "triton"
ENVIRONMENT = ROOT / ".cache" / "triton-env"
MODEL, SIZE, MAX_BATCH = "resnet18", 64, 8
# A model's own threads would fight with the test's on a small machine.
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.triton

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
pytest.importorskip("tritonclient.grpc", reason="tritonclient[http,grpc] is missing")
pytest.importorskip("tritonclient.http", reason="tritonclient[http,grpc] is missing")


def load(name: str) -> ModuleType:
    """One of the programs, as a module."""
    spec = importlib.util.spec_from_file_location(
        f"triton_{name}", TRITON / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


serve, client = load("serve"), load("client")


def run(program: str, *words: object, timeout: float = 300, **more):
    command = [sys.executable, TRITON / f"{program}.py", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=ENVIRON, **more
    )


@pytest.fixture(scope="module", autouse=True)
def environment() -> Path:
    """The server's environment, made by the program's own command."""
    if reason := serve.why_not_here():
        pytest.skip(f"Triton cannot run here: {reason}")
    done = run("serve", "--prepare", "--environment", ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return ENVIRONMENT


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, str]:
    """A folder with both model repositories, and what the export said."""
    folder = tmp_path_factory.mktemp("triton")
    words = ["--model", MODEL, "--size", SIZE, "--max-batch", MAX_BATCH]
    done = run("export", *words, "--weights", "random", "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def eager():
    """The very model that was exported."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()


class Running:
    """serve.py as a process, with what can be learned about it from outside."""

    def __init__(self, repository: Path, log: Path) -> None:
        command = [sys.executable, "-u", TRITON / "serve.py", "--log", log]
        command += ["--repository", repository, "--environment", ENVIRONMENT]
        for kind in ("http", "grpc", "metrics"):
            command += [f"--{kind}-port", "0"]
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENVIRON,
        )
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if line.startswith("Ready"):
                break
        found = re.findall(r"(http|grpc|metrics) ([\d.]+:\d+)", self.said)
        assert len(found) == 3, self.said
        self.urls = dict(found)
        self.server_pid = int(re.search(r"pid (\d+)", self.said)[1])
        (self.stub_pid,) = self.stubs()

    def stubs(self) -> list[int]:
        return [
            pid
            for pid, words in processes().items()
            if words[0].endswith("_stub") and self.mark in " ".join(words)
        ]

    @property
    def mark(self) -> str:
        return f"triton_{self.process.pid}_"

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.said += self.process.communicate(timeout=60)[0]
        return self.process.returncode, self.said

    def assert_nothing_is_left(self) -> None:
        deadline = time.monotonic() + 30
        while alive := [
            pid
            for pid in processes()
            if pid in (self.process.pid, self.server_pid, self.stub_pid)
        ]:
            assert time.monotonic() < deadline, f"still running: {alive}"
            time.sleep(0.1)
        assert not self.stubs()
        assert not list(Path("/dev/shm").glob(f"{self.mark}*"))
        for url in self.urls.values():
            host, port = url.split(":")
            with socket.socket() as probe:
                assert probe.connect_ex((host, int(port))) != 0, f"{url} still listens"


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


def run_server(repository: Path, log: Path):
    """Yield a running server; it has to end well and leave nothing."""
    running = Running(repository, log)
    yield running
    code, said = running.end()
    assert code == 0, said
    running.assert_nothing_is_left()


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    yield from run_server(
        exported[0] / "python", tmp_path_factory.mktemp("log") / "log"
    )


@pytest.fixture(scope="module")
def rounding_server(exported, tmp_path_factory):
    """A server that rounds batches up, as it does for a TensorRT-RTX engine."""
    folder = tmp_path_factory.mktemp("rounding")
    shutil.copytree(exported[0] / "python", folder / "models")
    config = folder / "models" / MODEL / "config.pbtxt"
    # No power of two: the largest batch is a size of its own.
    config.write_text(config.read_text().replace(f": {MAX_BATCH}\n", ": 6\n"))
    code = folder / "models" / MODEL / "1" / "model.py"
    text = code.read_text()
    assert "few_sizes = False" in text
    code.write_text(text.replace("few_sizes = False", "few_sizes = True"))
    yield from run_server(folder / "models", folder / "log")


@pytest.fixture
def own_server(exported, tmp_path):
    """A server that the test may kill."""
    running = Running(exported[0] / "python", tmp_path / "log")
    yield running
    running.end()


def ask(server: Running, protocol: str, do, **words):
    """Run `do(client, model)`, a coroutine function, with a connected client."""

    async def go():
        async with client.Client(server.urls[protocol], protocol, **words) as connected:
            return await do(connected, await connected.describe(MODEL))

    return asyncio.run(go())


def images(count: int, seed: int = 1) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE))
    return values.astype(np.float32)


def statistics(server: Running) -> dict:
    url = f"http://{server.urls['http']}/v2/models/{MODEL}/stats"
    with urllib.request.urlopen(url, timeout=10) as page:
        return json.load(page)["model_stats"][0]


PROTOCOLS = pytest.mark.parametrize("protocol", ["http", "grpc"])


# ------------------------------------------------------------------------ export


def test_export_says_that_nothing_is_compiled_without_a_gpu(exported):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    folder, said = exported
    assert "No GPU was found, so nothing is compiled" in said
    assert "Weights: random" in said
    assert (folder / "python" / MODEL / "1" / "eager.pt2").exists()
    assert not list(folder.rglob("compiled.pt2"))


def test_export_writes_both_repositories(exported):
    folder, _ = exported
    for kind, name in (("python", MODEL), ("libtorch", f"{MODEL}_libtorch")):
        config = (folder / kind / name / "config.pbtxt").read_text()
        assert f'name: "{name}"' in config
        assert f"max_batch_size: {MAX_BATCH}\n" in config
        assert f"dims: [ 3, {SIZE}, {SIZE} ]" in config
        assert "224, 224" not in re.sub("#.*", "", config)
    assert (folder / "libtorch" / f"{MODEL}_libtorch" / "1" / "model.pt").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_answers_as_pytorch_does(exported, eager):
    path = exported[0] / "libtorch" / f"{MODEL}_libtorch" / "1" / "model.pt"
    traced = torch.jit.load(path)
    for count in (1, 5):
        batch = torch.from_numpy(images(count))
        with torch.no_grad():
            torch.testing.assert_close(traced(batch), eager(batch))


@pytest.mark.parametrize("name", ["resnet50", "resnet50_libtorch"])
def test_labels_are_those_of_the_weights(name):
    labels = (TRITON / "model_repository" / name / "labels.txt").read_text()
    weights = torchvision.models.ResNet50_Weights.DEFAULT
    assert labels.splitlines() == weights.meta["categories"]


@pytest.mark.parametrize("name", ["resnet50", "resnet50_libtorch"])
def test_every_setting_is_explained(name):
    config = (TRITON / "model_repository" / name / "config.pbtxt").read_text()
    lines = [line.strip() for line in config.splitlines()]
    unexplained = [
        line
        for above, line in zip(["", *lines], lines)
        if ":" in line and not line.startswith("#") and not above.startswith("#")
    ]
    assert unexplained == []


def test_wrong_options_are_refused(tmp_path):
    done = run("export", "--max-batch", "1", "--output", tmp_path)
    assert done.returncode == 2
    assert "--max-batch must be at least 2" in done.stderr


# ------------------------------------------------------------------------- serve


def test_listens_on_loopback_only(server):
    ports = {int(url.split(":")[1]) for url in server.urls.values()}
    listening = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == "0A" and int(port, 16) in ports:
                listening[int(port, 16)] = address
    assert listening.keys() == ports
    # 127.0.0.1, as such or within IPv6.
    assert {address[-8:] for address in listening.values()} == {"0100007F"}


def test_no_client_can_load_a_model(server):
    url = f"http://{server.urls['http']}/v2/repository/models/{MODEL}/unload"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, data=b"{}", timeout=10)
    assert b"explicit model load / unload is not allowed" in refused.value.read()


def test_log_says_that_pickles_are_loaded(server):
    log = Path(re.search(r"log (\S+)", server.said)[1]).read_text()
    assert "holds pickles: load only files you trust" in log


def test_exposing_has_to_be_asked_for(exported):
    words = ["--repository", exported[0] / "python", "--environment", ENVIRONMENT]
    done = run("serve", "--host", "0.0.0.0", *words)
    assert done.returncode == 1
    assert "lets other machines in" in done.stderr


def test_a_taken_port_is_told(server, exported):
    port = server.urls["http"].split(":")[1]
    words = ["--repository", exported[0] / "python", "--environment", ENVIRONMENT]
    done = run("serve", "--http-port", port, *words)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_an_empty_repository_is_told(tmp_path):
    done = run("serve", "--repository", tmp_path, "--environment", ENVIRONMENT)
    assert done.returncode == 1
    assert "run export.py first" in done.stderr


def test_a_model_that_does_not_load_is_told(tmp_path):
    version = tmp_path / "models" / "broken" / "1"
    version.mkdir(parents=True)
    template = TRITON / "model_repository" / "resnet50"
    config = (template / "config.pbtxt").read_text()
    config = config.replace('name: "resnet50"', 'name: "broken"')
    config = config.replace("kind: KIND_GPU", "kind: KIND_CPU").replace(
        "gpus: [ 0 ]", ""
    )
    (version.parent / "config.pbtxt").write_text(config)
    (version.parent / "labels.txt").write_text("nothing\n")
    (version / "model.py").write_text((template / "1" / "model.py").read_text())
    words = ["--http-port", 0, "--grpc-port", 0, "--metrics-port", 0]
    words += ["--environment", ENVIRONMENT, "--log", tmp_path / "log"]
    done = run("serve", "--repository", version.parent.parent, *words)
    assert done.returncode == 1
    assert "before it was ready" in done.stderr
    assert "has no eager.pt2" in done.stderr


def test_restricted_apis_need_the_key(exported, tmp_path):
    """What serve.py does on an exposed address, tried on loopback."""
    running = serve.Server(
        exported[0] / "python", ENVIRONMENT, log=tmp_path / "log", admin_key="secret"
    )
    try:
        running.wait_until_ready(120)
        url = f"http://127.0.0.1:{running.ports['http']}"
        asked = urllib.request.Request(f"{url}/v2/repository/index", data=b"{}")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=10)
        assert refused.value.code == 403
        asked.add_header("admin-key", "secret")
        with urllib.request.urlopen(asked, timeout=10) as page:
            assert json.load(page)[0]["name"] == MODEL
        # Inference stays open.
        with urllib.request.urlopen(f"{url}/v2/models/{MODEL}", timeout=10) as page:
            assert page.status == 200
    finally:
        assert running.stop() == 0
    assert running.stubs() == []


# ------------------------------------------------------------------------- query


@PROTOCOLS
@pytest.mark.parametrize("count", [1, 3, MAX_BATCH])
def test_answers_equal_pytorch(server, eager, protocol, count):
    batch = images(count)
    scores = ask(server, protocol, lambda c, model: c.infer(model, batch))
    with torch.no_grad():
        wanted = eager(torch.from_numpy(batch))
    torch.testing.assert_close(torch.tensor(scores), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 5, 6])
def test_batches_that_are_rounded_up_answer_the_same(rounding_server, eager, count):
    # Twice, because left-over rows then hold images of the first time.
    for seed in (1, 2):
        batch = images(count, seed)
        scores = ask(
            rounding_server, "grpc", lambda c, model, b=batch: c.infer(model, b)
        )
        with torch.no_grad():
            wanted = eager(torch.from_numpy(batch))
        torch.testing.assert_close(torch.tensor(scores), wanted, rtol=1e-4, atol=1e-4)


def test_http_and_grpc_answer_the_same_bits(server):
    scores = [
        ask(server, protocol, lambda c, model: c.infer(model, images(4)))
        for protocol in ("http", "grpc")
    ]
    np.testing.assert_array_equal(*scores)


@PROTOCOLS
def test_top_five_are_the_five_largest(server, eager, protocol):
    batch = images(2)
    answers = ask(server, protocol, lambda c, model: c.infer(model, batch, top=5))
    with torch.no_grad():
        wanted = eager(torch.from_numpy(batch)).topk(5)
    categories = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    for row, scores, indices in zip(answers, wanted.values, wanted.indices):
        assert [label.index for label in row] == indices.tolist()
        assert [label.name for label in row] == [categories[i] for i in indices]
        assert [label.score for label in row] == pytest.approx(
            scores.tolist(), abs=1e-3
        )


@PROTOCOLS
def test_requests_are_batched_and_each_gets_its_own_answer(server, eager, protocol):
    before = statistics(server)
    batches = [images(1, seed) for seed in range(24)]

    async def all_at_once(connected, model):
        return await asyncio.gather(*(connected.infer(model, one) for one in batches))

    scores = ask(server, protocol, all_at_once, timeout=60)
    after = statistics(server)
    assert after["inference_count"] - before["inference_count"] == 24
    assert after["execution_count"] - before["execution_count"] < 24
    with torch.no_grad():
        wanted = eager(torch.from_numpy(np.concatenate(batches)))
    got = torch.from_numpy(np.concatenate(scores))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@PROTOCOLS
def test_a_batch_that_is_too_large_is_refused(server, protocol):
    with pytest.raises(client.ClientError, match=f"must be <= {MAX_BATCH}"):
        ask(server, protocol, lambda c, model: c.infer(model, images(MAX_BATCH + 1)))


def test_metrics_count_the_images(server):
    def count() -> int:
        url = f"http://{server.urls['metrics']}/metrics"
        page = urllib.request.urlopen(url, timeout=10).read().decode()
        return int(re.search(r"^nv_inference_count\{.*\} (\d+)$", page, re.M)[1])

    before = count()
    ask(server, "http", lambda c, model: c.infer(model, images(3)))
    # Triton counts after it has answered.
    deadline = time.monotonic() + 10
    while count() == before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert count() - before == 3


# ------------------------------------------------------------------- client.py


@PROTOCOLS
def test_client_names_two_photographs(server, protocol):
    words = ["--protocol", protocol, "--url", server.urls[protocol], "--model", MODEL]
    done = run("client", *words, "--top", 2, "--requests", 4)
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
        (["--size", "100"], r"refused .*Expected \[-1,3,64,64\], got \[2,3,100,100\]"),
        (["--model", "resnet51"], f"has no model 'resnet51'. It has: {MODEL}"),
        (["--url", "127.0.0.1:9"], "after 3 tries: nobody listens there"),
        (["--image", "/nowhere.jpg"], "cannot read the image /nowhere.jpg"),
    ],
)
def test_client_tells_an_error_in_one_line(server, protocol, words, message):
    usual = ["--protocol", protocol, "--url", server.urls[protocol], "--model", MODEL]
    done = run("client", *usual, *words)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@PROTOCOLS
def test_a_slow_server_is_told_and_not_asked_again(server, protocol):
    before = statistics(server)["inference_count"]

    async def ask_in_a_hurry(connected, model):
        connected.timeout = 0.001
        await connected.infer(model, images(MAX_BATCH))

    with pytest.raises(client.ClientError, match="within 0.001 s. It may be busy"):
        ask(server, protocol, ask_in_a_hurry)
    ask(server, protocol, lambda c, model: c.infer(model, images(1)))
    assert statistics(server)["inference_count"] - before <= MAX_BATCH + 1


@PROTOCOLS
def test_a_server_killed_in_mid_request(own_server, protocol):
    async def ask_the_killed(connected, model):
        # Seconds of work, so that requests are certainly under way.
        work = connected.infer_many(model, images(MAX_BATCH), count=300, in_flight=30)
        requests = asyncio.create_task(work)
        await asyncio.sleep(0.5)
        assert not requests.done()
        os.kill(own_server.server_pid, signal.SIGKILL)
        await requests

    with pytest.raises(client.ServerGoneError) as gone:
        ask(own_server, protocol, ask_the_killed, timeout=20)
    assert "the connection was lost before the answer came" in str(gone.value)
    assert "Was it stopped?" in str(gone.value)
    # serve.py notices, ends the left-over model process, and says what happened.
    code, said = own_server.end(0)
    assert code == 1
    assert f"Ending the left-over model process {own_server.stub_pid}" in said
    assert "the server was killed by signal 9" in said
    own_server.assert_nothing_is_left()


def test_shutdown_lets_requests_finish(own_server, eager):
    async def ask_the_stopping(connected, model):
        work = connected.infer_many(model, images(MAX_BATCH), count=20, in_flight=20)
        requests = asyncio.create_task(work)
        await asyncio.sleep(0.2)
        assert not requests.done()
        own_server.process.send_signal(signal.SIGTERM)
        return await requests

    answers = ask(own_server, "grpc", ask_the_stopping, timeout=20)
    with torch.no_grad():
        wanted = eager(torch.from_numpy(images(MAX_BATCH)))
    for scores in answers:
        torch.testing.assert_close(torch.tensor(scores), wanted, rtol=1e-4, atol=1e-4)
    code, said = own_server.end()
    assert code == 0, said
    own_server.assert_nothing_is_left()


def test_an_idle_connection_does_not_spoil_the_shutdown(own_server):
    idle = http.client.HTTPConnection(own_server.urls["http"], timeout=10)
    idle.request("GET", "/v2/health/ready")
    assert idle.getresponse().read() == b""
    code, said = own_server.end()
    idle.close()
    assert code == 0, said
    assert "Clients kept connections open" in said
    own_server.assert_nothing_is_left()


def test_a_model_process_that_died_is_told(own_server):
    os.kill(own_server.stub_pid, signal.SIGKILL)

    async def ask_the_dead(connected, model):
        with pytest.raises(client.ClientError, match="process has died.*[Rr]estart"):
            await connected.infer(model, images(1))

    ask(own_server, "http", ask_the_dead)
    code, said = own_server.end()
    assert code == 1
    assert "A model's process has died, or does not end" in said
    assert "Clients" not in said
    own_server.assert_nothing_is_left()


def test_the_server_ends_when_serve_is_killed(own_server):
    own_server.end(signal.SIGKILL)
    own_server.assert_nothing_is_left()
