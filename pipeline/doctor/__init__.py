"""What a machine is fit for, found out before a job: measurements of it, and a verdict on each."""
