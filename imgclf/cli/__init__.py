"""The command line: one module for each command."""

import gc

# Starting up makes some 100,000 objects that live to the end. By default Python looks through the young ones after
# every 700 new ones, and that takes a tenth of the time of a short command.
gc.set_threshold(50_000, 20, 50)
