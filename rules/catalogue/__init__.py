"""What is known of services: their tools, what each does, and where in a request stands what rules ask for."""
