"""Head training against the plain loop: `python -m bench.head --images 96 --epochs 10 --views 1 --json FILE`."""

from bench.against_plain import arguments, compare

if __name__ == "__main__":
    given = arguments(__doc__, views=1)
    compare(given, "Head training against the plain loop", unfreeze=0)
