"""Four questions as POPE asks them, their right answers, and a command that is run on files."""

import json

from hkd_core.evaluation.__main__ import main

ASKED = ["dog", "car", "cup", "bus"]
QUESTIONS = [
    {"question_id": k, "image": f"{'ab'[k > 2]}.jpg", "text": f"Is there a {name} in the image?", "label": "yes" if k % 2 else "no"}
    for k, name in enumerate(ASKED, 1)
]
RIGHT = ["Yes", "No", "Yes", "No"]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run_command(capsys, *arguments):
    """Runs a command; (exit code, result or None, stderr)."""
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err
