"""The process that executes a notebook for run.py: its settings, and its last words if it dies."""

import os
import signal
from pathlib import Path

from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.manager import AsyncKernelManager
from traitlets import Unicode

SPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
WARNING = "[IPKernelApp] WARNING"
INLINE = "module://matplotlib_inline.backend_inline"  # the one that keeps figures in the notebook


def install(folder: Path, figures: Path) -> None:
    """Write a kernel of this interpreter into a folder, where Jupyter then looks first.

    A kernel of that name may be installed for another interpreter. What the user's shell or the
    user's own IPython sets must not decide what a notebook holds, hence these settings.
    """
    settings = {
        "FIXLIP_OUTPUT": str(figures),
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLBACKEND": INLINE,
        "PYTHONSTARTUP": "",
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS") or "ignore:IProgress not found",  # tqdm
        "SOURCE_DATE_EPOCH": "0",  # no date in PDFs: same figure, same file
    }
    # Jupyter fills in $NAME
    environment = {name: value.replace("$", "$$") for name, value in settings.items()}
    write_kernel_spec(folder / "kernels" / SPEC["name"], overrides={"env": environment})
    os.environ["JUPYTER_PATH"] = str(folder)


class LoggedKernel(AsyncKernelManager):
    """A kernel whose own words, not those of the cells, go to a file."""

    words = Unicode(help="path of the file").tag(config=True)

    async def start_kernel(self, **options: object) -> None:
        """Start the process."""
        with open(self.words, "ab") as file:
            await super().start_kernel(stdout=file, stderr=file, **options)

    async def is_alive(self) -> bool:
        """Whether the process runs; how it ended by itself is added to the file."""
        alive = await super().is_alive()
        if not alive and self.provisioner and not self.shutting_down:
            status = await self.provisioner.poll()
            said = last_words(Path(self.words))
            if not said or (status < 0 and said != _ending(status)):  # else a traceback says more
                with open(self.words, "a", encoding="utf-8") as file:
                    file.write(f"\n{_ending(status)}\n")
        return alive

    _async_is_alive = is_alive


def _ending(status: int) -> str:
    """How a process ended, from its exit status."""
    if status >= 0:
        return f"it ended with the exit status {status}"
    hint = ", often for lack of memory" if status == -signal.SIGKILL else ""
    return f"it was ended by {signal.Signals(-status).name}{hint}"


def last_words(log: Path) -> str:
    """The last line that a kernel wrote, but for ipykernel's warnings, or "" without one."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    said = (line.strip() for line in reversed(lines) if WARNING not in line)
    return next(filter(None, said), "")
