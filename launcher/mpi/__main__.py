"""The door of the programs that mpirun meets: `python -I -S <this file> agent|serve|mpirun|mpiexec ...`."""

import os
import sys

DIRECTORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

if not __package__:
    # Last on the path, so that no file of ours shadows the standard library.
    sys.path.append(DIRECTORY)
    __package__ = "mpi"

program, arguments = sys.argv[1], sys.argv[2:]
if program == "agent":
    from .agent import main as agent

    sys.exit(agent(arguments, DIRECTORY))
elif program == "serve":
    from .serve import main as serve

    sys.exit(serve(DIRECTORY))
else:
    from .shim import main as shim

    sys.exit(shim(program, arguments, DIRECTORY))
