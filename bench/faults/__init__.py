"""The fault campaign: what happens when processes are killed, disks are full, two start at once, input is hostile.

Each part is one command with a seed, a count and a bound in time, and prints a table. It exits with 1 if anything
failed. `python -m bench.faults` runs the short form of every part, as the gate does.
"""
