"""The service on Ray Serve: its start, its replicas, its HTTP process and the sockets between them."""
