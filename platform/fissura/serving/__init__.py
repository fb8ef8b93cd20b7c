"""The service over HTTP: what it answers, refuses and limits. It knows nothing of Ray, which hosts it."""
