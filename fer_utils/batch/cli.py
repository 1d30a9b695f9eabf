"""The command line of ``./run_all.sh``.

Only the standard library is imported here: ``./run_all.sh --help`` answers before anything is installed.
"""

import argparse
import sys

DESCRIPTION = """\
Reproduce the study: notebooks in, one HTML report out. Called again, it goes on where it stopped, and does nothing
where nothing changed."""

EPILOG = """\
other calls:
  ./run_all.sh test       run the tests
  ./run_all.sh lab        open the notebooks in JupyterLab, on this machine only
  ./run_all.sh try IMAGE  find the faces in an image and print what a trained network sees in each
                          (takes --out DIR and --model NAME; without them, the newest run and its best model)
  ./run_all.sh report     make the figures and the report again from a run's files, without training
                          (takes --out DIR; without it, the newest run)
  ./run_all.sh compare RUN [OTHER]
                          two run folders side by side, and what may explain the difference; without OTHER, RUN
                          beside the published results
  ./run_all.sh verify     compute the published results in figures/ again from their predictions, and say what
                          differs (takes another folder)
Options after -- go to Snakemake as they are, for example: ./run_all.sh -- --dry-run"""

PROFILE = """smoke: plumbing only; quick: real data, shortened; paper: the thesis's setting; auto (default): paper with
a GPU, else quick, and smoke on synthetic data"""
DATA = """auto (default) takes the data of the run in --out, else looks at FER2013_DATA, data/, Kaggle, and falls back
to drawn faces; PATH is a zip, a folder or a CSV"""


def make_parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="./run_all.sh",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--profile", default="auto", metavar="smoke|quick|paper|auto", help=PROFILE)
    add("--data", default="auto", metavar="auto|synthetic|kaggle|PATH", help=DATA)
    add("--models", metavar="A,B", help="entries of config.yaml, or all; default: the thesis's four")
    add("--seeds", default="0", metavar="0,1", help="random seeds; 0-99 is a range (default 0)")
    add("--jobs", type=int, default=1, metavar="N", help="models trained at once, each on a GPU of its own (default 1)")
    add("--cluster", metavar="slurm[:PARTITION]", help="train on the nodes of a cluster; docs/cluster.md")
    add("--kernel", default="fer2013", metavar="NAME", help="Jupyter kernel for the notebooks")
    add("--out", metavar="DIR", help="run folder; default: results/PROFILE-DATA")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a notebook's parameter; may be repeated")
    add("--publish", action="store_true", help="publish the run in figures/: figures, verdicts, predictions, report")
    # Whether Snakemake sends the jobs to other machines, which what follows `--` says.
    parser.set_defaults(elsewhere=False)
    return parser


if __name__ == "__main__":
    make_parser().parse_args(sys.argv[1:])
