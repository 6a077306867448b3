"""Where a job runs: in this process, or on a Ray cluster; the parts that they write are the same."""
