"""The public objects: environments, tasks, traces, runs. Thin: every decision is made in `perdure.core`."""
