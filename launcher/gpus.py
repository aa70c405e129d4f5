"""From the GPU ids that Ray gives to the devices of a host, and to the names by which CUDA finds just those."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTROL_DEVICES = (
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
    "/dev/nvidia-caps",
)


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU; `minor` names its device file."""

    minor: str
    uuid: str


def survey(root: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[Gpu, ...]:
    """The host's NVIDIA GPUs by bus address, which is the order of NVML's, and so of Ray's, ordinals; may be none."""
    found = []
    for path in sorted(root.glob("*/information")):
        lines = (line.partition(":") for line in path.read_text().splitlines())
        fields = {name.strip(): value.strip() for name, _, value in lines}
        found.append(Gpu(minor=fields.get("Device Minor", ""), uuid=fields.get("GPU UUID", "")))
    return tuple(found)


def devices(gpu_ids: Sequence[str], gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """The device files that a command with these GPUs needs; none without GPUs."""
    chosen = [_gpu(gpu_id, gpus) for gpu_id in gpu_ids]
    minors = [gpu.minor for gpu in chosen if gpu is not None and gpu.minor]
    return (*(f"/dev/nvidia{minor}" for minor in minors), *CONTROL_DEVICES) if minors else ()


def visible(gpu_ids: Sequence[str], gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """The value of CUDA_VISIBLE_DEVICES: ordinals where the command gets every GPU of the host, else UUIDs.

    CUDA numbers the GPUs whose device files it can open. In a sandbox with some of them an ordinal of the host would
    mean another one; a UUID never does.
    """
    chosen = [_gpu(gpu_id, gpus) for gpu_id in gpu_ids]
    if len(set(gpu_ids)) == len(gpus):
        return tuple(gpu_ids)
    return tuple(gpu.uuid if gpu and gpu.uuid else gpu_id for gpu, gpu_id in zip(chosen, gpu_ids, strict=True))


def _gpu(gpu_id: str, gpus: Sequence[Gpu]) -> Gpu | None:
    if gpu_id.isdigit():
        return gpus[int(gpu_id)] if int(gpu_id) < len(gpus) else None
    by_uuid: Mapping[str, Gpu] = {gpu.uuid: gpu for gpu in gpus}
    return by_uuid.get(gpu_id)
