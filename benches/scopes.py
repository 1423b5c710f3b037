"""How long the building of scopes takes, with Criterion: `python3 benches/scopes.py [NAME]`."""

import subprocess
import sys

import icount

if __name__ == "__main__":
    sys.exit(subprocess.run([*icount.scopes_program(), *sys.argv[1:]]).returncode)
