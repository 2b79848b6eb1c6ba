"""A module that parses arguments and exits when it is imported, as scripts do."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--needed", required=True)
parser.parse_args([])
