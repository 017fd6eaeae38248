"""`python -m hkd_core.data check PATH`: is the data there and sound? A table in a terminal, else JSON.

Exit code 0 where it is usable. Exit code 2 where it is not, with one line a problem on stderr.
"""

import argparse
from collections.abc import Sequence

from hkd_core.common.errors import UserError
from hkd_core.data.leaks import Leak
from hkd_core.evaluation import output
from hkd_core.evaluation.arguments import Parser
from hkd_core.sources.check import SHOWN, Checked, benchmark_pictures, check, leaks

EXAMPLES = """examples:
  python -m hkd_core.data check pope/output --pictures coco/val2014
  python -m hkd_core.data check coco/annotations --ids chair_500.txt --pictures coco/val2014
  python -m hkd_core.data check llava_v1_5_mix665k.json --pictures llava --against pope/output chair_500.txt
  python -m hkd_core.data check hub:lmms-lab/POPE

data/README.md says where each data set comes from and how to lay it out."""
COUNTS = ("kind", "rows", "pictures", "found", "unreadable", "problems")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m hkd_core.data", description="Data sets on disk.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    command = commands.add_parser(
        "check",
        help="what is there, what is missing, what is wrong",
        description="Says what is there, what is missing and what is wrong, by file and line. Knows POPE, COCO's annotations, MME, AMBER, "
        "HallusionBench, the challenge, LLaVA's conversations, and CSV or JSON rows with image, prompt and answer.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("path", help="a file, a folder of files, or hub:OWNER/NAME")
    command.add_argument(
        "--pictures", metavar="FOLDER", help="the folder of the pictures (default: the usual places beside the files)"
    )
    command.add_argument("--ids", metavar="FILE", help="take these pictures of COCO's: numbers or names, or rows with image_id")
    command.add_argument(
        "--against", nargs="+", metavar="PATH", help="benchmarks, or lists of pictures, that PATH must not share pictures with"
    )
    command.add_argument(
        "--against-pictures", metavar="FOLDER", help="the folder of the benchmarks' pictures, to find copies by their looks"
    )
    command.add_argument("--format", choices=("json", "table"), help="default: a table in a terminal, else JSON")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    try:
        args = build_parser().parse_args(arguments)
        checked = check(args.path, pictures=args.pictures, ids=args.ids)
        if args.ids and not args.against and not any(one.source.kind == "coco" for one in checked):
            raise UserError(f"--ids: chooses among COCO's annotations, and none are at {args.path}")
        problems = [line for one in checked for line in shortened(one)]
        result: dict = {"path": args.path, "usable": not problems, "sources": [one.report() for one in checked]}
        if args.against:
            benchmarks = benchmark_pictures(args.against, args.against_pictures, args.ids)
            found = leaks(checked, benchmarks)
            problems += leak_lines(args.path, found)
            result |= {"usable": not problems, "leaks": leak_report(found, checked, benchmarks)}
        output.show(table(result) if args.format == "table" or (args.format is None and is_terminal()) else result, args.format)
        for line in problems:
            output.complain(line)
    except UserError as error:
        output.complain(str(error))
        return 2
    return 2 if problems else 0


def is_terminal() -> bool:
    return output.sys.stdout is not None and output.sys.stdout.isatty()


def shortened(checked: Checked) -> list[str]:
    """The problems to print: the first SHOWN, and how many more there are."""
    lines = checked.source.problems
    more = len(lines) - SHOWN
    return lines if more <= 0 else [*lines[:SHOWN], f"{checked.source.paths[0]}: {more} more problems; --format json lists all"]


def leak_lines(path: str, found: Sequence[Leak]) -> list[str]:
    if not found:
        return []
    first = found[0]
    how = "same number" if first.how == "number" else f"same looks, {first.bits} of 256 bits differ"
    return [
        f"{path}: {len(found)} training picture{'s are' if len(found) > 1 else ' is'} also in the benchmark, the first {first.train} as {first.benchmark} ({how})"
    ]


def leak_report(found: Sequence[Leak], train: Sequence[Checked], benchmarks: Sequence[Checked]) -> dict:
    """Counts, every leak, and how many pictures could be compared by looks."""
    counts = {f"by_{how}": sum(leak.how == how for leak in found) for how in ("number", "looks")}
    sizes = {
        "train_pictures": sum(len(one.names) for one in train),
        "benchmark_pictures": sum(len(one.names) for one in benchmarks),
    }
    compared = {
        f"{name}_compared_by_looks": _comparable(several) for name, several in (("train", train), ("benchmark", benchmarks))
    }
    return sizes | compared | counts | {"pictures": [vars(leak) for leak in found]}


def _comparable(several: Sequence[Checked]) -> int:
    return sum(found is not None for one in several for found in one.hashes.values())


def table(result: dict) -> dict:
    """The result as `output.table` shows it best: counts in one table, then what is in each data set."""
    shown: dict = {"path": result["path"], "usable": result["usable"]}
    shown["data sets"] = [{name: source[name] for name in COUNTS} for source in result["sources"]]
    for number, source in enumerate(result["sources"], 1):
        more = {"variant": source["variant"], "pictures in": source["folder"] or "-"}
        more |= {"not here": ", ".join(source["absent"])} if source["absent"] else {}
        shown[f"{number} {source['kind']}"] = more | {
            "rows": "; ".join(f"{name} {n}" for name, n in source["parts"].items()) or "-"
        }
    return shown | ({"leaks": result["leaks"]} if "leaks" in result else {})
