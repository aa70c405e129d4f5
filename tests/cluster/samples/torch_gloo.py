"""A data-parallel training on processors; started by `torchrun`, or by hand with one process a node."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
print(f"rank {rank} of {world}, local rank {os.environ['LOCAL_RANK']}", flush=True)

total = torch.tensor([float(rank)])
dist.all_reduce(total)
assert total.item() == world * (world - 1) / 2, total

torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
data = torch.Generator().manual_seed(1 + rank)  # every rank has data of its own
truth = torch.tensor([[1.0], [-2.0], [3.0], [0.5]])
for _ in range(100):
    inputs = torch.randn(64, 4, generator=data)
    loss = torch.nn.functional.mse_loss(model(inputs), inputs @ truth)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

mine = model.module.weight.detach().clone()
same = mine.clone()
dist.broadcast(same, src=0)
assert torch.equal(mine, same)  # the gradients were averaged, so all have the same model
dist.barrier()
if rank == 0:
    assert loss.item() < 1e-3, loss.item()
    if "ARTIFACTS_DIR" in os.environ:
        torch.save(model.module.state_dict(), Path(os.environ["ARTIFACTS_DIR"], "model.pt"))
    print(f"trained on {world} ranks, loss {loss.item():.6f}", flush=True)
dist.destroy_process_group()
