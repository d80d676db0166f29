#!/usr/bin/env python3
"""Serve a model repository with a pip-installed Triton Inference Server.

    python serve.py                  # serve ./models/python on 127.0.0.1 until Ctrl-C
    python serve.py --prepare        # only make the server's environment

The first call makes the server's environment, a folder of about 200 MB: the server
itself, from the wheel nvidia-pytriton 0.7.0 (Triton 2.51.0), and NumPy 1.26, because
that server fails with NumPy 2. PyTorch is not installed again: it is found where this
Python finds it. A server that is already there is used instead of the wheel's, from

    TRITONSERVER_ROOT    the folder that holds bin/tritonserver and backends/python
    pytriton             if this Python has the package nvidia-pytriton

pip's own settings are honoured, for instance PIP_FIND_LINKS and PIP_NO_INDEX on a
machine without a network.

The server listens on this machine only. Triton has no user accounts and no
encryption by default: read README.md before you pass --expose.

Exit code: 0 after Ctrl-C or SIGTERM, 1 if the server could not be started or ended by
itself. Linux on x86-64 with glibc 2.35 or newer, Python 3.10 to 3.12.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER_WHEEL = "nvidia-pytriton==0.7.0"
NUMPY = "numpy==1.26.4"
PYTHONS = ("3.10", "3.11", "3.12")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Seconds that the server waits for answers and open connections after SIGTERM.
EXIT_TIMEOUT = 10
# What a stranger must never reach: each of these can read or change the server.
ADMIN_APIS = "model-repository,shared-memory,trace,logging"


class ServeError(Exception):
    """The server cannot be prepared or started; the message says why."""


# ---------------------------------------------------------------- the environment


def why_not_here() -> str | None:
    """The reason why this machine cannot run the server, if there is one."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the wheel holds a server for Linux on x86-64 only"
    if PYTHON not in PYTHONS:
        return f"this is Python {PYTHON}; PyTorch and NumPy 1.26 need 3.10 to 3.12"
    name, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if name == "glibc" and numbers < (2, 35):
        return f"the server needs glibc 2.35 or newer; this machine has {version}"
    return None


def find_server(environment: Path) -> Path | None:
    """The folder that holds bin/tritonserver, or None where it must be installed."""
    if root := os.environ.get("TRITONSERVER_ROOT"):
        if not Path(root, "bin", "tritonserver").is_file():
            raise ServeError(f"TRITONSERVER_ROOT={root} has no bin/tritonserver")
        return Path(root)
    places = [site_packages(environment) / "pytriton"]
    if spec := importlib.util.find_spec("pytriton"):
        places += [Path(place) for place in spec.submodule_search_locations or []]
    for place in places:
        if (place / "tritonserver" / "bin" / "tritonserver").is_file():
            return place / "tritonserver"
    return None


def site_packages(environment: Path) -> Path:
    return environment / "lib" / f"python{PYTHON}" / "site-packages"


def pip_install(environment: Path, package: str) -> None:
    """Install one package, without its dependencies, into the environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-warn-script-location"]
    command += ["--root-user-action=ignore", "--only-binary=:all:", "--upgrade"]
    command += ["--target", str(site_packages(environment)), package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise ServeError(
            f"cannot install {package}. Without a network, put its wheel into a folder "
            "and set PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER. pip says:\n  "
            + "\n  ".join(reason)
        )


def link_to(link: Path, target: Path) -> None:
    """Make a link; one that is right stays, because a server may be using it."""
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def prepare(environment: Path) -> Path:
    """Make the server's environment where it is missing; return the server's folder."""
    if reason := why_not_here():
        raise ServeError(reason)
    if importlib.util.find_spec("torch") is None:
        raise ServeError(f"{sys.executable} has no PyTorch, which the model needs")
    site = site_packages(environment)
    if not (site / "triton-link.pth").is_file():
        print(f"Preparing {environment}", flush=True)
        venv.EnvBuilder(symlinks=True, with_pip=False).create(environment)
    server = find_server(environment)
    if server is None:
        print(f"Installing {SERVER_WHEEL}", flush=True)
        pip_install(environment, SERVER_WHEEL)
        server = find_server(environment)
        if server is None:
            raise ServeError(f"{SERVER_WHEEL} holds no bin/tritonserver")
    if not (site / "numpy").is_dir():
        print(f"Installing {NUMPY}", flush=True)
        pip_install(environment, NUMPY)
    # PyTorch and Torch-TensorRT come from this Python's own folders. They stand
    # behind the environment's folder on sys.path, so NumPy 1.26 is found first.
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    given = [os.path.abspath(folder) for folder in given if folder]  # noqa: PTH100
    folders = [
        folder
        for folder in dict.fromkeys(sys.path)
        if Path(folder).is_dir()
        and (Path(folder).name.endswith("-packages") or folder in given)
    ]
    (site / "triton-link.pth").write_text("\n".join(folders) + "\n")

    # Triton looks for DIR/python/; links, because the stub finds its own CUDA runtime
    # relative to where it really lies.
    backend = environment / "backends" / "python"
    backend.mkdir(parents=True, exist_ok=True)
    stubs = server / "python_backend_stubs" / PYTHON
    source = server / "backends" / "python"
    for target in (*source.iterdir(), *(stubs.iterdir() if stubs.is_dir() else ())):
        link_to(backend / target.name, target)
    stub = backend / "triton_python_backend_stub"
    if not stub.exists():
        raise ServeError(f"{server} has no Python backend for Python {PYTHON}")
    # The stub embeds Python, so it needs Python's shared library.
    libraries = environment / "python-library"
    libraries.mkdir(exist_ok=True)
    name = sysconfig.get_config_var("INSTSONAME") or ""
    shared = Path(sysconfig.get_config_var("LIBDIR") or "", name)
    if ".so" in name and shared.is_file():
        link_to(libraries / name, shared)
    needs = subprocess.run(
        ["ldd", stub.resolve()],
        capture_output=True,
        text=True,
        env=server_environ(environment),
    ).stdout
    missing = [line.split()[0] for line in needs.splitlines() if "not found" in line]
    if missing:
        raise ServeError(
            f"the Python backend needs {', '.join(missing)}, which this machine lacks. "
            f"A libpython comes with the package libpython{PYTHON}, or with a Python "
            "built with --enable-shared"
        )
    return server


def server_environ(environment: Path) -> dict[str, str]:
    """Environment variables for the server, and so for the model's Python."""
    environ = dict(os.environ)
    # The caller's folders would come first and bring NumPy 2; the link file names them.
    environ.pop("PYTHONPATH", None)
    environ.pop("PYTHONHOME", None)
    environ["PYTHONNOUSERSITE"] = "1"
    # The backend runs the model with the first python3 on PATH.
    paths = [str(environment / "bin"), environ.get("PATH", os.defpath)]
    environ["PATH"] = os.pathsep.join(paths)
    libraries = [str(environment / "python-library"), environ.get("LD_LIBRARY_PATH")]
    environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    return environ


# --------------------------------------------------------------------- the server


def free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def check_port(host: str, port: int) -> None:
    """Refuse a port that is taken; Triton's own message would come much later."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(f"cannot listen on {host}:{port}: {error}") from None


def die_with_parent() -> None:
    """Have the kernel end the server if this program is killed outright."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Server:
    """A running tritonserver, with all that it starts and leaves."""

    def __init__(
        self,
        repository: Path,
        environment: Path,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        log: Path | None = None,
        admin_key: str | None = None,
    ) -> None:
        root = prepare(environment)
        self.ports = {}
        for name, port in {
            "http": http_port,
            "grpc": grpc_port,
            "metrics": metrics_port,
        }.items():
            self.ports[name] = port or free_port(host)
            check_port(host, self.ports[name])
        # "::" and "0.0.0.0" listen on every address, so loopback answers too.
        self.probe = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
        self.log = log or environment / "tritonserver.log"
        # Nobody else has this name: left-over stubs and memory are found by it.
        self.mark = f"triton_{os.getpid()}_{secrets.token_hex(4)}_"
        command = [root / "bin" / "tritonserver", "--model-repository", repository]
        command += ["--backend-directory", environment / "backends"]
        for name, port in self.ports.items():
            command += [f"--{name}-address", host, f"--{name}-port", port]
        # Models are what lies in the repository now; no client can load another.
        command += ["--model-control-mode", "none"]
        command += ["--exit-timeout-secs", EXIT_TIMEOUT]
        command += ["--backend-config", f"python,shm-region-prefix-name={self.mark}"]
        # Importing Torch-TensorRT and loading engines takes longer than the usual 30 s.
        command += ["--backend-config", "python,stub-timeout-seconds=300"]
        if admin_key:
            command += ["--http-restricted-api", f"{ADMIN_APIS}:admin-key={admin_key}"]
            command += [
                "--grpc-restricted-protocol",
                f"{ADMIN_APIS}:admin-key={admin_key}",
            ]
        with self.log.open("wb") as log_file:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                env=server_environ(environment),
                # Ctrl-C in the terminal is for this program, which ends the server.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def wait_until_ready(self, deadline: float) -> float:
        """Return the seconds it took; ServeError when it ends or takes too long."""
        url = f"http://{self.probe}:{self.ports['http']}/v2/health/ready"
        started = time.monotonic()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() - started < deadline:
            if self.process.poll() is not None:
                raise ServeError(
                    f"the server ended with code {self.process.returncode} before it "
                    f"was ready. The end of {self.log}:\n{self.log_tail()}"
                )
            try:
                with opener.open(url, timeout=2):
                    return time.monotonic() - started
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise ServeError(
            f"the server was not ready within {deadline:g} s. The end of {self.log}:\n"
            f"{self.log_tail()}"
        )

    def log_tail(self, lines: int = 25) -> str:
        text = self.log.read_text(errors="replace").splitlines()
        # Triton prints wide tables; the reason stands in the lines around them.
        useful = [line for line in text if line.strip() and line[0] not in "+|"]
        return "\n".join(f"  {line[:300]}" for line in useful[-lines:])

    def stubs(self) -> list[int]:
        """The processes that run this server's models, by their pids."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            stub = words[0].endswith(b"triton_python_backend_stub")
            if stub and any(word.startswith(self.mark.encode()) for word in words):
                found.append(int(entry.name))
        return found

    def stop(self, patience: float = 30) -> int:
        """End the server and all that it started; return 0 if nothing went wrong."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                print(f"No answer to SIGTERM for {patience:g} s: killing the server")
                self.process.kill()
                self.process.wait()
        # A server that was killed, or crashed, leaves its stubs and their memory.
        for pid in self.stubs():
            print(f"Ending the left-over model process {pid}")
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for segment in Path("/dev/shm").glob(f"{self.mark}*"):
            segment.unlink(missing_ok=True)
        code, last = self.process.returncode, self.log_tail(3)
        if code == 1 and "Exit timeout expired" in last:
            # With open connections, the server gets to the models in the last second.
            if re.search(r"Timeout 1: Found [1-9]\d* live models", last):
                print(f"A model's process has died, or does not end. Log: {self.log}")
                return code
            print(f"Clients kept connections open for more than {EXIT_TIMEOUT} s")
            return 0
        # Before it is ready, tritonserver does not handle the signal yet.
        return 0 if code == -signal.SIGTERM else code


class Stopped(Exception):
    """Ctrl-C or SIGTERM arrived."""


def stop_on_signal(number: int, frame: object) -> None:
    # Only the first one counts: ending the server must not be interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


def serve(args: argparse.Namespace) -> int:
    if args.prepare:
        server = prepare(args.environment)
        print(f"Environment: {args.environment}, server: {server}")
        return 0
    exposed = args.host not in LOOPBACK
    if exposed and not args.expose:
        raise ServeError(
            f"--host {args.host} lets other machines in. Triton asks nobody for a "
            "password and encrypts nothing. Pass --expose too if that is what you want"
        )
    if not any(args.repository.glob("*/config.pbtxt")):
        raise ServeError(f"no */config.pbtxt in {args.repository}: run export.py first")
    admin_key = secrets.token_urlsafe(24) if exposed else None
    signal.signal(signal.SIGINT, stop_on_signal)
    signal.signal(signal.SIGTERM, stop_on_signal)
    server = None
    try:
        server = Server(
            args.repository.resolve(),
            args.environment,
            args.host,
            args.http_port,
            args.grpc_port,
            args.metrics_port,
            args.log,
            admin_key,
        )
        print(f"Starting tritonserver, pid {server.process.pid}, log {server.log}")
        seconds = server.wait_until_ready(args.deadline)
        where = [f"{name} {args.host}:{port}" for name, port in server.ports.items()]
        print(f"Ready after {seconds:.1f} s: {', '.join(where)}", flush=True)
        if exposed:
            print(f"Exposed. Restricted APIs need the header admin-key: {admin_key}")
        code = server.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise ServeError(
            f"the server {how}. The end of {server.log}:\n{server.log_tail()}"
        )
    except Stopped:
        print("Stopping", flush=True)
        code = server.stop() if server else 0
        server = None
        print("Stopped" if code == 0 else f"tritonserver's exit code was {code}")
        return 0 if code == 0 else 1
    finally:
        if server:
            server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=HERE / "models" / "python",
        help="model repository, made by export.py (default: %(default)s)",
    )
    parser.add_argument(
        "--environment",
        type=Path,
        default=HERE / "server-env",
        help="folder of the server's environment (default: %(default)s)",
    )
    parser.add_argument(
        "--prepare", action="store_true", help="make the environment and end"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: loopback)"
    )
    parser.add_argument(
        "--expose", action="store_true", help="agree to a --host that others can reach"
    )
    for name, port in {"http": 8000, "grpc": 8001, "metrics": 8002}.items():
        parser.add_argument(
            f"--{name}-port", type=int, default=port, help=f"{port}; 0 takes a free one"
        )
    parser.add_argument(
        "--deadline",
        type=float,
        default=300,
        metavar="S",
        help="give up if the models are not ready after S seconds (default: 300)",
    )
    parser.add_argument(
        "--log", type=Path, help="the server's log (default: in the environment)"
    )
    args = parser.parse_args()
    args.environment = args.environment.resolve()
    try:
        return serve(args)
    except ServeError as error:
        print(f"serve.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
