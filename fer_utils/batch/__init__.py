"""The batch run: command line, configuration, plan, jobs, the processes of a run and its progress."""
