"""Verifies many archives in one process: reads a list of cases, prints a verdict for each.

A case is {"path", "key", "receipts", "checkpoints"} (paths of files; key may be null); a line of output is
{"verdict", "code"}.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "verifier"))
import quipu_verify  # noqa: E402

for line in sys.stdin:
    case = json.loads(line)
    result = quipu_verify.verify_archive(case["path"], case["key"], case["receipts"], case["checkpoints"])
    print(json.dumps({"verdict": result["verdict"], "code": result["code"]}), flush=True)
