#!/usr/bin/env python3
"""Submit a run's submission.csv to the competition with the official kaggle client.

    recipes/rfcx/upload.py exp/rfcx/v021 --message "v021, three cycles"

The file is checked first: probabilities in every row, no id twice. The client's answer
is printed. Without client or credentials it says what to do; nothing secret is read or written.
When the leaderboard shows the score, bin/ledger.py set TAG --public SCORE notes it.
"""

import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script


def main(argv: list[str] | None = None) -> int:
    """Check and submit."""
    parser = ScriptParser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="folder of a finished run")
    parser.add_argument("--message", help="what the leaderboard shows (default: the folder's name)")
    args = parser.parse_args(argv)

    from local.io.errors import CanopyError
    from local.scoring.metrics.clip_tables import read_clip_table
    from local.tasks.submission_csv import check_submission
    from recipes.rfcx.client import PAGE, SLUG, call_client

    path = args.run / "submission.csv"
    if not path.is_file():
        raise CanopyError(f"{path}: no such file; finish the run (stage 5) or give its folder")
    check_submission(read_clip_table(path).reset_index())
    message = args.message or args.run.resolve().name
    # One word each, so that a text that begins with a dash is no option.
    options = [f"--file={path}", f"--message={message}"]
    answer = call_client("submit", SLUG, *options, keep_output=True)
    print(answer.strip())
    if "could not" in answer.lower():
        # The client ends with 0 even where the upload failed.
        raise CanopyError(f"the submission of {path} was not taken; try again, or upload at {PAGE}")
    print(f"when its score is known: bin/ledger.py set {args.run.resolve().name} --public SCORE")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
