"""The processors that are emulated, and what a program sees of them."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

#: What a program reads about the cores of a machine: there is one.
ONE_CORE = {"kernel_max": "0", "possible": "0", "present": "0", "online": "0"}


@dataclass(frozen=True)
class Processor:
    """One processor that QEMU emulates.

    Attributes:
        name: Its name in the table.
        machine: ``x86_64`` or ``aarch64``.
        model: What QEMU calls it.
        flags: What ``/proc/cpuinfo`` lists, besides what each processor of the machine can do.
        part: Number of the core in ``/proc/cpuinfo``, on AArch64.
        without: Formats that no package from PyPI runs there.
    """

    name: str
    machine: str
    model: str
    flags: str
    part: str = ""
    without: tuple[str, ...] = ()

    def cpuinfo(self) -> str:
        """Return the content of ``/proc/cpuinfo``: QEMU shows that of the machine itself."""
        if self.machine == "x86_64":
            lines = {
                "processor": "0",
                "vendor_id": "GenuineIntel",
                "model name": f"{self.name} (QEMU)",
                "flags": f"fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt avx {self.flags}".strip(),
            }
        else:
            lines = {
                "processor": "0",
                "Features": f"fp asimd aes pmull sha1 sha2 crc32 {self.flags}".strip(),
                "CPU implementer": "0x41",
                "CPU architecture": "8",
                "CPU variant": "0x3",
                "CPU part": self.part,
                "CPU revision": "1",
            }
        return "".join(f"{key}\t: {value}\n" for key, value in lines.items()) + "\n"

    def emulator(self, prefix: Path) -> list[str]:
        """Return the words that start QEMU; a file under ``prefix`` hides that of the machine."""
        return [f"qemu-{self.machine}", "-cpu", self.model, "-L", str(prefix)]

    def is_available(self) -> bool:
        """Tell whether QEMU's program for the machine is installed."""
        return shutil.which(f"qemu-{self.machine}") is not None


#: In the order of the table. QEMU emulates no AVX-512 and no AMX.
PROCESSORS = (
    Processor("x86-64, AVX2, no VNNI (Haswell)", "x86_64", "Haswell", "fma avx2 bmi1 bmi2"),
    Processor("x86-64, AVX (Sandy Bridge)", "x86_64", "SandyBridge", ""),
    # torch, which ExecuTorch's Python interface imports, has instructions of ARMv8.2
    Processor("AArch64 (Cortex-A72)", "aarch64", "cortex-a72", "", "0xd08", ("executorch",)),
    Processor(
        "AArch64, dot products (Neoverse N1)",
        "aarch64",
        "neoverse-n1",
        "atomics fphp asimdhp asimdrdm asimddp",
        "0xd0c",
    ),
    Processor(
        "AArch64, dot and matrix products, SVE",
        "aarch64",
        "max,sme=off",
        "atomics fphp asimdhp asimdrdm asimddp sve i8mm",
        "0xd0c",
    ),
    Processor(
        "AArch64, the same and SME",
        "aarch64",
        "max",
        "atomics fphp asimdhp asimdrdm asimddp sve i8mm sme",
        "0xd0c",
    ),
)


def is_emulated_here() -> bool:
    """Tell whether this machine can be the one that the others are compared with."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


def write_prefix(processor: Processor, prefix: Path, root: Path | None) -> None:
    """Make the folder that an emulator puts before the machine's own files.

    Args:
        processor: The processor.
        prefix: The folder to make.
        root: Libraries and programs of another machine; None for those of this one.
    """
    cores = prefix / "sys" / "devices" / "system" / "cpu"
    for folder in (prefix / "proc", cores):
        folder.mkdir(parents=True, exist_ok=True)
    (prefix / "proc" / "cpuinfo").write_text(processor.cpuinfo(), encoding="utf-8")
    for name, text in ONE_CORE.items():
        (cores / name).write_text(f"{text}\n", encoding="utf-8")
    for name in ("lib", "usr", "etc") if root else ():
        (prefix / name).unlink(missing_ok=True)
        (prefix / name).symlink_to((root or prefix) / name, target_is_directory=True)
