"""A module that parses arguments, as scripts do, when it is imported."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--needed", required=True)
parser.parse_args([])
