"""What calls cost and what they achieved: by tenant, day, account, workflow, run and tool."""
