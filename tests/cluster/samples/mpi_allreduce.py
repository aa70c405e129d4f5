"""An all-reduce of arrays and of objects over all ranks; `mpirun python -m mpi4py mpi_allreduce.py`."""

import os
import socket
import sys

import numpy as np
from mpi4py import MPI

world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()
total = np.empty(100_000)
world.Allreduce(np.full(100_000, float(rank)), total)
assert (total == size * (size - 1) / 2).all()
hosts = world.allgather((rank, socket.gethostname(), os.getcwd()))
assert [each[0] for each in hosts] == list(range(size))
if rank == 0:
    names = sorted({name for _, name, _ in hosts})
    print(MPI.Get_library_version().split("\n")[0][:60].strip("\0"))
    print(f"all-reduce over {size} ranks: right; on {', '.join(names)}", flush=True)
sys.exit(0)
