"""The last two blocks against the plain loop: `python -m bench.finetune --images 96 --epochs 10 --views 2`."""

from bench.against_plain import arguments, compare

if __name__ == "__main__":
    given = arguments(__doc__, views=2)
    compare(given, "The last two blocks against the plain loop", unfreeze=2)
