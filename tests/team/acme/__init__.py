"""What Acme adds to presswork."""
