"""Environment for how OpenMP threads wait for each other. It must be set before torch is loaded. Imports nothing."""

# By default a thread spins for about 15 ms before it sleeps, at the end of each of the hundreds of loops of an update.
# With one other busy process on the machine, an update then takes up to a hundred times as long: a spinning thread
# occupies the core that the thread it waits for needs. A thousand spins take about 50 microseconds, long enough to last
# until the next loop.
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000"}
