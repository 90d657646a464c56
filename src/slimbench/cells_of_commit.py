"""Labels of cells go in, as JSON on the command line; their records, in a store, come out.

`bench bisect` runs this file with an older SlimBench on the path: it uses what has been there from the start.
"""

from __future__ import annotations

import json
import sys

if __name__ == "__main__":
    from slimbench import environment, identity
    from slimbench.cli import prepare

    try:
        from slimbench.cli_run import suite_of
    except ImportError:  # where it was before 29 November 2026
        from slimbench.cli import _suite as suite_of  # type: ignore[attr-defined, no-redef]
    from slimbench.plan import plan
    from slimbench.progress import PlainView
    from slimbench.run import Options, run_inside
    from slimbench.store import Store

    asked = json.loads(sys.argv[1])
    prepare(None, asked["plugins"])
    seeds = ",".join(str(seed) for seed in sorted(set(asked["wanted"].values())))
    part = {"suite": asked["suite"], "task": asked["task"], "method": asked["method"], "seeds": seeds}
    suite = suite_of(everything=False, keep=(), profile=(), **part)
    cells = [
        c for c in plan(suite, environment.resolve(**asked["settings"])) if identity.cell_label(c) in asked["wanted"]
    ]
    run_inside(cells, Options(plugins=tuple(asked["plugins"])), Store(asked["store"]), PlainView())
    sys.exit(0 if len(cells) == len(asked["wanted"]) else 2)
