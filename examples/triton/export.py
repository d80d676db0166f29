#!/usr/bin/env python3
"""Export a ResNet into a model repository for Triton Inference Server.

With a GPU the model is compiled by Torch-TensorRT: half precision inside, FP32 at the
interface, any batch size from 1 to --max-batch. Without one the plain PyTorch program
is exported in FP32, so that the same repository can be served and tested.

    python export.py                         # ResNet-50 into ./models beside this file
    python export.py --model resnet18        # a smaller model
    python export.py --eager                 # with a GPU, but without TensorRT

Two model repositories are written, from the templates in model_repository/:

    models/python/MODEL              for Triton's Python backend, which serve.py's
                                     pip-installed server and NVIDIA's container have
    models/libtorch/MODEL_libtorch   for the PyTorch backend, which only the container
                                     has

They are apart because a server refuses to start on an entry that it cannot load.

The files hold pickled objects: serve only files that you made or trust.
"""

from __future__ import annotations

import argparse
import copy
import logging
import shutil
import sys
import warnings
from pathlib import Path
from urllib.request import urlopen

import torch
from torch import nn
from torch.export import Dim

HERE = Path(__file__).resolve().parent
TEMPLATES = HERE / "model_repository"
MODELS = ("resnet18", "resnet50")


class HalfInside(nn.Module):
    """Runs a half-precision model behind an FP32 interface.

    Torch-TensorRT keeps the types that the program states, so the casts become part
    of the engine, and clients need not know about half precision.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image.half()).float()


def load_model(name: str, weights: str) -> nn.Module:
    """The network with pretrained weights, or with random ones, and say which."""
    from torchvision import models

    build = getattr(models, name)
    torch.manual_seed(0)
    if weights == "random":
        print("Weights: random (asked for)")
        return build(weights=None).eval()
    pretrained = models.get_model_weights(name).DEFAULT
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(pretrained.url).name)
    try:
        if not cached.exists():
            # A quick look before the download, which would wait long for no answer.
            urlopen(pretrained.url, timeout=5).close()
        model = build(weights=pretrained)
    except OSError as error:
        if weights == "pretrained":
            message = f"export.py: cannot download the weights: {error}"
            raise SystemExit(message) from None
        print(f"Weights: random (the pretrained ones cannot be reached: {error})")
        return build(weights=None).eval()
    print(f"Weights: pretrained ({pretrained})")
    return model.eval()


def write_entry(
    template: str, folder: Path, size: int, max_batch: int, on_gpu: bool
) -> Path:
    """Copy one template to `folder`; return the version folder for the program."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        TEMPLATES / template,
        folder,
        ignore=shutil.ignore_patterns("__pycache__", ".gitkeep"),
    )
    config = folder / "config.pbtxt"
    text = config.read_text()
    changes = {
        f'name: "{template}"': f'name: "{folder.name}"',
        "dims: [ 3, 224, 224 ]": f"dims: [ 3, {size}, {size} ]",
        # Both max_batch_size and the batch_size of the largest warm-up.
        "batch_size: 32\n": f"batch_size: {max_batch}\n",
    }
    if not on_gpu:
        # A list of GPUs is an error where there is none.
        changes["    kind: KIND_GPU\n"] = "    kind: KIND_CPU\n"
        only = "    # Only on this GPU: the program is bound to it.\n    gpus: [ 0 ]\n"
        changes[only] = ""
    for old, new in changes.items():
        if old not in text:
            raise SystemExit(f"export.py: {config} lacks the line `{old.strip()}`")
        text = text.replace(old, new)
    config.write_text(text)
    version = folder / "1"
    version.mkdir(exist_ok=True)
    return version


def compare(name: str, got: torch.Tensor, want: torch.Tensor, tolerance: float) -> None:
    """Refuse to write a program that does not compute what the model computes."""
    error = ((got - want).abs().max() / want.abs().max()).item()
    if not error < tolerance:
        raise SystemExit(
            f"export.py: {name} differs from eager by {error:.1e} of the largest "
            f"score; at most {tolerance:.0e} is accepted"
        )
    print(f"{name}: differs from eager by {error:.1e} of the largest score")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="resnet50")
    parser.add_argument(
        "--output",
        type=Path,
        default=HERE / "models",
        metavar="FOLDER",
        help="folder for the two repositories (default: %(default)s)",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        default=32,
        metavar="N",
        help="largest batch, at least 2 (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=224,
        metavar="PIXELS",
        help="height and width of the images (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        choices=("auto", "pretrained", "random"),
        default="auto",
        help="auto takes random weights where the pretrained cannot be downloaded",
    )
    parser.add_argument(
        "--eager",
        action="store_true",
        help="do not compile: export the PyTorch program, in half precision on a GPU",
    )
    parser.add_argument(
        "--skip-libtorch",
        action="store_true",
        help="write nothing for the container's PyTorch backend",
    )
    args = parser.parse_args()
    if args.max_batch < 2:
        parser.error("--max-batch must be at least 2")
    if args.size < 32:
        parser.error("--size must be at least 32")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    if on_gpu:
        print(f"Device: {torch.cuda.get_device_name()}, half precision inside")
    else:
        print(
            "Device: CPU. No GPU was found, so nothing is compiled: this exports the "
            "plain PyTorch program in FP32"
        )
    compiling = on_gpu and not args.eager

    model = load_model(args.model, args.weights).to(device)
    reference = model
    if on_gpu:
        # Compare with full precision, not with another half-precision run.
        reference, model = model, HalfInside(copy.deepcopy(model))

    # Two fresh batches, neither of which the exporter sees.
    shape = (3, args.size, args.size)
    checks = [torch.randn(n, *shape, device=device) for n in (1, args.max_batch)]
    with torch.no_grad():
        wanted = [reference(batch) for batch in checks]
    tolerance = 2e-2 if on_gpu else 1e-4

    # Torch-TensorRT tunes the engine for the batch of export's example, whatever
    # `opt_shape` says. A batch of 1 would be taken for a constant.
    tuned_for = max(2, args.max_batch // 4)
    example = torch.randn(tuned_for, *shape, device=device)
    batch = Dim("batch", min=1, max=args.max_batch)
    with torch.no_grad():
        exported = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    program = exported.module()
    if compiling:
        import torch_tensorrt

        program = torch_tensorrt.dynamo.compile(
            exported,
            arg_inputs=[
                # One optimization profile: the engine accepts this range of shapes.
                torch_tensorrt.Input(
                    min_shape=(1, *shape),
                    opt_shape=(tuned_for, *shape),
                    max_shape=(args.max_batch, *shape),
                    dtype=torch.float32,
                )
            ],
            # A program that is TensorRT only in part would hide a problem.
            require_full_compilation=True,
        )

    folder = args.output / "python" / args.model
    version = write_entry("resnet50", folder, args.size, args.max_batch, on_gpu)
    path = version / ("compiled.pt2" if compiling else "eager.pt2")
    if compiling:
        torch_tensorrt.save(
            program, str(path), arg_inputs=[example], dynamic_shapes=({0: batch},)
        )
    else:
        torch.export.save(exported, path)
    # Check what was written, not what is in memory.
    loaded = torch.export.load(path).module()
    with torch.no_grad():
        for check, want in zip(checks, wanted):
            name = f"{path.name}, batch {len(check)}"
            compare(name, loaded(check), want, tolerance)
    print(f"Wrote {folder}, {path.stat().st_size / 2**20:.0f} MiB: Python backend")

    if args.skip_libtorch:
        return
    folder = args.output / "libtorch" / f"{args.model}_libtorch"
    version = write_entry(
        "resnet50_libtorch", folder, args.size, args.max_batch, on_gpu
    )
    path = version / "model.pt"
    with torch.no_grad(), warnings.catch_warnings():
        # The PyTorch backend takes TorchScript only, however deprecated it is.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(program if compiling else model, example), path)
        traced = torch.jit.load(path)
        for check, want in zip(checks, wanted):
            name = f"{path.name}, batch {len(check)}"
            compare(name, traced(check), want, tolerance)
    print(f"Wrote {folder}, {path.stat().st_size / 2**20:.0f} MiB: PyTorch backend")
    if compiling and torch_tensorrt.ENABLED_FEATURES.tensorrt_rtx:
        print(
            "Note: the container's PyTorch backend runs engines of standard TensorRT. "
            f"This one is TensorRT-RTX's: to serve {folder.name}, run this script with "
            "torch-tensorrt in NVIDIA's PyTorch container of the same release."
        )


if __name__ == "__main__":
    # Libraries hint at each other's deprecations, and Torch-TensorRT warns that the
    # engine would not accept a batch of 1. It does: main() compares it with eager.
    logging.disable(logging.WARNING)
    sys.exit(main())
